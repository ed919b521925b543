"""Lines and pairs, from files and from datasets."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import message_of, write
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import seq2seq.text.reading as reading_module
from seq2seq.config import ConfigError, DataConfig
from seq2seq.text.errors import DataError
from seq2seq.text.reading import has_split, lines_of, read_lines, read_pairs

# Every example writes to files of its own names, so that a folder may serve them all.
in_one_folder = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
# What str.splitlines splits at and a corpus must not, mixed with anything else that is UTF-8.
separators = st.sampled_from("\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029\r\t ")
characters = st.characters(exclude_categories=["Cs"], exclude_characters="\n") | separators
line = st.text(characters, max_size=12).filter(lambda text: not text.endswith("\r"))


def zipped(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("corpus.txt", content)
    return file.getvalue()


def fails(pattern: str, work: Callable[[], object]) -> str:
    return message_of(DataError, work, pattern=pattern)


# Lines


@pytest.mark.parametrize(
    ("pack", "kind"), [(lzma.compress, "an xz file"), (bz2.compress, "a bzip2 file"), (zipped, "a zip file")]
)
def test_what_is_packed_otherwise_is_named(tmp_path: Path, pack: Callable[[bytes], bytes], kind: str) -> None:
    path = tmp_path / "corpus"
    path.write_bytes(pack("Ein Hund läuft über die Straße.\n".encode() * 50))
    fails(f"corpus, line 1: not UTF-8 text .* but {kind}; unpack it", lambda: list(read_lines(path)))


@in_one_folder
@given(
    lines=st.lists(line, max_size=8),
    ending=st.sampled_from(["\n", "\r\n"]),
    zipped=st.booleans(),
    mark=st.booleans(),
    last=st.booleans(),
)
def test_lines_round_trip_through_files(
    tmp_path: Path, lines: list[str], ending: str, zipped: bool, mark: bool, last: bool
) -> None:
    text = "".join(text + ending for text in lines)
    if not last and lines and lines[-1]:
        text = text.removesuffix(ending)
    # Without a mark of the file's own, one at the start of the first line would be taken for it.
    raw = ("\ufeff" if mark or text.startswith("\ufeff") else "").encode() + text.encode()
    path = tmp_path / "lines.txt"  # gzip is told by the content, not by the name
    path.write_bytes(gzip.compress(raw, 1) if zipped else raw)
    assert list(read_lines(path)) == lines


@settings(deadline=None)
@given(text=st.text(characters | st.just("\n")))
@example(text="one carriage return goes\r\r\n\r")
def test_lines_end_at_line_feeds_only(text: str) -> None:
    expected = text.removeprefix("\ufeff").split("\n")
    last = expected.pop()
    expected = [piece.removesuffix("\r") for piece in expected] + ([last] if last else [])
    assert list(lines_of(io.BytesIO(text.encode()), "input")) == expected


def test_a_stream_of_gzip_is_decompressed() -> None:
    packed = io.BufferedReader(io.BytesIO(gzip.compress(b"ein\nzwei\n")))
    assert list(lines_of(packed, "standard input")) == ["ein", "zwei"]


def test_gzip_members_after_one_another_are_one_file(tmp_path: Path) -> None:
    path = write(tmp_path / "two.gz", gzip.compress(b"a\nb") + gzip.compress(b"c\nd\n"))
    assert list(read_lines(Path(path))) == ["a", "bc", "d"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"good\n\xff\xfe bad\n", "line 2: not UTF-8 text"),
        ("für".encode("utf-16"), "line 1: not UTF-8 text"),
        (b"good\nb\xc3", r"line 2: not UTF-8 text \(byte 2 of the line\)"),
        (gzip.compress(b"one\ntwo\n" * 50_000)[:-300], "damaged gzip"),
        (gzip.compress(b"one\ntwo\n")[:-1] + b"!", "damaged gzip"),
        (gzip.compress(b"one\n") + b"rubbish", "damaged gzip"),
    ],
)
def test_a_damaged_file_is_named_with_the_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "corpus.en"
    path.write_bytes(content)
    assert str(path) in fails(message, lambda: list(read_lines(path)))


def test_a_missing_file_and_a_folder_are_data_errors(tmp_path: Path) -> None:
    fails("absent.en: no such file", lambda: list(read_lines(tmp_path / "absent.en")))
    fails("is a folder", lambda: list(read_lines(tmp_path)))


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_a_line_may_be_as_long_as_the_cap_and_no_longer(
    monkeypatch: pytest.MonkeyPatch, start: str, ending: str
) -> None:
    monkeypatch.setattr(reading_module, "MAX_LINE_BYTES", 10)
    fits, more = (io.BytesIO(f"{start}{text}{ending}".encode()) for text in ("x" * 10, "x" * 11))
    assert list(lines_of(fits, "input")) == ["x" * 10]
    fails("input, line 1: longer than 10 bytes", lambda: list(lines_of(more, "input")))


def test_a_file_without_line_breaks_does_not_fill_memory(tmp_path: Path) -> None:
    path = tmp_path / "zeros.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(30):
            file.write(bytes(1_000_000))
    tracemalloc.start()
    try:
        fails("line 1: longer than 1,000,000 bytes", lambda: list(read_lines(path)))
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


# Pairs


def test_aligned_files_give_their_pairs(tmp_path: Path) -> None:
    data = DataConfig(
        train_source=write(tmp_path / "a.en", "one\n\nthree"),
        train_target=write(tmp_path / "a.de.gz", gzip.compress("eins\nzwei\u2028\ndrei\n".encode())),
    )
    assert list(read_pairs(data, "train")) == [("one", "eins"), ("", "zwei\u2028"), ("three", "drei")]


@in_one_folder
@given(lengths=st.tuples(st.integers(0, 5), st.integers(0, 5)).filter(lambda pair: pair[0] != pair[1]))
def test_files_of_unequal_length_are_told_with_both_counts(tmp_path: Path, lengths: tuple[int, int]) -> None:
    source, target = (write(tmp_path / f"{side}.txt", "line\n" * n) for side, n in zip("ab", lengths, strict=True))
    data = DataConfig(valid_source=source, valid_target=target)
    fails(f"a.txt has {lengths[0]} lines and .*b.txt has {lengths[1]}:", lambda: list(read_pairs(data, "valid")))


def test_a_table_from_a_spreadsheet_is_read_with_quotes_and_header(tmp_path: Path) -> None:
    text = (
        '\ufeffid\tGerman\tEnglish\r\n1\t"sagte ""ja"""\t"said ""yes"""\r\n'
        '2\t"zwei\nZeilen"\tplain\r\n3\t"mit\tTab"\t5" long\r\n'
    )
    given = DataConfig(
        train_pairs=write(tmp_path / "p.TSV", text), source_column="English", target_column="German", tsv_header=True,
        tsv_quotes=True,
    )  # fmt: skip
    expected = [('said "yes"', 'sagte "ja"'), ("plain", "zwei Zeilen"), ('5" long', "mit\tTab")]
    assert list(read_pairs(given, "train")) == expected
    plain = DataConfig(train_pairs=write(tmp_path / "q.tsv", f"a\rb\t{'long ' * 40_000}\n"), tsv_quotes=True)
    assert list(read_pairs(plain, "train")) == [("a b", "long " * 40_000)]
    spaced = DataConfig(train_pairs=write(tmp_path / "r.tsv", "a\tb\n\nc\td\n\n"))
    assert list(read_pairs(spaced, "train")) == [("a", "b"), ("c", "d")]  # empty lines are no pairs, as in JSONL
    numbered = given.model_copy(update={"source_column": "3", "target_column": "2"})
    assert list(read_pairs(numbered, "train")) == expected


