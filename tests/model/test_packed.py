"""Packed sentences: what the padded form gives, for every sentence, whatever stands beside it."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from seq2seq.model.dropout import seeded
from seq2seq.model.packed import Packed, Sentences, attend_packed
from seq2seq.model.transformer import PAD

CHOICES = [
    {},
    {"norm": "pre"},
    {"activation": "gelu", "num_heads": 3, "head_size": 7},
    {"positions": "learned", "max_positions": 32},
    {"tied_embeddings": "none", "norm": "pre", "positions": "learned", "max_positions": 32},
    {"shared": False, "source_vocab_size": 25, "tied_embeddings": "target"},
]
LENGTHS = [
    ([7, 3, 5], [4, 6, 3]),
    ([1], [1]),
    ([6], [9]),
    ([1, 17, 1, 2], [18, 1, 1, 5]),
    ([4, 4, 4], [5, 5, 5]),
]
properties = settings(deadline=None, max_examples=25)
lengths = st.lists(st.integers(1, 9), min_size=1, max_size=6)


def sentences_of(lengths):
    return Sentences.of(torch.tensor([0, *lengths]).cumsum(0))


def packed(ids, lengths):
    """The sentences of padded ids [B, T] one after the other [N], and where they stand."""
    return torch.cat([row[:length] for row, length in zip(ids, lengths, strict=True)]), sentences_of(lengths)


def packed_states(model, batch, lengths):
    (source, sources), (target_input, targets) = map(packed, batch, lengths)
    return model.packed_states(source, sources, target_input, targets)


def exact(model):
    """The same model in float64, which the kernels do not take."""
    double = copy.deepcopy(model).double()
    double.compute_dtype = torch.float64
    return double


def padded_states(model, batch, lengths):
    """`decoder_states(encode(...))` at the tokens [Nt, D]."""
    source, target_input = batch
    return packed(model.decoder_states(target_input, *model.encode(source)), lengths[1])[0]


def assert_near(value, expected, relative):
    """Up to `relative` of the largest number."""
    torch.testing.assert_close(value.double(), expected, rtol=0, atol=relative * float(expected.abs().max()))


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
@pytest.mark.parametrize("changes", CHOICES, ids=str)
def test_packed_states_are_the_padded_ones(make_model, make_batch, changes, lengths, grad):
    model, batch = make_model(**changes), make_batch(1, *lengths)
    expected = padded_states(exact(model), batch, lengths).detach()
    with torch.set_grad_enabled(grad):
        states = packed_states(model, batch, lengths)
    assert states.dtype == torch.float32 and states.shape == (sum(lengths[1]), 16)
    assert states.requires_grad == grad
    assert_near(states, expected, 3e-6)


@pytest.mark.parametrize("changes", CHOICES, ids=str)
def test_in_float64_they_are_equal_to_many_digits(make_model, make_batch, changes):
    model = exact(make_model(**changes))
    for given_ in LENGTHS:
        batch = make_batch(1, *given_)
        states = packed_states(model, batch, given_)
        assert states.dtype == torch.float64
        torch.testing.assert_close(states, padded_states(model, batch, given_), rtol=1e-12, atol=1e-12)


@properties
@given(source_lengths=lengths, target_lengths=lengths, seed=st.integers(0, 1000))
def test_packed_states_are_the_padded_ones_for_any_lengths(
    make_model, make_batch, source_lengths, target_lengths, seed
):
    count = min(len(source_lengths), len(target_lengths))
    given_ = source_lengths[:count], target_lengths[:count]
    model, batch = make_model(seed=seed, num_encoder_layers=1, num_decoder_layers=1), make_batch(seed, *given_)
    states = packed_states(model, batch, given_)
    assert_near(states, padded_states(exact(model), batch, given_).detach(), 3e-6)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("changes", CHOICES, ids=str)
def test_gradients_are_those_of_the_padded_form(make_model, make_batch, changes):
    model, given_ = make_model(**changes).train(), ([7, 1, 5], [1, 6, 3])  # without dropout
    batch = make_batch(1, *given_)
    double = exact(model)
    weight = torch.randn(10, 16)
    expected = torch.autograd.grad(
        (padded_states(double, batch, given_) * weight.double()).sum(), list(double.parameters()), allow_unused=True
    )
    gradients = torch.autograd.grad(
        (packed_states(model, batch, given_) * weight).sum(), list(model.parameters()), allow_unused=True
    )
    for (name, parameter), gradient, other in zip(model.named_parameters(), gradients, expected, strict=True):
        if name == "_output_weight":  # the states know nothing of it
            assert gradient is None and other is None
            continue
        assert other.any(), name
        assert gradient.dtype == parameter.dtype and gradient.shape == parameter.shape
        assert_near(gradient, other, 2e-5)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("rows", [(0, 5), (7, 0), (64, 30)])
@pytest.mark.parametrize("changes", CHOICES, ids=str)
def test_rows_after_the_last_sentence_change_nothing(make_model, make_batch, changes, rows):
    """Neither states nor gradients, and no padding piece gets any."""
    model, given_ = make_model(**changes), ([7, 1, 5], [1, 6, 3])
    batch = make_batch(1, *given_)
    (source, sources), (target_input, targets) = map(packed, batch, given_)
    plain = model.packed_states(source, sources, target_input, targets)
    source, target_input = F.pad(source, (0, rows[0]), value=PAD), F.pad(target_input, (0, rows[1]), value=PAD)
    sources, targets = (
        Sentences.of(sentences.starts, len(ids)) for sentences, ids in ((sources, source), (targets, target_input))
    )
    found = model.packed_states(source, sources, target_input, targets)
    assert found.shape == (10 + rows[1], 16) and found.isfinite().all()
    torch.testing.assert_close(found[:10], plain, atol=2e-6, rtol=1e-5)
    weight = torch.randn(10, 16)
    parameters = [parameter for name, parameter in model.named_parameters() if name != "_output_weight"]
    expected = torch.autograd.grad((plain * weight).sum(), parameters)
    gradients = torch.autograd.grad((found[:10] * weight).sum(), parameters)
    for parameter, gradient, other in zip(parameters, gradients, expected, strict=True):
        torch.testing.assert_close(gradient, other, atol=1e-5 * float(other.abs().max()), rtol=1e-4)
        if parameter is model.source_embedding or parameter is model.target_embedding:
            assert not gradient[PAD].any()


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("norm", ["post", "pre"])
def test_bfloat16_is_near(make_model, make_batch, norm):
    model, given_ = make_model(norm=norm), ([7, 3, 5], [4, 6, 3])
    batch = make_batch(1, *given_)
    expected = padded_states(exact(model), batch, given_).detach()
    model.compute_dtype = torch.bfloat16
    states = packed_states(model, batch, given_)
    assert states.dtype == torch.bfloat16
    assert float((states.detach().double() - expected).norm() / expected.norm()) < 0.05
    states.float().square().sum().backward()
    assert {parameter.grad.dtype for parameter in model.parameters()} == {torch.float32}


# What a sentence's states depend on


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("changes", CHOICES, ids=str)
def test_neighbours_and_their_order_change_nothing(make_model, make_batch, changes):
    model, given_ = make_model(**changes), ([7, 1, 5, 3], [4, 6, 1, 3])
    source, target_input = make_batch(1, *given_)
    together = packed_states(model, (source, target_input), given_).split(given_[1])
    for order in ([2, 0, 3, 1], [3, 2, 1, 0], [1, 1, 2], [0], [1], [2], [3]):
        rows = [[given_[side][row] for row in order] for side in (0, 1)]
        states = packed_states(model, (source[order], target_input[order]), rows).split(rows[1])
        for row, of_row in zip(order, states, strict=True):
            torch.testing.assert_close(of_row, together[row], atol=2e-6, rtol=1e-5)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("changes", CHOICES, ids=str)
def test_later_target_pieces_change_nothing_before_them(make_model, make_batch, changes):
    model, given_ = make_model(**changes), ([7, 3, 5], [6, 6, 6])
    source, target_input = make_batch(1, *given_)
    changed = target_input.clone()
    changed[:, 4:] = 19 - changed[:, 4:] + 4
    states = packed_states(model, (source, target_input), given_).view(3, 6, 16)
    others = packed_states(model, (source, changed), given_).view(3, 6, 16)
    assert torch.equal(others[:, :4], states[:, :4])
    assert not torch.isclose(others[:, 4:], states[:, 4:], atol=1e-3).all(-1).any()


@pytest.mark.usefixtures("kernels")
def test_no_gradient_comes_from_other_sentences_or_later_pieces(make_model, make_batch):
    """Of the state of one target piece: only its own sentence's source and its target up to the piece matter."""
    model, given_ = make_model(tied_embeddings="none"), ([4, 5, 3], [4, 6, 3])
    source, target_input = (torch.arange(sum(rows)) for rows in given_)  # every token a piece of its own
    states = model.packed_states(source, sentences_of(given_[0]), target_input, sentences_of(given_[1]))
    (states[6] * torch.randn(16)).sum().backward()  # the third piece of the second sentence
    by_source, by_target = (
        embedding.grad.abs().sum(1) > 0 for embedding in (model.source_embedding, model.target_embedding)
    )
    assert by_source.nonzero().flatten().tolist() == [4, 5, 6, 7, 8]
    assert by_target.nonzero().flatten().tolist() == [4, 5, 6]


