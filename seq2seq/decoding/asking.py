"""What is asked for each line, from text to pieces: its source, a beginning, phrases, and how long it may become.

What cannot be done for a line is told and left out, for a stream does not end because of one line; what was asked for
all lines has been checked before.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from seq2seq.config import DecodingConfig
from seq2seq.decoding.demands import Demands
from seq2seq.decoding.options import check_lines, text_of, unknown_remark
from seq2seq.errors import OptionError, SearchOptionError
from seq2seq.text.tokenizer import Tokenizer


class Request(NamedTuple):
    """A line, what its translation begins with, and phrases that it has beside those of all lines."""

    line: str
    prefix: str
    require: tuple[str, ...]


@dataclass(frozen=True)
class Line:
    """What a line asks for, in pieces: its source, a forced beginning, and whether a new word must follow that.

    demands: all that its outputs have to be, its own phrases among it. complete: the source is whole, and not cut for
    being too long. possible: what is asked for can be done.
    """

    source: np.ndarray[tuple[int], np.dtype[np.int32]]
    prefix: list[int]
    new_word: bool
    limit: int  # pieces of its output, end-of-sentence included
    demands: Demands
    complete: bool = True
    possible: bool = True


def requests(
    lines: Iterable[str], prefix: str, prefixes: Iterable[str] | None, requires: Iterable[Sequence[str]] | None
) -> Iterator[Request]:
    """One for each line. prefixes, requires: one a line; None: `prefix` for all, and no phrases of their own.

    Raises OptionError for what is no text, and where there are not as many of all.
    """
    given: list[Iterable[object]] = [lines, *(x for x in (prefixes, requires) if x is not None)]
    for many in given:
        check_lines(many)
    for number, (line, *own) in enumerate(_together(given), 1):
        beginning = own.pop(0) if prefixes is not None else prefix
        phrases = own.pop(0) if requires is not None else ()
        if not isinstance(phrases, (tuple, list)):
            raise OptionError(f"require {number} is {phrases!r:.60}: give a list of phrases for each line")
        own_phrases = tuple(text_of(phrase, f"a phrase of require {number}") for phrase in phrases)
        yield Request(text_of(line, f"line {number}"), text_of(beginning, f"prefix {number}"), own_phrases)


def _together(given: Sequence[Iterable[object]]) -> Iterator[tuple[Any, ...]]:
    missing = object()
    for number, some in enumerate(itertools.zip_longest(*given, fillvalue=missing), 1):
        if any(one is missing for one in some):
            raise OptionError(
                f"line {number}: there are not as many prefixes, or required phrases, as lines: give as many"
            )
        yield some


class Asking:
    """Turns requests into what a search is given.

    longest_output: the most positions that the model has for an output, end-of-sentence included.
    """

    def __init__(
        self, tokenizer: Tokenizer, config: DecodingConfig, longest_output: int, warn: Callable[[str], None]
    ) -> None:
        self.tokenizer, self.config, self.longest_output, self.warn = tokenizer, config, longest_output, warn

    def __call__(self, asked: Sequence[Request], start: int, demands: Demands) -> list[Line]:
        """start: the number of the first, from 0. demands: of all lines."""
        longest, field = self.config.max_source_length, "decoding.max_source_length"
        if self.longest_output - 1 < longest:
            longest, field = self.longest_output - 1, "model.max_positions, as its positions are learned"
        encoded = self.tokenizer.encode_source([one.line if one.line.strip() else "" for one in asked])
        lines = []
        for number, (pieces, one) in enumerate(zip(encoded, asked, strict=True), start + 1):
            complete = len(pieces) <= longest
            if not complete:
                self.warn(f"line {number} has {len(pieces):,} pieces; it is cut to the first {longest:,} ({field})")
                pieces = pieces[:longest]
            if remark := unknown_remark(self.tokenizer, number, one.line, pieces):
                self.warn(remark)
            own, possible = self._phrases(one.require, number, demands)
            forced = self._prefix(one.prefix, number, own)
            possible = possible and forced is not None
            prefix = forced or []
            lines.append(
                Line(
                    np.array(pieces, dtype=np.int32),
                    prefix,
                    bool(prefix) and one.prefix[-1:].isspace(),
                    self._limit(pieces, prefix, own),
                    own,
                    complete,
                    possible,
                )
            )
        return lines

    def _phrases(self, phrases: Sequence[str], number: int, demands: Demands) -> tuple[Demands, bool]:
        """The demands of a line with phrases of its own, and whether all of them can be had."""
        possible, general = True, demands
        for phrase in phrases:
            try:
                demands = demands.requiring(phrase)
            except SearchOptionError as error:
                self.warn(f"line {number}: {error.problem}; it is translated without")
                possible = False
        if demands is not general and (remark := demands.narrow_beam()):
            self.warn(f"line {number}: {remark}")
        return demands, possible

    def _prefix(self, prefix: str, number: int, demands: Demands) -> list[int] | None:
        """The pieces of a line's prefix; None where it cannot be had."""
        if not prefix:
            return []
        try:
            forced = demands.prefix_pieces(prefix)
            if len(forced) >= self.longest_output:
                raise SearchOptionError(
                    f"{{prefix}} has {len(forced)} pieces; the model's learned positions end at {self.longest_output}",
                    "shorten it",
                    prefix=prefix,
                )
        except SearchOptionError as error:
            if demands.options.prefix:  # of all lines
                raise
            self.warn(f"line {number}: {error.problem}; it is translated without")
            return None
        return forced

    def _limit(self, source: Sequence[int], prefix: Sequence[int], demands: Demands) -> int:
        """The most pieces of an output, end-of-sentence included; there is always room for what is asked for."""
        options = demands.options
        needed = max(options.min_length, len(prefix)) + (demands.required.total if demands.required else 0)
        limit = max(len(source) + self.config.max_extra_length, needed + 1 if needed else 1)
        return min(limit, self.longest_output, options.max_length or limit)
