"""Which source word a translated word comes from, read off the decoder's attention to the source.

The translation goes through the model once more, all at once. Where the decoder predicts a piece, one layer's attention
over the source pieces (one head, or the mean of them all) says what it looks at; the source piece with the most
weight is aligned with it, end-of-sentence left aside. Words are aligned where any of their pieces are (Zenkel et al.
2019, arXiv 1901.11359). The layer before the last and the mean of its heads is what Garg et al. 2019 (arXiv 1909.02074)
found best without training for it; `choose_alignment_head` looks for a better one.

Shapes: B sentences, T target and S source pieces with end-of-sentence, H heads, L decoder layers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from seq2seq.config import DecodingConfig
from seq2seq.errors import OptionError
from seq2seq.model.attention import AttentionWeights
from seq2seq.model.transformer import BOS, EOS, PAD, Transformer
from seq2seq.run import Run
from seq2seq.text.tokenizer import Tokenizer

Links = tuple[tuple[int, int], ...]  # (source word, target word), from 0
MEAN = -1  # of all heads
MAX_CELLS = 1 << 23  # numbers in the attention of one batch: 32 MB in float32


@torch.inference_mode()
def attention_to_source(
    model: Transformer, sources: Sequence[Sequence[int]], outputs: Sequence[Sequence[int]]
) -> list[Tensor]:
    """Attention where each piece is predicted: a float32 tensor [L, H, T, S] for every sentence.

    sources: pieces, without end-of-sentence. outputs: pieces, as they were generated. T is the output's length with
    end-of-sentence, S the source's; one less for an output that is as long as the model's learned positions are many.
    """
    seen = AttentionWeights()
    device = model.target_embedding.device
    source = _padded([[*pieces, EOS] for pieces in sources]).to(device)
    most = model.config.max_positions if model.config.positions == "learned" else None
    target = _padded([[BOS, *pieces][:most] for pieces in outputs]).to(device)
    model.decoder_states(target, *model.encode(source), attention=seen)
    weights = torch.stack(seen.cross, dim=1).float()  # [B, L, H, T, S]
    sizes = zip(outputs, sources, strict=True)
    return [weights[row, :, :, : len(output) + 1, : len(pieces) + 1] for row, (output, pieces) in enumerate(sizes)]


def align_pieces(weights: Tensor) -> list[int]:
    """Source piece of every target piece, without the source's end-of-sentence: weights [T, S] -> T numbers."""
    if weights.shape[1] < 2:
        return []
    return [int(i) for i in weights[:, :-1].argmax(1)]


def words_of(pieces: Sequence[str]) -> list[int | None]:
    """Which word, from 0, each piece belongs to; None for one that holds spaces only. Words stand between spaces."""
    words: list[int | None] = []
    word, inside = -1, False
    for piece in pieces:
        own = None
        for character in piece:
            if character == "▁" or character.isspace():
                inside = False
            else:
                word, inside = (word, True) if inside else (word + 1, True)
                own = word
        words.append(own)
    return words


def words_in(line: str, tokenizer: Tokenizer, ids: Sequence[int]) -> list[int | None]:
    """The same for the pieces of a source line, by the words of the line as it was given, before it was normalised."""
    numbers = words_of(line)  # of each character
    words = []
    spans = tokenizer.source_spans(line) if ids else []
    for piece, (begin, end) in zip(tokenizer.source_pieces(ids), spans, strict=False):
        found = [number for number in numbers[begin : max(end, begin + 1)] if number is not None]
        words.append(found[-1] if found and piece.strip("▁") else None)
    return words


def align_words(weights: Tensor, source_words: Sequence[int | None], target_words: Sequence[int | None]) -> Links:
    """Sorted links of words, given weights [T, S] and the word of each piece, without end-of-sentence."""
    links = set()
    for target, source in enumerate(align_pieces(weights)[: len(target_words)]):
        pair = source_words[source], target_words[target]
        if pair[0] is not None and pair[1] is not None:
            links.add((pair[0], pair[1]))
    return tuple(sorted(links))


def choose(weights: Tensor, config: DecodingConfig) -> Tensor:
    """The configured layer and head, or mean of heads, of weights [L, H, T, S]: [T, S]."""
    layer = config.alignment_layer
    of_layer = weights[max(0, len(weights) - 2) if layer is None else layer]
    return of_layer.mean(0) if config.alignment_head == MEAN else of_layer[config.alignment_head]


def check_heads(models: Sequence[Transformer], config: DecodingConfig) -> None:
    """Raises OptionError where a model has no such layer or head as is configured for alignments."""
    for model in models:
        layers, heads = model.config.num_decoder_layers, model.config.num_heads
        if config.alignment_layer is not None and config.alignment_layer >= layers:
            raise OptionError(
                f"decoding.alignment_layer = {config.alignment_layer}: a model has {layers} decoder layers, from 0"
            )
        if config.alignment_head >= heads:
            raise OptionError(f"decoding.alignment_head = {config.alignment_head}: a model has {heads} heads, from 0")


