"""What a run may change when it goes on (`train --resume`), and what must be as it was. docs/RESUMING.md lists it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from typing import Any

from seq2seq.config import DATA_PATHS, Config, DataConfig
from seq2seq.recipe import PATHS, SECTIONS
from seq2seq.run_folder.files import RunError
from seq2seq.text.errors import DataError

# What helps where steps are not finite.
AGAINST_EXPLOSION = {"learning_rate_scale", "clip_norm", "precision"}
# How long, how often, and where it is computed.
MAY_CHANGE = AGAINST_EXPLOSION | {
    "max_steps", "max_epochs", "max_minutes", "validate_every", "save_every", "log_every", "patience", "keep_last",
    "keep_best", "average", "average_checkpoints", "num_threads", "device", "max_skipped_steps", "preflight",
}  # fmt: skip
# Where the files are: hashes in every checkpoint vouch for what is in them.
MOVABLE = {**PATHS, "data": (*PATHS["data"], "downloads")}
# What of [decoding] a validation goes by, and with it which checkpoint is the best and when patience ends. The rest is
# for the finished model.
VALIDATED = {"length_penalty", "length_normalization", "max_extra_length", "max_source_length"}
# What the content hashes of a run are of.
HASHED = {
    "corpus": "data.train_*", "validation": "data.valid_*", "tokenizer": "the run folder's tokenizer",
    "initial_model": "training.init_from",
}  # fmt: skip
SETTINGS = "settings"  # beside them: see `settings_of`


def settings_of(config: Config) -> str:
    """The settings that a run keeps from beginning to end, as JSON, so that a file edited by hand is noticed.

    Of files whose path may change, whether there is one.
    """
    kept: dict[str, Any] = {}
    for section in SECTIONS:
        for name, value in getattr(config, section).model_dump(mode="json").items():
            if name in MOVABLE.get(section, ()):
                if not _may_vanish(name):
                    kept[f"{section}.{name}"] = bool(value)
            elif not _may_change(section, name, value, None):
                kept[f"{section}.{name}"] = value
    return json.dumps(kept)


def check_settings(identity: Mapping[str, str], new: Config) -> None:
    """Raises RunError, naming the field, where a run's config.toml no longer says what the run began with.

    identity: of the run; those of earlier versions say nothing. What only one of two versions has is not compared.
    """
    try:
        before = json.loads(identity.get(SETTINGS, "{}"))
    except (ValueError, RecursionError):
        return
    after = json.loads(settings_of(new))
    for name, value in before.items() if isinstance(before, dict) else ():
        if after.get(name, value) != value:
            section, _, field = name.partition(".")
            now = getattr(getattr(new, section), field)
            began = ("a file" if value else "none") if field in MOVABLE.get(section, ()) else f"{value!r:.60}"
            raise RunError(
                f"--resume: config.toml has {name} = {now!r}, but this run began with {began}: put it back, or start "
                "anew with --overwrite"
            )


def check_files(data: DataConfig) -> None:
    """Raises DataError, naming what helps, where a file that a run began with is no longer there."""
    for name in DATA_PATHS:
        path = getattr(data, name)
        try:
            if path:
                os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            raise DataError(
                f"{path}: no such file; check the path, or, where it has moved, add --set data.{name}=FILE"
            ) from None
        except OSError:
            continue  # there, but not to be read: reading it says why


def check_changes(old: Config, new: Config) -> None:
    """Raises RunError, naming the field, where a run cannot go on with another configuration."""
    for section in SECTIONS:
        before, after = getattr(old, section).model_dump(), getattr(new, section).model_dump()
        for name, value in after.items():
            if before[name] != value and not _may_change(section, name, before[name], value):
                other = ", or, for other text, fine-tune with --init-from" if section == "data" else ""
                raise RunError(
                    f"--resume: {section}.{name} = {value!r}, but this run began with {before[name]!r}: put it back "
                    f"(--run-dir and --resume alone have all as it was){other}, or start anew with --overwrite"
                )


def check_identity(old: Mapping[str, str], new: Mapping[str, str]) -> None:
    """Raises RunError, naming what it is, where a run would go on with data of other content than it began with."""
    for name, value in old.items():
        if name != SETTINGS and new.get(name, value) != value:
            other = (
                "; to go on with other or more text, fine-tune its model with --init-from" if name == "corpus" else ""
            )
            raise RunError(
                f"--resume: the {name} is not the one that this run began with (content of {HASHED.get(name, name)}): "
                f"put it back, or start anew with --overwrite{other}"
            )


def tell_changes(old: Config, new: Config, tell: Callable[[str], None]) -> None:
    """Tells of the changes that make another training of the rest."""
    for name in sorted(AGAINST_EXPLOSION):
        before, after = getattr(old.training, name), getattr(new.training, name)
        if before != after:
            tell(f"resuming with training.{name} = {json.dumps(after)} instead of {json.dumps(before)}")


def _may_change(section: str, name: str, before: object, after: object) -> bool:
    if section == "training" and name not in MOVABLE[section]:
        return name in MAY_CHANGE
    if section == "decoding":
        return name not in VALIDATED
    # Files may have moved. But without its path the validation set, or a given tokenizer, would silently be gone, and
    # a run that began with another one's weights would not say so.
    return name in MOVABLE.get(section, ()) and (_may_vanish(name) or bool(before) == bool(after))


def _may_vanish(name: str) -> bool:
    return name == "downloads" or name.startswith("test_")
