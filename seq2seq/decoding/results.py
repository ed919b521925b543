"""Hypotheses as text: what a line's translations say, whether they loop, and whether they are as asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from seq2seq.decoding.alignment import Links
from seq2seq.decoding.asking import Line
from seq2seq.decoding.demands import Demands
from seq2seq.decoding.hypotheses import Hypothesis
from seq2seq.decoding.options import Translation, TranslationResult
from seq2seq.decoding.repetition import loop_end, loop_warning
from seq2seq.text.tokenizer import Tokenizer


def texts_of(tokenizer: Tokenizer, outputs: Sequence[Sequence[int]]) -> list[str]:
    """The text of each output; a line of input is a line of output, though byte pieces can make a line break."""
    return [text.replace("\n", " ") for text in tokenizer.decode(outputs)]


def result_of(
    number: int,
    text: str,
    line: Line,
    hypotheses: Sequence[Hypothesis],
    links: Sequence[Links] | None,
    warn: Callable[[str], None],
) -> TranslationResult:
    """The result for a line, `number` from 0, with the text that was given; an empty line has no hypotheses.

    A loop ends a text only behind what was asked for.
    """
    demands, prefix, possible = line.demands, line.prefix, line.possible
    if not hypotheses:
        asked = demands.required is not None or bool(prefix) or demands.options.min_length > 0 or not possible
        if asked and possible:
            warn(f"line {number + 1} is empty, and so is its translation, whatever was asked for")
        empty = Translation("", 0.0, 0.0, (), (), True, not asked, alignment=None if links is None else ())
        return TranslationResult(text, (empty,))
    ends = [loop_end(one.pieces, demands.asked_for(one.pieces, prefix)) for one in hypotheses]
    loops = [_loops(one.pieces, len(prefix), demands) for one in hypotheses]
    if (any(ends) or any(loops)) and loop_end(line.source.tolist()) is not None:  # what the source repeats is no fault
        ends, loops = [None] * len(hypotheses), [False] * len(hypotheses)
    texts = texts_of(demands.tokenizer, [one.pieces[:end] for one, end in zip(hypotheses, ends, strict=True)])
    aligned = [None] * len(hypotheses) if links is None else links
    translations = tuple(map(_translation, hypotheses, texts, ends, loops, aligned, [demands] * len(hypotheses)))
    if not possible:
        translations = tuple(replace(one, satisfied=False) for one in translations)
    if ends[0] is not None:
        warn(loop_warning(number, ends[0]))
    elif loops[0]:
        warn(f"line {number + 1} runs into a loop before a phrase that was required, and is not cut")
    if possible and not translations[0].satisfied:
        unmet = demands.unmet(hypotheses[0].pieces[: ends[0]], texts[0])
        warn(f"line {number + 1}: the search found no translation as asked for; this one {unmet}")
    return TranslationResult(text, translations, line.complete)


def _loops(pieces: Sequence[int], prefix: int, demands: Demands) -> bool:
    """Whether pieces run into a loop between a prefix of so many and a required phrase, none of which is a loop."""
    required = demands.required
    if required is None or loop_end(pieces[: required.end(pieces)], prefix) is None:
        return False
    return not any(loop_end(phrase) for phrase in required.phrases)


def _translation(
    found: Hypothesis, text: str, end: int | None, loops: bool, links: Links | None, demands: Demands
) -> Translation:
    if links is not None and end is not None:  # words that were cut are aligned with nothing
        links = tuple(link for link in links if link[1] < len(text.split()))
    return Translation(
        text,
        found.score,
        found.log_probability,
        tuple(demands.tokenizer.target_pieces(found.pieces)),
        found.piece_log_probabilities,
        found.ended,
        satisfied=not demands.any or demands.unmet(found.pieces[:end], text) is None,
        repetition=loops or end is not None,
        alignment=links,
    )
