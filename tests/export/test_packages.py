"""Optional packages, and with which products CTranslate2 computes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from seq2seq import machine
from seq2seq.export import packages
from seq2seq.export.errors import ExportError

AMD_BEFORE_ZEN_4 = "fpu sse4_2 avx avx2 fma bmi1 bmi2"


@pytest.mark.parametrize(
    ("architecture", "flags", "lacks"),
    [
        ("x86_64", AMD_BEFORE_ZEN_4, True),
        ("x86_64", AMD_BEFORE_ZEN_4 + " avx512f avx512_vnni", False),
        ("x86_64", AMD_BEFORE_ZEN_4 + " avx_vnni", False),
        ("x86_64", "", False),  # the system does not tell
        ("aarch64", "fp asimd", False),
    ],
)
def test_which_processors_lack_8_bit_products(
    monkeypatch: pytest.MonkeyPatch, architecture: str, flags: str, lacks: bool
) -> None:
    monkeypatch.setattr(machine.platform, "machine", lambda: architecture)
    monkeypatch.setattr(machine, "_of_processor", {"flags": flags}.__getitem__)
    assert machine.lacks_int8_products() is lacks


@pytest.mark.parametrize(("lacks", "before", "after"), [(True, None, "1"), (True, "0", "0"), (False, None, None)])
def test_ctranslate2_is_told_where_its_8_bit_products_would_overflow(
    monkeypatch: pytest.MonkeyPatch, lacks: bool, before: str | None, after: str | None
) -> None:
    pytest.importorskip("ctranslate2")
    monkeypatch.setattr(packages, "lacks_int8_products", lambda: lacks)
    monkeypatch.setenv("CT2_USE_MKL", before or "")  # so that what is set here is undone
    if before is None:
        monkeypatch.delenv("CT2_USE_MKL")
    assert packages.need_ctranslate2().__name__ == "ctranslate2"
    assert os.environ.get("CT2_USE_MKL") == after


@pytest.mark.skipif(not machine.lacks_int8_products(), reason="this processor has 8-bit products")
def test_ctranslate2_then_takes_the_other_library(tiny_run: Any, tmp_path: Path) -> None:
    pytest.importorskip("ctranslate2")
    command = ["export", str(tiny_run.path), str(tmp_path / "int8"), "--to", "ctranslate2", "--quantization", "int8"]
    environment = {name: value for name, value in os.environ.items() if name != "CT2_USE_MKL"}
    done = subprocess.run(
        [sys.executable, "-c", "from seq2seq.cli import main; main()", *command],
        env={**environment, "CT2_VERBOSE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert "GEMM_S8 backend: MKL" in done.stdout + done.stderr


def test_what_is_not_installed_is_asked_for_by_its_extra() -> None:
    with pytest.raises(ExportError, match=r"pip install 'seq2seq\[huggingface\]'"):
        packages.need("no_such_package", "huggingface")