@pytest.mark.usefixtures("kernels")
def test_the_place_in_its_sentence_and_every_source_piece_matter(make_model, make_batch):
    model, given_ = make_model(), ([6], [3])
    source, target_input = make_batch(1, *given_)
    states = packed_states(model, (source, target_input), given_)
    for place in range(5):
        changed = source.clone()
        changed[0, place] = 4 + (source[0, place] - 3) % 16
        assert not torch.allclose(packed_states(model, (changed, target_input), given_), states, atol=1e-4)
    reordered = source[:, [4, 3, 2, 1, 0, 5]]
    assert not torch.allclose(packed_states(model, (reordered, target_input), given_), states, atol=1e-4)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("kind", ["dropout", "attention_dropout", "activation_dropout"])
def test_each_dropout_acts_in_training_only_and_is_a_function_of_the_seed(make_model, make_batch, kind):
    model, given_ = make_model(**{kind: 0.3}), ([7, 3, 5], [4, 6, 3])
    batch = make_batch(1, *given_)
    calm = packed_states(model, batch, given_)
    assert torch.equal(packed_states(model, batch, given_), calm)
    torch.testing.assert_close(calm, packed_states(make_model(), batch, given_))
    model.train()
    with seeded(5):
        first = packed_states(model, batch, given_)
        second = packed_states(model, batch, given_)
    torch.manual_seed(1)
    with seeded(5):
        assert torch.equal(packed_states(model, batch, given_), first)
    assert not torch.allclose(first, second)
    assert not torch.allclose(first, calm)


