"""The training loop (section 5): updates, validation, checkpoints, resume.

Everything random in step s is drawn from a seed that is a pure function of (training.seed, s), and the order of the
batches of one of (training.seed, epoch). A checkpoint therefore needs no generator state to be resumed exactly.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import torch

from seq2seq.config import TrainingConfig
from seq2seq.model.transformer import Transformer
from seq2seq.run import Run
from seq2seq.run_folder.checkpoints import MODEL, OPTIMIZER, STATE, tensor_bytes
from seq2seq.run_folder.resume_rules import check_identity
from seq2seq.run_folder.weights import load_weights
from seq2seq.text.batching import EpochPairs, Indices, PiecePairs, chain_hash, plan_epoch, updates
from seq2seq.training.averaging import best_steps, regular_steps
from seq2seq.training.disk import check_room
from seq2seq.training.environment import differences, environment
from seq2seq.training.health import EXPLODED_STEPS, REMEDIES, exploded, explosion, jumped, not_finite, watch_loss
from seq2seq.training.horizon import (
    at_end,
    check_end,
    early_end,
    known_horizon,
    out_of_patience,
    plan_at_speed,
    plan_from_timings,
    time_left,
)
from seq2seq.training.optimizer import learning_rate, load_optimizer_tensors, optimizer_bytes, optimizer_tensors
from seq2seq.training.state import STATE_FORMAT, Interrupted, Observer, StepResult, TrainingError, TrainingState, Window
from seq2seq.training.state_check import check_saved_state
from seq2seq.training.updates import Step, Updater
from seq2seq.training.validation import validation_loss

OTHERS = 256  # pairs that tell a model that went wrong from a batch that is odd
FEWER = 0.9  # of the steps that a plan would have without validations: it is told


class Trainer:
    """Trains a model on encoded pairs, writing to a run folder.

    evaluate: scores the model on the validation set as BLEU, or None where there is none; the trainer does not know
    how to decode. sampled: gives the training pairs of each epoch, where they are split into pieces anew. stop: asked
    after every step whether to stop early, with a checkpoint. identity: hashes of the corpus and tokenizer that a
    resumed run must have.
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
        sampled: EpochPairs | None = None,
        stop: Callable[[], bool] = lambda: False,
        identity: Mapping[str, str] | None = None,
    ) -> None:
        self.run, self.config, self.model = run, config, model.to(device)
        self.train_pairs, self.valid_pairs, self.sampled = train, valid, sampled
        self._pairs = train
        self.evaluate, self.observer, self.device, self.stop = evaluate, observer, device, stop
        self.identity = dict(identity or {})
        self.updater = Updater(config, self.model, device)
        self._pending: list[Step] = []  # updates whose results have not been read
        self.state = TrainingState(environment=self._environment())
        self._plan: list[list[Indices]] = []
        self._planned_epoch = -1
        self._since_log = Window()
        self._last_validation_seconds: float | None = None
        self.environment_changed = False  # resumed with another device, number of threads, torch ...

    # The loop

    def train(self, *, validate_first: bool = False) -> TrainingState:
        """Trains until a limit is reached. Raises TrainingError, or Interrupted after saving.

        validate_first: before step 1, as the model may be good already.
        """
        state = self.state
        self.set_horizon()
        if state.step:  # a kill may have come between saving and this
            self._prune()
        if not self.done():
            sizes = tensor_bytes(self.model.state_dict()), optimizer_bytes(self.config, self.model)
            check_room(self.run, self.config, *sizes, self.observer.message)
        if validate_first and not (state.step or self.done()):
            self._validate()  # not of the training's time, which tells how fast it is
        started, before = time.perf_counter(), state.seconds
        self._since_log.begin()
        timings: list[float] = []
        done = self.done()
        while not done:
            update = self._next_update()
            state.batches = chain_hash(state.batches, self._pairs, update)
            state.step += 1
            rate = learning_rate(self.config, self.model.config.d_model, state.step, state.horizon)
            begun = time.perf_counter()
            self._pending.append(self.updater.update(self._pairs, update, state.step, rate))
            self._count_splits(self._pending[-1].splits)
            if state.horizon is None or self.device.type == "cpu":
                self._settle()
            timings.append(time.perf_counter() - begun)
            state.seconds = before + time.perf_counter() - started
            planned = state.horizon is None and self._plan_horizon(timings)
            done = self.done()  # by time too: asked once a step, so that log, validation and checkpoint agree
            if done or state.step % self.config.log_every == 0:
                self._settle()
                self._log(rate)
            best = (done or state.step % self.config.validate_every == 0) and self._validate()
            state.seconds = before + time.perf_counter() - started
            state.finished = done = done or out_of_patience(self.config, state)
            stop = self.stop()
            if best or done or stop or planned or state.step % self.config.save_every == 0:
                self.save()
            if stop and not done:
                raise Interrupted
            if done and (reason := early_end(self.config, state)):
                self.observer.message(reason)
        return state

    def done(self) -> bool:
        """Whether there is nothing left to train, once the horizon is set."""
        return at_end(self.config, self.state)

    def _next_update(self) -> list[Indices]:
        state = self.state
        self._plan_epoch(state.epoch)
        if self.sampled is not None:
            self.sampled.prefetch(state.epoch + 1)
        if state.update >= len(self._plan):  # of a checkpoint that is not this run's
            raise TrainingError(
                f"{self.run.path}: damaged: the checkpoint has done update {state.update:,} of {len(self._plan):,} of "
                f"epoch {state.epoch:,}; start anew with --overwrite"
            )
        update = self._plan[state.update]
        state.update += 1
        if state.update == len(self._plan):
            state.epoch, state.update = state.epoch + 1, 0
        return update

    def epoch_plan(self) -> tuple[PiecePairs, list[list[Indices]]]:
        """The pairs of the epoch that is trained on next, and its updates, each a list of micro-batches."""
        self._plan_epoch(self.state.epoch)
        return self._pairs, self._plan

    def _plan_epoch(self, epoch: int) -> None:
        """Makes an epoch's pairs and updates ready, unless they are: of millions of pairs it takes seconds."""
        if self._planned_epoch == epoch:
            return
        pairs = self.train_pairs if self.sampled is None else self.sampled.for_epoch(epoch)
        lengths = pairs.source_lengths, pairs.target_lengths
        plan = plan_epoch(*lengths, self.config.micro_batch_tokens, seed=self.config.seed, epoch=epoch)
        self._pairs, self._plan = pairs, updates(plan, accumulate=self.config.accumulate)
        self._planned_epoch = epoch

    @property
    def updates_per_epoch(self) -> int:
        """Of the first epoch; where pieces are sampled, others have a few more or less."""
        if self.state.updates_per_epoch is None:
            self._plan_epoch(0)
            self.state.updates_per_epoch = len(self._plan)
        return self.state.updates_per_epoch

    def epochs(self) -> float:
        """How often the corpus has been gone through."""
        per_epoch = len(self._plan) or self.updates_per_epoch  # no plan: the run was finished when it was resumed
        return self.state.epoch + self.state.update / per_epoch

    def set_horizon(self) -> None:
        """Fixes the horizon at the start, and anew where a resumed run has been given other limits."""
        config, state = self.config, self.state
        limits: list[float | None] = [config.max_steps, config.max_epochs, config.max_minutes]
        changed = state.limits is not None and state.limits != limits
        if state.horizon is None or changed:
            check_end(config, self.valid_pairs is not None)
            per_epoch = self._per_epoch()
            state.horizon = known_horizon(config, per_epoch)
            if state.horizon is None and config.max_minutes is not None and changed and state.step:
                speed = state.seconds / state.step
                self._take_plan(plan_at_speed(config, state.step, state.seconds, speed, per_epoch))
        state.limits = limits

    def _plan_horizon(self, timings: list[float]) -> bool:
        """Plans it if it is time to. A plan is to be saved at once: after a crash, the clock would give another."""
        state = self.state
        so_far = self.config, state.step, state.seconds, timings, self._per_epoch()
        without = plan_from_timings(*so_far)
        if without is not None:
            started = time.perf_counter()
            validation = self._validation_seconds()
            self._take_plan(plan_from_timings(*so_far, validation, time.perf_counter() - started))
            if state.horizon is not None and state.horizon < FEWER * without:
                self.observer.message(
                    f"without validations there would be {without:,}: one takes {validation:.0f} s; raise "
                    "training.validate_every, or shorten the validation set"
                )
        return state.horizon is not None

    def _per_epoch(self) -> int:
        """Updates of an epoch where epochs are a limit; otherwise nobody needs to know, and 0."""
        return 0 if self.config.max_epochs is None else self.updates_per_epoch

    def _validation_seconds(self) -> float:
        """How long the last validation of this sitting took; without one, how long it takes now."""
        if self._last_validation_seconds is None and self.valid_pairs is not None:
            self._score(self.valid_pairs)
        return self._last_validation_seconds or 0.0

    def _take_plan(self, horizon: int | None) -> None:
        if horizon is not None:
            self.state.horizon = horizon
            epochs = self.config.max_epochs
            by_epochs = epochs is not None and horizon == epochs * self.updates_per_epoch
            end = f"for {epochs:,} epochs" if by_epochs else f"to fit into {self.config.max_minutes:g} minutes"
            self.observer.message(f"planned {horizon:,} steps {end}")

    def _settle(self) -> None:
        """Reads what the updates since the last time did. Between reports nothing else waits for a GPU."""
        pending, self._pending = self._pending, []
        if not pending:
            return
        values = torch.stack([torch.stack([s.loss, s.nll, s.grad_norm, s.finite]) for s in pending]).tolist()
        for number, (step, (loss, nll, norm, finite)) in enumerate(zip(pending, values, strict=True)):
            result = StepResult(loss, nll, step.tokens, norm, bool(finite))
            self._count(result, self.state.step - len(pending) + number + 1)
            self._since_log.add(result)

    def _count_splits(self, splits: int) -> None:
        state = self.state
        if splits and not state.split_batches:
            self.observer.message(
                f"step {state.step}: a batch is too large for the memory; it is taken in parts, as others of its size "
                "will be (training.accumulate=2 does so from the beginning)"
            )
        state.split_batches += splits
        state.too_many_tokens = self.updater.too_many

    def _count(self, result: StepResult, step: int) -> None:
        state = self.state
        if result.finite:
            state.target_tokens += result.tokens
            state.skipped_in_a_row = 0
            self._watch(result.nll / result.tokens, step)
            return
        state.skipped_steps += 1
        state.skipped_in_a_row += 1
        what = "loss" if not math.isfinite(result.loss) else "gradient"
        self.observer.message(f"step {step}: the {what} is not finite; the step is skipped")
        if state.skipped_in_a_row >= self.config.max_skipped_steps:
            raise self._failure(f"{state.skipped_in_a_row} steps in a row had a {what} that is not finite")

    def _watch(self, nll: float, step: int) -> None:
        state = self.state
        rate = learning_rate(self.config, self.model.config.d_model, step, state.horizon)
        if watch_loss(state, nll):
            self.observer.message(f"step {step}: {explosion(state, rate)}; until it is down again, nothing is saved")
        if state.exploded_in_a_row >= EXPLODED_STEPS:
            raise self._failure(f"step {step}: {explosion(state, rate)}, for {EXPLODED_STEPS} steps now")

    def _failure(self, what: str) -> TrainingError:
        latest = self.run.latest_checkpoint()
        where = f", and continue from step {latest.step:,} with --resume" if latest else ""
        return TrainingError(f"{what}: {REMEDIES}{where}")

    # Reports, validation, checkpoints

    def _log(self, rate: float) -> None:
        state, window = self.state, self._since_log
        record = {
            "step": state.step,
            "epoch": state.epoch,
            # Nothing where all steps were skipped.
            "loss": round(window.loss / window.tokens, 4) if window.tokens else None,
            "nll": round(window.nll / window.tokens, 4) if window.tokens else None,
            "learning_rate": rate,
            "grad_norm": round(window.grad_norm, 4),
            "target_tokens": state.target_tokens,
            "target_tokens_per_second": round(window.tokens / window.seconds()),
            "seconds": round(state.seconds, 2),
            "skipped_steps": state.skipped_steps,
            "exploded_steps": state.exploded_steps,
            "split_batches": state.split_batches,
        }
        self.run.append_metrics(record)
        self.observer.progress({**record, "horizon": state.horizon, "time_left": time_left(self.config, state)})
        self._since_log = Window()

    def _validate(self) -> bool:
        """Scores the model; returns whether its checkpoint is one of the best that are kept."""
        state = self.state
        if self.valid_pairs is None:
            return False
        loss, bleu = self._score(self.valid_pairs)
        record = {
            "step": state.step,
            "epoch": state.epoch,
            "valid_loss": round(loss, 4),
            "valid_bleu": None if bleu is None else round(bleu, 3),
            "validation_seconds": round(self._last_validation_seconds or 0.0, 2),
        }
        state.validations.append({key: record[key] for key in ("step", "valid_loss", "valid_bleu")})
        self.run.append_metrics(record)
        self.observer.validation(record)
        return state.step in self._best_steps()

    def _score(self, valid: PiecePairs) -> tuple[float, float | None]:
        """The validation loss, and BLEU where it is decoded; it takes no time of training's speed."""
        started = time.perf_counter()
        self._check_finite("the weights of", self.model.state_dict())
        loss = validation_loss(self.model, valid, self.config.micro_batch_tokens, self.device)
        if not math.isfinite(loss):  # there is no ranking by it
            raise self._failure(f"step {self.state.step}: the validation loss is not finite")
        bleu = self.evaluate(self.model) if self.evaluate is not None else None
        self._last_validation_seconds = time.perf_counter() - started
        self._since_log.pause(self._last_validation_seconds)
        return loss, bleu

    def _best_steps(self) -> list[int]:
        """The steps of the `keep_best` best validations, of this step and of those with a checkpoint."""
        return best_steps([self.state.step, *self._saved_steps()], self.state)[: self.config.keep_best]

    def save(self) -> None:
        """Writes a checkpoint and removes those that need not be kept; of a model that went wrong, does neither.

        Raises TrainingError where that is the end: values that are not finite, a loss that has exploded at the end.
        """
        self._settle()
        state, config = self.state, self.config
        others = self._loss_of_others() if jumped(state) else None
        if exploded(state) or (others is not None and jumped(state, others)):
            rate = learning_rate(config, self.model.config.d_model, state.step, state.horizon)
            what = f"step {state.step}: {explosion(state, rate, None if exploded(state) else others)}"
            if state.finished:
                raise self._failure(what)
            if not exploded(state):  # else it has been told
                self.observer.message(f"{what}; it is not saved")
            return
        if state.step % config.save_every == 0:
            state.regular = regular_steps({*self._saved_steps(), state.step}, state)[-config.keep_last :]
        optimizer = optimizer_tensors(self.updater.optimizers, self.model)
        self._check_finite("the weights of", self.model.state_dict())
        self._check_finite("the optimizer's", optimizer)
        state.metrics_size = self.run.sync_metrics()
        values = {
            "state_format": STATE_FORMAT,
            **asdict(state),
            "since_log": self._since_log.sums(),
            "identity": self.identity,
        }
        self.run.save_checkpoint(state.step, self.model.state_dict(), optimizer, values)
        self._prune()

    def _loss_of_others(self) -> float:
        """-log p of a target token of the first training pairs, to tell a model that went wrong from an odd batch."""
        try:
            return validation_loss(self.model, self._pairs, self.config.micro_batch_tokens, self.device, OTHERS)
        except ValueError:  # all too long to try
            return math.inf

    def _prune(self) -> None:
        regular = regular_steps(self._saved_steps(), self.state)
        self.run.prune_checkpoints({*self._best_steps(), *regular[-self.config.keep_last :]})

    def _saved_steps(self) -> list[int]:
        return [checkpoint.step for checkpoint in self.run.checkpoints()]

    def _check_finite(self, what: str, tensors: Mapping[str, torch.Tensor]) -> None:
        if name := not_finite(tensors):
            raise self._failure(f"step {self.state.step}: {what} {name} are not finite, and not saved")

    def resume(self) -> bool:
        """Continues from the newest checkpoint, if there is one. Raises RunError where it is of other data."""
        self.run.clean()
        checkpoint = self.run.newest_sound_checkpoint(self.observer.message)
        if checkpoint is None:
            self.run.cut_metrics(0)
            return False
        values = checkpoint.state()
        state = TrainingState.from_dict(values)
        check_saved_state(values, str(checkpoint.path / STATE))
        check_identity(values.get("identity", {}), self.identity)
        if state.regular is None:  # nothing tells them from the best, and none is to be lost
            state.regular = self._saved_steps()
        self.state = state
        self.updater.too_many = state.too_many_tokens
        self._keep_environment(self.state.environment)
        self._since_log = Window(values.get("since_log"))
        load_weights(self.model, checkpoint.model_tensors(), str(checkpoint.path / MODEL))
        try:
            load_optimizer_tensors(self.updater.optimizers, self.model, checkpoint.optimizer_tensors())
        except ValueError as error:
            raise TrainingError(f"{checkpoint.path / OPTIMIZER}: damaged: {error}") from None
        self.run.cut_metrics(self.state.metrics_size)
        return True

    def _environment(self) -> dict[str, Any]:
        return environment(self.model, self.device, self.updater.workers.count)

    def _keep_environment(self, saved: Mapping[str, Any]) -> None:
        """Keeps the precision of the run that is resumed, unless another is asked for; tells what else has changed."""
        if self.config.precision == "auto" and "precision" in saved:
            self.model.compute_dtype = torch.bfloat16 if saved["precision"] == "bf16" else torch.float32
        now = self._environment()
        if changed := differences(saved, now):
            self.observer.message(f"resuming with {', '.join(changed)}: not bit for bit what it would have been")
        self.environment_changed = bool(changed)
        self.state.environment = now
