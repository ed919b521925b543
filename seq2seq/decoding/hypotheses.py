"""What a search finds: hypotheses, their scores, and the back-pointers that they are read from."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from seq2seq.decoding.options import Normalization
from seq2seq.model.transformer import EOS

Lengths = TypeVar("Lengths", float, Tensor, NDArray[np.float64])


@dataclass(frozen=True)
class Hypothesis:
    """One output for one source sentence.

    pieces: ids without end-of-sentence. ended: end-of-sentence was generated; otherwise the hypothesis was cut at its
    maximum length. piece_log_probabilities: one a piece, then end-of-sentence's where it ended; `log_probability` is
    their sum. score: log_probability over the length penalty.
    """

    pieces: tuple[int, ...]
    ended: bool
    log_probability: float
    score: float
    piece_log_probabilities: tuple[float, ...]


@dataclass(frozen=True)
class Penalty:
    """What log-probabilities are divided by: ((5 + |y|) / 6)^alpha, or |y|^alpha for "power".

    It never falls as outputs grow: early stopping relies on that.
    """

    alpha: float
    normalization: Normalization = "wu"

    def __post_init__(self) -> None:
        if not 0 <= self.alpha < math.inf:
            raise ValueError(f"length_penalty = {self.alpha} must be 0 or more")
        if self.normalization not in ("wu", "power"):
            raise ValueError(f"length_normalization = {self.normalization!r}: choose wu or power")

    def __call__(self, lengths: Lengths) -> Lengths:
        """lengths: one or many, end-of-sentence included."""
        base = (5 + lengths) / 6 if self.normalization == "wu" else lengths / 1  # a fraction also of whole numbers
        penalties: Lengths = base**self.alpha
        return penalties


@dataclass
class Trace:
    """Back-pointers: what every step put into the k places of every sentence, read backwards at the end."""

    sentences: int
    beam_size: int
    length: int = 0
    blocks: list[tuple[Tensor, ...]] = field(default_factory=list)  # of steps with the same sentences

    def __len__(self) -> int:
        return self.length

    def add(self, live: Tensor, pieces: Tensor, parents: Tensor, log_probabilities: Tensor, finished: Tensor) -> None:
        """live [B], which sentences these are; the others [B, n]: n <= k places, parents are the previous step's."""
        self.add_steps(live, pieces[None], parents[None], log_probabilities[None], finished[None])

    def add_steps(
        self, live: Tensor, pieces: Tensor, parents: Tensor, log_probabilities: Tensor, finished: Tensor
    ) -> None:
        """The same for several steps at once: [steps, B, n]."""
        self.blocks.append((live, pieces, parents, log_probabilities, finished))
        self.length += len(pieces)

    def _dense(self, which: int) -> NDArray[np.generic]:
        """One of the tensors of all steps, as [steps, sentences, k]."""
        dense = self.blocks[0][which].new_zeros(len(self), self.sentences, self.beam_size)
        start = 0
        for block in self.blocks:
            live, values = block[0], block[which]
            dense[start : start + len(values), live, : values.shape[2]] = values
            start += len(values)
        array: NDArray[np.generic] = dense.cpu().numpy()
        return array

    def hypotheses(self, penalty: Penalty, n_best: int, *, allow_none: bool = False) -> list[list[Hypothesis]]:
        """The n_best finished hypotheses of every sentence, best first; equal scores in order of finishing.

        allow_none: a sentence may have no hypothesis.
        """
        if not self.blocks:
            return []
        all_pieces, parents, all_logs, finished = (self._dense(which) for which in (1, 2, 3, 4))
        step, sentence, place = finished.nonzero()  # [F] each
        pieces = np.zeros((len(step), len(self)), dtype=np.int64)
        logs = np.zeros((len(step), len(self)), dtype=np.float64)
        for t in reversed(range(len(self))):
            on = (step >= t).nonzero()[0]
            at = (t, sentence[on], place[on])
            pieces[on, t], logs[on, t], place[on] = all_pieces[at], all_logs[at], parents[at]
        totals = logs.sum(1)
        scores = totals / penalty((step + 1).astype(np.float64))
        results: list[list[Hypothesis]] = [[] for _ in range(self.sentences)]
        for index in np.lexsort((-scores, sentence)):
            if len(results[sentence[index]]) < n_best:
                length = int(step[index]) + 1
                ended = bool(pieces[index, length - 1] == EOS)
                results[sentence[index]].append(
                    Hypothesis(
                        pieces=tuple(pieces[index, : length - ended].tolist()),
                        ended=ended,
                        log_probability=float(totals[index]),
                        score=float(scores[index]),
                        piece_log_probabilities=tuple(logs[index, :length].tolist()),
                    )
                )
        if not (allow_none or all(results)) or not np.isfinite(totals).all():
            raise ArithmeticError("the model gives no finite probabilities: its weights may hold NaN or infinity")
        return results