def align(
    models: Sequence[Transformer],
    tokenizer: Tokenizer,
    config: DecodingConfig,
    sources: Sequence[Sequence[int]],
    outputs: Sequence[Sequence[Sequence[int]]],
    source_words: Sequence[Sequence[int | None]],
) -> list[list[Links]]:
    """Links for the outputs of each source, all in pieces; of several models, by their mean attention.

    source_words: the word that each piece of a source belongs to.
    """
    links: list[list[Links]] = [[() for _ in of_one] for of_one in outputs]
    flat = [(i, j) for i, of_one in enumerate(outputs) for j in range(len(of_one))]
    flat.sort(key=lambda place: len(sources[place[0]]) + len(outputs[place[0]][place[1]]))
    lengths = [(len(sources[i]), len(outputs[i][j])) for i, j in flat]
    for numbers in _batches(models, lengths):
        batch = [flat[number] for number in numbers]
        pairs = [sources[i] for i, _ in batch], [outputs[i][j] for i, j in batch]
        chosen = [[choose(weights, config) for weights in attention_to_source(model, *pairs)] for model in models]
        for (i, j), *weights in zip(batch, *chosen, strict=True):
            rows = min(map(len, weights))  # where the learned positions of some end sooner
            mean = torch.stack([one[:rows] for one in weights]).mean(0)
            links[i][j] = align_words(mean, source_words[i], words_of(tokenizer.target_pieces(outputs[i][j])))
    return links


def _batches(models: Sequence[Transformer], lengths: Sequence[tuple[int, int]]) -> Iterator[list[int]]:
    """Numbers of pairs, given how many pieces their sides have, a batch at a time: of MAX_CELLS, or of one pair."""
    each = max(model.config.num_heads * model.config.num_decoder_layers for model in models)
    batch: list[int] = []
    longest = 0, 0
    for number, (source, target) in enumerate(lengths):
        longest = max(longest[0], source + 1), max(longest[1], target + 1)
        if batch and (len(batch) + 1) * each * sum(longest) ** 2 > MAX_CELLS:
            yield batch
            batch, longest = [], (source + 1, target + 1)
        batch.append(number)
    if batch:
        yield batch


@dataclass(frozen=True)
class AlignmentHead:
    """A choice for `[decoding]`: alignment_layer and alignment_head. information: see `choose_alignment_head`."""

    layer: int
    head: int
    information: float


@torch.inference_mode()
def choose_alignment_head(run: str | Path | Run, sources: Sequence[str], targets: Sequence[str]) -> list[AlignmentHead]:
    """All layers and heads (-1: their mean), the best for aligning first, judged on sentences and their translations.

    Judged by the information, in nats a sentence, that a target position has about the source position it looks at: the
    entropy of the sentence's mean attention, less the mean entropy of its positions. It is high where every position
    looks at few pieces and different positions at different ones; a head that always looks at one place, such as the
    end of the sentence, has none, and so has one that looks everywhere. It needs no alignments by people. Raises
    ValueError where there are no sentences, or not as many of each.
    """
    run = run if isinstance(run, Run) else Run.open(Path(run))
    model, tokenizer = run.load_model(), run.tokenizer()
    if not sources or len(sources) != len(targets):
        raise ValueError(f"{len(sources)} sources and {len(targets)} targets: give one or more, as many of each")
    longest = run.config().data.max_source_length
    pairs = zip(tokenizer.encode_source(list(sources)), tokenizer.encode_target(list(targets)), strict=True)
    kept = [(source, target) for source, target in pairs if 0 < len(source) <= longest and 0 < len(target) <= longest]
    total = torch.zeros(model.config.num_decoder_layers, model.config.num_heads + 1, dtype=torch.float64)
    kept.sort(key=lambda pair: len(pair[0]) + len(pair[1]))
    for numbers in _batches([model], [(len(source), len(target)) for source, target in kept]):
        batch = [kept[number] for number in numbers]
        for weights in attention_to_source(model, [source for source, _ in batch], [target for _, target in batch]):
            total += information(torch.cat([weights, weights.mean(1, keepdim=True)], dim=1))
    found = [
        AlignmentHead(layer, MEAN if head == model.config.num_heads else head, float(value) / max(1, len(kept)))
        for layer, row in enumerate(total)
        for head, value in enumerate(row)
    ]
    return sorted(found, key=lambda one: -one.information)


def information(weights: Tensor) -> Tensor:
    """Mutual information of target and source position, in nats: [L, H, T, S] -> [L, H], from 0 to log min(T, S)."""
    weights = weights.double()
    return _entropy(weights.mean(2)) - _entropy(weights).mean(2)


def _entropy(weights: Tensor) -> Tensor:
    entropies: Tensor = torch.special.entr(weights).sum(-1)
    return entropies


def _padded(rows: Sequence[Sequence[int]]) -> Tensor:
    """[B, longest], padded at the end."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[PAD] * (longest - len(row))] for row in rows])
