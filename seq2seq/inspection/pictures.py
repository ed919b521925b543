"""Attention as a picture: the mean of the heads of every layer, or every head (needs the extra `plot`)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from seq2seq.files import replacing
from seq2seq.inspection.explaining import Explanation

Kind = Literal["encoder", "decoder", "cross"]
TITLES = {"encoder": "encoder self-attention", "decoder": "decoder self-attention", "cross": "attention to the source"}
FORMATS = (".png", ".pdf", ".svg")
DPI = 110
MOST_INCHES = 80.0  # of a picture's side


def draw_attention(explanation: Explanation, path: Path, heads: Kind | None = None) -> bool:
    """Draws into path, whose suffix says as what (FORMATS). False: some characters are in no font that is installed.

    Rows are queries, columns what they look at; white is 0 and the darkest blue 1. Without `heads` a row of panels for
    each kind of attention and one panel a layer; with it, every head of that kind, a row a layer.
    """
    kinds: list[Kind] = ["encoder", "decoder", "cross"] if heads is None else [heads]
    panels = [panel for kind in kinds for panel in _panels(explanation, kind, heads is not None)]
    columns = max(len(row) for row in panels)
    longest = max(len(explanation.source_pieces), len(explanation.target_pieces))
    side = min(2.2 + 0.16 * longest, MOST_INCHES / max(columns, len(panels)))
    size = min(8.0, 0.75 * 72 * (side - 1.2) / longest)  # points: labels side by side
    figure = Figure(figsize=(side * columns, side * len(panels)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(panels), columns, squeeze=False)
    for axes, row in zip(grid, panels, strict=True):
        for axis in axes[len(row) :]:
            axis.set_axis_off()
        for axis, (title, weights, rows, keys) in zip(axes, row, strict=False):
            shade = _panel(axis, title, weights, rows, keys, size)
    figure.colorbar(shade, ax=grid, label="attention weight", shrink=0.3, pad=0.01)
    return _save(figure, path)


Panel = tuple[str, Tensor, Sequence[str], Sequence[str]]  # title, weights [T, S], queries, keys


def _panels(explanation: Explanation, kind: Kind, every_head: bool) -> list[list[Panel]]:
    """Rows of panels of one kind of attention."""
    e = explanation
    inputs = ["<s>", *e.target_pieces[:-1]]
    weights, queries, keys = {
        "encoder": (e.encoder.attention, e.source_pieces, e.source_pieces),
        "decoder": (e.decoder.attention, e.target_pieces, inputs),
        "cross": (e.cross_attention, e.target_pieces, e.source_pieces),
    }[kind]
    if not every_head:
        means = weights.mean(1)
        return [[(f"{TITLES[kind]}, layer {n}", layer, queries, keys) for n, layer in enumerate(means, 1)]]
    return [
        [(f"{TITLES[kind]}, layer {n}, head {h}", head, queries, keys) for h, head in enumerate(layer, 1)]
        for n, layer in enumerate(weights, 1)
    ]


def _panel(axis: Any, title: str, weights: Tensor, queries: Sequence[str], keys: Sequence[str], size: float) -> Any:
    """Draws one matrix of weights [T, S]; what a colour bar goes by."""
    image = axis.imshow(weights.numpy(), cmap="Blues", vmin=0.0, vmax=1.0, aspect="auto", interpolation="nearest")
    # A dollar sign would begin a formula.
    axis.set_xticks(range(len(keys)), keys, rotation=90, fontsize=size, parse_math=False)
    axis.set_yticks(range(len(queries)), queries, fontsize=size, parse_math=False)
    axis.set_title(title, fontsize="medium")
    axis.tick_params(length=0)
    return image


def _save(figure: Figure, path: Path) -> bool:
    """Whether all characters could be drawn. DejaVu comes with matplotlib; Noto, where it is there, has the rest."""
    installed = {font.name for font in font_manager.fontManager.ttflist}
    families = ["DejaVu Sans", *sorted(name for name in installed if name.startswith("Noto Sans"))]
    for axis in figure.axes:
        for label in (*axis.get_xticklabels(), *axis.get_yticklabels()):
            label.set_fontfamily(families)
    with warnings.catch_warnings(record=True) as caught, replacing(path) as temporary:
        warnings.simplefilter("always")
        figure.savefig(temporary, format=path.suffix[1:].lower(), dpi=DPI)
    return not any("missing from" in str(warning.message) for warning in caught)
