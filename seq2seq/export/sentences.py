"""The sentences that an export is tried on: held out, given, or made up."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seq2seq.config import Config, DataConfig
from seq2seq.errors import UserError
from seq2seq.export.errors import ExportError
from seq2seq.text.errors import DataError
from seq2seq.text.reading import read_lines, read_pairs
from seq2seq.text.tokenizer import EOS, Tokenizer

MOST_SENTENCES = 200
LONGEST = 200  # pieces: longer sentences take long and tell nothing new
MADE_UP = 100  # sentences from random pieces, where there are no real ones
TRIES = 100  # for each of them


@dataclass(frozen=True)
class Sentences:
    """Lines to translate, their references where there are any, where they are from, and whether they are no text."""

    origin: str
    lines: tuple[str, ...]
    references: tuple[str, ...] | None
    made_up: bool = False

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
    kept = [pair for pair in _held_out(config.data, 4 * most) if _serves(tokenizer, pair[0])][:most]
    if kept:
        lines, references = zip(*kept, strict=True)
        return Sentences("the run's validation set", lines, references)
    return made_up_sentences(tokenizer, most)


def _held_out(data: DataConfig, most: int) -> list[tuple[str, str]]:
    """Pairs of the validation files, which a run of unknown origin may name; none where they are no plain files."""
    names = [data.valid_source, data.valid_target] if data.valid_source else [data.valid_pairs]
    try:
        if not all(Path(name).is_file() for name in names):  # a pipe would be waited for
            return []
        return list(itertools.islice(read_pairs(data, "valid"), most))
    except (UserError, OSError):  # moved, or changed since
        return []


def _given(tokenizer: Tokenizer, source: Path, reference: Path | None, most: int) -> Sentences:
    looked_at = 4 * most
    lines = list(itertools.islice(read_lines(source), looked_at))
    references = list(itertools.islice(read_lines(reference), looked_at)) if reference is not None else None
    if references is not None and len(references) != len(lines):
        raise DataError(
            f"{source} has {len(lines):,} lines and {reference} has {len(references):,} (of the first {looked_at:,}): "
            "give a reference for each line"
        )
    kept = [number for number, line in enumerate(lines) if _serves(tokenizer, line)][:most]
    if not kept:
        where = "it" if len(lines) < looked_at else f"its first {looked_at:,} lines"
        raise ExportError(
            f"--certify-source {source}: no sentence of 1 to {LONGEST} pieces in {where}; name another file"
        )
    found = tuple(references[number] for number in kept) if references is not None else None
    return Sentences(source.name, tuple(lines[number] for number in kept), found)


def _serves(tokenizer: Tokenizer, line: str) -> bool:
    return bool(line.strip()) and 1 <= len(tokenizer.encode_source([line])[0]) <= LONGEST


def made_up_sentences(tokenizer: Tokenizer, most: int) -> Sentences:
    """Random pieces as text, at most 100 lines of it: no language, but every export must agree on them.

    Raises ExportError for a vocabulary of which none becomes text, such as one of spaces alone.
    """
    generator = np.random.default_rng(0)
    processor = tokenizer.source
    pieces = [i for i in range(EOS + 1, tokenizer.source_vocab_size) if not processor.is_byte(i)]
    most = min(most, MADE_UP)
    lines: list[str] = []
    for _ in range(TRIES * most if pieces else 0):
        ids = generator.choice(pieces, size=int(generator.integers(1, 31))).tolist()
        line = str(processor.decode(ids)).replace("\n", " ")
        if _serves(tokenizer, line):
            lines.append(line)
        if len(lines) == most:
            break
    if not lines:
        raise ExportError("no text can be made up from the run's vocabulary to try an export on; try another model")
    return Sentences("random pieces of the vocabulary", tuple(lines), None, made_up=True)