@pytest.mark.parametrize(
    ("text", "changes", "message"),
    [
        ('a\tb\n"open\tc\n', {}, "line 2: quotes that do not fit together.*tsv_quotes = false"),
        ('a\tb\n"x" y\tc\n', {}, "line 2: quotes that do not fit together"),
        ('a\tb\n"x\ny"\n', {}, "line 3: no column 2, only 1"),
        ('a\tb\nc\td\n"open\tc\n' + "more\n" * 5, {}, "lines 3 to 8: quotes that do not fit together"),
        ("de\ten\n", {"tsv_header": True, "source_column": "fr"}, "line 1: no column 'fr', only 'de', 'en'"),
        ("de\ten\n", {"tsv_header": True, "source_column": "fr"}, "or without a header number the columns"),
        (
            "de;en\na;b\n",
            {"tsv_header": True, "source_column": "de"},
            "separated by ';', save it with tabs between them",
        ),
        ("a, b\n", {}, "line 1: no column 2, only 1, separated by tabs; if its columns are separated by ','"),
        ("", {"tsv_header": True, "source_column": "fr"}, r"p\.tsv: is empty"),
        ("ID\tde\ten\n", {"tsv_header": True}, "line 1: columns 'ID', 'de', 'en': name two of them"),
        (
            '"de"\t"en"\n',
            {"tsv_header": True, "tsv_quotes": False, "source_column": "de"},
            "no column 'de'.*set data.tsv_quotes = true",
        ),
        ('a\tb\n"' + 1_100_000 * "x\n" + '"\tb\n', {}, "quotes that do not fit together.*limit"),
    ],
)
def test_tables_that_do_not_fit_are_told_with_the_line(
    tmp_path: Path, text: str, changes: dict[str, Any], message: str
) -> None:
    given = DataConfig(train_pairs=write(tmp_path / "p.tsv", text), **{"tsv_quotes": True, **changes})
    with pytest.raises(DataError, match=message):
        list(read_pairs(given, "train"))


