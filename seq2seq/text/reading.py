"""Sentence pairs from whatever the user has: aligned files, TSV, JSONL, a dataset of the Hugging Face hub. A stream."""

from __future__ import annotations

import codecs
import contextlib
import csv
import gzip
import itertools
import json
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeVar, cast

from seq2seq.config import ConfigError, DataConfig
from seq2seq.errors import unreadable
from seq2seq.text.errors import DataError

Split = Literal["train", "valid", "test"]
Mend = Callable[[str], None]  # is told, in a line, of what was mended
One = TypeVar("One")
Other = TypeVar("Other")
Column = tuple[str, ...]  # the way to a side in a row: (column,), or ("translation", language)

MAX_LINE_BYTES = 1_000_000  # a gigabyte without a line break must not end up in memory
GZIP_MAGIC = b"\x1f\x8b"
PACKED = {
    b"\xfd7zXZ\x00": "an xz file", b"\x28\xb5\x2f\xfd": "a zstd file", b"BZh": "a bzip2 file",
    b"PK\x03\x04": "a zip file",
}  # fmt: skip
BOM = b"\xef\xbb\xbf"


def read_lines(path: Path, mend: Mend | None = None) -> Iterator[str]:
    """The lines of a UTF-8 text file, gzipped or not, one at a time; see `lines_of` for what a line is, and for `mend`.

    Raises DataError where the file is missing, unreadable, damaged or not text.
    """
    with open_file(path) as stream:
        yield from lines_of(stream, str(path), mend)


@contextlib.contextmanager
def open_file(path: Path) -> Iterator[BinaryIO]:
    """A file to be read. Raises DataError where it is missing, or cannot be read."""
    try:
        with open(path, "rb") as stream:
            yield stream
    except OSError as error:
        raise DataError(unreadable(path, error)) from None


def lines_of(stream: BinaryIO, name: str, mend: Mend | None = None) -> Iterator[str]:
    r"""The lines of a binary stream such as standard input; `name` stands for it in error messages.

    A line ends at "\n" and nowhere else: the separators that str.splitlines also knows occur inside sentences, and
    splitting there would shift one side of a corpus against the other. One "\r" before the "\n" goes with it, as does
    a byte order mark at the very start. The last line may lack its "\n". A stream that can be peeked into is
    decompressed when it starts as gzip does, whatever its name. A line at a time is in memory, of MAX_LINE_BYTES.

    Raises DataError with the line's number where a line is too long or not UTF-8. With `mend`, which is told of them,
    these lines are cut and their wrong bytes replaced by U+FFFD instead. A gzip that is cut short is always an error.
    """
    peek = getattr(stream, "peek", None)
    if peek is not None and peek(2)[:2] == GZIP_MAGIC:
        stream = cast(BinaryIO, gzip.GzipFile(fileobj=stream))
    for number in itertools.count(1):
        where = f"{name}, line {number}"
        line = _read_line(stream, len(BOM) + MAX_LINE_BYTES + len(b"\r\n"), where)
        ended = line.endswith(b"\n")
        text = line.removeprefix(BOM) if number == 1 else line
        if not text:
            return
        if ended:
            text = text[:-1].removesuffix(b"\r")
        if len(text) <= MAX_LINE_BYTES:
            yield _decode(text, where, mend)
            continue
        if mend is None:
            raise DataError(f"{where}: longer than {MAX_LINE_BYTES:,} bytes; one sentence a line is expected")
        mend(f"{where}: longer than {MAX_LINE_BYTES:,} bytes; the rest of it is left out")
        while not ended and line:
            line = _read_line(stream, MAX_LINE_BYTES, where)
            ended = line.endswith(b"\n")
        # Not a part of a character at the cut.
        whole = codecs.getincrementaldecoder("utf-8")("replace").decode(text[:MAX_LINE_BYTES])
        yield whole


def _read_line(stream: BinaryIO, most: int, where: str) -> bytes:
    try:
        return stream.readline(most)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{where}: damaged gzip file ({error}); fetch or pack it again") from None


