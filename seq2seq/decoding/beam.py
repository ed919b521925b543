"""Greedy and beam search (section 6.1), batched over sentences.

Shapes: B sentences still in the batch, k places a sentence (the beam size), w <= k open hypotheses a sentence,
R = B * w rows in the decoder, V target vocabulary. Sources are `pieces eos` [B, S], padded at the end.

The score of a hypothesis y is log P(y | x) / ((5 + |y|) / 6)^alpha (Wu et al. 2016, equation 14), or over |y|^alpha,
where |y| counts end-of-sentence. What is searched is a model, or whatever else can predict the next piece (scorer.py).
Constraints (constraints.py) rule pieces out; without any, a search knows nothing of them and takes the fast way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from seq2seq.decoding import steps
from seq2seq.decoding.constraints import Constraints
from seq2seq.decoding.hypotheses import Hypothesis as Hypothesis
from seq2seq.decoding.hypotheses import Penalty, Trace
from seq2seq.decoding.options import Normalization
from seq2seq.decoding.required import round_the_banks
from seq2seq.decoding.scorer import Decoding, Predictions, Scorer
from seq2seq.decoding.twins import scorer_for
from seq2seq.model.transformer import BOS, EOS, Transformer

# Of the predictions for R rows, which outputs these are, and the step from 0: the log-probabilities and ids of the
# chosen pieces, [R, 1] both.
Choice = Callable[[Predictions, Tensor, int], tuple[Tensor, Tensor]]


@torch.inference_mode()
def greedy_search(
    model: Transformer | Scorer,
    source: Tensor,
    max_lengths: Tensor | Sequence[int],
    *,
    length_penalty: float = 0.6,
    length_normalization: Normalization = "wu",
    constraints: Constraints | None = None,
) -> list[Hypothesis]:
    """The most probable piece at every step; equal to `beam_search` with one beam, and never dearer.

    Arguments and errors as for `beam_search`. Returns one hypothesis a sentence.
    """
    scorer = _scorer(model)
    if constraints is not None or steps.serves(scorer, 1):
        found = beam_search(
            scorer, source, max_lengths, beam_size=1, length_penalty=length_penalty,
            length_normalization=length_normalization, constraints=constraints,
        )  # fmt: skip
        return [best for [best] in found]
    return follow(scorer, source, max_lengths, most_probable, Penalty(length_penalty, length_normalization))


def follow(
    model: Transformer | Scorer,
    source: Tensor,
    max_lengths: Tensor | Sequence[int],
    choose: Choice,
    penalty: Penalty,
    *,
    draws: int = 1,
    constraints: Constraints | None = None,
) -> list[Hypothesis]:
    """Grows some hypotheses a sentence apart from each other, each piece chosen by `choose` (greedy search, sampling).

    Returns B * draws hypotheses, those of one sentence side by side.
    """
    limits = _limits(source, max_lengths).repeat_interleave(draws)  # [R]
    if not len(limits):
        return []
    decoding = _scorer(model).start(source)
    trace = Trace(len(limits), 1)
    live = torch.arange(len(limits), device=source.device)  # [R]
    within = torch.arange(draws, device=source.device)
    if draws > 1:
        decoding.select(None, live.div(draws, rounding_mode="floor"))
    pieces = torch.full_like(live, BOS)
    histories = live.new_zeros(len(live), 0)
    active = torch.ones_like(live, dtype=torch.bool)
    while len(live):
        predictions = decoding.step(pieces)
        if constraints is not None:
            sentences = live.div(draws, rounding_mode="floor")
            predictions = constraints.limit(predictions, histories, sentences, to_the_end=True)
        log_probabilities, ids = choose(predictions, live, len(trace))
        pieces = ids.squeeze(1)
        if constraints is not None:
            histories = torch.cat([histories, ids], dim=1)
        finished = active & ((pieces == EOS) | (limits == len(trace) + 1))
        trace.add(live, ids, torch.zeros_like(ids), log_probabilities, finished[:, None])
        active = active & ~finished
        if _should_compact(int(active.sum()), len(live)):
            keep = active.view(-1, draws).any(1).nonzero().squeeze(1)
            rows = (keep[:, None] * draws + within).flatten()
            decoding.select(keep, rows)
            live, pieces, limits, active = live[rows], pieces[rows], limits[rows], active[rows]
            histories = histories[rows] if constraints is not None else histories
    return [hypotheses[0] for hypotheses in trace.hypotheses(penalty, 1)]


def grow(
    model: Transformer | Scorer,
    source: Tensor,
    limit: int,
    choose: Choice,
    constraints: Constraints | None = None,
) -> Iterator[int]:
    """The pieces that `follow` would choose for one source [1, S], as they are chosen; without end-of-sentence."""
    with torch.inference_mode():
        decoding, only = _scorer(model).start(source), torch.zeros(1, dtype=torch.int64, device=source.device)
    pieces, histories = torch.full_like(only, BOS), only.new_zeros(1, 0)
    for step in range(limit):
        with torch.inference_mode():
            predictions = decoding.step(pieces)
            if constraints is not None:
                predictions = constraints.limit(predictions, histories, only, to_the_end=True)
            _, ids = choose(predictions, only, step)
            pieces, histories = ids.squeeze(1), torch.cat([histories, ids], dim=1)
            piece = int(pieces)
        if piece == EOS:
            return
        yield piece


def most_probable(predictions: Predictions, outputs: Tensor, step: int) -> tuple[Tensor, Tensor]:
    """The choice of greedy search, see `follow`."""
    return predictions.best(1)


@torch.inference_mode()
def beam_search(
    model: Transformer | Scorer,
    source: Tensor,
    max_lengths: Tensor | Sequence[int],
    *,
    beam_size: int,
    length_penalty: float,
    n_best: int = 1,
    length_normalization: Normalization = "wu",
    constraints: Constraints | None = None,
) -> list[list[Hypothesis]]:
    """Beam search with k = beam_size places a sentence.

    source [B, S]; max_lengths [B], the longest output of each sentence, end-of-sentence included: what has not ended
    there is finished as it stands. Returns at most n_best hypotheses a sentence, best first (fewer only where fewer
    exist). Raises ValueError for arguments out of range.

    constraints: what outputs must be like; a sentence for which the search finds none is searched again with what can
    always be obeyed (`Constraints.relaxed`).

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
    limits, penalty = _limits(source, max_lengths), Penalty(length_penalty, length_normalization)
    if not len(limits):
        return []
    scorer = _scorer(model)
    decoding = scorer.start(source)
    search = Beams(decoding, limits, beam_size, penalty, n_best, constraints)
    at_once = constraints is None and steps.serves(scorer, beam_size)
    while len(search.live):
        if at_once:
            steps.advance(search)
            search.drop_done()
            continue
        predictions = decoding.step(search.pieces.flatten())
        if constraints is None:
            search.advance(*predictions.best(beam_size))
        else:
            search.advance(*search.candidates(predictions, constraints))
    found = search.trace.hypotheses(penalty, n_best, allow_none=constraints is not None)
    if constraints is not None and (missing := [row for row, hypotheses in enumerate(found) if not hypotheses]):
        rows, relaxed = torch.tensor(missing, device=source.device), constraints.relaxed()
        again = beam_search(
            scorer, source[rows], limits[rows], beam_size=beam_size, length_penalty=length_penalty, n_best=n_best,
            length_normalization=length_normalization,
            constraints=None if relaxed is constraints else relaxed.of(rows),
        )  # fmt: skip
        for row, hypotheses in zip(missing, again, strict=True):
            found[row] = hypotheses
    return found


