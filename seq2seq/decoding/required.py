"""Phrases that every output must have: beam search with banks (Post and Vilar 2018, "dynamic beam allocation").

A hypothesis is in the bank of as many pieces of required phrases as it has: all of those it has completed, and the
longest beginning of another that it ends with. At every step the places of the beam go round the banks, the fullest
first, to the best hypothesis of each, then to the second best of each, and so on; beside the most probable pieces,
every piece of a required phrase is a candidate. A sentence can end in the fullest bank only.

A phrase is whole words: the piece after it does not go on with its last one, in scripts that put spaces between words.

So some hypothesis always works its way through the phrases, whatever the model thinks of them, as long as the maximum
length leaves room. With few places next to the number of banks, phrases come early and translations suffer: a beam
of the phrases' pieces plus one, or more, serves well.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from seq2seq.decoding.scorer import Predictions
from seq2seq.model.transformer import EOS


class Required:
    """phrases: the pieces of each; they may overlap in an output.

    continues [V], going_on: pieces that would go on with the word before them. closed: of each phrase, whether none of
    those may follow it.
    """

    def __init__(
        self,
        phrases: Sequence[Sequence[int]],
        continues: Tensor | None = None,
        closed: Sequence[bool] = (),
        going_on: frozenset[int] = frozenset(),
    ) -> None:
        self.phrases = [list(phrase) for phrase in dict.fromkeys(map(tuple, phrases))]
        self.continues = continues
        self.going_on = going_on
        ends = dict(zip(map(tuple, phrases), closed, strict=False))
        self.closed = frozenset(number for number, phrase in enumerate(self.phrases) if ends.get(tuple(phrase), False))
        self.pieces = sorted({piece for phrase in self.phrases for piece in phrase})
        self.longest = max(map(len, self.phrases))
        self.total = sum(map(len, self.phrases))

    def met(self, pieces: Sequence[int]) -> frozenset[int]:
        """Which phrases a list of pieces has: as whole words, where its end may be one."""
        return frozenset(number for number in range(len(self.phrases)) if next(self._ends(number, pieces), None))

    def _ends(self, number: int, pieces: Sequence[int]) -> Iterator[int]:
        """How many pieces there are at each end of a phrase."""
        phrase = self.phrases[number]
        for end in range(len(phrase), len(pieces) + 1):
            if list(pieces[end - len(phrase) : end]) == phrase and not (
                number in self.closed and end < len(pieces) and pieces[end] in self.going_on
            ):
                yield end

    def end(self, pieces: Sequence[int]) -> int:
        """How many pieces there are when the last of the phrases that they have is complete."""
        ends = (next(self._ends(number, pieces), 0) for number in range(len(self.phrases)))
        return max(ends, default=0)

    def bank(self, met: frozenset[int], tail: Sequence[int]) -> int:
        """The bank of a hypothesis that has some phrases and ends with `tail`."""
        begun = 0
        for number, phrase in enumerate(self.phrases):
            if number not in met:
                longest = min(len(phrase) - 1, len(tail))
                begun = max(begun, next((n for n in range(longest, 0, -1) if list(tail[-n:]) == phrase[:n]), 0))
        return sum(len(self.phrases[number]) for number in met) + begun

    def mask(self, values: Tensor, histories: Tensor) -> None:
        """No end of sentence [R, V] before all phrases are there, and no more of a word that has just completed one."""
        written = histories.tolist()
        met = [self.met(history) for history in written]
        unmet = [len(found) < len(self.phrases) for found in met]
        values[torch.tensor(unmet, device=values.device), EOS] = -math.inf
        if self.continues is not None and self.closed:
            rows = [row for row, found in enumerate(met) if (found - self.met(written[row][:-1])) & self.closed]
            values[rows] = values[rows].masked_fill(self.continues, -math.inf)

    def best(self, predictions: Predictions, histories: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Candidates: the most probable `count` and all pieces of phrases.

        Returns log-probabilities (-inf for those that are there already), ids and banks, [R, count + E] each.
        """
        log_probabilities, ids = predictions.best(count)
        wanted = torch.tensor(self.pieces, device=ids.device).expand(len(ids), -1)  # [R, E]
        known = (ids[:, :, None] == wanted[:, None]).any(1)
        more = predictions.all().gather(1, wanted).masked_fill(known, -math.inf)
        ids, log_probabilities = torch.cat([ids, wanted], dim=1), torch.cat([log_probabilities, more], dim=1)
        banks = torch.zeros_like(ids)
        for row, history in enumerate(histories.tolist()):
            met, tail = self.met(history), history[-self.longest :]
            banks[row] = sum(len(self.phrases[number]) for number in met)
            for piece in self.pieces:
                after = [*tail, piece]
                banks[row, ids[row] == piece] = self.bank(met | self.met(after[-self.longest :]), after)
        return log_probabilities, ids, banks


def round_the_banks(totals: Tensor, banks: Tensor) -> Tensor:
    """An order [B, n] of candidates with log-probabilities and banks [B, n]: the best of each bank, the second, ..."""
    by_total = totals.sort(dim=1, descending=True, stable=True)
    values, ordered = by_total.values, banks.gather(1, by_total.indices)
    most = int(banks.max()) + 1
    round_ = torch.zeros_like(ordered)
    for bank in range(most):
        inside = ordered == bank
        round_ = torch.where(inside, inside.cumsum(1) - 1, round_)
    keys = round_ * most + (most - 1 - ordered)
    keys = keys.masked_fill(values == -math.inf, torch.iinfo(keys.dtype).max)
    return by_total.indices.gather(1, keys.argsort(dim=1, stable=True))
