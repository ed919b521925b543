"""Checkpoints of a run folder: each complete or not there, whenever a process ends.

    checkpoints/step-00001000/     model.safetensors optimizer.safetensors state.json

A folder appears under its name by being renamed when all its files are written, and loses the name before any of them
is removed. What does not have such a name (`.saving-*`, `damaged-*`) does not count.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seq2seq.atomic import is_litter, sync, temporary_folder
from seq2seq.errors import unreadable
from seq2seq.run_folder.files import (
    RunError,
    check_space,
    file_hash,
    json_bytes,
    naming,
    read_json,
    read_tensors,
    write_json,
    write_tensors,
)

if TYPE_CHECKING:
    from torch import Tensor

CHECKPOINTS = "checkpoints"
MODEL, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"
# In state.json, the SHA-256 of everything else in it.
STATE_HASH = "state_sha256"
# Besides its tensors: state.json, the tensors' names, and what a file system rounds up to.
OVERHEAD_BYTES = 256 * 1024
# Folders that are being written, and of these the ones that are being replaced or removed.
SAVING, ASIDE = ".saving-", ".saving-old-"
OWN_FOLDER = re.compile(r"(damaged-)?step-\d+")


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint: `path` holds the model, the training state and, in the newest ones, the optimizer."""

    path: Path
    step: int

    def state(self) -> dict[str, Any]:
        state = read_json(self.path / STATE)
        if state.get("step") != self.step or not isinstance(state.get("files"), dict):
            raise RunError(f"{self.path / STATE}: damaged: it does not say what belongs to step {self.step}")
        if not state["files"].keys() <= {MODEL, OPTIMIZER}:  # they are opened; a path may lead anywhere
            raise RunError(f"{self.path / STATE}: damaged: it names files that are not a checkpoint's")
        expected = state.pop(STATE_HASH, None)  # earlier versions wrote none
        if expected is not None and _state_hash(state) != expected:
            raise RunError(f"{self.path / STATE}: damaged: its SHA-256 is not the one in it")
        return state

    def state_identity(self) -> object:
        """What state.json says of the content that the run began with."""
        return self.state().get("identity")

    def model_tensors(self) -> dict[str, Tensor]:
        return self._tensors(MODEL)

    def optimizer_tensors(self) -> dict[str, Tensor]:
        return self._tensors(OPTIMIZER)

    def resumable(self) -> bool:
        return (self.path / OPTIMIZER).exists()

    def verify(self, *names: str) -> None:
        """Raises RunError where a file, of these or of all, does not have the SHA-256 that state.json names."""
        for name, expected in self.state()["files"].items():
            if (not names or name in names) and (self.path / name).exists() and file_hash(self.path / name) != expected:
                raise RunError(f"{self.path / name}: damaged: its SHA-256 is not the one in {STATE}")

    def _tensors(self, name: str) -> dict[str, Tensor]:
        return read_tensors(self.path / name)


