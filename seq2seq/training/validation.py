"""The loss on the validation set."""

from __future__ import annotations

import torch

from seq2seq.model.transformer import Transformer
from seq2seq.text.batching import PiecePairs, in_order
from seq2seq.training.updates import batch_losses

LONGEST_VALIDATED = 1024  # pieces a side: attention over a longer line could exhaust memory


@torch.no_grad()
def validation_loss(
    model: Transformer, pairs: PiecePairs, batch_tokens: int, device: torch.device, most: int | None = None
) -> float:
    """Mean -log p of a target token (natural logarithm), unsmoothed, without dropout; of the first `most` pairs.

    Pairs of more than LONGEST_VALIDATED pieces on a side do not count; where all have, there is none: ValueError.
    """
    model.eval()
    total, tokens = 0.0, 0
    for batch in in_order(pairs, batch_tokens, LONGEST_VALIDATED, most):
        _, nll = batch_losses(model, batch.to(device), 0.0)
        total += float(nll)
        tokens += batch.num_target_tokens
    if not tokens:
        raise ValueError(f"no pair of at most {LONGEST_VALIDATED:,} pieces a side to validate with")
    return total / tokens
