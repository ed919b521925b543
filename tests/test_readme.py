"""What the README shows works as it stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from seq2seq.cli import app
from seq2seq.recipe import load_config

ROOT = Path(__file__).parents[1]
README = ROOT.joinpath("README.md").read_text(encoding="utf-8")
OTHER_CORPORA = re.findall(r"^\|[^|]*\| (`(?:train_pairs|dataset) = .*) \|$", README, re.MULTILINE)


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("code", blocks("python"))
def test_the_examples_in_python_run(
    code: str, tiny_run: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "runs/mine" in code
    monkeypatch.chdir(tiny_run.corpus)
    exec(compile(code.replace("runs/mine", "runs/recipe"), "README.md", "exec"), {})
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


DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "experiments").rglob("*.md")])
PAGES = [path for path in DOCUMENTS if path.name != "DECISIONS.md"]


def anchors(path: Path) -> set[str]:
    """What headings can be linked to, as they are where such pages are shown."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = path.parent / name if name else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_options_of_commands_exist(path: Path) -> None:
    """Of every `seq2seq COMMAND ...` that a page shows."""
    commands = get_command(app).commands  # type: ignore[attr-defined]
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    for command, arguments in re.findall(r"seq2seq ([a-z][a-z-]+)((?: [^\n`|]*)?)", text):
        if command not in commands:
            continue  # prose
        known = {option for parameter in commands[command].params for option in parameter.opts} | {"--help"}
        given = set(re.findall(r"(?<=\s)--[a-z][a-z-]*", arguments.split("#")[0]))
        assert given <= known, f"seq2seq {command}{arguments}"
