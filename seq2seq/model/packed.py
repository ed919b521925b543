"""Batches without padding: the tokens of all sentences one after the other, [N, ...], and where each begins.

Everything but attention works on single tokens and does not see sentences at all. Attention over packed sentences is
here, three times: in the compiled kernels (CPU), in torch's attention for sequences of different lengths (GPU), and
through padding, which is what the other two are compared with.

Shapes: N tokens, B sentences, H heads, K head size.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from importlib.util import find_spec
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from seq2seq.model import native
from seq2seq.model.dropout import native_dropout


@dataclass(frozen=True)
class Sentences:
    """Where sentences stand among N rows: sentence b has rows starts[b] ... starts[b + 1] - 1.

    starts [B + 1] and positions [N], the place of each token in its sentence, are int64. tokens is starts[B]; rows
    after it, which only batches on a CPU have, belong to no sentence, and attention gives 0 for them. longest is the
    most tokens of a sentence.
    """

    starts: Tensor
    positions: Tensor
    tokens: int
    longest: int

    @staticmethod
    def of(starts: Tensor, rows: int | None = None) -> Sentences:
        """From starts [B + 1]; every sentence has at least one token. rows: N, if there are more than tokens."""
        starts = starts.to(torch.int64).contiguous()
        lengths, tokens = starts.diff(), int(starts[-1])
        positions = torch.zeros(tokens if rows is None else rows, dtype=torch.int64)
        torch.sub(torch.arange(tokens), starts[:-1].repeat_interleave(lengths), out=positions[:tokens])
        return Sentences(starts, positions, tokens, int(lengths.max()))

    @property
    def count(self) -> int:
        """B."""
        return self.starts.shape[0] - 1

    def to(self, device: torch.device) -> Sentences:
        """The same on a device."""
        if device.type == "cpu":
            return self
        starts, positions = (t.pin_memory().to(device, non_blocking=True) for t in (self.starts, self.positions))
        return Sentences(starts, positions, self.tokens, self.longest)

    @cached_property
    def places(self) -> Tensor:
        """[tokens]: where each token stands in the flattened [B, longest]."""
        lengths = self.starts[1:] - self.starts[:-1]
        first = torch.arange(self.count, device=self.starts.device) * self.longest
        return first.repeat_interleave(lengths, output_size=self.tokens) + self.positions[: self.tokens]

    @cached_property
    def mask(self) -> Tensor:
        """[B, longest], True at tokens."""
        lengths = self.starts[1:] - self.starts[:-1]
        return torch.arange(self.longest, device=self.starts.device) < lengths[:, None]

    def pad(self, x: Tensor) -> Tensor:
        """[N, ...] -> [B, longest, ...], zeros where there is no token."""
        padded = x.new_zeros(self.count * self.longest, *x.shape[1:]).index_copy(0, self.places, x[: self.tokens])
        return padded.view(self.count, self.longest, *x.shape[1:])

    def unpad(self, x: Tensor) -> Tensor:
        """[B, longest, ...] -> [N, ...]."""
        tokens = x.flatten(0, 1).index_select(0, self.places)
        return torch.cat([tokens, x.new_zeros(self.positions.shape[0] - self.tokens, *x.shape[2:])])


@dataclass(frozen=True)
class Packed:
    """Who attends to whom, in place of a mask: queries to the keys of their own sentence; causal: not to later ones."""

    queries: Sentences
    keys: Sentences
    causal: bool = False


def attend_packed(projected: Tensor, memory: Tensor | None, layout: Packed, dropout: float = 0.0) -> Tensor:
    """softmax(Q K^T / sqrt(K)) V within each sentence (equation 1): -> [Nq, H, K].

    Self-attention: projected [N, 3, H, K] holds query, key and value. Cross-attention: projected [Nq, 1, H, K] holds
    the query, memory [Nk, 2, H, K] key and value. `dropout` falls on the weights.
    """
    inputs = (projected,) if memory is None else (projected, memory)
    _check_fit(*inputs, layout=layout)
    if native.usable(*inputs):
        random = native_dropout(dropout, training=True)
        attended: Tensor = _NativeAttention.apply(projected, memory, layout, random)  # type: ignore[no-untyped-call]
        return attended
    query, key, value = _parts(projected, memory)
    if _has_varlen(query, dropout):
        return _varlen(query, key, value, layout)
    return _attend_padded(query, key, value, layout, dropout)


def _check_fit(projected: Tensor, memory: Tensor | None = None, *, layout: Packed) -> None:
    """Raises ValueError for shapes that do not belong together: kernels read and write where they are told to."""
    keys = projected if memory is None else memory
    tokens = layout.queries.tokens, layout.keys.tokens
    if tokens[0] > len(projected) or tokens[1] > len(keys) or keys.shape[2:] != projected.shape[2:]:
        raise ValueError(
            f"queries {tuple(projected.shape)} and keys {tuple(keys.shape)} do not fit sentences of {tokens[0]} and "
            f"{tokens[1]} tokens"
        )


def _parts(projected: Tensor, memory: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value, each [N, H, K], views."""
    if memory is None:
        query, key, value = projected.unbind(1)
    else:
        query, (key, value) = projected[:, 0], memory.unbind(1)
    return query, key, value


