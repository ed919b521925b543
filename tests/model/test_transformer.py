import math

import pytest
import torch

from seq2seq.config import ModelConfig
from seq2seq.model.transformer import EOS, PAD, Transformer
from seq2seq.recipe import build_config

CHOICES = [
    {},
    {"norm": "pre"},
    {"activation": "gelu"},
    {"positions": "learned", "max_positions": 32},
    {"num_heads": 3, "head_size": 7},
    {"num_encoder_layers": 3, "num_decoder_layers": 1},
    {"tied_embeddings": "all"},
    {"tied_embeddings": "target"},
    {"tied_embeddings": "none"},
    {"shared": False, "source_vocab_size": 25},
    {"shared": False, "source_vocab_size": 25, "tied_embeddings": "target", "norm": "pre"},
    {"shared": False, "source_vocab_size": 25, "tied_embeddings": "none", "positions": "learned"},
]


@pytest.mark.parametrize("changes", CHOICES, ids=str)
def test_shapes_hold_for_every_choice(make_model, make_batch, changes):
    model = make_model(**changes)
    source, target_input = make_batch(1, [7, 3, 5], [4, 6, 3])
    memory, mask = model.encode(source)
    assert memory.shape == (3, 7, 16)
    assert mask.shape == (3, 1, 1, 7)
    assert mask.dtype == torch.bool
    assert model.decoder_states(target_input, memory, mask).shape == (3, 6, 16)
    logits = model.decode(target_input, memory, mask)
    assert logits.shape == (3, 6, 20)
    assert torch.equal(model(source, target_input), logits)
    assert logits.isfinite().all()
    logits.logsumexp(-1).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


@pytest.mark.parametrize("changes", CHOICES, ids=str)
def test_later_target_pieces_change_nothing_before_them(make_model, make_batch, changes):
    model = make_model(**changes)
    source, target_input = make_batch(1, [7, 3, 5], [6, 6, 6])
    changed = target_input.clone()
    changed[:, 4:] = 19 - changed[:, 4:] + 4
    logits, others = model(source, target_input), model(source, changed)
    torch.testing.assert_close(others[:, :4], logits[:, :4], atol=0.0, rtol=0.0)
    assert not torch.allclose(others[:, 4:], logits[:, 4:], atol=1e-3)


@pytest.mark.parametrize("changes", CHOICES, ids=str)
def test_padding_changes_nothing(make_model, make_batch, changes):
    model = make_model(**changes)
    source, target_input = make_batch(1, [6, 6], [5, 5])
    logits = model(source, target_input)
    padded = model(torch.nn.functional.pad(source, (0, 4)), torch.nn.functional.pad(target_input, (0, 3)))
    torch.testing.assert_close(padded[:, :5], logits, atol=1e-5, rtol=1e-4)


def test_the_batch_around_a_sentence_changes_nothing(make_model, make_batch):
    model = make_model()
    source_lengths, target_lengths = [7, 1, 5, 3], [4, 6, 1, 3]
    source, target_input = make_batch(1, source_lengths, target_lengths)
    together = model(source, target_input)
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(model(source[order], target_input[order]), together[order], atol=1e-5, rtol=1e-4)
    for row, (s, t) in enumerate(zip(source_lengths, target_lengths, strict=True)):
        alone = model(source[row : row + 1, :s], target_input[row : row + 1, :t])
        torch.testing.assert_close(alone[0], together[row, :t], atol=1e-5, rtol=1e-4)


def test_every_source_piece_and_its_place_matter(make_model, make_batch):
    model = make_model()
    source, target_input = make_batch(1, [6], [3])
    logits = model(source, target_input)
    for place in range(5):
        changed = source.clone()
        changed[0, place] = 4 + (source[0, place] - 3) % 16
        assert not torch.allclose(model(changed, target_input), logits, atol=1e-4)
    reordered = source[:, [4, 3, 2, 1, 0, 5]]
    assert not torch.allclose(model(reordered, target_input), logits, atol=1e-4)