def _decode(line: bytes, where: str, mend: Mend | None) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        problem = f"{where}: not UTF-8 text (byte {error.start + 1} of the line)"
    if mend is None:
        if line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise DataError(f"{problem} but UTF-16; convert it: iconv -f UTF-16 -t UTF-8 FILE")
        for magic, kind in PACKED.items():
            if line.startswith(magic):
                raise DataError(f"{problem} but {kind}; unpack it, or pack it with gzip")
        raise DataError(f"{problem}; convert it, with iconv for example")
    mend(f"{problem}; the bytes that are none are taken for unknown characters")
    return line.decode("utf-8", "replace")


def check_readable(path: Path) -> None:
    """Raises DataError where a file is not there, is a folder, or may not be read; pipes are not opened."""
    try:
        if path.is_file() or path.is_dir() or not path.exists():
            with path.open("rb"):
                pass
    except OSError as error:
        raise DataError(unreadable(path, error)) from None


def count_lines(path: Path) -> int:
    """How many lines a file has, as translating reads them. Raises DataError where it cannot be read to its end."""
    return sum(1 for _ in read_lines(path, lambda text: None))


# Pairs


def aligned(first: Iterator[One], second: Iterator[Other], name: str, other_name: str) -> Iterator[tuple[One, Other]]:
    """Lines in pairs, as they come; the names stand for them in messages. Raises DataError where one has more lines."""
    for number, (one, other) in enumerate(itertools.zip_longest(first, second), start=1):
        if one is None or other is None:
            longer, shorter = (name, other_name) if other is None else (other_name, name)
            raise DataError(
                f"{shorter} ends after line {number - 1:,}, and {longer} has a line {number:,}: line N of one must "
                "belong to line N of the other"
            )
        yield one, other


def aligned_files(source_path: Path, target_path: Path) -> Iterator[tuple[str, str]]:
    """The lines of two files in pairs. Raises DataError, with both counts, where there are not as many."""
    sources, targets = read_lines(source_path), read_lines(target_path)
    for index, (source, target) in enumerate(itertools.zip_longest(sources, targets)):
        if source is None or target is None:
            longer = index + 1 + sum(1 for _ in (targets if source is None else sources))
            counts = (index, longer) if source is None else (longer, index)
            raise DataError(
                f"{source_path} has {counts[0]:,} lines and {target_path} has {counts[1]:,}: aligned files need the "
                f"same number; line N of one must translate line N of the other"
            )
        yield source, target


def has_split(data: DataConfig, split: Split) -> bool:
    """Whether the configuration gives the split a corpus, in any of the three ways."""
    given = getattr(data, f"{split}_source") or getattr(data, f"{split}_pairs")
    return bool(given or (data.dataset and getattr(data, f"{split}_split")))


def corpus_name(data: DataConfig, split: Split) -> str:
    """What the corpus of a split is called in messages: its files, or the dataset."""
    source, target = getattr(data, f"{split}_source"), getattr(data, f"{split}_target")
    if source:
        return f"{source} and {target}"
    return getattr(data, f"{split}_pairs") or f"dataset {data.dataset}, split {getattr(data, f'{split}_split')}"


def read_pairs(data: DataConfig, split: Split) -> Iterator[tuple[str, str]]:
    """The (source, target) pairs of a split, in their order, one at a time; files go before a hub dataset.

    Raises ConfigError where the configuration has no such split or cannot be followed, DataError where the data is bad:
    possibly after many pairs, as for two files of unequal length.
    """
    if not has_split(data, split):
        raise ConfigError(
            f"data.{split}_source is empty: give data.{split}_source and data.{split}_target, data.{split}_pairs, or "
            f"data.dataset and data.{split}_split"
        )
    pairs_file = getattr(data, f"{split}_pairs")
    source_file, target_file = getattr(data, f"{split}_source"), getattr(data, f"{split}_target")
    if source_file:
        yield from aligned_files(Path(source_file), Path(target_file))
    elif not pairs_file:
        yield from _hub_pairs(data, getattr(data, f"{split}_split"))
    elif is_tsv(pairs_file):
        yield from _tsv_pairs(Path(pairs_file), data)
    elif pairs_file.lower().endswith((".jsonl", ".jsonl.gz")):
        yield from _jsonl_pairs(Path(pairs_file), data)
    else:
        raise ConfigError(
            f"data.{split}_pairs = {pairs_file!r}: the kind of file is unknown; name it .tsv or .jsonl (or with .gz), "
            f"save a spreadsheet as tab-separated text, or give data.{split}_source and data.{split}_target"
        )


