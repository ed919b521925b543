"""Translating with CTranslate2 instead of torch: the face of `decoding.translator.Translator` on an export.

The export is kept beside the run, RUN/exports/ctranslate2-QUANTIZATION, made and certified on first use, and made anew
when the run's weights, tokenizer or configuration have changed. Where it is there already, torch is never imported.

With one beam the outputs are the torch engine's, piece by piece. Beam search is CTranslate2's own: it divides
log-probabilities by |y|^alpha and renormalises what remains when padding, unknown and begin-of-sentence are ruled out.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from threading import Lock
from typing import Any, Literal

from seq2seq.decoding.options import (
    Options,
    Ready,
    Translation,
    TranslationResult,
    check_lines,
    check_list,
    check_options,
    in_windows,
    text_of,
    unknown_remark,
)
from seq2seq.decoding.repetition import loop_end, loop_warning
from seq2seq.errors import OptionError, SearchOptionError
from seq2seq.export.errors import ExportError
from seq2seq.export.kept import ensure_export
from seq2seq.export.light import LightRun
from seq2seq.export.packages import need_ctranslate2
from seq2seq.machine import available_cores, check_threads
from seq2seq.text.tokenizer import BOS, EOS, PAD

SEED = Lock()  # CTranslate2 has one seed for all threads of a process
BATCH_TOKENS = 1200  # padded source tokens times hypotheses; more are slower, as they no longer fit into the cache
SCORED_TOKENS = 500  # scored at once; more are slower, as their distributions no longer fit into the cache
KNOWN = (
    "beam_size", "length_penalty", "length_normalization", "n_best", "sample", "temperature", "top_k", "top_p", "seed",
)  # fmt: skip


@dataclass(frozen=True)
class _Found:
    """One hypothesis: pieces without end-of-sentence, and the sum of log-probabilities as CTranslate2 searched."""

    pieces: list[str]
    ended: bool
    total: float

    @property
    def length(self) -> int:
        """|y|, end-of-sentence included."""
        return len(self.pieces) + self.ended


class CTranslate2Translator:
    """Translates lines with a finished run, by CTranslate2 on the CPU.

    >>> translator = CTranslate2Translator("runs/m30k", quantization="int8")    # doctest: +SKIP
    >>> translator.translate(["A man is riding a horse."])[0].text              # doctest: +SKIP
    'Ein Mann reitet auf einem Pferd.'
    """

    def __init__(
        self,
        run: str | Path,
        *,
        quantization: str = "float32",
        threads: int = 0,
        length_normalization: Literal["wu", "power"] | None = None,
        scores: bool = True,
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Loads the export, or makes it. Raises RunError or ExportError where that cannot be.

        threads: sentences that are translated at once, each batch by one of them; 0 is one a core,
        or fewer by OMP_NUM_THREADS.
        length_normalization: what hypotheses are ranked by at the end of beam search, "wu" for the torch engine's
        ((5 + |y|) / 6)^alpha, "power" for CTranslate2's own |y|^alpha; None: as the options or the run say. The search
        itself always uses the latter.
        scores: without them (all 0) the translations are not computed once more to score them piece by piece.
        warn: told of lines that are cut and of exports that are made.
        """
        if not isinstance(threads, int):
            raise OptionError(f"threads = {threads!r:.60}: has to be a whole number")
        check_threads(threads)
        if length_normalization not in (None, "wu", "power"):
            raise OptionError(f"length_normalization = {length_normalization!r}: choose wu or power")
        self.run = LightRun.open(Path(run))
        self.tokenizer, self.config = self.run.tokenizer, self.run.config.decoding
        self.quantization, self.warn, self.scores = quantization, warn, scores
        self.length_normalization = length_normalization
        self.threads = threads or available_cores()
        self.folder = ensure_export(self.run, quantization, warn).absolute()
        self._stamp, self._process = self._weights_stamp(), os.getpid()
        self.source_pieces = self.tokenizer.source_pieces(range(self.tokenizer.source_vocab_size))
        self.target_pieces = self.tokenizer.target_pieces(range(self.tokenizer.target_vocab_size))
        self.target_ids = {piece: i for i, piece in enumerate(self.target_pieces)}
        supported = need_ctranslate2().get_supported_compute_types("cpu")
        self.computes = quantization if quantization in supported else "float32"
        if self.computes != quantization:
            warn(f"this processor does not compute in {quantization}; CTranslate2 takes float32 instead")
        self.model = self._load(self.threads)

    def _weights_stamp(self) -> tuple[int, ...]:
        """What tells the file of the weights from another in its place."""
        try:
            found = (self.folder / "model.bin").stat()
        except OSError:
            return ()
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns

    def _load(self, workers: int) -> Any:
        # One thread a worker: small models gain more from batches side by side than from threads inside of each.
        try:
            return need_ctranslate2().Translator(
                str(self.folder),
                device="cpu",
                compute_type=self.computes,
                inter_threads=workers,
                intra_threads=1,
                max_queued_batches=-1,
            )
        except RuntimeError as error:
            raise ExportError(f"{self.folder}: CTranslate2 cannot load it ({error}): remove the folder") from None

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
        """Translates lines, all at once; one result a line, in order. Raises OptionError for options out of range."""
        check_list(lines)
        options = Options(
            beam_size=beam_size, length_penalty=length_penalty, n_best=n_best, sample=sample, temperature=temperature,
            top_k=top_k, top_p=top_p, seed=seed,
        )  # fmt: skip
        return list(self.stream(lines, options))

    def stream(
        self, lines: Iterable[str], options: Options | None = None, *, ready: Ready | None = None, first: int = 0
    ) -> Iterator[TranslationResult]:
        """Translates lines as they come, a few thousand at a time, in bounded memory; one result a line, in order.

        ready, first: as for the torch engine. Sampling: the same seed, options and lines in the same order, without
        pauses, give the same draws; unlike the torch engine's, they depend on the other lines.
        """
        check_lines(lines)
        checked = self.check(options or Options())
        if os.getpid() != self._process:
            raise ExportError("CTranslate2's threads are in the process that loaded them: load it in this one, too")
        texts = (text_of(line, f"line {number}") for number, line in enumerate(lines, 1))
        drawing: list[Any] = []  # the model that draws, once it is loaded

        def work(window: list[str], start: int) -> list[TranslationResult]:
            if not checked.sample:
                return self._window(self.model, window, start, checked)
            if drawing:
                return self._window(drawing[0], window, start, checked)
            # Generators of random numbers belong to threads and read the seed, of which there is one, at their first
            # draw: a new thread, and only one.
            with SEED:
                if self._weights_stamp() != self._stamp:
                    raise ExportError(f"{self.folder}: has changed since it was loaded: load the translator anew")
                need_ctranslate2().set_random_seed((checked.seed ^ checked.seed >> 32) & 0xFFFFFFFF)
                model = self._load(1)
                if any(line.strip() for line in window):  # else nothing is drawn yet
                    drawing.append(model)
                return self._window(model, window, start, checked)

        return in_windows(texts, work, ready, first)

    def check(self, options: Any) -> Options:
        """The options with the defaults of the run filled in. Raises OptionError for one that is out of range.

        Options that this engine does not know are refused unless they have their default.
        """
        check_known(options)
        return check_options(Options(**{name: getattr(options, name) for name in KNOWN}), self.config)

    def _window(self, model: Any, lines: list[str], start: int, options: Options) -> list[TranslationResult]:
        sources, complete = self._encode(lines, start)
        found: list[list[_Found]] = [[] for _ in lines]
        batches = list(self._batches(sources, options))
        pending = [self._submit(model, sources, batch, options) for batch in batches]
        for batch, results in zip(batches, pending, strict=True):
            for i, result in zip(batch, results, strict=True):
                found[i] = self._hypotheses(result.result(), self._limit(sources[i]), options)
        self._search_again(model, sources, found, options)
        if not options.sample:
            for hypotheses in found:
                hypotheses.sort(key=lambda one: -one.total / self._penalty(one.length, options))
                del hypotheses[options.n_best :]
        return self._results(lines, start, sources, complete, found, options)

    def _encode(self, lines: list[str], start: int) -> tuple[list[list[str]], list[bool]]:
        """Source pieces as CTranslate2 wants them, cut where they are too many; and which of them are whole."""
        longest, field = self.config.max_source_length, "decoding.max_source_length"
        if self.run.config.model.longest - 1 < longest:
            longest, field = self.run.config.model.longest - 1, "model.max_positions, as its positions are learned"
        encoded = self.tokenizer.encode_source([line if line.strip() else "" for line in lines])
        for number, (line, ids) in enumerate(zip(lines, encoded, strict=True), start + 1):
            if len(ids) > longest:
                self.warn(f"line {number} has {len(ids):,} pieces; it is cut to the first {longest:,} ({field})")
            if remark := unknown_remark(self.tokenizer, number, line, ids):
                self.warn(remark)
        pieces = [[self.source_pieces[i] for i in ids[:longest]] for ids in encoded]
        return pieces, [len(ids) <= longest for ids in encoded]

    def _limit(self, source: Sequence[str]) -> int:
        """Pieces that an output may have, end-of-sentence included."""
        return min(len(source) + self.config.max_extra_length, self.run.config.model.longest)

    def _batches(self, sources: list[list[str]], options: Options) -> Iterator[list[int]]:
        """Lines of similar length, longest first, at least a batch a thread; empty lines are in no batch."""
        assert options.beam_size is not None
        width = options.n_best if options.sample else options.beam_size
        order = sorted((i for i, source in enumerate(sources) if source), key=lambda i: -len(sources[i]))
        workers = 1 if options.sample else self.threads
        most = -(-len(order) // workers)
        start = 0
        while start < len(order):
            size = max(1, min(BATCH_TOKENS // (width * (len(sources[order[start]]) + 1)), most))
            yield order[start : start + size]
            start += size

    def _submit(
        self, model: Any, sources: list[list[str]], batch: list[int], options: Options, limit: int | None = None
    ) -> list[Any]:
        """Gives a batch to the next free worker; the results are to be waited for."""
        if options.sample:
            size = len(self.target_pieces)
            search: dict[str, Any] = {
                "beam_size": 1,
                "num_hypotheses": options.n_best,
                "sampling_topk": min(options.top_k, size),
                "sampling_topp": options.top_p,
                "sampling_temperature": options.temperature,
            }
        else:
            search = {
                "beam_size": options.beam_size,
                "num_hypotheses": options.beam_size,
                "length_penalty": options.length_penalty,
            }
        pending: list[Any] = model.translate_batch(
            [sources[i] for i in batch],
            max_input_length=0,
            max_decoding_length=limit or max(self._limit(sources[i]) for i in batch),
            min_decoding_length=0,  # one by default: an empty translation is one too
            disable_unk=True,
            suppress_sequences=[[self.target_pieces[PAD]], [self.target_pieces[BOS]]],
            return_end_token=True,
            return_scores=True,
            asynchronous=True,
            **search,
        )
        return pending

    def _hypotheses(self, result: Any, limit: int, options: Options) -> list[_Found]:
        """What CTranslate2 gave for one line, cut at its limit where it was allowed that of a longer line."""
        beam = not options.sample and options.beam_size != 1
        assert options.length_penalty is not None
        found = []
        for pieces, score in zip(result.hypotheses, result.scores, strict=True):
            total = score * len(pieces) ** options.length_penalty  # needed, and so divided, in beam search only
            pieces = pieces if beam else pieces[:limit]
            ended = bool(pieces) and pieces[-1] == self.target_pieces[EOS]
            found.append(_Found(pieces[:-1] if ended else pieces, ended, total))
        return found

    def _search_again(self, model: Any, sources: list[list[str]], found: list[list[_Found]], options: Options) -> None:
        """Beam search that went beyond a line's limit, as its batch was allowed to, once more within it; it is rare."""
        over = [
            i for i, hypotheses in enumerate(found) if any(one.length > self._limit(sources[i]) for one in hypotheses)
        ]
        for limit in sorted({self._limit(sources[i]) for i in over}):
            batch = [i for i in over if self._limit(sources[i]) == limit]
            for i, result in zip(batch, self._submit(model, sources, batch, options, limit), strict=True):
                found[i] = self._hypotheses(result.result(), limit, options)

    def _penalty(self, length: int, options: Options) -> float:
        assert options.length_penalty is not None
        normalization = self.length_normalization or options.length_normalization
        base = (5 + length) / 6 if normalization == "wu" else max(length, 1)
        return float(base**options.length_penalty)

    def _results(
        self,
        lines: list[str],
        start: int,
        sources: list[list[str]],
        complete: list[bool],
        found: list[list[_Found]],
        options: Options,
    ) -> list[TranslationResult]:
        flat = [(i, one) for i, hypotheses in enumerate(found) for one in hypotheses]
        # As in the torch engine, a loop is cut in the text, unless the source has one.
        ends = [None if loop_end(sources[i]) else loop_end(one.pieces) for i, one in flat]
        shown = [one.pieces[:end] for (_, one), end in zip(flat, ends, strict=True)]
        texts = self.tokenizer.decode([[self.target_ids[piece] for piece in pieces] for pieces in shown])
        scored = self._score(sources, flat) if self.scores else [()] * len(flat)
        translations: list[list[Translation]] = [[] for _ in lines]
        for (i, one), text, end, logs in zip(flat, texts, ends, scored, strict=True):
            total = sum(logs)
            score, text = total / self._penalty(one.length, options), text.replace("\n", " ")
            if end is not None and not translations[i]:
                self.warn(loop_warning(start + i, end))
            translations[i].append(
                Translation(text, score, total, tuple(one.pieces), logs, one.ended, repetition=end is not None)
            )
        empty = Translation("", 0.0, 0.0, (), (), True)
        return [
            TranslationResult(line, tuple(sorted(best, key=lambda one: -one.score)) or (empty,), whole)
            for line, best, whole in zip(lines, translations, complete, strict=True)
        ]

    def _score(self, sources: list[list[str]], found: list[tuple[int, _Found]]) -> list[tuple[float, ...]]:
        """The model's own log-probabilities, piece by piece: those of the search leave out what it ruled out."""
        if not found:
            return []
        scored = self.model.score_batch(
            [sources[i] for i, _ in found],
            [one.pieces for _, one in found],
            max_batch_size=SCORED_TOKENS,
            batch_type="tokens",
            max_input_length=0,
        )
        return [
            tuple(float(x) for x in result.log_probs[: one.length])
            for result, (_, one) in zip(scored, found, strict=True)
        ]


def check_known(options: Any) -> None:
    """Raises OptionError for an option that this engine does not know, unless it has its default."""
    for field in fields(options):
        value = getattr(options, field.name)
        if field.name not in KNOWN and value != field.default:
            named = f"{{{field.name}.name}}" if isinstance(value, tuple) else f"{{{field.name}}}"
            raise SearchOptionError(
                f"{named}: the ctranslate2 engine cannot do that; use --engine torch",
                **{field.name: value},
            )
