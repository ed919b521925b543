"""What a search asks of a model: to begin with some sentences, to continue by one piece, to keep some hypotheses.

Shapes: B sentences, w open hypotheses a sentence, R = B * w rows, those of one sentence side by side; V target
vocabulary. Padding, unknown and begin-of-sentence are never generated: they are ruled out after the softmax, so that
what remains keeps its probability and scores the same when it is scored again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from seq2seq.model.cache import DecoderCache
from seq2seq.model.transformer import EOS, Transformer

BLOCK = 64  # columns whose maximum is found at once, see `largest`


class Predictions(Protocol):
    """The next piece of every row."""

    def all(self) -> Tensor:
        """Log-probabilities [R, V], float32; -inf for what is never generated, the rest not renormalised."""

    def best(self, count: int) -> tuple[Tensor, Tensor]:
        """The `count` most probable pieces of every row, or all: log-probabilities and ids [R, count], ids ascending.

        Of equals the lower ids, for a count of 1.
        """


class Decoding(Protocol):
    """Sentences whose translations are growing."""

    def step(self, pieces: Tensor) -> Predictions:
        """Continues every row by a piece, [R] int64."""

    def select(self, sentences: Tensor | None, rows: Tensor | None) -> None:
        """Keeps rows [R'], indices into the R there are, of the sentences [B'], indices into the B there are.

        None: all, in their order. A row may be there several times; all sentences have equally many.
        """


class Scorer(Protocol):
    """A model, or several, that can be searched."""

    device: torch.device

    def start(self, source: Tensor) -> Decoding:
        """Encodes sources `pieces eos` [B, S], padded at the end; one row a sentence."""


class LogProbabilities:
    """Predictions of which all are known."""

    def __init__(self, values: Tensor) -> None:
        self._values = values

    def all(self) -> Tensor:
        return self._values

    def best(self, count: int) -> tuple[Tensor, Tensor]:
        ids = largest(self._values, count)
        return self._values.gather(1, ids), ids


class _Projected(LogProbabilities):
    """Those of states [R, D]."""

    def __init__(self, project: Callable[[Tensor], Tensor], states: Tensor) -> None:
        self.project, self.states = project, states

    @cached_property
    def _values(self) -> Tensor:  # type: ignore[override]
        return allowed(self.project(self.states).log_softmax(1, dtype=torch.float32))


def allowed(log_probabilities: Tensor) -> Tensor:
    """The same with -inf for what is never generated, in place."""
    log_probabilities[:, :EOS] = -math.inf  # pad, unk and bos are the ids below eos
    return log_probabilities


class TransformerScorer:
    """A model as it stands: any device, any dtype, all in torch. `engine.Engine` is several times faster on a CPU."""

    def __init__(self, model: Transformer) -> None:
        self.model, self.device = model, model.target_embedding.device

    def start(self, source: Tensor) -> TransformerDecoding:
        return TransformerDecoding(self.model, self.model.start_cache(*self.model.encode(source)))


class TransformerDecoding:
    """Decoding with the model's own cache."""

    def __init__(self, model: Transformer, cache: DecoderCache) -> None:
        self.model, self.cache = model, cache

    def step(self, pieces: Tensor) -> Predictions:
        states = self.model.step_states(pieces[:, None], self.cache)
        return _Projected(self.model.project, states[:, -1])

    def select(self, sentences: Tensor | None, rows: Tensor | None) -> None:
        if sentences is not None:
            self.cache.select_sentences(sentences)
        if rows is not None:
            self.cache.select_hypotheses(rows)


def largest(values: Tensor, count: int) -> Tensor:
    """Indices of the `count` largest of every row of values [R, V]: [R, count], ascending.

    On a CPU, topk and argmax over whole rows read them one number at a time. The maxima of blocks are quick to find,
    and the largest numbers are in the blocks with the largest maxima.
    """
    rows, size = values.shape
    blocks = size // BLOCK
    if blocks < 4 * count:
        return _top(values, count)
    maxima = values[:, : blocks * BLOCK].view(rows, blocks, BLOCK).amax(2)
    within = torch.arange(BLOCK, device=values.device)
    columns = (_top(maxima, count)[:, :, None] * BLOCK + within).flatten(1)
    rest = torch.arange(blocks * BLOCK, size, device=values.device).expand(rows, -1)
    columns = torch.cat([columns, rest], dim=1)
    return columns.gather(1, _top(values.gather(1, columns), count))


def _top(values: Tensor, count: int) -> Tensor:
    if count == 1:
        return values.argmax(1, keepdim=True)  # the first of equals, which topk does not promise
    return values.topk(min(count, values.shape[1]), dim=1, sorted=False).indices.sort(1).values
