"""Peer `torch`: `torch.nn.Transformer` in a plain loop, after torch's own translation tutorial."""

from __future__ import annotations

import math

import torch
from common import PAD, Record, Settings, run_child
from loop import measure_model
from parts import PartClock
from torch import Tensor, nn

MAX_POSITIONS = 1024


def sinusoids(d_model: int) -> Tensor:
    """[MAX_POSITIONS, D], section 3.5 of Vaswani et al. 2017."""
    positions = torch.arange(MAX_POSITIONS)[:, None]
    frequencies = torch.exp(torch.arange(0, d_model, 2) * (-math.log(10000.0) / d_model))
    table = torch.zeros(MAX_POSITIONS, d_model)
    table[:, 0::2] = torch.sin(positions * frequencies)
    table[:, 1::2] = torch.cos(positions * frequencies)
    return table


class TranslationModel(nn.Module):
    """Shared embedding, `nn.Transformer`, tied output layer. Post-norm, ReLU: the defaults of `nn.Transformer`.

    Its one dropout falls on attention weights and inside the feed-forward network too, and there is a LayerNorm at the
    end of each stack: that is how the module comes.
    """

    positions: Tensor

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        d_model = settings.d_model
        self.scale = math.sqrt(d_model)
        self.embedding = nn.Embedding(settings.vocab_size, d_model, padding_idx=PAD)
        self.register_buffer("positions", sinusoids(d_model), persistent=False)
        self.dropout = nn.Dropout(settings.dropout)
        self.transformer = nn.Transformer(
            d_model=d_model,
            nhead=settings.num_heads,
            num_encoder_layers=settings.num_layers,
            num_decoder_layers=settings.num_layers,
            dim_feedforward=settings.d_ff,
            dropout=settings.dropout,
            batch_first=True,
        )
        self.output = nn.Linear(d_model, settings.vocab_size, bias=False)
        nn.init.normal_(self.embedding.weight, std=d_model**-0.5)
        self.output.weight = self.embedding.weight

    def embed(self, ids: Tensor) -> Tensor:
        """[B, T] -> [B, T, D]."""
        return self.dropout(self.embedding(ids) * self.scale + self.positions[: ids.shape[1]])  # type: ignore[no-any-return]

    def forward(self, source: Tensor, target_input: Tensor) -> Tensor:
        """source [B, S], target_input [B, T] -> logits [B, T, V]."""
        length = target_input.shape[1]
        source_padding, target_padding = source == PAD, target_input == PAD
        memory = self.transformer.encoder(self.embed(source), src_key_padding_mask=source_padding)
        states = self.transformer.decoder(
            self.embed(target_input),
            memory,
            tgt_mask=torch.triu(torch.ones(length, length, dtype=torch.bool), diagonal=1),
            tgt_key_padding_mask=target_padding,
            memory_key_padding_mask=source_padding,
        )
        return self.output(states)  # type: ignore[no-any-return]


def measure(settings: Settings) -> Record:
    torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    # Inference in `nn.TransformerEncoder` fails under autocast on a CPU; training does not take this path.
    torch.backends.mha.set_fastpath_enabled(False)
    clock = None
    if settings.parts:
        clock = PartClock(settings)
        clock.watch(TranslationModel, ("forward",), nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)
    return measure_model(TranslationModel(settings), settings, clock)


if __name__ == "__main__":
    run_child(measure)
