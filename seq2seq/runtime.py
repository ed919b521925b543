"""The machine: device, precision, threads, memory allocator. Nothing here changes what is computed, only how fast."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import platform
import sys
from functools import cache
from typing import Literal

import torch

from seq2seq.errors import OptionError
from seq2seq.machine import available_cores, check_threads, processor_name

Precision = Literal["auto", "fp32", "bf16"]


def choose_device(name: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """The named device; `auto` is a GPU where torch finds one. Raises ValueError for a GPU that is not there."""
    if name == "cuda" and not torch.cuda.is_available():
        raise OptionError('training.device = "cuda": torch finds no GPU here; set training.device="auto"')
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        # Where cuDNN's attention is preferred, it prepares every new shape for long, and each step of decoding has one.
        torch.backends.cuda.enable_cudnn_sdp(False)
    return torch.device(name)


def choose_precision(name: Precision, device: torch.device) -> torch.dtype:
    """The dtype of activations and matrix products. `auto` is bfloat16 where the hardware multiplies it natively.

    Raises OptionError for another name.
    """
    if name not in ("fp32", "bf16", "auto"):
        raise OptionError(f"precision = {name!r}: choose fp32, bf16 or auto")
    if name == "fp32":
        return torch.float32
    if name == "bf16":
        return torch.bfloat16
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    return torch.bfloat16 if cpu_has_bf16() else torch.float32


def precision_name(dtype: torch.dtype) -> str:
    """The name of what `choose_precision` gives: "fp32" or "bf16"."""
    return "bf16" if dtype == torch.bfloat16 else "fp32"


@cache
def one_thread_in_children() -> None:
    """From now on a process that is forked from this one has one thread for torch's operations.

    Those of this process are not in it, and OpenMP would wait for them for ever.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


def emulated(dtype: torch.dtype, device: torch.device) -> str | None:
    """A warning where a device computes in bfloat16 without having instructions for it."""
    known = platform.machine() == "x86_64"  # `cpu_has_bf16` knows the instructions of no other architecture
    if dtype != torch.bfloat16 or device.type != "cpu" or not known or cpu_has_bf16():
        return None
    return "precision bf16: this processor does not multiply bfloat16 numbers and is faster with fp32"


def cpu_has_bf16() -> bool:
    """Whether this processor has bfloat16 dot-product or matrix instructions."""
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, check, lambda: False)()) for check in checks)


def set_up_cpu(num_threads: int) -> int:
    """Threads (0: `available_cores`), denormals as zero, an allocator that keeps its pages. Returns the threads."""
    check_threads(num_threads)
    threads = num_threads or available_cores()
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    _keep_freed_memory()
    return threads


def _keep_freed_memory() -> None:
    """Tells glibc not to hand large blocks back to the kernel: fetching them again costs more than using them."""
    if not sys.platform.startswith("linux"):
        return
    try:
        libc = ctypes.CDLL("libc.so.6")
        m_trim_threshold, m_mmap_max = -1, -4
        libc.mallopt(m_mmap_max, 0)
        libc.mallopt(m_trim_threshold, 2**31 - 1)
    except (OSError, AttributeError):
        pass  # another C library: slower, not wrong


def release_freed_memory() -> None:
    """Hands back to the system, this once, what glibc keeps of freed memory."""
    if not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def describe_hardware(device: torch.device) -> str:
    """What a device is, in one line: the GPU's name, or the processor's and the number of threads."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    threads = torch.get_num_threads()
    return f"{processor_name()}, {threads} thread{'s' if threads != 1 else ''}"


def derived_seed(*parts: int | str) -> int:
    """A seed for one purpose, a pure function of its parts: (seed, what it is for, epoch or step, ...)."""
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest(), "big")
