"""`seq2seq benchmark`: how good translations are."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seq2seq.commands.common import (
    BeamSize,
    LengthNormalization,
    LengthPenalty,
    PrecisionName,
    Threads,
    check_result_file,
    load_translator,
    make_result_folder,
    option,
    parse_precision,
    seen_sources,
    warn,
)
from seq2seq.errors import OptionError, UserError

if TYPE_CHECKING:
    from seq2seq.decoding.translator import Translator
    from seq2seq.evaluation.benchmark import SystemOutput
    from seq2seq.evaluation.testsets import EvaluationSet
    from seq2seq.run import Run
    from seq2seq.runtime import Precision

TOKENIZED = 100  # lines that end in " .", from which on sacreBLEU, too, takes a text for tokenised
LONG_LINE = 200  # words; TER's time grows with their square at least


def benchmark(
    systems: Annotated[list[Path], typer.Argument(metavar="SYSTEM", hidden=True)],
    source: Annotated[Path | None, option("FILE", "The test set's sentences, one a line.")] = None,
    reference: Annotated[list[Path] | None, option("FILE", "Their translations by people; repeatable.")] = None,
    test_set: Annotated[str | None, option("NAME", "One of sacreBLEU's test sets, such as wmt14.")] = None,
    language_pair: Annotated[str, option("en-de", "With --test-set: the direction.")] = "",
    metrics: Annotated[str, option("NAMES", "Of bleu, chrf, chrf++ and ter, separated by commas.")] = "bleu,chrf,ter",
    tokenize: Annotated[
        str | None,
        option(
            "NAME",
            "sacreBLEU's tokenisation; none for files tokenised already.",
            default="the runs', or 13a; with --test-set, as sacreBLEU has it for the language",
        ),
    ] = None,
    lowercase: Annotated[
        bool, typer.Option("--lowercase", help="Score without regard to case, as TER always does.")
    ] = False,
    beam_size: BeamSize = None,
    length_penalty: LengthPenalty = None,
    length_normalization: LengthNormalization = None,
    precision: PrecisionName = "fp32",
    threads: Threads = 0,
    json_: Annotated[Path | None, option("FILE", "Also write everything to this file.", "--json")] = None,
    output: Annotated[Path | None, option("FOLDER", "Also write each run's translations into this folder.")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="With --output: replace translations that are there already.")
    ] = False,
) -> None:
    """Score translations of a test set: BLEU, chrF and TER with confidence intervals, and speed.

    A SYSTEM is a run folder, or a file of finished translations. Several are set side by side and tested against the
    first. Test sentences that also occur in a run's training data are reported, with the scores without them.
    """
    # What is cheap to find wrong is looked at before anything is translated.
    _check_arguments(systems, source, reference, test_set, language_pair)
    if overwrite and output is None:
        raise OptionError("--overwrite means nothing without --output: add --output FOLDER")
    if json_ is not None:
        check_result_file("--json", json_, report=("format_version", "test_set", "systems"))
    precision_name = parse_precision(precision)
    from seq2seq.evaluation import benchmark as bench
    from seq2seq.evaluation.metrics import check_seed, parse_metrics
    from seq2seq.evaluation.report import format_report
    from seq2seq.evaluation.testsets import load_named_test_set, load_test_set
    from seq2seq.evaluation.tokenization import check_tokenize
    from seq2seq.run import Run

    chosen = parse_metrics(metrics, "--metrics")
    if tokenize is not None:
        check_tokenize(tokenize, f"--tokenize {tokenize}")
        if "bleu" not in chosen:
            raise OptionError(f"--tokenize {tokenize} means nothing without BLEU: add it to --metrics, or leave it out")
    check_seed()
    loaded = load_test_set(source, reference or []) if source else load_named_test_set(test_set or "", language_pair)
    for remark in loaded.remarks():
        warn(remark)
    finished = {system: bench.load_translations(system) for system in systems if not system.is_dir()}
    for translations in finished.values():
        bench.check_lines(translations, loaded)
    runs = {system: Run.open(system) for system in systems if system.is_dir()}
    given = {"beam_size": beam_size, "length_penalty": length_penalty, "length_normalization": length_normalization}
    search = {name: value for name, value in given.items() if value is not None}
    if not runs:
        _refuse_without_run({**search, "precision": precision if precision != "fp32" else None, "output": output})
    if "bleu" in chosen:
        tokenize = _choose_tokenization(tokenize, loaded, list(runs.values()))
        _remark_tokenized(tokenize, loaded, finished.values())
    read = [*finished, *([source, *(reference or [])] if source else [])]
    if json_ is not None and _is_one_of(json_, read):
        raise OptionError(f"--json {json_}: this command reads it; name another file")
    files = _output_files(output, list(runs), [*read, *([json_] if json_ is not None else [])], overwrite=overwrite)
    translators = _load_all(runs, search, precision_name, threads)

    outputs = {**finished, **_translate_all(runs, translators, loaded, search, files)}
    if "ter" in chosen:
        _remark_long_lines(loaded, outputs.values())
    print(f"scoring {len(loaded):,} lines by {', '.join(chosen)}", file=sys.stderr)
    report = bench.run_benchmark(
        loaded, [outputs[system] for system in systems], chosen, tokenize or "13a", lowercase=lowercase
    )
    print(format_report(report))
    if json_ is not None:
        bench.save_report(report, json_)


def _check_arguments(
    systems: list[Path], source: Path | None, reference: list[Path] | None, test_set: str | None, language_pair: str
) -> None:
    if (test_set is None) == (source is None):
        raise OptionError("name the test set: --source FILE with --reference FILE, or --test-set NAME")
    if test_set is not None and reference:
        raise OptionError("--reference goes with --source: a --test-set brings its own")
    if test_set is None and language_pair:
        raise OptionError(f"--language-pair {language_pair} means nothing without --test-set: add --test-set NAME")
    for number, system in enumerate(systems):
        if not system.exists():
            raise UserError(f"{system}: no such run folder, nor a file of translations; check the path")
        if _is_one_of(system, systems[:number]):
            raise OptionError(f"{system}: is given twice; name it once")


def _refuse_without_run(options: Mapping[str, object]) -> None:
    """Raises OptionError for an option that has been given, and is for translating, where nothing is translated."""
    for name, value in options.items():
        if value is not None:
            option_name = f"--{name.replace('_', '-')}"
            raise OptionError(f"{option_name} {value} means nothing without a run: name one, or leave it out")


def _load_all(
    runs: dict[Path, Run], search: Mapping[str, object], precision: Precision, threads: int
) -> dict[Path, Translator]:
    """A translator of each run. Raises UserError for a damaged run, or for options that it does not take."""
    from seq2seq.decoding.options import Options

    translators = {}
    for path, run in runs.items():
        translators[path] = load_translator([run], precision, threads)
        translators[path].check(Options(**search))  # type: ignore[arg-type]
    return translators


def _translate_all(
    runs: Mapping[Path, Run],
    translators: Mapping[Path, Translator],
    loaded: EvaluationSet,
    search: Mapping[str, object],
    files: Mapping[Path, Path],
) -> dict[Path, SystemOutput]:
    """Each run's translations, written to its file, where there is one, as soon as they are there."""
    from seq2seq.evaluation.benchmark import translate_test_set
    from seq2seq.text.errors import write_result

    outputs = {}
    for path, translator in translators.items():
        warn.close()  # what is told of one model says nothing of the next
        print(f"translating with {path}", file=sys.stderr)
        seen = seen_sources(runs[path])
        found = translate_test_set(translator, loaded.source.lines, name=str(path), search=search, source_hashes=seen)
        outputs[path] = found
        if files:
            write_result(files[path], "".join(f"{line}\n" for line in found.hypotheses))
    return outputs


