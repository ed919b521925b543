"""Text in, text out: pieces, batches sorted by length, search, text again in the order it came."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from seq2seq.config import DecodingConfig
from seq2seq.decoding.beam import Hypothesis, beam_search, greedy_search
from seq2seq.decoding.engine import scorer_for
from seq2seq.decoding.sampling import sample, sentence_seed
from seq2seq.errors import OptionError, UserError
from seq2seq.model.transformer import Transformer
from seq2seq.run import Run
from seq2seq.runtime import Precision, choose_device, choose_precision
from seq2seq.text.batching import pad
from seq2seq.text.tokenizer import EOS, Tokenizer
from seq2seq.workers import Workers

MAX_LOGITS = 1 << 24  # hypotheses times vocabulary in one batch: 64 MB in float32
STREAM_LINES = 2048  # lines that are read, sorted by length and translated together


@dataclass(frozen=True)
class Options:
    """How to search. `None` takes the run's own `[decoding]` value.

    sample: draw instead of searching, as a function of (seed, line number); temperature, top_k (0: all) and top_p
    apply to sampling only. n_best: hypotheses a line, at most beam_size; with sampling, independent draws.
    """

    beam_size: int | None = None
    length_penalty: float | None = None
    n_best: int = 1
    sample: bool = False
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 1


@dataclass(frozen=True)
class Translation:
    """One hypothesis as text. pieces: as SentencePiece writes them, `▁` for a space, without end-of-sentence."""

    text: str
    score: float
    log_probability: float
    pieces: tuple[str, ...]
    piece_log_probabilities: tuple[float, ...]
    ended: bool


@dataclass(frozen=True)
class TranslationResult:
    """The hypotheses for one line, best first."""

    source: str
    hypotheses: tuple[Translation, ...]

    @property
    def text(self) -> str:
        """The best translation."""
        return self.hypotheses[0].text


class Translator:
    """Translates lines with a finished run.

    >>> translator = Translator("runs/m30k")                               # doctest: +SKIP
    >>> translator.translate(["A man is riding a horse."])[0].text         # doctest: +SKIP
    'Ein Mann reitet auf einem Pferd.'
    """

    def __init__(
        self,
        run: str | Path | Run,
        *,
        precision: Precision = "fp32",
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Loads the model. Raises RunError where the folder has none. warn: told of lines that are cut."""
        run = run if isinstance(run, Run) else Run.open(Path(run))
        config = run.config()
        model = run.load_model()
        device = choose_device("auto")
        model.compute_dtype = choose_precision(precision, device)
        self._assign(model.to(device), run.tokenizer(), config.decoding, warn)

    @classmethod
    def of(
        cls,
        model: Transformer,
        tokenizer: Tokenizer,
        config: DecodingConfig,
        warn: Callable[[str], None] = lambda text: None,
    ) -> Translator:
        """A translator around a model that is in memory already, on whatever device and dtype it is."""
        translator = cls.__new__(cls)
        translator._assign(model, tokenizer, config, warn)
        return translator

    def _assign(
        self, model: Transformer, tokenizer: Tokenizer, config: DecodingConfig, warn: Callable[[str], None]
    ) -> None:
        self.model, self.tokenizer, self.config, self.warn = model, tokenizer, config, warn
        self.scorer = scorer_for(model)
        self.device = self.scorer.device

    def translate(
        self,
        lines: Sequence[str],
        *,
        beam_size: int | None = None,
        length_penalty: float | None = None,
        n_best: int = 1,
        sample: bool = False,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int = 1,
    ) -> list[TranslationResult]:
        """Translates lines, all at once; one result a line, in order. Raises ValueError for options out of range."""
        options = Options(beam_size, length_penalty, n_best, sample, temperature, top_k, top_p, seed)
        return list(self.stream(lines, options))

    def stream(self, lines: Iterable[str], options: Options | None = None) -> Iterator[TranslationResult]:
        """Translates lines as they come, a few thousand at a time, in bounded memory; one result a line, in order."""
        options = self.check(options or Options())
        numbered = iter(lines)
        start = 0
        failure: UserError | None = None
        while failure is None:
            window: list[str] = []
            try:
                window.extend(itertools.islice(numbered, STREAM_LINES))
            except UserError as error:  # what was read before it is translated first
                failure = error
            if not window:
                break
            yield from self._window(window, start, options)
            start += len(window)
        if failure is not None:
            raise failure

    def check(self, options: Options) -> Options:
        """The options with the defaults of the run filled in. Raises OptionError for one that is out of range."""
        beam_size = self.config.beam_size if options.beam_size is None else options.beam_size
        alpha = self.config.length_penalty if options.length_penalty is None else options.length_penalty
        if options.n_best < 1:
            raise OptionError(f"n_best = {options.n_best} must be at least 1")
        if not 1 <= beam_size <= 1000:
            raise OptionError(f"beam_size = {beam_size} must be from 1 to 1000")
        if not options.sample and options.n_best > beam_size:
            raise OptionError(f"n_best = {options.n_best} is more than beam_size = {beam_size}: raise beam_size")
        if not 0 <= alpha <= 10:
            raise OptionError(f"length_penalty = {alpha} must be from 0 to 10")
        if not 0 < options.temperature < math.inf:
            raise OptionError(f"temperature = {options.temperature} must be above 0")
        if options.top_k < 0:
            raise OptionError(f"top_k = {options.top_k} must be 0 (all pieces) or more")
        if not 0 < options.top_p <= 1:
            raise OptionError(f"top_p = {options.top_p} must be above 0 and at most 1")
        if not 0 <= options.seed < 2**63:
            raise OptionError(f"seed = {options.seed} must be from 0 to 2^63 - 1")
        return replace(options, beam_size=beam_size, length_penalty=alpha)

    def _window(self, lines: list[str], start: int, options: Options) -> list[TranslationResult]:
        """Translates lines that are sorted by length and cut into batches; `start` is the number of the first."""
        sources = self._encode(lines, start)
        lengths = np.array([len(source) for source in sources])
        found: list[tuple[Hypothesis, ...]] = [()] * len(lines)

        def search(indices: list[int]) -> list[list[Hypothesis]]:
            batch = pad([sources[i] for i in indices], end=EOS).to(self.device)
            limits = [min(len(sources[i]) + self.config.max_extra_length, self._longest_output()) for i in indices]
            return self._search(batch, limits, [start + int(i) for i in indices], options)

        batches = list(self._batches(lengths, options))
        threads = torch.get_num_threads() if self.device.type == "cpu" else 1
        with Workers(min(threads, max(1, len(batches)))) as workers:
            for indices, hypotheses in zip(batches, workers.map(search, batches), strict=True):
                for index, best in zip(indices, hypotheses, strict=True):
                    found[index] = tuple(best)
        return [self._result(line, hypotheses) for line, hypotheses in zip(lines, found, strict=True)]

    def _encode(self, lines: list[str], start: int) -> list[np.ndarray[tuple[int], np.dtype[np.int32]]]:
        longest, field = self.config.max_source_length, "decoding.max_source_length"
        if self._longest_output() - 1 < longest:
            longest, field = self._longest_output() - 1, "model.max_positions, as its positions are learned"
        encoded = self.tokenizer.encode_source([line if line.strip() else "" for line in lines])
        for number, pieces in enumerate(encoded, start + 1):
            if len(pieces) > longest:
                self.warn(f"line {number} has {len(pieces):,} pieces; it is cut to the first {longest:,} ({field})")
        return [np.array(pieces[:longest], dtype=np.int32) for pieces in encoded]

    def _longest_output(self) -> int:
        """The most positions that the decoder has; sinusoids have no end."""
        config = self.model.config
        return config.max_positions if config.positions == "learned" else 2**31

    def _batches(self, lengths: np.ndarray[tuple[int], np.dtype[np.int64]], options: Options) -> Iterator[list[int]]:
        """Lines of similar length, longest first; empty lines are in no batch."""
        assert options.beam_size is not None
        width = options.n_best if options.sample else options.beam_size
        most = MAX_LOGITS // (width * self.tokenizer.target_vocab_size)  # many short lines have many logits
        order = [int(i) for i in np.argsort(-lengths, kind="stable") if lengths[i]]
        start = 0
        while start < len(order):
            size = max(1, min(self.config.batch_tokens // (width * (int(lengths[order[start]]) + 1)), most))
            yield order[start : start + size]
            start += size

    def _search(
        self, source: torch.Tensor, limits: list[int], lines: list[int], options: Options
    ) -> list[list[Hypothesis]]:
        assert options.beam_size is not None and options.length_penalty is not None
        alpha = options.length_penalty
        if not options.sample:
            if options.beam_size == 1:
                return [[best] for best in greedy_search(self.scorer, source, limits, length_penalty=alpha)]
            return beam_search(
                self.scorer, source, limits, beam_size=options.beam_size, length_penalty=alpha, n_best=options.n_best
            )
        # Draw d of line i has a seed of its own, whatever batch the line is in and whatever else is asked for.
        seeds = [sentence_seed(options.seed, line * 2**16 + draw) for line in lines for draw in range(options.n_best)]
        drawn = sample(
            self.scorer,
            source.repeat_interleave(options.n_best, dim=0),
            [limit for limit in limits for _ in range(options.n_best)],
            seeds=seeds,
            temperature=options.temperature,
            top_k=options.top_k,
            top_p=options.top_p,
            length_penalty=alpha,
        )
        groups = [drawn[i : i + options.n_best] for i in range(0, len(drawn), options.n_best)]
        return [sorted(group, key=lambda hypothesis: -hypothesis.score) for group in groups]

    def _result(self, line: str, hypotheses: tuple[Hypothesis, ...]) -> TranslationResult:
        if not hypotheses:
            return TranslationResult(line, (Translation("", 0.0, 0.0, (), (), True),))
        # With byte pieces a line break can be generated; a line of input is a line of output all the same.
        texts = [text.replace("\n", " ") for text in self.tokenizer.decode([h.pieces for h in hypotheses])]
        return TranslationResult(
            line,
            tuple(
                Translation(
                    text,
                    hypothesis.score,
                    hypothesis.log_probability,
                    tuple(self.tokenizer.target_pieces(hypothesis.pieces)),
                    hypothesis.piece_log_probabilities,
                    hypothesis.ended,
                )
                for text, hypothesis in zip(texts, hypotheses, strict=True)
            ),
        )