def test_sentences_beyond_the_first_table_of_positions_are_served(make_model, make_batch):
    model = make_model()
    source, target_input = make_batch(1, [300], [300])
    assert model(source, target_input).isfinite().all()
    assert model.source_positions.table.shape[0] >= 300


def test_learned_positions_end_with_their_table(make_model, make_batch):
    model = make_model(positions="learned", max_positions=8)
    model(*make_batch(1, [8], [8]))
    with pytest.raises(ValueError, match=r"model\.max_positions = 8"):
        model(*make_batch(1, [9], [8]))
    with pytest.raises(ValueError, match=r"model\.max_positions = 8"):
        model(*make_batch(1, [8], [9]))


def test_embeddings_are_scaled_by_the_root_of_d_model(make_model):
    model = make_model()
    ids = torch.tensor([[5, 9, EOS]])
    embedded = model.embed(ids, model.source_embedding, model.source_positions, start=3)
    expected = model.source_embedding[ids] * 4.0 + model.source_positions(3, 3)  # d_model is 16
    torch.testing.assert_close(embedded, expected)


def test_initial_embeddings_have_deviation_one_over_the_root_of_d_model():
    torch.manual_seed(0)
    model = Transformer(ModelConfig(d_model=64, num_heads=4, d_ff=64, tied_embeddings="none"), 3000, 2000, shared=False)
    for weight in (model.source_embedding, model.target_embedding, model.output_weight):
        assert float(weight.detach().std()) == pytest.approx(64**-0.5, rel=0.02)
        assert float(weight.detach().mean()) == pytest.approx(0.0, abs=0.001)


@pytest.mark.parametrize(
    ("given", "gain"),
    [({"norm": "post"}, 0.5), ({"norm": "pre"}, 1.0), ({"norm": "post", "initial_gain": 0.7}, 0.7)],
)
def test_matrices_of_layers_begin_as_xaviers_times_the_gain(given, gain):
    torch.manual_seed(0)
    config = ModelConfig(d_model=64, num_heads=4, d_ff=160, num_encoder_layers=2, num_decoder_layers=2, **given)
    model = Transformer(config, 300, 300, shared=True)
    matrices = [weight for weight in model.parameters() if weight.dim() == 2 and weight is not model.target_embedding]
    assert len(matrices) == 2 * 4 + 2 * 6
    for weight in matrices:
        fused = 3 if weight.shape == (3 * 64, 64) else 1
        bound = gain * math.sqrt(6 / (weight.shape[0] / fused + weight.shape[1]))
        assert 0.99 * bound < weight.abs().max().item() <= bound
        assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
    assert model.target_embedding.std().item() == pytest.approx(64**-0.5, rel=0.05)


def test_an_untrained_model_loses_about_log_v():
    torch.manual_seed(0)
    sizes = {"d_model": 64, "num_heads": 4, "d_ff": 128, "num_encoder_layers": 2, "num_decoder_layers": 2}
    model = Transformer(ModelConfig(**sizes, initial_gain=1.0), 1000, 1000, shared=True).eval()
    source, target_input, target_output = torch.randint(4, 1000, (3, 32, 12)).unbind()
    loss = torch.nn.functional.cross_entropy(model(source, target_input).flatten(0, 1), target_output.flatten())
    # Logits of an untrained model are about N(0, 1), which adds 1/2.
    assert math.log(1000) < loss.item() < math.log(1000) + 1.0


@pytest.mark.parametrize(("preset", "millions", "table_3"), [("base", 63.1, 65), ("big", 214.2, 213)])
def test_the_presets_have_the_papers_number_of_parameters(preset, millions, table_3):
    config = build_config({}, preset=preset).model
    with torch.device("meta"):
        model = Transformer(config, 37_000, 37_000, shared=True)
    d, f = config.d_model, config.d_ff
    attention, feed_forward, norm = 4 * (d * d + d), d * f + f + f * d + d, 2 * d
    encoder, decoder = attention + feed_forward + 2 * norm, 2 * attention + feed_forward + 3 * norm
    assert model.num_parameters() == 37_000 * d + 6 * (encoder + decoder)
    assert round(model.num_parameters() / 1e6, 1) == millions
    assert model.num_parameters() / 1e6 == pytest.approx(table_3, rel=0.035)


