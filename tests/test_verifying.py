"""verify-resume: real processes, really killed, and what is said of them."""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
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
        "verify-resume", "recipe.toml", "--steps", "40", "--kills", "1", "--json", found, "--set", "model.dropout=0.2",
        "--set", "tokenizer.sample_source=0.1", cwd=tiny_corpus,
    )  # fmt: skip
    assert result.code == 0, result.err
    proof = json.loads(found.read_text(encoding="utf-8"))
    assert proof["identical"] and proof["whole"] == proof["resumed"]
    assert set(proof["whole"]) == {"weights", "optimizer", "batch order", "state", "log", "final model"}
    assert len(proof["kills"]) == 1 and proof["steps"] == 40 and proof["environment"]["threads"] == 1
    assert result.out.endswith("Resuming is exact: bit for bit the same.\n")
    for name, value in proof["whole"].items():
        assert any(line.startswith(name) and line.count(value[:16]) == 2 for line in result.lines)
    assert "kill 1 of 1: at step" in result.err
    assert "killed 1 times" in result.out


# (the last step told of, the newest checkpoint) after each kill of a training of 12 steps
@pytest.mark.parametrize(
    ("left", "counted"),
    [([(3, 2), (7, 6), (9, 8)], [3, 7, 9]), ([(3, None), (8, 6), (12, 12)], [3, 8]), ([(4, 4), (None, 12)], [4])],
)
def test_only_kills_that_interrupted_the_training_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: list[tuple[int | None, int | None]], counted: list[int]
) -> None:
    told: list[str] = []
    pretend_to_train(monkeypatch, left)
    proof = verify_resume(build_config({}), tmp_path, steps=12, kills=3, seed=1, tell=told.append)
    assert proof.kills == counted
    assert f"killed {len(counted)} times" in describe(proof)
    kills = [line for line in told if line.startswith("kill ")]
    assert [line.split(", last")[0] for line in kills] == [
        f"kill {number} of 3: at step {step}" for number, step in enumerate(counted, 1)
    ]
    fewer = (
        f"only {len(counted)} of 3 kills interrupted the training, which had ended by then; with more steps, such as"
    )
    assert any(line.startswith(f"{fewer} --steps 24") for line in told) == (len(counted) < 3)


@pytest.mark.parametrize("left", [(1, 12), (None, 12)])
def test_a_training_that_ended_before_it_was_killed_proves_nothing(
    tiny_corpus: Path, run_cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: tuple[int | None, int]
) -> None:
    pretend_to_train(monkeypatch, [left])
    found = tmp_path / "proof.json"
    result = run_cli("verify-resume", "recipe.toml", "--steps", "12", "--json", found, cwd=tiny_corpus)
    assert result.code == 1 and result.out == "" and not found.exists()
    assert "nothing was interrupted" in result.err and "such as --steps 24" in result.err
    assert "kill 1" not in result.err


def pretend_to_train(monkeypatch: pytest.MonkeyPatch, left: list[tuple[int | None, int | None]]) -> None:
    """Trainings of empty checkpoints. left: what each kill finds, the step told of last and the one saved last."""
    found = iter(left)

    def save(folder: Path, step: int) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "config.toml").touch()
        Run(folder).save_checkpoint(step, {}, {}, {})

    def killed(_: Path, folder: Path, *__: object) -> int | None:
        step, saved = next(found)
        if saved is not None:
            save(folder, saved)
        return step

    monkeypatch.setattr(verifying, "_train", lambda _, folder: save(folder, 12))
    monkeypatch.setattr(verifying, "_train_and_kill", killed)
    monkeypatch.setattr(verifying, "fingerprints", lambda run: {"log": "a" * 64})


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


def test_a_file_that_cannot_be_written_is_told_before_anything_is_trained(
    tiny_corpus: Path, run_cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verifying, "verify_resume", lambda *_, **__: pytest.fail("it trained"))
    result = run_cli("verify-resume", "recipe.toml", "--json", tmp_path, cwd=tiny_corpus)
    assert result.code == 2 and f"--json {tmp_path}: is a folder; name a file" in result.err
    result = run_cli("verify-resume", "recipe.toml", "--json", tmp_path / "none" / "proof.json", cwd=tiny_corpus)
    assert result.code == 2 and "there is no folder" in result.err
    monkeypatch.setattr(os, "access", lambda path, mode, **_: mode != os.W_OK)  # as for whoever is not root
    result = run_cli("verify-resume", "recipe.toml", "--json", tmp_path / "proof.json", cwd=tiny_corpus)
    assert result.code == 2 and "proof.json: may not be written; check the folder and its permissions" in result.err
    assert list(tmp_path.iterdir()) == []


def test_what_was_told_before_the_kill_is_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = "".join(f"step {step}/9\n" for step in range(1, 7))
    program = f"import sys, time; sys.stderr.write({steps!r}); sys.stderr.flush(); time.sleep(600)"
    monkeypatch.setattr(verifying, "COMMAND", (sys.executable, "-c", program))
    assert verifying._train_and_kill(tmp_path, tmp_path, 2, random.Random(1)) == 6


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV"])
@pytest.mark.parametrize("kills", [True, False])
def test_a_signal_from_elsewhere_is_not_taken_for_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kills: bool
) -> None:
    program = f"import os, signal; os.kill(os.getpid(), signal.{name})"
    monkeypatch.setattr(verifying, "COMMAND", (sys.executable, "-c", program))
    with pytest.raises(VerificationError, match=f"ended by {name}, not sent from here"):
        if kills:
            verifying._train_and_kill(tmp_path, tmp_path, 2, random.Random(1))
        else:
            verifying._train(tmp_path, tmp_path)


def test_a_training_that_fails_is_told_by_its_own_message(tiny_corpus: Path, tmp_path: Path) -> None:
    config = load_config(tiny_corpus / "recipe.toml", overrides=["data.train_source=none.en"])
    with pytest.raises(VerificationError, match=r"the training failed: .*none\.en: no such file"):
        verify_resume(config, tmp_path, steps=4, kills=1, seed=1, tell=print)
