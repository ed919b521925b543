"""Scaled dot-product and multi-head attention (section 3.2).

Shapes: B batch, T queries, S keys, D d_model, H heads, K head size. Masks are boolean, True means "may attend".
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seq2seq.model.dropout import dropout as drop
from seq2seq.model.functional import linear
from seq2seq.model.packed import Packed, attend_packed


@dataclass
class AttentionWeights:
    """Collects attention weights, one [B, H, T, S] tensor a layer, in the order in which layers run.

    Pass a new one to `encode`, `decode` or `forward` and read it afterwards. They have no gradient.
    """

    encoder: list[Tensor] = field(default_factory=list)
    decoder: list[Tensor] = field(default_factory=list)
    cross: list[Tensor] = field(default_factory=list)


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    dropout: float = 0.0,
    weights_out: list[Tensor] | None = None,
) -> Tensor:
    """softmax(Q K^T / sqrt(K)) V, equation 1.

    query [B, H, T, K], key and value [B, H, S, K], mask [B or 1, 1, T or 1, S] boolean or None. Returns
    [B, H, T, K]. `dropout` falls on the weights. Where `weights_out` is given, the weights [B, H, T, S] before
    dropout are appended to it. Every query must be allowed at least one key.

    On a CPU this is written out: at translation's sizes two matrix products and a softmax beat the fused kernel. On
    a GPU the fused kernel is used unless the weights are asked for: whoever changes one has to change both.
    """
    if query.is_cuda and weights_out is None:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
    scores = (query * (1.0 / math.sqrt(query.shape[-1]))) @ key.transpose(-2, -1)
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    weights = torch.softmax(scores, dim=-1)
    if weights_out is not None:
        weights_out.append(weights.detach())
    if dropout:
        weights = drop(weights, dropout, True)
    return weights @ value


def causal_mask(queries: int, keys: int, device: torch.device) -> Tensor:
    """[1, 1, queries, keys]: the last `queries` of `keys` positions, each sees itself and what came before (3.2.3)."""
    offset = keys - queries
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(offset)[None, None]


class MultiHeadAttention(nn.Module):
    """Section 3.2.2. The query, key and value projections are three D x HK matrices kept as one, `in_weight`.

    Callers project first, by `project_self` or by `project_query` and `project_memory`, so that decoding can keep keys
    and values; `forward` is the rest. Unlike the paper's, all four projections have biases.
    """

    def __init__(self, d_model: int, num_heads: int, key_size: int, dropout: float) -> None:
        super().__init__()
        self.num_heads, self.key_size, self.dropout = num_heads, key_size, dropout
        width = num_heads * key_size
        self.in_weight = nn.Parameter(torch.empty(3 * width, d_model))
        self.in_bias = nn.Parameter(torch.empty(3 * width))
        self.out_weight = nn.Parameter(torch.empty(d_model, width))
        self.out_bias = nn.Parameter(torch.empty(d_model))

    def reset_parameters(self, gain: float = 1.0) -> None:
        """Xavier times gain for each of the four projections, fused or not; biases 0."""
        for projection in self.in_weight.chunk(3):
            nn.init.xavier_uniform_(projection, gain)
        nn.init.xavier_uniform_(self.out_weight, gain)
        nn.init.zeros_(self.in_bias)
        nn.init.zeros_(self.out_bias)

    def project(self, x: Tensor, first: int, count: int) -> Tensor:
        """Projections `first` ... of x [..., D] -> [..., count, H, K]; 0 is the query's, 1 the key's, 2 the value's."""
        width = self.num_heads * self.key_size
        rows = slice(first * width, (first + count) * width)
        projected = linear(x, self.in_weight[rows], self.in_bias[rows])
        return projected.view(*x.shape[:-1], count, self.num_heads, self.key_size)

    def _project(self, x: Tensor, first: int, count: int) -> tuple[Tensor, ...]:
        """The same of x [B, T, D], each [B, H, T, K]."""
        return self.project(x, first, count).permute(2, 0, 3, 1, 4).unbind(0)

    def project_self(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value of x [B, T, D], each [B, H, T, K], in one matrix product."""
        query, key, value = self._project(x, 0, 3)
        return query, key, value

    def project_query(self, x: Tensor) -> Tensor:
        """[B, T, D] -> [B, H, T, K]."""
        return self._project(x, 0, 1)[0]

    def project_memory(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Key and value of the encoder's memory [B, S, D], each [B, H, S, K]."""
        key, value = self._project(memory, 1, 2)
        return key, value

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        weights_out: list[Tensor] | None = None,
    ) -> Tensor:
        """Attends with projected heads and mixes them: -> [B, T, D]. Shapes as in `attend`."""
        assert query.dim() == 4, "query, key and value are projected heads [B, H, T, K]: see project_self"
        dropout = self.dropout if self.training else 0.0
        heads = attend(query, key, value, mask, dropout, weights_out)
        joined = heads.transpose(1, 2).flatten(2)  # [B, T, HK]
        return linear(joined, self.out_weight, self.out_bias)

    def packed(self, x: Tensor, memory: Tensor | None, layout: Packed) -> Tensor:
        """Everything at once for packed sentences: x [Nq, D] attends to itself, or to memory [Nk, D] -> [Nq, D]."""
        dropout = self.dropout if self.training else 0.0
        if memory is None:
            heads = attend_packed(self.project(x, 0, 3), None, layout, dropout)
        else:
            heads = attend_packed(self.project(x, 0, 1), self.project(memory, 1, 2), layout, dropout)
        return linear(heads.flatten(1), self.out_weight, self.out_bias)
