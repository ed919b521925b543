"""Batches of similar length, counted in tokens; their order is a pure function of (seed, epoch).

Sentences are sorted by target and source length, cut into micro-batches of bounded size, and the micro-batches are
shuffled. An update takes `accumulate` micro-batches.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seq2seq.text.tokenizer import BOS, EOS, PAD

Indices = NDArray[np.int64]
Lengths = NDArray[np.int32]


class PiecePairs(Protocol):
    """Encoded sentence pairs, without special ids."""

    @property
    def source_lengths(self) -> Lengths: ...
    @property
    def target_lengths(self) -> Lengths: ...
    def source(self, index: int) -> NDArray[np.int32]: ...
    def target(self, index: int) -> NDArray[np.int32]: ...


class EpochPairs(Protocol):
    """Training pairs that are split into pieces anew for every epoch; a pure function of its number."""

    def for_epoch(self, epoch: int) -> PiecePairs: ...
    def prefetch(self, epoch: int) -> None: ...


@dataclass(frozen=True)
class Batch:
    """B sentence pairs without padding: the ids of all sentences one after the other, int64.

    source [Ns] is `pieces eos` of each sentence; target_input [Nt] is `bos pieces`, shifted right of target_output
    [Nt], `pieces eos` (section 3.1). source_starts and target_starts [B + 1] say where each sentence begins, and end
    with Ns and Nt.
    """

    source: Tensor
    target_input: Tensor
    target_output: Tensor
    source_starts: Tensor
    target_starts: Tensor

    @property
    def num_target_tokens(self) -> int:
        """Nt, the number of predictions."""
        return self.target_output.shape[0]

    def to(self, device: torch.device) -> Batch:
        """The same with the ids on a device; the starts stay where they are."""
        if device.type == "cpu":
            return self

        def moved(tensor: Tensor) -> Tensor:
            return tensor.pin_memory().to(device, non_blocking=True)

        source, target_input, target_output = map(moved, (self.source, self.target_input, self.target_output))
        return replace(self, source=source, target_input=target_input, target_output=target_output)


def plan_epoch(
    source_lengths: Lengths, target_lengths: Lengths, micro_batch_tokens: int, *, seed: int, epoch: int
) -> list[Indices]:
    """The micro-batches of one epoch, each an array of pair numbers; every pair is in exactly one.

    A micro-batch has at most `micro_batch_tokens` padded target tokens (bos or eos counted) and twice as many source
    tokens, but at least one pair. The same arguments give the same plan.
    """
    random = np.random.Generator(np.random.PCG64([seed, epoch, 0xBA7C4]))
    order = random.permutation(len(target_lengths))
    lengths = source_lengths, target_lengths
    # Sentences of one target length alone pad the sources; wide ranges of target lengths pad the targets. Which width
    # pads least depends on how many sentences of a length there are for each batch.
    plans = [_cut(_sorted(order, *lengths, width), *lengths, micro_batch_tokens) for width in (1, 2, 4, 8)]
    batches = min(plans, key=lambda plan: sum(padded_tokens(plan, side) for side in lengths))
    return [batches[i] for i in random.permutation(len(batches))]


def _sorted(order: Indices, source_lengths: Lengths, target_lengths: Lengths, width: int) -> Indices:
    """Sorts by target length in steps of `width`, then by source length, then by target length; equals stay in order.

    The lengths come in the same order in every epoch, and so all epochs have the same number of batches, unless pieces
    are sampled. Source lengths rise and fall by turns from one step to the next, so that a batch that takes in the end
    of one and the beginning of the next has sources of one length.
    """
    source, step = source_lengths[order], target_lengths[order] // width
    return order[np.lexsort((target_lengths[order], np.where(step % 2 == 0, source, -source), step))]


def _cut(order: Indices, source_lengths: Lengths, target_lengths: Lengths, micro_batch_tokens: int) -> list[Indices]:
    """Cuts sorted pairs into the longest runs that respect the limits of `plan_epoch`."""
    source, target = (lengths[order].astype(np.int64) + 1 for lengths in (source_lengths, target_lengths))
    batches: list[Indices] = []
    start = 0
    while start < len(order):
        # Far enough for all but batches whose later sentences are much shorter than the first; those are cut early.
        most = min(len(order) - start, 2 * max(1, micro_batch_tokens // int(target[start])) + 64)
        window = slice(start, start + most)
        count = np.arange(1, most + 1)
        fits = count * np.maximum.accumulate(target[window]) <= micro_batch_tokens
        fits &= count * np.maximum.accumulate(source[window]) <= 2 * micro_batch_tokens
        size = most if fits.all() else max(1, int(fits.argmin()))
        batches.append(order[start : start + size])
        start += size
    return batches


def updates(plan: list[Indices], *, accumulate: int) -> list[list[Indices]]:
    """Groups an epoch's micro-batches into updates; the last one may have fewer."""
    return [plan[start : start + accumulate] for start in range(0, len(plan), accumulate)]