def is_tsv(name: str) -> bool:
    """Whether a file has tab-separated columns, by its name."""
    return name.lower().endswith((".tsv", ".tsv.gz"))


def _tsv_pairs(path: Path, data: DataConfig) -> Iterator[tuple[str, str]]:
    """Tab-separated columns; as corpora are published, without quoting or a header, unless [data] says otherwise."""
    rows = _quoted_rows(path) if data.tsv_quotes else ((n, x.split("\t")) for n, x in enumerate(read_lines(path), 1))
    names = None
    if data.tsv_header and not (names := next(rows, (0, []))[1]):
        raise DataError(f"{path}: is empty, and its first line should name the columns (data.tsv_header)")
    first, second = _tsv_columns(path, data, names)
    for number, fields in rows:
        if fields == [""]:  # an empty line
            continue
        if max(first, second) >= len(fields):
            remedy = "correct the line, or data.source_column and data.target_column"
            if number == 1 and len(fields) == 1:
                remedy = _separated_otherwise(fields[0]) or remedy
            raise DataError(
                f"{path}, line {number}: no column {max(first, second) + 1}, only {len(fields)}, separated by tabs; "
                f"{remedy}"
            )
        yield fields[first], fields[second]


def _separated_otherwise(line: str) -> str | None:
    """What helps where a line without a tab seems to have its columns between other characters."""
    found = next((sign for sign in (";", ",", "|") if sign in line), None)
    return found and f"if its columns are separated by {found!r}, save it with tabs between them"


def _tsv_columns(path: Path, data: DataConfig, names: list[str] | None) -> tuple[int, int]:
    """The columns of the two sides, counted from 0. names: what the header calls them, where there is one."""
    named = [name for name in names or () if name.strip()]
    if len(named) > 2 and not (data.source_column and data.target_column):
        raise DataError(
            f"{path}, line 1: columns {', '.join(map(repr, named))}: name two of them, data.source_column and "
            "data.target_column"
        )
    columns = []
    for side, default in (("source", "1"), ("target", "2")):
        column = getattr(data, f"{side}_column") or default
        if names is not None and column in names:
            columns.append(names.index(column))
            continue
        if not (column.isascii() and column.isdigit() and int(column) > 0):
            if names is not None:
                remedy = f"correct data.{side}_column"
                if any(name.strip('"') == column for name in names):
                    remedy = "where quotes are no text, set data.tsv_quotes = true"
                if len(names) == 1:
                    remedy = _separated_otherwise(names[0]) or remedy
                known = ", ".join(map(repr, names))
                remedy += ", or without a header number the columns and leave data.tsv_header out"
                raise DataError(f"{path}, line 1: no column {column!r}, only {known}; {remedy}")
            raise ConfigError(
                f"data.{side}_column = {column!r}: the columns of a .tsv file are numbered from 1; where its first "
                "line names them, set data.tsv_header = true"
            )
        columns.append(int(column) - 1)
    if columns[0] == columns[1]:
        raise ConfigError(f"data.source_column and data.target_column are both {columns[0] + 1}: name two columns")
    return columns[0], columns[1]


