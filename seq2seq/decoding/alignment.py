"""Which source word a translated word comes from, read off the decoder's attention to the source.

The translation goes through the model once more, all at once. Where the decoder predicts a piece, one layer's attention
over the source pieces (one head, or the mean of them all) says what it looks at; the source piece with the most
weight is aligned with it, end-of-sentence left aside. Words are aligned where any of their pieces are (Zenkel et al.
2019, arXiv 1901.11359). The layer before the last and the mean of its heads is what Garg et al. 2019 (arXiv 1909.02074)
found best without training for it; `alignment_heads.py` looks for a better one.

Shapes: B sentences, T target and S source pieces with end-of-sentence, H heads, L decoder layers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from seq2seq.config import DecodingConfig
from seq2seq.errors import OptionError
from seq2seq.model.attention import AttentionWeights
from seq2seq.model.transformer import BOS, EOS, Transformer
from seq2seq.text.batching import pad
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
    source = pad(sources, end=EOS).to(device)
    target = pad([pieces[: model.config.longest - 1] for pieces in outputs], start=BOS).to(device)
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
    for numbers in batches_of_pairs(models, lengths):
        batch = [flat[number] for number in numbers]
        pairs = [sources[i] for i, _ in batch], [outputs[i][j] for i, j in batch]
        chosen = [[choose(weights, config) for weights in attention_to_source(model, *pairs)] for model in models]
        for (i, j), *weights in zip(batch, *chosen, strict=True):
            rows = min(map(len, weights))  # where the learned positions of some end sooner
            mean = torch.stack([one[:rows] for one in weights]).mean(0)
            links[i][j] = align_words(mean, source_words[i], words_of(tokenizer.target_pieces(outputs[i][j])))
    return links


def batches_of_pairs(models: Sequence[Transformer], lengths: Sequence[tuple[int, int]]) -> Iterator[list[int]]:
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
