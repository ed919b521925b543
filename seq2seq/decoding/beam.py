"""Greedy and beam search (section 6.1), batched over sentences.

Shapes: B sentences still in the batch, k places a sentence (the beam size), w <= k open hypotheses a sentence,
R = B * w rows in the decoder, V target vocabulary. Sources are `pieces eos` [B, S], padded at the end.

The score of a hypothesis y is log P(y | x) / ((5 + |y|) / 6)^alpha (Wu et al. 2016, equation 14), where |y| counts
end-of-sentence. What is searched is a model, or whatever else can predict the next piece (scorer.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seq2seq.decoding.engine import scorer_for
from seq2seq.decoding.scorer import Decoding, Predictions, Scorer
from seq2seq.model.transformer import BOS, EOS, Transformer


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


def length_penalty(length: int, alpha: float) -> float:
    """((5 + |y|) / 6)^alpha for an output of `length` pieces, end-of-sentence included."""
    return float(((5 + length) / 6) ** alpha)


@torch.inference_mode()
def greedy_search(
    model: Transformer | Scorer, source: Tensor, max_lengths: Tensor | Sequence[int], *, length_penalty: float = 0.6
) -> list[Hypothesis]:
    """The most probable piece at every step; equal to `beam_search` with one beam, but cheaper.

    Arguments and errors as for `beam_search`. Returns one hypothesis a sentence.
    """

    def most_probable(predictions: Predictions, sentences: Tensor, step: int) -> tuple[Tensor, Tensor]:
        return predictions.best(1)

    return follow(model, source, max_lengths, most_probable, length_penalty)


def follow(
    model: Transformer | Scorer,
    source: Tensor,
    max_lengths: Tensor | Sequence[int],
    choose: Callable[[Predictions, Tensor, int], tuple[Tensor, Tensor]],
    alpha: float,
) -> list[Hypothesis]:
    """Grows one hypothesis a sentence, each piece chosen by `choose` (greedy search, sampling).

    choose(predictions of R rows; which sentences of `source` these are; step from 0) -> log-probabilities and ids of
    the chosen pieces, [R, 1] both.
    """
    limits = _limits(source, max_lengths, alpha)
    if not len(limits):
        return []
    decoding = _scorer(model).start(source)
    trace = _Trace(source.shape[0], 1)
    live = torch.arange(source.shape[0], device=source.device)
    pieces = torch.full_like(live, BOS)
    active = torch.ones_like(live, dtype=torch.bool)
    while len(live):
        log_probabilities, ids = choose(decoding.step(pieces), live, len(trace))
        pieces = ids.squeeze(1)
        finished = active & ((pieces == EOS) | (limits == len(trace) + 1))
        trace.add(live, ids, torch.zeros_like(ids), log_probabilities, finished[:, None])
        active = active & ~finished
        if _should_compact(int(active.sum()), len(live)):
            keep = active.nonzero().squeeze(1)
            decoding.select(keep, keep)
            live, pieces, limits, active = live[keep], pieces[keep], limits[keep], active[keep]
    return [hypotheses[0] for hypotheses in trace.hypotheses(alpha, 1)]


@torch.inference_mode()
def beam_search(
    model: Transformer | Scorer,
    source: Tensor,
    max_lengths: Tensor | Sequence[int],
    *,
    beam_size: int,
    length_penalty: float,
    n_best: int = 1,
) -> list[list[Hypothesis]]:
    """Beam search with k = beam_size places a sentence.

    source [B, S]; max_lengths [B], the longest output of each sentence, end-of-sentence included: what has not ended
    there is finished as it stands. Returns at most n_best hypotheses a sentence, best first (fewer only where fewer
    exist). Raises ValueError for arguments out of range.

    A finished hypothesis keeps its place until the sentence is done, so that one beam is greedy search; a step takes
    the best k - (finished) continuations of the open hypotheses. A sentence is done when none is open, or when no open
    one can come among its n_best: log-probabilities only fall and the penalty only grows, so that an open hypothesis
    can reach at most its log-probability over the penalty at the maximum length. This loses nothing.

    Continuations of equal log-probability go by lower place, then lower piece (where more than k continuations of one
    hypothesis tie, it depends on the scorer which are considered).
    """
    if beam_size < 1:
        raise ValueError(f"beam_size = {beam_size} must be at least 1")
    if not 1 <= n_best <= beam_size:
        raise ValueError(f"n_best = {n_best} must be from 1 to beam_size = {beam_size}")
    limits = _limits(source, max_lengths, length_penalty)
    if not len(limits):
        return []
    decoding = _scorer(model).start(source)
    search = _Beams(decoding, limits, beam_size, length_penalty, n_best)
    while len(search.live):
        search.advance(*decoding.step(search.pieces.flatten()).best(beam_size))
    return search.trace.hypotheses(length_penalty, n_best)


class _Beams:
    """The state of beam search over the sentences `live`, [B, w] an open hypothesis each."""

    def __init__(self, decoding: Decoding, limits: Tensor, beam_size: int, alpha: float, n_best: int) -> None:
        sentences, device = limits.shape[0], limits.device
        self.decoding, self.beam_size, self.alpha = decoding, beam_size, alpha
        self.trace = _Trace(sentences, beam_size)
        self.live = torch.arange(sentences, device=device)
        self.limits = limits  # [B]
        self.limit_penalties = ((5 + limits) / 6) ** alpha  # [B]
        self.pieces = torch.full((sentences, 1), BOS, device=device)  # [B, w], the newest
        self.totals = torch.zeros(sentences, 1, device=device)  # [B, w], log-probabilities; -inf where there is none
        self.places = torch.zeros_like(self.pieces)  # [B, w], where the previous step put them
        self.free = torch.full_like(limits, beam_size)  # [B], places without a finished hypothesis
        self.best = torch.full((sentences, n_best), -math.inf, device=device)  # finished scores, descending

    def advance(self, log_probabilities: Tensor, ids: Tensor) -> None:
        """One step, given the best continuations of every row: their log-probabilities and pieces, [R, c]."""
        sentences, width = self.pieces.shape
        step, choices = len(self.trace) + 1, ids.shape[1]
        totals = (self.totals.reshape(-1, 1) + log_probabilities).view(sentences, -1)
        totals, chosen = totals.sort(dim=1, descending=True, stable=True)  # ties: lower place, then lower piece
        totals, chosen = totals[:, : self.beam_size], chosen[:, : self.beam_size]  # [B, n]
        pieces = ids.view(sentences, -1).gather(1, chosen)
        parents = chosen.div(choices, rounding_mode="floor")  # [B, n], among the w open hypotheses
        chosen_log_probabilities = log_probabilities.view(sentences, -1).gather(1, chosen)

        ranks = torch.arange(totals.shape[1], device=ids.device)
        exists = (ranks < self.free[:, None]) & (totals > -math.inf)
        finished = exists & ((pieces == EOS) | (self.limits == step)[:, None])
        self.trace.add(self.live, pieces, self.places.gather(1, parents), chosen_log_probabilities, finished)
        self.free = self.free - finished.sum(1)
        scores = (totals / length_penalty(step, self.alpha)).masked_fill(~finished, -math.inf)
        self.best = torch.cat([self.best, scores], dim=1).topk(self.best.shape[1], dim=1).values

        # Open hypotheses move to the front.
        totals = totals.masked_fill(finished | ~exists, -math.inf)
        self.totals, self.places = totals.sort(dim=1, descending=True, stable=True)
        self.pieces = pieces.gather(1, self.places)
        rows = parents.gather(1, self.places) + torch.arange(0, sentences * width, width, device=ids.device)[:, None]
        self._narrow(rows)

    def _narrow(self, rows: Tensor) -> None:
        """Drops sentences that are done and columns that nobody uses; rows [B, n] are what the open ones continue."""
        active = self.totals[:, 0] / self.limit_penalties > self.best[:, -1]
        self.totals = self.totals.masked_fill(~active[:, None], -math.inf)
        num_active, width = torch.stack([active.sum(), (self.totals > -math.inf).sum(1).max()]).tolist()
        columns = slice(0, max(width, 1))
        self.pieces, self.totals = self.pieces[:, columns], self.totals[:, columns]
        self.places, rows = self.places[:, columns], rows[:, columns]
        keep: Tensor | None = None
        if _should_compact(num_active, len(self.live)):
            keep = active.nonzero().squeeze(1)
            self.live, self.limits, self.limit_penalties = (
                self.live[keep],
                self.limits[keep],
                self.limit_penalties[keep],
            )
            self.pieces, self.totals = self.pieces[keep], self.totals[keep]
            self.places, rows = self.places[keep], rows[keep]
            self.free, self.best = self.free[keep], self.best[keep]
        self.decoding.select(keep, rows.flatten())


@dataclass
class _Trace:
    """Back-pointers: what every step put into the k places of every sentence, read backwards at the end."""

    sentences: int
    beam_size: int
    steps: list[tuple[Tensor, Tensor, Tensor, Tensor, Tensor]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.steps)

    def add(self, live: Tensor, pieces: Tensor, parents: Tensor, log_probabilities: Tensor, finished: Tensor) -> None:
        """live [B], which sentences these are; the others [B, n]: n <= k places, parents are the previous step's."""
        self.steps.append((live, pieces, parents, log_probabilities, finished))

    def _dense(self, which: int) -> NDArray[np.generic]:
        """One of the tensors of all steps, as [steps, sentences, k]."""
        first = self.steps[0][which]
        dense = first.new_zeros(len(self), self.sentences, self.beam_size)
        for step, record in enumerate(self.steps):
            live, values = record[0], record[which]
            dense[step, live, : values.shape[1]] = values
        array: NDArray[np.generic] = dense.cpu().numpy()
        return array

    def hypotheses(self, alpha: float, n_best: int) -> list[list[Hypothesis]]:
        """The n_best finished hypotheses of every sentence, best first; equal scores in order of finishing."""
        if not self.steps:
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
        scores = totals / ((6 + step) / 6) ** alpha
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
        if not all(results) or not np.isfinite(totals).all():
            raise ArithmeticError("the model gives no finite probabilities: its weights may hold NaN or infinity")
        return results


def _scorer(model: Transformer | Scorer) -> Scorer:
    return scorer_for(model) if isinstance(model, Transformer) else model


def _limits(source: Tensor, max_lengths: Tensor | Sequence[int], alpha: float) -> Tensor:
    """The maximum lengths [B], and the checks that searches have in common."""
    limits = torch.as_tensor(max_lengths, dtype=torch.int64, device=source.device)
    if limits.shape != source.shape[:1]:
        raise ValueError(f"max_lengths has shape {tuple(limits.shape)}: give one for each of {len(source)} sentences")
    if len(limits) and int(limits.min()) < 1:
        raise ValueError(f"max_lengths holds {int(limits.min())}: every sentence must be allowed at least one piece")
    if not 0 <= alpha < math.inf:
        raise ValueError(f"length_penalty = {alpha} must be 0 or more")
    return limits


def _should_compact(active: int, sentences: int) -> bool:
    """Whether to drop the sentences that are done: an eighth of them pays for copying the others."""
    return 8 * active <= 7 * sentences