@pytest.mark.parametrize(
    ("changes", "matrices"),
    [
        ({"shared": True}, 1),
        ({"shared": True, "tied_embeddings": "all"}, 1),
        ({"shared": True, "tied_embeddings": "target"}, 2),
        ({"shared": True, "tied_embeddings": "none"}, 3),
        ({"shared": False}, 2),
        ({"shared": False, "tied_embeddings": "none"}, 3),
    ],
    ids=str,
)
def test_tied_matrices_are_one_object_and_are_saved_once(make_model, changes, matrices):
    model = make_model(**changes)
    weights = [model.source_embedding, model.target_embedding, model.output_weight]
    assert len({id(weight) for weight in weights}) == matrices
    assert (model.output_weight is model.target_embedding) == (matrices < 3)
    assert (model.source_embedding is model.target_embedding) == (matrices == 1)
    saved = model.state_dict()
    assert sum(value.shape == (20, 16) for value in saved.values()) == matrices
    assert len({value.data_ptr() for value in saved.values()}) == len(saved)
    assert sum(value.numel() for value in saved.values()) == model.num_parameters()


@pytest.mark.parametrize("sizes", [(20, 20, False), (20, 21, True)])
def test_tying_everything_needs_one_vocabulary(make_model, sizes):
    source_vocab_size, target_vocab_size, shared = sizes
    with pytest.raises(ValueError, match="one vocabulary"):
        make_model(
            source_vocab_size=source_vocab_size,
            target_vocab_size=target_vocab_size,
            shared=shared,
            tied_embeddings="all",
        )


def test_a_saved_model_gives_the_same_outputs(make_model, make_batch):
    model, other, batch = make_model(seed=1), make_model(seed=2), make_batch(1, [5, 3], [4, 6])
    assert not torch.allclose(other(*batch), model(*batch))
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(*batch), model(*batch))


def test_the_seed_alone_decides_the_initial_weights(make_model):
    one, same, other = make_model(seed=1), make_model(seed=1), make_model(seed=2)
    for name, value in one.state_dict().items():
        assert torch.equal(same.state_dict()[name], value)
        assert not torch.equal(other.state_dict()[name], value)


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("cast_weights", [False, True])
def test_bfloat16_computation_is_near_float32(make_model, make_batch, norm, cast_weights):
    model, (source, target_input) = make_model(norm=norm), make_batch(1, [7, 3, 5], [4, 6, 3])
    expected = model(source, target_input)
    model.compute_dtype = torch.bfloat16
    if cast_weights:
        model.to(torch.bfloat16)
    logits = model(source, target_input)
    assert logits.dtype == torch.bfloat16
    real = target_input != PAD
    torch.testing.assert_close(logits[real].float(), expected[real], atol=0.15, rtol=0.05)


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_rounded_layers_compute_the_same_bits(make_model, make_batch, norm):
    model, batch = make_model(norm=norm), make_batch(1, [7, 3, 5], [4, 6, 3])
    model.compute_dtype = torch.bfloat16
    with torch.no_grad():
        expected = model(*batch)
        model.round_layers()
        assert torch.equal(model(*batch), expected)
    layers = {name: parameter.dtype for name, parameter in model.named_parameters() if "layers." in name}
    assert {dtype for name, dtype in layers.items() if "norm." not in name} == {torch.bfloat16}
    assert {dtype for name, dtype in layers.items() if "norm." in name} == {torch.float32}
    assert model.target_embedding.dtype == torch.float32


def test_bfloat16_computation_keeps_float32_gradients(make_model, make_batch):
    model, batch = make_model().train(), make_batch(1, [7, 3, 5], [4, 6, 3])
    model(*batch).logsumexp(-1).sum().backward()
    expected = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    model.compute_dtype = torch.bfloat16
    model(*batch).float().logsumexp(-1).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.dtype == torch.float32
        difference = (parameter.grad - expected[name]).norm() / expected[name].norm().clamp_min(1e-3)
        assert float(difference) < 0.1, name