def _attend_padded(query: Tensor, key: Tensor, value: Tensor, layout: Packed, dropout: float) -> Tensor:
    """Through [B, H, longest, K]: what every other way has to agree with."""
    from seq2seq.model.attention import attend, causal_mask

    queries, keys = layout.queries, layout.keys
    padded_query, padded_key, padded_value = (
        sentences.pad(x).transpose(1, 2) for sentences, x in ((queries, query), (keys, key), (keys, value))
    )
    mask = keys.mask[:, None, None, :]
    if layout.causal:  # a query in the padding sees the sentence's keys; nobody looks at what it gives
        mask = mask & causal_mask(queries.longest, keys.longest, query.device)
    return queries.unpad(attend(padded_query, padded_key, padded_value, mask, dropout).transpose(1, 2))


def _has_varlen(query: Tensor, dropout: float) -> bool:
    """Whether torch has attention for sentences of different lengths here: on a GPU, in half precision, if new.

    Its kernel takes heads of a multiple of 8, up to 256; what would have padded them is left out with it.
    """
    if not query.is_cuda or dropout or query.dtype not in (torch.bfloat16, torch.float16):
        return False
    size = query.shape[-1]
    return size % 8 == 0 and size <= 256 and _varlen_runs_on(query.device)


@cache
def _varlen_runs_on(device: torch.device) -> bool:
    if find_spec("torch.nn.attention.varlen") is None or torch.cuda.get_device_capability(device) < (8, 0):
        return False
    from torch.nn.attention.varlen import varlen_attn

    return "window_size" in signature(varlen_attn).parameters


def _varlen(query: Tensor, key: Tensor, value: Tensor, layout: Packed) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    queries, keys = layout.queries, layout.keys
    window = (-1, 0) if layout.causal else (-1, -1)
    contiguous = query.contiguous(), key.contiguous(), value.contiguous()
    starts = queries.starts.int(), keys.starts.int()
    attended = varlen_attn(*contiguous, *starts, queries.longest, keys.longest, window_size=window)
    assert isinstance(attended, Tensor)
    return attended


class _NativeAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, projected: Tensor, memory: Tensor | None, layout: Packed, random: tuple[int, int, float]
    ) -> Tensor:
        query, key, value = _parts(projected, memory)
        rows, heads, size = query.shape
        out = query.new_empty(rows, heads, size)
        statistics = native.floats(rows, heads, 2)
        shape = layout.queries.count, heads, size, query.stride(0), key.stride(0)
        pointers = query, key, value, layout.queries.starts, layout.keys.starts
        rest = int(layout.causal), layout.keys.longest, *random
        native.call("attention", query.dtype, out, statistics, *pointers, *shape, *rest)
        out[layout.queries.tokens :].zero_()
        ctx.save_for_backward(projected, memory, out, statistics)
        ctx.layout, ctx.random = layout, random
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        projected, memory, out, statistics = ctx.saved_tensors
        layout: Packed = ctx.layout
        query, key, value = _parts(projected, memory)
        grad_projected = torch.empty_like(projected)
        grad_memory = None if memory is None else torch.empty_like(memory)
        grads = _parts(grad_projected, grad_memory)
        _, heads, size = query.shape
        shape = (
            layout.queries.count,
            heads,
            size,
            query.stride(0),
            key.stride(0),
            grads[0].stride(0),
            grads[1].stride(0),
        )
        pointers = grad.contiguous(), out, statistics, query, key, value, layout.queries.starts, layout.keys.starts
        rest = int(layout.causal), layout.keys.longest, *ctx.random
        native.call("attention_backward", query.dtype, *grads, *pointers, *shape, *rest)
        grad_projected[layout.queries.tokens :].zero_()
        if grad_memory is not None:
            grad_memory[layout.keys.tokens :].zero_()
        return grad_projected, grad_memory, None, None
