"""Scoring given translations: the log-probability of every target piece."""

from __future__ import annotations

import torch
from torch import Tensor

from seq2seq.model.transformer import PAD, Transformer

ROWS_AT_ONCE = 1024  # positions whose float32 distribution over the vocabulary is in memory at a time


@torch.inference_mode()
def score_batch(model: Transformer, source: Tensor, target_input: Tensor, target_output: Tensor) -> Tensor:
    """log P(piece | source, pieces before it), float32 [B, T], 0 where target_output is padding.

    source `pieces eos` [B, S], target_input `bos pieces` and target_output `pieces eos` [B, T], padded at the end.
    The sum over T is the log-probability of the sentence, end-of-sentence included.
    """
    assert not model.training, "scoring needs model.eval()"
    if target_input.shape != target_output.shape or len(source) != len(target_input):
        raise ValueError(
            f"shapes do not fit: source {tuple(source.shape)}, target_input {tuple(target_input.shape)}, "
            f"target_output {tuple(target_output.shape)}"
        )
    scores = torch.zeros(target_output.shape, device=target_output.device)
    states = model.decoder_states(target_input, *model.encode(source))
    real = target_output != PAD
    states, pieces = states[real], target_output[real]  # [N, D], [N]
    chunks = [
        model.project(some).log_softmax(1, dtype=torch.float32).gather(1, ids[:, None])
        for some, ids in zip(torch.split(states, ROWS_AT_ONCE), torch.split(pieces, ROWS_AT_ONCE), strict=True)
    ]
    if chunks:
        scores[real] = torch.cat(chunks).squeeze(1)
    return scores
