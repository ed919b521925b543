"""The command line: parse, call, print. Results go to standard output, everything else to standard error.

Exit codes: 0 done; 1 the job failed; 2 the arguments or the configuration are wrong; 130 and 143 on SIGINT and SIGTERM.
Heavy modules are imported inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.main import get_command

from seq2seq import __version__
from seq2seq.errors import OptionError, UserError, explain
from seq2seq.signals import Signals

if TYPE_CHECKING:
    from seq2seq.decoding.options import Options, TranslationResult
    from seq2seq.decoding.translator import Translator
    from seq2seq.export.ctranslate2_engine import CTranslate2Translator
    from seq2seq.run import Run
    from seq2seq.runtime import Precision

signals = Signals()
app = typer.Typer(
    name="seq2seq",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    help="Train, use and measure translation models: the encoder-decoder Transformer of 'Attention Is All You Need'.",
    epilog="Start here: seq2seq train data/quickstart.toml",
)


def _option(metavar: str, text: str, *names: str) -> Any:
    return typer.Option(*names, metavar=metavar, help=text)


BeamSize = Annotated[int | None, _option("N", "Hypotheses kept at each step; 1 is greedy search.")]
LengthPenalty = Annotated[float | None, _option("X", "Alpha; 0 favours short translations.")]
LengthNormalization = Annotated[
    str | None, _option("wu|power", "Divide by ((5 + length) / 6)^alpha, or by length^alpha.")
]
PrecisionName = Annotated[str, _option("fp32|bf16|auto", "Arithmetic of the network.")]
Threads = Annotated[int, _option("N", "CPU threads; 0 is one a core.")]


def main() -> None:
    """The entry point: runs a command and turns what went wrong into one line and an exit code."""
    _open_closed_streams()
    # Whatever the locale says; names of files that are not UTF-8 go through as they came.
    for stream, errors in ((sys.stdout, "surrogateescape"), (sys.stderr, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors=errors, newline="\n")
    signals.install()
    try:
        with get_command(app).make_context("seq2seq", sys.argv[1:] or ["--help"]) as context:
            context.command.invoke(context)
        sys.stdout.flush()
    except typer.Exit as done:
        sys.exit(done.exit_code)
    except KeyboardInterrupt:
        _fail(*signals.reason())
    except BrokenPipeError:  # whoever read our output has gone, as `head` does
        _mute_stdout()
        sys.exit(0)
    except Exception as error:
        # A library in whose midst the signal came may have made an error of its own of it.
        reason = signals.reason() if signals.raised else explain(error)
        if reason is None:
            raise
        _fail(*reason)


def _fail(message: str, code: int) -> NoReturn:
    try:
        sys.stdout.flush()
    except OSError:
        _mute_stdout()
    print(f"seq2seq: {message}", file=sys.stderr)
    sys.exit(code)


def _open_closed_streams() -> None:
    """A shell may start us without standard streams (`<&-`): Python then has None, and nothing can ask it anything."""
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def _mute_stdout() -> None:
    """Python would complain once more at exit about what it cannot write."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _show_version(value: bool) -> None:
    if value:
        print(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Version.")] = False,
) -> None:
    pass


# train


