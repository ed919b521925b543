"""The training loop (section 5): updates, validation, checkpoints, resume.

Everything random in step s is drawn from a seed that is a pure function of (training.seed, s), and the order of the
batches of one of (training.seed, epoch). A checkpoint therefore needs no generator state to be resumed exactly.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Protocol

import torch
from torch import Tensor

from seq2seq.config import TrainingConfig
from seq2seq.errors import UserError
from seq2seq.model.transformer import Transformer
from seq2seq.run import Run
from seq2seq.runtime import derived_seed
from seq2seq.text.batching import Batch, Indices, PiecePairs, collate, in_order, plan_epoch, updates
from seq2seq.training.loss import smoothed_cross_entropy
from seq2seq.training.optimizer import build_optimizer, learning_rate, load_optimizer_tensors, optimizer_tensors

# A horizon that is planned from minutes: how much of the time is spent measuring the speed, and how much is left for
# validating, saving and averaging.
MEASURE_SHARE, RESERVE_SHARE = 0.04, 0.10
MIN_MEASURED_STEPS = 8


class TrainingError(UserError):
    """Training cannot go on (exit code 1). The message gives the cause and the remedy."""


class Interrupted(Exception):
    """Training was asked to stop and did so after a complete step and a checkpoint."""


class Observer(Protocol):
    """Who is told how training goes: the progress display, or a list in a test."""

    def message(self, text: str) -> None:
        """A line for people."""

    def progress(self, record: Mapping[str, Any]) -> None:
        """Every few steps; the same record that metrics.jsonl gets, and `horizon`."""

    def validation(self, record: Mapping[str, Any]) -> None:
        """After each validation; the same record that metrics.jsonl gets."""


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
    best_bleu: float | None = None
    best_step: int | None = None
    validations_since_best: int = 0
    validations: list[dict[str, Any]] = field(default_factory=list)
    metrics_size: int = 0
    finished: bool = False

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainingState:
        known = {f.name for f in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known})


@dataclass(frozen=True)
class Step:
    """What one update did: sums over its target tokens, and the norm of the gradient."""

    loss: float
    nll: float
    tokens: int
    grad_norm: float
    finite: bool


class Trainer:
    """Trains a model on encoded pairs, writing to a run folder.

    evaluate: scores the model on the validation set as BLEU, or None where there is none; the trainer does not know
    how to decode. stop: asked after every step whether to stop early, with a checkpoint. identity: hashes of the
    corpus and tokenizer that a resumed run must have.
    """

    def __init__(
        self,
        run: Run,
        config: TrainingConfig,
        model: Transformer,
        train: PiecePairs,
        valid: PiecePairs | None,
        evaluate: Callable[[Transformer], float] | None,
        observer: Observer,
        *,
        device: torch.device,
        stop: Callable[[], bool] = lambda: False,
        identity: Mapping[str, str] | None = None,
    ) -> None:
        self.run, self.config, self.model = run, config, model.to(device)
        self.train_pairs, self.valid_pairs = train, valid
        self.evaluate, self.observer, self.device, self.stop = evaluate, observer, device, stop
        self.identity = dict(identity or {})
        self.optimizer = build_optimizer(config, model)
        self.state = TrainingState()
        self._plan: list[list[Indices]] = []
        self._planned_epoch = -1
        self._since_log = _Window()

    # The loop

    def train(self) -> TrainingState:
        """Trains until a limit is reached. Raises TrainingError, or Interrupted after saving."""
        state = self.state
        self._set_horizon()
        started, before = time.perf_counter(), state.seconds
        measured = _Clock()
        while not self._done():
            update = self._next_update()
            state.step += 1
            rate = learning_rate(self.config, self.model.config.d_model, state.step, state.horizon)
            step = self._update(update, state.step, rate)
            self._count(step)
            state.seconds = before + time.perf_counter() - started
            if state.horizon is None:
                state.horizon = self._plan_horizon(measured.tick())
            self._since_log.add(step)
            if state.step % self.config.log_every == 0 or self._done():
                self._log(rate)
            best = self._validate() if self._time_for(self.config.validate_every) else False
            state.seconds = before + time.perf_counter() - started
            state.finished = self._done()
            if best or state.finished or self._time_for(self.config.save_every):
                self.save()
            if self.stop() and not state.finished:
                self.save()
                raise Interrupted
        return state

    def _time_for(self, every: int) -> bool:
        return self.state.step % every == 0 or self._done()

    def _done(self) -> bool:
        state, config = self.state, self.config
        if state.horizon is not None and state.step >= state.horizon:
            return True
        if config.patience and state.validations_since_best >= config.patience:
            return True
        if config.max_epochs is not None and state.epoch >= config.max_epochs:
            return True
        # Where steps fix the horizon, minutes are a limit of their own; where they planned it, they are in it already.
        out_of_time = config.max_minutes is not None and state.seconds >= 60 * config.max_minutes
        return config.max_steps is not None and out_of_time

    def _next_update(self) -> list[Indices]:
        state = self.state
        if self._planned_epoch != state.epoch:
            self._plan = self._epoch(state.epoch)
            self._planned_epoch = state.epoch
        update = self._plan[state.update]
        state.update += 1
        if state.update == len(self._plan):
            state.epoch, state.update = state.epoch + 1, 0
        return update

    def _epoch(self, epoch: int) -> list[list[Indices]]:
        lengths = self.train_pairs.source_lengths, self.train_pairs.target_lengths
        micro_batch_tokens = max(1, self.config.batch_tokens // self.config.accumulate)
        plan = plan_epoch(*lengths, micro_batch_tokens, seed=self.config.seed, epoch=epoch)
        return updates(plan, accumulate=self.config.accumulate)

    def epochs(self) -> float:
        """How often the corpus has been gone through."""
        state = self.state
        return state.epoch + (state.update / len(self._epoch(0)) if state.update else 0.0)

    def _set_horizon(self) -> None:
        """Fixes the horizon at the start, and anew where a resumed run has been given other limits."""
        config, state = self.config, self.state
        limits: list[float | None] = [config.max_steps, config.max_epochs, config.max_minutes]
        changed = state.limits is not None and state.limits != limits
        if state.horizon is None or changed:
            state.horizon = self._known_horizon()
            if state.horizon is None and config.max_minutes is not None and changed:
                state.horizon = self._horizon_at(state.seconds / state.step, 60 * config.max_minutes)
        state.limits = limits

    def _known_horizon(self) -> int | None:
        config = self.config
        if config.max_steps is not None:
            return config.max_steps
        if config.max_minutes is not None:
            return None
        if config.max_epochs is not None:
            return config.max_epochs * len(self._epoch(0))
        if config.patience and self.valid_pairs is not None and config.schedule in ("inverse_sqrt", "constant"):
            return None
        raise TrainingError(
            "nothing says when training ends: set training.max_steps, training.max_epochs or training.max_minutes"
        )

    def _plan_horizon(self, timings: list[float]) -> int | None:
        """Turns `max_minutes` into steps once enough of them have been timed; None until then."""
        config, state = self.config, self.state
        if config.max_minutes is None:
            return None
        budget = 60 * config.max_minutes
        enough = state.seconds >= MEASURE_SHARE * budget and len(timings) >= MIN_MEASURED_STEPS
        # Before the warm-up ends the schedule does not depend on the horizon; after it, it must be known.
        if not enough and state.step < config.warmup_steps and state.seconds < (1 - RESERVE_SHARE) * budget:
            return None
        # The first steps warm caches up.
        timed = timings[2:] or timings
        return self._horizon_at(sum(timed) / len(timed), budget)

    def _horizon_at(self, seconds_per_step: float, budget: float) -> int:
        """The last step that fits into `budget` seconds of training altogether, at the given speed."""
        config, state = self.config, self.state
        left = max(0.0, (1 - RESERVE_SHARE) * budget - state.seconds)
        horizon = state.step + int(left / seconds_per_step)
        if config.max_epochs is not None:
            horizon = min(horizon, config.max_epochs * len(self._epoch(0)))
        self.observer.message(f"planned {horizon:,} steps to fit into {budget / 60:g} minutes")
        return horizon

    # One update

    def _update(self, micro_batches: list[Indices], step: int, rate: float) -> Step:
        """Accumulates the gradient of the mean loss over all target tokens of the update, then takes an Adam step."""
        config, model = self.config, self.model
        model.train()
        tokens = sum(int(self.train_pairs.target_lengths[indices].sum()) + len(indices) for indices in micro_batches)
        loss = torch.zeros((), device=self.device)
        nll = torch.zeros_like(loss)
        self.optimizer.zero_grad(set_to_none=True)
        for number, indices in enumerate(micro_batches):
            torch.manual_seed(derived_seed(config.seed, "dropout", step, number))
            batch = collate(self.train_pairs, indices).to(self.device)
            batch_loss, batch_nll = batch_losses(model, batch, config.label_smoothing)
            (batch_loss / tokens).backward()  # type: ignore[no-untyped-call]
            loss += batch_loss.detach()
            nll += batch_nll
        limit = config.clip_norm or math.inf
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), limit)
        finite = bool(torch.isfinite(norm)) and bool(torch.isfinite(loss))
        if finite:
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            self.optimizer.step()
        return Step(float(loss), float(nll), tokens, float(norm), finite)

    def _count(self, step: Step) -> None:
        state = self.state
        if step.finite:
            state.target_tokens += step.tokens
            state.skipped_in_a_row = 0
            return
        state.skipped_steps += 1
        state.skipped_in_a_row += 1
        what = "loss" if not math.isfinite(step.loss) else "gradient"
        self.observer.message(f"step {state.step}: the {what} is not finite; the step is skipped")
        if state.skipped_in_a_row >= self.config.max_skipped_steps:
            raise TrainingError(
                f"{state.skipped_in_a_row} steps in a row had a {what} that is not finite: lower "
                'training.learning_rate_scale, set training.clip_norm=1, or training.precision="fp32"; '
                "the last checkpoint is good"
            )

    # Reports, validation, checkpoints

    def _log(self, rate: float) -> None:
        state, window = self.state, self._since_log
        record = {
            "step": state.step,
            "epoch": state.epoch,
            "loss": round(window.loss / max(1, window.tokens), 4),
            "nll": round(window.nll / max(1, window.tokens), 4),
            "learning_rate": rate,
            "grad_norm": round(window.grad_norm, 4),
            "target_tokens": state.target_tokens,
            "target_tokens_per_second": round(window.tokens / window.seconds()),
            "seconds": round(state.seconds, 2),
            "skipped_steps": state.skipped_steps,
        }
        self.run.append_metrics(record)
        self.observer.progress({**record, "horizon": state.horizon})
        self._since_log = _Window()

    def _validate(self) -> bool:
        """Scores the model; returns whether its checkpoint is one of the best that are kept."""
        state, config = self.state, self.config
        if self.valid_pairs is None:
            return False
        started = time.perf_counter()
        loss = validation_loss(self.model, self.valid_pairs, config.batch_tokens // config.accumulate, self.device)
        bleu = self.evaluate(self.model) if self.evaluate is not None else None
        record = {
            "step": state.step,
            "epoch": state.epoch,
            "valid_loss": round(loss, 4),
            "valid_bleu": None if bleu is None else round(bleu, 3),
            "validation_seconds": round(time.perf_counter() - started, 2),
        }
        state.validations.append({key: record[key] for key in ("step", "valid_loss", "valid_bleu")})
        score = _score(record)
        if state.best_bleu is None or score > state.best_bleu:
            state.best_bleu, state.best_step, state.validations_since_best = score, state.step, 0
        else:
            state.validations_since_best += 1
        self.run.append_metrics(record)
        self.observer.validation(record)
        self._since_log.pause(time.perf_counter() - started)
        return state.step in self._best_steps()

    def _best_steps(self) -> list[int]:
        """The steps of the `keep_best` best validations, best first; of equals the earlier, as for `best_step`."""
        ranked = sorted(self.state.validations, key=lambda record: (-_score(record), record["step"]))
        return [record["step"] for record in ranked[: self.config.keep_best]]

    def save(self) -> None:
        """Writes a checkpoint and removes those that need not be kept."""
        state, config = self.state, self.config
        state.metrics_size = self.run.metrics_size()
        values = {**asdict(state), "since_log": self._since_log.sums(), "identity": self.identity}
        optimizer = optimizer_tensors(self.optimizer, self.model)
        self.run.save_checkpoint(state.step, self.model.state_dict(), optimizer, values)
        best = set(self._best_steps())
        steps = [checkpoint.step for checkpoint in self.run.checkpoints()]
        regular = [step for step in steps if step % config.save_every == 0 or step == state.step]
        self.run.prune_checkpoints(best | set(regular[-config.keep_last :]))

    def resume(self) -> bool:
        """Continues from the newest checkpoint, if there is one. Raises TrainingError where it is of other data."""
        self.run.clean()
        checkpoint = self.run.latest_checkpoint()
        if checkpoint is None:
            self.run.cut_metrics(0)
            return False
        checkpoint.verify()
        values = checkpoint.state()
        for name, value in values.get("identity", {}).items():
            if self.identity.get(name, value) != value:
                raise TrainingError(f"--resume: the {name} is not the one that this run began with; use --overwrite")
        self.state = TrainingState.from_dict(values)
        self._since_log = _Window(values.get("since_log"))
        self.model.load_state_dict(checkpoint.model_tensors())
        load_optimizer_tensors(self.optimizer, self.model, checkpoint.optimizer_tensors())
        self.run.cut_metrics(self.state.metrics_size)
        return True


def batch_losses(model: Transformer, batch: Batch, smoothing: float) -> tuple[Tensor, Tensor]:
    """Sums over the target tokens of a batch: the smoothed loss, and -log p. Teacher forcing; padding is left out."""
    memory, memory_mask = model.encode(batch.source)
    states = model.decoder_states(batch.target_input, memory, memory_mask)
    states = states.flatten(0, 1).index_select(0, batch.tokens)
    targets = batch.target_output.flatten().index_select(0, batch.tokens)
    return smoothed_cross_entropy(states, model.output_weight, targets, smoothing)


@torch.no_grad()
def validation_loss(model: Transformer, pairs: PiecePairs, batch_tokens: int, device: torch.device) -> float:
    """Mean -log p of a target token (natural logarithm), unsmoothed, without dropout."""
    model.eval()
    total, tokens = 0.0, 0
    for batch in in_order(pairs, batch_tokens):
        _, nll = batch_losses(model, batch.to(device), 0.0)
        total += float(nll)
        tokens += batch.num_target_tokens
    return total / max(1, tokens)


def _score(validation: Mapping[str, Any]) -> float:
    """What checkpoints are ranked by: BLEU, or the loss where nothing is decoded."""
    bleu = validation["valid_bleu"]
    return -float(validation["valid_loss"]) if bleu is None else float(bleu)


class _Window:
    """Sums since the last report."""

    def __init__(self, sums: Mapping[str, float] | None = None) -> None:
        """sums: what `sums` gave when an earlier sitting was saved."""
        before = sums or {"loss": 0.0, "nll": 0.0, "grad_norm": 0.0, "tokens": 0, "seconds": 0.0}
        self.loss, self.nll, self.grad_norm = before["loss"], before["nll"], before["grad_norm"]
        self.tokens = int(before["tokens"])
        self.started = time.perf_counter() - before["seconds"]

    def sums(self) -> dict[str, float]:
        names = ("loss", "nll", "grad_norm", "tokens")
        return {**{name: getattr(self, name) for name in names}, "seconds": self.seconds()}

    def add(self, step: Step) -> None:
        if step.finite:
            self.loss += step.loss
            self.nll += step.nll
            self.tokens += step.tokens
            self.grad_norm = step.grad_norm

    def pause(self, seconds: float) -> None:
        self.started += seconds

    def seconds(self) -> float:
        return max(1e-9, time.perf_counter() - self.started)


class _Clock:
    """The durations of the steps so far."""

    def __init__(self) -> None:
        self.last = time.perf_counter()
        self.durations: list[float] = []

    def tick(self) -> list[float]:
        now = time.perf_counter()
        self.durations.append(now - self.last)
        self.last = now
        return self.durations
