"""The certificate of an export: what another program computes with it, set against what we compute.

Both translate the same sentences greedily. In float32 the outputs must be the same, piece by piece; where one differs,
our model must have found the two pieces at which they part less than 1e-4 apart in log-probability. Then both score
our outputs, piece by piece, and the scores may differ by so much and no more. Weights that are rounded (int8, bfloat16
and so on) have wider bounds, which stand in the certificate beside the figures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from seq2seq.config import DecodingConfig
from seq2seq.decoding.translator import Translator
from seq2seq.export.sentences import Sentences
from seq2seq.model.transformer import BOS, EOS, Transformer
from seq2seq.text.batching import pad
from seq2seq.text.tokenizer import Tokenizer

BATCH = 16  # sentences that are computed together
MOST_LISTED = 20  # differing sentences that are written down


@dataclass(frozen=True)
class Bounds:
    """What an export may differ by.

    margin: a differing sentence is excused where our log-probabilities of the two pieces at which the outputs part are
    no further apart. largest, mean: differences in the log-probability of a piece of our outputs. identical: the least
    share of sentences with identical outputs, where they are text.
    """

    margin: float
    largest: float
    mean: float
    identical: float


def bounds_for(quantization: str, *, made_up: bool = False) -> Bounds:
    """float32 leaves the order of summation only; 16 bits of which 8 or 11 count, then 8 bits, leave more.

    made_up: the sentences are no text. Nearly all choices are close then, so that any number of outputs may differ.
    """
    if quantization == "float32":
        return Bounds(margin=1e-4, largest=1e-3, mean=1e-4, identical=0.0)
    if quantization.startswith("int8"):
        return Bounds(margin=0.5, largest=2.0, mean=0.05, identical=0.0 if made_up else 0.5)
    return Bounds(margin=0.25, largest=0.5, mean=0.02, identical=0.0 if made_up else 0.8)


class Foreign(Protocol):
    """An export at work."""

    def greedy(self, sources: Sequence[Sequence[int]], limits: Sequence[int]) -> list[list[int]]: ...


@dataclass(frozen=True)
class Difference:
    """A sentence that came out differently: its number from 1, the first differing piece from 1, and how close it was.

    margin: our log-probability of our piece there, less that of theirs; infinite where theirs must not be generated.
    """

    sentence: int
    position: int
    margin: float
    ours: str
    theirs: str


@dataclass(frozen=True)
class Outputs:
    """Greedy outputs for sources: ids, end-of-sentence included where it came."""

    sources: list[list[int]]
    limits: list[int]
    ours: list[list[int]]
    theirs: list[list[int]]


def translate_both(
    model: Transformer, tokenizer: Tokenizer, decoding: DecodingConfig, foreign: Foreign, lines: Sequence[str]
) -> Outputs:
    """Greedy search by us and by the export."""
    found = Translator.of(model, tokenizer, decoding).translate(list(lines), beam_size=1)
    ids = {piece: i for i, piece in enumerate(tokenizer.target_pieces(range(tokenizer.target_vocab_size)))}
    best = [result.hypotheses[0] for result in found]
    ours = [[ids[piece] for piece in one.pieces] + [EOS] * one.ended for one in best]
    longest = min(decoding.max_source_length, model.config.longest - 1)
    sources = [pieces[:longest] for pieces in tokenizer.encode_source(list(lines))]
    limits = [longest_output(model, decoding, len(source)) for source in sources]
    theirs: list[list[int]] = [[] for _ in sources]
    for batch in batches(sources):
        for i, output in zip(
            batch, foreign.greedy([sources[i] for i in batch], [limits[i] for i in batch]), strict=True
        ):
            theirs[i] = output
    return Outputs(sources, limits, ours, theirs)


def longest_output(model: Transformer, decoding: DecodingConfig, source_pieces: int) -> int:
    """Pieces that an output may have, end-of-sentence included."""
    return min(source_pieces + decoding.max_extra_length, model.config.longest)


def batches(sources: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Indices of sources of similar length, a few at a time."""
    order = sorted(range(len(sources)), key=lambda i: len(sources[i]))
    for start in range(0, len(order), BATCH):
        yield order[start : start + BATCH]


@torch.inference_mode()
def our_logits(
    model: Transformer, sources: Sequence[Sequence[int]], outputs: Sequence[Sequence[int]]
) -> tuple[Tensor, Tensor, Tensor]:
    """Our logits for given outputs, [B, T, V], with the source [B, S] and the target input [B, T] that they are of."""
    source, target_input = pad(sources, end=EOS), pad([row[:-1] for row in outputs], start=BOS)
    return model(source, target_input), source, target_input


def find_differences(model: Transformer, tokenizer: Tokenizer, outputs: Outputs) -> list[Difference]:
    """The sentences whose outputs are not identical."""
    found = []
    for i, (ours, theirs) in enumerate(zip(outputs.ours, outputs.theirs, strict=True)):
        if ours == theirs:
            continue
        pairs = zip(ours, theirs, strict=False)
        position = next((t for t, (own, other) in enumerate(pairs) if own != other), min(len(ours), len(theirs)))
        margin = math.inf
        if position < min(len(ours), len(theirs)) and theirs[position] >= EOS:
            logits, _, _ = our_logits(model, [outputs.sources[i]], [ours])
            margin = float(logits[0, position, ours[position]] - logits[0, position, theirs[position]])
        texts = tokenizer.decode([ours, theirs])
        found.append(Difference(i + 1, position + 1, margin, *texts))
    return found


