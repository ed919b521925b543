"""Standard input that pauses: what is there is told from what has to be waited for."""

from __future__ import annotations

import gzip
import io
import itertools
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from seq2seq.decoding import options as options_module
from seq2seq.text import arriving as arriving_module
from seq2seq.text.arriving import STANDARD_INPUT, InputLines
from seq2seq.text.errors import DataError


@pytest.fixture
def pipe() -> Iterator[tuple[io.BufferedReader, io.FileIO]]:
    reading, writing = os.pipe()
    with open(reading, "rb") as reader, open(writing, "wb", buffering=0) as writer:
        yield reader, writer


def mended(text: str) -> None:
    raise AssertionError(text)


def test_a_line_is_ready_when_it_is_there(pipe: tuple[io.BufferedReader, io.FileIO]) -> None:
    reader, writer = pipe
    given = InputLines([STANDARD_INPUT], reader, mended)
    lines = iter(given)
    writer.write(b"one\ntwo\n")
    assert next(lines) == "one" and given.ready(0)
    assert next(lines) == "two" and not given.ready(0.01)
    threading.Timer(0.1, lambda: writer.write(b"three\n")).start()
    assert given.ready(60)
    assert next(lines) == "three" and not given.ready(0)
    writer.write(b"fo")
    assert not given.ready(0.01) and not given.ready(0)  # a part is no line
    writer.write(b"ur\nfi")
    assert given.ready(60) and next(lines) == "four" and not given.ready(0)
    writer.write(b"ve")
    writer.close()
    assert given.ready(60) and next(lines) == "five"
    assert given.ready(0)  # the end, too
    assert list(lines) == []


def test_lines_in_blocks_and_one_cut_short(pipe: tuple[io.BufferedReader, io.FileIO]) -> None:
    reader, writer = pipe
    given = InputLines([STANDARD_INPUT], reader, mended)
    lines = iter(given)
    sent = [f"{number} " + "x" * (number % 97) for number in range(1_000)]
    text = "\n".join(sent).encode()

    def write() -> None:
        with writer:
            writer.write(text)

    threading.Thread(target=write).start()
    got = []
    for line in lines:
        got.append(line)
        assert given.ready(60)
    assert got == sent


def test_files_and_what_is_packed_are_always_ready(pipe: tuple[io.BufferedReader, io.FileIO], tmp_path: Path) -> None:
    reader, writer = pipe
    path = tmp_path / "lines"
    path.write_text("a\nb\n", encoding="utf-8")
    writer.write(gzip.compress(b"c\nd\n"))
    writer.close()
    given = InputLines([path, STANDARD_INPUT, path], reader, mended)
    got = [(line, given.ready(0)) for line in given]
    assert [line for line, _ in got] == ["a", "b", "c", "d", "a", "b"]
    assert [ready for _, ready in got] == [True, False, True, True, True, True]  # before a pipe nobody knows
    in_memory = InputLines([STANDARD_INPUT], io.BytesIO(b"e\nf"), mended)
    assert [line for line in in_memory if in_memory.ready(0)] == ["e", "f"]


