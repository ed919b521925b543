"""Label-smoothed cross-entropy over the output projection (sections 3.4 and 5.4), without a [tokens, V] tensor.

At translation's sizes the logits of one batch and their gradients are the largest tensors of all; here they exist for
a chunk of tokens at a time, and the gradient is computed in the same pass. The plain form is one line of torch, which
`smoothed_cross_entropy` names.

With states h [N, D], output matrix W [V, D], p = softmax(h W^T) and the smoothed target distribution
q = epsilon / V + (1 - epsilon) onehot(target), the loss is -sum q log p and its gradient with respect to the logits
p - q. The constant part of q is a matrix of rank one, so its share of both gradients is a vector that is added once:
the [chunk, V] tensor is written by the softmax, corrected at one place a row, and read by two matrix products, no more.
The compiled kernel leaves out the softmax's division, too: D numbers of a row are divided later instead of V.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from seq2seq.model import native

# Logits that exist at once on a CPU without the kernels: 4 MB in bfloat16, which stay in the cache.
CHUNK_ELEMENTS = 1 << 21
NATIVE_CHUNK_BYTES = 1 << 24  # with them: fewer sums of gradients [V, D] matter more than the cache
SMALLEST_CHUNK = 256  # of fewer tokens, adding to the gradient of the output matrix costs more than computing it
ROW_UNIT = 64  # tokens are processed in multiples of it: see `batch_losses`
GPU_CHUNK_ELEMENTS = 1 << 28


def smoothed_cross_entropy(states: Tensor, weight: Tensor, targets: Tensor, smoothing: float) -> tuple[Tensor, Tensor]:
    """Sum over tokens of the smoothed loss (differentiable) and of -log p(target) (for reporting), float32 scalars.

    The same as `F.cross_entropy(states @ weight.T, targets, label_smoothing=smoothing, reduction="sum")`, and that
    without smoothing.

    states: [N, D] decoder states. weight: [V, D] output matrix. targets: [N] piece ids; there may be fewer than
    states, and states past the last target count for nothing. The target distribution gives each of the V pieces
    smoothing / V and the correct one 1 - smoothing more; padding is a piece like any other, and is left out before.
    Matrix products and probabilities have the dtype of `states`; the softmax is computed in float32 whatever it is, and
    so are the sums.
    """
    if states.dim() != 2 or targets.dim() != 1 or len(targets) > len(states):
        raise ValueError(f"states {tuple(states.shape)} and targets {tuple(targets.shape)} are not [N, D] and [N]")
    wanted = torch.is_grad_enabled()  # inside the function it always is off
    if native.usable(states) and native.usable_ids(targets):
        loss, nll = _Native.apply(states, weight, targets, smoothing, wanted)  # type: ignore[no-untyped-call]
    else:
        loss, nll = _Chunked.apply(states[: len(targets)], weight, targets, smoothing, wanted)  # type: ignore[no-untyped-call]
    return loss, nll


def chunk_tokens(vocabulary: int, elements: int) -> int:
    """How many tokens have logits at once: of about so many elements, a multiple of ROW_UNIT."""
    return max(SMALLEST_CHUNK, elements // vocabulary // ROW_UNIT * ROW_UNIT)


def even_chunk(tokens: int, most: int) -> int:
    """The size of the fewest chunks of at most `most` tokens, all about as large, a multiple of ROW_UNIT."""
    chunks = max(1, -(-tokens // most))
    return max(1, -(-tokens // chunks // ROW_UNIT)) * ROW_UNIT


class _Saved(torch.autograd.Function):
    """The backward pass of both ways below: the forward pass has computed the gradients of the sum already."""

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor, _grad_nll: Tensor) -> tuple[Tensor | None, ...]:
        grad_states, grad_weight = ctx.saved_tensors
        # A scalar does not promote: the gradient of the states keeps their dtype.
        return grad_states * grad_loss, (grad_weight * grad_loss).to(ctx.weight_dtype), None, None, None


class _Native(_Saved):
    """With the compiled kernel, which goes over the logits of a token twice: for the highest, and for the rest.

    Its exponentials are what the products read: dividing by their sum is left to the results.
    """

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, weight: Tensor, targets: Tensor, smoothing: float, wanted: bool
    ) -> tuple[Tensor, Tensor]:
        differentiate = wanted and any(ctx.needs_input_grad[:2])
        vocabulary, dtype = weight.shape[0], states.dtype
        native.check_ids(targets, vocabulary)
        matrix = weight.to(dtype)
        share = smoothing / vocabulary
        # What smoothing adds to the gradient of every state.
        shared = share * weight.sum(0, dtype=torch.float32) if differentiate else None
        size = even_chunk(len(states), chunk_tokens(vocabulary, NATIVE_CHUNK_BYTES // states.element_size()))
        logits = states.new_empty(min(len(states), size), vocabulary)
        nll, uniform = native.floats(2, len(targets)).unbind()
        inverse = native.floats(len(states), 1).zero_()
        grad_states = torch.empty_like(states) if differentiate else None
        grad_weight: Tensor | None = None
        for start in range(0, len(states), size):
            rows = slice(start, start + size)
            chunk, real = states[rows], len(targets[rows])
            part = torch.mm(chunk, matrix.t(), out=logits[: len(chunk)])
            results = part, nll[rows], uniform[rows], inverse[rows]
            rest = real, vocabulary, smoothing, int(differentiate)
            native.call("cross_entropy", dtype, *results, targets[rows], *rest)
            if grad_states is None or shared is None:
                continue
            # What the kernel leaves is to be divided by the sum of each row, which is done with the D columns.
            part[real:].zero_()
            torch.mm(part, matrix, out=grad_states[rows])
            native.call("scale_rows", dtype, grad_states[rows], inverse[rows], shared, real, shared.numel())
            bias = (-share * chunk[:real].sum(0, dtype=torch.float32)).to(dtype)
            change = torch.addmm(bias, part.t(), (chunk * inverse[rows]).to(dtype))
            grad_weight = change.float() if grad_weight is None else grad_weight.add_(change)
        if grad_states is not None:
            ctx.save_for_backward(
                grad_states, torch.zeros_like(weight, dtype=torch.float32) if grad_weight is None else grad_weight
            )
        ctx.weight_dtype = weight.dtype
        total = nll.sum()
        ctx.mark_non_differentiable(total)
        return (1.0 - smoothing) * total + smoothing * uniform.sum(), total


class _Chunked(_Saved):
    """Forward computes the gradients of the sum; backward only scales them."""

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, weight: Tensor, targets: Tensor, smoothing: float, wanted: bool
    ) -> tuple[Tensor, Tensor]:
        differentiate = wanted and any(ctx.needs_input_grad[:2])
        vocabulary = weight.shape[0]
        matrix = weight.to(states.dtype)
        # Its product with a state is that state's mean logit.
        mean_row = weight.sum(0, dtype=torch.float32) / vocabulary
        nll = states.new_zeros((), dtype=torch.float32)
        uniform = torch.zeros_like(nll)  # cross-entropy with the uniform distribution
        grad_states = torch.empty_like(states) if differentiate else None
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if differentiate else None
        size = chunk_tokens(vocabulary, GPU_CHUNK_ELEMENTS if states.is_cuda else CHUNK_ELEMENTS)
        for start in range(0, states.shape[0], size):
            chunk, target = states[start : start + size], targets[start : start + size, None]
            logits = chunk @ matrix.t()
            correct_logit, highest = logits.gather(1, target).float(), logits.amax(1, keepdim=True).float()
            gradient = torch.softmax(logits, dim=1)
            # 1 - p as the sum of the others: in bfloat16 the difference would be lost where p is near 1.
            others = gradient.sum(1, keepdim=True, dtype=torch.float32) - gradient.gather(1, target).float()
            # By the highest probability, which is 1 / V at least: that of the target may be too small for a float.
            log_sum = highest - gradient.amax(1, keepdim=True).float().log()
            token_nll = torch.where(others < 0.5, -torch.log1p(-others), log_sum - correct_logit)
            nll += token_nll.sum()
            if smoothing:  # log-sum-exp is the correct logit plus its -log p
                uniform += (correct_logit + token_nll).sum() - (chunk.float() @ mean_row).sum()
            if grad_states is None or grad_weight is None:
                continue
            # Not scatter_, which copies the whole tensor on a CPU.
            rows = torch.arange(chunk.shape[0], device=states.device)
            gradient[rows, target[:, 0]] = (smoothing - others)[:, 0].to(gradient.dtype)
            torch.mm(gradient, matrix, out=grad_states[start : start + size])
            grad_weight += gradient.t() @ chunk
        if grad_states is not None and grad_weight is not None:
            if smoothing:
                grad_states -= (smoothing * mean_row).to(states.dtype)
                grad_weight -= smoothing / vocabulary * states.sum(0, dtype=torch.float32)
            ctx.save_for_backward(grad_states, grad_weight)
        ctx.weight_dtype = weight.dtype
        ctx.mark_non_differentiable(nll)
        return (1.0 - smoothing) * nll + smoothing * uniform, nll
