"""What outputs must and must not be: lengths, a forced beginning, banned phrases, n-grams that do not come twice.

Each constraint rules out pieces, given everything that was generated so far, and sets their log-probabilities to -inf;
what remains keeps its own, so that a constrained output scores the same when it is scored again. Nothing here runs in
a search without constraints.

Shapes: R rows (hypotheses), t pieces so far, V target vocabulary; histories [R, t] int64, without begin-of-sentence;
sentences [R] int64, which sentence of the batch a row continues.

Required phrases need places in the beam rather than a mask alone: they are in required.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from seq2seq.decoding.required import Required
from seq2seq.decoding.scorer import LogProbabilities, Predictions
from seq2seq.model.transformer import EOS


class Constraint(Protocol):
    """Rules out pieces."""

    def mask(self, values: Tensor, histories: Tensor, sentences: Tensor) -> None:
        """Changes log-probabilities [R, V] in place; -inf is what may not come next."""


@dataclass(frozen=True)
class MinLength:
    """No end of sentence before `pieces` pieces."""

    pieces: int

    def mask(self, values: Tensor, histories: Tensor, sentences: Tensor) -> None:
        if histories.shape[1] < self.pieces:
            values[:, EOS] = -math.inf


@dataclass(frozen=True)
class NoRepeat:
    """No n pieces in a row that came before (Paulus et al. 2018, arXiv 1705.04304); end-of-sentence is part of none."""

    n: int

    def mask(self, values: Tensor, histories: Tensor, sentences: Tensor) -> None:
        length = histories.shape[1]
        if length < self.n:
            return
        windows = histories.unfold(1, self.n, 1)  # [R, t - n + 1, n], all n-grams
        last = histories[:, length - self.n + 1 :]  # [R, n - 1], the beginning of the next one
        same = (windows[:, :, :-1] == last[:, None]).all(2)  # [R, t - n + 1]
        rows, places = same.nonzero(as_tuple=True)
        values[rows, windows[rows, places, -1]] = -math.inf


@dataclass(frozen=True)
class Prefix:
    """A forced beginning a sentence.

    pieces: [B, P], -1 after its end. new_word: [B], where the piece that follows must begin a word (or end the
    sentence); word_starts: [V], which pieces do.
    """

    pieces: Tensor
    new_word: Tensor
    word_starts: Tensor

    def force(self, values: Tensor, before: Tensor, histories: Tensor, sentences: Tensor) -> None:
        """Changes values [R, V] in place: the forced piece keeps its log-probability of `before`, all else goes."""
        step = histories.shape[1]
        lengths = (self.pieces >= 0).sum(1)[sentences]  # [R]
        forced = (lengths > step).nonzero().squeeze(1)
        if len(forced):
            wanted = self.pieces[sentences[forced], step]
            values[forced] = -math.inf
            values[forced, wanted] = before[forced, wanted]
        first = ((lengths == step) & self.new_word[sentences]).nonzero().squeeze(1)
        if len(first):
            values[first] = values[first].masked_fill(~self.word_starts, -math.inf)


@dataclass(frozen=True)
class Apart:
    """Away from other outputs of the same sentence: diverse beam search (Vijayakumar et al. 2016) one after another.

    others: [B, N, T], what was found before, -1 after its end (which has no end-of-sentence). A piece that stands at
    this position in some of them loses `penalty` for each (the paper's Hamming diversity). None comes out twice.
    """

    others: Tensor
    penalty: float

    def mask(self, values: Tensor, histories: Tensor, sentences: Tensor) -> None:
        step, others = histories.shape[1], self.others[sentences]  # [R, N, T]
        if step < others.shape[2]:
            rows, which = (others[:, :, step] >= 0).nonzero(as_tuple=True)
            pieces = others[rows, which, step]
            values.index_put_((rows, pieces), torch.full_like(rows, -self.penalty, dtype=values.dtype), accumulate=True)
        if step <= others.shape[2]:
            ends = (others >= 0).sum(2) == step  # [R, N]
            same = (others[:, :, :step] == histories[:, None]).all(2)
            values[(ends & same).any(1), EOS] = -math.inf


@dataclass(frozen=True)
class Constraints:
    """All that hold for a batch.

    masks: one after another. prefix: is forced whatever the others say. required: phrases that every output has.
    """

    masks: tuple[Constraint, ...] = ()
    prefix: Prefix | None = None
    required: Required | None = None

    def limit(
        self, predictions: Predictions, histories: Tensor, sentences: Tensor, *, to_the_end: bool = False
    ) -> Predictions:
        """The predictions [R, V] with what is ruled out at -inf.

        to_the_end: where nothing else is left, a sentence may end: the minimum length gives way.
        """
        before = predictions.all()
        values = before.clone()
        for constraint in self.masks:
            constraint.mask(values, histories, sentences)
        if self.required is not None:
            self.required.mask(values, histories)
        if self.prefix is not None:
            self.prefix.force(values, before, histories, sentences)
        if to_the_end:
            stuck = (values == -math.inf).all(1)
            values[stuck, EOS] = before[stuck, EOS]
        return LogProbabilities(values)

    def of(self, sentences: Tensor) -> Constraints:
        """The same for some sentences of the batch, [B'] indices."""
        prefix = self.prefix
        if prefix is not None:
            prefix = replace(prefix, pieces=prefix.pieces[sentences], new_word=prefix.new_word[sentences])
        masks = tuple(
            replace(one, others=one.others[sentences]) if isinstance(one, Apart) else one for one in self.masks
        )
        return replace(self, masks=masks, prefix=prefix)

    def relaxed(self) -> Constraints:
        """What can always be obeyed, for sentences that no output satisfies: nothing that forbids to end.

        It is this object itself where nothing does.
        """
        masks = tuple(one for one in self.masks if not isinstance(one, (MinLength, Apart)))
        if len(masks) == len(self.masks) and self.required is None:
            return self
        return replace(self, masks=masks, required=None)


def prefixes(pieces: Sequence[Sequence[int]], new_word: Sequence[bool], word_starts: Tensor) -> Prefix:
    """Forced beginnings, one a sentence; empty where there is none. word_starts [V] also knows end-of-sentence."""
    longest = max((len(one) for one in pieces), default=0)
    padded = torch.full((len(pieces), longest), -1, dtype=torch.int64)
    for row, one in zip(padded, pieces, strict=True):
        row[: len(one)] = torch.tensor(one, dtype=torch.int64)
    return Prefix(padded.to(word_starts.device), torch.tensor(new_word, device=word_starts.device), word_starts)
