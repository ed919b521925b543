"""`seq2seq score`, how probable translations are, and `seq2seq benchmark`, how good they are."""

from __future__ import annotations

import itertools
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

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


def score(
    run: Annotated[Path, typer.Argument(metavar="RUN", hidden=True)],
    source: Annotated[Path, option("FILE", "Sentences, one a line.")],
    target: Annotated[Path, option("FILE", "Their translations, line by line.")],
    length_penalty: LengthPenalty = None,
    length_normalization: LengthNormalization = None,
    format_: Annotated[str, option("text|jsonl", "Text, or JSON objects with every piece.", "--format")] = "text",
    ensemble: Annotated[list[Path] | None, option("RUN", "Another run to judge with; repeatable.")] = None,
    precision: PrecisionName = "fp32",
    threads: Threads = 0,
) -> None:
    """Score given translations, one sentence a line: how probable the model finds them.

    RUN is a run folder with a trained model. Text output is `score TAB log-probability TAB pieces`, the score being the
    log-probability over the length penalty, as `translate` ranks by; pieces include end-of-sentence.
    """
    if format_ not in ("text", "jsonl"):
        raise OptionError(f"--format {format_}: choose text or jsonl")
    precision_name = parse_precision(precision)
    from seq2seq.decoding.options import Options
    from seq2seq.run import Run
    from seq2seq.text.reading import aligned_files

    options = Options(length_penalty=length_penalty, length_normalization=length_normalization)  # type: ignore[arg-type]
    if source.is_file() and target.is_file():  # pipes are read once
        for _ in aligned_files(source, target):
            pass
    translator = load_translator([Run.open(one) for one in (run, *(ensemble or ()))], precision_name, threads)
    pairs = aligned_files(source, target)
    for number, found in enumerate(translator.score_stream(pairs, options)):
        count = len(found.piece_log_probabilities)
        if format_ == "text":
            print(f"{found.score:.4f}\t{found.log_probability:.4f}\t{count}", flush=True)
            continue
        record = {"line": number, **asdict(found), "num_pieces": count}
        print(json.dumps(record, ensure_ascii=False), flush=True)


def benchmark(
    systems: Annotated[list[Path], typer.Argument(metavar="SYSTEM", hidden=True)],
    source: Annotated[Path | None, option("FILE", "The test set's sentences, one a line.")] = None,
    reference: Annotated[list[Path] | None, option("FILE", "Their translations by people; repeatable.")] = None,
    test_set: Annotated[str | None, option("NAME", "One of sacreBLEU's test sets, such as wmt14.")] = None,
    language_pair: Annotated[str, option("en-de", "With --test-set: the direction.")] = "",
    metrics: Annotated[str, option("NAMES", "Scores, separated by commas.")] = "bleu,chrf,ter",
    tokenize: Annotated[
        str | None,
        option(
            "NAME",
            "sacreBLEU's tokenisation; none for files tokenised already.",
            default="13a; with --test-set, as sacreBLEU has it for the language",
        ),
    ] = None,
    beam_size: BeamSize = None,
    length_penalty: LengthPenalty = None,
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
    _check_arguments(systems, source, reference, test_set, language_pair)
    if overwrite and output is None:
        raise OptionError("--overwrite means nothing without --output: add --output FOLDER")
    if json_ is not None:
        check_result_file("--json", json_, report=("format_version", "test_set", "systems"))
    precision_name = parse_precision(precision)
    from seq2seq.evaluation import benchmark as bench
    from seq2seq.evaluation.metrics import check_seed, check_tokenize, parse_metrics
    from seq2seq.evaluation.report import format_report
    from seq2seq.evaluation.testsets import load_named_test_set, load_test_set
    from seq2seq.run import Run
    from seq2seq.text.errors import write_result

    # What is cheap to find wrong is looked at before anything is translated.
    chosen = parse_metrics(metrics)
    if tokenize is not None:
        check_tokenize(tokenize)
    check_seed()
    loaded = load_test_set(source, reference or []) if source else load_named_test_set(test_set or "", language_pair)
    for remark in loaded.remarks():
        warn(remark)
    finished = {system: bench.load_translations(system) for system in systems if not system.is_dir()}
    for translations in finished.values():
        bench.check_lines(translations, loaded)
    runs = {system: Run.open(system) for system in systems if system.is_dir()}
    if not runs:
        for name, value in (("--beam-size", beam_size), ("--length-penalty", length_penalty)):
            if value is not None:
                raise OptionError(f"{name} {value} means nothing without a run: name one, or leave it out")
    languages = [str(run.info().get("target_language", "")) for run in runs.values()]
    tokenize = _tokenization(tokenize, loaded.language_pair, languages if "bleu" in chosen else None)
    read = [*finished, *([source, *(reference or [])] if source else [])]
    if json_ is not None and _is_one_of(json_, read):
        raise OptionError(f"--json {json_}: this command reads it; name another file")
    files = _output_files(output, list(runs), [*read, *([json_] if json_ is not None else [])], overwrite=overwrite)

    outputs = []
    for system in systems:
        if system in finished:
            outputs.append(finished[system])
            continue
        print(f"translating with {system}", file=sys.stderr)
        translated = bench.translate_test_set(
            load_translator([runs[system]], precision_name, threads),
            loaded.source.lines,
            name=str(system),
            beam_size=beam_size,
            length_penalty=length_penalty,
            source_hashes=seen_sources(runs[system]),
        )
        outputs.append(translated)
        if files:
            write_result(files[system], "".join(f"{line}\n" for line in translated.hypotheses))
    report = bench.run_benchmark(loaded, outputs, chosen, tokenize)
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
    for system in systems:
        if not system.exists():
            raise UserError(f"{system}: no such run folder, nor a file of translations; check the path")


def _tokenization(given: str | None, language_pair: str, languages: list[str] | None) -> str:
    """The tokenisation for BLEU: what is given, or what sacreBLEU takes for the test set's language.

    languages: those that the runs translate into; None where BLEU is not asked for. Raises ConfigError or DataError
    where the tokenisation cannot be had.
    """
    from seq2seq.evaluation.metrics import tokenize_remark, try_tokenize, usual_tokenize

    tokenize = given or usual_tokenize(language_pair.partition("-")[2])
    if languages is not None:
        try_tokenize(tokenize)
        if given is None:
            for remark in sorted({tokenize_remark(tokenize, language) or "" for language in languages} - {""}):
                warn(f"{remark} (--tokenize)")
    return tokenize


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