def test_a_pipe_with_a_name_is_waited_for_as_standard_input_is(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    given = InputLines([path], io.BytesIO(), mended)
    opened: list[io.FileIO] = []

    def write() -> None:
        opened.append(open(path, "wb", buffering=0))  # noqa: SIM115
        opened[0].write(b"one\n")

    threading.Thread(target=write).start()
    lines = iter(given)
    assert next(lines) == "one" and not given.ready(0)
    opened[0].close()
    assert given.ready(60) and list(lines) == []


def test_standard_input_that_does_not_block_is_waited_for(pipe: tuple[io.BufferedReader, io.FileIO]) -> None:
    reader, writer = pipe
    os.set_blocking(reader.fileno(), False)
    given = InputLines([STANDARD_INPUT], reader, mended)
    lines = iter(given)
    threading.Timer(0.1, lambda: writer.write(b"one\n")).start()
    assert next(lines) == "one" and not given.ready(0.01)
    threading.Timer(0.1, lambda: writer.write(b"two\n")).start()
    assert next(lines) == "two"


def test_what_cannot_be_read_is_an_error_of_the_data(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_text("a\n", encoding="utf-8")
    for given, name in (
        (InputLines([path, Path("x" * 300)], io.BytesIO(), mended), "xxx"),
        (InputLines([path, tmp_path], io.BytesIO(), mended), tmp_path.name),
    ):
        lines = iter(given)
        assert next(lines) == "a"
        with pytest.raises(DataError, match=name):
            next(lines)
    with path.open("ab") as written_only, pytest.raises(DataError, match="standard input"):
        list(InputLines([STANDARD_INPUT], written_only, mended))


def test_a_file_is_not_held_back_by_the_pipe_after_it(
    pipe: tuple[io.BufferedReader, io.FileIO], tmp_path: Path
) -> None:
    reader, writer = pipe
    path = tmp_path / "lines"
    path.write_text("a\nb\n", encoding="utf-8")
    given = InputLines([path, STANDARD_INPUT], reader, mended)
    windows = options_module.in_windows(given, lambda window, start: [list(window)], given.ready)
    assert next(windows) == ["a", "b"]  # nothing has been written yet
    writer.write(b"c\n")
    assert next(windows) == ["c"]
    writer.close()
    assert list(windows) == []
    alone = InputLines([path, path], reader, mended)
    assert list(options_module.in_windows(alone, lambda window, start: [list(window)], alone.ready)) == [["a", "b"] * 2]


def test_a_pipe_is_not_held_back_by_the_pipe_after_it(tmp_path: Path) -> None:
    paths = [tmp_path / "one", tmp_path / "two"]
    for path in paths:
        os.mkfifo(path)
    given = InputLines(paths, io.BytesIO(), mended)
    windows = options_module.in_windows(given, lambda window, start: [list(window)], given.ready)
    threading.Thread(target=lambda: paths[0].write_bytes(b"a\nb")).start()
    assert next(windows) == ["a", "b"]  # nobody has opened the second
    threading.Thread(target=lambda: paths[1].write_bytes(b"c\n")).start()
    assert list(windows) == [["c"]]


def test_what_is_whole_of_a_file_comes_before_its_error_and_a_pipe(
    pipe: tuple[io.BufferedReader, io.FileIO], tmp_path: Path
) -> None:
    path = tmp_path / "cut.gz"
    path.write_bytes(gzip.compress(b"a\nb\nc\n")[:-8])
    for paths in ([path], [path, STANDARD_INPUT]):
        got = []
        with pytest.raises(DataError, match=r"cut\.gz"):
            for line in InputLines(paths, pipe[0], mended):
                got.append(line)
        assert got == ["a", "b", "c"]


def test_an_error_of_looking_ahead_is_met_by_reading(
    pipe: tuple[io.BufferedReader, io.FileIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = pipe
    blocks = iter([b"one\ntwo\n", ConnectionResetError(104, "Connection reset by peer")])

    def read(descriptor: int, size: int) -> bytes:
        block = next(blocks)
        if isinstance(block, OSError):
            raise block
        return block

    monkeypatch.setattr(os, "read", read)
    writer.write(b"there is something")
    given = InputLines([STANDARD_INPUT], reader, mended)
    windows = options_module.in_windows(given, lambda window, start: [list(window)], given.ready)
    assert next(windows) == ["one", "two"]
    with pytest.raises(DataError, match=r"standard input.*Connection reset"):
        next(windows)


def test_files_by_the_thousand_are_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lines"
    path.write_text("a\n", encoding="utf-8")
    looked = 0
    whole = arriving_module._is_pipe

    def counting(path: Path) -> bool:
        nonlocal looked
        looked += 1
        return whole(path)

    monkeypatch.setattr(arriving_module, "_is_pipe", counting)
    assert list(InputLines([path] * 1000, io.BytesIO(), mended)) == ["a"] * 1000
    assert looked <= 2000


def test_half_of_a_magic_number_is_waited_for(pipe: tuple[io.BufferedReader, io.FileIO]) -> None:
    reader, writer = pipe
    packed = gzip.compress(b"a\nb\n")
    writer.write(packed[:1])

    def write() -> None:
        with writer:
            writer.write(packed[1:])

    threading.Timer(0.1, write).start()
    assert list(InputLines([STANDARD_INPUT], reader, mended)) == ["a", "b"]


def test_a_pause_ends_a_window() -> None:
    asked: list[float] = []

    def ready(seconds: float) -> bool:
        asked.append(seconds)
        return len(asked) % 4 != 0

    windows = list(options_module.in_windows("0123456789", lambda window, start: [(start, "".join(window))], ready))
    assert windows == [(0, "0123"), (4, "4567"), (8, "89")]
    assert all(0 <= seconds <= options_module.PAUSE for seconds in asked) and max(asked) == options_module.PAUSE


def test_lines_one_by_one_are_not_waited_for_forever(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count()
    monkeypatch.setattr(time, "monotonic", lambda: next(clock) * options_module.LONGEST_WAIT / 3)
    windows = options_module.in_windows(
        "01234567", lambda window, start: ["".join(window)], lambda seconds: seconds > 0
    )
    assert list(windows) == ["0123", "4567"]
