"""The rows of Table 3 (Vaswani et al. 2017) and what they become for a model of Multi30k's size.

The paper varies its base model: 6 layers, d_model 512, d_ff 2048, 8 heads of 64, dropout 0.1. Here the base is preset
`tiny`: 4 layers, d_model 128, d_ff 256, 4 heads of 32, dropout 0.3. A row changes the same thing by the same factor,
where that is possible. Two differences cannot be helped: this project's heads have one size for keys and values, so
row B shrinks both where the paper shrinks keys only; and dropout goes from 0.3 to 0 and to 0.5, because what the paper
doubles cannot be doubled here.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """label: what is varied. paper: (perplexity per word piece, BLEU) on newstest2013, from the paper's table."""

    name: str
    label: str
    settings: tuple[str, ...]
    paper_label: str
    paper: tuple[float, float]


def layers(count: int) -> tuple[str, ...]:
    """The settings of as many layers in each stack."""
    return (f"model.num_encoder_layers={count}", f"model.num_decoder_layers={count}")


BASE = Row("base", "base", (), "base", (4.92, 25.8))
ROWS = (
    BASE,
    Row("A-1", "1 head of 128", ("model.num_heads=1",), "1 head of 512", (5.29, 24.9)),
    Row("A-2", "2 heads of 64", ("model.num_heads=2",), "4 heads of 128", (5.00, 25.5)),
    Row("A-8", "8 heads of 16", ("model.num_heads=8",), "16 heads of 32", (4.91, 25.8)),
    Row("A-16", "16 heads of 8", ("model.num_heads=16",), "32 heads of 16", (5.01, 25.4)),
    Row("B-8", "keys of 8", ("model.head_size=8",), "keys of 16", (5.16, 25.1)),
    Row("B-16", "keys of 16", ("model.head_size=16",), "keys of 32", (5.01, 25.4)),
    Row("C-layers-1", "1 + 1 layers", layers(1), "2 + 2 layers", (6.11, 23.7)),
    Row("C-layers-3", "3 + 3 layers", layers(3), "4 + 4 layers", (5.19, 25.3)),
    Row("C-layers-5", "5 + 5 layers", layers(5), "8 + 8 layers", (4.88, 25.5)),
    Row("C-width-64", "d_model 64", ("model.d_model=64",), "d_model 256", (5.75, 24.5)),
    Row("C-width-256", "d_model 256", ("model.d_model=256",), "d_model 1024", (4.66, 26.0)),
    Row("C-ff-128", "d_ff 128", ("model.d_ff=128",), "d_ff 1024", (5.12, 25.4)),
    Row("C-ff-512", "d_ff 512", ("model.d_ff=512",), "d_ff 4096", (4.75, 26.2)),
    Row("D-dropout-0", "dropout 0", ("model.dropout=0.0",), "dropout 0", (5.77, 24.6)),
    Row("D-dropout-0.5", "dropout 0.5", ("model.dropout=0.5",), "dropout 0.2", (4.95, 25.5)),
    Row("D-smoothing-0", "no label smoothing", ("training.label_smoothing=0.0",), "the same", (4.67, 25.3)),
    Row("D-smoothing-0.2", "label smoothing 0.2", ("training.label_smoothing=0.2",), "the same", (5.47, 25.7)),
    Row("E-learned", "learned positions", ('model.positions="learned"',), "the same", (4.92, 25.7)),
    Row(
        "big",
        "d_model 256, d_ff 512, 8 heads",
        ("model.d_model=256", "model.d_ff=512", "model.num_heads=8"),
        "big, 300,000 steps",
        (4.33, 26.4),
    ),
)  # fmt: skip
