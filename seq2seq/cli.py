"""The command line: parse, call, print. Results go to standard output, everything else to standard error.

Exit codes: 0 done; 1 the job failed; 2 the arguments or the configuration are wrong; 130 and 143 on SIGINT and SIGTERM.
Heavy modules are imported inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import io
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from seq2seq import __version__
from seq2seq.errors import OptionError, UserError

if TYPE_CHECKING:
    from seq2seq.decoding.translator import Options, TranslationResult, Translator
    from seq2seq.pipeline import Outcome
    from seq2seq.runtime import Precision

app = typer.Typer(
    name="seq2seq",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    help="Train, use and measure translation models: the encoder-decoder Transformer of 'Attention Is All You Need'.",
    epilog="Start here: seq2seq train data/quickstart.toml",
)


def main() -> None:
    """The entry point: runs a command and turns what went wrong into one line and an exit code."""
    try:
        app()
    except UserError as error:
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        _fail("interrupted", 130)
    except BrokenPipeError:
        # Whoever read our output has gone, as `head` does. Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _fail(f"{where}{error.strerror or error}", 1)


def _fail(message: str, code: int) -> NoReturn:
    print(f"seq2seq: {message}", file=sys.stderr)
    sys.exit(code)


def _show_version(value: bool) -> None:
    if value:
        print(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


# train


@app.command(epilog="Example: seq2seq train data/quickstart.toml --run-dir runs/first --set training.seed=2")
def train(
    config: Annotated[Path | None, typer.Argument(help="A TOML recipe; without one, name the corpus below.")] = None,
    run_dir: Annotated[
        Path | None, typer.Option(help="Where the run is kept; by default runs/NAME, after the recipe's file name.")
    ] = None,
    source: Annotated[str | None, typer.Option(help="Training sentences to translate from, one a line.")] = None,
    target: Annotated[str | None, typer.Option(help="Their translations, line by line.")] = None,
    valid_source: Annotated[str | None, typer.Option(help="Validation sentences, to see how training goes.")] = None,
    valid_target: Annotated[str | None, typer.Option(help="Their translations.")] = None,
    test_source: Annotated[str | None, typer.Option(help="Test sentences, translated once at the end.")] = None,
    test_target: Annotated[str | None, typer.Option(help="Their translations.")] = None,
    preset: Annotated[
        str | None, typer.Option(help="Start from a complete recipe: tiny (an hour on two cores), base or big.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change a setting; repeatable.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run from its last checkpoint.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run that the folder holds.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show validations only, no progress.")] = False,
) -> None:
    """Train a translator from parallel text.

    Give a recipe, or --source and --target with --preset, or both: files on the command line take the place of the
    recipe's corpus. The folder of the run holds everything that translate and benchmark need.
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
    if config is None and not corpus:
        raise OptionError("nothing to train on: give a recipe, such as data/quickstart.toml, or --source and --target")
    from seq2seq.config import load_config

    settings = load_config(config, preset=preset, overrides=set_ or [], data=corpus or None)
    folder = run_dir or Path("runs") / (config.stem if config is not None else settings.preset or "run")

    from seq2seq import pipeline
    from seq2seq.progress import TrainingProgress
    from seq2seq.training.trainer import Interrupted

    stopped: list[int] = []
    _stop_gently(stopped)
    with TrainingProgress(quiet=quiet) as progress:
        try:
            outcome = pipeline.train(
                settings, folder, progress, resume=resume, overwrite=overwrite, stop=lambda: bool(stopped)
            )
        except Interrupted:
            command = f"seq2seq train {config or '...'} --run-dir {folder} --resume"
            progress.message(f"stopped after a checkpoint; continue with: {command}")
            sys.exit(128 + stopped[0])
    _print_outcome(outcome, settings.data.test_source, settings.data.test_target)


def _stop_gently(stopped: list[int]) -> None:
    """On SIGINT or SIGTERM, finish the step and save; on a second one, end at once."""

    def handle(number: int, _frame: object) -> None:
        if stopped:
            os._exit(128 + number)
        stopped.append(number)
        print("stopping after this step and a checkpoint; once more to stop at once", file=sys.stderr)

    signal.signal(signal.SIGINT, handle)
    signal.signal(signal.SIGTERM, handle)


