"""Scoring given translations (forced decoding): the log-probability of every target piece."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from seq2seq.config import DecodingConfig
from seq2seq.decoding.ensemble import mean
from seq2seq.decoding.hypotheses import Penalty
from seq2seq.decoding.options import Score
from seq2seq.model import native
from seq2seq.model.packed import Sentences
from seq2seq.model.transformer import BOS, EOS, PAD, Transformer
from seq2seq.text.batching import pad
from seq2seq.text.tokenizer import Tokenizer
from seq2seq.workers import Workers

FEWEST_ROWS = 64  # of a thread's
ROWS_AT_ONCE = 1024  # positions whose logits are in memory at a time


@torch.inference_mode()
def score_batch(
    model: Transformer, source: Tensor, target_input: Tensor, target_output: Tensor, rows_at_once: int | None = None
) -> Tensor:
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
    scores = torch.zeros(target_output.shape, dtype=torch.float32, device=target_output.device)
    real = target_output != PAD
    some = real.any(1)  # of the others there is nothing to score
    if some.any():
        source, target_input, pieces = source[some], target_input[real], target_output[real]
        states = _packed_states(model, source, target_input, real[some].sum(1))
        chunks = zip(*(torch.split(x, rows_at_once or ROWS_AT_ONCE) for x in (states, pieces)), strict=True)
        scores[real] = torch.cat([_log_probabilities(model.project(rows), ids) for rows, ids in chunks])
    return scores


def _packed_states(model: Transformer, source: Tensor, target_input: Tensor, target_lengths: Tensor) -> Tensor:
    """The decoder's states [N, D] for sources [B, S], padded, and target_input [N], packed."""
    pieces, device = source != PAD, source.device
    sources, targets = (
        Sentences.of(F.pad(lengths.cumsum(0), (1, 0)).cpu()) for lengths in (pieces.sum(1), target_lengths)
    )
    return model.packed_states(source[pieces], sources.to(device), target_input, targets.to(device))


def _log_probabilities(logits: Tensor, pieces: Tensor) -> Tensor:
    """Those of one piece a row, float32 [N], of logits [N, V], which may be overwritten."""
    if not (native.usable(logits) and native.usable_ids(pieces)):
        return logits.log_softmax(1, dtype=torch.float32).gather(1, pieces[:, None]).squeeze(1)
    count, vocabulary = logits.shape
    native.check_ids(pieces, vocabulary)
    nll, uniform, inverse = native.floats(3, count).unbind()
    native.call("cross_entropy", logits.dtype, logits, nll, uniform, inverse, pieces, count, vocabulary, 0.0, 0)
    return nll.neg()


def score_pieces(
    models: Sequence[Transformer], sources: Sequence[Sequence[int]], outputs: Sequence[Sequence[int]], tokens: int
) -> list[list[float]]:
    """Log-probabilities of all pieces of outputs, by the mean probability of the models.

    sources: pieces without end-of-sentence; outputs: pieces with it where they ended. tokens: padded pieces of both
    sides that are scored at once.
    """
    scores: list[list[float]] = [[] for _ in outputs]
    device = models[0].target_embedding.device

    def score(batch: list[int]) -> Tensor:
        source = pad([sources[i] for i in batch], end=EOS).to(device)
        target_output = pad([outputs[i] for i in batch]).to(device)
        target_input = pad([outputs[i][:-1] for i in batch], start=BOS).to(device)
        return mean([score_batch(model, source, target_input, target_output, rows) for model in models])

    batches = list(_batches([(len(s) + 1, len(o)) for s, o in zip(sources, outputs, strict=True)], tokens))
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    with Workers(min(threads, max(1, len(batches)))) as workers:
        rows = max(FEWEST_ROWS, ROWS_AT_ONCE // workers.count)
        for batch, found in zip(batches, workers.map(score, batches), strict=True):
            for i, row in zip(batch, found.tolist(), strict=True):
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


def score_lines(
    models: Sequence[Transformer],
    tokenizer: Tokenizer,
    config: DecodingConfig,
    penalty: Penalty,
    pairs: list[tuple[str, str]],
    start: int,
    warn: Callable[[str], None],
) -> list[Score]:
    """Scores of (source, target) lines; `start` is the number of the first. warn: told of lines that are
    cut, and of text that the model does not know.
    """
    longest = min([config.max_source_length, *(model.config.longest - 1 for model in models)])
    sources, targets = ([line if line.strip() else "" for line in side] for side in zip(*pairs, strict=True))
    encoded = tokenizer.encode_source(sources), tokenizer.encode_target(targets)
    whole = [max(len(source), len(target)) <= longest for source, target in zip(*encoded, strict=True)]
    sides: Sequence[Literal["source", "target"]] = ("source", "target")
    for side, lines, of_lines in zip(sides, (sources, targets), encoded, strict=True):
        for number, (line, pieces) in enumerate(zip(lines, of_lines, strict=True), start + 1):
            if len(pieces) > longest:
                warn(f"line {number}: the {side} has {len(pieces):,} pieces; only the first {longest:,} are scored")
            if unknown := " ".join(tokenizer.unknown_text(line, pieces, side)):
                warn(
                    f"line {number}: the {side} has text that the model does not know, taken as <unk>: {unknown!r:.60}"
                )
    cut = [[pieces[:longest] for pieces in side] for side in encoded]
    outputs = [
        [*target, EOS][: longest if len(all_of_it) > longest else None] if source or target else []
        for source, target, all_of_it in zip(*cut, encoded[1], strict=True)  # what is cut does not end there
    ]
    found = score_pieces(models, cut[0], outputs, config.batch_tokens)
    return [
        Score(
            *pair,
            log_probability=math.fsum(logs),
            score=math.fsum(logs) / penalty(max(1, len(logs))),
            pieces=tuple(tokenizer.target_pieces(target)),
            piece_log_probabilities=tuple(logs),
            complete=complete,
        )
        for pair, target, logs, complete in zip(pairs, cut[1], found, whole, strict=True)
    ]