@app.command(epilog="Example: seq2seq train data/quickstart.toml --run-dir runs/first --set training.seed=2")
def train(
    config: Annotated[Path | None, typer.Argument(metavar="CONFIG.toml", hidden=True)] = None,
    run_dir: Annotated[Path | None, _option("FOLDER", "Where the run is kept; by default runs/CONFIG.")] = None,
    source: Annotated[str | None, _option("FILE", "Training sentences to translate from, one a line.")] = None,
    target: Annotated[str | None, _option("FILE", "Their translations, line by line.")] = None,
    valid_source: Annotated[str | None, _option("FILE", "Validation sentences, to see how training goes.")] = None,
    valid_target: Annotated[str | None, _option("FILE", "Their translations.")] = None,
    test_source: Annotated[str | None, _option("FILE", "Test sentences, translated once at the end.")] = None,
    test_target: Annotated[str | None, _option("FILE", "Their translations.")] = None,
    preset: Annotated[
        str | None, _option("tiny|base|big", "Start from a complete recipe; tiny takes an hour on two cores.")
    ] = None,
    set_: Annotated[list[str] | None, _option("SECTION.KEY=VALUE", "Change a setting; repeatable.", "--set")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run from its last checkpoint.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run that the folder holds.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show validations only, no progress.")] = False,
) -> None:
    """Train a translator from parallel text.

    CONFIG.toml is a recipe. Give one, or --source and --target with --preset, or both: files given here take the place
    of the recipe's corpus. A run that was stopped goes on with --run-dir and --resume alone.
    """
    if resume and overwrite:
        raise OptionError("--resume and --overwrite exclude each other")
    paths = {
        "train_source": source, "train_target": target, "valid_source": valid_source, "valid_target": valid_target,
        "test_source": test_source, "test_target": test_target,
    }  # fmt: skip
    corpus = {name: value for name, value in paths.items() if value}
    if corpus and not (source and target):
        raise OptionError("--source and --target belong together: give both (validation and test files come on top)")
    from_run = resume and config is None
    if from_run:
        if run_dir is None:
            raise OptionError("--resume: which run? Name its folder with --run-dir")
        if not run_dir.is_dir():
            raise UserError(f"--resume: {run_dir}: no such run folder; check the path")
        config = run_dir / "config.toml"
        if not config.exists():
            raise UserError(f"--resume: {run_dir}: nothing was trained there yet; give the recipe as well")
    set_corpus = any(change.strip().startswith(("data.train", "data.dataset")) for change in set_ or [])
    if config is None and not corpus and not set_corpus:
        raise OptionError("nothing to train on: give a recipe such as data/quickstart.toml, or --source and --target")
    from seq2seq.recipe import load_config, refuse_fetching

    settings = load_config(config, preset=preset, overrides=set_ or [], data=corpus or None)
    if from_run:
        refuse_fetching(settings, str(config))
    folder = run_dir or Path("runs") / (config.stem if config is not None else settings.preset or "run")

    from seq2seq import pipeline
    from seq2seq.progress import TrainingProgress, describe_outcome
    from seq2seq.run import resume_command
    from seq2seq.training.state import Interrupted

    with TrainingProgress(quiet=quiet) as progress:
        try:
            outcome = pipeline.train(
                settings, folder, progress, resume=resume, overwrite=overwrite, stop=signals.received, gently=signals
            )
        except Interrupted:
            progress.message(f"stopped after a checkpoint; continue with: {resume_command(folder)}")
            sys.exit(signals.reason()[1])
        except KeyboardInterrupt:  # while data was prepared, or the model finished
            if (folder / "config.toml").exists():
                progress.message(f"continue with: {resume_command(folder)}")
            raise
    print(describe_outcome(outcome, settings))


# translate


@app.command(epilog='Example: echo "A man is riding a horse." | seq2seq translate runs/m30k')
def translate(
    run: Annotated[Path, typer.Argument(metavar="RUN", hidden=True)],
    files: Annotated[list[Path] | None, typer.Argument(metavar="FILE", hidden=True)] = None,
    beam_size: BeamSize = None,
    length_penalty: LengthPenalty = None,
    n_best: Annotated[int, _option("N", "Translations a line, as `line ||| text ||| score`, lines from 0.")] = 1,
    format_: Annotated[str, _option("text|jsonl", "Text or JSON objects.", "--format")] = "text",
    length_normalization: LengthNormalization = None,
    min_length: Annotated[int, _option("N", "Pieces that a translation has at least.")] = 0,
    max_length: Annotated[int | None, _option("N", "Pieces after which a translation is cut.")] = None,
    prefix: Annotated[str, _option("TEXT", "Every translation begins with it.")] = "",
    prefix_file: Annotated[Path | None, _option("FILE", "A beginning for each line; empty lines for none.")] = None,
    ban: Annotated[list[str] | None, _option("TEXT", "Words that never come out; repeatable.")] = None,
    ban_file: Annotated[Path | None, _option("FILE", "The same, one a line.")] = None,
    require: Annotated[list[str] | None, _option("TEXT", "Words that every translation has; repeatable.")] = None,
    no_repeat_ngram: Annotated[int, _option("N", "No N pieces in a row come twice.")] = 0,
    diverse: Annotated[int, _option("N", "N different translations a line, written as with --n-best.")] = 0,
    diversity_penalty: Annotated[
        float | None, _option("X", "With --diverse: how far they keep from each other.")
    ] = None,
    alignments: Annotated[bool, typer.Option("--alignments", help="With --format jsonl: which word is which.")] = False,
    ensemble: Annotated[list[Path] | None, _option("RUN", "Another run to decide with; repeatable.")] = None,
    sample: Annotated[bool, typer.Option("--sample", help="Draw translations at random instead of searching.")] = False,
    temperature: Annotated[
        float | None, _option("X", "With --sample: below 1 is more careful, above 1 wilder.")
    ] = None,
    top_k: Annotated[int | None, _option("N", "With --sample: draw from the N most probable pieces; 0 is all.")] = None,
    top_p: Annotated[float | None, _option("X", "With --sample: draw from the top pieces of probability X.")] = None,
    seed: Annotated[int | None, _option("N", "With --sample: the same seed draws the same translations.")] = None,
    precision: PrecisionName = "fp32",
    engine: Annotated[str, _option("torch|ctranslate2", "What computes; ctranslate2 is an extra.")] = "torch",
    quantization: Annotated[str | None, _option("NAME", "With --engine ctranslate2: float32, int8, ...")] = None,
    threads: Threads = 0,
) -> None:
    """Translate text, one sentence a line.

    RUN is a run folder with a trained model. Reads every FILE, gzipped or not, or standard input (also as -); on a
    terminal, asks for sentences. As many lines come out as went in, in order.
    """
    if format_ not in ("text", "jsonl"):
        raise OptionError(f"--format {format_}: choose text or jsonl")
    precision_name = _precision(precision)
    drawing = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed}
    _goes_with("--sample", sample, drawing)
    _goes_with("--diverse", bool(diverse), {"diversity_penalty": diversity_penalty})
    _goes_with("--format jsonl", format_ == "jsonl", {"alignments": alignments or None})
    if prefix and prefix_file is not None:
        raise OptionError("--prefix and --prefix-file exclude each other")
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
    translator: Any  # one or the other: they have the same face
    if engine == "torch":
        from seq2seq.run import Run

        translator = _translator([Run.open(one) for one in (run, *(ensemble or ()))], precision_name, threads)
    else:
        if ensemble or prefix_file is not None:
            raise OptionError(f"--ensemble and --prefix-file: not with --engine {engine}; use --engine torch")
        scores = n_best > 1 or format_ == "jsonl"
        translator = _other_engine(engine, run, precision, quantization or "float32", threads, scores=scores)
    translator.check(options)
    if not files and sys.stdin.isatty() and prefix_file is None:
        _prompt(translator, options, format_)
        return
    lines = _input_lines(files or [])
    if prefix_file is None:
        results = translator.stream(lines, options)
    else:
        results = _with_prefixes(translator, lines, prefix_file, options)
    for number, result in enumerate(results):
        print(_render(number, result, options, format_), flush=True)


