"""The Arrow files that pairs become."""

from __future__ import annotations

import errno
import hashlib
import os
import tracemalloc
import unicodedata
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from helpers import message_of, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import seq2seq.text.corpus as corpus_module
from seq2seq.config import DataConfig
from seq2seq.text.corpus import (
    FilterCounts,
    PieceCorpus,
    TextCorpus,
    build_piece_corpus,
    build_text_corpus,
    content_hash,
    hash_sources,
    source_hashes,
)
from seq2seq.text.errors import DataError
from seq2seq.text.reading import read_pairs

# Every example writes to files of its own names, so that a folder may serve them all.
in_one_folder = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
# What str.splitlines splits at and a corpus must not, mixed with anything else that is UTF-8.
separators = st.sampled_from("\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029\r\t ")
characters = st.characters(exclude_categories=["Cs"], exclude_characters="\n") | separators
any_line = st.text(characters, max_size=12)
pairs = st.lists(st.tuples(any_line, any_line), max_size=12)


def fails(pattern: str, work: Callable[[], object]) -> str:
    return message_of(DataError, work, pattern=pattern)


def text_corpus(path: Path, rows: list[tuple[str, str]]) -> TextCorpus:
    return build_text_corpus(rows, path, drop_empty=False, drop_duplicates=False)[0]


def by_characters(lines: list[str]) -> list[list[int]]:
    return [[ord(character) for character in text] for text in lines]


# Text on disk


@in_one_folder
@given(rows=pairs, size=st.integers(1, 5), batch=st.integers(1, 4))
def test_pairs_round_trip_through_arrow(tmp_path: Path, rows: list[tuple[str, str]], size: int, batch: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus_module, "BATCH_PAIRS", batch)
        corpus = text_corpus(tmp_path / "text.arrow", rows)
    assert len(corpus) == len(rows)
    assert list(corpus) == rows
    assert [corpus[i] for i in range(len(rows))] == rows
    assert list(zip(corpus.sources(), corpus.targets(), strict=True)) == rows
    batches = list(corpus.batches())
    assert all(len(sources) == batch for sources, _ in batches[:-1])
    assert [row for sources, targets in batches for row in zip(sources, targets, strict=True)] == rows
    assert list(zip(*corpus.first(size), strict=True)) == rows[:size]
    with pytest.raises(IndexError):
        corpus[len(rows)]


@in_one_folder
@given(rows=pairs.map(lambda rows: rows + rows[::2]))
def test_dropped_pairs_are_counted_once_by_reason(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    filled = [row for row in rows if row[0].strip() and row[1].strip()]
    expected = list(dict.fromkeys(filled))
    corpus, counts = build_text_corpus(rows, tmp_path / "text.arrow", drop_empty=True, drop_duplicates=True)
    assert list(corpus) == expected
    assert counts == FilterCounts(
        read=len(rows), kept=len(expected), empty=len(rows) - len(filled), duplicate=len(filled) - len(expected)
    )


def test_long_sentences_make_small_record_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus_module, "BATCH_CHARACTERS", 10)
    corpus = text_corpus(tmp_path / "text.arrow", [("sentence", "Satz")] * 3)
    with pa.ipc.open_stream(corpus.path) as reader:
        assert [batch.num_rows for batch in reader] == [1, 1, 1]


def test_duplicates_are_pairs_and_not_their_concatenation(tmp_path: Path) -> None:
    rows = [("ab", "c"), ("a", "bc"), ("ab", "x"), ("ab", "c")]
    corpus, _ = build_text_corpus(rows, tmp_path / "text.arrow", drop_empty=True, drop_duplicates=True)
    assert list(corpus) == rows[:3]


def test_a_corpus_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus_module, "BATCH_PAIRS", 2)
    data = DataConfig(train_source=write(tmp_path / "a", "x\n" * 9), train_target=write(tmp_path / "b", "y\n" * 8))
    folder = tmp_path / "made" / "on the way"
    build = lambda: build_text_corpus(  # noqa: E731
        read_pairs(data, "train"), folder / "text.arrow", drop_empty=True, drop_duplicates=False
    )
    fails("a has 9 lines and .*b has 8", build)
    assert list(folder.iterdir()) == []


def test_a_full_disk_is_a_data_error_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    fails("no space left", lambda: text_corpus(tmp_path / "text.arrow", [("a", "b")]))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_a_data_error(tmp_path: Path) -> None:
    write(tmp_path / "file", "")
    fails("cannot be written", lambda: text_corpus(tmp_path / "file" / "text.arrow", []))


def test_a_file_that_is_no_corpus_is_a_data_error(tmp_path: Path) -> None:
    path = tmp_path / "text.arrow"
    fails("not a corpus", lambda: TextCorpus(path))
    for content in ("", "not Arrow at all"):
        write(path, content)
        fails("delete it", lambda: TextCorpus(path))
    text_corpus(path, [("a", "b")])
    fails("delete it", lambda: PieceCorpus(path))


def test_counts_are_described_in_one_line() -> None:
    counts = FilterCounts(
        read=29_000, kept=28_950, empty=12, too_long_source=10, too_long_target=20, length_ratio=8
    )  # fmt: skip
    assert counts.describe() == (
        "29,000 pairs read, 28,950 kept; dropped: 12 empty, 30 too long, 8 of implausible length ratio"
    )
    assert FilterCounts(read=2, kept=2).describe() == "2 pairs read, 2 kept"
    assert counts.as_dict()["too_long_target"] == 20


# Pieces on disk


