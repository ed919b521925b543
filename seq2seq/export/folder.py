"""Export folders: complete and certified under their name, or not there at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from seq2seq.atomic import is_litter, sync, temporary_folder
from seq2seq.export.errors import ExportError, UnwritableExportError
from seq2seq.export.light import read_certificate
from seq2seq.text.errors import unwritable

CERTIFICATE = "certificate.json"
WRITING, REPLACED = ".tmp", ".old"


def check_free(path: Path, *, overwrite: bool) -> None:
    """Raises ExportError where something stands at `path` that an export must not replace.

    overwrite: another export may be replaced, if nothing is in the folder but the files that its certificate names;
    nothing else ever is.
    """
    if path.is_dir() and Path.cwd().is_relative_to(path.resolve()):
        raise ExportError(f"{path}: is the folder that you are in, or holds it; name a new folder")
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


@contextlib.contextmanager
def new_folder(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """Gives a temporary folder beside `path` to write into, and renames it to `path` at the end.

    Where anything goes wrong, the temporary folder is removed and what stood at `path` stays. What exports to `path`
    that were killed have left is removed. Raises ExportError as `check_free` does, and where the folder cannot be made.
    """
    check_free(path, overwrite=overwrite)
    _remove_left_behind(path, WRITING)
    with _temporary(path) as temporary:
        yield temporary
        for file in (*temporary.iterdir(), temporary):  # durable before it has its name
            sync(file)
        check_free(path, overwrite=overwrite)  # it took a while
        if path.exists():
            replaced = temporary.with_suffix(REPLACED)
            os.replace(path, replaced)
            try:
                os.replace(temporary, path)
            except OSError:
                os.replace(replaced, path)
                raise
            shutil.rmtree(replaced, ignore_errors=True)
        else:
            os.replace(temporary, path)
        sync(path.parent)
    _remove_left_behind(path, REPLACED)  # not before: it may be the only export there


@contextlib.contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """A folder beside `path`, locked so that no other export removes it, and removed where it has its name still."""
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = temporary_folder(path.parent, f".{path.name}.", WRITING)
        except FileExistsError:
            raise ExportError(f"{path.parent}: is a file where a folder should be; rename it") from None
        except OSError as error:
            raise UnwritableExportError(str(unwritable(path, error))) from None
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
    name = re.compile(re.escape(f".{path.name}.") + r"\w{8}" + re.escape(suffix))
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
