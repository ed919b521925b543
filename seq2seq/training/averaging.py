"""Checkpoint averaging (section 6.1): the mean of the weights of several checkpoints is one better model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from seq2seq.run import Checkpoint, RunError


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
