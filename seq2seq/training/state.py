"""What the training loop keeps and tells: its state, the sums since the last report, its errors and its observer."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

from seq2seq.errors import UserError

# What a run's state and log say about the clock: the only parts that differ between two runs of one configuration.
TIMINGS = frozenset({"seconds", "metrics_size", "target_tokens_per_second", "validation_seconds"})
STATE_FORMAT = 4  # raised whenever a resumed run would not go on as the one that was saved


class TrainingError(UserError):
    """Training cannot go on (exit code 1). The message gives the cause and the remedy."""


class Interrupted(Exception):
    """Training was asked to stop and did so after a complete step, with a checkpoint unless the loss has exploded."""


class Observer(Protocol):
    """Who is told how training goes: the progress display, or a list in a test."""

    def message(self, text: str) -> None:
        """A line for people."""

    def working(self, what: str, done: int = 0, total: int | None = None) -> None:
        """Often, while data is prepared or a model finished: with what, and of how many pairs it is done so far."""

    def progress(self, record: Mapping[str, Any]) -> None:
        """Every few steps; the same record that metrics.jsonl gets, `horizon`, and `time_left` in seconds, or None."""

    def validation(self, record: Mapping[str, Any]) -> None:
        """After each validation; the same record that metrics.jsonl gets."""


def score(validation: Mapping[str, Any]) -> tuple[float, float]:
    """What checkpoints are ranked by, the greater the better: BLEU where there is one, and of equals the loss."""
    bleu = validation["valid_bleu"]
    return 0.0 if bleu is None else float(bleu), -float(validation["valid_loss"])


@dataclass
class TrainingState:
    """Where training stands. state.json keeps it, and resuming continues from it."""

    step: int = 0  # complete updates, skipped ones included
    epoch: int = 0
    update: int = 0  # complete updates of this epoch
    horizon: int | None = None  # the planned number of steps, once it is known
    limits: list[float | None] | None = None  # max_steps, max_epochs, max_minutes that the horizon comes from
    seconds: float = 0.0  # spent training, over all sittings
    target_tokens: int = 0
    skipped_steps: int = 0
    skipped_in_a_row: int = 0
    # -log p per target token, to see it explode: a moving average, its lowest value, the last step's (see health.py).
    average_nll: float | None = None
    lowest_nll: float | None = None
    last_nll: float | None = None
    exploded_steps: int = 0
    exploded_in_a_row: int = 0
    split_batches: int = 0  # halvings of batches for which a GPU's memory was too small
    too_many_tokens: int | None = None  # of the smallest part of a batch that was
    updates_per_epoch: int | None = None  # of the first epoch; where pieces are sampled, others have a few more or less
    # The last steps at which a checkpoint was due (`save_every`) and was saved; None in states from before it was kept.
    regular: list[int] | None = field(default_factory=list)
    batches: str = ""  # a hash of all batches so far, in their order
    validations: list[dict[str, Any]] = field(default_factory=list)
    metrics_size: int = 0
    finished: bool = False
    environment: dict[str, Any] = field(default_factory=dict)  # precision, device, threads, torch: what bits depend on

    @property
    def best(self) -> dict[str, Any] | None:
        """The best validation, of equals the earliest; not the one at step 0, which is of another run's model."""
        return max((one for one in self.validations if one["step"]), key=score, default=None)

    @property
    def validations_without_gain(self) -> int:
        """How many there were since the last that had a better BLEU, or a lower loss, than all before it.

        Either says that the model still learns, and neither suffices alone: BLEU is 0.00 at first, and stays there for
        text that its tokenisation does not take apart; the loss rises long before BLEU falls.
        """
        count, best = 0, (-math.inf, -math.inf)
        for one in map(score, self.validations):
            count = 0 if one[0] > best[0] or one[1] > best[1] else count + 1
            best = max(one[0], best[0]), max(one[1], best[1])
        return count

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainingState:
        """From state.json. Raises TrainingError where another version of this program wrote it."""
        if values.get("state_format") != STATE_FORMAT:
            raise TrainingError(
                f"the checkpoint has state_format = {values.get('state_format')!r} and this program continues "
                f"{STATE_FORMAT} only: finish the run with the version that began it, or start anew with --overwrite"
            )
        known = {f.name for f in fields(cls)}
        return cls(**{"regular": None, **{name: value for name, value in values.items() if name in known}})


@dataclass(frozen=True)
class StepResult:
    """What one update did: sums over its target tokens, the norm of the gradient, whether it was taken."""

    loss: float
    nll: float
    tokens: int
    grad_norm: float
    finite: bool


class Window:
    """Sums since the last report."""

    def __init__(self, sums: Mapping[str, float] | None = None) -> None:
        """sums: what `sums` gave when an earlier sitting was saved."""
        before = sums or {"loss": 0.0, "nll": 0.0, "grad_norm": 0.0, "tokens": 0, "seconds": 0.0}
        self.loss, self.nll, self.grad_norm = before["loss"], before["nll"], before["grad_norm"]
        self.tokens, self._earlier = int(before["tokens"]), before["seconds"]
        self.begin()

    def begin(self) -> None:
        """Training begins, or goes on, now: what has been done since the window was made takes none of its time."""
        self._started = time.perf_counter() - self._earlier

    def sums(self) -> dict[str, float]:
        names = ("loss", "nll", "grad_norm", "tokens")
        return {**{name: getattr(self, name) for name in names}, "seconds": self.seconds()}

    def add(self, step: StepResult) -> None:
        if step.finite:
            self.loss += step.loss
            self.nll += step.nll
            self.tokens += step.tokens
            self.grad_norm = step.grad_norm

    def pause(self, seconds: float) -> None:
        self._started += seconds

    def seconds(self) -> float:
        return max(1e-9, time.perf_counter() - self._started)
