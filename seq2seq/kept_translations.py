"""Translations that outlast a stop: `diversify` goes on with them where it was."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from pydantic import TypeAdapter

from seq2seq.errors import UserError, unreadable
from seq2seq.run_folder.files import naming
from seq2seq.untrusted import check_links, open_regular

Translations = Sequence[str | None]  # of a line; None for one that is no good
LINE = TypeAdapter(tuple[str, list[str | None]])


class Kept:
    """A file of what one model has translated: for each line a hash of it and its translations, as JSON.

    name: what the model is called in what `tell` is told.
    """

    def __init__(self, path: Path, name: str, tell: Callable[[str], None]) -> None:
        self.path, self.name, self.tell = path, name, tell

    def translations(
        self, lines: Iterator[str], total: int, translate: Callable[[Iterator[str]], Iterator[Translations]]
    ) -> Iterator[Translations]:
        """Of each line: those that are kept, then those that `translate` makes of the rest, which are added.

        total: of how many lines they are whole. Raises UserError where the file cannot be read or written.
        """
        check_links(self.path.parent, [self.path.name])
        size = number = 0
        for of, before, length in self._read():
            line = next(lines, None)
            if line is None:
                return
            if of != digest(line):  # the file that the lines are of was another one for a while
                lines = itertools.chain([line], lines)
                break
            size, number = size + length, number + 1
            yield before
        if number:
            told = "; those told of below are counted from there" if number < total else ""
            self.tell(f"{self.name}: lines translated before: {number:,}{told}")
        if number == total:
            yield from ([] for _ in lines)  # none, unless there are more now, which is then found out
            return
        with naming(self.path):
            self.path.parent.mkdir(exist_ok=True)
        given, lines = itertools.tee(lines)
        with contextlib.ExitStack() as opened:
            file = None
            for some, line in zip(translate(given), lines, strict=True):
                with naming(self.path):
                    file = file or opened.enter_context(self._cut(size))
                    _append(file, json.dumps([digest(line), list(some)]).encode() + b"\n")
                yield some

    def _read(self) -> Iterator[tuple[str, list[str | None], int]]:
        """The hash of a line, its translations, and how many bytes that takes, as far as the file is whole."""
        try:
            opened = open_regular(self.path)
        except FileNotFoundError:
            return
        except OSError as error:
            raise UserError(unreadable(self.path, error)) from None
        with opened as file:
            for line in file:
                try:
                    of, some = LINE.validate_json(line)
                except ValueError:
                    return
                if not line.endswith(b"\n"):
                    return
                yield of, some, len(line)

    def _cut(self, size: int) -> BinaryIO:
        """The file, cut to its first `size` bytes and open to be added to, without a buffer that a kill would empty."""
        file = self.path.open("ab", buffering=0)
        file.truncate(size)
        return file


def digest(line: str) -> str:
    return hashlib.blake2b(line.encode(), digest_size=8).hexdigest()


def _append(file: BinaryIO, content: bytes) -> None:
    if file.write(content) != len(content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
