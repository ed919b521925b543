"""Files that appear whole under their name, or not at all. All single files are written this way."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

LONGEST = 200  # bytes of a name that its temporary file takes over; file systems end at 255


@contextlib.contextmanager
def replacing(path: Path, mode: int | None = None) -> Iterator[Path]:
    """Gives a temporary path beside `path` to write to; synchronises what is there and renames it to `path`.

    mode: its permissions; by default those that any new file gets there. Where anything fails, the temporary file is
    removed and what stood at `path` stays. OSErrors go through as they come: they name the temporary file or none, and
    it is for the caller to say which file could not be written.
    """
    temporary = temporary_path(path)
    try:
        usual = _created(temporary)  # writers may give it others: safetensors has it readable by its owner alone
        yield temporary
        sync(temporary)
        os.chmod(temporary, usual if mode is None else mode)
        os.replace(temporary, path)
        sync(path.parent)
    finally:
        with contextlib.suppress(OSError):  # there is none once all went well, nor where it could not be made
            temporary.unlink()


def write_text(path: Path, text: str) -> None:
    """Writes what a command has found where it was asked to, whole or not at all where that can be."""
    if not is_replaced(path):
        with path.open("a" if _is_device(path) else "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        return
    path = path.resolve()  # a link stays one
    with replacing(path, stat.S_IMODE(path.stat().st_mode) if path.exists() else None) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def is_replaced(path: Path) -> bool:
    """Whether a new file takes the place of `path`: not of pipes and devices, nor where the folder lets none in."""
    return not path.exists() or (not _is_device(path) and os.access(path.resolve().parent, os.W_OK))


def _is_device(path: Path) -> bool:
    """A pipe, a device, or what goes by the name of one: /dev/stdout may be a file, with something in it already."""
    return not path.is_file() or path.absolute().parts[1] in ("dev", "proc")


def temporary_path(path: Path) -> Path:
    """A name for what becomes `path`, beside it, that nobody else has."""
    return path.with_name(f"{_temporary_prefix(path.name)}{secrets.token_hex(4)}.tmp")


def _temporary_prefix(name: str) -> str:
    """The first part of it, of the name or as much as file systems leave room for."""
    return os.fsdecode(b"." + os.fsencode(name)[:LONGEST]) + "."


def temporary_folder(parent: Path, prefix: str, suffix: str = "") -> Path:
    """A new folder with the permissions that any new folder gets there; those of `tempfile` are their owner's alone."""
    while True:
        path = parent / f"{prefix}{secrets.token_hex(4)}{suffix}"
        with contextlib.suppress(FileExistsError):
            path.mkdir()
            return path


def _created(path: Path) -> int:
    """Makes an empty file; returns its permissions: umask and the folder's own rules have had their say."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
    try:
        return stat.S_IMODE(os.fstat(descriptor).st_mode)
    finally:
        os.close(descriptor)


def left_behind(folder: Path, name: str) -> list[Path]:
    """Temporary files of the file `name` that writers which were killed have left in a folder."""
    prefix = _temporary_prefix(name)
    return [path for path in folder.glob(".*.tmp") if path.name.startswith(prefix)]


def is_litter(name: str) -> bool:
    """Whether systems put files of this name into any folder."""
    return name in (".DS_Store", "Thumbs.db", "desktop.ini") or name.startswith((".nfs", "._"))


def sync(path: Path) -> None:
    """Makes the content of a file durable, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def readable_size(size: int) -> str:
    """A number of bytes for people: 1.2 MB."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size} bytes"
