"""The run folder: whole or not at all, damaged files named, nothing removed that is not the run's."""

from __future__ import annotations

import errno
import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import message_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from seq2seq.config import Config, ModelConfig, TokenizerConfig
from seq2seq.errors import UserError
from seq2seq.model.layers import FeedForward
from seq2seq.recipe import build_config
from seq2seq.run import FORMAT_VERSION, Run
from seq2seq.run_folder import checkpoints as checkpoints_module
from seq2seq.run_folder import files as files_module
from seq2seq.run_folder import run_files
from seq2seq.run_folder.checkpoints import Checkpoint
from seq2seq.run_folder.files import (
    RunError,
    file_hash,
    locked,
    read_json,
    read_tensors,
    replacing,
    write_atomic,
    write_json,
    write_tensors,
)
from seq2seq.run_folder.weights import build_model, load_weights
from seq2seq.text.tokenizer import Tokenizer

SMALL = {"d_model": 16, "num_heads": 2, "d_ff": 24, "num_encoder_layers": 1, "num_decoder_layers": 1}
LINES = [f"the {a} {b} sees {c}" for a, b, c in itertools.product(["big", "old"], ["cat", "dog"], ["mice", "birds"])]
in_one_folder = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@pytest.fixture(scope="module")
def tokenizers() -> dict[bool, Tokenizer]:
    """With and without a shared vocabulary."""
    targets = [line.upper() for line in LINES]
    return {
        shared: Tokenizer.learn(TokenizerConfig(vocab_size=40, shared=shared), LINES, targets, seed=1)
        for shared in (True, False)
    }


def make_config(**model: object) -> Config:
    return build_config({"model": {**SMALL, **model}})


@pytest.fixture
def finished(tmp_path: Path, tokenizers: dict[bool, Tokenizer]) -> Run:
    """A finished run with a checkpoint, a line of metrics and hashes of training sources."""
    run, config, tokenizer = Run.create(tmp_path / "run"), make_config(), tokenizers[True]
    run.write_config(config)
    run.write_tokenizer(tokenizer)
    model = build_model(config, tokenizer)
    run.append_metrics({"step": 1, "loss": 2.5})
    run.save_checkpoint(1, model.state_dict(), {"moment": torch.ones(3)}, {"metrics_size": run.sync_metrics()})
    run.write_source_hashes({name: np.arange(3) for name in ("exact", "normalized")})
    run.write_model(model.state_dict(), {"identity": {"tokenizer": tokenizer.content_hash()}})
    return run


def fails(work: Callable[[], object], *parts: str) -> str:
    return message_of(RunError, work, *parts)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too, and its content."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 0xFF
    path.write_bytes(content)


# Making, opening, replacing


def test_a_run_is_made_with_its_parents_and_can_then_be_opened(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "a" / "first"
    assert not Run.exists(path)
    run = Run.create(path)
    assert not Run.exists(path)  # an empty folder holds no run
    run.write_config(make_config())
    assert Run.exists(path)
    assert Run.open(path).config() == make_config()


def test_opening_what_is_no_run_says_what_to_do(tmp_path: Path) -> None:
    fails(lambda: Run.open(tmp_path / "none"), "none: no such run folder", "seq2seq train")
    checkpoint = tmp_path / "run" / "checkpoints" / "step-00000005"
    checkpoint.mkdir(parents=True)
    (checkpoint / "state.json").write_text("{}")
    fails(lambda: Run.open(checkpoint), f"it is a checkpoint of {tmp_path / 'run'}: name that")
    fails(lambda: Run.open(tmp_path), "not a run folder", "config.toml")
    (tmp_path / "file").touch()
    fails(lambda: Run.open(tmp_path / "file"), "file: is a file; the folder of a run is expected there")


def test_a_run_is_not_taken_unasked(finished: Run) -> None:
    before = tree(finished.path)
    fails(lambda: Run.create(finished.path), "holds a run already", "--resume", "--overwrite")
    assert tree(finished.path) == before


NAMES = ("config.toml", "model.safetensors", "model.json", "metrics.jsonl", "checkpoints", "tokenizer.model",
         "source.model", "identity.json", "curves.png", "README.md")  # fmt: skip
RECIPE = "[data]\ntrain_pairs = 'mine.tsv'\n"


@pytest.mark.parametrize(
    "own",
    [
        *({name: ""} for name in NAMES),
        {"README.md": "my project", "notes.txt": "mine"},
        {"config.toml": "[x]"},
        {"config.toml": RECIPE},
        {"checkpoints/mine.ckpt": "mine"},
        {"checkpoints/step-100/model.safetensors": "mine", "checkpoints/step-100/state.json": "{}"},
        {"model.json": '{"layers": 6}'},
        {"identity.json": '{"name": "me"}', "tokenizer.model": "mine"},
    ],
    ids=str,
)
def test_what_no_run_wrote_is_neither_replaced_nor_removed(tmp_path: Path, own: dict[str, str]) -> None:
    for name, content in own.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content, encoding="utf-8")
    before = tree(tmp_path)
    assert not Run.exists(tmp_path)
    for create in (Run.create, lambda path: Run.create(path, overwrite=True)):
        named = fails(partial(create, tmp_path), "a run would replace it", "--run-dir")
        assert any(named.startswith(f"{tmp_path / name}: ") for name in (*own, "checkpoints"))
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("notes.txt", "notes.txt"),
        ("best/model.pt", "best"),
        ("step-00000001/notes.txt", "step-00000001/notes.txt"),
        ("step-by-step/1.txt", "step-by-step"),
    ],
)
def test_what_no_run_wrote_among_its_checkpoints_is_not_removed(finished: Run, name: str, named: str) -> None:
    folder = finished.path / "checkpoints"
    for own in ("damaged-step-00000007", ".saving-abc"):
        (folder / own).mkdir()
        (folder / own / "state.json").touch()
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"mine")
    before = tree(finished.path)
    fails(lambda: Run.create(finished.path, overwrite=True), f"{folder / named}: is no part of the run", "move it")
    assert tree(finished.path) == before
    (folder / named).rename(finished.path / "elsewhere")
    Run.create(finished.path, overwrite=True)
    assert [path.name for path in finished.path.iterdir()] == ["elsewhere"]


