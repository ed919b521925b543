"""R-Drop (Liang et al. 2021, arXiv 2106.14448): two predictions under different dropout should agree.

With p and q the distributions that two passes give for a token, the loss is the mean of their smoothed cross-entropies
and alpha / 4 times (KL(p||q) + KL(q||p)): half of the paper's, where both cross-entropies are added. As in `loss.py`,
logits exist for a chunk of tokens at a time and the gradients are computed in the same pass. With a and b the logits,

    d KL(p||q) / da = p (log p - log q - KL(p||q))    and    d KL(q||p) / da = p - q.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from seq2seq.model import native
from seq2seq.training.loss import CHUNK_ELEMENTS, chunk_tokens

GPU_CHUNK_ELEMENTS = 1 << 25  # some twenty tensors of float32 of so many numbers exist at once


def paired_cross_entropy(
    states_a: Tensor, states_b: Tensor, weight: Tensor, targets: Tensor, smoothing: float, alpha: float
) -> tuple[Tensor, Tensor]:
    """Sums over tokens of the loss above (differentiable) and of the mean -log p (for reporting), float32 scalars.

    states_a, states_b: [N, D] of two passes. Everything else is as in `smoothed_cross_entropy`.
    """
    if states_a.shape != states_b.shape or len(targets) > len(states_a):
        raise ValueError(f"{len(targets)} targets for states {tuple(states_a.shape)} and {tuple(states_b.shape)}")
    loss, nll = _Paired.apply(states_a, states_b, weight, targets, smoothing, alpha)  # type: ignore[no-untyped-call]
    return loss, nll


class _Paired(torch.autograd.Function):
    """Forward computes the gradients of the sum; backward only scales them."""

    @staticmethod
    def forward(
        ctx: Any, states_a: Tensor, states_b: Tensor, weight: Tensor, targets: Tensor, smoothing: float, alpha: float
    ) -> tuple[Tensor, Tensor]:
        vocabulary = weight.shape[0]
        matrix = weight.to(states_a.dtype)
        size = chunk_tokens(vocabulary, GPU_CHUNK_ELEMENTS if states_a.is_cuda else CHUNK_ELEMENTS)
        grad_a, grad_b = torch.empty_like(states_a), torch.empty_like(states_b)
        grad_weight = torch.zeros_like(weight, dtype=torch.float32)
        loss, nll = torch.zeros((2,), dtype=torch.float32, device=weight.device)
        chunk_losses = _native_chunk if native.usable(states_a, states_b) and native.usable_ids(targets) else _chunk
        for start in range(0, len(states_a), size):
            rows = slice(start, start + size)
            a, b = states_a[rows], states_b[rows]
            logits = a @ matrix.t(), b @ matrix.t()
            chunk_loss, chunk_nll, change_a, change_b = chunk_losses(*logits, targets[rows], smoothing, alpha)
            loss += chunk_loss
            nll += chunk_nll
            torch.mm(change_a, matrix, out=grad_a[rows])
            torch.mm(change_b, matrix, out=grad_b[rows])
            grad_weight += change_a.t() @ a
            grad_weight += change_b.t() @ b
        ctx.save_for_backward(grad_a, grad_b, grad_weight)
        ctx.weight_dtype = weight.dtype
        ctx.mark_non_differentiable(nll)
        return loss, nll

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, _grad_nll: Tensor) -> tuple[Tensor | None, ...]:
        grad_a, grad_b, grad_weight = ctx.saved_tensors
        scaled = (grad_weight * grad_loss).to(ctx.weight_dtype)
        return grad_a * grad_loss, grad_b * grad_loss, scaled, None, None, None


Chunk = tuple[Tensor, Tensor, Tensor, Tensor]  # sums of loss and -log p, gradients of both logits


def _native_chunk(a: Tensor, b: Tensor, targets: Tensor, smoothing: float, alpha: float) -> Chunk:
    """With the compiled kernel. Rows past the last target have gradients of 0."""
    count, vocabulary = len(targets), a.shape[1]
    native.check_ids(targets, vocabulary)
    nll, uniform, divergence = native.floats(3, count).unbind()
    scratch = native.floats(2 * vocabulary)
    results = a, b, nll, uniform, divergence
    native.call("cross_entropy_pair", a.dtype, *results, targets, scratch, count, vocabulary, smoothing, alpha, 1)
    a[count:].zero_()
    b[count:].zero_()
    total = nll.sum()
    loss = (1.0 - smoothing) * total + smoothing * uniform.sum() + 0.25 * alpha * divergence.sum()
    return loss, total, a, b


def _chunk(a: Tensor, b: Tensor, targets: Tensor, smoothing: float, alpha: float) -> Chunk:
    """The same in torch, by its own differentiation, in float32."""
    dtype, count = a.dtype, len(targets)
    with torch.enable_grad():
        logits = [x.detach().float().requires_grad_() for x in (a, b)]
        log_p, log_q = (x[:count].log_softmax(1) for x in logits)
        cross = [F.cross_entropy(x[:count], targets, reduction="sum", label_smoothing=smoothing) for x in logits]
        divergence = ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum()
        loss = 0.5 * (cross[0] + cross[1]) + 0.25 * alpha * divergence
        changes = torch.autograd.grad(loss, logits)
    nll = -0.5 * (log_p + log_q).detach().gather(1, targets[:, None]).sum()
    return loss.detach(), nll, changes[0].to(dtype), changes[1].to(dtype)
