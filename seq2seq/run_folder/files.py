"""Files of a run folder: written whole or not at all, read with errors that name them, locked by one writer.

Whatever goes wrong with a file here is a RunError that names it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seq2seq import atomic
from seq2seq.atomic import readable_size
from seq2seq.errors import UserError
from seq2seq.run_folder.tensor_header import HeaderError, read_header
from seq2seq.text.errors import unwritable
from seq2seq.untrusted import MAX_JSON_BYTES, open_regular, read_regular

if TYPE_CHECKING:  # what is light needs files, and no tensors
    from torch import Tensor


class RunError(UserError):
    """A run folder that cannot be used as asked. The message names the folder or file and the remedy."""


class DamagedError(RunError):
    """A file of a run folder that is not what it was when it was written."""


class UnwrittenError(RunError):
    """A file of a run folder cannot be written, mostly because the disk is full."""


def read_bytes(path: Path) -> bytes:
    try:
        return read_regular(path, MAX_JSON_BYTES)
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}") from None


def read_json(path: Path) -> dict[str, Any]:
    content = read_bytes(path)
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise RunError(f"{path}: not a JSON object")
    return value


def write_json(path: Path, value: Mapping[str, Any], *, named: Path | None = None) -> None:
    write_atomic(path, json_bytes(value), named=named)


def json_bytes(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def read_tensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        read_header(path)
        return dict(load_file(path))
    except (SafetensorError, OSError, HeaderError) as error:
        raise RunError(f"{path}: cannot be read as safetensors: {error}") from None


def write_tensors(path: Path, tensors: Mapping[str, Tensor], *, named: Path | None = None) -> None:
    with replacing(path, named=named) as temporary:
        save_tensors(temporary, tensors)


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes into a file that `replacing` has given."""
    from safetensors.torch import save_file

    with disk_errors():
        save_file({name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}, path)


@contextlib.contextmanager
def disk_errors() -> Iterator[None]:
    """Raises OSError for what safetensors says of a disk."""
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        found = re.search(r"\(os error (\d+)\)", str(error))
        number, text = (int(found[1]), os.strerror(int(found[1]))) if found else (errno.EIO, str(error))
        raise OSError(number, text) from None


def write_atomic(path: Path, content: bytes, *, named: Path | None = None) -> None:
    """Writes a file whole or not at all."""
    with replacing(path, named=named) as temporary:
        temporary.write_bytes(content)


@contextlib.contextmanager
def replacing(path: Path, *, named: Path | None = None) -> Iterator[Path]:
    """`atomic.replacing`, with a RunError that names the file where it cannot be written.

    named: what the message calls the file, where the folder that it is written into is itself a temporary one.
    """
    with naming(named or path), atomic.replacing(path) as temporary:
        yield temporary


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Raises UnwrittenError, naming `path`, for what goes wrong with the disk within it."""
    try:
        yield
    except OSError as error:
        raise UnwrittenError(str(unwritable(path, error))) from None


def check_space(path: Path, needed: int) -> None:
    """Raises UnwrittenError where a file or folder of so many bytes does not fit on the disk where `path` is to be."""
    free = free_space(path)
    if free is not None and free < needed:
        raise UnwrittenError(
            f"{path}: no space left to write it ({readable_size(needed)} needed, {readable_size(free)} free); "
            "free some space or choose another disk"
        )


def free_space(path: Path) -> int | None:
    """Bytes that may still be written where `path` is, or is to be; None where the system does not say."""
    while not path.exists() and path != path.parent:
        path = path.parent
    try:
        return shutil.disk_usage(path).free
    except OSError:
        return None


def file_hash(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    try:
        with open_regular(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}") from None


@contextlib.contextmanager
def locked(path: Path, refusal: str) -> Iterator[None]:
    """Holds a lock file that one process at a time can hold. Raises RunError(refusal) where another one holds it.

    `{holder}` in the refusal stands for " (process N)", where the number can be read from the file. The lock ends with
    the process, however that ends: a file that a dead process left behind locks nobody out.
    """
    descriptor = _lock(path, refusal)
    try:
        yield
    finally:
        try:
            with contextlib.suppress(OSError):
                path.unlink()  # while it is ours: once the descriptor is closed, it may be another's
        finally:
            os.close(descriptor)


def _lock(path: Path, refusal: str) -> int:
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise RunError(str(unwritable(path, error))) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 20).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise RunError(refusal.replace("{holder}", f" (process {holder})" if holder.isdecimal() else "")) from None
        except OSError:
            return descriptor  # a file system without locks, as some network file systems are
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(path.stat(), os.fstat(descriptor)):
                with contextlib.suppress(OSError):  # for whoever is refused; a full disk is no reason not to lock
                    os.ftruncate(descriptor, 0)
                    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
                return descriptor
        os.close(descriptor)  # whoever held it removed the file after we had opened it