class CheckpointFolder:
    """The checkpoints of the run in folder `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def checkpoint_path(self, step: int) -> Path:
        return self.path / CHECKPOINTS / f"step-{step:08d}"

    def save_checkpoint(
        self, step: int, model: Mapping[str, Tensor], optimizer: Mapping[str, Tensor], state: Mapping[str, Any]
    ) -> Checkpoint:
        """Writes a checkpoint beside its place and renames the folder: it is complete or does not exist.

        One of the same step is set aside before: a crash in between leaves both, and `clean` puts it back. Raises
        UnwrittenError, naming the file, where there is no space or it cannot be written.
        """
        final = self.checkpoint_path(step)
        check_space(final, tensor_bytes(model) + tensor_bytes(optimizer) + OVERHEAD_BYTES)
        with naming(final):
            if not final.parent.exists():
                final.parent.mkdir()
                sync(self.path)
            temporary = temporary_folder(final.parent, SAVING)
        try:
            write_tensors(temporary / MODEL, model, named=final / MODEL)
            write_tensors(temporary / OPTIMIZER, optimizer, named=final / OPTIMIZER)
            files = {name: file_hash(temporary / name) for name in (MODEL, OPTIMIZER)}
            content = {**state, "step": step, "files": files}
            write_json(temporary / STATE, {**content, STATE_HASH: _state_hash(content)}, named=final / STATE)
            with naming(final):
                aside = _set_aside(final) if final.exists() else None
                os.replace(temporary, final)
                sync(final.parent)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            self._put_back()
            raise
        if aside is not None:
            shutil.rmtree(aside, ignore_errors=True)
        return Checkpoint(final, step)

    def checkpoints(self) -> list[Checkpoint]:
        """Complete checkpoints, oldest first. Raises RunError where their folder cannot be read."""
        found = []
        folder = self.path / CHECKPOINTS
        try:
            names = os.listdir(folder)
        except (FileNotFoundError, NotADirectoryError):
            names = []
        except OSError as error:
            raise RunError(unreadable(folder, error)) from None
        for path in (folder / name for name in names if name.startswith("step-")):
            with contextlib.suppress(ValueError):
                step = int(path.name.removeprefix("step-"))
                if _complete(path):
                    found.append(Checkpoint(path, step))
        return sorted(found, key=lambda checkpoint: checkpoint.step)

    def latest_checkpoint(self) -> Checkpoint | None:
        """The newest checkpoint from which training can go on."""
        resumable = [checkpoint for checkpoint in self.checkpoints() if checkpoint.resumable()]
        return resumable[-1] if resumable else None

    def newest_sound_checkpoint(self, report: Callable[[str], None]) -> Checkpoint | None:
        """The newest checkpoint from which training can go on and whose files have the hashes that it names.

        Newer ones that are damaged are reported, a line each, and renamed to `damaged-step-*`: left in place, they
        would be averaged or resumed from later. Raises RunError where there are damaged ones only.
        """
        damaged: list[tuple[Checkpoint, RunError]] = []
        for checkpoint in reversed(self.checkpoints()):
            if not checkpoint.resumable():
                continue
            try:
                checkpoint.verify()
            except RunError as error:
                damaged.append((checkpoint, error))
                continue
            for broken, damage in damaged:
                renamed = _rename_damaged(broken)
                report(f"{damage}; going back to step {checkpoint.step:,}, the folder is now {renamed.name}")
            return checkpoint
        if damaged:
            raise RunError(f"{damaged[0][1]}; {self._no_way_on(damaged[-1][0].step)}")
        return None

    def _no_way_on(self, step: int) -> str:
        """What is left where no checkpoint from `step` on is sound, as the end of a message."""
        weights = [str(checkpoint.step) for checkpoint in self.checkpoints() if checkpoint.step < step]
        if not weights:
            return "no earlier checkpoint is sound: start anew with --overwrite"
        return (
            f"the earlier ones (steps {', '.join(weights)}) have weights and no optimizer, and training cannot go on "
            f"from them: to keep them, copy {self.path / CHECKPOINTS} elsewhere; then start anew with --overwrite"
        )

    def sound_checkpoints(self, report: Callable[[str], None]) -> list[Checkpoint]:
        """The checkpoints whose weights have the hash that they name, oldest first.

        The others are reported, a line each, and renamed to `damaged-step-*`. Raises RunError where there are damaged
        ones only, and leaves them as they are.
        """
        sound, damaged = [], []
        for checkpoint in self.checkpoints():
            try:
                checkpoint.verify(MODEL)
            except RunError as error:
                damaged.append((checkpoint, error))
            else:
                sound.append(checkpoint)
        if damaged and not sound:
            raise RunError(f"{damaged[-1][1]}; no other checkpoint is sound: start anew with --overwrite")
        for broken, damage in damaged:
            renamed = _rename_damaged(broken)
            report(f"{damage}; the final model is made without it, and the folder is now {renamed.name}")
        return sound

    def prune_checkpoints(self, keep: set[int], *, resumable: int = 2) -> None:
        """Removes all checkpoints but those of the given steps, and optimizers of all but the newest `resumable`."""
        kept = []
        for checkpoint in self.checkpoints():
            if checkpoint.step in keep:
                kept.append(checkpoint)
            else:
                shutil.rmtree(_set_aside(checkpoint.path), ignore_errors=True)
        for checkpoint in kept[:-resumable]:
            (checkpoint.path / OPTIMIZER).unlink(missing_ok=True)

    def foreign(self) -> Path | None:
        """The first thing among the checkpoints that no run wrote, or the folder of them where it is a file."""
        folder = self.path / CHECKPOINTS
        if folder.exists() and not folder.is_dir():
            return folder
        for entry in sorted(folder.glob("*")):
            if entry.name.startswith(SAVING) or is_litter(entry.name):
                continue
            if not OWN_FOLDER.fullmatch(entry.name) or not entry.is_dir():
                return entry
            for file in sorted(entry.glob("*")):
                if file.name not in (MODEL, OPTIMIZER, STATE) and not is_litter(file.name):
                    return file
        return None

    def clean_checkpoints(self) -> None:
        """Removes what an interrupted save or removal left behind; puts back what only lacks its replacement."""
        self._put_back()
        for path in (self.path / CHECKPOINTS).glob(f"{SAVING}*"):
            shutil.rmtree(path, ignore_errors=True)
        for path in (self.path / CHECKPOINTS).glob("step-*"):
            if path.name.removeprefix("step-").isdecimal() and not _complete(path):
                shutil.rmtree(path, ignore_errors=True)

    def _put_back(self) -> None:
        """Gives complete checkpoints that were set aside their place again, where nothing has taken it."""
        folder = self.path / CHECKPOINTS
        for aside in folder.glob(f"{ASIDE}*"):
            place = folder / aside.name.removeprefix(ASIDE)
            if _complete(aside) and not place.exists():
                os.replace(aside, place)


def tensor_bytes(tensors: Mapping[str, Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def _state_hash(state: Mapping[str, Any]) -> str | None:
    """Of what state.json says, however it is laid out; the same before it is written and after it is read."""
    try:
        return hashlib.sha256(json_bytes(json.loads(json_bytes(state)))).hexdigest()
    except (ValueError, RecursionError):  # half a character, lists in lists without end: nothing that was written here
        return None


def _complete(checkpoint: Path) -> bool:
    return (checkpoint / STATE).exists() and (checkpoint / MODEL).exists()


def _rename_damaged(checkpoint: Checkpoint) -> Path:
    renamed = checkpoint.path.with_name(f"damaged-{checkpoint.path.name}")
    shutil.rmtree(renamed, ignore_errors=True)
    os.replace(checkpoint.path, renamed)
    return renamed


def _set_aside(checkpoint: Path) -> Path:
    """Renames a checkpoint so that it does not count any more; returns the folder, which is to be removed."""
    aside = checkpoint.with_name(f"{ASIDE}{checkpoint.name}")
    shutil.rmtree(aside, ignore_errors=True)
    os.replace(checkpoint, aside)
    return aside
