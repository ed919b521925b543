"""What can keep a run from being exported."""

from __future__ import annotations

import importlib
from typing import Any

from seq2seq.errors import UserError


class ExportError(UserError):
    """A run that cannot be exported as asked. The message names the field or file and the remedy."""


def need(package: str, extra: str) -> Any:
    """The module of an optional package. Raises ExportError, naming the extra to install, where it is missing."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        broken = "" if error.name in (package, None) else f" ({error})"
        raise ExportError(
            f"the package {package} is not installed{broken}: install it with pip install 'seq2seq[{extra}]'"
        ) from None
