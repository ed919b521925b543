"""Several models as one: at every step the mean of their probabilities (section 6.1 averages weights instead).

Shapes as in scorer.py; M models.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from seq2seq.decoding.scorer import Decoding, LogProbabilities, Predictions, Scorer


class EnsembleScorer:
    """A scorer whose probabilities are the mean of those of others; all have one target vocabulary."""

    def __init__(self, scorers: Sequence[Scorer]) -> None:
        if not scorers:
            raise ValueError("an ensemble needs at least one scorer")
        self.scorers, self.device = list(scorers), scorers[0].device

    def start(self, source: Tensor) -> EnsembleDecoding:
        return EnsembleDecoding([scorer.start(source) for scorer in self.scorers])


class EnsembleDecoding:
    """Decodings side by side, whose rows are the same hypotheses."""

    def __init__(self, decodings: list[Decoding]) -> None:
        self.decodings = decodings

    def step(self, pieces: Tensor) -> Predictions:
        return LogProbabilities(mean([decoding.step(pieces).all() for decoding in self.decodings]))

    def select(self, sentences: Tensor | None, rows: Tensor | None) -> None:
        for decoding in self.decodings:
            decoding.select(sentences, rows)


def mean(log_probabilities: Sequence[Tensor]) -> Tensor:
    """The logarithm of the mean probability, of M tensors of one shape; -inf where all are."""
    if len(log_probabilities) == 1:
        return log_probabilities[0]
    return torch.logsumexp(torch.stack(list(log_probabilities)), dim=0) - math.log(len(log_probabilities))