@pytest.mark.parametrize("kept", ["config.toml", "model.json", "checkpoints", "identity.json"])
def test_a_run_of_which_little_is_sound_can_still_be_replaced(finished: Run, kept: str) -> None:
    finished.write_identity({"corpus": "1", "tokenizer": "2"})
    for path in finished.path.iterdir():
        if path.is_file() and path.name != kept:
            path.write_bytes(b"damaged")
    if kept != "checkpoints":
        (finished.checkpoints()[0].path / "state.json").write_bytes(b"damaged")
    fails(lambda: Run.create(finished.path), "holds a run already")
    Run.create(finished.path, overwrite=True)
    assert tree(finished.path) == {}


def test_overwriting_removes_the_runs_own_files_and_nothing_else(finished: Run) -> None:
    others = {"notes.txt": b"mine", "corpus/train.en": b"mine", "data.toml": b"mine", "sub/config.toml": b"mine"}
    for name, content in others.items():
        (finished.path / name).parent.mkdir(exist_ok=True)
        (finished.path / name).write_bytes(content)
    for name in ("curves.png", "source.model", "target.model", ".model.safetensors.123.tmp"):
        (finished.path / name).touch()
    (finished.path / "README.md").write_text("# A translator from en to de\n", encoding="utf-8")
    Run.create(finished.path, overwrite=True)
    assert tree(finished.path) == others
    (finished.path / "README.md").write_text("# Mine\n", encoding="utf-8")
    run_files.remove_run(finished.path)
    assert tree(finished.path) == {**others, "README.md": b"# Mine\n"}
    assert not Run.exists(finished.path)


def test_a_run_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    remedy = "choose another folder with --run-dir"
    fails(lambda: Run.create(tmp_path / "file"), "file: the run folder cannot be made: it is a file", remedy)
    fails(lambda: Run.create(tmp_path / "file" / "run"), "file/run: the run folder cannot be made", remedy)


def test_one_kind_of_tokenizer_takes_the_place_of_the_other(tmp_path: Path, tokenizers: dict[bool, Tokenizer]) -> None:
    run = Run.create(tmp_path)
    for shared in (True, False, True):
        run.write_tokenizer(tokenizers[shared])
        assert run.tokenizer().content_hash() == tokenizers[shared].content_hash()
        assert len(list(tmp_path.glob("*.model"))) == (1 if shared else 2)


# One writer

HOLDING = """
import os, sys
from pathlib import Path
from seq2seq.run import Run

with Run(Path(sys.argv[1])).locked():
    print("held", flush=True)
    sys.stdin.read()
    os._exit(9)
"""


def test_a_run_has_one_writer_and_the_lock_is_no_part_of_it(tmp_path: Path) -> None:
    run = Run(tmp_path)
    with run.locked():
        assert not Run.exists(tmp_path)
        before = tree(tmp_path)
        fails(lambda: run.locked().__enter__(), str(tmp_path), "another training")
        assert tree(tmp_path) == before
    assert tree(tmp_path) == {}
    with run.locked():
        pass