def _goes_with(what: str, given: bool, others: dict[str, Any]) -> None:
    """Refuses options that mean nothing without another."""
    for name, value in others.items():
        if value is not None and not given:
            typed = f"--{name.replace('_', '-')}" + ("" if value is True else f" {value}")
            raise OptionError(f"{typed} means nothing without {what}: add {what}")


def _phrases(path: Path | None) -> list[str]:
    from seq2seq.text.reading import read_lines

    return [] if path is None else [line for line in read_lines(path) if line.strip()]


def _with_prefixes(
    translator: Translator, lines: Iterator[str], path: Path, options: Options
) -> Iterator[TranslationResult]:
    from seq2seq.text.reading import aligned, read_lines

    one, other = itertools.tee(aligned(lines, read_lines(path), "the input", str(path)))
    return translator.stream((line for line, _ in one), options, (prefix for _, prefix in other))


def _other_engine(
    engine: str, run: Path, precision: str, quantization: str, threads: int, *, scores: bool
) -> CTranslate2Translator:
    """A translator that imports no torch, where its export is there already."""
    if engine != "ctranslate2":
        raise OptionError(f"--engine {engine}: choose torch or ctranslate2")
    if precision != "fp32":
        raise OptionError(
            f"--precision {precision}: for the torch engine; with --engine ctranslate2, use --quantization"
        )
    from seq2seq.export.ctranslate2_engine import CTranslate2Translator

    translator = CTranslate2Translator(run, quantization=quantization, threads=threads, scores=scores, warn=_warn)
    if remark := translator.run.remark():
        _warn(remark)
    return translator


