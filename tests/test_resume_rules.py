"""What a resumed run may change is what docs/RESUMING.md says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from seq2seq.config import DATA_PATHS, DataConfig, DecodingConfig, TrainingConfig
from seq2seq.recipe import build_config, dump_config, parse_config
from seq2seq.run_folder.files import RunError
from seq2seq.run_folder.resume_rules import (
    HASHED,
    MAY_CHANGE,
    SETTINGS,
    VALIDATED,
    check_changes,
    check_files,
    check_identity,
    check_settings,
    settings_of,
)
from seq2seq.text.errors import DataError

DOCS = Path(__file__).parents[1] / "docs" / "RESUMING.md"


def test_the_documentation_lists_exactly_what_may_change() -> None:
    section = DOCS.read_text(encoding="utf-8").split("## What may change")[1].split("\n## ")[0]
    listed, _, decoding = section.partition("- in `[decoding]`")
    fields = {name for line in listed.splitlines() if line.startswith("- ") for name in re.findall(r"`(\w+)`", line)}
    assert fields == MAY_CHANGE
    assert set(re.findall(r"`(\w+)`", decoding.split("\n- paths")[0])) == VALIDATED


def test_what_is_listed_are_fields() -> None:
    assert TrainingConfig.model_fields.keys() >= MAY_CHANGE
    assert DecodingConfig.model_fields.keys() >= VALIDATED


def test_what_does_not_bear_on_validation_may_change() -> None:
    old = build_config({"data": {"train_pairs": "a.tsv"}})
    check_changes(old, build_config({"data": {"train_pairs": "b.tsv"}, "decoding": {"beam_size": 9}}))
    with pytest.raises(RunError, match=r"--resume: decoding\.length_penalty = 2\.0, but this run began with 0\.6"):
        check_changes(old, build_config({"data": {"train_pairs": "a.tsv"}, "decoding": {"length_penalty": 2.0}}))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"training": {"max_steps": 9, "clip_norm": 1.0, "num_threads": 3}}, None),
        ({"decoding": {"beam_size": 9}}, None),
        ({"data": {"train_pairs": "b.tsv", "test_source": "a", "test_target": "b"}}, None),
        ({"training": {"seed": 2}}, "training.seed = 2, but this run began with 1"),
        ({"model": {"dropout": 0.2}}, "model.dropout = 0.2, but this run began with 0.1"),
        ({"decoding": {"length_penalty": 2.0}}, "decoding.length_penalty = 2.0, but"),
        ({"tokenizer": {"vocab_size": 9000}}, "tokenizer.vocab_size = 9000, but"),
        ({"data": {"valid_pairs": ""}}, "data.valid_pairs = '', but this run began with a file"),
        ({"training": {"init_from": "runs/a"}}, "training.init_from = 'runs/a', but this run began with none"),
    ],
)
def test_a_configuration_that_was_edited_is_found_out(settings: dict[str, Any], told: str | None) -> None:
    base = {"train_pairs": "a.tsv", "valid_pairs": "v.tsv"}
    old = build_config({"data": base})
    new = build_config({**settings, "data": {**base, **settings.get("data", {})}})
    # As a run keeps it, with every field resolved.
    kept = {SETTINGS: settings_of(parse_config(dump_config(old), origin="config.toml"))}
    check_settings(kept, old)
    if told is None:
        check_settings(kept, new)
        return
    with pytest.raises(RunError, match=rf"config\.toml has {re.escape(told)}.*put it back"):
        check_settings(kept, new)


def test_what_only_one_version_knows_is_not_compared() -> None:
    config = build_config({"data": {"train_pairs": "a.tsv"}})
    known = json.loads(settings_of(config))
    del known["training.seed"]
    known["training.fortune"] = 7
    check_settings({SETTINGS: json.dumps(known)}, build_config({"training": {"seed": 3}, "data": {"train_pairs": "a"}}))
    for nothing in ({}, {SETTINGS: "{"}, {SETTINGS: "[]"}):
        check_settings(nothing, config)


@pytest.mark.parametrize("name", HASHED)
def test_other_content_is_refused_by_name(name: str) -> None:
    old = dict.fromkeys(HASHED, "a")
    check_identity({}, old)
    check_identity(old, {})
    check_identity(old, old)
    with pytest.raises(RunError, match=f"the {name} is not the one that this run began with") as caught:
        check_identity(old, {**old, name: "b"})
    assert HASHED[name] in str(caught.value) and "--overwrite" in str(caught.value)


@pytest.mark.parametrize("name", DATA_PATHS)
def test_a_file_that_is_no_longer_there_is_told_with_the_option_that_helps(tmp_path: Path, name: str) -> None:
    here = tmp_path / "here"
    here.write_text("", encoding="utf-8")
    data = DataConfig().model_copy(update={other: str(here) for other in DATA_PATHS})
    check_files(data)
    gone = data.model_copy(update={name: str(tmp_path / "gone")})
    with pytest.raises(DataError, match=rf"gone: no such file; .* --set data\.{name}=FILE$"):
        check_files(gone)


def test_a_file_that_is_there_and_cannot_be_reached_is_left_to_the_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> None:
        raise PermissionError

    monkeypatch.setattr("seq2seq.run_folder.resume_rules.os.stat", refuse)
    check_files(DataConfig().model_copy(update={"train_source": "locked/train.en"}))
