"""verify-resume: real processes, really killed, and what is said of them."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from seq2seq import verifying
from seq2seq.config import Config
from seq2seq.errors import OptionError
from seq2seq.recipe import build_config, load_config
from seq2seq.run import Run
from seq2seq.verifying import Proof, VerificationError, describe, fingerprints, shortened, verify_resume

PROOF = Proof(10, 1, {"weights": "a" * 64, "log": "b" * 64}, {"weights": "a" * 64, "log": "b" * 64}, [3, 7])


def test_a_killed_training_is_proved_to_lose_nothing(tiny_corpus: Path, run_cli: Any, tmp_path: Path) -> None:
    found = tmp_path / "proof.json"
    result = run_cli(
        "verify-resume", "recipe.toml", "--steps", "12", "--kills", "1", "--json", found, "--set", "model.dropout=0.2",
        "--set", "tokenizer.sample_source=0.1", cwd=tiny_corpus,
    )  # fmt: skip
    assert result.code == 0, result.err
    proof = json.loads(found.read_text(encoding="utf-8"))
    assert proof["identical"] and proof["whole"] == proof["resumed"]
    assert set(proof["whole"]) == {"weights", "optimizer", "batch order", "state", "log", "final model"}
    assert len(proof["kills"]) == 1 and proof["steps"] == 12 and proof["environment"]["threads"] == 1
    assert result.out.endswith("Resuming is exact: bit for bit the same.\n")
    for name, value in proof["whole"].items():
        assert any(line.startswith(name) and line.count(value[:16]) == 2 for line in result.lines)
    assert "kill 1 of 1: at step" in result.err


def test_what_differs_is_named_and_the_command_fails(
    tiny_corpus: Path, run_cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = replace(PROOF, resumed={**PROOF.resumed, "log": "c" * 64})
    assert PROOF.identical and not other.identical
    assert other.differing() == ["log"]
    assert describe(other).endswith("Resuming is NOT exact: log differ.")
    monkeypatch.setattr(verifying, "verify_resume", lambda *_, **__: other)
    found = tmp_path / "proof.json"
    result = run_cli("verify-resume", "recipe.toml", "--json", found, cwd=tiny_corpus)
    assert result.code == 1 and "NOT exact" in result.out and "Traceback" not in result.err
    assert json.loads(found.read_text(encoding="utf-8"))["identical"] is False


def test_every_part_of_a_run_has_a_fingerprint(tiny_run: Any, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(tiny_run.path, folder)
    before = fingerprints(Run.open(folder))
    metrics = (folder / "metrics.jsonl").read_text(encoding="utf-8")
    (folder / "metrics.jsonl").write_text(metrics.replace('"seconds": ', '"seconds": 1'), encoding="utf-8")
    assert fingerprints(Run.open(folder)) == before
    (folder / "metrics.jsonl").write_text(metrics.replace('"loss": ', '"loss": 1'), encoding="utf-8")
    assert [name for name, value in fingerprints(Run.open(folder)).items() if before[name] != value] == ["log"]
    shutil.rmtree(folder / "checkpoints")
    with pytest.raises(VerificationError, match="no checkpoint"):
        fingerprints(Run.open(folder))


def test_only_how_long_and_how_often_is_changed() -> None:
    config = build_config({"data": {"train_pairs": "a.tsv", "test_pairs": "b.tsv"}}, preset="tiny")
    short = shortened(config, 30)
    assert Config.model_validate(short.model_dump()) == short
    assert (short.training.max_steps, short.training.max_minutes, short.data.test_pairs) == (30, None, "")
    changed = {
        name for name, value in config.training.model_dump().items() if short.training.model_dump()[name] != value
    }
    assert changed == {
        "max_steps", "max_minutes", "log_every", "save_every", "validate_every", "max_validation_sentences"
    }  # fmt: skip
    assert (short.model, short.tokenizer, short.decoding) == (config.model, config.tokenizer, config.decoding)


@pytest.mark.parametrize(("steps", "kills"), [(1, 1), (5, 0), (5, 5)])
def test_numbers_that_cannot_be_are_named(tmp_path: Path, steps: int, kills: int) -> None:
    with pytest.raises(OptionError, match="--steps 1" if steps == 1 else f"--kills {kills}"):
        verify_resume(build_config({}), tmp_path, steps=steps, kills=kills, seed=1, tell=print)


def test_a_training_that_fails_is_told_by_its_own_message(tiny_corpus: Path, tmp_path: Path) -> None:
    config = load_config(tiny_corpus / "recipe.toml", overrides=["data.train_source=none.en"])
    with pytest.raises(VerificationError, match=r"the training failed: .*none\.en: no such file"):
        verify_resume(config, tmp_path, steps=4, kills=1, seed=1, tell=print)
