"""More training data out of the same: data diversification (Nguyen et al. 2020, arXiv 1911.01986).

Models that were trained on a corpus translate it: its sources by some, its targets by others that go the other way. A
model that is trained on the original pairs and these learns from several teachers at once. Translated targets alone are
sequence-level knowledge distillation (Kim and Rush 2016, arXiv 1606.07947), translated sources back-translation of the
corpus itself (Sennrich et al. 2016, arXiv 1511.06709). Nothing but the corpus is used.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from seq2seq.errors import OptionError, UserError
from seq2seq.files import replacing
from seq2seq.text.reading import aligned, read_lines

Pair = tuple[str, str]


class Translates(Protocol):
    """What a teacher is asked: its translations of lines, one a line, in order."""

    def __call__(self, lines: Iterable[str]) -> Iterator[str]: ...


@dataclass
class Counts:
    """Pairs of the corpus, pairs with translations, and how many different ones were written."""

    corpus: int = 0
    all: int = 0
    written: int = 0

    def describe(self) -> str:
        return f"{self.corpus:,} pairs of the corpus, {self.all:,} with translations, {self.written:,} different ones"


def output_paths(source: Path, target: Path, folder: Path) -> tuple[Path, Path]:
    """Where `diversify` writes: the names of the corpus in another folder, not gzipped. Raises OptionError."""
    paths = tuple(folder / path.name.removesuffix(".gz") for path in (source, target))
    if paths[0] == paths[1]:
        raise OptionError(f"--source and --target are both named {paths[0].name}: rename one of them")
    for path in paths:
        if path.resolve() in (source.resolve(), target.resolve()):
            raise OptionError(f"--output {folder}: {path.name} there is the corpus itself; name another folder")
    return paths[0], paths[1]


def diversify(
    source: Path,
    target: Path,
    folder: Path,
    *,
    forward: Iterable[Callable[[], Translates]],
    backward: Iterable[Callable[[], Translates]],
    overwrite: bool = False,
) -> Counts:
    """Writes the pairs of two aligned files, and those with translations, into two files of the same names in a folder.

    forward, backward: each loads a model that translates sources, or targets; one is loaded at a time. The pairs of the
    corpus come first, then those of each model; what comes twice, and pairs with an empty translation, are left out.
    Both files appear when all is done. Raises DataError for files that cannot be read, UserError where there are files
    to be overwritten.
    """
    paths = output_paths(source, target, folder)
    for path in paths:
        if path.exists() and not overwrite:
            raise UserError(f"{path}: is there already; add --overwrite, or name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    counts, seen = Counts(), set[bytes]()
    with contextlib.ExitStack() as opened:
        temporary = [opened.enter_context(replacing(path)) for path in paths]
        files = [opened.enter_context(path.open("w", encoding="utf-8", newline="\n")) for path in temporary]
        for pair in _pairs(source, target, forward, backward, counts):
            counts.all += 1
            digest = hashlib.blake2b("\n".join(pair).encode(), digest_size=16).digest()
            if digest in seen:
                continue
            seen.add(digest)
            counts.written += 1
            for file, text in zip(files, pair, strict=True):
                file.write(f"{text}\n")
        for file in files:
            file.close()  # before it is renamed
    return counts


def _pairs(
    source: Path,
    target: Path,
    forward: Iterable[Callable[[], Translates]],
    backward: Iterable[Callable[[], Translates]],
    counts: Counts,
) -> Iterator[Pair]:
    for pair in _corpus(source, target):
        counts.corpus += 1
        yield pair
    for load in forward:
        for (text, _), translation in _translated(load(), source, target, 0, counts):
            yield text, translation
    for load in backward:
        for (_, text), translation in _translated(load(), source, target, 1, counts):
            yield translation, text


def _translated(
    translate: Translates, source: Path, target: Path, side: int, counts: Counts
) -> Iterator[tuple[Pair, str]]:
    """Each pair of the corpus with the translation of one of its sides, where that is not empty."""
    translations = translate(pair[side] for pair in _corpus(source, target))
    found = 0
    for pair, translation in zip(_corpus(source, target), translations, strict=True):
        found += 1
        if translation.strip():
            yield pair, translation
    if found != counts.corpus:
        raise UserError(
            f"{source}, {target}: read again, they gave {found:,} pairs instead of {counts.corpus:,}; they are read "
            "once for each model, so name files that stay"
        )


def _corpus(source: Path, target: Path) -> Iterator[Pair]:
    """The pairs of the corpus that have something on both sides."""
    pairs = aligned(read_lines(source), read_lines(target), str(source), str(target))
    return (pair for pair in pairs if pair[0].strip() and pair[1].strip())
