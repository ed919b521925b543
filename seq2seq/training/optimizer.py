"""The optimizers, Adam unless Muon is asked for, and the learning-rate schedules (section 5.3)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from seq2seq.config import TrainingConfig
from seq2seq.model.transformer import Transformer
from seq2seq.training.muon import Muon, layer_matrices


def learning_rate(config: TrainingConfig, d_model: int, step: int, horizon: int | None) -> float:
    """The rate of update `step`, counted from 1.

    All schedules rise linearly over `warmup_steps`, or half of the horizon where that is less, to the same peak,
    scale * (d_model * warmup_steps)^-0.5. After it `inverse_sqrt` falls with step^-0.5, which is the paper's equation 3
    in a run of two warm-ups or more; `cosine` and `linear` fall to 0 at the horizon (whose own step changes nothing any
    more); `constant` stays. horizon: the planned number of steps, needed by cosine and linear.
    """
    peak: float = config.learning_rate_scale * (d_model * config.warmup_steps) ** -0.5
    # A run shorter than its warm-up still has to reach the peak: warm up for at most half of it.
    warmup = config.warmup_steps if horizon is None else max(1, min(config.warmup_steps, horizon // 2))
    if step <= warmup:
        return peak * (step / warmup)
    if config.schedule == "inverse_sqrt":
        return peak * math.sqrt(warmup / step)
    if config.schedule == "constant":
        return peak
    if horizon is None:
        raise ValueError(f"schedule {config.schedule!r} needs a horizon")
    progress = min(1.0, (step - warmup) / max(1, horizon - warmup))
    if config.schedule == "linear":
        return peak * (1.0 - progress)
    assert config.schedule == "cosine"
    return peak * 0.5 * (1.0 + math.cos(math.pi * progress))


def build_optimizers(
    config: TrainingConfig, parameters: Sequence[nn.Parameter], matrices: Mapping[nn.Parameter, int]
) -> list[torch.optim.Optimizer]:
    """Adam, and Muon for those of the parameters that are in `matrices` (see muon.py)."""
    mine = {parameter: matrices[parameter] for parameter in parameters if parameter in matrices}
    others = [parameter for parameter in parameters if parameter not in mine]
    optimizers: list[torch.optim.Optimizer] = [build_adam(config, others)] if others else []
    if mine:
        options = {"momentum": config.muon_momentum, "scale": config.muon_scale, "weight_decay": config.weight_decay}
        optimizers.append(Muon(mine, **options))
    return optimizers


def optimizer_bytes(config: TrainingConfig, model: Transformer) -> int:
    """What the optimizers of a model come to hold: two float32 numbers for each of its own, Muon one."""
    matrices = layer_matrices(model) if config.optimizer == "muon" else {}
    trained = (parameter for parameter in model.parameters() if parameter.requires_grad)
    return sum(4 * parameter.numel() * (1 if parameter in matrices else 2) for parameter in trained)


def build_adam(config: TrainingConfig, parameters: Sequence[nn.Parameter]) -> torch.optim.Optimizer:
    """Adam with the paper's coefficients; decoupled weight decay where configured, not on vectors."""
    matrices = [p for p in parameters if p.dim() > 1]
    vectors = [p for p in parameters if p.dim() <= 1]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    betas = (config.adam_beta1, config.adam_beta2)
    return torch.optim.AdamW(groups, lr=0.0, betas=betas, eps=config.adam_epsilon, fused=True)


def optimizer_tensors(optimizers: Sequence[torch.optim.Optimizer], model: nn.Module) -> dict[str, Tensor]:
    """The state of the optimizers that share a model's parameters, by their names, as plain tensors.

    `NAME/exp_avg`, `NAME/exp_avg_sq` and `NAME/step` of what Adam has, `NAME/momentum` of what Muon has.
    """
    tensors: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        for optimizer in optimizers:
            for key, value in optimizer.state.get(parameter, {}).items():
                tensors[f"{name}/{key}"] = value.detach().clone()
    return tensors


def load_optimizer_tensors(
    optimizers: Sequence[torch.optim.Optimizer], model: nn.Module, tensors: dict[str, Tensor]
) -> None:
    """Puts back what `optimizer_tensors` gave. Raises ValueError where a parameter's state is missing or misshapen."""
    owners = {p: optimizer for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        state = {}
        for key in ("momentum",) if isinstance(owners[parameter], Muon) else ("exp_avg", "exp_avg_sq", "step"):
            value = tensors.get(f"{name}/{key}")
            if value is None:
                raise ValueError(f"optimizer state of {name} lacks {key}")
            shape = torch.Size() if key == "step" else parameter.shape
            if value.shape != shape or not value.is_floating_point():
                raise ValueError(
                    f"optimizer state {name}/{key} has shape {tuple(value.shape)}, not {tuple(shape)}, or no fractions"
                )
            state[key] = value.to(parameter.device, copy=True)
        owners[parameter].state[parameter] = state
