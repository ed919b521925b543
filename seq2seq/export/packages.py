"""Optional packages: imported where they are there, asked for by name where they are not."""

from __future__ import annotations

import importlib
import os
from typing import Any

from seq2seq.export.errors import ExportError
from seq2seq.machine import lacks_int8_products

USE_MKL = "CT2_USE_MKL"  # an environment variable of CTranslate2


def need(package: str, extra: str) -> Any:
    """The module of an optional package. Raises ExportError, naming the extra to install, where it is missing."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        broken = "" if error.name in (package, None) else f" ({error})"
        raise ExportError(
            f"the package {package} is not installed{broken}: install it with pip install 'seq2seq[{extra}]'"
        ) from None


def need_ctranslate2() -> Any:
    """CTranslate2, told to use products that are right. Raises ExportError where it is missing.

    On AMD's processors it multiplies with oneDNN, whose 8-bit products overflow where the processor has no instructions
    for them: translations of an int8 export are then others. With Intel's library, which it has on Intel's processors
    anyway, they did not (measured on Zen 3). It chooses once in a process, when it first computes, so this is for all
    kinds of export. What the user has set is left.
    """
    if lacks_int8_products():
        os.environ.setdefault(USE_MKL, "1")
    return need("ctranslate2", "ctranslate2")
