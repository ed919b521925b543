"""Encoder and decoder layers (section 3.1): attention and feed-forward sub-layers, residuals, layer normalisation.

Post-norm, as in the paper, computes LayerNorm(x + Dropout(Sublayer(x))). Pre-norm, an explicit choice, computes
x + Dropout(Sublayer(LayerNorm(x))) and normalises once more at the end of the stack.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seq2seq.config import ModelConfig
from seq2seq.model.attention import MultiHeadAttention
from seq2seq.model.cache import LayerCache
from seq2seq.model.dropout import dropout
from seq2seq.model.functional import layer_norm, linear
from seq2seq.model.packed import Packed

LAYER_NORM_EPSILON = 1e-5


class LayerNorm(nn.Module):
    """Layer normalisation (Ba et al. 2016) over D."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(d_model))
        self.bias = nn.Parameter(torch.empty(d_model))

    def reset_parameters(self) -> None:
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return layer_norm(x, self.weight, self.bias, LAYER_NORM_EPSILON)


class FeedForward(nn.Module):
    """Section 3.3: W2 act(W1 x + b1) + b2."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.activation, self.dropout = config.activation, config.activation_dropout
        self.in_weight = nn.Parameter(torch.empty(config.d_ff, config.d_model))
        self.in_bias = nn.Parameter(torch.empty(config.d_ff))
        self.out_weight = nn.Parameter(torch.empty(config.d_model, config.d_ff))
        self.out_bias = nn.Parameter(torch.empty(config.d_model))

    def reset_parameters(self, gain: float = 1.0) -> None:
        """Xavier times gain; biases 0."""
        nn.init.xavier_uniform_(self.in_weight, gain)
        nn.init.xavier_uniform_(self.out_weight, gain)
        nn.init.zeros_(self.in_bias)
        nn.init.zeros_(self.out_bias)

    def forward(self, x: Tensor) -> Tensor:
        hidden = linear(x, self.in_weight, self.in_bias)
        hidden = F.relu(hidden) if self.activation == "relu" else F.gelu(hidden)
        hidden = dropout(hidden, self.dropout, self.training)
        return linear(hidden, self.out_weight, self.out_bias)


class Residual(nn.Module):
    """The residual connection around a sub-layer, its LayerNorm and its dropout (sections 3.1 and 5.4)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.pre_norm, self.dropout = config.norm == "pre", config.dropout
        self.norm = LayerNorm(config.d_model)

    def before(self, x: Tensor) -> Tensor:
        """What the sub-layer sees of x [..., D]."""
        normed: Tensor = self.norm(x) if self.pre_norm else x
        return normed

    def after(self, x: Tensor, output: Tensor) -> Tensor:
        """Joins x and the sub-layer's output, both [..., D]."""
        joined = dropout(output, self.dropout, self.training, residual=x)
        if not self.pre_norm:
            joined = self.norm(joined)
        return joined

    def forward(self, x: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        """x [..., D], and a sub-layer that keeps its shape -> the same shape."""
        return self.after(x, sublayer(self.before(x)))


def _attention(config: ModelConfig) -> MultiHeadAttention:
    return MultiHeadAttention(config.d_model, config.num_heads, config.key_size, config.attention_dropout)


class EncoderLayer(nn.Module):
    """Self-attention, then feed-forward (left half of Figure 1)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.self_attention = _attention(config)
        self.self_attention_residual = Residual(config)
        self.feed_forward = FeedForward(config)
        self.feed_forward_residual = Residual(config)

    def forward(self, x: Tensor, mask: Tensor, weights_out: list[Tensor] | None = None) -> Tensor:
        """x [B, S, D], mask [B, 1, 1, S] True at source pieces -> [B, S, D]."""

        def attend(x: Tensor) -> Tensor:
            query, key, value = self.self_attention.project_self(x)
            attended: Tensor = self.self_attention(query, key, value, mask, weights_out)
            return attended

        return self.sublayers(x, attend)

    def packed(self, x: Tensor, layout: Packed) -> Tensor:
        """The same for packed sentences: x [N, D] -> [N, D]."""
        return self.sublayers(x, lambda x: self.self_attention.packed(x, None, layout))

    def sublayers(self, x: Tensor, attend: Callable[[Tensor], Tensor]) -> Tensor:
        """attend: self-attention, as `forward` or as `packed` computes it."""
        x = self.self_attention_residual(x, attend)
        x = self.feed_forward_residual(x, self.feed_forward)
        return x


class DecoderLayer(nn.Module):
    """Masked self-attention, attention over the memory, feed-forward (right half of Figure 1)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.self_attention = _attention(config)
        self.self_attention_residual = Residual(config)
        self.cross_attention = _attention(config)
        self.cross_attention_residual = Residual(config)
        self.feed_forward = FeedForward(config)
        self.feed_forward_residual = Residual(config)

    def forward(
        self,
        x: Tensor,
        self_mask: Tensor | None,
        memory: tuple[Tensor, Tensor],
        memory_mask: Tensor,
        cache: LayerCache | None = None,
        self_weights_out: list[Tensor] | None = None,
        cross_weights_out: list[Tensor] | None = None,
    ) -> Tensor:
        """x [R, T, D] -> [R, T, D].

        R is B times the number of hypotheses a sentence. memory: this layer's projected key and value
        [B, H, S, K]; memory_mask [B, 1, 1, S]; self_mask [1, 1, T, t] or None where every position is visible.
        With a cache, x holds only the new positions, and those before them come from the cache.
        """

        def attend(x: Tensor) -> Tensor:
            query, key, value = self.self_attention.project_self(x)
            if cache is not None:
                key, value = cache.self_key.append(key), cache.self_value.append(value)
            attended: Tensor = self.self_attention(query, key, value, self_mask, self_weights_out)
            return attended

        def attend_across(x: Tensor) -> Tensor:
            # The hypotheses of one sentence stand side by side as queries, [B, (R/B) T, D]: the memory is not copied.
            query = self.cross_attention.project_query(x.reshape(memory[0].shape[0], -1, x.shape[-1]))
            attended: Tensor = self.cross_attention(query, *memory, memory_mask, cross_weights_out)
            return attended.view_as(x)

        return self.sublayers(x, attend, attend_across)

    def packed(self, x: Tensor, layout: Packed, memory: Tensor, memory_layout: Packed) -> Tensor:
        """The same for packed sentences: x [Nt, D] and the encoder's memory [Ns, D] -> [Nt, D]."""
        return self.sublayers(
            x,
            lambda x: self.self_attention.packed(x, None, layout),
            lambda x: self.cross_attention.packed(x, memory, memory_layout),
        )

    def sublayers(
        self, x: Tensor, attend: Callable[[Tensor], Tensor], attend_across: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """attend, attend_across: self- and cross-attention, as `forward` or as `packed` computes them."""
        x = self.self_attention_residual(x, attend)
        x = self.cross_attention_residual(x, attend_across)
        x = self.feed_forward_residual(x, self.feed_forward)
        return x
