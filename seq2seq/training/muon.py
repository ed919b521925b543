"""Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/): momentum whose singular values are made equal.

Adam takes each number of a matrix by itself. Muon takes the matrix as the linear map that it is: of its momentum's
singular value decomposition U S V^T it steps along U V^T, so that directions which the gradient hardly shows are
learned as fast as those that dominate it. Instead of a decomposition, a few steps of a polynomial bring all singular
values near 1. It is for the matrices of layers; embeddings, biases and LayerNorms stay Adam's. The paper has Adam.

torch.optim.Muon (since 2.9) does the same to one matrix at a time and in bfloat16, which most processors have no
instructions for, and knows neither fused projections nor updates that the device decides not to take.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from seq2seq.model.attention import MultiHeadAttention
from seq2seq.model.transformer import Transformer

# Jordan's polynomial: a x + b x^3 + c x^5 brings what is in (0, 1] to about 0.7 to 1.2 when it is repeated, what is
# below 0.02 of the matrix's norm after more than three times. For matrices of 128 three learned as well as his five.
POLYNOMIAL = (3.4445, -4.7750, 2.0315)
REPETITIONS = 3
# About how many times as long as Adam's an update takes, a number of a matrix of 128: to divide the work among threads.
COST = 40
TINY = 1e-7  # norms below it count as it, as in torch's: what is nearly nothing has no direction


class Muon(torch.optim.Optimizer):
    """Updates matrices along their orthogonalised momentum (with Nesterov's look ahead).

    matrices: parameters [R, C], and of how many matrices of R / blocks rows each consists; fused projections are taken
    one by one. An update's root mean square is about `scale` times the learning rate for every shape of matrix, as
    Adam's is about the same for all (Liu et al. 2025, arXiv 2502.16982, who have 0.2), and less where most singular
    values are small. `dtype` is that of the products.

    As torch's fused Adam, it has `found_inf`, a tensor: where that is not 0, a step changes nothing.
    """

    def __init__(
        self,
        matrices: Mapping[nn.Parameter, int],
        *,
        momentum: float,
        scale: float,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(list(matrices), {"lr": 0.0})
        self.blocks, self.momentum, self.scale, self.weight_decay = dict(matrices), momentum, scale, weight_decay
        self.dtype = torch.float32
        self.found_inf: Tensor | None = None

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update with the gradients that the parameters have. closure is not for this optimizer."""
        assert closure is None
        for group in self.param_groups:
            by_shape: dict[tuple[int, int], list[nn.Parameter]] = {}
            for parameter in group["params"]:
                rows, columns = parameter.shape[0] // self.blocks[parameter], parameter.shape[1]
                by_shape.setdefault((min(rows, columns), max(rows, columns)), []).append(parameter)
            for shape, parameters in by_shape.items():  # one after the other: what is needed on the way is freed
                for parameter in parameters:
                    self._decay(parameter, group["lr"])
                parts = [part for parameter in parameters for part in self._parts(parameter, parameter)]
                ahead = [part for one in parameters for part in self._parts(one, self._take_gradient(one))]
                updates = orthogonal(torch.stack(ahead), self.dtype)
                if self.found_inf is not None:
                    updates = torch.where(self.found_inf > 0, 0.0, updates)
                rate = group["lr"] * self.scale * shape[1] ** 0.5
                for part, update in zip(parts, updates, strict=True):
                    part.sub_(update, alpha=rate)

    def _parts(self, parameter: nn.Parameter, values: Tensor) -> list[Tensor]:
        """The matrices that a parameter consists of, or of what has its shape; those that stand, lying. Views."""
        parts = values.chunk(self.blocks[parameter])
        return [part if part.shape[0] <= part.shape[1] else part.mT for part in parts]

    def _decay(self, parameter: nn.Parameter, rate: float) -> None:
        """Takes the weight decay off (Loshchilov and Hutter 2019)."""
        if self.weight_decay:
            kept = 1.0 - rate * self.weight_decay
            parameter.mul_(kept if self.found_inf is None else torch.where(self.found_inf > 0, 1.0, kept))

    def _take_gradient(self, parameter: nn.Parameter) -> Tensor:
        """Moves the momentum towards the gradient; what to step along, a look ahead, before it is made orthogonal."""
        gradient, state = parameter.grad, self.state[parameter]
        assert gradient is not None
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        mean: Tensor = state["momentum"]
        moved = mean.lerp(gradient, 1.0 - self.momentum)
        if self.found_inf is not None:
            moved = torch.where(self.found_inf > 0, mean, moved)
        mean.copy_(moved)
        return gradient.lerp(mean, self.momentum)


def orthogonal(matrices: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """[N, R, C], R <= C: matrices with the same singular vectors, and singular values near 1 where they were not small.

    float32, whatever the dtype of the products. A matrix of zeros stays one, and one near it becomes no larger than 1.
    """
    norms = torch.linalg.matrix_norm(matrices, keepdim=True).clamp_min(TINY)
    x: Tensor = (matrices / norms).to(dtype)
    a, b, c = POLYNOMIAL
    for _ in range(REPETITIONS):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x.float()


def layer_matrices(model: Transformer) -> dict[nn.Parameter, int]:
    """The parameters that Muon is for, all matrices of layers, and how many matrices each of them is."""
    fused = {module.in_weight: 3 for module in model.modules() if isinstance(module, MultiHeadAttention)}
    parameters = (*model.encoder_layers.parameters(), *model.decoder_layers.parameters())
    return {parameter: fused.get(parameter, 1) for parameter in parameters if parameter.dim() == 2}


def costs(parameters: Sequence[nn.Parameter], matrices: Mapping[nn.Parameter, int]) -> list[int]:
    """About how long each parameter's update takes, in updates of one number by Adam."""
    return [parameter.numel() * (COST if parameter in matrices else 1) for parameter in parameters]