def _print_outcome(outcome: Outcome, test_source: str, test_target: str) -> None:
    if outcome.test_bleu is not None:
        print(f"test BLEU {outcome.test_bleu:.2f}")
    for example in outcome.examples:
        print(f"\nsource       {example.source}\ntranslation  {example.translation}\nreference    {example.reference}")
    folder = outcome.run.path
    sentence = outcome.examples[0].source if outcome.examples else "..."
    print(f"\nThe model is in {folder}. Next:")
    print(f'  echo "{sentence}" | seq2seq translate {folder}')
    source, target = _near(test_source) or "test.src", _near(test_target) or "test.trg"
    print(f"  seq2seq benchmark {folder} --source {source} --reference {target}")


def _near(path: str) -> str:
    """A path as one would type it here."""
    relative = os.path.relpath(path) if path else ""
    return path if relative.startswith("..") else relative


# translate


@app.command(epilog='Example: echo "A man is riding a horse." | seq2seq translate runs/m30k')
def translate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder with a trained model.")],
    files: Annotated[list[Path] | None, typer.Argument(metavar="[FILE]...", help="Text files, gzipped or not.")] = None,
    beam_size: Annotated[int | None, typer.Option(help="Hypotheses kept at each step; 1 is greedy search.")] = None,
    length_penalty: Annotated[float | None, typer.Option(help="Alpha; 0 favours short translations.")] = None,
    n_best: Annotated[int, typer.Option(help="Translations a line, best first, as `line ||| text ||| score`.")] = 1,
    format_: Annotated[str, typer.Option("--format", metavar="text|jsonl", help="Text or JSON objects.")] = "text",
    sample: Annotated[bool, typer.Option("--sample", help="Draw translations at random instead of searching.")] = False,
    temperature: Annotated[float, typer.Option(help="With --sample: below 1 is more careful, above 1 wilder.")] = 1.0,
    top_k: Annotated[int, typer.Option(help="With --sample: draw from the K most probable pieces only.")] = 0,
    top_p: Annotated[float, typer.Option(help="With --sample: draw from the top pieces of total probability P.")] = 1.0,
    seed: Annotated[int, typer.Option(help="With --sample: the same seed draws the same translations.")] = 1,
    precision: Annotated[str, typer.Option(metavar="fp32|bf16|auto", help="Arithmetic of the network.")] = "fp32",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 is one a core.")] = 0,
) -> None:
    """Translate text, one sentence a line.

    Reads the files, or standard input; on a terminal, asks for sentences. As many lines come out as went in, in order.
    """
    if format_ not in ("text", "jsonl"):
        raise OptionError(f"--format {format_}: choose text or jsonl")
    precision_name = _precision(precision)
    if not sample and (temperature, top_k, top_p) != (1.0, 0, 1.0):
        raise OptionError("--temperature, --top-k and --top-p change what is drawn: add --sample")
    from seq2seq.decoding.translator import Options, Translator

    options = Options(beam_size, length_penalty, n_best, sample, temperature, top_k, top_p, seed)
    translator = Translator(run, precision=precision_name, num_threads=threads, warn=_warn)
    translator.check(options)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", newline="\n")
    if not files and sys.stdin.isatty():
        _prompt(translator, options, format_)
        return
    for number, result in enumerate(translator.stream(_input_lines(files or []), options)):
        print(_render(number, result, options, format_))
    sys.stdout.flush()


def _input_lines(files: list[Path]) -> Iterator[str]:
    from seq2seq.text.reading import lines_of, read_lines

    if not files:
        yield from lines_of(sys.stdin.buffer, "standard input")
    for path in files:
        yield from lines_of(sys.stdin.buffer, "standard input") if str(path) == "-" else read_lines(path)


def _render(number: int, result: TranslationResult, options: Options, format_: str) -> str:
    if format_ == "jsonl":
        hypotheses = [
            {
                "translation": hypothesis.text,
                "score": hypothesis.score,
                "log_probability": hypothesis.log_probability,
                "pieces": hypothesis.pieces,
                "piece_log_probabilities": hypothesis.piece_log_probabilities,
            }
            for hypothesis in result.hypotheses
        ]
        record = {"line": number, "source": result.source, **hypotheses[0]}
        if options.n_best > 1:
            record["hypotheses"] = hypotheses
        return json.dumps(record, ensure_ascii=False)
    if options.n_best == 1:
        return result.text
    return "\n".join(f"{number} ||| {best.text} ||| {best.score:.4f}" for best in result.hypotheses)