def _choose_tokenization(given: str | None, loaded: EvaluationSet, runs: list[Run]) -> str:
    """The tokenisation for BLEU: what is given, what sacreBLEU takes for the test set's language, or the runs' own.

    Raises ConfigError or DataError where it cannot be had.
    """
    from seq2seq.evaluation.tokenization import tokenize_remark, try_tokenize, usual_tokenize

    theirs = {run.config().data.bleu_tokenize for run in runs}
    tokenize = given or usual_tokenize(loaded.language_pair.partition("-")[2])
    if given is None and not loaded.language_pair and len(theirs) == 1:
        (tokenize,) = theirs
        if tokenize != "13a":
            warn(f"BLEU is tokenised by {tokenize}, as in training (data.bleu_tokenize); --tokenize chooses another")
    try_tokenize(tokenize, f"--tokenize {tokenize}" if given else "")
    if given is None:
        languages = {str(run.info().get("target_language", "")) for run in runs} or {""}
        references = [line for text in loaded.references for line in text.lines]
        for remark in sorted({tokenize_remark(tokenize, language, references) or "" for language in languages} - {""}):
            warn(f"{remark} (--tokenize)")
        if len(theirs) > 1:
            names = " and ".join(sorted(theirs))
            warn(f"BLEU is tokenised by {tokenize}; in training it was by {names} (--tokenize)")
    return tokenize


