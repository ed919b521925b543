"""`seq2seq translate`: text in, translations out, line by line."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seq2seq.commands.common import (
    BeamSize,
    LengthNormalization,
    LengthPenalty,
    PrecisionName,
    Threads,
    check_text,
    load_translator,
    option,
    parse_precision,
    signals,
    tell,
    warn,
)
from seq2seq.errors import OptionError
from seq2seq.text.errors import DataError

if TYPE_CHECKING:
    from seq2seq.decoding.options import Options, TranslationResult
    from seq2seq.decoding.translator import Translator
    from seq2seq.export.ctranslate2_engine import CTranslate2Translator
    from seq2seq.text.arriving import InputLines


def translate(
    run: Annotated[Path, typer.Argument(metavar="RUN", hidden=True)],
    files: Annotated[list[Path] | None, typer.Argument(metavar="FILE", hidden=True)] = None,
    beam_size: BeamSize = None,
    length_penalty: LengthPenalty = None,
    n_best: Annotated[int, option("N", "Translations a line, as `line ||| text ||| score`, lines from 0.")] = 1,
    format_: Annotated[str, option("text|jsonl", "Text or JSON objects.", "--format")] = "text",
    length_normalization: LengthNormalization = None,
    min_length: Annotated[int, option("N", "Pieces that a translation has at least.")] = 0,
    max_length: Annotated[
        int | None,
        option("N", "Pieces after which a translation is cut.", default="the source's + 50, or as the run says"),
    ] = None,
    prefix: Annotated[str, option("TEXT", "Every translation begins with it.")] = "",
    prefix_file: Annotated[Path | None, option("FILE", "A beginning for each line; empty lines for none.")] = None,
    ban: Annotated[list[str] | None, option("TEXT", "Words that never come out; repeatable.")] = None,
    ban_file: Annotated[Path | None, option("FILE", "The same, in lines or between tabs.")] = None,
    require: Annotated[list[str] | None, option("TEXT", "Whole words that every translation has; repeatable.")] = None,
    require_file: Annotated[
        Path | None, option("FILE", "Such words for each line, separated by tabs; empty lines for none.")
    ] = None,
    skip_lines: Annotated[
        int, typer.Option(metavar="N", help="Leave out the first N lines, which keep their numbers.", min=0)
    ] = 0,
    no_repeat_ngram: Annotated[int, option("N", "No N pieces in a row come twice.")] = 0,
    diverse: Annotated[int, option("N", "N different translations a line, written as with --n-best.")] = 0,
    diversity_penalty: Annotated[
        float | None, option("X", "With --diverse: penalty for repeating earlier translations.", default="0.5")
    ] = None,
    alignments: Annotated[bool, typer.Option("--alignments", help="With --format jsonl: add word alignments.")] = False,
    ensemble: Annotated[list[Path] | None, option("RUN", "Another run to decide with; repeatable.")] = None,
    sample: Annotated[bool, typer.Option("--sample", help="Draw translations at random instead of searching.")] = False,
    temperature: Annotated[
        float | None, option("X", "With --sample: below 1 is more careful, above 1 wilder.", default="1")
    ] = None,
    top_k: Annotated[
        int | None, option("N", "With --sample: draw from the N most probable pieces.", default="all")
    ] = None,
    top_p: Annotated[
        float | None, option("X", "With --sample: draw from the top pieces of probability X.", default="1")
    ] = None,
    seed: Annotated[
        int | None, option("N", "With --sample: the same seed draws the same translations.", default="1")
    ] = None,
    precision: PrecisionName = "fp32",
    engine: Annotated[str, option("torch|ctranslate2", "Inference engine; ctranslate2 has to be installed.")] = "torch",
    quantization: Annotated[
        str | None, option("NAME", "With --engine ctranslate2: int8, ...", default="float32")
    ] = None,
    threads: Threads = 0,
) -> None:
    """Translate text, one sentence a line.

    RUN is a run folder with a trained model. Reads every FILE, gzipped or not, or standard input (also as -); on a
    terminal, asks for sentences. As many lines come out as went in, in order.
    """
    if format_ not in ("text", "jsonl"):
        raise OptionError(f"--format {format_}: choose text or jsonl")
    precision_name = parse_precision(precision)
    drawing = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed}
    _goes_with("--sample", sample, drawing)
    _goes_with("--diverse", bool(diverse), {"diversity_penalty": diversity_penalty})
    _goes_with("--format jsonl", format_ == "jsonl", {"alignments": alignments or None})
    if prefix and prefix_file is not None:
        raise OptionError("--prefix and --prefix-file exclude each other")
    for name, texts in (("--prefix", [prefix]), ("--ban", ban or []), ("--require", require or [])):
        check_text(name, *texts)
    if quantization is not None and engine == "torch":
        raise OptionError(f"--quantization {quantization}: the torch engine has none: add --engine ctranslate2")
    from seq2seq.decoding.options import Options

    options = Options(
        beam_size=beam_size, length_penalty=length_penalty, n_best=n_best, sample=sample,
        length_normalization=length_normalization,  # type: ignore[arg-type]
        min_length=min_length, max_length=max_length, prefix=prefix, ban=(*(ban or ()), *_phrases(ban_file)),
        require=tuple(require or ()), no_repeat_ngram=no_repeat_ngram, diverse=diverse, alignments=alignments,
        **{name: value for name, value in drawing.items() if value is not None},  # type: ignore[arg-type]
        **({} if diversity_penalty is None else {"diversity_penalty": diversity_penalty}),  # type: ignore[arg-type]
    )  # fmt: skip
    files_beside = {"prefixes": prefix_file, "requires": require_file}
    beside = {name: path for name, path in files_beside.items() if path is not None}
    if sample and require_file is not None:
        raise OptionError(f"--require-file {require_file}: belongs to a search, and --sample draws: choose one of them")
    _check_files(files or [], list(beside.values()))
    translator: Any  # one or the other: they have the same face
    if engine == "torch":
        from seq2seq.run import Run

        translator = load_translator([Run.open(one) for one in (run, *(ensemble or ()))], precision_name, threads)
    else:
        torch_only = {
            "--ensemble": ensemble, "--prefix-file": prefix_file, "--ban-file": ban_file,
            "--require-file": require_file,
        }  # fmt: skip
        if given := [name for name, value in torch_only.items() if value]:
            raise OptionError(f"{' and '.join(given)}: not with --engine {engine}; use --engine torch")
        if skip_lines and sample:
            raise OptionError("--skip-lines: with CTranslate2 --sample draws by the lines before; use --engine torch")
        scores = n_best > 1 or format_ == "jsonl"
        other = quantization or "float32"
        translator = _other_engine(engine, run, precision, other, threads, options, scores=scores)
    translator.check(options)
    if not files and sys.stdin.isatty() and not beside:
        if skip_lines:
            raise OptionError(f"--skip-lines {skip_lines}: there is nothing to leave out of what is typed: name a file")
        _prompt(translator, options, format_)
        return
    from seq2seq.text.arriving import STANDARD_INPUT, InputLines

    skip_lines = min(skip_lines, sys.maxsize)
    if not files and sys.stdin.isatty():
        print("Type the sentences that the file's lines belong to; end with Ctrl-D.", file=sys.stderr)
    # One bad line of a stream is no reason to stop in its midst: it is mended, and a warning tells of it.
    lines = InputLines(files or [STANDARD_INPUT], sys.stdin.buffer, warn)
    if not beside:
        # CTranslate2's draws depend on the lines that are translated together, and those not on when they come.
        ready = None if sample and engine != "torch" else lines.ready
        results = translator.stream(lines, options, ready=ready, first=skip_lines)
    else:
        results = _beside(translator, lines, beside, options, skip_lines)
    with _going_on(bool(files), skip_lines) as count:
        for number, result in enumerate(results, skip_lines):
            text = _render(number, result, options, format_)
            with signals.held():  # or nobody knows whether the line is out
                print(text, flush=True)
                count(number + 1)


@contextlib.contextmanager
def _going_on(of_files: bool, done: int) -> Iterator[Callable[[int], None]]:
    """Shows how many lines are done, where the terminal does not show them; says how to go on after an interruption."""
    shown: Any = contextlib.nullcontext(lambda done: None)
    if of_files and sys.stderr.isatty() and not sys.stdout.isatty():
        from seq2seq.progress import counted_lines

        shown = counted_lines()
    try:
        with shown as show:

            def count(now: int) -> None:
                nonlocal done
                done = now
                show(now)

            yield count
    except KeyboardInterrupt:
        if of_files and not sys.stdout.isatty():
            tell(f"to go on: the same with --skip-lines {done}, and >> in place of >")
        raise


def _goes_with(what: str, given: bool, others: dict[str, Any]) -> None:
    """Refuses options that mean nothing without another."""
    for name, value in others.items():
        if value is not None and not given:
            typed = f"--{name.replace('_', '-')}" + ("" if value is True else f" {value}")
            raise OptionError(f"{typed} means nothing without {what}: add {what}")


def _check_files(files: list[Path], beside: list[Path]) -> None:
    """Raises DataError, before anything takes long, for files that are not there, or whose lines are not as many.

    beside: files with a line for each of the input's.
    """
    from seq2seq.text.arriving import STANDARD_INPUT
    from seq2seq.text.reading import check_readable, count_lines

    for path in (*files, *beside):
        if path != STANDARD_INPUT:
            check_readable(path)
    if not files or not all(path != STANDARD_INPUT and path.is_file() for path in files):
        return
    wanted = sum(map(count_lines, files)) if beside else 0
    for path in beside:
        if path.is_file() and (given := count_lines(path)) != wanted:
            raise DataError(
                f"{path} has {given:,} lines, and the input has {wanted:,}: line N of one must belong to line N of the "
                "other"
            )


def _phrases(path: Path | None) -> list[str]:
    """Phrases of a file, in lines or between tabs."""
    from seq2seq.text.reading import read_lines

    return [] if path is None else [one for line in read_lines(path) for one in line.split("\t") if one.strip()]


def _beside(
    translator: Translator, lines: InputLines, beside: dict[str, Path], options: Options, first: int
) -> Iterator[TranslationResult]:
    """Translates with what files say of each line: `prefixes`, a text; `requires`, phrases between tabs."""
    from seq2seq.text.reading import aligned, read_lines

    rows: Iterator[tuple[str, ...]] = ((line,) for line in lines)
    for path in beside.values():
        rows = ((*row, other) for row, other in aligned(rows, read_lines(path), "the input", str(path)))
    sources, *columns = (_column(copy, place) for place, copy in enumerate(itertools.tee(rows, 1 + len(beside))))
    given: dict[str, Any] = dict(zip(beside, columns, strict=True))
    if "requires" in given:
        given["requires"] = ([one for one in text.split("\t") if one.strip()] for text in given["requires"])
    return translator.stream(sources, options, ready=lines.ready, first=first, **given)


def _column(rows: Iterator[tuple[str, ...]], place: int) -> Iterator[str]:
    return (row[place] for row in rows)


def _other_engine(
    engine: str, run: Path, precision: str, quantization: str, threads: int, options: Options, *, scores: bool
) -> CTranslate2Translator:
    """A translator that imports no torch, where its export is there already."""
    if engine != "ctranslate2":
        raise OptionError(f"--engine {engine}: choose torch or ctranslate2")
    if precision != "fp32":
        raise OptionError(
            f"--precision {precision}: for the torch engine; with --engine ctranslate2, use --quantization"
        )
    from seq2seq.decoding.options import check_options
    from seq2seq.export.ctranslate2_engine import CTranslate2Translator, check_known
    from seq2seq.export.light import LightRun

    check_known(options)  # before an export is made
    check_options(options, LightRun.open(run).config.decoding)
    translator = CTranslate2Translator(run, quantization=quantization, threads=threads, scores=scores, warn=warn)
    if remark := translator.run.remark():
        warn(remark)
    return translator


def _render(number: int, result: TranslationResult, options: Options, format_: str) -> str:
    if format_ == "jsonl":
        names = ["score", "log_probability", "pieces", "piece_log_probabilities", "ended", "satisfied", "repetition"]
        names += ["alignment"] * options.alignments
        hypotheses = [
            {"translation": found.text, **{name: getattr(found, name) for name in names}} for found in result.hypotheses
        ]
        record = {"line": number, "source": result.source, "complete": result.complete, **hypotheses[0]}
        if options.n_best > 1 or options.diverse:
            record["hypotheses"] = hypotheses
        return json.dumps(record, ensure_ascii=False)
    if options.n_best == 1 and not options.diverse:
        return result.text
    return "\n".join(f"{number} ||| {best.text} ||| {best.score:.4f}" for best in result.hypotheses)


def _prompt(translator: Any, options: Options, format_: str) -> None:
    """Asks for sentences on a terminal until end of file."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  # makes the arrow keys work in input()
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(encoding="utf-8", errors="replace")
    print("Type a sentence to translate; end with Ctrl-D.", file=sys.stderr)
    results = translator.stream(_typed(), options, ready=lambda seconds: False)
    for number, result in enumerate(results):
        print(_render(number, result, options, format_), flush=True)
        warn.close()  # each sentence has its own


def _typed() -> Iterator[str]:
    while True:
        try:
            yield input("> " if sys.stdout.isatty() else "")
        except EOFError:
            print(file=sys.stderr)
            return
