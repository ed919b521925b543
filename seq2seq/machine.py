"""The processor and the memory of this machine, told without importing torch."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path


def available_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def processor_name() -> str:
    """The processor's name, as far as the system tells."""
    try:
        # Linux, where platform.processor() is mostly empty.
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or "unknown processor"


def peak_memory_bytes() -> int:
    """The most memory that this process ever had resident."""
    import resource  # POSIX

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