def test_a_process_that_died_holds_no_lock(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDING, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        fails(lambda: Run(tmp_path).locked().__enter__(), f"another training (process {process.pid})")
        process.communicate(timeout=300)
    assert (tmp_path / ".lock").exists()
    with Run(tmp_path).locked():
        pass


def test_a_lock_file_that_its_last_holder_removes_meanwhile_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, flock, calls = tmp_path / ".lock", files_module.fcntl.flock, itertools.count(1)

    def removed_before(descriptor: int, operation: int) -> None:
        if next(calls) == 1:
            path.unlink()
        flock(descriptor, operation)

    monkeypatch.setattr(files_module.fcntl, "flock", removed_before)
    with locked(path, "refused"):
        fails(lambda: locked(path, "refused").__enter__(), "refused")


def test_where_nothing_can_be_locked_training_goes_on_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(files_module.fcntl, "flock", fail)
    with locked(tmp_path / ".lock", "refused"):
        pass
    fails(lambda: locked(tmp_path / "none" / ".lock", "refused").__enter__(), "none/.lock", "cannot be written")


# Whole files or none


def test_a_file_is_written_whole_and_readable_by_others(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in (b"first", b"", b"second" * 1000):
        write_atomic(path, content)
        assert path.read_bytes() == content
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("before", [None, b"old"])
@pytest.mark.parametrize("call", ["replace", "fsync", "chmod"])
def test_a_write_that_fails_leaves_what_was_there_and_no_temporary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, before: bytes | None
) -> None:
    path = tmp_path / "file"
    if before is not None:
        path.write_bytes(before)

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files_module.os, call, fail)
    fails(lambda: write_atomic(path, b"new"), f"{path}: ", "No space left on device", "free some space")
    assert tree(tmp_path) == ({} if before is None else {"file": before})


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("a defect")])
def test_whatever_goes_wrong_while_writing_leaves_no_temporary(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)), replacing(tmp_path / "file") as temporary:
        temporary.write_bytes(b"half")
        raise error
    assert tree(tmp_path) == {}


def test_writing_into_a_missing_folder_names_the_file(tmp_path: Path) -> None:
    fails(lambda: write_atomic(tmp_path / "no" / "file", b""), "no/file: cannot be written")
    fails(lambda: write_tensors(tmp_path / "no" / "file", {"a": torch.ones(1)}), "no/file: cannot be written")


FULL_DISK = """
import resource, sys
from pathlib import Path
import torch
from seq2seq.errors import UserError
from seq2seq.run_folder.files import write_atomic
from seq2seq.run import Run

folder = Path(sys.argv[1])
run = Run(folder)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
big = {"weight": torch.ones(10_000)}
for work in (
    lambda: write_atomic(folder / "config.toml", b"x" * 10_000),
    lambda: run.write_model(big, {}),
    lambda: run.save_checkpoint(2, big, {}, {}),
):
    try:
        work()
    except UserError as error:
        print(error)
"""


def test_a_full_disk_is_named_and_leaves_the_run_as_it_was(finished: Run) -> None:
    before = tree(finished.path)
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(finished.path)], capture_output=True, text=True, timeout=300, check=True
    )
    config, model, checkpoint = done.stdout.splitlines()
    assert config.startswith(f"{finished.path}/config.toml: no space left")
    assert model.startswith(f"{finished.path}/model.safetensors: no space left")
    assert checkpoint.startswith(f"{finished.path}/checkpoints/step-00000002/model.safetensors: no space left")
    assert tree(finished.path) == before
    assert Run(finished.path).latest_checkpoint() == Checkpoint(finished.path / "checkpoints/step-00000001", 1)


