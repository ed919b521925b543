"""Sentence pairs on disk, memory-mapped.

Two steps, each of them a stream: `build_text_corpus` writes the pairs that `seq2seq.text.reading` gives to an Arrow
file, `build_piece_corpus` encodes and filters them into another. Every pair that is dropped on the way is counted by
its reason. What is read back is memory-mapped, so that two million pairs cost address space and page cache rather than
Python objects.

The Arrow files are in the streaming format: `datasets.Dataset.from_file` opens them too. Here they are opened with
plain pyarrow, which is imported ten times faster and reads a random row in microseconds where a Dataset needs tens.
"""

from __future__ import annotations

import hashlib
import itertools
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from seq2seq.atomic import replacing
from seq2seq.config import DataConfig
from seq2seq.text.errors import DataError, unwritable
from seq2seq.text.tokenizer import UNK

Encode = Callable[[list[str]], list[list[int]]]

BATCH_PAIRS = 10_000  # pairs in an Arrow record batch
BATCH_CHARACTERS = 4_000_000  # and characters: their pieces take ten times as many bytes while a batch is encoded

TEXT_SCHEMA = pa.schema([("source", pa.string()), ("target", pa.string())])
PIECE_SCHEMA = pa.schema([("source", pa.list_(pa.int32())), ("target", pa.list_(pa.int32())), ("line", pa.int64())])


# Text on disk


@dataclass
class FilterCounts:
    """How many pairs were read and kept, and why the others were dropped: each counts once, for its first reason."""

    read: int = 0
    kept: int = 0
    empty: int = 0
    duplicate: int = 0
    too_long_source: int = 0
    too_long_target: int = 0
    length_ratio: int = 0

    def describe(self) -> str:
        """One line for people: "29,000 pairs read, 28,950 kept; dropped: 12 empty, 30 too long"."""
        reasons = {
            "empty": self.empty,
            "duplicate": self.duplicate,
            "too long": self.too_long_source + self.too_long_target,
            "of implausible length ratio": self.length_ratio,
        }
        dropped = ", ".join(f"{count:,} {reason}" for reason, count in reasons.items() if count)
        pairs = "1 pair" if self.read == 1 else f"{self.read:,} pairs"
        return f"{pairs} read, {self.kept:,} kept" + (f"; dropped: {dropped}" if dropped else "")

    def as_dict(self) -> dict[str, int]:
        return asdict(self)


