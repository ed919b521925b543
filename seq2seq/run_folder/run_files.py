"""What in a folder belongs to a run: the names of its files, whether a run wrote them, and how they are removed.

A folder may hold files of the user that have such a name: a README.md, a recipe that is called config.toml, a folder
with checkpoints of another program. A run neither replaces nor removes them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tomllib
from pathlib import Path
from typing import Any

from seq2seq.atomic import left_behind
from seq2seq.config import ConfigError
from seq2seq.recipe import dump_config, parse_config
from seq2seq.run_folder.checkpoints import CHECKPOINTS, MODEL, OPTIMIZER, STATE, CheckpointFolder
from seq2seq.run_folder.files import RunError, read_bytes, read_json
from seq2seq.run_folder.model_card import is_card
from seq2seq.text.tokenizer import SHARED_FILE, SOURCE_FILE, TARGET_FILE
from seq2seq.untrusted import check_links

CONFIG, MODEL_INFO = "config.toml", "model.json"
METRICS, CARD, CURVES = "metrics.jsonl", "README.md", "curves.png"
IDENTITY = "identity.json"
SOURCE_HASHES = "training_sources.safetensors"
RUN_FILES = (
    MODEL_INFO, MODEL, METRICS, CARD, SOURCE_HASHES, SHARED_FILE, SOURCE_FILE, TARGET_FILE, CURVES, CONFIG,
    IDENTITY,
)  # fmt: skip
MOST = 0.8  # of all settings: a run's configuration has as many, also that of an earlier version
# What a run has written before its configuration, the identity first.
BEGINNING = (IDENTITY, SHARED_FILE, SOURCE_FILE, TARGET_FILE, SOURCE_HASHES)
# Hidden: a folder `corpus` beside a run may be the user's own.
CORPUS, LOCK, REMOVED = ".corpus", ".lock", ".removed-checkpoints"
CHECKPOINT_FILES = (MODEL, OPTIMIZER, STATE)


def holds_run(path: Path) -> bool:
    """Whether a folder holds a run, or what is left of one.

    Any of its files will do, so that a run in which others are damaged is still known for one.
    """
    if (path / CONFIG).exists() and (_is_resolved(path / CONFIG) or _has_begun(path)):
        return True
    return _is_model_info(path / MODEL_INFO) or _has_checkpoint(path)


def check_place(path: Path, *, overwrite: bool) -> None:
    """Raises RunError where a run in this folder would replace what no run wrote, or, unless `overwrite`, a run."""
    checkpoints = CheckpointFolder(path)
    if holds_run(path):
        if not overwrite:
            raise RunError(f"{path} holds a run already: continue it with --resume, or replace it with --overwrite")
        if foreign := checkpoints.foreign():
            raise RunError(
                f"{foreign}: is no part of the run, and --overwrite would remove it: move it elsewhere, or choose "
                "another folder with --run-dir"
            )
        return
    own = BEGINNING if _has_begun(path) else ()  # of a start that was killed
    for name in (*RUN_FILES, CHECKPOINTS):
        if (path / name).exists() and name not in own:
            taken = checkpoints.foreign() if name == CHECKPOINTS else None
            raise RunError(f"{taken or path / name}: a run would replace it: choose another folder with --run-dir")


def _is_resolved(config: Path) -> bool:
    """Whether it is a configuration as a run writes it, with all settings: a recipe names only some."""
    try:
        text = read_bytes(config).decode("utf-8")
        every = tomllib.loads(dump_config(parse_config(text, origin=str(config))))
        given = tomllib.loads(text)
    except (RunError, ConfigError, ValueError):
        return False
    return _settings(given) >= MOST * _settings(every)


def _settings(config: dict[str, Any]) -> int:
    return sum(len(section) for section in config.values() if isinstance(section, dict))


def _has_begun(path: Path) -> bool:
    """Whether a run wrote the identity.json of a folder."""
    try:
        identity = read_json(path / IDENTITY)
    except RunError:
        return False
    return all(isinstance(identity.get(name), str) for name in ("corpus", "tokenizer"))


def _is_model_info(path: Path) -> bool:
    try:
        info = read_json(path)
    except RunError:
        return False
    return "format_version" in info and isinstance(files := info.get("files"), dict) and MODEL in files


def _has_checkpoint(path: Path) -> bool:
    for checkpoint in CheckpointFolder(path).checkpoints():
        with contextlib.suppress(RunError):
            checkpoint.state()
            return True
    return False


def check_run_links(path: Path) -> None:
    """Raises UntrustedError where something of a run folder is a link out of it: it may be a stranger's."""
    check_links(path, (*RUN_FILES, CORPUS, LOCK, CHECKPOINTS, REMOVED))
    check_links(path / CORPUS, [entry.name for entry in (path / CORPUS).glob("*")])
    folders = [folder.name for folder in (path / CHECKPOINTS).glob("*")]
    check_links(path / CHECKPOINTS, folders)
    check_links(path / CHECKPOINTS, [f"{folder}/{name}" for folder in folders for name in CHECKPOINT_FILES])


def remove_run(path: Path) -> None:
    """Removes the files of a run and nothing else that may lie in the folder.

    Not the prepared corpus, which may be open and goes when training ends, nor a README.md of the user's. The
    checkpoints go first and all at once, the configuration and then the identity last: whenever this is interrupted,
    what is left is a run, without checkpoints or with all, or what a killed start leaves.
    """
    removed = path / REMOVED
    shutil.rmtree(removed, ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):
        os.replace(path / CHECKPOINTS, removed)
    shutil.rmtree(removed, ignore_errors=True)
    for own in (*temporary_files(path), *(path / name for name in RUN_FILES)):
        if own.name != CARD or is_card(own):
            own.unlink(missing_ok=True)


def temporary_files(path: Path) -> list[Path]:
    """What writers that were killed left in a run folder."""
    return [left for name in RUN_FILES for left in left_behind(path, name)]
