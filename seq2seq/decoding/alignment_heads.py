"""Which head of the decoder's attention to the source gives the best word alignments, found without any by people."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from seq2seq.decoding.alignment import MEAN, attention_to_source, batches_of_pairs
from seq2seq.decoding.options import check_list, text_of
from seq2seq.errors import OptionError
from seq2seq.model.transformer import EOS
from seq2seq.run import Run


@dataclass(frozen=True)
class AlignmentHead:
    """A choice for `[decoding]`: alignment_layer and alignment_head, both from 0 (head -1: the mean of a layer's).

    information, late: see `choose_alignment_head`.
    """

    layer: int
    head: int
    information: float
    late: bool


@torch.inference_mode()
def choose_alignment_head(run: str | Path | Run, sources: Sequence[str], targets: Sequence[str]) -> list[AlignmentHead]:
    """All layers and heads (-1: their mean), the best for aligning first, judged on sentences and their translations.

    Judged by the information, in nats a sentence, that a target position has about the source position it looks at: the
    entropy of the sentence's mean attention, less the mean entropy of its positions. It is high where every position
    looks at few pieces and different positions at different ones; a head that always looks at one place, such as the
    end of the sentence, has none, and so has one that looks everywhere. Heads that are `late` come last: what they look
    at says more of the target piece before than of the one that is about to be written, and as alignments they would be
    off by one. That takes a hundred sentences or so to be told; no alignments by people are needed. Raises OptionError
    where there are no sentences, or not as many of each.
    """
    run = run if isinstance(run, Run) else Run.open(Path(run))
    model, tokenizer = run.load_model(), run.tokenizer()
    check_list(sources)
    check_list(targets)
    if not sources or len(sources) != len(targets):
        raise OptionError(f"{len(sources)} sources and {len(targets)} targets: give one or more, as many of each")
    longest = run.config().data.max_source_length
    given = (
        [text_of(text, f"{side} {number}") for number, text in enumerate(texts, 1)]
        for side, texts in (("source", sources), ("target", targets))
    )
    pairs = zip(tokenizer.encode_source(next(given)), tokenizer.encode_target(next(given)), strict=True)
    kept = [(source, target) for source, target in pairs if 0 < len(source) <= longest and 0 < len(target) <= longest]
    shape = model.config.num_decoder_layers, model.config.num_heads + 1
    total = torch.zeros(shape, dtype=torch.float64)
    looks = {(layer, head): _Looks() for layer in range(shape[0]) for head in range(shape[1])}
    kept.sort(key=lambda pair: len(pair[0]) + len(pair[1]))
    for numbers in batches_of_pairs([model], [(len(source), len(target)) for source, target in kept]):
        batch = [kept[number] for number in numbers]
        found = attention_to_source(model, [source for source, _ in batch], [target for _, target in batch])
        for (source, target), weights in zip(batch, found, strict=True):
            of_all = torch.cat([weights, weights.mean(1, keepdim=True)], dim=1)
            total += information(of_all)
            for (layer, head), of_one in looks.items():
                of_one.add([*source, EOS], target, of_all[layer, head].argmax(-1).tolist())
    heads = [
        AlignmentHead(
            layer, MEAN if head == shape[1] - 1 else head, float(total[layer, head]) / max(1, len(kept)), of_one.late()
        )
        for (layer, head), of_one in looks.items()
    ]
    return sorted(heads, key=lambda one: (one.late, -one.information))


class _Looks:
    """How often a head looks at a source piece, together with the target piece there and with the one before."""

    def __init__(self) -> None:
        self.now: Counter[tuple[int, int]] = Counter()
        self.before: Counter[tuple[int, int]] = Counter()

    def add(self, source: Sequence[int], target: Sequence[int], places: Sequence[int]) -> None:
        """places: the place in the source that each target position looks at most."""
        looked_at = [source[place] for place in places[1 : len(target)]]
        self.now.update(zip(looked_at, target[1:], strict=False))
        self.before.update(zip(looked_at, target, strict=False))

    def late(self) -> bool:
        return _shared(self.before) > _shared(self.now)


def _shared(counts: Counter[tuple[int, int]]) -> float:
    """Mutual information of the two sides of counted pairs, in nats."""
    one, other = Counter[int](), Counter[int]()
    for (a, b), count in counts.items():
        one[a] += count
        other[b] += count
    number = counts.total()
    return math.fsum(
        count / number * math.log(count * number / (one[a] * other[b])) for (a, b), count in counts.items()
    )


def information(weights: Tensor) -> Tensor:
    """Mutual information of target and source position, in nats: [L, H, T, S] -> [L, H], from 0 to log min(T, S)."""
    weights = weights.double()
    return _entropy(weights.mean(2)) - _entropy(weights).mean(2)


def _entropy(weights: Tensor) -> Tensor:
    entropies: Tensor = torch.special.entr(weights).sum(-1)
    return entropies
