import math

import pytest
import torch
from torch import nn

from seq2seq.model.attention import AttentionWeights, MultiHeadAttention, attend, causal_mask
from seq2seq.model.transformer import PAD


def pair(d_model, num_heads):
    """Ours and torch.nn's with the same weights."""
    torch.manual_seed(0)
    ours = MultiHeadAttention(d_model, num_heads, d_model // num_heads, 0.0)
    ours.reset_parameters()
    nn.init.normal_(ours.in_bias)
    nn.init.normal_(ours.out_bias)
    theirs = nn.MultiheadAttention(d_model, num_heads, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(ours.in_weight)
        theirs.in_proj_bias.copy_(ours.in_bias)
        theirs.out_proj.weight.copy_(ours.out_weight)
        theirs.out_proj.bias.copy_(ours.out_bias)
    return ours, theirs


def check_gradients(ours, theirs, our_output, their_output):
    weight = torch.randn_like(our_output)
    (our_output * weight).sum().backward()
    (their_output * weight).sum().backward()
    for our, their in (
        (ours.in_weight, theirs.in_proj_weight),
        (ours.in_bias, theirs.in_proj_bias),
        (ours.out_weight, theirs.out_proj.weight),
        (ours.out_bias, theirs.out_proj.bias),
    ):
        torch.testing.assert_close(our.grad, their.grad, atol=1e-4, rtol=1e-4)


def test_self_attention_equals_torch_multihead_attention():
    ours, theirs = pair(24, 3)
    x = torch.randn(2, 5, 24)
    mask = causal_mask(5, 5, x.device)
    collected = []
    output = ours(*ours.project_self(x), mask, collected)
    expected, weights = theirs(x, x, x, attn_mask=~mask[0, 0], average_attn_weights=False)
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(collected[0], weights, atol=1e-6, rtol=1e-5)
    check_gradients(ours, theirs, output, expected)


def test_attention_over_a_memory_equals_torch_multihead_attention():
    ours, theirs = pair(16, 4)
    x, memory = torch.randn(3, 4, 16), torch.randn(3, 6, 16)
    visible = torch.arange(6) < torch.tensor([6, 2, 4])[:, None]
    collected = []
    output = ours(ours.project_query(x), *ours.project_memory(memory), visible[:, None, None], collected)
    expected, weights = theirs(x, memory, memory, key_padding_mask=~visible, average_attn_weights=False)
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(collected[0], weights, atol=1e-6, rtol=1e-5)
    check_gradients(ours, theirs, output, expected)


def test_attention_is_equation_1():
    torch.manual_seed(0)
    query, key, value = torch.randn(1, 1, 1, 3), torch.randn(1, 1, 4, 3), torch.randn(1, 1, 4, 3)
    exponentials = [
        math.exp(sum(q * k for q, k in zip(query[0, 0, 0].tolist(), row, strict=True)) / math.sqrt(3))
        for row in key[0, 0].tolist()
    ]
    expected = sum(weight / sum(exponentials) * row for weight, row in zip(exponentials, value[0, 0], strict=True))
    torch.testing.assert_close(attend(query, key, value, None)[0, 0, 0], expected)


def test_the_written_out_attention_equals_the_fused_kernel():
    torch.manual_seed(0)
    query, key, value = torch.randn(2, 3, 5, 8), torch.randn(2, 3, 7, 8), torch.randn(2, 3, 7, 8)
    mask = (torch.rand(2, 1, 5, 7) < 0.6) | (torch.arange(7) == 0)
    fused = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    torch.testing.assert_close(attend(query, key, value, mask), fused, atol=1e-6, rtol=1e-5)


def test_head_size_is_free_of_d_model():
    torch.manual_seed(0)
    attention = MultiHeadAttention(10, 3, 7, 0.0)
    attention.reset_parameters()
    x = torch.randn(2, 4, 10)
    query, key, value = attention.project_self(x)
    assert query.shape == key.shape == value.shape == (2, 3, 4, 7)
    assert attention(query, key, value, None).shape == (2, 4, 10)
    torch.testing.assert_close(attention.project_query(x), query)
    for memory, mine in zip(attention.project_memory(x), (key, value), strict=True):
        torch.testing.assert_close(memory, mine)


def test_attention_dropout_falls_on_the_weights_in_training_only():
    torch.manual_seed(0)
    attention = MultiHeadAttention(8, 2, 4, 0.5)
    attention.reset_parameters()
    projected = attention.project_self(torch.randn(2, 6, 8))
    collected = []
    attention.eval()
    calm = attention(*projected, None, collected)
    assert torch.equal(attention(*projected, None), calm)
    attention.train()
    assert not torch.allclose(attention(*projected, None, collected), calm)
    torch.testing.assert_close(collected[1], collected[0])  # those collected are before dropout


def test_xavier_bounds_hold_for_every_projection_of_the_fused_matrix():
    torch.manual_seed(0)
    attention = MultiHeadAttention(64, 4, 16, 0.0)
    attention.reset_parameters()
    bound = math.sqrt(6 / (64 + 64))
    for projection in (*attention.in_weight.detach().chunk(3), attention.out_weight.detach()):
        assert projection.shape == (64, 64)
        assert 0.95 * bound < float(projection.abs().max()) <= bound
        assert float(projection.std()) == pytest.approx(bound / math.sqrt(3), rel=0.05)
    assert not attention.in_bias.any()
    assert not attention.out_bias.any()


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_asking_for_attention_weights_changes_nothing_and_gives_distributions(make_model, make_batch, norm):
    model = make_model(norm=norm)
    source, target_input = make_batch(1, [5, 2, 4], [4, 6, 3])
    collected = AttentionWeights()
    asked = model(source, target_input, attention=collected)
    assert torch.equal(asked, model(source, target_input))
    real_source = source != PAD
    for weights, shape in (
        (collected.encoder, (3, 2, 5, 5)),
        (collected.decoder, (3, 2, 6, 6)),
        (collected.cross, (3, 2, 6, 5)),
    ):
        assert [layer.shape for layer in weights] == [shape, shape]
        for layer in weights:
            torch.testing.assert_close(layer.sum(-1), torch.ones(shape[:3]))
    for layer in (*collected.encoder, *collected.cross):
        assert not layer.transpose(1, 3)[~real_source].any()
    for layer in collected.decoder:
        assert not layer.triu(1).any()


def test_the_causal_mask_shows_each_query_itself_and_what_came_before():
    mask = causal_mask(2, 4, torch.device("cpu"))
    assert mask.tolist() == [[[[True, True, True, False], [True, True, True, True]]]]