def test_a_model_is_not_finished_until_its_description_is_there(finished: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    replace, calls = os.replace, itertools.count(1)

    def second_fails(source: Path, target: Path) -> None:
        if next(calls) == 2:
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", second_fails)
    with pytest.raises(KeyboardInterrupt):
        finished.write_model({"weight": torch.ones(2)}, {})
    assert not finished.finished()
    assert not finished.sound()


# Metrics


def test_metrics_come_back_line_by_line_and_are_cut_at_a_checkpoint(tmp_path: Path) -> None:
    run = Run.create(tmp_path)
    assert run.sync_metrics() == 0
    assert list(run.metrics()) == []
    run.cut_metrics(0)
    run.append_metrics({"step": 1})
    size = run.sync_metrics()
    run.append_metrics({"step": 2})
    assert list(run.metrics()) == [{"step": 1}, {"step": 2}]
    run.cut_metrics(size)
    assert list(run.metrics()) == [{"step": 1}]
    run.cut_metrics(10**6)  # a checkpoint of a run whose metrics were cut by hand
    run.append_metrics({"step": 3})
    assert list(run.metrics()) == [{"step": 1}, {"step": 3}]


def test_lines_of_metrics_that_a_crash_left_unfinished_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1}\n{"ste\n\xff\n3\n\n{"step": 2}\n{"step": 3')
    assert list(Run(tmp_path).metrics()) == [{"step": 1}, {"step": 2}]


# Checkpoints


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(tmp_path / "run")


def save(run: Run, step: int) -> Checkpoint:
    return run.save_checkpoint(step, {"weight": torch.full((2,), step)}, {"moment": torch.zeros(2)}, {"epoch": step})


def test_a_checkpoint_gives_back_what_was_saved(run: Run) -> None:
    state = {"epoch": 3, "best_bleu": 0.1 + 0.2, "validations": [{"step": 1, "valid_bleu": None}]}
    tensors = {"a": torch.randn(3, 2), "b": torch.tensor([1, 2, 3])}
    checkpoint = run.save_checkpoint(1234, tensors, {"moment": torch.randn(4)}, state)
    assert checkpoint.path == run.path / "checkpoints" / "step-00001234"
    again = Run(run.path).latest_checkpoint()
    assert again is not None
    assert again.step == 1234
    assert {**again.state(), "files": None} == {**state, "step": 1234, "files": None}
    for name, tensor in again.model_tensors().items():
        assert torch.equal(tensor, tensors[name])
        assert tensor.dtype == tensors[name].dtype
    again.verify()


def test_checkpoints_are_in_the_order_of_their_steps(run: Run) -> None:
    for step in (100_000_000, 9, 10):
        save(run, step)
    assert [checkpoint.step for checkpoint in run.checkpoints()] == [9, 10, 100_000_000]


def test_the_checkpoint_of_a_step_can_be_saved_again(run: Run) -> None:
    save(run, 5)
    run.save_checkpoint(5, {"weight": torch.zeros(1)}, {}, {})
    (checkpoint,) = run.checkpoints()
    assert checkpoint.model_tensors()["weight"].tolist() == [0.0]
    assert [path.name for path in (run.path / "checkpoints").iterdir()] == ["step-00000005"]


@pytest.mark.parametrize("writer", ["write_tensors", "write_json", "file_hash", "sync"])
@pytest.mark.parametrize("call", [1, 2])
def test_a_checkpoint_is_complete_or_not_there(
    run: Run, monkeypatch: pytest.MonkeyPatch, writer: str, call: int
) -> None:
    save(run, 1)
    module = checkpoints_module
    before, original, calls = tree(run.path), getattr(module, writer), itertools.count(1)

    def fail(*arguments: object, **options: object) -> object:
        if next(calls) == call:
            raise KeyboardInterrupt
        return original(*arguments, **options)

    monkeypatch.setattr(module, writer, fail)
    try:
        save(run, 2)
    except KeyboardInterrupt:
        if writer == "sync":  # of the folder, when the checkpoint has its name already: it is complete
            run.checkpoints()[-1].verify()
        else:
            assert tree(run.path) == before
    else:
        assert writer in ("write_json", "sync")  # which are called once only
        assert len(run.checkpoints()) == 2


def test_what_an_interrupted_save_left_is_ignored_and_cleaned_away(run: Run) -> None:
    save(run, 1)
    before = tree(run.path)
    left = run.path / "checkpoints" / ".saving-abc"
    left.mkdir()
    for name in ("model.safetensors", "state.json"):
        (left / name).write_bytes((run.checkpoints()[0].path / name).read_bytes())
    (run.path / ".model.json.4711.tmp").write_bytes(b"half")
    (run.path / ".mine.tmp").write_bytes(b"mine")
    assert [checkpoint.step for checkpoint in run.checkpoints()] == [1]
    run.clean()
    assert tree(run.path) == {**before, ".mine.tmp": b"mine"}


class Crash(BaseException):
    """The process ends here."""


def crash_at_removing(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on nothing is removed, as after a kill: not even by what cleans up."""

    def fail(path: Path, **_: object) -> None:
        if path.exists():
            raise Crash

    monkeypatch.setattr(checkpoints_module.shutil, "rmtree", fail)


def test_a_crash_while_a_checkpoint_is_saved_again_loses_neither(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    save(run, 1)
    before, replace, calls = tree(run.path), os.replace, itertools.count(1)

    def second_is_a_crash(source: Path, target: Path) -> None:
        if target.parent.name == "checkpoints" and next(calls) >= 2:  # the old one is aside, the new one not in place
            crash_at_removing(monkeypatch)
            raise Crash
        replace(source, target)

    monkeypatch.setattr(checkpoints_module.os, "replace", second_is_a_crash)
    with pytest.raises(Crash):
        save(run, 1)
    monkeypatch.undo()
    assert run.checkpoints() == []
    run.clean()
    assert tree(run.path) == before


def test_a_crash_after_a_checkpoint_was_saved_again_leaves_the_new_one(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(run, 1)
    crash_at_removing(monkeypatch)
    with pytest.raises(Crash):
        run.save_checkpoint(1, {"weight": torch.full((2,), 7.0)}, {"moment": torch.zeros(2)}, {})
    monkeypatch.undo()
    assert len(os.listdir(run.path / "checkpoints")) == 2
    run.clean()
    assert os.listdir(run.path / "checkpoints") == ["step-00000001"]
    assert run.checkpoints()[0].model_tensors()["weight"].tolist() == [7.0, 7.0]


def test_a_checkpoint_that_is_half_removed_does_not_count(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in (1, 2):
        save(run, step)

    def half(path: Path, **_: object) -> None:
        if path.exists():
            (path / "model.safetensors").unlink()
            raise Crash

    monkeypatch.setattr(checkpoints_module.shutil, "rmtree", half)
    with pytest.raises(Crash):
        run.prune_checkpoints({2})
    monkeypatch.undo()
    assert [checkpoint.step for checkpoint in run.checkpoints()] == [2]
    run.clean()
    assert os.listdir(run.path / "checkpoints") == ["step-00000002"]


@pytest.mark.parametrize("missing", ["model.safetensors", "state.json"])
def test_cleaning_sweeps_incomplete_checkpoints_and_nothing_else(run: Run, missing: str) -> None:
    save(run, 1)
    (save(run, 2).path / missing).unlink()
    (run.path / "checkpoints" / "step-by-step").mkdir()
    run.clean()
    assert sorted(os.listdir(run.path / "checkpoints")) == ["step-00000001", "step-by-step"]


def test_a_damaged_checkpoint_gives_way_to_the_one_before(run: Run) -> None:
    for step in (1, 2, 3, 4):
        save(run, step)
    (run.checkpoint_path(1) / "optimizer.safetensors").unlink()
    flip(run.checkpoint_path(3) / "model.safetensors", -1)
    flip(run.checkpoint_path(4) / "optimizer.safetensors", -1)
    told: list[str] = []
    assert run.newest_sound_checkpoint(told.append) == Checkpoint(run.checkpoint_path(2), 2)
    assert len(told) == 2
    for step, line in zip((4, 3), told, strict=True):
        assert str(run.checkpoint_path(step)) in line and "going back to step 2" in line and "\n" not in line
    # Neither is averaged, resumed from, or in the way of the one that is saved at its step.
    assert [checkpoint.step for checkpoint in run.checkpoints()] == [1, 2]
    assert run.newest_sound_checkpoint(told.append) == Checkpoint(run.checkpoint_path(2), 2)
    assert len(told) == 2
    flip(save(run, 4).path / "model.safetensors", -1)
    assert run.newest_sound_checkpoint(told.append) == Checkpoint(run.checkpoint_path(2), 2)


def test_a_state_of_which_a_digit_changed_is_damaged(run: Run) -> None:
    """Valid JSON with the right step: only its hash tells."""
    for step in (1, 2):
        run.save_checkpoint(step, {"weight": torch.ones(2)}, {"moment": torch.ones(2)}, {"epoch": 3, "rate": 0.1 + 0.2})
    path = run.checkpoint_path(2) / "state.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"epoch": 3', '"epoch": 5'), encoding="utf-8")
    fails(run.checkpoints()[1].state, "step-00000002/state.json: damaged", "SHA-256")
    told: list[str] = []
    assert run.newest_sound_checkpoint(told.append) == Checkpoint(run.checkpoint_path(1), 1)
    assert len(told) == 1 and "going back to step 1" in told[0]


def test_a_checkpoint_that_does_not_fit_is_refused_before_anything_is_written(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(run, 1)
    before = tree(run.path)
    monkeypatch.setattr(files_module, "free_space", lambda _: 1000)
    message = fails(lambda: save(run, 2), "checkpoints/step-00000002: no space left", "1.0 kB free", "free some space")
    assert ".saving" not in message
    assert tree(run.path) == before


def test_a_model_that_does_not_fit_leaves_the_one_before(finished: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    before = tree(finished.path)
    monkeypatch.setattr(files_module, "free_space", lambda _: 1000)
    fails(lambda: finished.write_model({"weight": torch.ones(9)}, {}), "run/model.safetensors: no space left")
    assert tree(finished.path) == before and finished.sound()


def test_replacing_a_run_that_is_interrupted_leaves_no_checkpoints_or_all(
    finished: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise Crash

    monkeypatch.setattr(Path, "unlink", fail)
    with pytest.raises(Crash):
        Run.create(finished.path, overwrite=True)
    monkeypatch.undo()
    assert finished.checkpoints() == []
    assert (finished.path / "config.toml").exists()  # so that it can be resumed, or replaced once more
    Run.create(finished.path, overwrite=True)
    assert tree(finished.path) == {}


def test_metrics_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").mkdir()
    fails(lambda: Run(tmp_path).append_metrics({"step": 1}), "metrics.jsonl: cannot be written")


def test_where_all_checkpoints_are_damaged_none_is_touched(run: Run) -> None:
    assert run.newest_sound_checkpoint(pytest.fail) is None
    for step in (1, 2):
        flip(save(run, step).path / "model.safetensors", -1)
    before = tree(run.path)
    fails(lambda: run.newest_sound_checkpoint(pytest.fail), "step-00000002", "no earlier checkpoint", "--overwrite")
    assert tree(run.path) == before


def test_weights_from_which_nothing_can_go_on_are_told_of(run: Run) -> None:
    for step in (1, 2, 3):
        save(run, step)
    run.prune_checkpoints({1, 2, 3}, resumable=1)
    flip(run.checkpoint_path(3) / "model.safetensors", -1)
    before = tree(run.path)
    told = "step-00000003", "steps 1, 2", "no optimizer", "--overwrite"
    fails(lambda: run.newest_sound_checkpoint(pytest.fail), *told)
    assert tree(run.path) == before


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_files_and_folders_have_the_permissions_of_any_new_ones(run: Run, umask: int) -> None:
    before = os.umask(umask)
    try:
        save(run, 1)
        run.write_config(Config())
    finally:
        os.umask(before)
    folder = run.checkpoint_path(1)
    assert folder.stat().st_mode & 0o777 == 0o777 & ~umask
    for path in (*folder.iterdir(), run.path / "config.toml"):
        assert path.stat().st_mode & 0o777 == 0o666 & ~umask


def test_checkpoints_that_may_not_be_read_are_not_taken_for_none(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the advice would be to start anew, over them."""
    save(run, 1)

    def forbidden(path: Path) -> list[str]:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(checkpoints_module.os, "listdir", forbidden)
    fails(run.latest_checkpoint, "checkpoints: may not be read; check its permissions")


@pytest.mark.parametrize("missing", ["model.safetensors", "state.json"])
def test_an_incomplete_checkpoint_is_not_one(run: Run, missing: str) -> None:
    save(run, 1)
    (save(run, 2).path / missing).unlink()
    (run.path / "checkpoints" / "step-x").mkdir()
    assert [checkpoint.step for checkpoint in run.checkpoints()] == [1]
    latest = run.latest_checkpoint()
    assert latest is not None
    assert latest.step == 1


def test_pruning_keeps_the_steps_asked_for_and_the_newest_optimizers(run: Run) -> None:
    for step in range(1, 7):
        save(run, step)
    run.prune_checkpoints({1, 3, 5, 6})
    assert [checkpoint.step for checkpoint in run.checkpoints()] == [1, 3, 5, 6]
    assert [checkpoint.resumable() for checkpoint in run.checkpoints()] == [False, False, True, True]
    run.checkpoints()[0].verify()  # an optimizer that was removed on purpose is no damage
    latest = run.latest_checkpoint()
    assert latest is not None
    assert latest.step == 6
    run.prune_checkpoints(set())
    assert run.checkpoints() == []
    assert run.latest_checkpoint() is None


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors"])
@pytest.mark.parametrize("position", [0, 20, -1])
def test_a_checkpoint_with_a_flipped_byte_does_not_verify(run: Run, name: str, position: int) -> None:
    checkpoint = save(run, 1)
    checkpoint.verify()
    flip(checkpoint.path / name, position)
    fails(checkpoint.verify, f"step-00000001/{name}", "SHA-256")


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b'{"step": 1}', b'{"step": 2, "files": {}}', b'{"step": 1, "files": 3}', b"\xff"],
)
def test_a_damaged_state_is_named(run: Run, content: bytes) -> None:
    checkpoint = save(run, 1)
    (checkpoint.path / "state.json").write_bytes(content)
    fails(checkpoint.state, "step-00000001/state.json: ")
    fails(checkpoint.verify, "step-00000001/state.json: ")


