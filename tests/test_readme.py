"""What the README shows works as it stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from seq2seq.recipe import load_config

README = Path(__file__).parents[1].joinpath("README.md").read_text(encoding="utf-8")
OTHER_CORPORA = re.findall(r"^\|[^|]*\| (`(?:train_pairs|dataset) = .*) \|$", README, re.MULTILINE)


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("code", blocks("python"))
def test_the_examples_in_python_run(
    code: str, tiny_run: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "runs/m30k" in code
    monkeypatch.chdir(tiny_run.corpus)
    exec(compile(code.replace("runs/m30k", "runs/recipe"), "README.md", "exec"), {})
    assert capsys.readouterr().out.strip()


def test_the_readme_has_what_is_tested_here() -> None:
    assert (len(blocks("python")), len(OTHER_CORPORA)) == (2, 4)


def test_the_recipe_is_one(tmp_path: Path) -> None:
    [recipe] = blocks("toml")
    (tmp_path / "recipe.toml").write_text(recipe, encoding="utf-8")
    config = load_config(tmp_path / "recipe.toml")
    assert config.data.train_source == str(tmp_path / "train.en")
    assert (config.training.max_minutes, config.training.seed) == (20, 7)


@pytest.mark.parametrize("row", OTHER_CORPORA)
def test_the_settings_of_other_corpora_exist(row: str, tmp_path: Path) -> None:
    lines = [setting for setting in re.findall(r"`([^`]*)`", row) if " = " in setting]
    (tmp_path / "other.toml").write_text("\n".join(["[data]", *lines]), encoding="utf-8")
    data = load_config(tmp_path / "other.toml").data
    assert data.train_pairs or data.dataset
