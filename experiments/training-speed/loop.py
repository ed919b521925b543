"""The plain training loop of the peers that are models only: batches by length, torch's loss, Adam and autocast.

What the documentation of torch shows, with token batches instead of a fixed number of sentences.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from common import BOS, EOS, PAD, Record, Settings, peak_memory_bytes
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence


@dataclass(frozen=True)
class Corpus:
    """Encoded pairs: sources are `pieces eos`, targets `bos pieces eos`, int64."""

    sources: list[Tensor]
    targets: list[Tensor]

    def batch(self, indices: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        """source [B, S], target input [B, T] and target output [B, T], padded at the end."""
        source = pad_sequence([self.sources[i] for i in indices], batch_first=True, padding_value=PAD)
        target = pad_sequence([self.targets[i] for i in indices], batch_first=True, padding_value=PAD)
        return source, target[:, :-1], target[:, 1:]

    def num_target_tokens(self, indices: list[int]) -> int:
        """Pieces and ends of sentences that are predicted."""
        return sum(len(self.targets[i]) - 1 for i in indices)


def load_corpus(settings: Settings, split: str) -> Corpus:
    """split: "train" or "valid"."""
    arrays = np.load(settings.corpus_path)
    bos, eos = torch.tensor([BOS]), torch.tensor([EOS])

    def sentences(side: str) -> Sequence[Tensor]:
        values = torch.from_numpy(arrays[f"{split}_{side}_values"])
        return torch.split(values, arrays[f"{split}_{side}_lengths"].tolist())

    sources = [torch.cat([pieces, eos]) for pieces in sentences("source")]
    return Corpus(sources, [torch.cat([bos, pieces, eos]) for pieces in sentences("target")])


def token_batches(corpus: Corpus, max_tokens: int) -> list[list[int]]:
    """Batches of similar lengths, at most `max_tokens` padded target tokens and twice as many source tokens each."""
    sources, targets = corpus.sources, corpus.targets
    batches: list[list[int]] = [[]]
    longest_source = longest_target = 0
    for i in sorted(range(len(targets)), key=lambda i: (len(targets[i]), len(sources[i]))):
        longest_source = max(longest_source, len(sources[i]))
        longest_target = max(longest_target, len(targets[i]) - 1)
        size = len(batches[-1]) + 1
        if batches[-1] and (size * longest_target > max_tokens or size * longest_source > 2 * max_tokens):
            batches.append([])
            longest_source, longest_target = len(sources[i]), len(targets[i]) - 1
        batches[-1].append(i)
    return batches


def padding(lengths: list[int], batches: list[list[int]]) -> float:
    """Which part of the padded tokens of one side is padding, 0 to 1. lengths: of every sentence."""
    padded = sum(max(lengths[i] for i in batch) * len(batch) for batch in batches)
    return 1.0 - sum(lengths[i] for batch in batches for i in batch) / padded


def epochs(batches: list[list[int]], seed: int) -> Iterator[list[int]]:
    """The batches over and over, shuffled anew each time."""
    generator = random.Random(seed)
    while True:
        yield from generator.sample(batches, len(batches))


def autocast(settings: Settings) -> torch.autocast:
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=settings.precision == "bf16")


def train(model: nn.Module, settings: Settings, corpus: Corpus, batches: list[list[int]]) -> Record:
    """Trains for the given steps and returns the tokens and seconds of the timed ones.

    model: source [B, S], target input [B, T] -> logits [B, T, V].
    """
    betas = (settings.adam_beta1, settings.adam_beta2)
    optimizer = torch.optim.Adam(model.parameters(), lr=1.0, betas=betas, eps=1e-9)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: settings.learning_rate(step + 1))
    criterion = nn.CrossEntropyLoss(ignore_index=PAD, label_smoothing=settings.label_smoothing)
    upcoming = epochs(batches, settings.seed)
    model.train()
    tokens, started = 0, time.perf_counter()
    for step in range(settings.total_steps):
        if step == settings.warmup_steps:
            tokens, started = 0, time.perf_counter()
        indices = next(upcoming)
        source, target_input, target_output = corpus.batch(indices)
        optimizer.zero_grad()
        with autocast(settings):
            logits = model(source, target_input)
            loss = criterion(logits.flatten(0, 1), target_output.flatten())
        loss.backward()
        optimizer.step()
        scheduler.step()
        tokens += corpus.num_target_tokens(indices)
    seconds = time.perf_counter() - started
    return {"target_tokens": tokens, "seconds": seconds, "target_tokens_per_second": tokens / seconds}


@torch.no_grad()
def validation_nll(model: nn.Module, settings: Settings) -> float:
    """Mean -log p of a target token of the validation set (natural logarithm), unsmoothed, without dropout.

    The model runs in the precision that it was trained in; softmax and sum are float32.
    """
    corpus = load_corpus(settings, "valid")
    model.eval()
    total, tokens = 0.0, 0
    for indices in token_batches(corpus, settings.batch_tokens):
        source, target_input, target_output = corpus.batch(indices)
        with autocast(settings):
            logits = model(source, target_input)
        flat, targets = logits.float().flatten(0, 1), target_output.flatten()
        total += float(F.cross_entropy(flat, targets, ignore_index=PAD, reduction="sum"))
        tokens += corpus.num_target_tokens(indices)
    return total / tokens


def measure_model(model: nn.Module, settings: Settings, clock: Any = None) -> Record:
    """The whole measurement of a model in the plain loop. clock: the PartClock that watches it, if any."""
    corpus = load_corpus(settings, "train")
    batches = token_batches(corpus, settings.batch_tokens)
    record = train(model, settings, corpus, batches)
    if clock is not None:
        return {"milliseconds_per_step": clock.milliseconds_per_step(), "target_tokens": record["target_tokens"]}
    return {
        **record,
        "validation_nll": validation_nll(model, settings),
        "padding_source": padding([len(source) for source in corpus.sources], batches),
        "padding_target": padding([len(target) - 1 for target in corpus.targets], batches),
        "parameters": sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
        "pairs": len(corpus.targets),
        "peak_memory_bytes": peak_memory_bytes(),
    }
