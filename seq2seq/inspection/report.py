"""An explanation as plain text: one block a stage of the network, in the order in which a sentence meets them."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from torch import Tensor

from seq2seq.inspection.explaining import Explanation, Weighed

GAP = "  "


def format_explanation(explanation: Explanation, top: int = 3) -> str:
    """For people. top: how many places attention is shown at. Ends without a line break."""
    e = explanation
    sources, outputs = _labels(e.source_pieces), _labels(e.target_pieces)
    inputs = ["<s>", *outputs[:-1]]
    return "\n\n".join(
        [
            f"source       {e.source}\ntranslation  {e.translation}{'  (given)' if e.given else ''}",
            _block(
                "Embeddings (3.4): the pieces of the source, and those whose embeddings are most like theirs (cosine)",
                [
                    [str(number), piece, *map(_weighed, similar)]
                    for number, (piece, similar) in enumerate(zip(e.source_pieces, e.neighbours, strict=True), 1)
                ],
            ),
            _block(
                "Encoder: how much a piece is still like its embedding after each layer (cosine)",
                _per_layer(e.encoder.similarity, sources),
            ),
            _block(
                f"Encoder self-attention (3.2): where each piece looks, percent, mean of {_heads(e.encoder.attention)}",
                _attention(e.encoder.attention, sources, sources, top),
            ),
            _block(
                "Decoder self-attention: where each step looks among the pieces that are written already",
                _attention(e.decoder.attention, outputs, inputs, top),
            ),
            _block(
                "Attention to the source: where each step looks in the encoder's output",
                _attention(e.cross_attention, outputs, sources, top),
            ),
            _block(
                "Layer by layer: what each step would write, if the output projection came right after the layer",
                [
                    _header(len(e.by_layer)),
                    *([piece, *map(_weighed, guesses)] for piece, *guesses in zip(outputs, *e.by_layer, strict=True)),
                ],
            ),
            _block("Feed-forward networks (3.3): neurons above 0, in percent", _awake(e)),
            _block(
                "Probabilities (3.4): of each piece that is written, and the most probable ones",
                [
                    [str(number), piece, f"{probability:.3f}", *map(_weighed, candidates)]
                    for number, (piece, probability, candidates) in enumerate(
                        zip(e.target_pieces, e.probabilities.tolist(), e.candidates, strict=True), 1
                    )
                ],
            ),
            f"log-probability {e.log_probability:.4f}, {e.log_probability / len(e.target_pieces):.4f} a piece",
        ]
    )


def _block(title: str, rows: Sequence[Sequence[str]]) -> str:
    """Cells in columns as wide as their widest; wide characters count twice, combining ones not at all."""
    columns = max(map(len, rows))
    widths = [max(cell_len(row[i]) for row in rows if i < len(row)) for i in range(columns)]
    lines = (
        GAP.join(cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=False)).rstrip()
        for row in rows
    )
    return "\n".join([title, *(f"{GAP}{line}" for line in lines)])


def _labels(pieces: Sequence[str]) -> list[str]:
    """Pieces, with their number behind those that come more than once."""
    numbered = enumerate(pieces, 1)
    return [f"{piece}({number})" if pieces.count(piece) > 1 else piece for number, piece in numbered]


def _weighed(weighed: Weighed) -> str:
    return f"{weighed[0]} {weighed[1]:.3f}"


def _header(layers: int) -> list[str]:
    return ["", *(f"layer {number}" for number in range(1, layers + 1))]


def _heads(attention: Tensor) -> str:
    return "one head" if attention.shape[1] == 1 else f"{attention.shape[1]} heads"


def _per_layer(values: Tensor, pieces: Sequence[str]) -> list[list[str]]:
    """values [L, N]: a row a piece, a column a layer."""
    rows = ([piece, *(f"{value:.2f}" for value in row)] for piece, row in zip(pieces, values.T.tolist(), strict=True))
    return [_header(len(values)), *rows]


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


def _awake(explanation: Explanation) -> list[list[str]]:
    stacks = (("encoder", explanation.encoder), ("decoder", explanation.decoder))
    rows = [[name, *(f"{100 * share:.0f}" for share in stack.active.tolist())] for name, stack in stacks]
    return [_header(max(len(row) for row in rows) - 1), *rows]
