"""Files that a stranger may have made: read whole only where they are plain files of a plausible size.

A name in a run folder may be a link to another place, a pipe that never ends, a device, or a sparse file of a terabyte.
Nothing here is imported but Python's own, so that every part can use it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from io import BufferedReader
from pathlib import Path

from seq2seq.errors import UserError

MAX_CONFIG_BYTES = 1 << 20  # a configuration with every field is 4 kB
MAX_JSON_BYTES = 64 << 20  # state.json grows with every validation, by some 100 bytes


class UntrustedError(UserError):
    """A file or link that is not followed or not read (exit code 1)."""


def open_regular(path: Path) -> BufferedReader:
    """Opens a plain file for reading. Raises OSError for anything else, without waiting for it or reading from it."""
    # Without O_NONBLOCK, opening a pipe that nobody writes to would wait for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        kind = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(kind):
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(kind):
            raise OSError(errno.EINVAL, "not a plain file", str(path))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: Path, most: int) -> bytes:
    """The content of a plain file of at most `most` bytes. Raises OSError, as `open_regular` does and for more."""
    with open_regular(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"more than {most:,} bytes", str(path))
    return content


def check_links(folder: Path, names: Iterable[str]) -> None:
    """Raises UntrustedError where one of these names in a folder is a link that leads out of it.

    names: relative paths; what is not there is passed over. The folder itself may be a link: the user named it.
    """
    inside = os.path.realpath(folder)
    for name in names:
        path = folder / name
        if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(inside):
            raise UntrustedError(f"{path}: a link that leads out of the folder; put a copy of the file in its place")
