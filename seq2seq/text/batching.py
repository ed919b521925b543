"""Batches of similar length, counted in tokens; their order is a pure function of (seed, epoch).

Sentences are sorted by target and source length, cut into micro-batches of bounded size, and the micro-batches are
shuffled. An update takes `accumulate` micro-batches on each of `num_ranks` processes.
"""

from __future__ import annotations

from collections.abc import Iterator
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


@dataclass(frozen=True)
class Batch:
    """Sentence pairs as padded int64 ids, batch first.

    source [B, S] is `pieces eos`; target_input [B, T] is `bos pieces`, shifted right of target_output [B, T],
    `pieces eos` (section 3.1). tokens [N] are the places of real target tokens in the flattened [B * T].
    """

    source: Tensor
    target_input: Tensor
    target_output: Tensor
    tokens: Tensor
    num_source_tokens: int
    num_target_tokens: int

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device."""
        if device.type == "cpu":
            return self

        def moved(tensor: Tensor) -> Tensor:
            return tensor.pin_memory().to(device, non_blocking=True)

        return replace(
            self,
            source=moved(self.source),
            target_input=moved(self.target_input),
            target_output=moved(self.target_output),
            tokens=moved(self.tokens),
        )


def plan_epoch(
    source_lengths: Lengths, target_lengths: Lengths, micro_batch_tokens: int, *, seed: int, epoch: int
) -> list[Indices]:
    """The micro-batches of one epoch, each an array of pair numbers; every pair is in exactly one.

    A micro-batch has at most `micro_batch_tokens` padded target tokens (bos or eos counted) and twice as many source
    tokens, but at least one pair. The same arguments give the same plan.
    """
    random = np.random.Generator(np.random.PCG64([seed, epoch, 0xBA7C4]))
    order = random.permutation(len(target_lengths))
    source, target = source_lengths[order].astype(np.int64) + 1, target_lengths[order].astype(np.int64) + 1
    # Source lengths rise and fall by turns from one target length to the next, so that a batch that takes in the end
    # of one and the beginning of the other has sources of one length.
    order = order[np.lexsort((np.where(target % 2 == 0, source, -source), target))]
    source, target = source_lengths[order].astype(np.int64) + 1, target_lengths[order].astype(np.int64) + 1
    batches: list[Indices] = []
    start = 0
    while start < len(order):
        most = max(1, micro_batch_tokens // int(target[start]))
        count = np.arange(1, min(most, len(order) - start) + 1)
        window = slice(start, start + len(count))
        fits = count * target[window] <= micro_batch_tokens
        fits &= count * np.maximum.accumulate(source[window]) <= 2 * micro_batch_tokens
        size = len(count) if fits.all() else max(1, int(fits.argmin()))
        batches.append(order[start : start + size])
        start += size
    return [batches[i] for i in random.permutation(len(batches))]


def updates(plan: list[Indices], *, accumulate: int, rank: int = 0, num_ranks: int = 1) -> list[list[Indices]]:
    """Groups an epoch's micro-batches into updates and picks those of one rank.

    All ranks have the same number of updates; in the last one some may have fewer micro-batches, or none.
    """
    size = accumulate * num_ranks
    return [plan[start : start + size][rank::num_ranks] for start in range(0, len(plan), size)]


def collate(pairs: PiecePairs, indices: Indices) -> Batch:
    """Pads the given pairs into one batch."""
    rows = [int(i) for i in indices]
    source = pad([pairs.source(i) for i in rows], end=EOS)
    target = [pairs.target(i) for i in rows]
    target_output = pad(target, end=EOS)
    target_input = pad(target, start=BOS)
    tokens = (target_output.flatten() != PAD).nonzero().flatten()
    return Batch(source, target_input, target_output, tokens, int((source != PAD).sum()), len(tokens))


def pad(sequences: list[NDArray[np.int32]], *, start: int | None = None, end: int | None = None) -> Tensor:
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


def padding_share(plan: list[Indices], lengths: Lengths) -> float:
    """Which part of the padded tokens of one side is padding, 0 to 1."""
    real = padded = 0
    for indices in plan:
        chosen = lengths[indices].astype(np.int64) + 1
        real += int(chosen.sum())
        padded += int(chosen.max()) * len(chosen)
    return 1.0 - real / padded if padded else 0.0


def in_order(pairs: PiecePairs, micro_batch_tokens: int) -> Iterator[Batch]:
    """Every pair once, in a fixed order of lengths: for validation."""
    for indices in plan_epoch(pairs.source_lengths, pairs.target_lengths, micro_batch_tokens, seed=0, epoch=0):
        yield collate(pairs, indices)