# Damage


@given(st.data())
@in_one_folder
def test_a_flipped_byte_in_the_model_is_always_found(finished: Run, data: st.DataObject) -> None:
    path = finished.path / "model.safetensors"
    content = path.read_bytes()
    try:
        flip(path, data.draw(st.integers(0, len(content) - 1)))
        fails(finished.load_model, f"{path}: damaged")
    finally:
        path.write_bytes(content)


@given(st.data())
@in_one_folder
def test_mutilated_tensors_are_read_or_refused_but_never_worse(finished: Run, data: st.DataObject) -> None:
    whole = (finished.path / "model.safetensors").read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    path = finished.path / "mutilated.safetensors"
    content = bytearray(whole[: data.draw(st.just(len(whole)) | st.integers(0, len(whole)))])
    for _ in range(data.draw(st.integers(0, 3))):
        if content:
            content[data.draw(st.integers(0, min(len(content), header) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        tensors = read_tensors(path)
    except RunError as error:
        assert str(path) in str(error)
        assert "\n" not in str(error)
    else:
        assert all(isinstance(tensor, Tensor) for tensor in tensors.values())


not_digits = st.binary(max_size=4).filter(lambda content: not any(48 <= byte <= 57 for byte in content))


@given(st.data())
@in_one_folder
def test_a_mutilated_description_is_read_or_refused_but_never_worse(finished: Run, data: st.DataObject) -> None:
    path = finished.path / data.draw(st.sampled_from(["model.json", "config.toml", "tokenizer.model"]))
    content = path.read_bytes()
    position = data.draw(st.integers(0, len(content) - 1))
    # No digits, and no end: what is left of a configuration could ask for a model of gigabytes.
    rest = b"" if path.name != "config.toml" and data.draw(st.booleans()) else content[position:]
    try:
        path.write_bytes(content[:position] + data.draw(not_digits) + rest)
        finished.load_model()
    except RunError as error:
        assert str(finished.path) in str(error)
        assert "\n" not in str(error)
    finally:
        path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("model.json", b"", "not valid JSON"),
        ("model.json", b"[1]", "not a JSON object"),
        ("model.json", b'{"a": ' + b"9" * 5000 + b"}", "not valid JSON"),
        ("model.json", b"[" * 100_000, "not valid JSON"),
        ("model.json", b'{"format_version": 1}', "which files"),
        ("model.json", b'{"format_version": 1, "files": []}', "which files"),
        ("model.json", b'{"format_version": 1, "files": {}, "identity": 3}', "which files"),
        ("model.json", b"{}", "damaged: it has no format_version"),
        ("model.safetensors", b"", "damaged"),
        ("config.toml", b"[model", "not valid TOML"),
        ("config.toml", b"\xff", "not UTF-8"),
        ("config.toml", b"[model]\nd_modle = 3", "d_modle"),
        ("tokenizer.model", b"", "tokenizer"),
        ("tokenizer.model", b"not a model", "tokenizer"),
    ],
)
def test_a_damaged_file_is_named(finished: Run, name: str, content: bytes, part: str) -> None:
    (finished.path / name).write_bytes(content)
    fails(finished.load_model, f"{finished.path}", name.split(".")[0], part)


@pytest.mark.parametrize("name", ["model.safetensors", "model.json", "config.toml", "tokenizer.model"])
def test_a_missing_file_is_told(finished: Run, name: str) -> None:
    (finished.path / name).unlink()
    fails(finished.load_model, str(finished.path))


def test_another_network_than_was_trained_is_found_out(finished: Run) -> None:
    info, config = read_json(finished.path / "model.json"), finished.config()
    write_json(finished.path / "model.json", {**info, "model": config.model.model_dump(mode="json")})
    finished.load_model()
    before = config.model.activation
    other = config.model.model_copy(update={"activation": "gelu", "dropout": 0.25})
    assert before != "gelu"
    finished.write_config(config.model_copy(update={"model": other}))
    fails(finished.load_model, "config.toml: model.activation = 'gelu'", f"the model has {before!r}", "put it back")
    finished.write_config(config.model_copy(update={"model": other.model_copy(update={"activation": before})}))
    finished.load_model()  # dropout is nothing to a trained model


def test_a_tokenizer_of_another_run_is_found_out(finished: Run) -> None:
    other = Tokenizer.learn(TokenizerConfig(vocab_size=40), LINES[::-1], LINES, seed=2)
    finished.write_tokenizer(other)
    fails(finished.load_model, "tokenizer", "not the one")


@pytest.mark.parametrize("version", [FORMAT_VERSION + 1, "1", None, 1.5])
def test_a_run_of_a_newer_format_is_refused(finished: Run, version: object) -> None:
    write_json(finished.path / "model.json", {**read_json(finished.path / "model.json"), "format_version": version})
    fails(finished.load_model, "model.json: format_version = ", "newer seq2seq")


def test_a_run_without_a_finished_model_says_how_to_continue(finished: Run) -> None:
    (finished.path / "model.json").unlink()
    message = fails(finished.load_model, "no finished model", "at step 1)")
    assert f"seq2seq train --run-dir {finished.path} --resume" in message


def test_a_run_without_anything_says_how_to_continue(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "a run")
    run.write_config(make_config())
    message = fails(run.load_model, "no finished model")
    assert f"seq2seq train --run-dir '{run.path}' --resume" in message
    assert "at step" not in message


# Hashes of the training sources


def test_source_hashes_come_back_and_may_be_missing(finished: Run) -> None:
    hashes = finished.source_hashes()
    assert hashes is not None
    assert {name: array.tolist() for name, array in hashes.items()} == {"exact": [0, 1, 2], "normalized": [0, 1, 2]}
    (finished.path / "training_sources.safetensors").unlink()
    assert finished.source_hashes() is None


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"\xff" * 100])
def test_damaged_source_hashes_are_named(finished: Run, content: bytes) -> None:
    (finished.path / "training_sources.safetensors").write_bytes(content)
    fails(finished.source_hashes, "training_sources.safetensors: cannot be read")


