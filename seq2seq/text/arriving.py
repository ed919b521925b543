"""Lines of standard input and of pipes, and whether the next is there: who writes one may wait for an answer to it."""

from __future__ import annotations

import contextlib
import io
import os
import select
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from seq2seq.errors import unreadable
from seq2seq.text.errors import DataError
from seq2seq.text.reading import GZIP_MAGIC, Mend, lines_of, open_file, read_lines

STANDARD_INPUT = Path("-")


class InputLines:
    """The lines of files, and of standard input where a path is "-", one after the other."""

    def __init__(self, paths: list[Path], standard_input: BinaryIO, mend: Mend) -> None:
        """mend: told of what is wrong with a line, see `lines_of`. Standard input is read by its descriptor, if any."""
        self._paths, self._standard_input, self._mend = paths, standard_input, mend
        self._arriving: _Arriving | None = None

    def __iter__(self) -> Iterator[str]:
        """Raises DataError as `read_lines` and `lines_of` do."""
        for path in self._paths:
            if path == STANDARD_INPUT:
                try:
                    yield from self._lines(self._standard_input, "standard input")
                except OSError as error:
                    raise DataError(unreadable(Path("standard input"), error)) from None
            elif _is_pipe(path):  # /dev/stdin, what the shell makes of <(command)
                with open_file(path) as stream:
                    yield from self._lines(stream, str(path))
            else:
                yield from read_lines(path, self._mend)

    def _lines(self, stream: BinaryIO, name: str) -> Iterator[str]:
        arriving = _Arriving.of(stream)
        if arriving is None:
            yield from lines_of(stream, name, self._mend)
            return
        if arriving.buffer.peek(2)[:2] != GZIP_MAGIC:
            self._arriving = arriving
        yield from lines_of(arriving.buffer, name, self._mend)
        self._arriving = None

    def ready(self, seconds: float) -> bool:
        """Whether the next line, or the end, can be read without waiting longer than this for whoever writes it.

        A line of which only a part is there counts, and so do files and what is compressed.
        """
        return self._arriving is None or self._arriving.ready(seconds)


def _is_pipe(path: Path) -> bool:
    try:
        return path.is_fifo() or path.is_char_device()
    except OSError as error:
        raise DataError(unreadable(path, error)) from None


class _Arriving(io.RawIOBase):
    """A descriptor that is read in blocks, by `buffer`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._may_wait = descriptor, True
        self.buffer = io.BufferedReader(cast(io.FileIO, self))

    @classmethod
    def of(cls, stream: BinaryIO) -> _Arriving | None:
        """None where the stream has no descriptor that can be waited for."""
        try:
            descriptor = stream.fileno()
            select.select([descriptor], [], [], 0)
        except (OSError, ValueError):  # in memory; on Windows; a number that select cannot take
            return None
        return cls(descriptor)

    def readable(self) -> bool:
        return True

    def readinto(self, block: bytearray) -> int | None:  # type: ignore[override]
        while self._something(None if self._may_wait else 0):
            with contextlib.suppress(BlockingIOError):  # somebody else has read it
                return os.readv(self._descriptor, [block])
        return None

    def ready(self, seconds: float) -> bool:
        self._may_wait = False
        try:
            line = b"\n" in (self.buffer.peek() or b"")
        finally:
            self._may_wait = True
        return line or self._something(seconds)

    def _something(self, seconds: float | None) -> bool:
        return bool(select.select([self._descriptor], [], [], seconds)[0])
