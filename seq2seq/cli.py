"""The command line: finds the command, and turns what goes wrong into one line and an exit code.

Results go to standard output, everything else to standard error. Exit codes: 0 done; 1 the job failed; 2 the arguments
or the configuration are wrong; 130, 143 and 129 on SIGINT, SIGTERM and SIGHUP. The commands are in `seq2seq/commands/`.
"""

from __future__ import annotations

import io
import os
import select
import sys
from typing import Annotated, Any, NoReturn

import typer
from typer.main import get_command

from seq2seq.commands.benchmarking import benchmark
from seq2seq.commands.common import signals, warn
from seq2seq.commands.diversifying import diversify
from seq2seq.commands.explaining import explain
from seq2seq.commands.exporting import export
from seq2seq.commands.scoring import score
from seq2seq.commands.training import train, verify_resume
from seq2seq.commands.translating import translate
from seq2seq.commands.usage import explain_usage, refuse_repeated
from seq2seq.errors import explain as explain_error
from seq2seq.version import __version__

app = typer.Typer(
    name="seq2seq",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    help="Train, use and measure translation models: the encoder-decoder Transformer of 'Attention Is All You Need'.",
    epilog="Start here: seq2seq train data/quickstart.toml",
)


def main() -> None:
    """The entry point: runs a command and turns what went wrong into one line and an exit code."""
    _open_closed_streams()
    # Names of files that are not UTF-8 go through as they came.
    sys.stdout, sys.stderr = (
        _prepare_output(sys.stdout, "surrogateescape"),
        _prepare_output(sys.stderr, "backslashreplace"),
    )
    signals.install()
    code = None
    try:
        try:
            command = get_command(app)
            refuse_repeated(command, sys.argv[1:])
            with command.make_context("seq2seq", sys.argv[1:] or ["--help"]) as context:
                try:
                    context.command.invoke(context)
                finally:
                    warn.close()
        except typer.Exit as done:  # --help and --version among others
            code = done.exit_code
        sys.stdout.flush()
    except KeyboardInterrupt:
        _fail(*signals.reason())
    except BrokenPipeError:  # whoever read our output has gone, as `head` does
        _mute_stdout()
        sys.exit(0)
    except Exception as error:
        # A library in whose midst the signal came may have made an error of its own of it.
        reason = signals.reason() if signals.raised else explain_error(error)
        if reason is None and hasattr(error, "format_message"):  # typer's, whose class moves with its version
            reason = explain_usage(error), 2
        if reason is None:
            raise
        _fail(*reason)
    if code is not None:
        sys.exit(code)


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


class _Output(io.FileIO):
    """A standard stream. Errors of standard output say that it was it.

    What standard error cannot take is dropped: a lost terminal, or a full disk behind a log, is no reason to lose a
    training.
    """

    def write(self, data: Any) -> int:
        try:
            written: int | None = super().write(data)
        except OSError as error:
            if self.fileno() != 2:
                error.filename = "standard output"
                raise
            written = None
        if written is not None:
            return written
        if self.fileno() == 2:
            return len(data)
        select.select([], [self], [])  # a pipe that does not wait is full
        return self.write(data)


def _prepare_output(stream: Any, errors: str) -> Any:
    """The stream in UTF-8, whatever the locale says; `errors`: how, of what is not, names of files among it."""
    options: dict[str, Any] = {"encoding": "utf-8", "errors": errors, "newline": "\n"}
    if stream not in (sys.__stdout__, sys.__stderr__):  # a test's, or a notebook's
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(**options)
        return stream
    raw = _Output(stream.fileno(), "w", closefd=False)
    return io.TextIOWrapper(io.BufferedWriter(raw), **options, line_buffering=raw.fileno() == 2 or raw.isatty())


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


app.command(epilog="Example: seq2seq train data/quickstart.toml --run-dir runs/first --set training.seed=2")(train)
app.command(epilog='Example: echo "A man is riding a horse." | seq2seq translate runs/m30k')(translate)
app.command(
    short_help="Score given translations.",
    epilog="Example: seq2seq score runs/m30k --source test.en --target other-system.de",
)(score)
app.command(
    short_help="Score translations of a test set.",
    epilog="Example: seq2seq benchmark runs/m30k --source test.en --reference test.de --json results.json",
)(benchmark)
app.command(
    short_help="Look inside: pieces, layers, attention, probabilities of one translation.",
    epilog='Example: seq2seq explain runs/m30k "A man is riding a horse." --plot attention.png',
)(explain)
app.command(
    short_help="Write more training data out of the same, with trained models.",
    epilog="Example: seq2seq diversify --source train.en --target train.de --forward runs/a --output data/more",
)(diversify)
app.command(
    short_help="Write a trained model for CTranslate2 or Hugging Face.",
    epilog="Example: seq2seq export runs/m30k m30k-int8 --to ctranslate2 --quantization int8",
)(export)
app.command(
    "verify-resume",
    short_help="Prove that a killed and resumed training loses nothing.",
    epilog="Example: seq2seq verify-resume data/quickstart.toml --steps 40 --kills 5",
)(verify_resume)
