"""What commands share: options of one meaning, warnings and messages on standard error, signals, loading models."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seq2seq.atomic import is_replaced
from seq2seq.errors import OptionError, UserError
from seq2seq.machine import MAX_THREADS
from seq2seq.remarks import Remarks
from seq2seq.signals import Signals
from seq2seq.untrusted import MAX_JSON_BYTES, read_regular

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from seq2seq.decoding.translator import Translator
    from seq2seq.run import Run
    from seq2seq.runtime import Precision

signals = Signals()
warn = Remarks()


def option(metavar: str, text: str, *names: str, default: str = "") -> Any:
    """default: what the help says of an option that is None where it is not given."""
    return typer.Option(*names, metavar=metavar, help=f"{text}  [default: {default}]" if default else text)


RUNS = "the run's"
BeamSize = Annotated[int | None, option("N", "Hypotheses kept at each step; 1 is greedy search.", default=RUNS)]
LengthPenalty = Annotated[float | None, option("X", "Alpha; 0 favours short translations.", default=RUNS)]
LengthNormalization = Annotated[
    str | None, option("wu|power", "Divide by ((5 + length) / 6)^alpha, or by length^alpha.", default=RUNS)
]
PrecisionName = Annotated[str, option("fp32|bf16|auto", "Arithmetic of the network.")]
Threads = Annotated[
    int,
    typer.Option(
        metavar="N",
        help="CPU threads; 0 is one a core, or fewer by OMP_NUM_THREADS.  [default: 0]",
        min=0,
        max=MAX_THREADS,
        show_default=False,
    ),
]


def load_translator(runs: list[Run], precision: Precision, threads: int) -> Translator:
    from seq2seq.decoding.translator import Translator
    from seq2seq.runtime import set_up_cpu

    set_up_cpu(threads)
    warn.close()  # what is told of one model says nothing of the next
    translator = Translator(runs, precision=precision, warn=warn)
    for run in runs:
        if remark := run.remark():
            warn(remark)
    return translator


def seen_sources(run: Run) -> dict[str, NDArray[np.int64]] | None:
    """Hashes of what a model was trained on; None, and a warning, where that cannot be read."""
    try:
        return run.source_hashes()
    except UserError as error:
        warn(f"{error}; what the model was trained on is not known")
        return None


def check_result_file(option: str, path: Path, *, report: Collection[str] | None = None) -> None:
    """Raises OptionError for a file that can't be written, before the work whose result it is to hold.

    report: the file is to be a JSON object with these fields, and no other file is replaced.
    """
    folder = path.absolute().parent
    if not folder.is_dir():
        raise OptionError(f"{option} {path}: there is no folder {path.parent}; make it first")
    if path.is_dir():
        raise OptionError(f"{option} {path}: is a folder; name a file in it")
    if not os.access(path.resolve().parent if is_replaced(path) else path, os.W_OK):
        raise OptionError(f"{option} {path}: may not be written; check the folder and its permissions")
    if report is not None and path.is_file() and is_replaced(path) and not _is_report(path, report):
        raise OptionError(f"{option} {path}: holds something else than this command writes; name another file")


def _is_report(path: Path, fields: Collection[str]) -> bool:
    """Whether a file is empty, or a JSON object with these fields."""
    try:
        content = read_regular(path, MAX_JSON_BYTES)
        found = json.loads(content) if content else dict.fromkeys(fields)
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and found.keys() >= set(fields)


def check_text(option: str, *texts: str) -> None:
    """Raises OptionError for an option whose bytes are not UTF-8: Python keeps them as halves of characters."""
    for text in texts:
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise OptionError(f"{option} {text!r:.60}: is not UTF-8 text; type it in a terminal of UTF-8") from None


def make_result_folder(option: str, path: Path) -> None:
    """Makes a folder for results, or raises OptionError, before the work."""
    if path.exists() and not path.is_dir():
        raise OptionError(f"{option} {path}: is a file; name a folder")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OptionError(f"{option} {path}: cannot be made ({error.strerror}); check its parents") from None
    if not os.access(path, os.W_OK):
        raise OptionError(f"{option} {path}: may not be written; check its permissions")


def tell(text: str) -> None:
    print(f"seq2seq: {text}", file=sys.stderr)


def parse_precision(name: str) -> Precision:
    if name not in ("fp32", "bf16", "auto"):
        raise OptionError(f"--precision {name}: choose fp32, bf16 or auto")
    return name  # type: ignore[return-value]
