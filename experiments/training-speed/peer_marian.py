"""Peer `marian`: Hugging Face's `MarianMTModel` in a plain loop, with either implementation of its attention."""

from __future__ import annotations

import torch
from common import BOS, EOS, PAD, Record, Settings, run_child
from loop import measure_model
from torch import Tensor, nn
from transformers import MarianConfig, MarianMTModel


class TranslationModel(nn.Module):
    """The model as a function of source and target input. `use_cache` is for generation and off, as with `labels`."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        more_dropout = settings.dropout if settings.dropout_everywhere else 0.0
        config = MarianConfig(
            vocab_size=settings.vocab_size,
            d_model=settings.d_model,
            encoder_layers=settings.num_layers,
            decoder_layers=settings.num_layers,
            encoder_attention_heads=settings.num_heads,
            decoder_attention_heads=settings.num_heads,
            encoder_ffn_dim=settings.d_ff,
            decoder_ffn_dim=settings.d_ff,
            activation_function="relu",
            dropout=settings.dropout,
            attention_dropout=more_dropout,
            activation_dropout=more_dropout,
            scale_embedding=True,
            pad_token_id=PAD,
            bos_token_id=BOS,
            eos_token_id=EOS,
            forced_eos_token_id=EOS,
            decoder_start_token_id=BOS,
            attn_implementation=settings.variant,  # type: ignore[call-arg]
        )
        self.marian = MarianMTModel(config)

    def forward(self, source: Tensor, target_input: Tensor) -> Tensor:
        """source [B, S], target_input [B, T] -> logits [B, T, V]."""
        mask = (source != PAD).long()
        outputs = self.marian(source, attention_mask=mask, decoder_input_ids=target_input, use_cache=False)
        logits: Tensor = outputs.logits
        return logits


def measure(settings: Settings) -> Record:
    torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    return measure_model(TranslationModel(settings), settings)


if __name__ == "__main__":
    run_child(measure)
