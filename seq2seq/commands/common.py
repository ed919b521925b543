"""What commands share: options of one meaning, warnings and messages on standard error, signals, loading models."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seq2seq.errors import OptionError, UserError
from seq2seq.machine import MAX_THREADS
from seq2seq.remarks import Remarks
from seq2seq.signals import Signals

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from seq2seq.decoding.translator import Translator
    from seq2seq.run import Run
    from seq2seq.runtime import Precision

signals = Signals()
warn = Remarks()


def option(metavar: str, text: str, *names: str) -> Any:
    return typer.Option(*names, metavar=metavar, help=text)


BeamSize = Annotated[int | None, option("N", "Hypotheses kept at each step; 1 is greedy search.")]
LengthPenalty = Annotated[float | None, option("X", "Alpha; 0 favours short translations.")]
LengthNormalization = Annotated[
    str | None, option("wu|power", "Divide by ((5 + length) / 6)^alpha, or by length^alpha.")
]
PrecisionName = Annotated[str, option("fp32|bf16|auto", "Arithmetic of the network.")]
Threads = Annotated[
    int, typer.Option(metavar="N", help="CPU threads; 0 is one a core.", min=0, max=MAX_THREADS, show_default=False)
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


def tell(text: str) -> None:
    print(f"seq2seq: {text}", file=sys.stderr)


def parse_precision(name: str) -> Precision:
    if name not in ("fp32", "bf16", "auto"):
        raise OptionError(f"--precision {name}: choose fp32, bf16 or auto")
    return name  # type: ignore[return-value]
