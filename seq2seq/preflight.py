"""Before the first step: the largest batches that the corpus can give, and a forecast of what training will take.

A GPU whose memory is too small for a batch raises an error, and the batch is taken in parts. On a CPU the system kills
the process instead, maybe after hours, at the first batch of long sentences. So those come first, as a rehearsal whose
gradients are thrown away: a quarter and a half of the largest batch, which tell whether the whole has room, then the
whole, then the longest sentences of the validation set through the decoder.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from seq2seq.atomic import readable_size
from seq2seq.checkpoints import tensor_bytes
from seq2seq.config import Config
from seq2seq.errors import UserError
from seq2seq.machine import available_memory, forget_peak, recent_peak_bytes, resident_bytes
from seq2seq.model.transformer import Transformer
from seq2seq.text.batching import Indices, Lengths, plan_epoch
from seq2seq.training.horizon import known_horizon
from seq2seq.training.room import disk_needed
from seq2seq.training.trainer import Trainer

# What a rehearsal cannot see: matrix products of other sizes keep buffers of their own, memory falls into pieces.
MARGIN = 1.15
OVERHEAD_BYTES = 150_000_000  # libraries that come late: figures of the curves, BLEU


class MemoryForecastError(UserError):
    """Training would need more memory than there is (exit code 1)."""


@dataclass(frozen=True)
class Forecast:
    """memory: bytes resident at most, None where the system does not tell; available: what there is for it.

    disk: bytes of the run folder. seconds: of training, None where no number of steps is planned yet.
    """

    memory: int | None
    available: int | None
    disk: int
    seconds: float | None

    def describe(self) -> str:
        parts = []
        if self.memory is not None:
            there = f" of {readable_size(self.available)}" if self.available is not None else ""
            parts.append(f"up to {readable_size(self.memory)}{there} of memory")
        parts.append(f"{readable_size(self.disk)} of disk")
        if self.seconds is not None:
            parts.append(f"about {_duration(self.seconds)}")
        tight = self.memory is not None and self.available is not None and self.memory > self.available
        return f"forecast: {', '.join(parts)}" + ("; should it be killed, lower training.batch_tokens" if tight else "")


def preflight(
    config: Config, trainer: Trainer, decode: Callable[[Transformer], object] | None, mapped: int = 0
) -> Forecast:
    """Rehearses, and tells what training will take.

    decode: translates the longest sentences of the validation set. mapped: bytes of files that count as memory of the
    process once they are read, though the system can take them back.

    Nothing of what training computes depends on it. Raises MemoryForecastError where the largest batch would not fit;
    on a GPU nothing is raised, as batches are split there.
    """
    weights = tensor_bytes(trainer.model.state_dict())
    pairs = trainer.train_pairs
    largest = largest_batches(pairs.source_lengths, pairs.target_lengths, config)
    seconds = _rehearse(trainer, largest, weights)
    if decode is not None:
        decode(trainer.model)
    memory = available = None
    if trainer.device.type == "cuda":
        memory = int(MARGIN * (torch.cuda.max_memory_allocated(trainer.device) + _to_come(trainer, weights)))
        available = torch.cuda.get_device_properties(trainer.device).total_memory
    elif resident_bytes() is not None:
        memory = int(MARGIN * (recent_peak_bytes() + _to_come(trainer, weights))) + OVERHEAD_BYTES + mapped
        available = _all_there_is()
    disk = disk_needed(config.training, weights)
    return Forecast(memory, available, disk, _training_time(trainer, largest[0], seconds))


def largest_batches(source_lengths: Lengths, target_lengths: Lengths, config: Config) -> list[Indices]:
    """Of one epoch, whose batches have the same lengths as any other's, those that take most memory, the largest first.

    That is the one with most tokens, and the one with most pairs of positions, whose attention weights are kept.
    """
    plan = plan_epoch(
        source_lengths, target_lengths, config.training.micro_batch_tokens, seed=config.training.seed, epoch=0
    )
    tokens, attended = [], []
    for indices in plan:
        source, target = (lengths[indices].astype(np.int64) + 1 for lengths in (source_lengths, target_lengths))
        tokens.append(int((source + target).sum()))
        attended.append(int((source * source + target * target + source * target).sum()))
    chosen = dict.fromkeys([int(np.argmax(tokens)), int(np.argmax(attended))])
    return [plan[number] for number in chosen]


def _rehearse(trainer: Trainer, batches: list[Indices], weights: int) -> float:
    """Computes the gradients of the batches. Returns the seconds that the first took."""
    updater, pairs = trainer.updater, trainer.train_pairs
    first = batches[0]
    peaks = []
    forgets = forget_peak() and trainer.device.type == "cpu"
    for part in (first[::4], first[::2]):
        updater.rehearse(pairs, part)
        peaks.append((len(part), recent_peak_bytes()))
    if forgets:
        (few, least), (more, most) = peaks
        growth = (most - least) / max(1, more - few)  # of a pair
        _check(int(most + growth * (len(first) - more)) + _to_come(trainer, weights), _all_there_is())
    begun = time.perf_counter()
    updater.rehearse(pairs, first)
    if trainer.device.type == "cuda":
        torch.cuda.synchronize(trainer.device)
    seconds = time.perf_counter() - begun
    for batch in batches[1:]:
        updater.rehearse(pairs, batch)
    return seconds


def _to_come(trainer: Trainer, weights: int) -> int:
    """What the first steps and the end add: the moments of Adam where they are not there yet; averaged checkpoints."""
    return (0 if trainer.updater.optimizer.state else 2 * weights) + 2 * weights


def _all_there_is() -> int | None:
    left, resident = available_memory(), resident_bytes()
    return None if left is None or resident is None else left + resident


def _check(memory: int, available: int | None) -> None:
    if available is not None and memory > available:
        raise MemoryForecastError(
            f"training would need {readable_size(memory)} of memory for its largest batch, and there are "
            f"{readable_size(available)}: lower training.batch_tokens, raise training.accumulate, or lower "
            "data.max_source_length and data.max_target_length (training.preflight=false does not look)"
        )


def _training_time(trainer: Trainer, batch: Indices, seconds: float) -> float | None:
    """Seconds that are left, by the time that one batch took; where minutes are the limit, no more than those."""
    state, config, pairs = trainer.state, trainer.config, trainer.train_pairs
    horizon = state.horizon or known_horizon(config, trainer.updates_per_epoch)
    limit = None if config.max_minutes is None else 60 * config.max_minutes - state.seconds
    if horizon is None:
        return limit
    tokens, those = (
        sum(int(side[part].sum()) + len(side[part]) for side in (pairs.source_lengths, pairs.target_lengths))
        for part in (slice(None), batch)
    )
    left = (horizon - state.step) / trainer.updates_per_epoch * tokens / those * seconds
    return left if limit is None else min(left, limit)


def longest_sentences(texts: list[str], config: Config, threads: int) -> list[int]:
    """The numbers of the longest texts, so far as characters tell: as many as are decoded at once."""
    ordered = sorted(range(len(texts)), key=lambda i: len(texts[i]), reverse=True)
    pieces = max(1, len(texts[ordered[0]]) // 4)  # of the longest, about
    batch = max(1, config.decoding.batch_tokens // (config.training.validation_beam_size * pieces))
    return ordered[: batch * threads]


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{max(1, round(seconds))} seconds"
    if minutes < 120:
        return f"{minutes} minute{'s' if minutes > 1 else ''}"
    return f"{minutes / 60:.1f} hours"
