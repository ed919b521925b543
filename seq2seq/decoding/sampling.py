"""Sampling translations: temperature, top-k (Fan et al. 2018) and top-p (Holtzman et al. 2020).

What is drawn for a sentence is a function of that sentence's seed: a counter-based generator gives one uniform number
a step, and the inverse of the cumulative distribution turns it into a piece. Other sentences of the batch have no part
in it, beyond what they change in the last bits of torch's sums where there are no compiled kernels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from seq2seq.decoding.beam import Choice, follow
from seq2seq.decoding.constraints import Constraints
from seq2seq.decoding.hypotheses import Hypothesis, Penalty
from seq2seq.decoding.options import Normalization
from seq2seq.decoding.scorer import Predictions, Scorer
from seq2seq.model.transformer import Transformer

LEAST_TEMPERATURE = 1e-30  # what is lower, or higher than one by it, is taken for it: float32 has neither


def sentence_seed(seed: int, line: int) -> int:
    """The seed of one input line, both numbers below 2^64: no two pairs share one."""
    if not (0 <= seed < 2**64 and 0 <= line < 2**64):
        raise ValueError(f"seed = {seed} and line = {line} must be from 0 to 2^64 - 1")
    return seed << 64 | line


@torch.inference_mode()
def sample(
    model: Transformer | Scorer,
    source: Tensor,
    max_lengths: Tensor | Sequence[int],
    *,
    seeds: Sequence[int],
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    length_penalty: float = 0.6,
    length_normalization: Normalization = "wu",
    draws: int = 1,
    constraints: Constraints | None = None,
) -> list[Hypothesis]:
    """Draws outputs for the sources [B, S], as long as `max_lengths` [B] at most, end-of-sentence included.

    draws: outputs a sentence, which share its encoding; they come side by side, B * draws in all. seeds: one an
    output, from 0 to 2^128 - 1 (see `sentence_seed`). Logits are divided by the temperature, then the top_k most
    probable pieces are kept (0: all), then the smallest set of the most probable that holds top_p of what is left.
    Constraints rule pieces out before all three (where they leave nothing, the sentence ends). The reported
    log-probabilities are the model's own, if constraints set nothing but -inf. Raises ValueError for arguments out of
    range.
    """
    if draws < 1:
        raise ValueError(f"draws = {draws} must be at least 1")
    if len(seeds) != len(source) * draws:
        raise ValueError(f"seeds has {len(seeds)} numbers: give one for each of {len(source) * draws} outputs")
    limits = torch.as_tensor(max_lengths)
    longest = max(int(limits.max()), 0) if len(limits) else 0
    draw = drawing(seeds, longest, temperature, top_k, top_p, source.device)
    penalty = Penalty(length_penalty, length_normalization)
    return follow(model, source, max_lengths, draw, penalty, draws=draws, constraints=constraints)


def drawing(
    seeds: Sequence[int], longest: int, temperature: float, top_k: int, top_p: float, device: torch.device
) -> Choice:
    """A choice of pieces for `follow`, at random. Errors as for `sample`."""
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature = {temperature} must be above 0")
    if top_k < 0:
        raise ValueError(f"top_k = {top_k} must be 0 (off) or more")
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p = {top_p} must be above 0 and at most 1")
    if any(not 0 <= seed < 2**128 for seed in seeds):
        raise ValueError("seeds must be from 0 to 2^128 - 1")
    drawn = np.zeros((len(seeds), longest))
    for row, seed in zip(drawn, seeds, strict=True):
        row[:] = np.random.Generator(np.random.Philox(key=seed)).random(longest)
    uniforms = torch.from_numpy(drawn).to(device)  # [outputs, steps]

    def draw(predictions: Predictions, outputs: Tensor, step: int) -> tuple[Tensor, Tensor]:
        log_probabilities = predictions.all()
        probabilities, ids = kept_probabilities(log_probabilities, temperature, top_k, top_p)
        cumulative = probabilities.cumsum(1, dtype=torch.float64)
        wanted = uniforms[outputs, step][:, None] * cumulative[:, -1:]
        index = torch.searchsorted(cumulative, wanted, right=True)  # the first whose sum exceeds it: never of weight 0
        index = index.clamp_max(cumulative.shape[1] - 1)  # beyond it where there is NaN, which is an error in the end
        chosen = index if ids is None else ids.gather(1, index)
        return log_probabilities.gather(1, chosen), chosen

    return draw


def kept_probabilities(
    log_probabilities: Tensor, temperature: float, top_k: int, top_p: float
) -> tuple[Tensor, Tensor | None]:
    """What is drawn from, given log-probabilities [R, V]: weights [R, n], 0 for what is dropped, and their ids [R, n].

    Ids are None where the weights stand in vocabulary order.
    """
    # The largest becomes 0 before the division: no temperature is too small.
    divisor = min(max(temperature, LEAST_TEMPERATURE), 1 / LEAST_TEMPERATURE)
    scaled = (log_probabilities - log_probabilities.amax(1, keepdim=True)) / divisor
    if top_k == 0 and top_p == 1:
        return scaled.softmax(1), None
    size = scaled.shape[1]
    if top_k == 0:
        scaled, ids = scaled.sort(dim=1, descending=True, stable=True)
    else:
        scaled, ids = scaled.topk(min(top_k, size), dim=1)
    probabilities = scaled.softmax(1)
    before = probabilities.cumsum(1) - probabilities
    return probabilities.masked_fill(before >= top_p, 0.0), ids
