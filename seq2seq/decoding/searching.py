"""One batch of lines through the search that the options name: greedy, beams, samples, or alternatives."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from seq2seq.decoding.asking import Line
from seq2seq.decoding.beam import beam_search, greedy_search
from seq2seq.decoding.constraints import Constraints
from seq2seq.decoding.demands import Demands
from seq2seq.decoding.diverse import Others, alternatives, scored_again
from seq2seq.decoding.hypotheses import Hypothesis, Penalty
from seq2seq.decoding.options import Options
from seq2seq.decoding.results import texts_of
from seq2seq.decoding.sampling import sample, sentence_seed
from seq2seq.decoding.scorer import Scorer
from seq2seq.decoding.scoring import score_pieces
from seq2seq.model.transformer import Transformer
from seq2seq.text.batching import pad
from seq2seq.text.tokenizer import EOS

DRAWS_A_LINE = 2**16  # seeds that a line has for its draws


def penalty_of(options: Options) -> Penalty:
    """The length penalty of checked options."""
    assert options.length_penalty is not None and options.length_normalization is not None
    return Penalty(options.length_penalty, options.length_normalization)


class BatchSearch:
    """Finds hypotheses for batches of lines, as checked options ask for; batches may be searched side by side.

    models: whose log-probabilities alternatives are ranked by, of pieces in batches of `batch_tokens`.
    """

    def __init__(self, scorer: Scorer, models: Sequence[Transformer], demands: Demands, batch_tokens: int) -> None:
        self.scorer, self.models, self.demands, self.batch_tokens = scorer, models, demands, batch_tokens
        self.options, self.penalty = demands.options, penalty_of(demands.options)

    def __call__(self, lines: Sequence[Line], numbers: Sequence[int]) -> list[list[Hypothesis]]:
        """Hypotheses of each line, best first; numbers: of the lines, from 0."""
        source = pad([line.source for line in lines], end=EOS).to(self.scorer.device)
        if self.options.sample:
            return self._sample(source, lines, numbers)
        if self.options.diverse:
            return self._alternatives(source, lines)
        if self.options.beam_size == 1:
            return self._greedy(source, lines)
        return self._beam(source, lines, self._constraints(lines), self.options.n_best)

    def _constraints(self, lines: Sequence[Line], others: Others | None = None) -> Constraints | None:
        return self.demands.constraints([line.prefix for line in lines], [line.new_word for line in lines], others)

    def _greedy(self, source: torch.Tensor, lines: Sequence[Line]) -> list[list[Hypothesis]]:
        best = greedy_search(
            self.scorer,
            source,
            [line.limit for line in lines],
            length_penalty=self.penalty.alpha,
            length_normalization=self.penalty.normalization,
            constraints=self._constraints(lines),
        )
        return [[one] for one in best]

    def _beam(
        self, source: torch.Tensor, lines: Sequence[Line], constraints: Constraints | None, n_best: int
    ) -> list[list[Hypothesis]]:
        assert self.options.beam_size is not None
        return beam_search(
            self.scorer,
            source,
            [line.limit for line in lines],
            beam_size=self.options.beam_size,
            n_best=n_best,
            length_penalty=self.penalty.alpha,
            length_normalization=self.penalty.normalization,
            constraints=constraints,
        )

    def _sample(self, source: torch.Tensor, lines: Sequence[Line], numbers: Sequence[int]) -> list[list[Hypothesis]]:
        # Draw d of line i has a seed of its own, whatever batch the line is in and whatever else is asked for.
        options, draws = self.options, self.options.n_best
        drawn = sample(
            self.scorer,
            source,
            [line.limit for line in lines],
            seeds=[
                sentence_seed(options.seed, line * DRAWS_A_LINE + draw) for line in numbers for draw in range(draws)
            ],
            temperature=options.temperature,
            top_k=options.top_k,
            top_p=options.top_p,
            length_penalty=self.penalty.alpha,
            length_normalization=self.penalty.normalization,
            draws=draws,
            constraints=self._constraints(lines),
        )
        groups = [drawn[i : i + draws] for i in range(0, len(drawn), draws)]
        return [sorted(group, key=lambda hypothesis: -hypothesis.score) for group in groups]

    def _alternatives(self, source: torch.Tensor, lines: Sequence[Line]) -> list[list[Hypothesis]]:
        """Different translations of each line, best first."""
        beam_size = self.options.beam_size
        assert beam_size is not None

        def search(others: Others | None) -> list[list[Hypothesis]]:
            return self._beam(source, lines, self._constraints(lines, others), beam_size)

        def text(pieces: Sequence[int]) -> str:
            return texts_of(self.demands.tokenizer, [pieces])[0]

        found = alternatives(self.options.diverse, len(lines), search, text)
        sources = [line.source.tolist() for line, own in zip(lines, found, strict=True) for _ in own]
        flat = [one for own in found for one in own]
        outputs = [[*one.pieces, EOS] if one.ended else list(one.pieces) for one in flat]
        logs = score_pieces(self.models, sources, outputs, self.batch_tokens)
        again = iter(scored_again(flat, logs, self.penalty))
        return [sorted((next(again) for _ in own), key=lambda one: -one.score) for own in found]
