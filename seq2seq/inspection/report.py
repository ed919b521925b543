"""An explanation as plain text: one block a stage of the network, in the order in which a sentence meets them."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence

from rich.cells import cell_len
from torch import Tensor

from seq2seq.inspection.explaining import Explanation, Weighed
from seq2seq.inspection.labels import shortened

GAP = "  "
READING = (
    "A row is a piece of the source, or the piece that a step of the decoder writes. ▁ is the space before a word, "
    "(5) the fifth piece, where it comes more than once; <s> and </s> are the beginning and the end of a sentence."
)
NARROWEST = 40  # columns of running text
LONGEST = 16  # columns of a piece: as many characters as SentencePiece learns; unknown text may have more


def format_explanation(explanation: Explanation, top: int = 3, width: int = 110) -> str:
    """For people. top: how many places attention is shown at. Tables wider than `width` columns go on below themselves.

    Ends without a line break.
    """
    e = explanation
    sources, outputs = _labels(e.source_pieces), _labels(e.target_pieces)
    inputs = ["<s>", *outputs[:-1]]
    heads = heads_of(e.cross_attention)
    tables = {
        "Embeddings (3.4): the pieces of the source, and those whose embeddings are most like theirs (cosine)": [
            [str(number), piece, *map(_weighed, similar)]
            for number, (piece, similar) in enumerate(zip(_short(e.source_pieces), e.neighbours, strict=True), 1)
        ],
        "Encoder: how much a piece is still like what went in, embedding plus position, after each layer (cosine)": (
            _similarity(e.encoder.similarity, sources)
        ),
        "Decoder: the same of the piece that goes into each step, which is the one written before (cosine)": (
            _similarity(e.decoder.similarity, inputs)
        ),
        f"Encoder self-attention (3.2): where each piece looks, in percent, {heads}": _attention(
            e.encoder.attention, sources, sources, top
        ),
        f"Decoder self-attention: where each step looks in what is written already, in percent, {heads}": _attention(
            e.decoder.attention, outputs, inputs, top
        ),
        f"Attention to the source: where each step looks in the encoder's output, in percent, {heads}": _attention(
            e.cross_attention, outputs, sources, top
        ),
        "Feed-forward networks (3.3): neurons above 0, in percent": _above_zero(e),
        "Layer by layer: what each step would write, if the output projection came right after the layer": [
            _header(len(e.by_layer)),
            *([piece, *map(_probable, said)] for piece, *said in zip(outputs, *e.by_layer, strict=True)),
        ],
        "Probabilities (3.4): of each piece written (its logarithm, its rank), and the most probable ones": [
            [str(number), piece, _percent(math.exp(log)), f"{log:.2f}", f"#{rank}", *map(_probable, candidates)]
            for number, (piece, log, rank, candidates) in enumerate(
                zip(_short(e.target_pieces), e.log_probabilities.tolist(), e.ranks, e.candidates, strict=True), 1
            )
        ],
    }
    mean = e.log_probability / len(e.target_pieces)
    loop = [f"{'':17}of all {len(e.target_pieces)} pieces below; the translation above is cut, as it runs into a loop"]
    head = [
        f"source           {e.source}",
        f"translation      {e.translation}{'  (given)' if e.given else ''}",
        f"log-probability  {e.log_probability:.4f}, {mean:.4f} a piece",
        *(loop if e.repetition else []),
        "",
        *_wrapped(READING, width),
    ]
    return "\n\n".join(["\n".join(head), *(_block(title, rows, width) for title, rows in tables.items())])


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, max(width, NARROWEST))


def _block(title: str, rows: Sequence[Sequence[str]], width: int) -> str:
    """Cells in columns as wide as their widest; wide characters count twice, combining ones not at all.

    The columns that do not fit come below, beside the first one again.
    """
    columns = max(map(len, rows))
    widths = [max(cell_len(row[i]) for row in rows if i < len(row)) for i in range(columns)]
    parts: list[list[int]] = [[0]]
    for column in range(1, columns):
        if len(parts[-1]) > 1 and sum(widths[i] + len(GAP) for i in [*parts[-1], column]) > width:
            parts.append([0])
        parts[-1].append(column)
    return "\n".join([*_wrapped(title, width), *("\n".join(_lines(rows, part, widths)) for part in parts)])


def _lines(rows: Sequence[Sequence[str]], columns: Sequence[int], widths: Sequence[int]) -> Iterator[str]:
    for row in rows:
        cells = [(row[i], widths[i]) for i in columns if i < len(row)]
        if len(cells) > 1 or len(columns) == 1:  # or a short row has nothing there
            yield GAP + GAP.join(cell + " " * (width - cell_len(cell)) for cell, width in cells).rstrip()


def heads_of(weights: Tensor) -> str:
    """What a mean over the heads of weights [L, H, T, S] is of."""
    return "one head" if weights.shape[1] == 1 else f"mean of {weights.shape[1]} heads"


def _short(pieces: Sequence[str]) -> list[str]:
    return [shortened(piece, LONGEST) for piece in pieces]


def _labels(pieces: Sequence[str]) -> list[str]:
    """Pieces, with their number behind those that come more than once, as they are shown."""
    short = _short(pieces)
    return [f"{piece}({number})" if short.count(piece) > 1 else piece for number, piece in enumerate(short, 1)]


def _weighed(weighed: Weighed) -> str:
    return f"{shortened(weighed[0], LONGEST)} {weighed[1]:.2f}"


def _probable(weighed: Weighed) -> str:
    return f"{shortened(weighed[0], LONGEST)} {_percent(weighed[1])}"


def _percent(probability: float) -> str:
    """One decimal; of what is rare, two digits."""
    if probability < 1e-6:
        return "<0.0001%"
    if probability >= 0.00995:
        return f"{100 * probability:.1f}%"
    return f"{float(f'{100 * probability:.2g}'):f}".rstrip("0") + "%"


def _header(layers: int) -> list[str]:
    return ["", *(f"layer {number}" for number in range(1, layers + 1))]


def _similarity(similarity: Tensor, pieces: Sequence[str]) -> list[list[str]]:
    """Of each piece, by layer: similarity [L, N]."""
    values = ([f"{value:.2f}" for value in row] for row in similarity.T.tolist())
    return [_header(len(similarity)), *([piece, *row] for piece, row in zip(pieces, values, strict=True))]


def _attention(weights: Tensor, queries: Sequence[str], keys: Sequence[str], top: int) -> list[list[str]]:
    """Where each query looks most, by layer: weights [L, H, T, S]."""
    values, found = weights.mean(1).topk(min(top, weights.shape[-1]), dim=-1)  # [L, T, top]
    rows = [_header(len(weights))]
    for step, query in enumerate(queries):
        cells = []
        for layer_values, layer_found in zip(values[:, step].tolist(), found[:, step].tolist(), strict=True):
            shown = zip(layer_found, layer_values, strict=True)
            cells.append(" ".join(f"{keys[key]} {100 * value:.0f}" for key, value in shown if value >= 0.005))
        rows.append([query, *cells])
    return rows


def _above_zero(explanation: Explanation) -> list[list[str]]:
    stacks = (("encoder", explanation.encoder), ("decoder", explanation.decoder))
    rows = [[name, *(f"{100 * share:.0f}" for share in stack.active.tolist())] for name, stack in stacks]
    return [_header(max(len(row) for row in rows) - 1), *rows]
