"""Before the first step: the largest batches that the corpus can give, and a forecast of what training will take.

A GPU whose memory is too small for a batch raises an error, and the batch is taken in parts. On a CPU the system kills
the process instead, maybe after hours, at the first batch of long sentences. So those come first, as a rehearsal whose
gradients are thrown away: a quarter and a half of each, which tell whether the whole has room, then the whole, then the
longest sentences of the validation set through the decoder.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch

from seq2seq.atomic import readable_size
from seq2seq.config import Config
from seq2seq.errors import UserError
from seq2seq.machine import available_memory, forget_peak, recent_peak_bytes, resident_bytes
from seq2seq.model.transformer import Transformer
from seq2seq.run_folder.checkpoints import tensor_bytes
from seq2seq.runtime import release_freed_memory
from seq2seq.text.batching import Indices, Lengths, PiecePairs
from seq2seq.training.disk import disk_needed
from seq2seq.training.horizon import time_left
from seq2seq.training.optimizer import optimizer_bytes
from seq2seq.training.trainer import Trainer

SLOW_POSITIONS = 20_000_000  # pairs of positions of one sentence, from which the rehearsal is announced
# What a rehearsal cannot see: matrix products of other sizes keep buffers of their own, memory falls into pieces.
MARGIN = 1.15
OVERHEAD_BYTES = 150_000_000  # libraries that come late: figures of the curves, BLEU


class MemoryForecastError(UserError):
    """Training would need more memory than there is (exit code 1)."""


@dataclass(frozen=True)
class Forecast:
    """memory: bytes at most, None where the system does not tell; available: what there is for it.

    disk: bytes of the run folder. seconds: of training, None where neither steps nor minutes end it. tight: the
    process may be killed. splits: how often a GPU had to split the largest batches.
    """

    memory: int | None
    available: int | None
    disk: int
    seconds: float | None
    tight: bool = False
    splits: int = 0

    def describe(self) -> str:
        parts = []
        if self.memory is not None:
            there = f" of {readable_size(self.available)}" if self.available is not None else ""
            parts.append(f"up to {readable_size(self.memory)}{there} of memory")
        parts.append(f"{readable_size(self.disk)} of disk")
        if self.seconds is not None:
            parts.append(f"about {_duration(self.seconds)} of training")
        text = f"forecast: {', '.join(parts)}"
        if self.tight:
            text += "; should it be killed, lower training.batch_tokens"
        if self.splits:
            text += "; the largest batches do not fit and will be split (training.accumulate=2 does so with all)"
        return text


def preflight(
    config: Config,
    trainer: Trainer,
    decode: Callable[[Transformer], object] | None,
    *,
    tell: Callable[[str], None] = lambda text: None,
    mapped: int = 0,
    prepared: int = 0,
    resumed: bool = False,
) -> Forecast:
    """Rehearses, and tells what training will take.

    decode: translates the longest sentences of the validation set. tell: is told where it may take long. mapped: bytes
    of files that count as memory of the process once they are read, though the system can take them back. prepared:
    bytes of the corpus on the disk. Nothing of what training computes depends on it.
    Raises MemoryForecastError where the largest batch would not fit; on a GPU nothing is raised, as batches are split
    there.
    """
    trainer.set_horizon()
    pairs, plan = trainer.epoch_plan()
    largest = largest_batches(pairs.source_lengths, pairs.target_lengths, list(chain.from_iterable(plan)))
    longest = max(int(side[batch].max()) for side in (pairs.source_lengths, pairs.target_lengths) for batch in largest)
    if longest**2 > SLOW_POSITIONS:
        tell(f"trying the largest batches, with a sentence of {longest:,} pieces: this may take a while")
    seconds, splits = _rehearse(trainer, pairs, largest, resumed=resumed)
    if decode is not None:
        decode(trainer.model)
    to_come, tight = _to_come(trainer), False
    memory = available = None
    if trainer.device.type == "cuda":
        memory = int(MARGIN * (torch.cuda.max_memory_allocated(trainer.device) + to_come))
        available = torch.cuda.get_device_properties(trainer.device).total_memory
        memory = min(memory, available)  # batches are split to fit
    elif resident_bytes() is not None:
        memory = int(MARGIN * (recent_peak_bytes() + to_come)) + OVERHEAD_BYTES
        available = _all_there_is()
        tight = available is not None and memory > available
        memory += mapped
    weights, optimizer = tensor_bytes(trainer.model.state_dict()), optimizer_bytes(config.training, trainer.model)
    disk = disk_needed(config.training, weights, optimizer) + prepared
    return Forecast(memory, available, disk, training_time(trainer, pairs, largest[0], seconds), tight, splits)


def largest_batches(source_lengths: Lengths, target_lengths: Lengths, plan: list[Indices]) -> list[Indices]:
    """Of an epoch's batches those that take most memory: that with most tokens first.

    And, where it is another, that with most pairs of positions, whose attention weights are kept where kernels are not
    compiled. All epochs have batches of the same lengths, but where pieces are sampled.
    """
    tokens, attended = [], []
    for indices in plan:
        source, target = (lengths[indices].astype(np.int64) + 1 for lengths in (source_lengths, target_lengths))
        tokens.append(int((source + target).sum()))
        attended.append(int((source * source + target * target + source * target).sum()))
    chosen = dict.fromkeys([int(np.argmax(tokens)), int(np.argmax(attended))])
    return [plan[number] for number in chosen]


def _rehearse(trainer: Trainer, pairs: PiecePairs, batches: list[Indices], *, resumed: bool) -> tuple[float, int]:
    """Computes the gradients of the batches. Returns the seconds that the first took, and how often all were split."""
    updater, times, splits = trainer.updater, [], 0
    for batch in batches:
        release_freed_memory()  # or what earlier work has left would hide what this takes
        forgets = forget_peak()
        peaks = []
        for part in (batch[::4], batch[::2]):
            splits += updater.rehearse(pairs, part)
            peaks.append((len(part), recent_peak_bytes()))
        if forgets and trainer.device.type == "cpu":
            check_memory(foretold(peaks, len(batch)) + _to_come(trainer), resumed=resumed)
        begun = time.perf_counter()
        splits += updater.rehearse(pairs, batch)
        times.append(time.perf_counter() - begun)
    return times[0], splits


def foretold(peaks: list[tuple[int, int]], count: int) -> int:
    """The peak of memory with `count` pairs, by those (pairs, bytes) of fewer: along a straight line."""
    (few, least), (more, most) = peaks
    growth = (most - least) / (more - few) if more > few else 0.0
    return int(most + growth * (count - more))


def _to_come(trainer: Trainer) -> int:
    """What the first steps and the end add: moments of Adam (or Muon's one, and what it needs on the way), gradients of
    several micro-batches, averaged weights."""
    weights = tensor_bytes(trainer.model.state_dict())
    moments = 0 if any(optimizer.state for optimizer in trainer.updater.optimizers) else 2
    return weights * (moments + (trainer.config.accumulate > 1) + 2)


def _all_there_is() -> int | None:
    left, resident = available_memory(), resident_bytes()
    return None if left is None or resident is None else left + resident


def check_memory(memory: int, *, resumed: bool) -> None:
    """Raises MemoryForecastError where so many bytes are more than there are. resumed: not all settings may change."""
    available = _all_there_is()
    if available is None or memory <= available:
        return
    remedy = (
        "end other programs"
        if resumed
        else "lower training.batch_tokens, raise training.accumulate, or lower data.max_source_length and "
        "data.max_target_length"
    )
    raise MemoryForecastError(
        f"training would need {readable_size(memory)} of memory for its largest batch, and there are "
        f"{readable_size(available)}: {remedy} (training.preflight=false does not look)"
    )


def training_time(trainer: Trainer, pairs: PiecePairs, batch: Indices, seconds: float) -> float | None:
    """Seconds that are left: by the speed of a run that is resumed as it was, otherwise by the time of one batch."""
    config, state = trainer.config, trainer.state
    if state.step and not trainer.environment_changed:
        return time_left(config, state)
    tokens, those = (
        sum(int(side[part].sum()) + len(side[part]) for side in (pairs.source_lengths, pairs.target_lengths))
        for part in (slice(None), batch)
    )
    return time_left(config, state, tokens / those * seconds / len(trainer.epoch_plan()[1]))


def longest_sentences(texts: list[str], config: Config, threads: int) -> list[int]:
    """The numbers of the longest texts, so far as characters tell: as many as are decoded at once."""
    ordered = sorted(range(len(texts)), key=lambda i: len(texts[i]), reverse=True)
    pieces = max(1, len(texts[ordered[0]]) // 4)  # of the longest, about
    batch = max(1, config.decoding.batch_tokens // (config.training.validation_beam_size * pieces))
    return ordered[: batch * threads]


def _duration(seconds: float) -> str:
    if seconds < 60:
        count, unit = max(1, round(seconds)), "second"
    elif seconds < 120 * 60:
        count, unit = round(seconds / 60), "minute"
    else:
        return f"{seconds / 3600:.1f} hours"
    return f"{count} {unit}{'s' if count > 1 else ''}"
