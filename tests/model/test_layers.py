"""Parity of the stacks with torch.nn's, forward and backward."""

import pytest
import torch
from torch import nn

from seq2seq.model.transformer import PAD

CHOICES = [("post", "relu"), ("post", "gelu"), ("pre", "relu"), ("pre", "gelu")]


def attention_pairs(ours, theirs):
    return [
        (ours.in_weight, theirs.in_proj_weight),
        (ours.in_bias, theirs.in_proj_bias),
        (ours.out_weight, theirs.out_proj.weight),
        (ours.out_bias, theirs.out_proj.bias),
    ]


def norm_pairs(ours, theirs):
    return [(ours.weight, theirs.weight), (ours.bias, theirs.bias)]


def feed_forward_pairs(ours, theirs):
    return [
        (ours.in_weight, theirs.linear1.weight),
        (ours.in_bias, theirs.linear1.bias),
        (ours.out_weight, theirs.linear2.weight),
        (ours.out_bias, theirs.linear2.bias),
    ]


def encoder_pairs(ours, theirs):
    return [
        *attention_pairs(ours.self_attention, theirs.self_attn),
        *norm_pairs(ours.self_attention_residual.norm, theirs.norm1),
        *feed_forward_pairs(ours.feed_forward, theirs),
        *norm_pairs(ours.feed_forward_residual.norm, theirs.norm2),
    ]


def decoder_pairs(ours, theirs):
    return [
        *attention_pairs(ours.self_attention, theirs.self_attn),
        *norm_pairs(ours.self_attention_residual.norm, theirs.norm1),
        *attention_pairs(ours.cross_attention, theirs.multihead_attn),
        *norm_pairs(ours.cross_attention_residual.norm, theirs.norm2),
        *feed_forward_pairs(ours.feed_forward, theirs),
        *norm_pairs(ours.feed_forward_residual.norm, theirs.norm3),
    ]


def torch_encoder(model):
    """nn.TransformerEncoder with the model's weights, and the pairs of parameters."""
    config = model.config
    layer = nn.TransformerEncoderLayer(
        config.d_model,
        config.num_heads,
        config.d_ff,
        0.0,
        config.activation,
        batch_first=True,
        norm_first=config.norm == "pre",
    )
    norm = nn.LayerNorm(config.d_model) if config.norm == "pre" else None
    theirs = nn.TransformerEncoder(layer, config.num_encoder_layers, norm, enable_nested_tensor=False)
    pairs = [
        pair for layers in zip(model.encoder_layers, theirs.layers, strict=True) for pair in encoder_pairs(*layers)
    ]
    if norm is not None:
        pairs += norm_pairs(model.encoder_norm, theirs.norm)
    return theirs, copied(theirs, pairs)


def torch_decoder(model):
    config = model.config
    layer = nn.TransformerDecoderLayer(
        config.d_model,
        config.num_heads,
        config.d_ff,
        0.0,
        config.activation,
        batch_first=True,
        norm_first=config.norm == "pre",
    )
    norm = nn.LayerNorm(config.d_model) if config.norm == "pre" else None
    theirs = nn.TransformerDecoder(layer, config.num_decoder_layers, norm)
    pairs = [
        pair for layers in zip(model.decoder_layers, theirs.layers, strict=True) for pair in decoder_pairs(*layers)
    ]
    if norm is not None:
        pairs += norm_pairs(model.decoder_norm, theirs.norm)
    return theirs, copied(theirs, pairs)


def copied(theirs, pairs):
    assert {id(their) for _, their in pairs} == {id(parameter) for parameter in theirs.parameters()}
    with torch.no_grad():
        for our, their in pairs:
            their.copy_(our)
    return pairs


def check_gradients(pairs, our_inputs, their_inputs, our_output, their_output, real):
    torch.manual_seed(0)
    weight = torch.randn_like(our_output)[real]
    ours = torch.autograd.grad((our_output[real] * weight).sum(), [*our_inputs, *(our for our, _ in pairs)])
    theirs = torch.autograd.grad((their_output[real] * weight).sum(), [*their_inputs, *(their for _, their in pairs)])
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their, atol=2e-4, rtol=1e-3)
        assert our.any()


@pytest.mark.parametrize(("norm", "activation"), CHOICES)
def test_the_encoder_equals_torchs(make_model, make_batch, norm, activation):
    model = make_model(norm=norm, activation=activation).train()  # torch's encoder takes another path in eval mode
    theirs, pairs = torch_encoder(model)
    source, _ = make_batch(1, [7, 3, 5], [2, 2, 2])
    real = source != PAD
    output, mask = model.encode(source)
    assert torch.equal(mask[:, 0, 0], real)
    x = model.embed(source, model.source_embedding, model.source_positions)
    expected = theirs(x, src_key_padding_mask=~real)
    torch.testing.assert_close(output[real], expected[real], atol=2e-5, rtol=1e-4)
    embedding = [model.source_embedding]
    check_gradients(pairs, embedding, embedding, output, expected, real)


@pytest.mark.parametrize(("norm", "activation"), CHOICES)
def test_the_decoder_equals_torchs(make_model, make_batch, norm, activation):
    model = make_model(norm=norm, activation=activation).train()
    theirs, pairs = torch_decoder(model)
    source, target_input = make_batch(1, [7, 3, 5], [4, 6, 3])
    memory = torch.randn(3, 7, 16, requires_grad=True)
    real_source, real = source != PAD, target_input != PAD
    output = model.decoder_states(target_input, memory, real_source[:, None, None])
    x = model.embed(target_input, model.target_embedding, model.target_positions)
    expected = theirs(
        x,
        memory,
        tgt_mask=torch.ones(6, 6, dtype=torch.bool).triu(1),
        memory_key_padding_mask=~real_source,
    )
    torch.testing.assert_close(output[real], expected[real], atol=2e-5, rtol=1e-4)
    inputs = [model.target_embedding, memory]
    check_gradients(pairs, inputs, inputs, output, expected, real)


@pytest.mark.parametrize("kind", ["dropout", "attention_dropout", "activation_dropout"])
@pytest.mark.usefixtures("kernels")
def test_each_dropout_acts_in_training_only_and_repeats_under_a_seed(make_model, make_batch, kind):
    model, batch = make_model(**{kind: 0.3}), make_batch(1, [7, 3, 5], [4, 6, 3])
    calm = model(*batch)
    assert torch.equal(model(*batch), calm)
    torch.testing.assert_close(calm, make_model()(*batch))
    model.train()
    torch.manual_seed(5)
    first = model(*batch)
    second = model(*batch)
    torch.manual_seed(5)
    assert torch.equal(model(*batch), first)
    assert not torch.allclose(first, second)
    assert not torch.allclose(first, calm)