class Beams:
    """The state of beam search over the sentences `live`, [B, w] an open hypothesis each."""

    def __init__(
        self,
        decoding: Decoding,
        limits: Tensor,
        beam_size: int,
        penalty: Penalty,
        n_best: int,
        constraints: Constraints | None,
    ) -> None:
        sentences, device = limits.shape[0], limits.device
        self.decoding, self.beam_size, self.penalty = decoding, beam_size, penalty
        self.trace = Trace(sentences, beam_size)
        self.live = torch.arange(sentences, device=device)
        self.limits = limits  # [B]
        self.limit_penalties = penalty(limits).float()  # [B]
        self.pieces = torch.full((sentences, 1), BOS, device=device)  # [B, w], the newest
        # [B, w], log-probabilities; -inf where there is none.
        self.totals = torch.zeros(sentences, 1, dtype=torch.float32, device=device)
        self.places = torch.zeros_like(self.pieces)  # [B, w], where the previous step put them
        self.free = torch.full_like(limits, beam_size)  # [B], places without a finished hypothesis
        # Finished scores, descending.
        self.best = torch.full((sentences, n_best), -math.inf, dtype=torch.float32, device=device)
        # All pieces so far [R, t], where constraints want to see them; the fullest bank where phrases are required.
        self.histories = None if constraints is None else torch.zeros(sentences, 0, dtype=torch.int64, device=device)
        self.fullest = constraints.required.total if constraints is not None and constraints.required else 0

    def candidates(self, predictions: Predictions, constraints: Constraints) -> tuple[Tensor, Tensor, Tensor | None]:
        """Log-probabilities and pieces of the best allowed continuations, [R, c], and their banks where there are."""
        assert self.histories is not None
        sentences = self.live.repeat_interleave(self.pieces.shape[1])
        predictions = constraints.limit(predictions, self.histories, sentences)
        if constraints.required is None:
            return *predictions.best(self.beam_size), None
        return constraints.required.best(predictions, self.histories, self.beam_size)

    def _choose(self, totals: Tensor, banks: Tensor | None) -> tuple[Tensor, Tensor]:
        """The k best of the candidates [B, w * c]: their log-probabilities and places there, [B, n]."""
        if banks is None:
            totals, chosen = totals.sort(dim=1, descending=True, stable=True)  # ties: lower place, then lower piece
            return totals[:, : self.beam_size], chosen[:, : self.beam_size]
        at_limit = (self.limits == len(self.trace) + 1)[:, None]
        totals = totals.masked_fill(at_limit & (banks < self.fullest), -math.inf)
        chosen = round_the_banks(totals, banks)[:, : self.beam_size]
        return totals.gather(1, chosen), chosen

    def advance(self, log_probabilities: Tensor, ids: Tensor, banks: Tensor | None = None) -> None:
        """One step, given the best continuations of every row: their log-probabilities and pieces, [R, c]."""
        sentences, width = self.pieces.shape
        step, choices = len(self.trace) + 1, ids.shape[1]
        totals = (self.totals.reshape(-1, 1) + log_probabilities).view(sentences, -1)
        totals, chosen = self._choose(totals, None if banks is None else banks.view(sentences, -1))
        pieces = ids.view(sentences, -1).gather(1, chosen)
        parents = chosen.div(choices, rounding_mode="floor")  # [B, n], among the w open hypotheses
        chosen_log_probabilities = log_probabilities.view(sentences, -1).gather(1, chosen)

        ranks = torch.arange(totals.shape[1], device=ids.device)
        exists = (ranks < self.free[:, None]) & (totals > -math.inf)
        finished = exists & ((pieces == EOS) | (self.limits == step)[:, None])
        self.trace.add(self.live, pieces, self.places.gather(1, parents), chosen_log_probabilities, finished)
        self.free = self.free - finished.sum(1)
        scores = (totals / self.penalty(step)).masked_fill(~finished, -math.inf)
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
            self._keep(keep)
            rows = rows[keep]
        if self.histories is not None:
            self.histories = torch.cat([self.histories[rows.flatten()], self.pieces.reshape(-1, 1)], dim=1)
        self.decoding.select(keep, rows.flatten())

    def _keep(self, sentences: Tensor) -> None:
        """Drops all sentences but these, indices into `live`."""
        self.live, self.limits, self.limit_penalties = (
            self.live[sentences], self.limits[sentences], self.limit_penalties[sentences],
        )  # fmt: skip
        self.pieces, self.totals, self.places = (
            self.pieces[sentences], self.totals[sentences], self.places[sentences],
        )  # fmt: skip
        self.free, self.best = self.free[sentences], self.best[sentences]

    def drop_done(self) -> None:
        """Drops the sentences that are done, after steps that left them in."""
        keep = (self.totals[:, 0] > -math.inf).nonzero().squeeze(1)
        if len(keep) < len(self.live):
            rows = torch.arange(self.pieces.numel()).view_as(self.pieces)[keep]
            self._keep(keep)
            self.decoding.select(keep, rows.flatten())


def _scorer(model: Transformer | Scorer) -> Scorer:
    return scorer_for(model) if isinstance(model, Transformer) else model


def _limits(source: Tensor, max_lengths: Tensor | Sequence[int]) -> Tensor:
    """The maximum lengths [B], and the checks that searches have in common."""
    limits = torch.as_tensor(max_lengths, dtype=torch.int64, device=source.device)
    if limits.shape != source.shape[:1]:
        raise ValueError(f"max_lengths has shape {tuple(limits.shape)}: give one for each of {len(source)} sentences")
    if len(limits) and int(limits.min()) < 1:
        raise ValueError(f"max_lengths holds {int(limits.min())}: every sentence must be allowed at least one piece")
    return limits


def _should_compact(active: int, sentences: int) -> bool:
    """Whether to drop the sentences that are done: an eighth of them pays for copying the others."""
    return 8 * active <= 7 * sentences
