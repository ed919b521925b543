"""What goes wrong with the user's data, said in one line."""

from __future__ import annotations

import errno
from pathlib import Path

from seq2seq.errors import UserError

OUT_OF_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class DataError(UserError):
    """The data is wrong or out of reach. The message names the file, the line and the remedy (exit code 1)."""


def unwritable(path: Path, error: OSError) -> DataError:
    """The DataError for a file that cannot be written: no space, no permission, no such folder."""
    reason = error.strerror or str(error)
    if error.errno in OUT_OF_SPACE:
        return DataError(f"{path}: no space left to write it ({reason}); free some space or choose another disk")
    return DataError(f"{path}: cannot be written ({reason}); check the folder and its permissions")
