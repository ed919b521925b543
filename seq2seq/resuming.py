"""What a run may change when it goes on (`train --resume`), and what must be as it was. docs/RESUMING.md lists it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping

from seq2seq.config import DATA_PATHS, Config, DataConfig, DecodingConfig
from seq2seq.files import RunError
from seq2seq.text.errors import DataError

# What helps where steps are not finite.
REMEDIES = {"learning_rate_scale", "clip_norm", "precision"}
# How long, how often, and where it is computed.
MAY_CHANGE = REMEDIES | {
    "max_steps", "max_epochs", "max_minutes", "validate_every", "save_every", "log_every", "patience", "keep_last",
    "keep_best", "average", "average_checkpoints", "num_threads", "device", "max_skipped_steps", "preflight",
}  # fmt: skip
# Where the files are: hashes in every checkpoint vouch for what is in them.
PATHS = {
    "data": {*DATA_PATHS, "downloads"}, "tokenizer": {"source_model", "target_model"}, "training": {"init_from"},
}  # fmt: skip
# What of [decoding] a validation goes by, and with it which checkpoint is the best and when patience ends. The rest is
# for the finished model.
VALIDATED = {"length_penalty", "length_normalization", "max_extra_length", "max_source_length"}
# What the content hashes of a run are of.
HASHED = {
    "corpus": "data.train_*", "validation": "data.valid_*", "tokenizer": "the run folder's tokenizer",
    "initial_model": "training.init_from", "configuration": "config.toml: what no resumed run may change",
}  # fmt: skip


def settings_hash(config: Config) -> str:
    """SHA-256 of the settings that a run keeps from beginning to end, so that a file edited by hand is noticed.

    Of those that are not the default: a later version may have more, and runs are the same without them.
    """
    may_change_in: dict[str, set[str]] = {
        "data": PATHS["data"],
        "tokenizer": PATHS["tokenizer"],
        "model": set(),
        "training": MAY_CHANGE | PATHS["training"],
        "decoding": set(DecodingConfig.model_fields) - VALIDATED,
    }
    settings = {
        section: getattr(config, section).model_dump(mode="json", exclude_defaults=True, exclude=may_change)
        for section, may_change in may_change_in.items()
    }
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


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
    for section in ("data", "tokenizer", "model", "training", "decoding"):
        before, after = getattr(old, section).model_dump(), getattr(new, section).model_dump()
        for name, value in after.items():
            if before[name] != value and not _may_change(section, name, before[name], value):
                raise RunError(
                    f"--resume: {section}.{name} = {value!r}, but this run began with {before[name]!r}: put it back "
                    "(--run-dir and --resume alone have all as it was), or start anew with --overwrite"
                )


def check_identity(old: Mapping[str, str], new: Mapping[str, str]) -> None:
    """Raises RunError, naming what it is, where a run would go on with data of other content than it began with."""
    for name, value in old.items():
        if new.get(name, value) != value:
            raise RunError(
                f"--resume: the {name} is not the one that this run began with (content of {HASHED.get(name, name)}): "
                "put it back, or start anew with --overwrite"
            )


def tell_changes(old: Config, new: Config, tell: Callable[[str], None]) -> None:
    """Tells of the changes that make another training of the rest."""
    for name in sorted(REMEDIES):
        before, after = getattr(old.training, name), getattr(new.training, name)
        if before != after:
            tell(f"resuming with training.{name} = {json.dumps(after)} instead of {json.dumps(before)}")


def _may_change(section: str, name: str, before: object, after: object) -> bool:
    if section == "training" and name not in PATHS[section]:
        return name in MAY_CHANGE
    if section == "decoding":
        return name not in VALIDATED
    # Files may have moved. But without its path the validation set, or a given tokenizer, would silently be gone, and
    # a run that began with another one's weights would not say so.
    may_vanish = name == "downloads" or name.startswith("test_")
    return name in PATHS.get(section, ()) and (may_vanish or bool(before) == bool(after))
