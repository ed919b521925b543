"""Lines of standard input and of pipes, and whether the next is there: who writes one may wait for an answer to it."""

from __future__ import annotations

import io
import os
import select
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from seq2seq.errors import unreadable
from seq2seq.text.errors import DataError
from seq2seq.text.reading import GZIP_MAGIC, MAX_LINE_BYTES, Mend, lines_of, open_file, read_lines

STANDARD_INPUT = Path("-")
BLOCK = 1 << 14


class InputLines:
    """The lines of files, and of standard input where a path is "-", one after the other."""

    def __init__(self, paths: list[Path], standard_input: BinaryIO, mend: Mend) -> None:
        """mend: told of what is wrong with a line, see `lines_of`. Standard input is read by its descriptor, if any."""
        self._paths, self._standard_input, self._mend = paths, standard_input, mend
        self._arriving: _Arriving | None = None
        self._at_end = False  # of a file, with a pipe after it
        self._pipe_follows = False  # which may let itself be waited for

    def __iter__(self) -> Iterator[str]:
        """Raises DataError as `read_lines` and `lines_of` do."""
        last_pipe = max((number for number, path in enumerate(self._paths) if _is_pipe(path)), default=-1)
        for number, path in enumerate(self._paths):
            self._pipe_follows = number < last_pipe
            if path == STANDARD_INPUT:
                try:
                    yield from self._lines(self._standard_input, "standard input")
                except OSError as error:
                    raise DataError(unreadable(Path("standard input"), error)) from None
            elif _is_pipe(path):
                with open_file(path) as stream:
                    yield from self._lines(stream, str(path))
            elif self._pipe_follows:
                yield from self._lines_before_a_pipe(path)
            else:
                yield from read_lines(path, self._mend)

    def _lines(self, stream: BinaryIO, name: str) -> Iterator[str]:
        arriving = _Arriving.of(stream)
        if arriving is None:
            yield from lines_of(stream, name, self._mend)
            return
        if arriving.peek(2)[:2] != GZIP_MAGIC:
            self._arriving = arriving
        yield from lines_of(cast(BinaryIO, arriving), name, self._mend)
        self._arriving = None

    def _lines_before_a_pipe(self, path: Path) -> Iterator[str]:
        lines = read_lines(path, self._mend)
        line = next(lines, None)
        failure: DataError | None = None
        while line is not None:
            following = None
            try:
                following = next(lines, None)
            except DataError as error:
                failure = error
            self._at_end = following is None
            yield line
            self._at_end = False
            line = following
        if failure is not None:
            raise failure

    def ready(self, seconds: float) -> bool:
        """Whether the next line, or the end, can be read without waiting longer than this for whoever writes it.

        Files, and what is compressed, always can.
        """
        if self._arriving is None:
            return not self._at_end
        return self._arriving.ready(seconds) and not (self._pipe_follows and self._arriving.is_over())


def _is_pipe(path: Path) -> bool:
    """Standard input, /dev/stdin, what the shell makes of <(command)."""
    try:
        return path == STANDARD_INPUT or path.is_fifo() or path.is_char_device()
    except OSError:  # which opening it will tell of
        return False


class _Arriving(io.RawIOBase):
    """A descriptor that is read a block at a time, as it comes."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._pending, self._ended = descriptor, b"", False
        self._failure: OSError | None = None  # of looking ahead: reading is to meet it

    @classmethod
    def of(cls, stream: BinaryIO) -> _Arriving | None:
        """None where the stream has no descriptor that can be waited for."""
        try:
            descriptor = stream.fileno()
            select.select([descriptor], [], [], 0)
        except (OSError, ValueError):  # in memory; a number that select cannot take
            return None
        return cls(descriptor)

    def readable(self) -> bool:
        return True

    def peek(self, size: int = 1) -> bytes:
        """What has been read and not been taken yet; waits for something where there is nothing.

        Where two bytes are asked for, half of gzip's magic number is nothing.
        """
        nothing = (b"", GZIP_MAGIC[:1]) if size > 1 else (b"",)
        while self._pending in nothing and not self._ended:
            if self._failure is not None:
                raise self._failure
            self._receive(None)
        return self._pending

    def is_over(self) -> bool:
        """Whether it has ended and all of it been taken."""
        return self._ended and not self._pending

    def readinto(self, block: bytearray) -> int:  # type: ignore[override]
        taken = self.peek()[: len(block)]
        block[: len(taken)] = taken
        self._pending = self._pending[len(taken) :]
        return len(taken)

    def ready(self, seconds: float) -> bool:
        """Whether a whole line is there, or the end, at the latest in so many seconds."""
        until = time.monotonic() + seconds
        while not self._ended and b"\n" not in self._pending and len(self._pending) <= MAX_LINE_BYTES:
            if self._failure is not None:
                return False
            try:
                if not self._receive(max(0.0, until - time.monotonic())):
                    return False
            except OSError as error:
                self._failure = error
                return False
        return True

    def _receive(self, seconds: float | None) -> bool:
        """Reads a block if one comes in that time; None waits for it."""
        if not select.select([self._descriptor], [], [], seconds)[0]:
            return False
        try:
            block = os.read(self._descriptor, BLOCK)
        except BlockingIOError:  # somebody else has read it
            return False
        self._pending, self._ended = self._pending + block, not block
        return True