@in_one_folder
@given(rows=st.lists(st.tuples(line, line).map(lambda row: tuple(text.replace("\t", " ") for text in row)), max_size=8))
def test_pairs_round_trip_through_tsv_and_jsonl(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    rows = [row for row in rows if not row[0].startswith("\ufeff")]
    tsv = "".join(f"{source}\t{target}\tignored\n" for source, target in rows)
    jsonl = "".join(json.dumps({"target": target, "source": source}) + "\n" for source, target in rows)
    for name, text in (("p.tsv", tsv), ("p.tsv.gz", tsv), ("p.jsonl", jsonl), ("p.jsonl.gz", jsonl)):
        raw = text.encode()
        path = write(tmp_path / name, gzip.compress(raw, 1) if name.endswith(".gz") else raw)
        assert list(read_pairs(DataConfig(train_pairs=path), "train")) == rows


def test_columns_and_fields_are_chosen_by_name(tmp_path: Path) -> None:
    tsv = DataConfig(
        train_pairs=write(tmp_path / "p.tsv", "id\tdeutsch\tenglish\n"), source_column="3", target_column="2"
    )
    assert list(read_pairs(tsv, "train")) == [("english", "deutsch")]
    row = '{"en": "english", "de": "deutsch", "translation": {"en": "other", "de": "anders"}}\n\n'
    path = write(tmp_path / "p.jsonl", row)
    jsonl = DataConfig(train_pairs=path, source_column="en", target_column="de")
    assert list(read_pairs(jsonl, "train")) == [("english", "deutsch")]
    languages = DataConfig(train_pairs=path, source_language="de", target_language="en")
    assert list(read_pairs(languages, "train")) == [("anders", "other")]


def test_line_breaks_inside_a_field_become_spaces_and_null_is_empty(tmp_path: Path) -> None:
    row = {"source": "two\r\nlines\nhere\u2028", "target": None}
    data = DataConfig(train_pairs=write(tmp_path / "p.jsonl", json.dumps(row)))
    assert list(read_pairs(data, "train")) == [("two lines here\u2028", "")]
    nothing = write(tmp_path / "q.jsonl", json.dumps({"translation": None}))
    both = DataConfig(train_pairs=nothing, source_language="en", target_language="de")
    assert list(read_pairs(both, "train")) == [("", "")]


@pytest.mark.parametrize(
    "changes",
    [
        {"source_column": "source", "target_column": "source"},
        {"target_column": "source"},
        {"source_language": "en", "target_language": "en"},
    ],
)
def test_one_field_for_both_sides_is_refused(tmp_path: Path, changes: dict[str, str]) -> None:
    field = "source_language" if "source_language" in changes else "source_column"
    row = {"translation": {"en": "a", "de": "b"}} if field == "source_language" else {"source": "a", "target": "b"}
    data = DataConfig(train_pairs=write(tmp_path / "p.jsonl", json.dumps(row)), **changes)
    with pytest.raises(ConfigError, match=f"data.{field} and .* are both"):
        list(read_pairs(data, "train"))


@pytest.mark.parametrize(
    ("name", "second_line", "message"),
    [
        ("p.tsv", "only one", "line 2: no column 2, only 1"),
        ("p.jsonl", "{", "line 2: not valid JSON"),
        ("p.jsonl", "[" * 100_000, "line 2: not valid JSON"),
        ("p.jsonl", "[1]", "line 2: not a JSON object"),
        ("p.jsonl", '{"source": "a", "goal": "b"}', "line 2: no field 'target', only 'source', 'goal'"),
        ("p.jsonl", '{"source": "a", "target": 3}', "line 2: field 'target' is 3, not text"),
        ("p.jsonl", '{"source": "\\ud800", "target": "b"}', "line 2: field 'source' has half a character"),
        ("p.jsonl", '{"translation": {"en": "a", "fr": "b"}}', r"line 2: no field 'translation\.de' \('en', 'fr'"),
        ("p.jsonl", '{"translation": "a"}', r"line 2: no field 'translation\.en'"),
    ],
)
def test_a_bad_record_is_named_with_file_line_and_field(
    tmp_path: Path, name: str, second_line: str, message: str
) -> None:
    first = "a\tb" if name.endswith(".tsv") else '{"source": "a", "target": "b"}'
    data = DataConfig(
        train_pairs=write(tmp_path / name, f"{first}\n{second_line}\n"), source_language="en", target_language="de"
    )
    assert str(tmp_path / name) in fails(message, lambda: list(read_pairs(data, "train")))


def test_a_translation_object_needs_the_languages(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", '{"translation": {"en": "a", "de": "b"}}')
    fails(r"set data\.source_language", lambda: list(read_pairs(DataConfig(train_pairs=path), "train")))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"train_pairs": "corpus.csv"}, r"data\.train_pairs = 'corpus\.csv'"),
        ({"train_pairs": "c.tsv", "source_column": "en"}, r"data\.source_column = 'en'.*numbered from 1"),
        ({"train_pairs": "c.tsv", "target_column": "0"}, r"data\.target_column = '0'"),
        ({"train_pairs": "c.tsv", "source_column": "2"}, "are both 2"),
        ({}, r"data\.train_source is empty"),
    ],
)
def test_a_corpus_that_cannot_be_followed_is_a_configuration_error(fields: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        next(read_pairs(DataConfig.model_validate(fields), "train"))


def test_a_split_is_there_in_any_of_three_ways() -> None:
    files = DataConfig(train_pairs="a.tsv", valid_source="a", valid_target="b")
    assert [has_split(files, split) for split in ("train", "valid", "test")] == [True, True, False]
    hub = DataConfig(dataset="name")
    assert [has_split(hub, split) for split in ("train", "valid", "test")] == [True, True, False]


# Hub datasets, from a local folder


@pytest.fixture(scope="module")
def hub_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    import datasets

    folder = tmp_path_factory.mktemp("hub")
    rows = [{"id": 1, "translation": {"en": "one", "de": "eins"}}, {"id": 2, "translation": {"en": "two", "de": None}}]
    write(folder / "train.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    cache = datasets.config.HF_DATASETS_CACHE
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
        yield folder
    assert cache == datasets.config.HF_DATASETS_CACHE


def test_a_dataset_gives_its_pairs_by_language(hub_folder: Path) -> None:
    data = DataConfig(dataset=str(hub_folder), source_language="en", target_language="de")
    assert list(read_pairs(data, "train")) == [("one", "eins"), ("two", "")]


def test_a_dataset_without_the_column_lists_those_it_has(hub_folder: Path) -> None:
    data = DataConfig(dataset=str(hub_folder), source_column="en")
    fails("no field 'en', only 'id', 'translation'; set data.source_column", lambda: list(read_pairs(data, "train")))
    numbers = DataConfig(dataset=str(hub_folder), source_column="id", target_column="translation")
    fails("split train, row 1: field 'id' is 1, not text", lambda: list(read_pairs(numbers, "train")))


def test_a_split_that_a_dataset_lacks_is_told(hub_folder: Path) -> None:
    data = DataConfig(dataset=str(hub_folder))
    fails(
        'split validation: cannot be loaded: .*validation.*set data.valid_split = ""',
        lambda: list(read_pairs(data, "valid")),
    )


def test_an_unreachable_dataset_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def unreachable(*args: object, **options: object) -> None:
        raise ConnectionError("Couldn't reach the hub\n(many\nlines)")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    fails(
        "dataset owner/name, split train: cannot be loaded",
        lambda: list(read_pairs(DataConfig(dataset="owner/name"), "train")),
    )
