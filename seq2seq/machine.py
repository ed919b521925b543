"""The processor and the memory of this machine, told without importing torch."""

from __future__ import annotations

import os
import platform
import sys
from functools import cache
from pathlib import Path

from seq2seq.errors import OptionError

MAX_THREADS = 1024


def check_threads(threads: int) -> None:
    """Raises OptionError for a number of threads that is not 0 (one a core) to MAX_THREADS."""
    if not 0 <= threads <= MAX_THREADS:
        raise OptionError(f"threads = {threads} must be 0 (one a core) to {MAX_THREADS:,}")


def available_cores() -> int:
    """Cores that this process may run on, and no more than OMP_NUM_THREADS in the environment, as schedulers set it."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return max(1, min(cores, int(asked)) if asked.isdecimal() and int(asked) else cores)


def processor_name() -> str:
    """The processor's name, as far as the system tells."""
    return _of_processor("model name") or platform.processor() or platform.machine() or "unknown processor"


def lacks_int8_products() -> bool:
    """Whether this x86-64 processor has no instructions for products of 8-bit numbers (VNNI), so far as Linux tells.

    Their sums may then overflow, depending on the library.
    """
    flags = _of_processor("flags").split()
    return platform.machine() == "x86_64" and bool(flags) and not {"avx512_vnni", "avx_vnni"} & set(flags)


@cache
def _of_processor(field: str) -> str:
    """A field of the first processor in /proc/cpuinfo, "" where there is none."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                name, _, value = line.partition(":")
                if name.strip() == field:
                    return value.strip()
    except OSError:
        pass
    return ""


_earlier_peak = 0  # of what ended when the peak was last forgotten


def peak_memory_bytes() -> int:
    """The most memory that this process ever had resident."""
    return max(_earlier_peak, recent_peak_bytes())


def recent_peak_bytes() -> int:
    """The most memory that this process had resident since `forget_peak`; where the system cannot forget, ever."""
    import resource  # POSIX

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return _linux_status("VmHWM") or (peak if sys.platform == "darwin" else peak * 1024)


def forget_peak() -> bool:
    """Has the peak counted anew from what is resident now. Returns whether the system can do that (Linux)."""
    global _earlier_peak
    before = recent_peak_bytes()
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # proc(5)
    except OSError:
        return False
    _earlier_peak = max(_earlier_peak, before)
    return True


def resident_bytes() -> int | None:
    """The memory that this process has resident now; None where the system does not tell."""
    return _linux_status("VmRSS")


def available_memory() -> int | None:
    """Bytes that this process may still take before the system runs out of memory or it meets a limit of its own.

    None where the system does not tell.
    """
    known = [_field(Path("/proc/meminfo"), "MemAvailable"), *_left_to_groups(), _left_to_address_space()]
    return min((size for size in known if size is not None), default=None)


def _left_to_groups() -> list[int]:
    """What is left of the limits that control groups (version 2) set, of this process's group and of those above it."""
    left = []
    try:
        name = Path("/proc/self/cgroup").read_text(encoding="ascii").rpartition("::")[2].strip()
        root = Path("/sys/fs/cgroup")
        group = root / name.lstrip("/")
        for folder in (group, *group.parents):
            if not folder.is_relative_to(root):
                break
            limit = folder / "memory.max"
            if limit.exists() and (text := limit.read_text(encoding="ascii").strip()) != "max":
                # Files that were read are given back when the memory is needed.
                files = (_field(folder / "memory.stat", name, unit=1) for name in ("inactive_file", "active_file"))
                cached = sum(size or 0 for size in files)
                used = int((folder / "memory.current").read_text(encoding="ascii"))
                left.append(max(0, int(text) - used + cached))
    except (OSError, ValueError):
        pass
    return left


def _left_to_address_space() -> int | None:
    """What `ulimit -v` leaves, None where it sets no limit."""
    import resource  # POSIX

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    taken = _linux_status("VmSize")
    return None if limit == resource.RLIM_INFINITY or taken is None else max(0, limit - taken)


def _linux_status(name: str) -> int | None:
    return _field(Path("/proc/self/status"), name)


def _field(path: Path, name: str, unit: int = 1024) -> int | None:
    """A number of a file of names and numbers, times its unit; None where there is none."""
    try:
        for line in path.read_text(encoding="ascii", errors="replace").splitlines():
            if line.split(":")[0].split(" ")[0] == name:
                return int(line.replace(":", " ").split()[1]) * unit
    except (OSError, ValueError, IndexError):
        pass
    return None