@in_one_folder
@given(rows=pairs, batch=st.integers(1, 4))
def test_pieces_are_those_of_the_encoders(tmp_path: Path, rows: list[tuple[str, str]], batch: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus_module, "BATCH_PAIRS", batch)
        text, path = text_corpus(tmp_path / "text.arrow", rows), tmp_path / "pieces.arrow"
        pieces = build_piece_corpus(text, by_characters, by_characters, DataConfig(), path, None, filters=False)
    assert len(pieces) == len(rows)
    for index, (source, target) in enumerate(rows):
        assert pieces.source(index).dtype == pieces.target(index).dtype == np.int32
        assert pieces.source(index).tolist() == [ord(character) for character in source]
        assert pieces.target(index).tolist() == [ord(character) for character in target]
        assert pieces.line(index) == index
    assert pieces.source_lengths.tolist() == [len(source) for source, _ in rows]
    assert pieces.target_lengths.tolist() == [len(target) for _, target in rows]
    assert pieces.source_lengths.dtype == np.int32
    for outside in (-1, len(rows)):
        with pytest.raises(IndexError):
            pieces.source(outside)


@in_one_folder
@given(
    lengths=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=20),
    longest=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    ratio=st.sampled_from([1.0, 1.5, 2.0]),
    free=st.integers(0, 9),
)
def test_filters_keep_what_they_say_and_count_the_rest(
    tmp_path: Path, lengths: list[tuple[int, int]], longest: tuple[int, int], ratio: float, free: int
) -> None:
    data = DataConfig(
        max_source_length=longest[0], max_target_length=longest[1], max_length_ratio=ratio, ratio_free_length=free
    )
    rows = [("s" * source, "t" * target) for source, target in lengths]
    text, counts = build_text_corpus(rows, tmp_path / "text.arrow", drop_empty=False, drop_duplicates=False)
    path = tmp_path / "pieces.arrow"
    pieces = build_piece_corpus(text, by_characters, by_characters, data, path, counts, filters=True)
    kept = [
        index
        for index, (source, target) in enumerate(lengths)
        if 0 < source <= longest[0]
        and 0 < target <= longest[1]
        and (max(source, target) <= free or max(source, target) / min(source, target) <= ratio)
    ]
    assert [pieces.line(index) for index in range(len(pieces))] == kept
    assert [(len(pieces.source(i)), len(pieces.target(i))) for i in range(len(kept))] == [lengths[i] for i in kept]
    assert counts.kept == len(kept)
    assert counts.empty == sum(0 in pair for pair in lengths)
    assert sum(counts.as_dict().values()) - counts.read - counts.kept == counts.read - counts.kept


# Hashes


@in_one_folder
@given(rows=pairs, other=pairs, batch=st.integers(1, 4))
def test_the_content_hash_tells_pairs_and_nothing_else(
    tmp_path: Path, rows: list[tuple[str, str]], other: list[tuple[str, str]], batch: int
) -> None:
    def build(name: str, rows: list[tuple[str, str]]) -> tuple[str, str]:
        text = text_corpus(tmp_path / f"{name}.arrow", rows)
        path = tmp_path / f"{name}-pieces.arrow"
        build_piece_corpus(text, by_characters, by_characters, DataConfig(), path, None, filters=False)
        return content_hash(text.path), content_hash(path)

    hashes = build("one", rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus_module, "BATCH_PAIRS", batch)
        assert build("two", rows) == hashes
    for one, another in zip(hashes, build("three", other), strict=True):
        assert (one == another) == (rows == other)


@settings(deadline=None)
@given(lines=st.lists(any_line, max_size=6))
def test_sources_are_hashed_as_documented(lines: list[str]) -> None:
    def hashed(text: str) -> int:
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)

    def normalized(text: str) -> str:
        folded = unicodedata.normalize("NFKC", text).casefold()
        selectors = {
            chr(code) for code in (0x20E3, *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0), *range(0x180B, 0x180E))
        }
        return "".join(c for c in folded if unicodedata.category(c)[0] in "LMN" and c not in selectors)

    exact, loose = hash_sources(lines)
    assert exact.dtype == loose.dtype == np.int64
    assert exact.tolist() == [hashed(text) for text in lines]
    assert loose.tolist() == [hashed(normalized(text)) for text in lines]


def test_the_normalized_hash_sees_past_case_width_and_punctuation() -> None:
    exact, loose = hash_sources(["A man, in 2 STRASSEN!", "a man in ２ straßen", "A man in 3 Straßen"])
    assert len(set(exact.tolist())) == 3
    assert loose[0] == loose[1] != loose[2]


def test_membership_of_training_sources_can_be_asked(tmp_path: Path) -> None:
    text = text_corpus(tmp_path / "text.arrow", [("Ein Hund.", "a"), ("Zwei", "b"), ("Ein Hund.", "c")])
    known = source_hashes(text)
    exact, loose = hash_sources(["Ein Hund.", "ein  Hund", "Drei"])
    assert np.isin(exact, known["exact"]).tolist() == [True, False, False]
    assert np.isin(loose, known["normalized"]).tolist() == [True, True, False]
    assert all(np.all(np.diff(hashes) > 0) and len(hashes) == 2 for hashes in known.values())


def test_building_and_reading_keep_memory_bounded(tmp_path: Path) -> None:
    """Python's memory does not grow with the corpus: four times the pairs, about the same peak."""

    def peak(count: int) -> int:
        rows = ((f"Satz Nummer {i} " * 3, f"sentence number {i} " * 3) for i in range(count))
        tracemalloc.start()
        try:
            corpus, _ = build_text_corpus(rows, tmp_path / f"{count}.arrow", drop_empty=True, drop_duplicates=False)
            assert len(list(islice(corpus.sources(), 3))) == 3
            assert sum(1 for _ in corpus) == count
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(80_000) < 1.5 * peak(20_000)
