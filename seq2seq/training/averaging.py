"""Which checkpoints are kept and which make the final model; averaging them (section 6.1)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from seq2seq.config import TrainingConfig
from seq2seq.run_folder.checkpoints import Checkpoint
from seq2seq.run_folder.files import RunError
from seq2seq.training.state import TrainingState, score


def best_steps(steps: Iterable[int], state: TrainingState) -> list[int]:
    """Of the given steps those that were validated, best first; of equals the earlier."""
    given = set(steps)
    ranked = sorted(state.validations, key=lambda validation: validation["step"])
    ranked.sort(key=score, reverse=True)  # of equals the earlier stays before the later
    return [int(validation["step"]) for validation in ranked if validation["step"] in given]


def regular_steps(steps: Iterable[int], state: TrainingState) -> list[int]:
    """Of the given steps those at which every run saves, oldest first: not those kept for being among the best.

    `save_every` may have changed since they were saved; what was regular then is.
    """
    regular = {*(state.regular or ()), state.step}
    return sorted(step for step in steps if step in regular)


def choose_checkpoints(
    config: TrainingConfig, checkpoints: Sequence[Checkpoint], state: TrainingState
) -> list[Checkpoint]:
    """The checkpoints that make the final model, of those that there are: the last N, the best N, or the one best."""
    kept = {checkpoint.step: checkpoint for checkpoint in checkpoints}
    best = best_steps(kept, state)
    regular = regular_steps(kept, state)
    if config.average == "none":
        chosen = best[:1] or regular[-1:]
    elif config.average == "best" and best:
        chosen = best[: config.average_checkpoints]
    else:
        chosen = regular[-config.average_checkpoints :]
    return [kept[step] for step in chosen]


def average_checkpoints(checkpoints: Sequence[Checkpoint]) -> dict[str, Tensor]:
    """The mean of each tensor over the given checkpoints, accumulated in float64, one checkpoint in memory at a time.

    Raises RunError where there are none, or where their tensors differ in name or shape.
    """
    if not checkpoints:
        raise RunError("there are no checkpoints to average")
    total: dict[str, Tensor] = {}
    for checkpoint in checkpoints:
        tensors = checkpoint.model_tensors()
        if not total:
            total = {name: torch.zeros_like(tensor, dtype=torch.float64) for name, tensor in tensors.items()}
        if tensors.keys() != total.keys() or any(tensors[name].shape != total[name].shape for name in total):
            raise RunError(f"{checkpoint.path}: its tensors differ from those of {checkpoints[0].path}")
        for name, tensor in tensors.items():
            total[name] += tensor
    return {name: (tensor / len(checkpoints)).float() for name, tensor in total.items()}
