"""Attention as a picture: the mean of the heads of every layer, or every head (needs the extra `plot`)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.text import Text
from rich.cells import cell_len
from torch import Tensor

from seq2seq.inspection.explaining import Explanation
from seq2seq.inspection.labels import printable, shortened
from seq2seq.inspection.report import heads_of
from seq2seq.run_folder.files import replacing

Kind = Literal["encoder", "decoder", "cross"]


class Meaning(NamedTuple):
    """What a kind of attention is called, what its rows are (queries), and what its columns are (keys)."""

    title: str
    rows: str
    columns: str


MEANINGS = {
    "encoder": Meaning("encoder self-attention", "piece of the source", "where it looks in the source"),
    "decoder": Meaning("decoder self-attention", "piece to write", "where it looks in what is written"),
    "cross": Meaning("attention to the source", "piece to write", "where it looks in the source"),
}
DPI = 110
MOST_INCHES, LEAST_INCHES = 80.0, 4.0  # of all panels side by side
LONGEST = 12  # columns of a label
LABEL = 8.0  # its points, at most
COLUMN = 0.7 / 72  # inches of a column of text, by its points; few letters are wider


def draw_attention(explanation: Explanation, path: Path, heads: Kind | None = None) -> bool:
    """Draws into path, whose suffix is .png, .pdf or .svg. False: some characters are in no font that is installed.

    Rows are queries, columns what they look at. Without `heads` a row of panels for each kind of attention and one
    panel a layer; with it, every head of that kind, a row a layer. Each kind has a scale of its own, from 0 to its
    largest weight, by the square root: most weights of a long sentence are small.
    """
    kinds: list[Kind] = ["encoder", "decoder", "cross"] if heads is None else [heads]
    groups = [_panels(explanation, kind, heads is not None) for kind in kinds]
    columns, rows = max(len(row) for group in groups for row in group), sum(map(len, groups))
    side, label = _sizes([panel for group in groups for row in group for panel in row], max(columns, rows))
    size = max(9.0, 2.5 * side)  # points of titles, which are to be read where the whole picture is seen
    width = max(columns * side, LEAST_INCHES)
    more = size / 9.0  # inches beside, above and below the panels
    figure = Figure((width + more, rows * side + (0.7 * len(groups) + 0.5) * more), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(_sentences(explanation, int(width / COLUMN / size)), fontsize=size, parse_math=False)
    parts = figure.subfigures(len(groups), 1, squeeze=False, height_ratios=[len(group) for group in groups])
    for part, kind, group in zip(parts[:, 0], kinds, groups, strict=True):
        meaning = MEANINGS[kind]
        shown = heads_of(_weights(explanation, kind)) if heads is None else "every head"
        part.suptitle(f"{meaning.title}, {shown}", fontsize=1.2 * size)
        part.supylabel(meaning.rows, fontsize=size)
        part.supxlabel(meaning.columns, fontsize=size)
        _draw_group(part, group, columns, label, size)
    return _save(figure, path)


Panel = tuple[str, Tensor, Sequence[str], Sequence[str]]  # title, weights [T, S], queries, keys


def _panels(explanation: Explanation, kind: Kind, every_head: bool) -> list[list[Panel]]:
    """Rows of panels of one kind of attention."""
    sources, outputs = (
        [shortened(piece, LONGEST) for piece in pieces]
        for pieces in (explanation.source_pieces, explanation.target_pieces)
    )
    inputs = ["<s>", *outputs[:-1]]
    queries, keys = {"encoder": (sources, sources), "decoder": (outputs, inputs), "cross": (outputs, sources)}[kind]
    weights = _weights(explanation, kind)
    if not every_head:
        return [[(f"layer {n}", mean, queries, keys) for n, mean in enumerate(weights.mean(1), 1)]]
    return [
        [(f"layer {n}, head {h}", head, queries, keys) for h, head in enumerate(layer, 1)]
        for n, layer in enumerate(weights, 1)
    ]


def _weights(explanation: Explanation, kind: Kind) -> Tensor:
    e = explanation
    return {"encoder": e.encoder.attention, "decoder": e.decoder.attention, "cross": e.cross_attention}[kind]


def _sizes(panels: Sequence[Panel], count: int) -> tuple[float, float]:
    """A panel's side in inches, where `count` of them are side by side, and the points of its labels."""
    pieces = max(max(weights.shape) for _, weights, _, _ in panels)
    widest = max(cell_len(label) for *_, queries, keys in panels for label in (*queries, *keys))
    beside = widest * COLUMN * LABEL + 0.4  # labels and a title
    side = min(max(0.17 * pieces, 1.1) + beside, MOST_INCHES / count)
    return side, max(1.0, min(LABEL, 0.75 * 72 * (side - beside) / pieces))


def _sentences(explanation: Explanation, most: int) -> str:
    """The sentence and its translation, a line each of at most so many columns."""
    note = " (given)" if explanation.given else " (cut)" if explanation.repetition else ""
    source, translation = printable(explanation.source), printable(explanation.translation)
    return f"{shortened(source, most)}\n{shortened(translation, most - len(note))}{note}"


def _draw_group(part: Any, group: Sequence[Sequence[Panel]], columns: int, label: float, size: float) -> None:
    """Draws rows of panels, and one scale for all of them, into a part of a figure."""
    most = max(float(weights.max()) for row in group for _, weights, _, _ in row)
    scale = PowerNorm(0.5, vmin=0.0, vmax=most)
    grid = part.subplots(len(group), columns, squeeze=False)
    for axes, row in zip(grid, group, strict=True):
        for axis in axes[len(row) :]:
            axis.set_axis_off()
        for axis, (title, weights, queries, keys) in zip(axes, row, strict=False):
            image = axis.imshow(weights.numpy(), cmap="Blues", norm=scale, aspect="auto", interpolation="nearest")
            # A dollar sign would begin a formula.
            axis.set_xticks(range(len(keys)), keys, rotation=90, fontsize=label, parse_math=False)
            axis.set_yticks(range(len(queries)), queries, fontsize=label, parse_math=False)
            axis.set_title(title, fontsize=size)
            axis.tick_params(length=0)
    bar = part.colorbar(image, ax=grid, shrink=0.9 if len(group) == 1 else 0.3, pad=0.01)
    bar.set_label("weight (square-root scale)", fontsize=size, labelpad=size / 2)
    bar.ax.tick_params(labelsize=0.9 * size)


def _save(figure: Figure, path: Path) -> bool:
    """Whether all characters could be drawn. DejaVu comes with matplotlib; Noto, where it is there, has the rest."""
    installed = {font.name for font in font_manager.fontManager.ttflist}
    families = ["DejaVu Sans", *sorted(name for name in installed if name.startswith("Noto Sans"))]
    for text in figure.findobj(Text):
        text.set_fontfamily(families)
    with warnings.catch_warnings(record=True) as caught, replacing(path) as temporary:
        warnings.simplefilter("always")
        figure.savefig(temporary, format=path.suffix[1:].lower(), dpi=DPI)
    return not any("missing from" in str(warning.message) for warning in caught)