def _quoted_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Rows with the number of their last line. A quoted field may go over several lines, which become one."""
    csv.field_size_limit(MAX_LINE_BYTES)
    # Within a line "\r" is text to us, and a line break to csv, which inside of a field becomes a space.
    lines = (line.replace("\r", " ") + "\n" for line in read_lines(path))
    rows = csv.reader(lines, delimiter="\t", strict=True)
    while True:
        begins = rows.line_num + 1
        try:
            fields = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            where = f"line {begins:,}" if rows.line_num <= begins else f"lines {begins:,} to {rows.line_num:,}"
            raise DataError(
                f"{path}, {where}: quotes that do not fit together ({error}); correct them, or where quotes are only "
                "text, set data.tsv_quotes = false"
            ) from None
        yield rows.line_num, [" ".join(field.split("\n")) for field in fields] or [""]


def _jsonl_pairs(path: Path, data: DataConfig) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(read_lines(path), start=1):
        where = f"{path}, line {number}"
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: not valid JSON ({error}); write one object a line") from None
        if not isinstance(row, dict):
            raise DataError(f"{where}: not a JSON object; write one object a line, with both sides in it")
        yield _sides(row, _columns(row, data, where), where)


def _hub_pairs(data: DataConfig, split: str) -> Iterator[tuple[str, str]]:
    import datasets  # over a second, and only here

    field = next((f"data.{name}_split" for name in ("valid", "test") if getattr(data, f"{name}_split") == split), "")
    none = f'set {field} = ""' if field else "name another with data.train_split"

    name = f"dataset {data.dataset}" + (f" ({data.dataset_config})" if data.dataset_config else "")
    try:
        dataset = datasets.load_dataset(data.dataset, data.dataset_config or None, split=split)
    except Exception as error:  # of many unrelated classes: the hub's, the network's, the readers' of each file format
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"{name}, split {split}: cannot be loaded: {reason[:300]}; check data.dataset, data.dataset_config, the "
            f"split (where there is no such one, {none}) and the network"
        ) from None
    columns = _columns(dataset.column_names, data, name)
    # The others may be large, or audio that is decoded when it is read.
    dataset = dataset.select_columns(list(dict.fromkeys(column[0] for column in columns)))
    number = 0
    for batch in dataset.iter(batch_size=1000):
        for values in zip(*batch.values(), strict=True):
            number += 1
            yield _sides(dict(zip(batch, values, strict=True)), columns, f"{name}, split {split}, row {number}")


def _columns(names: Collection[str], data: DataConfig, where: str) -> tuple[Column, Column]:
    """Where each side is in a row with these fields."""
    by_language = not (data.source_column or data.target_column) and "translation" in names
    if by_language and not {"source", "target"} <= set(names):
        if not (data.source_language and data.target_language):
            raise DataError(
                f"{where}: has a field 'translation'; set data.source_language and data.target_language to the two "
                f"languages in it"
            )
        if data.source_language == data.target_language:
            raise ConfigError(
                f"data.source_language and data.target_language are both {data.source_language!r}: name two languages "
                "of the field 'translation'"
            )
        return ("translation", data.source_language), ("translation", data.target_language)
    columns = data.source_column or "source", data.target_column or "target"
    if columns[0] == columns[1]:
        raise ConfigError(f"data.source_column and data.target_column are both {columns[0]!r}: name two fields")
    for side, column in zip(("source", "target"), columns, strict=True):
        if column not in names:
            raise DataError(
                f"{where}: no field {column!r}, only {', '.join(map(repr, names)) or 'none'}; set data.{side}_column"
            )
    return (columns[0],), (columns[1],)


def _sides(row: Mapping[str, Any], columns: tuple[Column, Column], where: str) -> tuple[str, str]:
    source, target = (_text(row, column, where) for column in columns)
    return source, target


def _text(row: Mapping[str, Any], column: Column, where: str) -> str:
    """A field as one line of text: line breaks become spaces, for a sentence is a line wherever text goes in or out.

    A null counts as an empty sentence, which training drops and counts: hub datasets have them.
    """
    value: Any = row
    for key in column:
        if value is None:
            return ""
        if not isinstance(value, Mapping) or key not in value:
            known = ", ".join(map(repr, value)) if isinstance(value, Mapping) else "no object"
            raise DataError(f"{where}: no field {'.'.join(column)!r} ({known} there); check the languages in [data]")
        value = value[key]
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(f"{where}: field {'.'.join(column)!r} is {value!r:.40}, not text; choose another column")
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise DataError(f"{where}: field {'.'.join(column)!r} has half a character (a lone surrogate); correct it")
    return value.replace("\r\n", " ").replace("\n", " ")