def _input_lines(files: list[Path]) -> Iterator[str]:
    from seq2seq.text.reading import lines_of, read_lines

    # One bad line of a stream is no reason to stop in its midst: it is mended, and a warning tells of it.
    for path in files or [Path("-")]:
        if str(path) == "-":
            yield from lines_of(sys.stdin.buffer, "standard input", _warn)
        else:
            yield from read_lines(path, _warn)


def _render(number: int, result: TranslationResult, options: Options, format_: str) -> str:
    if format_ == "jsonl":
        names = ["score", "log_probability", "pieces", "piece_log_probabilities", "satisfied", "repetition"]
        names += ["alignment"] * options.alignments
        hypotheses = [
            {"translation": found.text, **{name: getattr(found, name) for name in names}} for found in result.hypotheses
        ]
        record = {"line": number, "source": result.source, **hypotheses[0]}
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
    for number in itertools.count():
        try:
            line = input("> " if sys.stdout.isatty() else "")
        except EOFError:
            print(file=sys.stderr)
            return
        for result in translator.stream([line], options):
            print(_render(number, result, options, format_), flush=True)


# score


@app.command(
    short_help="Score given translations.",
    epilog="Example: seq2seq score runs/m30k --source test.en --target other-system.de",
)
def score(
    run: Annotated[Path, typer.Argument(metavar="RUN", hidden=True)],
    source: Annotated[Path, _option("FILE", "Sentences, one a line.")],
    target: Annotated[Path, _option("FILE", "Their translations, line by line.")],
    length_penalty: LengthPenalty = None,
    length_normalization: LengthNormalization = None,
    format_: Annotated[str, _option("text|jsonl", "Text, or JSON objects with every piece.", "--format")] = "text",
    ensemble: Annotated[list[Path] | None, _option("RUN", "Another run to judge with; repeatable.")] = None,
    precision: PrecisionName = "fp32",
    threads: Threads = 0,
) -> None:
    """Score given translations, one sentence a line: how probable the model finds them.

    RUN is a run folder with a trained model. Text output is `score TAB log-probability TAB pieces`, the score being the
    log-probability over the length penalty, as `translate` ranks by; pieces include end-of-sentence.
    """
    if format_ not in ("text", "jsonl"):
        raise OptionError(f"--format {format_}: choose text or jsonl")
    precision_name = _precision(precision)
    from seq2seq.decoding.options import Options
    from seq2seq.run import Run
    from seq2seq.text.reading import aligned, read_lines

    options = Options(length_penalty=length_penalty, length_normalization=length_normalization)  # type: ignore[arg-type]
    translator = _translator([Run.open(one) for one in (run, *(ensemble or ()))], precision_name, threads)
    pairs = aligned(read_lines(source), read_lines(target), str(source), str(target))
    for number, found in enumerate(translator.score_stream(pairs, options)):
        count = len(found.piece_log_probabilities)
        if format_ == "text":
            print(f"{found.score:.4f}\t{found.log_probability:.4f}\t{count}", flush=True)
            continue
        record = {"line": number, **asdict(found), "num_pieces": count}
        print(json.dumps(record, ensure_ascii=False), flush=True)


# benchmark


