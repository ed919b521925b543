"""The compiled kernels (kernels.c): found, called, switched off.

They are built where the package is installed, if there is a C compiler, once for each generation of processors, and
make training on a CPU about twice as fast. Everything runs without them. `SEQ2SEQ_KERNELS=off` in the environment, or
`disabled()`, leaves them unused; `avx512`, `avx2` and `generic` take those of that generation, or of an earlier one
where the processor, or the compiler, had no more; `on` the newest that runs, as if nothing was set.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import torch
from torch import Tensor

from seq2seq.errors import OptionError

SOURCES = ("kernels.c", "kernels.inc", "steps.inc")  # as in setup.py

_enabled: ContextVar[bool] = ContextVar("native_kernels_enabled", default=True)

_POINTER, _INT, _LONG, _SEED, _FLOAT = (
    ctypes.c_void_p, ctypes.c_int, ctypes.c_int64, ctypes.c_uint64, ctypes.c_float,
)  # fmt: skip
_DROPOUT = (_SEED, ctypes.c_uint32, _FLOAT)
_LAYOUT = (_LONG,) * 5
_SIGNATURES: dict[str, tuple[type, ...]] = {
    "column_sums": (*(_POINTER,) * 2, _LONG, _LONG),
    "dropout": (*(_POINTER,) * 3, _LONG, *_DROPOUT),
    "embed": (*(_POINTER,) * 5, _LONG, _LONG, _FLOAT, *_DROPOUT),
    "embed_backward": (*(_POINTER,) * 3, _LONG, _LONG, _FLOAT, *_DROPOUT),
    "layer_norm": (*(_POINTER,) * 6, _LONG, _LONG, _FLOAT),
    "layer_norm_backward": (*(_POINTER,) * 8, _LONG, _LONG),
    "attention": (*(_POINTER,) * 7, *_LAYOUT, _INT, _LONG, *_DROPOUT),
    "attention_backward": (*(_POINTER,) * 11, *_LAYOUT, _LONG, _LONG, _INT, _LONG, *_DROPOUT),
    "cross_entropy": (*(_POINTER,) * 5, _LONG, _LONG, _FLOAT, _INT),
    "scale_rows": (*(_POINTER,) * 3, _LONG, _LONG),
    "cross_entropy_pair": (*(_POINTER,) * 7, _LONG, _LONG, _FLOAT, _FLOAT, _INT),
}
# Those that decoding calls, in float32 only.
_DECODING: dict[str, tuple[type, ...]] = {
    "lay_out_weights_f32": (_POINTER, _POINTER, _LONG, _LONG),
    "lay_out_weights_bf16": (_POINTER, _POINTER, _LONG, _LONG),
    "linear_rows": (*(_POINTER,) * 4, *(_LONG,) * 3, _INT),
    "encode_sentences": (*(_POINTER,) * 7, _LONG),
    "decode_step": (_POINTER,) * 6,
    "project_states": (*(_POINTER,) * 3, _LONG),
    "best_pieces": (*(_POINTER,) * 4, *(_LONG,) * 3),
    "beam_steps": (*(_POINTER,) * 7, _LONG),
}
TYPES = {torch.float32: "f32", torch.bfloat16: "bf16"}
# By what `processor_level` in kernels.c gives: the name for people, and for SEQ2SEQ_KERNELS; and the library's file.
GENERATIONS = (("generic", "_kernels"), ("avx2", "_kernels_avx2"), ("avx512", "_kernels_avx512"))

OFF, ON = ("off", "0", "no"), ("", "on", "1", "yes")  # what else SEQ2SEQ_KERNELS may be


@cache
def _chosen() -> tuple[str, ctypes.CDLL] | None:
    """The newest generation that was built and that this processor runs; None where there is none or none is wanted.

    Raises OptionError where SEQ2SEQ_KERNELS is nothing that is known.
    """
    given = os.environ.get("SEQ2SEQ_KERNELS", "")
    wanted = given.strip().lower()
    names = [name for name, _ in GENERATIONS]
    if wanted not in (*names, *OFF, *ON):
        raise OptionError(f"SEQ2SEQ_KERNELS = {given!r} in the environment: write one of {', '.join(names)}, on, off")
    generic = None if wanted in OFF else _load(GENERATIONS[0][1])
    if generic is None:
        return None
    level = int(generic.processor_level())
    if wanted in names:
        level = min(level, names.index(wanted))
    for name, file in reversed(GENERATIONS[1 : level + 1]):
        library = _load(file)
        if library is not None:
            return name, library
    return names[0], generic


def _load(file: str) -> ctypes.CDLL | None:
    """The library of that name beside this file, or None where it was not built, or was built from other sources."""
    for suffix in EXTENSION_SUFFIXES:
        path = Path(__file__).with_name(file + suffix)
        if not path.exists():
            continue
        try:
            library = ctypes.CDLL(str(path))
            if out_of_date(library):
                continue
            for name, types in _SIGNATURES.items():
                for suffix_of_type in TYPES.values():
                    function = getattr(library, f"{name}_{suffix_of_type}")
                    function.argtypes, function.restype = types, ctypes.c_int
            for name, types in _DECODING.items():
                function = getattr(library, name)
                function.argtypes, function.restype = types, ctypes.c_int
        except (OSError, AttributeError):
            continue  # for another machine
        return library
    return None


def out_of_date(library: ctypes.CDLL) -> bool:
    """Whether a library was built from other sources than lie here: they were changed, or fetched, and not built."""
    function = library.kernels_source
    function.argtypes, function.restype = (), ctypes.c_uint64
    here = sources_hash()
    return here is not None and function() != here


def sources_hash() -> int | None:
    """64 bits of the SHA-256 of the sources, as setup.py compiles them in; None in a package without them."""
    digest = hashlib.sha256()
    try:
        for name in SOURCES:
            digest.update(Path(__file__).with_name(name).read_bytes())
    except OSError:
        return None
    return int.from_bytes(digest.digest()[:8], "big")


def are_out_of_date() -> bool:
    """Whether there are kernels which are not used because they were built from other sources."""
    beside = (Path(__file__).with_name(file + suffix) for _, file in GENERATIONS for suffix in EXTENSION_SUFFIXES)
    return any(path.exists() and _is_out_of_date(path) for path in beside)


def _is_out_of_date(path: Path) -> bool:
    try:
        library = ctypes.CDLL(str(path))
    except OSError:
        return False  # for another machine
    try:
        return out_of_date(library)
    except AttributeError:
        return True  # of before there was a hash in it


def floats(*shape: int) -> Tensor:
    """A tensor for a kernel to write float32 numbers to, whatever torch's default type and device are; not filled."""
    return torch.empty(shape, dtype=torch.float32, device="cpu")


