"""The curves of a run: drawn from any log that a run folder may hold."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seq2seq.run import Run

curves = pytest.importorskip("seq2seq.stages.curves", reason="matplotlib is an extra")
anything = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.lists(st.none(), max_size=1)
)
records = st.dictionaries(
    st.sampled_from(["step", "loss", "nll", "learning_rate", "valid_loss", "valid_bleu"]), anything
)


def drawn(lines: list[dict[str, Any]]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        run = Run.create(Path(folder) / "run")
        (run.path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        curves.draw_curves(run)
        return (run.path / "curves.png").read_bytes()


@settings(max_examples=8, deadline=None)
@given(st.lists(records, max_size=6))
def test_a_log_of_anything_gives_a_picture(lines: list[dict[str, Any]]) -> None:
    assert drawn(lines).startswith(b"\x89PNG")


def test_what_is_logged_is_seen() -> None:
    steps = [{"step": n, "loss": 3.0 / n, "nll": 2.0 / n, "learning_rate": 1e-3} for n in range(1, 9)]
    scored = [{"step": n, "valid_loss": 2.0, "valid_bleu": 10.0 * n} for n in (4, 8)]
    higher = [{**record, "valid_bleu": 2 * record["valid_bleu"]} for record in scored]
    pictures = {drawn(steps + scored), drawn(steps + higher), drawn(steps), drawn(steps[:4]), drawn([])}
    assert len(pictures) == 5
