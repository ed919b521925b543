"""Positions (section 3.5): sinusoids, or a learned table (Table 3, row E)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def sinusoids(num_positions: int, d_model: int) -> Tensor:
    """The table of positions 0 ... num_positions-1, float32 [num_positions, D].

    Frequencies are 10000^(-2i/D) for i in 0 ... D/2-1. The paper interleaves sines and cosines; here they are two
    halves, `[sin | cos]`. That is a fixed permutation of the same D numbers, and the model is free to permute its
    dimensions, so nothing that it can express changes.
    """
    if d_model % 2:
        raise ValueError(f"d_model = {d_model} is odd: sinusoidal positions need an even number")
    frequencies = torch.exp(torch.arange(0, d_model, 2, dtype=torch.float64) * (-math.log(10_000.0) / d_model))
    angles = torch.arange(num_positions, dtype=torch.float64)[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], dim=1).float()


class SinusoidalPositions(nn.Module):
    """Sinusoids, extended on demand: there is no longest sentence. Has no parameters and no saved state."""

    table: Tensor

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.d_model = d_model
        self.register_buffer("table", sinusoids(256, d_model), persistent=False)

    def forward(self, start: int, length: int) -> Tensor:
        """Positions start ... start+length-1, [length, D]."""
        table = self.table  # and not again: another thread may put a shorter one there
        if start + length > table.shape[0]:
            size = max(start + length, 2 * table.shape[0])
            # A plain tensor even if decoding makes it grow: training may go on with this model.
            with torch.inference_mode(False):
                table = self.table = sinusoids(size, self.d_model).to(table)
        return table[start : start + length]


class LearnedPositions(nn.Module):
    """One trained vector a position, for at most `max_positions` of them."""

    def __init__(self, d_model: int, max_positions: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(max_positions, d_model))

    def forward(self, start: int, length: int) -> Tensor:
        """Positions start ... start+length-1, [length, D]. Raises ValueError past the end of the table."""
        if start + length > self.weight.shape[0]:
            raise ValueError(
                f"position {start + length - 1} is beyond model.max_positions = {self.weight.shape[0]}: "
                "this model has learned positions and cannot go further"
            )
        return self.weight[start : start + length]