def chain_hash(before: str, pairs: PiecePairs, micro_batches: Sequence[Indices]) -> str:
    """SHA-256 over what came before and the pairs of one more update, in their order, with their lengths in pieces."""
    digest = hashlib.sha256(before.encode())
    for indices in micro_batches:
        digest.update(len(indices).to_bytes(8, "little") + indices.astype("<i8").tobytes())
        for lengths in (pairs.source_lengths, pairs.target_lengths):
            digest.update(lengths[indices].astype("<i8").tobytes())
    return digest.hexdigest()


def collate(pairs: PiecePairs, indices: Indices) -> Batch:
    """Packs the given pairs, one or more, into one batch."""
    rows = [int(i) for i in indices]
    source, source_starts = pack([pairs.source(i) for i in rows], end=EOS)
    target = [pairs.target(i) for i in rows]
    target_input, target_starts = pack(target, start=BOS)
    target_output, _ = pack(target, end=EOS)
    return Batch(source, target_input, target_output, source_starts, target_starts)


def pack(
    sequences: list[NDArray[np.int32]], *, start: int | None = None, end: int | None = None
) -> tuple[Tensor, Tensor]:
    """All sequences with their special ids one after the other [N], and where each begins [B + 1]; int64."""
    before = np.full(int(start is not None), start, dtype=np.int64)
    after = np.full(int(end is not None), end, dtype=np.int64)
    starts = np.zeros(len(sequences) + 1, dtype=np.int64)
    np.cumsum([len(sequence) + len(before) + len(after) for sequence in sequences], out=starts[1:])
    packed = np.concatenate([part for sequence in sequences for part in (before, sequence, after)])
    return torch.from_numpy(packed), torch.from_numpy(starts)


def pad(
    sequences: Sequence[Sequence[int] | NDArray[np.int32]], *, start: int | None = None, end: int | None = None
) -> Tensor:
    """[B, longest + special ids] int64; padding stands at the end."""
    offset = int(start is not None)
    longest = max(len(sequence) for sequence in sequences) + offset + int(end is not None)
    padded = np.full((len(sequences), longest), PAD, dtype=np.int64)
    if start is not None:
        padded[:, 0] = start
    for row, sequence in zip(padded, sequences, strict=True):
        row[offset : offset + len(sequence)] = sequence
        if end is not None:
            row[offset + len(sequence)] = end
    return torch.from_numpy(padded)


def padded_tokens(plan: list[Indices], lengths: Lengths) -> int:
    """Tokens of one side with their padding, special ids included."""
    return sum((int(lengths[indices].max()) + 1) * len(indices) for indices in plan)


def in_order(pairs: PiecePairs, micro_batch_tokens: int, longest: int, most: int | None = None) -> Iterator[Batch]:
    """The first `most` pairs of at most `longest` pieces a side, in a fixed order of lengths: for validation."""
    kept = np.flatnonzero(np.maximum(pairs.source_lengths, pairs.target_lengths) <= longest)[:most]
    lengths = pairs.source_lengths[kept], pairs.target_lengths[kept]
    for indices in plan_epoch(*lengths, micro_batch_tokens, seed=0, epoch=0):
        yield collate(pairs, kept[indices])
