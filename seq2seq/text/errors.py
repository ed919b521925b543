"""What goes wrong with the user's data, said in one line."""

from __future__ import annotations

from pathlib import Path

from seq2seq.atomic import write_text
from seq2seq.errors import OUT_OF_SPACE, UserError


class DataError(UserError):
    """The data is wrong or out of reach. The message names the file, the line and the remedy (exit code 1)."""


class UnwritableError(DataError):
    """A file cannot be written."""


def write_result(path: Path, text: str) -> None:
    """Writes a file whole or not at all. Raises UnwritableError, and what stood there stays."""
    try:
        write_text(path, text)
    except OSError as error:
        raise unwritable(path, error) from None


def unwritable(path: Path, error: OSError) -> UnwritableError:
    """The error for a file that cannot be written: no space, no permission, no such folder."""
    reason = error.strerror or str(error)
    if error.errno in OUT_OF_SPACE:
        return UnwritableError(f"{path}: no space left to write it ({reason}); free some space or choose another disk")
    return UnwritableError(f"{path}: cannot be written ({reason}); check the folder and its permissions")