class TextCorpus:
    """The sentence pairs of an Arrow file, memory-mapped: row i is (source, target)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._table = pa.Table.from_batches(_open_batches(path, TEXT_SCHEMA), TEXT_SCHEMA)
        self._source, self._target = self._table.column("source"), self._table.column("target")

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __getitem__(self, index: int) -> tuple[str, str]:
        return self._source[index].as_py(), self._target[index].as_py()

    def __iter__(self) -> Iterator[tuple[str, str]]:
        for sources, targets in self.batches():
            yield from zip(sources, targets, strict=True)

    def sources(self) -> Iterator[str]:
        """The source sentences in order; as many at a time are in memory as a record batch holds."""
        return (text for chunk in self._source.chunks for text in chunk.to_pylist())

    def targets(self) -> Iterator[str]:
        """The target sentences in order; as many at a time are in memory as a record batch holds."""
        return (text for chunk in self._target.chunks for text in chunk.to_pylist())

    def batches(self) -> Iterator[tuple[list[str], list[str]]]:
        """The pairs in order as (sources, targets), as many at a time as a record batch holds: bounded in memory."""
        for batch in self._table.to_batches():
            yield batch.column(0).to_pylist(), batch.column(1).to_pylist()

    def first(self, count: int) -> tuple[list[str], list[str]]:
        """The sources and the targets of the first pairs, `count` of them or as many as there are."""
        return self._source.slice(0, count).to_pylist(), self._target.slice(0, count).to_pylist()


def build_text_corpus(
    pairs: Iterable[tuple[str, str]], path: Path, *, drop_empty: bool, drop_duplicates: bool
) -> tuple[TextCorpus, FilterCounts]:
    """Writes the pairs to an Arrow file at `path`, which appears whole or not at all, and counts them.

    drop_empty: leave out pairs with a side of nothing but white space. drop_duplicates: keep the first of equal pairs,
    told by 64-bit hashes in a set; about 80 bytes a pair, and one chance in ten million of dropping a pair wrongly
    from two million. Raises what `pairs` raises, and DataError where the file cannot be written.
    """
    counts, seen = FilterCounts(), set[bytes]()
    with _arrow_writer(path, TEXT_SCHEMA) as writer:
        sources: list[str] = []
        targets: list[str] = []
        characters = 0
        for source, target in pairs:
            counts.read += 1
            if drop_empty and not (source.strip() and target.strip()):
                counts.empty += 1
                continue
            if drop_duplicates:
                key = _hash64(f"{len(source)} {source}{target}")
                if key in seen:
                    counts.duplicate += 1
                    continue
                seen.add(key)
            sources.append(source)
            targets.append(target)
            characters += len(source) + len(target)
            if len(sources) == BATCH_PAIRS or characters > BATCH_CHARACTERS:
                writer.write_batch(pa.record_batch([sources, targets], schema=TEXT_SCHEMA))
                sources, targets, characters = [], [], 0
        if sources:
            writer.write_batch(pa.record_batch([sources, targets], schema=TEXT_SCHEMA))
    corpus = TextCorpus(path)
    counts.kept = len(corpus)
    return corpus, counts


# Pieces on disk


class PieceCorpus:
    """The encoded pairs of an Arrow file, memory-mapped. Rows are read-only views of the file: copy them to write.

    source_lengths, target_lengths: pieces of each pair, without end-of-sentence; int32, in memory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        batches = _open_batches(path, PIECE_SCHEMA)
        self._starts: list[int] = [0, *itertools.accumulate(batch.num_rows for batch in batches)]
        self._sources, self._targets = ([_list_parts(batch.column(side)) for batch in batches] for side in (0, 1))
        self._lines = [_integers(batch.column(2)) for batch in batches]
        self.source_lengths, self.target_lengths = (
            np.concatenate([np.zeros(0, np.int32), *(np.diff(offsets) for offsets, _ in parts)])
            for parts in (self._sources, self._targets)
        )

    def __len__(self) -> int:
        return self._starts[-1]

    def source(self, index: int) -> npt.NDArray[np.int32]:
        """The source pieces of a pair, [S], without special ids."""
        batch, row = self._locate(index)
        offsets, values = self._sources[batch]
        return values[offsets[row] : offsets[row + 1]]

    def target(self, index: int) -> npt.NDArray[np.int32]:
        """The target pieces of a pair, [T], without special ids."""
        batch, row = self._locate(index)
        offsets, values = self._targets[batch]
        return values[offsets[row] : offsets[row + 1]]

    def unknown_shares(self) -> tuple[float, float]:
        """How much of the source pieces and of the target pieces the vocabulary does not know."""
        shares = []
        for parts in (self._sources, self._targets):
            unknown = sum(int((values[offsets[0] : offsets[-1]] == UNK).sum()) for offsets, values in parts)
            shares.append(unknown / max(1, sum(int(offsets[-1] - offsets[0]) for offsets, _ in parts)))
        return shares[0], shares[1]

    def line(self, index: int) -> int:
        """The pair's index in the TextCorpus that it was encoded from."""
        batch, row = self._locate(index)
        return int(self._lines[batch][row])

    def _locate(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"pair {index} of {len(self)}")
        batch = bisect_right(self._starts, index) - 1
        return batch, index - self._starts[batch]


def build_piece_corpus(
    text: TextCorpus,
    encode_source: Encode,
    encode_target: Encode,
    data: DataConfig,
    path: Path,
    counts: FilterCounts | None,
    *,
    filters: bool,
    progress: Callable[[int], None] = lambda done: None,
) -> PieceCorpus:
    """Encodes the pairs to an Arrow file at `path`, which appears whole or not at all.

    With `filters`, pairs outside the lengths and the length ratio of [data] are dropped, as are those without a single
    piece on a side. counts: where the reasons are added and `kept` is set; None counts nothing. progress: is told how
    many pairs are done. Raises DataError where the file cannot be written.
    """
    counts = counts if counts is not None else FilterCounts()
    start = 0
    with _arrow_writer(path, PIECE_SCHEMA) as writer:
        for sources, targets in text.batches():
            lines = range(start, start + len(sources))
            rows = list(zip(encode_source(sources), encode_target(targets), lines, strict=True))
            if filters:
                rows = [row for row in rows if _plausible(len(row[0]), len(row[1]), data, counts)]
            if rows:
                writer.write_batch(pa.record_batch(list(zip(*rows, strict=True)), schema=PIECE_SCHEMA))
            start += len(sources)
            progress(start)
    corpus = PieceCorpus(path)
    counts.kept = len(corpus)
    return corpus


