"""Dropout (Srivastava et al. 2014) that is cheap on a CPU.

torch draws one random double an element there, which is a fifth of a training step at translation's sizes. Here a
64-bit draw serves four elements, 16 bits each. The drop probability is therefore a multiple of 2^-16, and elements
are scaled by that actual probability. The random numbers are torch's own, so `torch.manual_seed` governs them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

LEVELS = 1 << 16


def dropout(x: Tensor, probability: float, training: bool) -> Tensor:
    """Sets each element to 0 with the given probability and scales the others so that the mean stays; x otherwise."""
    if not training or probability == 0.0:
        return x
    if x.device.type != "cpu":
        return F.dropout(x, probability)
    dropped: Tensor = _Dropout.apply(x, probability)  # type: ignore[no-untyped-call]
    return dropped


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, probability: float) -> Tensor:
        threshold = min(round(probability * LEVELS), LEVELS - 1)
        ctx.scale = LEVELS / (LEVELS - threshold)
        draws = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
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