def _texts(loaded: EvaluationSet, systems: Iterable[SystemOutput]) -> Iterator[tuple[str, list[str]]]:
    """Names and lines of the references and of what systems make of the source."""
    yield from ((text.name, text.lines) for text in loaded.references)
    yield from ((system.name, system.hypotheses) for system in systems)


def _remark_tokenized(tokenize: str, loaded: EvaluationSet, finished: Iterable[SystemOutput]) -> None:
    """Says so where text is tokenised already and is about to be tokenised once more."""
    if tokenize == "none":
        return
    for name, lines in _texts(loaded, finished):
        if sum(line.endswith(" .") for line in lines) >= TOKENIZED:
            warn(
                f"{name} seems to be tokenised already, and BLEU is tokenised by {tokenize}: add --tokenize none, or "
                "score the text as it was before"
            )
            return


def _remark_long_lines(loaded: EvaluationSet, outputs: Iterable[SystemOutput]) -> None:
    """Says so where TER is about to take minutes for a line."""
    for name, lines in _texts(loaded, outputs):
        longest, number = max((len(line.split()), -number) for number, line in enumerate(lines, 1))
        if longest >= LONG_LINE:
            warn(f"{name}, line {-number} has {longest:,} words: TER takes long; --metrics bleu,chrf does without it")
            return


def _is_one_of(path: Path, others: list[Path]) -> bool:
    return path.resolve() in [other.resolve() for other in others]


def _output_files(folder: Path | None, runs: list[Path], given: list[Path], *, overwrite: bool) -> dict[Path, Path]:
    """Where each run's translations go: RUN.txt in the folder, which is made; nothing where there is none.

    Raises OptionError where one of them is what this command reads or writes something else to, or, without
    `overwrite`, is there already.
    """
    if folder is None:
        return {}
    make_result_folder("--output", folder)
    names = [run.resolve().name for run in runs]
    taken = {name for name in names if names.count(name) == 1}
    files = {}
    for run, name in zip(runs, names, strict=True):
        own = name
        if names.count(name) > 1:  # runs of one name, from two places
            own = next(new for number in itertools.count(1) if (new := f"{name}-{number}") not in taken)
            taken.add(own)
        files[run] = folder / f"{own}.txt"
        if _is_one_of(files[run], given):
            raise OptionError(
                f"--output {folder}: the translations of {run} would replace {files[run]}, which this command was "
                "given: name another folder"
            )
        if files[run].exists() and not overwrite:
            raise OptionError(
                f"--output {folder}: {files[run]} is there already; add --overwrite, or name another folder"
            )
        check_result_file("--output", files[run])
    return files
