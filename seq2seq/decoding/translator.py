"""Text in, text out: pieces, batches sorted by length, search, text again in the order it came."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from seq2seq.config import DataConfig, DecodingConfig
from seq2seq.decoding.alignment import Links, align, check_heads, words_in
from seq2seq.decoding.asking import Asking, Line, Request, requests
from seq2seq.decoding.beam import Choice, grow, most_probable
from seq2seq.decoding.demands import Demands
from seq2seq.decoding.ensemble import EnsembleScorer
from seq2seq.decoding.hypotheses import Hypothesis
from seq2seq.decoding.options import (
    Normalization,
    Options,
    Ready,
    Score,
    Translation,
    TranslationResult,
    check_lines,
    check_list,
    check_options,
    in_windows,
    text_of,
)
from seq2seq.decoding.repetition import loop_end, loop_warning
from seq2seq.decoding.results import result_of, texts_of
from seq2seq.decoding.sampling import drawing, sentence_seed
from seq2seq.decoding.scoring import score_lines
from seq2seq.decoding.searching import BatchSearch, penalty_of
from seq2seq.decoding.twins import scorer_for
from seq2seq.errors import OptionError, SearchOptionError
from seq2seq.model.transformer import Transformer
from seq2seq.run import Run
from seq2seq.run_folder.files import RunError
from seq2seq.runtime import Precision, choose_device, choose_precision, emulated, one_thread_in_children, precision_name
from seq2seq.text.batching import pad
from seq2seq.text.reading import is_tsv
from seq2seq.text.tokenizer import EOS, Tokenizer
from seq2seq.workers import Workers

__all__ = ["Options", "Score", "Translation", "TranslationResult", "Translator"]

MAX_LOGITS = 1 << 24  # hypotheses times vocabulary in one batch: 64 MB in float32
GPU_MAX_LOGITS = 1 << 27  # there a step takes as long for many hypotheses as for few

AnyRun = str | Path | Run


class Translator:
    """Translates lines with a finished run, or with several at once (an ensemble: the mean of their probabilities).

    >>> translator = Translator("runs/m30k")                               # doctest: +SKIP
    >>> translator.translate(["A man is riding a horse."])[0].text         # doctest: +SKIP
    'Ein Mann reitet auf einem Pferd.'
    """

    def __init__(
        self,
        run: AnyRun | Sequence[AnyRun],
        *,
        precision: Precision = "fp32",
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Loads the model, or several, whose first also gives the `[decoding]` configuration.

        Raises RunError where a folder has no finished model, or where the models do not share a vocabulary or translate
        opposite ways, as far as their corpora tell. warn: told of lines that are cut, that run into a loop, or that
        cannot be what was asked for, and of a slow precision.
        """
        given = [run] if isinstance(run, (str, Path, Run)) else run
        if not isinstance(given, (list, tuple)) or not all(isinstance(one, (str, Path, Run)) for one in given):
            raise OptionError(f"run = {run!r:.60}: give the folder of a run, or a list of some")
        if not given:
            raise OptionError("an ensemble needs at least one run")
        if not callable(warn):
            raise OptionError(f"warn = {warn!r:.60}: give a function that takes a text, such as print")
        runs = [one if isinstance(one, Run) else Run.open(Path(one)) for one in given]
        tokenizer = runs[0].tokenizer()
        for other in runs[1:]:
            if other.tokenizer().content_hash() != tokenizer.content_hash():
                raise RunError(
                    f"{runs[0].path} and {other.path} have different vocabularies: an ensemble needs runs that were "
                    "trained with the same tokenizer (tokenizer.source_model)"
                )
            if _opposite(runs[0].config().data, other.config().data):
                raise RunError(
                    f"{runs[0].path} and {other.path} translate opposite ways: an ensemble needs runs that translate "
                    "the same way"
                )
        config, device = runs[0].config(), choose_device("auto")
        models = [one.load_model() for one in runs]
        for model in models:
            model.compute_dtype = choose_precision(precision, device)
            model.to(device)
            if device.type == "cuda":  # on a CPU the engine has its own
                model.round_layers()
        if warning := emulated(models[0].compute_dtype, device):
            warn(warning)
        self._assign(models, tokenizer, config.decoding, warn)

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
        translator._assign([model], tokenizer, config, warn)
        return translator

    def _assign(
        self, models: list[Transformer], tokenizer: Tokenizer, config: DecodingConfig, warn: Callable[[str], None]
    ) -> None:
        self.models, self.tokenizer, self.config, self.warn = models, tokenizer, config, warn
        self.model = models[0]
        one_thread_in_children()
        scorers = [scorer_for(model, warn) for model in models]
        self.scorer = scorers[0] if len(scorers) == 1 else EnsembleScorer(scorers)
        self.device = self.scorer.device

    @property
    def precision(self) -> str:
        """Of matrix products: "fp32" or "bf16"."""
        return precision_name(self.model.compute_dtype)

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
        length_normalization: Normalization | None = None,
        min_length: int = 0,
        max_length: int | None = None,
        prefix: str | Sequence[str] = "",
        ban: Sequence[str] = (),
        require: Sequence[str] | Sequence[Sequence[str]] = (),
        no_repeat_ngram: int = 0,
        diverse: int = 0,
        diversity_penalty: float = 0.5,
        alignments: bool = False,
    ) -> list[TranslationResult]:
        """Translates lines, all at once; one result a line, in order. `Options` says what the options mean.

        prefix: one for all lines, or a list of one for each. require: phrases for all lines, or a list with a list of
        phrases for each. Raises OptionError for options out of range.
        """
        check_list(lines)
        if not isinstance(prefix, (str, Sequence)):
            raise OptionError(f"prefix = {prefix!r:.60}: give a text for all lines, or a list of one for each")
        one_prefix = prefix if isinstance(prefix, str) else ""
        if not isinstance(prefix, str) and len(prefix) != len(lines):
            raise OptionError(f"prefix has {len(prefix)} texts: give one, or one for each of {len(lines)} lines")
        phrases, requires = _phrases_of(require, len(lines))
        options = Options(
            beam_size=beam_size, length_penalty=length_penalty, n_best=n_best, sample=sample, temperature=temperature,
            top_k=top_k, top_p=top_p, seed=seed, length_normalization=length_normalization, min_length=min_length,
            max_length=max_length, prefix=one_prefix, ban=_phrases(ban), require=phrases,
            no_repeat_ngram=no_repeat_ngram, diverse=diverse, diversity_penalty=diversity_penalty,
            alignments=alignments,
        )  # fmt: skip
        return list(self.stream(lines, options, None if isinstance(prefix, str) else prefix, requires=requires))

    def stream(
        self,
        lines: Iterable[str],
        options: Options | None = None,
        prefixes: Iterable[str] | None = None,
        ready: Ready | None = None,
        requires: Iterable[Sequence[str]] | None = None,
        first: int = 0,
    ) -> Iterator[TranslationResult]:
        """Translates lines as they come, a few thousand at a time, in bounded memory; one result a line, in order.

        prefixes: one a line, instead of the options' for all. requires: phrases of each line, beside those of the
        options. A line for which they cannot be written is translated without, and not `satisfied`. ready: told a
        number of seconds, says whether the next line comes within them; where it does not, what has come is translated
        first. first: so many lines are passed over; the others are translated as if they had not been.
        """
        check_lines(lines)
        demands = self._demands(options or Options())
        if demands.options.sample and requires is not None:
            raise SearchOptionError("phrases to require belong to a search, and {sample.name} draws", sample=True)
        for phrase in demands.idle():
            self.warn(f"what is banned cannot come out in any case, as the vocabulary cannot write it: {phrase!r:.60}")
        if remark := demands.narrow_beam():
            self.warn(remark)
        asked = requests(lines, demands.options.prefix, prefixes, requires)
        return in_windows(asked, lambda window, start: self._window(window, start, demands), ready, first)

    def check(self, options: Options) -> Options:
        """The options with the defaults of the run filled in. Raises OptionError for one that is out of range."""
        return self._demands(options).options

    def _demands(self, options: Options) -> Demands:
        """Of options with the run's defaults filled in. Raises OptionError as `check` does."""
        demands = Demands(check_options(options, self.config), self.tokenizer, self.device)
        demands.prefix_pieces(demands.options.prefix)
        if options.alignments:
            check_heads(self.models, self.config)
        return demands

    def stream_tokens(self, line: str, options: Options | None = None) -> Iterator[str]:
        """The translation of a line in pieces of text, as greedy search or sampling goes; joined, they are the whole.

        Raises OptionError for options that need a search to be over before anything can be said.
        """
        line, options = text_of(line, "line"), options or Options()
        demands = self._demands(options)
        for name in ("beam_size", "n_best", "require", "diverse", "alignments"):
            value = getattr(options, name)
            if value is True or (value and value not in (1, ())):
                raise SearchOptionError(f"{{{name}}}: only greedy search and sampling can be streamed", **{name: value})
        return self._tokens(line, demands)

    def _tokens(self, line: str, demands: Demands) -> Iterator[str]:
        """`stream_tokens` of options that have been checked."""
        options = demands.options
        [asked] = self._asking([Request(line, options.prefix, ())], 0, demands)
        if not len(asked.source):
            return
        choose: Choice = most_probable
        if options.sample:
            seeds = [sentence_seed(options.seed, 0)]
            choose = drawing(seeds, asked.limit, options.temperature, options.top_k, options.top_p, self.device)
        source = pad([asked.source], end=EOS).to(self.device)
        constraints = demands.constraints([asked.prefix], [asked.new_word])
        pieces: list[int] = []
        said = ""
        for piece in grow(self.scorer, source, asked.limit, choose, constraints):
            pieces.append(piece)
            text = texts_of(self.tokenizer, [pieces])[0]
            # Half of a character in bytes is not yet text.
            if text.startswith(said) and len(text) > len(said) and not text.endswith("\N{REPLACEMENT CHARACTER}"):
                yield text[len(said) :]
                said = text
            if loop_end(pieces, len(asked.prefix)) is not None and loop_end(asked.source.tolist()) is None:
                self.warn(loop_warning(0, len(pieces)))
                break
        if rest := texts_of(self.tokenizer, [pieces])[0][len(said) :]:
            yield rest

    def score(
        self,
        sources: Sequence[str],
        targets: Sequence[str],
        *,
        length_penalty: float | None = None,
        length_normalization: Normalization | None = None,
    ) -> list[Score]:
        """What the model thinks of given translations, line by line. Raises OptionError where there are not as many."""
        check_list(sources)
        check_list(targets)
        if len(sources) != len(targets):
            raise OptionError(f"there are {len(sources)} sources and {len(targets)} targets: give as many of each")
        options = Options(length_penalty=length_penalty, length_normalization=length_normalization)
        return list(self.score_stream(zip(sources, targets, strict=True), options))

    def score_stream(
        self, pairs: Iterable[tuple[str, str]], options: Options | None = None, *, ready: Ready | None = None
    ) -> Iterator[Score]:
        """Scores (source, target) pairs as they come, a few thousand at a time, in bounded memory; in order.

        Of the options, length_penalty and length_normalization count. ready: as for `stream`.
        """
        check_lines(pairs)
        penalty = penalty_of(self.check(options or Options()))
        return in_windows(
            (_pair(number, pair) for number, pair in enumerate(pairs, 1)),
            lambda window, start: score_lines(
                self.models, self.tokenizer, self.config, penalty, window, start, self.warn
            ),
            ready,
        )

    def _window(self, requested: list[Request], start: int, demands: Demands) -> list[TranslationResult]:
        """Translates lines that are sorted by length and cut into batches; `start` is the number of the first."""
        lines, asked = [one.line for one in requested], self._asking(requested, start, demands)
        found: list[tuple[Hypothesis, ...]] = [()] * len(lines)

        def search(indices: list[int]) -> list[list[Hypothesis]]:
            batch = [asked[i] for i in indices]
            batch_search = BatchSearch(self.scorer, self.models, batch[0].demands, self.config.batch_tokens)
            return batch_search(batch, [start + i for i in indices])

        # Lines of a batch require the same phrases.
        alike: dict[tuple[str, ...], list[int]] = {}
        for index, line in enumerate(asked):
            alike.setdefault(tuple(sorted(line.demands.options.require)), []).append(index)
        batches = [
            [indices[i] for i in batch]
            for indices in alike.values()
            for batch in self._batches(np.array([len(asked[i].source) for i in indices]), demands.options)
        ]
        threads = torch.get_num_threads() if self.device.type == "cpu" else 1
        with Workers(min(threads, max(1, len(batches)))) as workers:
            for indices, hypotheses in zip(batches, workers.map(search, batches), strict=True):
                for index, best in zip(indices, hypotheses, strict=True):
                    found[index] = tuple(best)
        links = self._align(lines, asked, found) if demands.options.alignments else None
        return [
            result_of(
                start + number, line, asked[number], found[number], None if links is None else links[number], self.warn
            )
            for number, line in enumerate(lines)
        ]

    def _asking(self, requested: Sequence[Request], start: int, demands: Demands) -> list[Line]:
        longest = min(model.config.longest for model in self.models)
        return Asking(self.tokenizer, self.config, longest, self.warn)(requested, start, demands)

    def _batches(self, lengths: np.ndarray[tuple[int], np.dtype[np.int64]], options: Options) -> Iterator[list[int]]:
        """Lines of similar length, longest first; empty lines are in no batch."""
        assert options.beam_size is not None
        width = options.n_best if options.sample else options.beam_size  # draws share a source, as beams do
        on_cpu = self.device.type == "cpu"
        logits = MAX_LOGITS // torch.get_num_threads() if on_cpu else GPU_MAX_LOGITS
        most = logits // (width * self.tokenizer.target_vocab_size)  # many short lines have many logits
        order = [int(i) for i in np.argsort(-lengths, kind="stable") if lengths[i]]
        start = 0
        while start < len(order):
            size = max(1, min(self.config.batch_tokens // (width * (int(lengths[order[start]]) + 1)), most))
            yield order[start : start + size]
            start += size

    def _align(self, lines: list[str], asked: list[Line], found: list[tuple[Hypothesis, ...]]) -> list[list[Links]]:
        sources = [line.source.tolist() for line in asked]
        outputs = [[list(one.pieces) for one in hypotheses] for hypotheses in found]
        words = [words_in(line, self.tokenizer, pieces) for line, pieces in zip(lines, sources, strict=True)]
        return align(self.models, self.tokenizer, self.config, sources, outputs, words)


def _pair(number: int, pair: tuple[str, str]) -> tuple[str, str]:
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise OptionError(f"pair {number} is {pair!r:.60}: give a source and a target")
    return text_of(pair[0], f"source {number}"), text_of(pair[1], f"target {number}")


def _opposite(one: DataConfig, other: DataConfig) -> bool:
    """Whether the languages, files or columns of two corpora say that one is the other turned round."""
    return any(ways[0] != ways[1] and ways == back[::-1] for ways, back in zip(_ways(one), _ways(other), strict=True))


def _ways(data: DataConfig) -> list[tuple[str, str]]:
    files = data.train_source.removesuffix(".gz"), data.train_target.removesuffix(".gz")
    dataset = f"{data.dataset} {data.dataset_config}" if data.dataset and not data.train_source else ""
    table = data.train_pairs.removesuffix(".gz") or dataset
    first, second = ("1", "2") if is_tsv(table) else ("source", "target")
    columns = f"{table} {data.source_column or first}", f"{table} {data.target_column or second}"
    return [
        (data.source_language.casefold(), data.target_language.casefold()),
        files,
        columns if table else ("", ""),
    ]


def _phrases_of(require: Sequence[str] | Sequence[Sequence[str]], count: int) -> tuple[Any, Any]:
    """What is required of all lines, and the phrases of each where they have their own, else None."""
    if isinstance(require, str) or not isinstance(require, Sequence) or all(isinstance(one, str) for one in require):
        return _phrases(require), None  # type: ignore[arg-type]
    if len(require) != count:
        raise OptionError(
            f"require has {len(require)} lists of phrases: give phrases for all lines, or a list for each of {count}"
        )
    return (), require


def _phrases(phrases: Sequence[str]) -> tuple[str, ...]:
    if isinstance(phrases, str):
        return (phrases,)
    return tuple(phrases) if isinstance(phrases, Sequence) else phrases  # of which the check of options tells
