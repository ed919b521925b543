"""Killed anywhere or on a full disk, a resumed run ends as one that was left in peace, to the bit.

A kill is played within this process: at one of its changes to the disk the training raises, and from then on nothing of
it reaches the disk, as after SIGKILL; every kind of change is tried. Real kills are those of `seq2seq verify-resume`
(tests/test_verifying.py) and of experiments/crash-safety.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from helpers import Listener

from seq2seq import pipeline
from seq2seq.config import Config
from seq2seq.errors import UserError
from seq2seq.recipe import build_config
from seq2seq.run import Run
from seq2seq.verifying import fingerprints

resource = pytest.importorskip("resource", reason="limits on file sizes are POSIX")

CHANGES = ("replace", "fsync", "unlink", "rmdir", "mkdir", "chmod", "truncate", "rename")
WORDS = ["cat", "dog", "mouse", "horse", "bird", "frog"]


class Killed(BaseException):
    """The process ends here."""


class Disk:
    """Counts changes to the disk; from number `last` on, none is let through any more."""

    def __init__(self, patch: pytest.MonkeyPatch, last: int | None = None) -> None:
        self.count, self.last = 0, last
        for name in CHANGES:
            patch.setattr(os, name, self.watched(getattr(os, name)))

    def watched(self, change: Callable[..., Any]) -> Callable[..., Any]:
        def changing(*arguments: Any, **options: Any) -> Any:
            self.count += 1
            if self.last is not None and self.count >= self.last:
                raise Killed
            return change(*arguments, **options)

        return changing


@dataclass
class Whole:
    """A training that nothing happened to, and how often it changed something on the disk."""

    config: Config
    folder: Path
    changes: int


pytestmark = pytest.mark.usefixtures("the_machine_as_it_was", "without_curves")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder = tmp_path_factory.mktemp("whole")
    lines = [f"{a} sees {b} and {c}" for a in WORDS for b in WORDS for c in WORDS[:3]]
    paths = {}
    for name, some in (("train", lines), ("valid", lines[::20])):
        for side in ("source", "target"):
            path = folder / f"{name}.{side}"
            path.write_text("".join(f"{line.upper() if side == 'target' else line}\n" for line in some))
            paths[f"{name}_{side}"] = str(path)
    config = build_config(
        {
            "data": paths,
            "tokenizer": {"vocab_size": 60, "sample_source": 0.1},
            "model": {"d_model": 8, "num_heads": 2, "d_ff": 8, "num_encoder_layers": 1, "num_decoder_layers": 1},
            "training": {
                "max_steps": 9, "batch_tokens": 400, "warmup_steps": 3, "log_every": 2, "validate_every": 4,
                "save_every": 3, "keep_last": 2, "average_checkpoints": 2, "num_threads": 1, "device": "cpu",
                "precision": "fp32", "patience": 5,
            },
            "decoding": {"beam_size": 1, "max_extra_length": 3},
        }
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "seq2seq.stages.curves", None)
        disk = Disk(patch)
        pipeline.train(config, folder / "run", Listener())
    return Whole(config, folder / "run", disk.count)


def assert_same(whole: Whole, folder: Path) -> None:
    assert fingerprints(Run.open(folder)) == fingerprints(Run.open(whole.folder))
    assert not {name for name in os.listdir(folder) if name.startswith(".")}, "something was left behind"
    assert sorted(os.listdir(folder / "checkpoints")) == sorted(os.listdir(whole.folder / "checkpoints"))


def kill(config: Config, folder: Path, change: int) -> bool:
    """Goes on until the given change to the disk; returns whether it came so far."""
    with pytest.MonkeyPatch.context() as patch:
        Disk(patch, change)
        try:
            pipeline.train(config, folder, Listener(), resume=True)
        except Killed:
            return True
    return False


def test_killed_at_any_change_to_the_disk_it_ends_the_same(whole: Whole, tmp_path: Path) -> None:
    """Some of them, from the first to the last: all take a minute, and went well when this was written."""
    for change in range(1, whole.changes - 3, 16):
        folder = tmp_path / f"at-{change}"
        assert kill(whole.config, folder, change)
        pipeline.train(whole.config, folder, Listener(), resume=True)
        assert_same(whole, folder)


def test_killed_again_and_again_it_ends_the_same(whole: Whole, tmp_path: Path) -> None:
    """Also while it cleans up after a kill, and soon after it went on."""
    kills = 0
    for change in (3, 60, 2, 45, 7, 66, 70, 11):
        kills += kill(whole.config, tmp_path / "run", change)
    assert kills >= 6
    pipeline.train(whole.config, tmp_path / "run", Listener(), resume=True)
    assert_same(whole, tmp_path / "run")


def test_a_full_disk_is_told_in_one_line_and_loses_nothing(whole: Whole, tmp_path: Path) -> None:
    """A limit on the size of files stands for it, one just too small for each file that a run writes."""
    sizes = {path.stat().st_size for path in whole.folder.rglob("*") if path.is_file()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    failed = []
    for number, size in enumerate(sorted(sizes)[::-2]):  # from the largest on: that is an optimizer
        folder = tmp_path / str(number)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1, hard))
        try:
            pipeline.train(whole.config, folder, Listener())
        except UserError as error:
            failed.append(str(error))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        for checkpoint in Run(folder).checkpoints():
            checkpoint.verify()
        pipeline.train(whole.config, folder, Listener(), resume=True)
        assert_same(whole, folder)
    assert len(failed) == len(sizes) - len(sizes) // 2
    for message in failed:
        assert "\n" not in message and str(tmp_path) in message and "no space left" in message
        assert ".tmp" not in message and ".saving" not in message
    assert any("then continue from step" in message and "--resume`" in message for message in failed)


def test_a_finished_run_says_so_and_is_left_as_it_is(whole: Whole) -> None:
    def tree() -> dict[Path, tuple[int, bytes]]:
        files = (path for path in whole.folder.rglob("*") if path.is_file())
        return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}

    before, told = tree(), Listener()
    outcome = pipeline.train(whole.config, whole.folder, told, resume=True)
    assert outcome.state.step == 9
    (message,) = told.messages
    assert "finished already, at step 9" in message
    assert tree() == before


def test_a_damaged_model_of_a_finished_run_is_made_anew(whole: Whole, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole.folder, folder)
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    assert not Run(folder).sound()
    pipeline.train(whole.config, folder, Listener(), resume=True)
    assert_same(whole, folder)


def test_another_corpus_is_refused_before_there_is_a_checkpoint(whole: Whole, tmp_path: Path) -> None:
    """Otherwise the first run's tokenizer would go with the second corpus."""
    shutil.copytree(whole.folder, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    for name in ("model.json", "model.safetensors"):  # it is not finished
        (tmp_path / "run" / name).unlink()
    other = tmp_path / "other.source"
    other.write_text(Path(whole.config.data.train_source).read_text().replace("frog", "toad"))
    data = whole.config.data.model_copy(update={"train_source": str(other)})
    changed = whole.config.model_copy(update={"data": data})
    with pytest.raises(UserError, match="the corpus is not the one that this run began with"):
        pipeline.train(changed, tmp_path / "run", Listener(), resume=True)


@pytest.mark.parametrize(("name", "value"), [("length_penalty", 1.0), ("max_extra_length", 9)])
def test_what_validation_depends_on_may_not_change(whole: Whole, name: str, value: float) -> None:
    decoding = whole.config.decoding.model_copy(update={name: value})
    changed = whole.config.model_copy(update={"decoding": decoding})
    with pytest.raises(UserError, match=rf"--resume: decoding\.{name} = {value}, but this run began with"):
        pipeline.train(changed, whole.folder, Listener(), resume=True)