def test_source_hashes_of_another_kind_are_refused(finished: Run) -> None:
    save_file({"exakt": torch.ones(1)}, finished.path / "training_sources.safetensors")
    fails(finished.source_hashes, "training_sources.safetensors: damaged", "'exakt'", "'normalized'")


# Weights


@pytest.mark.parametrize("positions", ["sinusoidal", "learned"])
@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize(
    ("tied", "shared"),
    [
        ("all", True),
        ("target", True),
        ("none", True),
        ("auto", True),
        ("target", False),
        ("none", False),
        ("auto", False),
    ],
)
def test_weights_come_back_bit_for_bit(
    tmp_path: Path, tokenizers: dict[bool, Tokenizer], tied: str, shared: bool, norm: str, positions: str
) -> None:
    model_values = {**SMALL, "tied_embeddings": tied, "norm": norm, "positions": positions}
    config = build_config({"model": model_values, "tokenizer": {"shared": shared}})
    run = Run.create(tmp_path)
    run.write_config(config)
    run.write_tokenizer(tokenizers[shared])
    torch.manual_seed(3)
    model = build_model(config, tokenizers[shared])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter))
        model.target_embedding[0, :4] = torch.tensor([-0.0, 3.4e38, 1e-45, -1e-38])
    run.write_model(model.state_dict(), {})
    loaded = Run.open(tmp_path).load_model()
    assert not loaded.training
    expected = model.state_dict()
    assert loaded.state_dict().keys() == expected.keys()
    for name, tensor in loaded.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor.view(torch.int32), expected[name].view(torch.int32)), name
    same = loaded.source_embedding is loaded.target_embedding, loaded.output_weight is loaded.target_embedding
    assert same == (tied == "all" or (tied == "auto" and shared), tied != "none")