@dataclass(frozen=True)
class Errors:
    """Absolute differences between two columns of numbers."""

    largest: float
    mean: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Errors:
        array = np.nan_to_num(np.abs(np.array(values, dtype=np.float64)), nan=math.inf, posinf=math.inf)
        return cls(float(array.max(initial=0.0)), float(array.mean()) if len(array) else 0.0, len(array))


def log_probability_errors(
    model: Transformer,
    outputs: Outputs,
    theirs: Callable[[list[list[int]], list[list[int]]], list[list[float]]],
) -> Errors:
    """Differences in the log-probability of every piece of our outputs; theirs(sources, outputs) are the others."""
    errors: list[float] = []
    missing = 0  # outputs of which the export gave other numbers than one a piece
    for batch in batches(outputs.sources):
        sources, ours = [outputs.sources[i] for i in batch], [outputs.ours[i] for i in batch]
        logits, _, _ = our_logits(model, sources, ours)
        own = logits.log_softmax(2, dtype=torch.float32).gather(2, pad(ours)[..., None]).squeeze(2)
        for row, other, ids in zip(own.tolist(), theirs(sources, ours), ours, strict=True):
            errors.extend(x - y for x, y in zip(row, other, strict=False))
            missing += len(other) != len(ids)
    return Errors.of([*errors, *[math.inf] * missing])


def logit_errors(
    model: Transformer, outputs: Outputs, theirs: Callable[[Tensor, Tensor], Tensor]
) -> tuple[Errors, Errors]:
    """Differences in the log-probability of every piece of our outputs, and in all logits there.

    theirs(source, target input) are the logits of the export, of the shape of ours.
    """
    largest, total, count = 0.0, 0.0, 0  # there are too many logits to keep
    errors: list[float] = []
    for batch in batches(outputs.sources):
        ours = [outputs.ours[i] for i in batch]
        logits, source, target_input = our_logits(model, [outputs.sources[i] for i in batch], ours)
        for row, other, ids in zip(logits, theirs(source, target_input), ours, strict=True):
            row, other = row[: len(ids)], other[: len(ids)]
            differences = (row - other).abs()
            largest = max(largest, float(differences.max())) if bool(differences.isfinite().all()) else math.inf
            total, count = total + float(differences.double().sum()), count + differences.numel()
            chosen = list(range(len(ids))), ids
            errors.extend((row.log_softmax(1)[chosen] - other.log_softmax(1)[chosen]).tolist())
    return Errors.of(errors), Errors(largest, total / max(count, 1), count)


@dataclass(frozen=True)
class Findings:
    """Everything that was compared. logits: where the export gives them. remarks: whatever else is wrong."""

    sentences: Sentences
    outputs: Outputs
    differences: list[Difference]
    log_probabilities: Errors
    logits: Errors | None = None
    remarks: tuple[str, ...] = ()

    def problems(self, bounds: Bounds) -> list[str]:
        """What exceeds its bound, in words; nothing where the export passes."""
        problems = list(self.remarks)
        wrong = [one for one in self.differences if not abs(one.margin) <= bounds.margin]
        if wrong:
            where = ", ".join(str(one.sentence) for one in wrong[:5])
            problems.append(
                f"{len(wrong)} of {len(self.sentences.lines)} translations differ where the choice was not within "
                f"{bounds.margin:g} (lines {where}{', ...' if len(wrong) > 5 else ''})"
            )
        if self.identical < bounds.identical:
            problems.append(f"only {self.identical:.1%} of the translations are identical, {bounds.identical:.0%} must")
        for name, errors in (("log-probabilities", self.log_probabilities), ("logits", self.logits)):
            if errors is not None and not errors.largest <= bounds.largest:
                problems.append(f"{name} differ by up to {errors.largest:.3g}, more than {bounds.largest:g}")
            if errors is not None and not errors.mean <= bounds.mean:
                problems.append(f"{name} differ by {errors.mean:.3g} on average, more than {bounds.mean:g}")
        return problems

    @property
    def identical(self) -> float:
        """The share of sentences with identical outputs."""
        return 1.0 - len(self.differences) / len(self.sentences.lines)

    def as_dict(self, bounds: Bounds) -> dict[str, Any]:
        """For certificate.json."""
        excused = sum(one.margin <= bounds.margin for one in self.differences)
        listed = [
            {**asdict(one), "margin": one.margin if math.isfinite(one.margin) else None, "source": self.source(one)}
            for one in self.differences[:MOST_LISTED]
        ]
        return {
            "sentences": {
                "origin": self.sentences.origin,
                "count": len(self.sentences.lines),
                "sha256": self.sentences.sha256(),
            },
            "search": "greedy",
            "identical": len(self.sentences.lines) - len(self.differences),
            "differing_at_close_choices": excused,
            "differing": listed,
            "log_probabilities": asdict(self.log_probabilities),
            **({"logits": asdict(self.logits)} if self.logits is not None else {}),
            "bounds": asdict(bounds),
        }

    def source(self, difference: Difference) -> str:
        return self.sentences.lines[difference.sentence - 1]
