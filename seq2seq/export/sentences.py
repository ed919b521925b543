"""The sentences that an export is tried on: held out, given, or made up."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seq2seq.config import Config
from seq2seq.errors import UserError
from seq2seq.export.errors import ExportError
from seq2seq.text.errors import DataError
from seq2seq.text.reading import read_lines, read_pairs
from seq2seq.text.tokenizer import EOS, Tokenizer

MOST_SENTENCES = 200
LONGEST = 200  # pieces: longer sentences take long and tell nothing new
MADE_UP = 100  # sentences from random pieces, where there are no real ones


@dataclass(frozen=True)
class Sentences:
    """Lines to translate, their references where there are any, and where they are from."""

    origin: str
    lines: tuple[str, ...]
    references: tuple[str, ...] | None

    def sha256(self) -> str:
        return hashlib.sha256("\n".join(self.lines).encode()).hexdigest()


def choose_sentences(
    config: Config,
    tokenizer: Tokenizer,
    source: Path | None = None,
    reference: Path | None = None,
    most: int = MOST_SENTENCES,
) -> Sentences:
    """At most `most` sentences: from `source`, else from the run's validation files, else random pieces.

    Sentences of more than 200 pieces are left out. Raises DataError or ExportError where given files cannot serve.
    """
    if source is not None:
        return _given(tokenizer, source, reference, most)
    data = config.data
    if data.valid_source or data.valid_pairs:
        try:
            pairs = list(itertools.islice(read_pairs(data, "valid"), 4 * most))
        except UserError:  # moved or removed since
            pairs = []
        kept = [pair for pair in pairs if _serves(tokenizer, pair[0])][:most]
        if kept:
            return Sentences(
                "the run's validation set", tuple(line for line, _ in kept), tuple(target for _, target in kept)
            )
    return _made_up(tokenizer, min(most, MADE_UP))


def _given(tokenizer: Tokenizer, source: Path, reference: Path | None, most: int) -> Sentences:
    lines = list(itertools.islice(read_lines(source), 4 * most))
    references = list(itertools.islice(read_lines(reference), 4 * most)) if reference is not None else None
    if references is not None and len(references) != len(lines):
        raise DataError(
            f"{source} has {len(lines):,} lines and {reference} has {len(references):,} (of the first {4 * most:,}): "
            "give a reference for each line"
        )
    kept = [number for number, line in enumerate(lines) if _serves(tokenizer, line)][:most]
    if not kept:
        raise ExportError(f"--certify-source {source}: no sentence of 1 to {LONGEST} pieces in it; name another file")
    found = tuple(references[number] for number in kept) if references is not None else None
    return Sentences(source.name, tuple(lines[number] for number in kept), found)


def _serves(tokenizer: Tokenizer, line: str) -> bool:
    return bool(line.strip()) and 1 <= len(tokenizer.encode_source([line])[0]) <= LONGEST


def _made_up(tokenizer: Tokenizer, count: int) -> Sentences:
    """Random pieces as text: no language, but every export must agree on them."""
    generator = np.random.default_rng(0)
    processor = tokenizer.source
    pieces = [i for i in range(EOS + 1, tokenizer.source_vocab_size) if not processor.is_byte(i)]
    lines: list[str] = []
    while len(lines) < count:
        ids = generator.choice(pieces, size=int(generator.integers(1, 31))).tolist()
        line = str(processor.decode(ids)).replace("\n", " ")
        if _serves(tokenizer, line):
            lines.append(line)
    return Sentences("random pieces of the vocabulary", tuple(lines), None)
