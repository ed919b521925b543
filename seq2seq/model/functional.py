"""The operations that layers are made of: in torch, and with the compiled kernels where training can use them.

Weights are float32 and are cast to the dtype of the activations where they are used, so that the same module runs in
float32, in bfloat16 with float32 master weights (training), or with weights cast once (inference).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from seq2seq.model import native
from seq2seq.model.dropout import dropout, native_dropout


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x W^T + b` in the dtype of x (a cast that does nothing where the weight has it already)."""
    if x.dim() == 2 and bias is not None and torch.is_grad_enabled() and native.usable(x):
        out: Tensor = _Linear.apply(x, weight, bias)  # type: ignore[no-untyped-call]
        return out
    return F.linear(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype))


class _Linear(torch.autograd.Function):
    """F.linear with casts, whose gradients take fewer operations."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        cast = weight.to(x.dtype)
        ctx.save_for_backward(x, cast)
        ctx.dtypes = weight.dtype, bias.dtype
        return torch.addmm(bias.to(x.dtype), x, cast.t())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, cast = ctx.saved_tensors
        grad = grad.contiguous()
        grad_bias = native.floats(grad.shape[1])
        native.call("column_sums", grad.dtype, grad_bias, grad, *grad.shape)
        return grad @ cast, (grad.t() @ x).to(ctx.dtypes[0]), grad_bias.to(ctx.dtypes[1])


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, epsilon: float) -> Tensor:
    """Layer normalisation (Ba et al. 2016) over the last dimension; statistics are float32 whatever the dtype of x."""
    fits = weight.dtype == torch.float32 and native.usable(weight, bias) and weight.shape == bias.shape == x.shape[-1:]
    if torch.is_grad_enabled() and fits and native.usable(x):
        normed: Tensor = _LayerNorm.apply(x, weight, bias, epsilon)  # type: ignore[no-untyped-call]
        return normed
    if x.is_cuda:
        weight, bias = weight.to(x.dtype), bias.to(x.dtype)
    return F.layer_norm(x, x.shape[-1:], weight, bias, epsilon)


class _LayerNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, epsilon: float) -> Tensor:
        size = x.shape[-1]
        rows = x.numel() // size
        out, mean, rstd = torch.empty_like(x), native.floats(rows), native.floats(rows)
        native.call("layer_norm", x.dtype, out, mean, rstd, x, weight, bias, rows, size, epsilon)
        ctx.save_for_backward(x, weight, mean, rstd)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, mean, rstd = ctx.saved_tensors
        grad_x, grad_weight, grad_bias = torch.empty_like(x), torch.empty_like(weight), torch.empty_like(weight)
        results = grad_x, grad_weight, grad_bias
        shape = len(mean), x.shape[-1]
        native.call("layer_norm_backward", x.dtype, *results, grad.contiguous(), x, mean, rstd, weight, *shape)
        return grad_x, grad_weight, grad_bias, None


def embed(
    ids: Tensor, weight: Tensor, table: Tensor, positions: Tensor, factor: float, drop: float, dtype: torch.dtype
) -> Tensor:
    """dropout(factor * weight[ids] + table[positions]) for ids and positions [N] -> [N, D]; drop 0 for no dropout.

    weight [V, D] are the embeddings, table [P, D] what stands for each position.
    """
    fixed = not table.requires_grad and native.usable(weight, table) and weight.dtype == torch.float32
    fits = dtype in native.TYPES and native.usable_ids(ids) and native.usable_ids(positions)
    fits = fits and ids.shape == positions.shape and table.shape[1:] == weight.shape[1:]
    if fixed and fits and torch.is_grad_enabled():
        embedded: Tensor = _Embed.apply(weight, table, ids, positions, factor, drop, dtype)  # type: ignore[no-untyped-call]
        return embedded
    summed = F.embedding(ids, weight) * factor + table[positions]
    return dropout(summed.to(dtype), drop, drop > 0.0)


class _Embed(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        weight: Tensor,
        table: Tensor,
        ids: Tensor,
        positions: Tensor,
        factor: float,
        drop: float,
        dtype: torch.dtype,
    ) -> Tensor:
        native.check_ids(ids, len(weight))
        native.check_ids(positions, len(table))
        random = native_dropout(drop, training=True)
        out = torch.empty(len(ids), weight.shape[1], dtype=dtype)
        native.call("embed", dtype, out, weight, table, ids, positions, *out.shape, factor, *random)
        ctx.save_for_backward(ids)
        ctx.size, ctx.factor, ctx.random = weight.shape, factor, random
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (ids,) = ctx.saved_tensors
        grad_weight = native.floats(*ctx.size).zero_()
        shape = grad.shape
        native.call("embed_backward", grad.dtype, grad_weight, grad.contiguous(), ids, *shape, ctx.factor, *ctx.random)
        return grad_weight, *(None,) * 6
