"""Files of a run folder: written whole or not at all, read with errors that name them, locked by one writer.

Whatever goes wrong with a file here is a RunError that names it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from seq2seq.errors import UserError
from seq2seq.text.errors import unwritable

if sys.platform != "win32":
    import fcntl


class RunError(UserError):
    """A run folder that cannot be used as asked. The message names the folder or file and the remedy."""


def read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}") from None


def read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(read_bytes(path))
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise RunError(f"{path}: not a JSON object")
    return value


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    write_atomic(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return dict(load_file(path))
    except (SafetensorError, OSError) as error:
        raise RunError(f"{path}: cannot be read as safetensors: {error}") from None


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    on_cpu = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        save_file(on_cpu, temporary)


def write_atomic(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary path to write to; synchronises it and renames it to `path`, or removes it on an error."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        raise RunError(str(unwritable(path, error))) from None
    except SafetensorError as error:
        raise RunError(f"{path}: cannot be written ({error}); see whether the disk is full") from None
    finally:
        with contextlib.suppress(OSError):  # there is none once all went well, nor where it could not be made
            temporary.unlink()


def sync_folder(path: Path) -> None:
    """Makes a rename in this folder durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_hash(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}") from None


@contextlib.contextmanager
def locked(path: Path, refusal: str) -> Iterator[None]:
    """Holds a lock file that one process at a time can hold. Raises RunError(refusal) where another one holds it.

    The lock ends with the process, however that ends: a file that a dead process left behind locks nobody out.
    """
    if sys.platform == "win32":  # there is no fcntl
        yield
        return
    descriptor = _lock(path, refusal)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()  # while it is ours: once the descriptor is closed, it may be another's
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
            os.close(descriptor)
            raise RunError(refusal) from None
        except OSError:
            return descriptor  # a file system without locks, as some network file systems are
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(path.stat(), os.fstat(descriptor)):
                return descriptor
        os.close(descriptor)  # whoever held it removed the file after we had opened it