def test_a_parameter_that_shapes_do_not_list_is_named_before_it_is_trained(
    tokenizers: dict[bool, Tokenizer], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = FeedForward.__init__

    def with_gate(self: FeedForward, config: ModelConfig) -> None:
        made(self, config)
        self.gate_weight = torch.nn.Parameter(torch.ones(2, 2))

    monkeypatch.setattr(FeedForward, "__init__", with_gate)
    fails(lambda: build_model(make_config(), tokenizers[True]), "seq2seq/model/shapes.py lists", "gate_weight")


def test_weights_that_do_not_fit_are_named(tokenizers: dict[bool, Tokenizer]) -> None:
    model = build_model(make_config(), tokenizers[True])
    tensors = model.state_dict()
    first, last = sorted(tensors)[0], sorted(tensors)[-1]
    fails(lambda: load_weights(model, {**tensors, "extra": torch.ones(1)}, "file"), "file: ", "extra")
    for name in (first, last):
        fails(
            lambda name=name: load_weights(model, {k: v for k, v in tensors.items() if k != name}, "file"),
            "lacks",
            name,
        )
        wrong = {**tensors, name: torch.ones(2, 3, 4)}
        fails(
            lambda name=name, wrong=wrong: load_weights(model, wrong, "file"),
            name,
            "(2, 3, 4)",
            str(tuple(tensors[name].shape)),
        )
    load_weights(model, tensors, "file")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(finished: Run, value: float) -> None:
    tensors = dict(read_tensors(finished.path / "model.safetensors"))
    name = sorted(tensors)[-1]
    tensors[name].view(-1)[-1] = value
    finished.write_model(tensors, {"identity": {}})
    fails(finished.load_model, f"{finished.path}/model.safetensors: {name}", "not finite")


def test_a_model_older_than_the_newest_checkpoint_is_remarked_on(finished: Run) -> None:
    assert finished.remark() is None  # it does not say how long it was trained
    tensors = finished.load_model().state_dict()
    finished.write_model(tensors, {"training": {"steps": 1}})
    assert finished.remark() is None
    save(finished, 5)
    finished.load_model()
    remark = finished.remark()
    assert remark is not None and "\n" not in remark
    for part in ("step 1,", "step 5:", f"seq2seq train --run-dir {finished.path} --resume"):
        assert part in remark


def test_weights_for_another_configuration_are_refused_by_name(finished: Run) -> None:
    finished.write_config(make_config(d_ff=32))
    fails(finished.load_model, "model.safetensors: ", "feed_forward", "the configuration says")
    finished.write_config(make_config(num_encoder_layers=2))
    fails(finished.load_model, "model.safetensors: lacks the tensor encoder_layers.1.")


def test_nothing_is_pickled(finished: Run) -> None:
    for name, content in tree(finished.path).items():
        assert not name.endswith((".pt", ".pth", ".pkl", ".bin"))
        assert not content.startswith((b"\x80\x02", b"\x80\x04", b"PK\x03\x04")), name


def test_errors_of_a_run_are_the_users_to_mend() -> None:
    assert issubclass(RunError, UserError)
    assert RunError.exit_code == 1


def test_the_hash_of_a_file_is_its_sha256(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    assert file_hash(tmp_path / "file") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    fails(lambda: file_hash(tmp_path / "none"), "none: cannot be read")
    assert os.listdir(tmp_path) == ["file"]
