"""`seq2seq explain`: a look inside of one translation."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seq2seq.atomic import is_replaced
from seq2seq.commands.common import (
    BeamSize,
    LengthNormalization,
    LengthPenalty,
    Threads,
    check_result_file,
    check_text,
    load_translator,
    option,
    warn,
)
from seq2seq.errors import OptionError

if TYPE_CHECKING:
    from seq2seq.inspection.explaining import Explanation

WIDTH = 110  # columns of text that goes to no terminal
FORMATS = (".png", ".pdf", ".svg")  # of pictures
KINDS = ("encoder", "decoder", "cross")


def explain(
    run: Annotated[Path, typer.Argument(metavar="RUN", hidden=True)],
    sentence: Annotated[str, typer.Argument(metavar="SENTENCE", hidden=True)],
    target: Annotated[str | None, option("TEXT", "This translation, instead of the one that is found.")] = None,
    top: Annotated[int, typer.Option(metavar="N", help="How many neighbours, candidates, places.", min=1, max=100)] = 3,
    format_: Annotated[str, option("text|json", "Text, or one JSON object with every number.", "--format")] = "text",
    plot: Annotated[Path | None, option("FILE", "Draw attention, as .png, .pdf or .svg.")] = None,
    heads: Annotated[
        str | None,
        option(
            "|".join(KINDS),
            "With --plot: every head of this attention, not the mean of all. Layers and heads count from 1 "
            "(in decoding.alignment_layer and alignment_head from 0).",
        ),
    ] = None,
    beam_size: BeamSize = None,
    length_penalty: LengthPenalty = None,
    length_normalization: LengthNormalization = None,
    threads: Threads = 0,
) -> None:
    """Look inside: how a sentence becomes its translation.

    RUN is a run folder with a trained model. Prints the pieces of SENTENCE and what their embeddings are like, what
    encoder and decoder do with them layer by layer, where attention looks, and the probability of each piece that is
    written next to its strongest alternatives. Write -- before a SENTENCE that begins with a dash.
    """
    if format_ not in ("text", "json"):
        raise OptionError(f"--format {format_}: choose text or json")
    if heads is not None and heads not in KINDS:
        raise OptionError(f"--heads {heads}: choose {', '.join(KINDS[:-1])} or {KINDS[-1]}")
    if heads is not None and plot is None:
        raise OptionError(f"--heads {heads} means nothing without --plot: add --plot FILE")
    search = {
        "beam_size": beam_size, "length_penalty": length_penalty, "length_normalization": length_normalization,
    }  # fmt: skip
    if target is not None and any(value is not None for value in search.values()):
        raise OptionError("--target takes the place of a search: leave its options (--beam-size, ...) out")
    check_text("SENTENCE", sentence)
    check_text("--target", target or "")
    if plot is not None:
        _check_plot(plot)
    from seq2seq.inspection.explaining import explain_translation
    from seq2seq.run import Run

    translator = load_translator([Run.open(run)], "fp32", threads)
    explanation = explain_translation(translator, sentence, target, top=top, **search)  # type: ignore[arg-type]
    if plot is not None:
        _draw(explanation, plot, heads)
    if format_ == "json":
        print(json.dumps(explanation.to_dict(), ensure_ascii=False, allow_nan=False))
        return
    from seq2seq.inspection.report import format_explanation

    width = shutil.get_terminal_size((WIDTH, 24)).columns if sys.stdout.isatty() else WIDTH
    print(format_explanation(explanation, top, width))


def _check_plot(path: Path) -> None:
    """Before the work: can it be drawn, and written there?"""
    if path.suffix.lower() not in FORMATS:
        raise OptionError(f"--plot {path}: the name has to end in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}")
    try:
        import seq2seq.inspection.pictures  # noqa: F401
    except ModuleNotFoundError:
        raise OptionError(f"--plot {path}: needs matplotlib: pip install 'seq2seq[plot]'") from None
    except ImportError as error:
        reason = " ".join(str(error).split())
        raise OptionError(f"--plot {path}: matplotlib cannot be used here ({reason}); install it anew") from None
    check_result_file("--plot", path)
    if path.is_file() and is_replaced(path) and not _is_drawn(path):
        raise OptionError(
            f"--plot {path}: holds something else than a picture that this command drew; name another file"
        )


def _is_drawn(path: Path) -> bool:
    """Whether a file is empty, or matplotlib says in it that it made it, as it does in all of FORMATS."""
    try:
        content = path.read_bytes()
    except OSError:
        return False
    return not content or b"atplotlib" in content


def _draw(explanation: Explanation, path: Path, heads: str | None) -> None:
    from seq2seq.inspection.pictures import draw_attention

    if not draw_attention(explanation, path.resolve(), heads):  # type: ignore[arg-type]
        warn(f"{path}: some characters are in no font that is installed and are drawn as boxes: install Noto Sans")