def _prompt(translator: Translator, options: Options, format_: str) -> None:
    """Asks for sentences on a terminal until end of file."""
    import contextlib

    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  # makes the arrow keys work in input()
    print("Type a sentence to translate; end with Ctrl-D.", file=sys.stderr)
    number = 0
    while True:
        try:
            line = input("> ")
        except EOFError:
            print(file=sys.stderr)
            return
        for result in translator.stream([line], options):
            print(_render(number, result, options, format_), flush=True)
        number += 1


# benchmark


@app.command(epilog="Example: seq2seq benchmark runs/m30k --source test.en --reference test.de --json results.json")
def benchmark(
    systems: Annotated[
        list[Path], typer.Argument(metavar="SYSTEM...", help="Run folders, or files of finished translations.")
    ],
    source: Annotated[Path | None, typer.Option(help="The test set's sentences, one a line.")] = None,
    reference: Annotated[list[Path] | None, typer.Option(help="Their translations by people; repeatable.")] = None,
    test_set: Annotated[str | None, typer.Option(help="One of sacreBLEU's test sets by name, such as wmt14.")] = None,
    language_pair: Annotated[str, typer.Option(help="With --test-set: the direction, such as en-de.")] = "",
    metrics: Annotated[str, typer.Option(help="Which scores, separated by commas.")] = "bleu,chrf,ter",
    tokenize: Annotated[str, typer.Option(help="sacreBLEU's tokenisation; none for files tokenised already.")] = "13a",
    beam_size: Annotated[int | None, typer.Option(help="Hypotheses kept at each step; 1 is greedy search.")] = None,
    length_penalty: Annotated[float | None, typer.Option(help="Alpha; 0 favours short translations.")] = None,
    precision: Annotated[str, typer.Option(metavar="fp32|bf16|auto", help="Arithmetic of the network.")] = "fp32",
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 is one a core.")] = 0,
    json_: Annotated[Path | None, typer.Option("--json", help="Also write everything to this file.")] = None,
    output: Annotated[Path | None, typer.Option(help="Also write each run's translations into this folder.")] = None,
) -> None:
    """Score translations of a test set: BLEU, chrF and TER with confidence intervals, and speed.

    Several systems are set side by side and tested against the first. What stands in a run's training data is
    reported, with the scores without it.
    """
    if (test_set is None) == (source is None):
        raise OptionError("name the test set: --source FILE with --reference FILE, or --test-set NAME")
    precision_name = _precision(precision)
    from seq2seq.evaluation import benchmark as bench
    from seq2seq.evaluation.metrics import check_tokenize, parse_metrics
    from seq2seq.evaluation.report import format_report
    from seq2seq.evaluation.testsets import load_named_test_set, load_test_set

    chosen = parse_metrics(metrics)
    check_tokenize(tokenize)
    if test_set is not None:
        loaded = load_named_test_set(test_set, language_pair)
    else:
        assert source is not None
        loaded = load_test_set(source, reference or [])
    outputs = []
    for system in systems:
        if not system.is_dir():
            outputs.append(bench.load_translations(system))
            continue
        print(f"translating with {system}", file=sys.stderr)
        from seq2seq.decoding.translator import Translator
        from seq2seq.run import Run

        run = Run.open(system)
        translator = Translator(run, precision=precision_name, num_threads=threads, warn=_warn)
        outputs.append(
            bench.translate_test_set(
                translator,
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


def _write_translations(folder: Path, systems: list[tuple[str, list[str]]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in systems:
        text = "".join(f"{line}\n" for line in lines)
        (folder / f"{Path(name).name}.txt").write_text(text, encoding="utf-8", newline="\n")


def _warn(text: str) -> None:
    print(f"seq2seq: {text}", file=sys.stderr)


def _precision(name: str) -> Precision:
    if name not in ("fp32", "bf16", "auto"):
        raise OptionError(f"--precision {name}: choose fp32, bf16 or auto")
    return name  # type: ignore[return-value]
