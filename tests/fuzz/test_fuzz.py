"""Damaged files are read or refused, and never worse: no traceback, no hang, no crash, no gigabyte of memory.

`pytest -m slow tests/fuzz` tries twenty thousand. A case that went wrong is named by target, seed and number;
`worker.py FOLDER COUNT SEED TARGET` plays the cases of a target again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

WORKER = Path(__file__).with_name("worker.py")


def fuzz(folder: Path, count: int, seed: str, timeout: float) -> dict[str, Any]:
    """What the worker reports, in a process of its own: what is damaged may crash it."""
    done = subprocess.run(
        [sys.executable, str(WORKER), str(folder), str(count), seed],
        capture_output=True, text=True, timeout=timeout, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, f"{now(folder)} ended it with {done.returncode}: {done.stderr[-2000:]}"
    return dict(json.loads(done.stdout))


def now(folder: Path) -> str:
    """The case that was tried last."""
    path = folder / "now"
    return path.read_text() if path.exists() else "making the playground"


def check(report: dict[str, Any], least: int) -> None:
    assert not report["wrong"], json.dumps(report["wrong"][:3], indent=1)
    assert sum(sum(counts.values()) for counts in report["cases"].values()) >= least
    assert all(counts["refused"] for name, counts in report["cases"].items() if name not in ("metrics", "translate"))
    assert report["megabytes"] < 1000


def test_some_damaged_files_are_read_or_refused_in_one_line(tmp_path: Path) -> None:
    check(fuzz(tmp_path, 400, "few", timeout=300), least=380)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_twenty_thousand_damaged_files_are_read_or_refused_in_one_line(tmp_path: Path, part: int) -> None:
    check(fuzz(tmp_path, 5_010, f"many {part}", timeout=3600), least=5_000)
