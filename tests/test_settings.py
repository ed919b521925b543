"""Every setting is told of, once, and the page about them is up to date."""

from __future__ import annotations

from pathlib import Path

import pytest

from seq2seq.config import Config
from seq2seq.recipe import SECTIONS, build_config
from seq2seq.settings import document, meanings


@pytest.mark.parametrize("name", SECTIONS)
def test_every_setting_says_what_it_means(name: str) -> None:
    section = type(getattr(Config(), name))
    told = meanings(section)
    assert told.keys() == section.model_fields.keys()
    assert all(len(text) > 10 and text.endswith((".", ")")) for text in told.values())


def test_the_page_about_settings_is_what_the_code_says() -> None:
    page = Path(__file__).parents[1] / "docs" / "SETTINGS.md"
    assert page.read_text(encoding="utf-8") == document(), "python -m seq2seq.settings > docs/SETTINGS.md"


def test_every_table_of_the_page_has_one_head() -> None:
    lines = document().splitlines()
    heads = [i for i, line in enumerate(lines) if line.startswith("| setting |")]
    assert len(heads) == len(SECTIONS) + 1
    assert all(lines[i - 1] == "" and lines[i + 1].startswith("|---|") for i in heads)


def test_the_table_of_presets_has_what_they_set() -> None:
    rows = [line.split("|") for line in document().partition("## Presets")[2].splitlines() if line.startswith("| `")]
    tiny = {row[1].strip(" `"): row[2].strip(" `") for row in rows}
    config = build_config({"training": {"max_steps": 1}}, preset="tiny")
    assert tiny["model.d_model"] == str(config.model.d_model) == "128"
    assert tiny["training.optimizer"].strip('"') == config.training.optimizer == "muon"