def _plausible(source_length: int, target_length: int, data: DataConfig, counts: FilterCounts) -> bool:
    """Whether a pair of so many pieces is kept; if not, counts why."""
    shorter, longer = sorted((source_length, target_length))
    if shorter == 0:
        counts.empty += 1
    elif source_length > data.max_source_length:
        counts.too_long_source += 1
    elif target_length > data.max_target_length:
        counts.too_long_target += 1
    elif longer > data.ratio_free_length and longer > data.max_length_ratio * shorter:
        counts.length_ratio += 1
    else:
        return True
    return False


# Arrow files


@contextmanager
def _arrow_writer(path: Path, schema: pa.Schema) -> Iterator[Any]:
    """A writer of record batches to a temporary file, which takes the place of `path` if all goes well."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            replacing(path) as temporary,
            open(temporary, "wb") as sink,
            pa.ipc.new_stream(sink, schema) as writer,
        ):
            yield writer
    except OSError as error:
        raise unwritable(path, error) from None


def _open_batches(path: Path, schema: pa.Schema | None = None) -> list[Any]:
    """The record batches of an Arrow file, their buffers views of the memory-mapped file."""
    try:
        with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as reader:
            batches = list(reader)
            if schema is not None and reader.schema != schema:
                raise pa.ArrowInvalid("its columns are others")
    except (OSError, pa.ArrowException) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path}: not a corpus of this program ({reason}); delete it, it is made again") from None
    return batches


def _integers(column: Any) -> npt.NDArray[Any]:
    """An integer column without nulls as a view."""
    return cast(npt.NDArray[Any], column.to_numpy(zero_copy_only=True))


def _list_parts(column: Any) -> tuple[npt.NDArray[np.int32], npt.NDArray[Any]]:
    """The offsets [rows + 1] and the values of a column of strings (bytes) or of integer lists, as views."""
    offsets = np.frombuffer(column.buffers()[1], np.int32)[column.offset : column.offset + len(column) + 1]
    if pa.types.is_string(column.type):
        data = column.buffers()[2]
        return offsets, np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8)
    return offsets, _integers(column.values)


# Hashes


def content_hash(path: Path) -> str:
    """The SHA-256 of the pairs in a corpus file, 64 hexadecimal digits.

    A function of the rows alone: not of the record batches, nor of the bytes that an Arrow version puts around them,
    so that upgrading pyarrow does not make the data look like another.
    """
    hashes: dict[str, Any] = {}
    for batch in _open_batches(path):
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            if pa.types.is_integer(column.type):
                parts = {name: _integers(column)}
            else:
                offsets, values = _list_parts(column)
                parts = {f"{name} lengths": np.diff(offsets), name: values[offsets[0] : offsets[-1]]}
            for part, array in parts.items():
                hashes.setdefault(part, hashlib.sha256()).update(array)
    whole = hashlib.sha256()
    for part in sorted(hashes):
        whole.update(f"{part} {hashes[part].hexdigest()}\n".encode())
    return whole.hexdigest()


def source_hashes(text: TextCorpus) -> dict[str, npt.NDArray[np.int64]]:
    """The sorted, unique hashes of the source sentences, "exact" and "normalized": see `hash_sources`. 16 bytes a pair.

    np.isin against them tells which sentences of a test set were in the training data.
    """
    parts = [hash_sources(sources) for sources, _ in text.batches()] or [hash_sources([])]
    exact, normalized = (np.unique(np.concatenate(side)) for side in zip(*parts, strict=True))
    return {"exact": exact, "normalized": normalized}


def hash_sources(lines: Iterable[str]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """64-bit blake2b hashes of each line, and of what is left of it without case, punctuation and spacing; in order."""
    exact, normalized, letters = bytearray(), bytearray(), _Letters()
    for line in lines:
        exact += _hash64(line)
        normalized += _hash64(unicodedata.normalize("NFKC", line).casefold().translate(letters))
    return np.frombuffer(bytes(exact), "<i8").astype(np.int64), np.frombuffer(bytes(normalized), "<i8").astype(np.int64)


def _hash64(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest()


# Variation selectors, three blocks of them, and the enclosing keycap.
LOOKS = {*range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0), *range(0x180B, 0x180E), 0x20E3}


class _Letters(dict[int, int | None]):
    """For str.translate: what a line keeps, letters, digits and marks (Unicode categories L, N and M).

    Marks are vowels in many scripts. Those that choose how a character looks, and the frame around a keycap, go.
    """

    def __missing__(self, code: int) -> int | None:
        kept = unicodedata.category(chr(code))[0] in "LNM" and code not in LOOKS
        self[code] = code if kept else None
        return self[code]
