"""Scoring given translations (forced decoding): the log-probability of every target piece."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from seq2seq.config import DecodingConfig
from seq2seq.decoding.ensemble import mean
from seq2seq.decoding.hypotheses import Penalty
from seq2seq.decoding.options import Score
from seq2seq.model.transformer import BOS, EOS, PAD, Transformer
from seq2seq.text.tokenizer import Tokenizer

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


def longest_output(model: Transformer) -> int:
    """The most positions that a decoder has, end-of-sentence included; sinusoids have no end."""
    return model.config.max_positions if model.config.positions == "learned" else 2**31


def score_pieces(
    models: Sequence[Transformer], sources: Sequence[Sequence[int]], outputs: Sequence[Sequence[int]], tokens: int
) -> list[list[float]]:
    """Log-probabilities of all pieces of outputs, by the mean probability of the models.

    sources: pieces without end-of-sentence; outputs: pieces with it where they ended. tokens: padded pieces of both
    sides that are scored at once.
    """
    scores: list[list[float]] = [[] for _ in outputs]
    device = models[0].target_embedding.device
    for batch in _batches([(len(s) + 1, len(o)) for s, o in zip(sources, outputs, strict=True)], tokens):
        source = _padded([[*sources[i], EOS] for i in batch]).to(device)
        target_output = _padded([outputs[i] for i in batch]).to(device)
        target_input = _padded([[BOS, *outputs[i][:-1]] for i in batch]).to(device)
        found = mean([score_batch(model, source, target_input, target_output) for model in models]).tolist()
        for i, row in zip(batch, found, strict=True):
            scores[i] = row[: len(outputs[i])]
    return scores


def _batches(sizes: Sequence[tuple[int, int]], tokens: int) -> Iterator[list[int]]:
    """Indices of pairs of similar length, longest first; pairs of sizes (S, T), those without output left out."""
    order = sorted((i for i, (_, target) in enumerate(sizes) if target), key=lambda i: (-sum(sizes[i]), -sizes[i][1]))
    batch: list[int] = []
    width = (0, 0)
    for i in order:
        wider = max(width[0], sizes[i][0]), max(width[1], sizes[i][1])
        if batch and sum(wider) * (len(batch) + 1) > tokens:
            yield batch
            batch, wider = [], sizes[i]
        batch.append(i)
        width = wider
    if batch:
        yield batch


def _padded(rows: Sequence[Sequence[int]]) -> Tensor:
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[PAD] * (longest - len(row))] for row in rows])


def score_lines(
    models: Sequence[Transformer],
    tokenizer: Tokenizer,
    config: DecodingConfig,
    penalty: Penalty,
    pairs: list[tuple[str, str]],
    start: int,
    warn: Callable[[str], None],
) -> list[Score]:
    """Scores of (source, target) lines; `start` is the number of the first. warn: told of lines that are cut."""
    longest = min([config.max_source_length, *(longest_output(model) - 1 for model in models)])
    sources, targets = ([line if line.strip() else "" for line in side] for side in zip(*pairs, strict=True))
    encoded = tokenizer.encode_source(sources), tokenizer.encode_target(targets)
    whole = [max(len(source), len(target)) <= longest for source, target in zip(*encoded, strict=True)]
    for number, (source, target) in enumerate(zip(*encoded, strict=True), start + 1):
        for side, pieces in (("source", source), ("target", target)):
            if len(pieces) > longest:
                warn(f"line {number}: the {side} has {len(pieces):,} pieces; only the first {longest:,} are scored")
    cut = [[pieces[:longest] for pieces in side] for side in encoded]
    outputs = [
        [*target, EOS][: longest if len(all_of_it) > longest else None] if source or target else []
        for source, target, all_of_it in zip(*cut, encoded[1], strict=True)  # what is cut does not end there
    ]
    found = score_pieces(models, cut[0], outputs, config.batch_tokens)
    return [
        Score(
            *pair,
            log_probability=sum(logs),
            score=sum(logs) / penalty(max(1, len(logs))),
            pieces=tuple(tokenizer.target_pieces(target)),
            piece_log_probabilities=tuple(logs),
            complete=complete,
        )
        for pair, target, logs, complete in zip(pairs, cut[1], found, whole, strict=True)
    ]