@app.command(
    short_help="Score translations of a test set.",
    epilog="Example: seq2seq benchmark runs/m30k --source test.en --reference test.de --json results.json",
)
def benchmark(
    systems: Annotated[list[Path], typer.Argument(metavar="SYSTEM", hidden=True)],
    source: Annotated[Path | None, _option("FILE", "The test set's sentences, one a line.")] = None,
    reference: Annotated[list[Path] | None, _option("FILE", "Their translations by people; repeatable.")] = None,
    test_set: Annotated[str | None, _option("NAME", "One of sacreBLEU's test sets, such as wmt14.")] = None,
    language_pair: Annotated[str, _option("en-de", "With --test-set: the direction.")] = "",
    metrics: Annotated[str, _option("NAMES", "Scores, separated by commas.")] = "bleu,chrf,ter",
    tokenize: Annotated[str, _option("NAME", "sacreBLEU's tokenisation; none for files tokenised already.")] = "13a",
    beam_size: BeamSize = None,
    length_penalty: LengthPenalty = None,
    precision: PrecisionName = "fp32",
    threads: Threads = 0,
    json_: Annotated[Path | None, _option("FILE", "Also write everything to this file.", "--json")] = None,
    output: Annotated[Path | None, _option("FOLDER", "Also write each run's translations into this folder.")] = None,
) -> None:
    """Score translations of a test set: BLEU, chrF and TER with confidence intervals, and speed.

    A SYSTEM is a run folder, or a file of finished translations. Several are set side by side and tested against the
    first. What stands in a run's training data is reported, with the scores without it.
    """
    if (test_set is None) == (source is None):
        raise OptionError("name the test set: --source FILE with --reference FILE, or --test-set NAME")
    if test_set is not None and reference:
        raise OptionError("--reference goes with --source: a --test-set brings its own")
    if json_ is not None and not json_.absolute().parent.is_dir():
        raise OptionError(f"--json {json_}: there is no folder {json_.parent}; make it first")
    for system in systems:
        if not system.exists():
            raise UserError(f"{system}: no such run folder, nor a file of translations; check the path")
    precision_name = _precision(precision)
    from seq2seq.evaluation import benchmark as bench
    from seq2seq.evaluation.metrics import check_tokenize, parse_metrics
    from seq2seq.evaluation.report import format_report
    from seq2seq.evaluation.testsets import load_named_test_set, load_test_set
    from seq2seq.run import Run

    chosen = parse_metrics(metrics)
    check_tokenize(tokenize)
    loaded = load_test_set(source, reference or []) if source else load_named_test_set(test_set or "", language_pair)
    for remark in loaded.remarks():
        _warn(remark)
    # What is cheap to find wrong is looked at before anything is translated.
    finished = {system: bench.load_translations(system) for system in systems if not system.is_dir()}
    for translations in finished.values():
        bench.check_lines(translations, loaded)
    runs = {system: Run.open(system) for system in systems if system.is_dir()}
    outputs = []
    for system in systems:
        if system in finished:
            outputs.append(finished[system])
            continue
        print(f"translating with {system}", file=sys.stderr)
        run = runs[system]
        outputs.append(
            bench.translate_test_set(
                _translator([run], precision_name, threads),
                loaded.source.lines,
                name=str(system),
                beam_size=beam_size,
                length_penalty=length_penalty,
                source_hashes=run.source_hashes(),
            )
        )
    if output is not None:
        _write_translations(output, [(system.name, system.hypotheses) for system in outputs if system.speed])
    report = bench.run_benchmark(loaded, outputs, chosen, tokenize)
    print(format_report(report))
    if json_ is not None:
        bench.save_report(report, json_)


# export


