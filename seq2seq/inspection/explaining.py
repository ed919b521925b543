"""One sentence's way through the network: pieces, embeddings, layers, attention, probabilities.

Shapes: S source and T target pieces with end-of-sentence, H heads, L layers of a stack, V vocabulary, D d_model.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from seq2seq.decoding.options import Normalization, Options, text_of
from seq2seq.decoding.translator import Translator
from seq2seq.errors import OptionError
from seq2seq.inspection.labels import printable
from seq2seq.model.attention import AttentionWeights
from seq2seq.model.layers import FeedForward
from seq2seq.model.transformer import BOS, EOS, PAD, UNK, Transformer
from seq2seq.text.tokenizer import Tokenizer

MOST_PIECES = 256  # of a side; attention over more is nothing that a person reads
SPECIAL = (PAD, UNK, BOS)  # no pieces of a source in training: nothing is learned of them there

Weighed = tuple[str, float]  # a piece, and how probable or how similar it is


@dataclass(frozen=True)
class Stack:
    """What the layers of the encoder, or of the decoder, do to N pieces.

    similarity: cosine of each piece's state after each layer with what went into the first one, which is the embedding
    plus the position, [L, N]; into the decoder goes the piece before each step. active: the share of the feed-forward
    network's neurons that are above 0 before the activation, [L]. attention: self-attention, [L, H, N, N]; a row is a
    query and sums to 1.
    """

    similarity: Tensor
    active: Tensor
    attention: Tensor


@dataclass(frozen=True)
class Explanation:
    """A sentence and its translation, seen from inside.

    source_pieces: S, the last one end-of-sentence. target_pieces: T, what the decoder writes at each step; the last is
    end-of-sentence unless the translation was cut. Step t sees the pieces before it, begin-of-sentence first. Of text
    that is unknown to the vocabulary the piece is "<unk:" and that text.

    given: the translation was given, not searched for. repetition: the search ran into a loop, and the translation is
    cut; all else is of every piece that was found. neighbours: for every source piece those whose embeddings are
    most like its own (cosine); none for unknown text, of which nothing is learned. cross_attention [L, H, T, S].
    log_probabilities [T]: of each target piece after those before it, natural logarithms; ranks: how many are as
    probable or more. candidates: for every step the most probable pieces. by_layer: for every decoder layer and step,
    the piece that would be the most probable if the output projection came right after that layer ("logit lens",
    nostalgebraist 2020).
    """

    source: str
    translation: str
    given: bool
    repetition: bool
    source_pieces: list[str]
    target_pieces: list[str]
    neighbours: list[list[Weighed]]
    encoder: Stack
    decoder: Stack
    cross_attention: Tensor
    log_probabilities: Tensor
    ranks: list[int]
    candidates: list[list[Weighed]]
    by_layer: list[list[Weighed]]

    @property
    def log_probability(self) -> float:
        """Of all target pieces, natural logarithm.

        `seq2seq score` gives the same of the translation, unless that was cut and says less (`repetition`, or no
        end-of-sentence), or its text has other pieces than the search wrote.
        """
        return float(self.log_probabilities.sum())

    def to_dict(self) -> dict[str, Any]:
        """Everything in lists and numbers, for JSON; numbers to five digits."""
        return {
            "source": self.source,
            "translation": self.translation,
            "given": self.given,
            "repetition": self.repetition,
            "log_probability": round(self.log_probability, 5),
            "source_pieces": self.source_pieces,
            "target_pieces": self.target_pieces,
            "neighbours": _rounded(self.neighbours),
            "encoder": _stack_dict(self.encoder),
            "decoder": _stack_dict(self.decoder),
            "cross_attention": _rounded(self.cross_attention.tolist()),
            "log_probabilities": _rounded(self.log_probabilities.tolist()),
            "ranks": self.ranks,
            "candidates": _rounded(self.candidates),
            "by_layer": _rounded(self.by_layer),
        }


class _Output(NamedTuple):
    """The translation that is looked at; ids: all that were given or found, with end-of-sentence where it came."""

    text: str
    ids: list[int]
    given: bool
    repetition: bool = False


@torch.inference_mode()
def explain_translation(
    translator: Translator,
    source: str,
    target: str | None = None,
    *,
    top: int = 3,
    beam_size: int | None = None,
    length_penalty: float | None = None,
    length_normalization: Normalization | None = None,
) -> Explanation:
    """Looks at how `source` becomes `target`, or, where none is given, the translation that the translator finds.

    top: how many candidates and neighbours. The others are those of `Translator.translate`. The translator's `warn` is
    told of text that the model does not know, and of a loop. Raises OptionError for an empty sentence, for several
    lines, for more pieces than anybody looks at, and for an ensemble.
    """
    if len(translator.models) > 1:
        raise OptionError("an ensemble has no inside of its own: name one run")
    if type(top) is not int or not 1 <= top <= 100:
        raise OptionError(f"top = {top!r}: choose from 1 to 100")
    model, tokenizer = translator.model, translator.tokenizer
    source, target = _one_line(source, "sentence"), None if target is None else _one_line(target, "translation")
    if not source.strip():
        raise OptionError("the sentence is empty: give one with words in it")
    source_ids = tokenizer.encode_source([source])[0]
    _check_length("sentence", len(source_ids), model, translator.config.max_source_length)
    if target is None:
        options = Options(beam_size=beam_size, length_penalty=length_penalty, length_normalization=length_normalization)
        output = _found(translator, source, options)
    else:
        output = _Output(target, [*tokenizer.encode_target([target])[0], EOS], True)
    _check_length("translation", len(output.ids) - (output.ids[-1:] == [EOS]), model)
    explained = _look(model, tokenizer, source, [*source_ids, EOS], output, top)
    sources = tokenizer.unknown_places(source, source_ids)
    targets = {} if target is None else tokenizer.unknown_places(target, output.ids, "target")
    for what, unknown in (("sentence", sources), ("translation", targets)):
        if unknown:
            text = " ".join(dict.fromkeys(unknown.values()))
            translator.warn(f"the {what} has text that the model does not know, taken as <unk>: {text!r:.60}")
    return replace(
        explained,
        source_pieces=_with_unknown(explained.source_pieces, sources),
        target_pieces=_with_unknown(explained.target_pieces, targets),
    )


def _found(translator: Translator, source: str, options: Options) -> _Output:
    """The best translation of one sentence."""
    quiet = copy(translator)
    quiet.warn = lambda text: None  # what it would say is of "line 1"
    found = next(quiet.stream([source], options)).hypotheses[0]
    if found.repetition:
        translator.warn("the translation runs into a loop, where its text is cut")
    ids = translator.tokenizer.target_ids(found.pieces)
    return _Output(found.text, [*ids, EOS] if found.ended else ids, False, found.repetition)


def _one_line(text: str, what: str) -> str:
    line = text_of(text, f"the {what}").removesuffix("\n")
    if "\n" in line:
        raise OptionError(f"the {what} has several lines: give one")
    return line


def _with_unknown(pieces: Sequence[str], unknown: Mapping[int, str]) -> list[str]:
    """The pieces, and for unknown ones what stands there."""
    return [f"<unk:{printable(unknown[i])}>" if i in unknown else piece for i, piece in enumerate(pieces)]


def _check_length(what: str, pieces: int, model: Transformer, configured: int = MOST_PIECES) -> None:
    most = min(MOST_PIECES - 1, configured, model.config.longest - 1)  # end-of-sentence comes on top
    if pieces > most:
        raise OptionError(f"the {what} has {pieces:,} pieces; at most {most:,} can be looked at: give a shorter one")


def _look(
    model: Transformer,
    tokenizer: Tokenizer,
    source: str,
    source_ids: list[int],
    output: _Output,
    top: int,
) -> Explanation:
    """Runs the model once, teacher forced, and keeps what passes by."""
    device = model.target_embedding.device
    source_row = torch.tensor([source_ids], device=device)
    output_row = torch.tensor([output.ids], device=device)
    input_row = torch.tensor([[BOS, *output.ids[:-1]]], device=device)
    seen = AttentionWeights()
    with _watching(model.encoder_layers) as (encoder_states, encoder_active):
        memory, memory_mask = model.encode(source_row, attention=seen)
    with _watching(model.decoder_layers) as (decoder_states, decoder_active):
        logits = model.decode(input_row, memory, memory_mask, attention=seen)[0].float()
    logs = logits.log_softmax(-1)  # [T, V]
    written = logs.gather(1, output_row.T)  # [T, 1]
    embedded = (
        model.embed(source_row, model.source_embedding, model.source_positions),
        model.embed(input_row, model.target_embedding, model.target_positions),
    )
    return Explanation(
        source=source,
        translation=output.text,
        given=output.given,
        repetition=output.repetition,
        source_pieces=tokenizer.source_pieces(source_ids),
        target_pieces=tokenizer.target_pieces(output.ids),
        neighbours=_neighbours(model, tokenizer, source_ids, top),
        encoder=_stack(embedded[0], encoder_states, encoder_active, seen.encoder),
        decoder=_stack(embedded[1], decoder_states, decoder_active, seen.decoder),
        cross_attention=torch.cat(seen.cross).float().cpu(),
        log_probabilities=written.squeeze(1).cpu(),
        ranks=(logs >= written).sum(1).tolist(),
        candidates=_most_probable(tokenizer, logs.exp(), top),
        by_layer=_by_layer(model, tokenizer, decoder_states),
    )


@contextmanager
def _watching(layers: nn.ModuleList) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
    """Keeps every layer's output [1, N, D], and the share of its feed-forward neurons that are above 0.

    Of this thread's calls: other threads may translate with the same layers meanwhile.
    """
    states: list[Tensor] = []
    active: list[Tensor] = []
    own = threading.get_ident()

    def keep(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if threading.get_ident() == own:
            states.append(output)

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(module, FeedForward)
        if threading.get_ident() != own:
            return
        hidden = F.linear(inputs[0].float(), module.in_weight.float(), module.in_bias.float())
        active.append((hidden > 0).float().mean())

    handles = [layer.register_forward_hook(keep) for layer in layers]
    handles += [one.register_forward_hook(count) for one in layers.modules() if isinstance(one, FeedForward)]
    try:
        yield states, active
    finally:
        for handle in handles:
            handle.remove()


def _stack(embedded: Tensor, states: list[Tensor], active: list[Tensor], attention: list[Tensor]) -> Stack:
    similarity = torch.cosine_similarity(torch.cat(states).float(), embedded.float(), dim=-1)
    return Stack(similarity.cpu(), torch.stack(active).cpu(), torch.cat(attention).float().cpu())


def _neighbours(model: Transformer, tokenizer: Tokenizer, ids: list[int], top: int) -> list[list[Weighed]]:
    """For every id the pieces of the source vocabulary whose rows of the embedding point most nearly the same way.

    None for unknown text: of what training never showed nothing is learned, and so it is like others of the kind.
    """
    rows = F.normalize(model.source_embedding.float(), dim=1)
    cosine = rows[ids] @ rows.T  # [S, V]
    cosine[:, list(SPECIAL)] = -2.0
    cosine.scatter_(1, torch.tensor(ids, device=cosine.device)[:, None], -2.0)  # itself
    values, found = cosine.topk(min(top, max(0, cosine.shape[1] - 1 - len(SPECIAL))), dim=1)
    return [
        [] if piece in SPECIAL else list(zip(tokenizer.source_pieces(row), similar, strict=True))
        for piece, row, similar in zip(ids, found.tolist(), values.tolist(), strict=True)
    ]


def _most_probable(tokenizer: Tokenizer, probabilities: Tensor, top: int) -> list[list[Weighed]]:
    """The most probable pieces of each row of probabilities [T, V]."""
    values, ids = probabilities.topk(min(top, probabilities.shape[1]), dim=1)
    return [
        list(zip(tokenizer.target_pieces(row), probable, strict=True))
        for row, probable in zip(ids.tolist(), values.tolist(), strict=True)
    ]


def _by_layer(model: Transformer, tokenizer: Tokenizer, states: Sequence[Tensor]) -> list[list[Weighed]]:
    """What each layer's states [1, T, D] would say; pre-norm normalises once more at the end of the stack."""
    said = []
    for state in states:
        normed = state if model.decoder_norm is None else model.decoder_norm(state)
        probabilities = model.project(normed)[0].float().softmax(-1)
        said.append([best[0] for best in _most_probable(tokenizer, probabilities, 1)])
    return said


def _stack_dict(stack: Stack) -> dict[str, Any]:
    return {
        "similarity": _rounded(stack.similarity.tolist()),
        "active": _rounded(stack.active.tolist()),
        "attention": _rounded(stack.attention.tolist()),
    }


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.5g}")
    return [_rounded(one) for one in value] if isinstance(value, (list, tuple)) else value
