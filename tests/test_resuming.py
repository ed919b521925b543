"""What a resumed run may change is what docs/RESUMING.md says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from seq2seq.config import DATA_PATHS, DataConfig, DecodingConfig, TrainingConfig
from seq2seq.files import RunError
from seq2seq.recipe import build_config, dump_config, parse_config
from seq2seq.resuming import (
    HASHED,
    MAY_CHANGE,
    VALIDATED,
    check_changes,
    check_files,
    check_identity,
    settings_hash,
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
    ("settings", "same"),
    [
        ({"training": {"max_steps": 9, "clip_norm": 1.0, "num_threads": 3}}, True),
        ({"decoding": {"beam_size": 9}}, True),
        ({"data": {"train_pairs": "b.tsv", "test_source": "a", "test_target": "b"}}, True),
        ({"training": {"seed": 2}}, False),
        ({"model": {"dropout": 0.2}}, False),
        ({"decoding": {"length_penalty": 2.0}}, False),
        ({"tokenizer": {"vocab_size": 9000}}, False),
        ({"data": {"max_source_length": 99}}, False),
    ],
)
def test_the_hash_of_the_settings_is_of_those_that_may_not_change(settings: dict[str, Any], same: bool) -> None:
    old = build_config({"data": {"train_pairs": "a.tsv"}})
    new = build_config({"data": {"train_pairs": "a.tsv"}, **settings})
    assert (settings_hash(old) == settings_hash(new)) == same
    # As a run keeps it, with every field resolved.
    assert settings_hash(parse_config(dump_config(new), origin="config.toml")) == settings_hash(new)


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

    monkeypatch.setattr("seq2seq.resuming.os.stat", refuse)
    check_files(DataConfig().model_copy(update={"train_source": "locked/train.en"}))