@app.command(
    short_help="Write a trained model for CTranslate2 or Hugging Face.",
    epilog="Example: seq2seq export runs/m30k m30k-int8 --to ctranslate2 --quantization int8",
)
def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", hidden=True)],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", hidden=True)],
    to: Annotated[str, _option("ctranslate2|huggingface", "The program that the model is for.")],
    quantization: Annotated[
        str | None, _option("NAME", "With ctranslate2: float32, int8, int8_float32, int16, float16, bfloat16, ...")
    ] = None,
    certify_source: Annotated[
        Path | None, _option("FILE", "Sentences to try it on; by default from the run's validation set.")
    ] = None,
    certify_reference: Annotated[Path | None, _option("FILE", "Their translations by people, for BLEU.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the export that FOLDER holds.")] = False,
    threads: Threads = 0,
) -> None:
    """Write a trained model into FOLDER for another program, and certify that it translates as the run does.

    RUN is a run folder with a trained model. Held-out sentences are translated with both; certificate.json in FOLDER
    says what was compared and found. Where outputs differ, nothing is written.
    """
    if to not in ("ctranslate2", "huggingface"):
        raise OptionError(f"--to {to}: choose ctranslate2 or huggingface")
    if certify_reference is not None and certify_source is None:
        raise OptionError("--certify-reference goes with --certify-source: give both")
    from seq2seq.evaluation.metrics import corpus_bleu
    from seq2seq.export.exporting import Certification, describe, export_run
    from seq2seq.runtime import set_up_cpu

    set_up_cpu(threads)
    certificate = export_run(
        run,
        folder,
        to=to,  # type: ignore[arg-type]
        quantization=quantization or "float32",
        overwrite=overwrite,
        certification=Certification(certify_source, certify_reference, bleu=corpus_bleu),
        message=_warn,
    )
    print(describe(certificate, folder))


# verify-resume


@app.command(
    "verify-resume",
    short_help="Prove that a killed and resumed training loses nothing.",
    epilog="Example: seq2seq verify-resume data/quickstart.toml --steps 40 --kills 5",
)
def verify_resume(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", hidden=True)],
    steps: Annotated[int, _option("N", "How long the two trainings are.")] = 40,
    kills: Annotated[int, _option("N", "How often one of them is killed.")] = 3,
    seed: Annotated[int, _option("N", "Chooses the steps at which it is killed.")] = 1,
    json_: Annotated[Path | None, _option("FILE", "Also write what was found to this file.", "--json")] = None,
    set_: Annotated[list[str] | None, _option("SECTION.KEY=VALUE", "Change a setting; repeatable.", "--set")] = None,
) -> None:
    """Train twice for a few steps, once whole, once killed at random steps and resumed, and compare to the bit.

    CONFIG is a recipe, or the config.toml of a run. Both trainings are processes of their own in a temporary folder and
    are ended by SIGKILL. Ends with 1 where weights, optimizer, order of batches, log or final model differ.
    """
    if json_ is not None and not json_.absolute().parent.is_dir():
        raise OptionError(f"--json {json_}: there is no folder {json_.parent}; make it first")
    import tempfile

    from seq2seq import verifying
    from seq2seq.files import write_json
    from seq2seq.recipe import load_config

    settings = load_config(config, overrides=set_ or [])
    with tempfile.TemporaryDirectory(prefix="seq2seq-verify-") as folder:
        proof = verifying.verify_resume(settings, Path(folder), steps=steps, kills=kills, seed=seed, tell=_warn)
    print(verifying.describe(proof))
    if json_ is not None:
        write_json(json_, proof.as_json())
    if not proof.identical:
        raise typer.Exit(1)


def _write_translations(folder: Path, systems: list[tuple[str, list[str]]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = [Path(name).resolve().name for name, _ in systems]
    for number, (name, (_, lines)) in enumerate(zip(names, systems, strict=True), 1):
        own = name if names.count(name) == 1 else f"{name}-{number}"  # runs of one name, from two places
        (folder / f"{own}.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")


def _translator(runs: list[Run], precision: Precision, threads: int) -> Translator:
    from seq2seq.decoding.translator import Translator
    from seq2seq.runtime import set_up_cpu

    set_up_cpu(threads)
    translator = Translator(runs, precision=precision, warn=_warn)
    for run in runs:
        if remark := run.remark():
            _warn(remark)
    return translator


def _warn(text: str) -> None:
    print(f"seq2seq: {text}", file=sys.stderr)


def _precision(name: str) -> Precision:
    if name not in ("fp32", "bf16", "auto"):
        raise OptionError(f"--precision {name}: choose fp32, bf16 or auto")
    return name  # type: ignore[return-value]
