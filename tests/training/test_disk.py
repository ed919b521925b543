"""Space on the disk is looked at before training."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch

from seq2seq.config import TrainingConfig
from seq2seq.run import Run
from seq2seq.run_folder import files as files_module
from seq2seq.run_folder.files import UnwrittenError
from seq2seq.training import disk as disk_module
from seq2seq.training.disk import check_room

WEIGHTS = 1_000_000


def check(folder: Path, free: int | None, monkeypatch: pytest.MonkeyPatch, optimizer: int = 2 * WEIGHTS) -> list[str]:
    told: list[str] = []
    for module in (files_module, disk_module):
        monkeypatch.setattr(module, "free_space", lambda _: free)
    config = TrainingConfig.model_validate({"keep_last": 5, "keep_best": 1})
    check_room(Run(folder), config, WEIGHTS, optimizer, told.append)
    return told


def test_without_room_for_one_checkpoint_and_a_model_training_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UnwrittenError, match=r"checkpoints: no space left.*3\.9 MB free.*free some space"):
        check(tmp_path, 3_900_000, monkeypatch)


def test_where_not_all_may_fit_it_is_told_and_what_is_there_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (told,) = check(tmp_path, 13_900_000, monkeypatch)
    assert "14.0 MB" in told and "13.9 MB are free" in told and "training.keep_last" in told
    (tmp_path / "checkpoints" / "step-00000001").mkdir(parents=True)
    (tmp_path / "checkpoints" / "step-00000001" / "model.safetensors").write_bytes(bytes(100_000))
    assert check(tmp_path, 13_900_000, monkeypatch) == []
    assert check(tmp_path, None, monkeypatch) == []


def test_an_optimizer_that_keeps_less_needs_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check(tmp_path, 10_999_999, monkeypatch, optimizer=WEIGHTS) != []
    assert check(tmp_path, 11_000_000, monkeypatch, optimizer=WEIGHTS) == []
    with pytest.raises(UnwrittenError):
        check(tmp_path, 2_900_000, monkeypatch, optimizer=WEIGHTS)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("Error while serializing: I/O error: No space left on device (os error 28)", "no space left to write it"),
        ("Error while serializing: something else", r"cannot be written \(Error while serializing: something else\)"),
    ],
)
def test_what_safetensors_says_of_a_disk_is_told_as_of_any_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, told: str
) -> None:
    def fail(*_: object) -> None:
        raise safetensors.SafetensorError(said)

    monkeypatch.setattr(safetensors.torch, "save_file", fail)
    with pytest.raises(UnwrittenError, match=rf"model: {told}"):
        files_module.write_tensors(tmp_path / "model", {"a": torch.ones(1)})
    assert list(tmp_path.iterdir()) == []
