"""What a safetensors file says it holds, read before anything is allocated for it.

The format: 8 bytes, little-endian, the header's size; the header, a JSON object of `name: {dtype, shape, data_offsets}`
and perhaps `__metadata__`; then the tensors. https://github.com/huggingface/safetensors has it in full. The library
checks the same again when it reads; but only after this does anybody know how much that will be.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from seq2seq.untrusted import open_regular

MAX_HEADER_BYTES = 16 << 20  # 100,000 tensors; a model of a thousand layers has 24,000
BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8}  # all that is ever written here


class HeaderError(ValueError):
    """The header is not one that this program writes. The message, one line, says what is wrong with it."""


@dataclass(frozen=True)
class TensorInfo:
    """One tensor: how its numbers are stored, and its shape."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        return BYTES[self.dtype] * math.prod(self.shape)


def read_header(path: Path, dtypes: Collection[str] = tuple(BYTES)) -> dict[str, TensorInfo]:
    """The tensors of a file, without reading them.

    Raises OSError where it cannot be read, HeaderError where it has other dtypes, where its tensors do not fill it from
    end to end, and where it is larger than the machine's memory.
    """
    with open_regular(path) as file:
        file_size = os.fstat(file.fileno()).st_size
        header_size = int.from_bytes(file.read(8), "little")
        if file_size < 8 or header_size > min(MAX_HEADER_BYTES, file_size - 8):
            raise HeaderError(f"a header of {header_size:,} bytes in a file of {file_size:,}")
        content = file.read(header_size)
    if file_size > physical_memory():
        raise HeaderError(f"{file_size:,} bytes, more than this machine has memory")
    try:
        header = json.loads(content)
    except (ValueError, RecursionError):
        raise HeaderError("its header is not valid JSON") from None
    if not isinstance(header, dict):
        raise HeaderError("its header is not a JSON object")
    header.pop("__metadata__", None)
    places = [_place(name, entry, dtypes) for name, entry in header.items()]
    end = 0
    for start, following in sorted((start, stop) for _, start, stop in places):
        if start != end:
            raise HeaderError("its tensors overlap, or have gaps between them")
        end = following
    if 8 + header_size + end != file_size:
        raise HeaderError(f"its header speaks of {8 + header_size + end:,} bytes, it has {file_size:,}")
    return {name: info for name, (info, _, _) in zip(header, places, strict=True)}


def _place(name: str, entry: object, dtypes: Collection[str]) -> tuple[TensorInfo, int, int]:
    """One entry of the header: what the tensor is, and from where to where it lies."""
    values = entry if isinstance(entry, dict) else {}
    dtype, shape, offsets = (values.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str) or dtype not in dtypes:
        raise HeaderError(f"{name[:80]!r} is stored as {dtype!r:.20}, not as {' or '.join(dtypes)}")
    if not (_are_sizes(shape) and _are_sizes(offsets) and isinstance(shape, list) and isinstance(offsets, list)):
        raise HeaderError(f"{name[:80]!r} has no proper shape or place")
    info = TensorInfo(dtype, tuple(shape))
    if len(offsets) != 2 or offsets[1] - offsets[0] != info.num_bytes:
        raise HeaderError(f"{name[:80]!r} has a place that its shape does not fill")
    return info, offsets[0], offsets[1]


def _are_sizes(values: object) -> bool:
    """Whether it is a list of a few sizes; True, which JSON has apart, is not 1."""
    if not isinstance(values, list) or len(values) > 8:
        return False
    return all(type(value) is int and 0 <= value < 2**48 for value in values)


def physical_memory() -> int:
    """Bytes of memory that the machine has; 2^48 where it does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 2**48
