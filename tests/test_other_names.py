"""What other toolkits call things leads to what there is here."""

from __future__ import annotations

import re
from typing import Any

import pytest
from typer.main import get_command

from seq2seq import cli, other_names
from seq2seq.recipe import SECTIONS, settings_called

COMMANDS: dict[str, Any] = get_command(cli.app).commands  # type: ignore[attr-defined]
NAMED = rf"\b((?:{'|'.join(SECTIONS)})\.[a-z_]+)"


def known(texts: list[str]) -> None:
    """All settings and commands in the texts are there."""
    for text in texts:
        for setting in re.findall(NAMED, text):
            assert setting in settings_called(setting.partition(".")[2])
        for command in re.findall(r"seq2seq (\w+)", text):
            assert command in COMMANDS


def test_what_is_named_is_there() -> None:
    known([*other_names.SETTINGS.values(), *other_names.COMMANDS.values()])
    assert all(re.search(NAMED, ours) for ours in other_names.SETTINGS.values())
    for command in other_names.COMMANDS.values():
        assert re.match(r"[a-z]+", command)[0] in COMMANDS  # type: ignore[index]
    for command, options in other_names.OPTIONS.items():
        ours = {name for option in COMMANDS[command].params for name in option.opts}
        known(list(options.values()))
        for text in options.values():
            assert set(re.findall(r"--[a-z-]+", text)) - {"--format"} <= ours


def test_no_name_of_ours_is_taken_for_another_toolkits() -> None:
    assert not any(map(settings_called, other_names.SETTINGS))
    assert not set(COMMANDS) & set(other_names.COMMANDS)
    for command, options in other_names.OPTIONS.items():
        assert not {name for option in COMMANDS[command].params for name in option.opts} & set(options)


@pytest.mark.parametrize(
    ("name", "ours"),
    [("--max-update", "training.max_steps"), ("Hidden_Size", "model.d_model"), ("lr", other_names.RATE), ("no", None)],
)
def test_settings_are_found_however_they_are_written(name: str, ours: str | None) -> None:
    assert other_names.setting(name) == ours


@pytest.mark.parametrize(
    ("command", "name", "ours"),
    [
        ("translate", "--nbest", "--n-best"), ("translate", "--num_hypotheses", "--n-best"),
        ("translate", "-b", "--beam-size"), ("train", "--nbest", None), ("score", "--nbest", None),
    ],
)  # fmt: skip
def test_options_are_those_of_their_command(command: str, name: str, ours: str | None) -> None:
    assert other_names.option(command, name) == ours
