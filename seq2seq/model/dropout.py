"""Dropout (Srivastava et al. 2014) that is cheap on a CPU, and where its random numbers come from.

Each use of dropout takes one seed from a stream, and its mask is a pure function of that seed. `seeded` sets the
stream for what runs within it, in its own thread: several threads can train parts of a batch at once, and the masks
depend on none of them. Outside of `seeded`, seeds are drawn from torch's generator, which `torch.manual_seed` governs.

torch's own dropout draws one random double an element on a CPU, which is a fifth of a training step at translation's
sizes. The compiled kernel computes 32 bits from (seed, place) and keeps no mask. Without it a 64-bit draw serves four
elements, 16 bits each; the drop probability is then a multiple of 2^-16, and kept elements are scaled by that one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from seq2seq.model import native

LEVELS = 1 << 16
_MASK = (1 << 64) - 1


class Seeds:
    """A stream of 64-bit seeds, a pure function of the first."""

    def __init__(self, seed: int) -> None:
        self.state = seed & _MASK

    def next(self) -> int:
        """SplitMix64 (Steele et al. 2014)."""
        self.state = (self.state + 0x9E3779B97F4A7C15) & _MASK
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
        return z ^ (z >> 31)


_seeds: ContextVar[Seeds | None] = ContextVar("dropout_seeds", default=None)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within it, dropout on a CPU is a pure function of `seed` and of the order of its uses."""
    token = _seeds.set(Seeds(seed))
    try:
        yield
    finally:
        _seeds.reset(token)


def next_seed() -> int:
    """The seed for one use of dropout."""
    seeds = _seeds.get()
    return int(torch.randint(2**62, ())) if seeds is None else seeds.next()


def native_dropout(probability: float, training: bool) -> tuple[int, int, float]:
    """What the kernels take: the seed, the threshold below which 32 random bits drop, the scale of what is kept."""
    if not training or probability == 0.0:
        return 0, 0, 1.0
    threshold = min(round(probability * 2**32), 2**32 - 1)
    return next_seed(), threshold, 2**32 / (2**32 - threshold)


def dropout(x: Tensor, probability: float, training: bool, residual: Tensor | None = None) -> Tensor:
    """Sets each element to 0 with the given probability and scales the others so that the mean stays; x otherwise.

    residual: added to the result where it is given.
    """
    if not training or probability == 0.0:
        return x if residual is None else residual + x
    if native.usable(x) and (residual is None or native.usable(x, residual)):
        dropped: Tensor = _NativeDropout.apply(x, residual, native_dropout(probability, training))  # type: ignore[no-untyped-call]
        return dropped
    on_cpu = x.device.type == "cpu"
    dropped = _Dropout.apply(x, probability) if on_cpu else F.dropout(x, probability)  # type: ignore[no-untyped-call]
    return dropped if residual is None else residual + dropped


class _NativeDropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, residual: Tensor | None, random: tuple[int, int, float]) -> Tensor:
        ctx.random, ctx.has_residual = random, residual is not None
        out = torch.empty_like(x)
        native.call("dropout", x.dtype, out, residual, x, x.numel(), *random)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None]:
        grad = grad.contiguous()
        out = torch.empty_like(grad)
        native.call("dropout", grad.dtype, out, None, grad, grad.numel(), *ctx.random)
        return out, grad if ctx.has_residual else None, None


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, probability: float) -> Tensor:
        threshold = min(round(probability * LEVELS), LEVELS - 1)
        ctx.scale = LEVELS / (LEVELS - threshold)
        generator = torch.Generator().manual_seed(next_seed() >> 1)
        draws = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None, generator=generator)
        uniform = draws.view(torch.int16)[: x.numel()].view(x.shape)
        # 0 or 1 in the dtype of x: multiplying equal dtypes is several times faster than by a boolean mask.
        keep = torch.empty_like(x, memory_format=torch.contiguous_format)
        torch.ge(uniform, threshold - LEVELS // 2, out=keep)
        ctx.save_for_backward(keep)
        return (x * keep).mul_(ctx.scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (keep,) = ctx.saved_tensors
        return (grad * keep).mul_(ctx.scale), None