@pytest.mark.usefixtures("kernels")
def test_dropout_falls_on_the_embeddings_of_both_sides(make_model, make_batch):
    """Where layers add nothing, their states are the embeddings: those of the decoder, or through it the encoder's."""
    model, given_ = make_model(norm="pre", dropout=0.4), ([70, 30], [60, 40])
    model.encoder_norm = model.decoder_norm = None
    with torch.no_grad():
        for layer in (*model.encoder_layers, *model.decoder_layers):
            layer.self_attention.out_weight.zero_()
            layer.self_attention.out_bias.zero_()
            layer.feed_forward.out_weight.zero_()
            layer.feed_forward.out_bias.zero_()
        for layer in model.decoder_layers:
            layer.cross_attention.out_weight.zero_()
            layer.cross_attention.out_bias.zero_()
    batch = make_batch(1, *given_)
    calm = packed_states(model, batch, given_).detach()
    model.train()
    states = packed_states(model, batch, given_).detach()
    dropped = states == 0
    assert float(dropped.float().mean()) == pytest.approx(0.4, abs=0.06)
    torch.testing.assert_close(states[~dropped], calm[~dropped] / 0.6, rtol=1e-4, atol=1e-6)

    memories = []
    decoder = model.decoder_layers[0]
    whole = decoder.cross_attention.packed
    decoder.cross_attention.packed = lambda x, memory, layout: memories.append(memory) or whole(x, memory, layout)
    model.eval()
    packed_states(model, batch, given_)
    model.train()
    packed_states(model, batch, given_)
    calm, memory = (memory.detach() for memory in memories)
    dropped = memory == 0
    assert float(dropped.float().mean()) == pytest.approx(0.4, abs=0.06)
    torch.testing.assert_close(memory[~dropped], calm[~dropped] / 0.6, rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("kernels")
def test_sentences_beyond_the_first_table_of_positions_are_served(make_model, make_batch):
    model, given_ = make_model(), ([300, 2], [2, 300])
    batch = make_batch(1, *given_)
    assert_near(packed_states(model, batch, given_), padded_states(exact(model), batch, given_).detach(), 3e-6)


@pytest.mark.usefixtures("kernels")
def test_learned_positions_end_with_their_table(make_model, make_batch):
    model = make_model(positions="learned", max_positions=8)
    packed_states(model, make_batch(1, [8, 8], [8, 8]), ([8, 8], [8, 8]))
    for given_ in (([9, 8], [8, 8]), ([8, 8], [8, 9])):
        with pytest.raises(ValueError, match=r"model\.max_positions = 8"):
            packed_states(model, make_batch(1, *given_), given_)


# Sentences


@properties
@given(lengths=lengths, width=st.integers(0, 3))
def test_what_is_padded_and_unpadded_is_as_before(lengths, width):
    sentences, x = sentences_of(lengths), torch.randn(sum(lengths), *(2,) * width)
    more = Sentences.of(sentences.starts, sum(lengths) + 2)
    longer = torch.cat([x, x.new_full((2, *x.shape[1:]), torch.nan)])
    assert torch.equal(more.pad(longer), sentences.pad(x))
    assert torch.equal(more.unpad(more.pad(longer)), torch.cat([x, torch.zeros(2, *x.shape[1:])]))
    padded = sentences.pad(x)
    assert torch.equal(padded, pad_sequence(list(x.split(lengths)), batch_first=True))
    assert torch.equal(sentences.unpad(padded), x)
    noise = torch.where(sentences.mask.view(*padded.shape[:2], *(1,) * width), padded, torch.nan)
    assert torch.equal(sentences.unpad(noise), x)  # nothing of the padding


@properties
@given(lengths=lengths)
def test_sentences_know_their_number_places_and_longest(lengths):
    sentences = sentences_of(lengths)
    assert sentences.count == len(lengths)
    assert sentences.tokens == sum(lengths)
    assert sentences.longest == max(lengths)
    assert sentences.positions.tolist() == [place for length in lengths for place in range(length)]
    assert sentences.mask.sum(1).tolist() == lengths
    assert sentences.mask.shape == (len(lengths), max(lengths))
    assert sentences.starts.dtype == sentences.positions.dtype == torch.int64
    assert sentences.to(torch.device("cpu")) is sentences


@pytest.mark.usefixtures("kernels")
def test_attention_is_within_a_sentence_and_causal_where_asked():
    """Uniform weights: the value that comes out is the mean of those that are seen."""
    queries, keys = sentences_of([2, 1, 3]), sentences_of([1, 3, 2])
    values = torch.arange(6.0)[:, None, None].expand(6, 1, 8)
    across = attend_packed(
        torch.zeros(6, 1, 1, 8),
        torch.stack([torch.zeros(6, 1, 8), values], dim=1),
        Packed(queries, keys),
    )
    assert across[:, 0, 0].tolist() == pytest.approx([0, 0, 2, 4.5, 4.5, 4.5])
    projected = torch.stack([torch.zeros(6, 1, 8), torch.zeros(6, 1, 8), values], dim=1)
    within = attend_packed(projected, None, Packed(queries, queries))
    assert within[:, 0, 0].tolist() == pytest.approx([0.5, 0.5, 2, 4, 4, 4])
    causal = attend_packed(projected, None, Packed(queries, queries, causal=True))
    assert causal[:, 0, 0].tolist() == pytest.approx([0, 0.5, 2, 3, 3.5, 4])