def _library() -> ctypes.CDLL | None:
    chosen = _chosen()
    return None if chosen is None else chosen[1]


def generation() -> str | None:
    """Which kernels are used: "generic", "avx2" or "avx512"; None where there are none, or they may not be used."""
    chosen = _chosen() if _enabled.get() else None
    return None if chosen is None else chosen[0]


def available() -> bool:
    """Whether there are kernels and they may be used."""
    return _enabled.get() and _library() is not None


def usable(*tensors: Tensor) -> bool:
    """Whether the kernels can take these activations: on a CPU, contiguous, float32 or bfloat16, all of one type."""
    first = tensors[0]
    return (
        first.device.type == "cpu"
        and first.dtype in TYPES
        and all(tensor.dtype == first.dtype and tensor.is_contiguous() for tensor in tensors)
        and available()
    )


def usable_ids(ids: Tensor) -> bool:
    """Whether the kernels can take these indices."""
    return ids.device.type == "cpu" and ids.dtype == torch.int64 and ids.is_contiguous()


def check_ids(ids: Tensor, size: int) -> None:
    """Raises IndexError for an index below 0 or not below `size`; a kernel would read or write anywhere."""
    assert usable_ids(ids), "kernels read int64, one after the other"
    if len(ids) and (int(ids.min()) < 0 or int(ids.max()) >= size):
        raise IndexError(f"ids from {int(ids.min())} to {int(ids.max())} for a table of {size}")


@contextmanager
def disabled() -> Iterator[None]:
    """Within it, and in this thread, everything runs in torch but for decoders that were prepared before."""
    token = _enabled.set(False)
    try:
        yield
    finally:
        _enabled.reset(token)


def has_half_products() -> bool:
    """Whether the kernels have products of bfloat16 numbers on this processor."""
    library = _library()
    return library is not None and bool(library.has_half_products())


def call(name: str, dtype: torch.dtype, *arguments: Tensor | float | None) -> None:
    """Calls the kernel for a dtype. See `run`."""
    run(f"{name}_{TYPES[dtype]}", *arguments)


def run(name: str, *arguments: Tensor | float | None) -> None:
    """Calls a kernel; tensors are passed as the addresses of their first elements. Raises MemoryError."""
    function = getattr(_library(), name)
    if function(*[value.data_ptr() if isinstance(value, Tensor) else value for value in arguments]) == -1:
        raise MemoryError(f"no memory for {name}")
