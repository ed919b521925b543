"""Export folders: complete and certified under their name, or not there at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from seq2seq.atomic import is_litter, sync, temporary_folder
from seq2seq.export.errors import ExportError, UnwritableExportError
from seq2seq.export.light import read_certificate
from seq2seq.run_folder.files import UnwrittenError, naming

CERTIFICATE = "certificate.json"
WRITING, REPLACED = ".tmp", ".old"


def check_free(path: Path, *, overwrite: bool) -> None:
    """Raises ExportError where something stands at `path` that an export must not replace.

    overwrite: another export may be replaced, if nothing is in the folder but the files that its certificate names;
    nothing else ever is.
    """
    check_place(path)
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not path.is_dir():
        raise ExportError(f"{path}: is a file; name a folder for the export")
    certificate = read_certificate(path / CERTIFICATE)
    files = None if certificate is None else certificate.get("files")
    if not isinstance(files, dict):
        raise ExportError(f"{path}: holds something else than an export; choose another folder")
    for entry in sorted(path.iterdir()):
        own = entry.name in (*files, CERTIFICATE) and not entry.is_dir()
        if not own and not is_litter(entry.name):
            raise ExportError(
                f"{entry}: is no part of the export in that folder, and would be removed with it: move it elsewhere, "
                "or choose another folder"
            )
    if not overwrite:
        raise ExportError(f"{path}: holds an export already: choose another folder, or replace it with --overwrite")


def check_place(path: Path) -> None:
    """Raises ExportError where no export can be, whatever is there."""
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:  # the libraries that write exports do not take it
        raise ExportError(f"{path}: the name of an export's folder has to be UTF-8; name another") from None
    if path.is_dir() and Path.cwd().is_relative_to(path.resolve()):
        raise ExportError(f"{path}: is the folder that you are in, or holds it; leave it first, or name another folder")
    if os.path.ismount(path):  # no folder can be renamed to it
        raise ExportError(f"{path}: is where a disk is mounted; name a folder inside of it")


@contextlib.contextmanager
def new_folder(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """Gives a temporary folder beside `path` to write into, and renames it to `path` at the end.

    Where anything goes wrong, the temporary folder and those above it that were made are removed, and what stood at
    `path` stays. What exports to `path` that were killed have left is removed. A folder that is replaced leaves its
    permissions to the new one. Raises ExportError as `check_free` does, and where the folder cannot be made.
    """
    check_free(path, overwrite=overwrite)
    _remove_left_behind(path, WRITING)
    with _parents(path), _temporary(path) as temporary:
        _copy_permissions(path, temporary)
        yield temporary
        check_free(path, overwrite=overwrite)  # it took a while
        with writing(path):
            for file in (*temporary.iterdir(), temporary):  # durable before it has its name
                sync(file)
            _put_in_place(temporary, path)
            sync(path.parent)
    _remove_left_behind(path, REPLACED)  # not before: it may be the only export there


def _copy_permissions(path: Path, temporary: Path) -> None:
    """Those of an existing folder; its owner must be able to write into the new one, though."""
    with contextlib.suppress(OSError):  # there is none, or the disk has no permissions
        temporary.chmod(stat.S_IMODE(path.stat().st_mode) | stat.S_IRWXU)


def _put_in_place(temporary: Path, path: Path) -> None:
    """Renames a complete folder to `path`. Raises OSError where that fails, and then what stood there stays."""
    if not path.exists():
        os.replace(temporary, path)
        return
    replaced = temporary.with_suffix(REPLACED)
    os.replace(path, replaced)
    try:
        os.replace(temporary, path)
    except OSError:
        os.replace(replaced, path)
        raise
    shutil.rmtree(replaced, ignore_errors=True)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raises UnwritableExportError, naming `path`, for what goes wrong with the disk within it."""
    try:
        with naming(path):
            yield
    except UnwrittenError as error:
        raise UnwritableExportError(str(error)) from None


@contextlib.contextmanager
def _parents(path: Path) -> Iterator[None]:
    """Makes the folders above `path`; where anything fails, removes those of them that it made and that are empty."""
    missing = [folder for folder in path.parents if not folder.exists()]
    try:
        with writing(path):
            _make(path.parent)
        yield
    except BaseException:
        for folder in missing:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise ExportError(f"{folder}: is a file where a folder should be; rename it") from None


@contextlib.contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """A folder beside `path`, locked so that no other export removes it, and removed where it has its name still."""
    while True:
        with writing(path):
            temporary = temporary_folder(path.parent, f".{path.name}.", WRITING)
        with contextlib.ExitStack() as opened:
            opened.callback(shutil.rmtree, temporary, ignore_errors=True)
            try:
                opened.callback(os.close, _lock(temporary))
            except (BlockingIOError, FileNotFoundError):
                continue  # another export was faster than the lock and took it for a dead one's
            except OSError:
                pass  # there are no locks, so that nobody removes it either
            if temporary.exists():
                yield temporary
                return


def _remove_left_behind(path: Path, suffix: str) -> None:
    """Removes what exports to `path` that were killed have left beside it. Locks end with their process."""
    name = re.compile(re.escape(f".{path.name}.") + r"[0-9a-f]{8}" + re.escape(suffix))
    with contextlib.suppress(OSError):
        for left in path.parent.iterdir():
            if name.fullmatch(left.name) and left.is_dir() and not left.is_symlink():
                with contextlib.suppress(OSError):
                    descriptor = _lock(left)
                    shutil.rmtree(left, ignore_errors=True)
                    os.close(descriptor)


def _lock(folder: Path) -> int:
    """Locks a folder for as long as the descriptor is open. Raises OSError where that cannot be."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
