"""Training that goes wrong without stopping: a loss that explodes, weights that are not finite.

A model in that state is never saved: the last checkpoint is one from before.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from seq2seq.training.state import TrainingState

# The loss is watched as a moving average of -log p per target token, in nats; each step has this share in it.
SHARE = 0.1
# So far above its lowest the average has exploded: every token is exp(3), 20 times, less probable than it was. A single
# step may be as bad with one odd batch; from twice as far other pairs have to tell, before the average has followed.
EXPLODED = 3.0
# After so many steps in a row it is not waited any longer.
EXPLODED_STEPS = 100

REMEDIES = 'lower training.learning_rate_scale, set training.clip_norm=1, or training.precision="fp32"'


def watch_loss(state: TrainingState, nll: float) -> bool:
    """Takes in -log p per target token of a step that was taken; returns whether the loss exploded with this one."""
    average = nll if state.average_nll is None else (1 - SHARE) * state.average_nll + SHARE * nll
    lowest = average if state.lowest_nll is None else min(state.lowest_nll, average)
    state.average_nll, state.lowest_nll, state.last_nll = average, lowest, nll
    before = state.exploded_in_a_row
    state.exploded_in_a_row = before + 1 if average > lowest + EXPLODED else 0
    state.exploded_steps += state.exploded_in_a_row > 0
    return state.exploded_in_a_row == 1


def exploded(state: TrainingState) -> bool:
    """Whether the average has, so that the model is not to be saved as it is."""
    return state.exploded_in_a_row > 0


def jumped(state: TrainingState, nll: float | None = None) -> bool:
    """Whether -log p, by default the last step's, is so high that the model went wrong, or the batch is odd."""
    nll = state.last_nll if nll is None else nll
    return state.lowest_nll is not None and nll is not None and not nll <= state.lowest_nll + 2 * EXPLODED


def explosion(state: TrainingState, rate: float, nll: float | None = None) -> str:
    """What there is to say about an exploded loss, without the remedy; nll: where the average does not show it yet."""
    now = state.average_nll if nll is None else nll
    return (
        f"the loss has exploded: {now:.1f} nats a target token, after {state.lowest_nll:.1f} at its "
        f"lowest, at a learning rate of {rate:.1e}"
    )


def not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """The first tensor with a value that is not finite. Waits for the device once."""
    names = [name for name, tensor in tensors.items() if tensor.is_floating_point()]
    if not names:
        return None
    finite = torch.stack([torch.isfinite(tensors[name]).all() for name in names]).tolist()
    return next((name for name, good in zip(names, finite, strict=True) if not good), None)
