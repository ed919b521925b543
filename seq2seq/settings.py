"""What every setting means, read from config.py, where it stands below each field. Makes docs/SETTINGS.md."""

from __future__ import annotations

import ast
import inspect
from typing import Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from seq2seq import config
from seq2seq.presets import PRESETS
from seq2seq.recipe import SECTIONS, toml_text

HEAD = """# Settings

Every setting of a recipe, with its default. `python -m seq2seq.settings > docs/SETTINGS.md` makes this page from
[`seq2seq/config.py`](../seq2seq/config.py). A preset changes the defaults (last table), a recipe changes the preset,
`--set SECTION.KEY=VALUE` changes the recipe; `seq2seq train --print-config` prints what comes of it. What a run may
change when it goes on is in [RESUMING.md](RESUMING.md#what-may-change-and-what-may-not).
"""


def meanings(section: type[BaseModel]) -> dict[str, str]:
    """What stands below each field of a section of the configuration, in one line."""
    [body] = ast.parse(inspect.getsource(section)).body
    assert isinstance(body, ast.ClassDef)
    found = {}
    for field, text in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
            found[field.target.id] = " ".join(str(ast.literal_eval(text.value)).split())
    return found


def document() -> str:
    """docs/SETTINGS.md."""
    parts = [HEAD]
    for name in SECTIONS:
        section = config.Config.model_fields[name].annotation
        assert isinstance(section, type) and issubclass(section, BaseModel)
        told = meanings(section)
        rows = [
            f"| `{key}` | {_default(field)} | {_cell(told[key])}{_choices(field)} |"
            for key, field in section.model_fields.items()
        ]
        parts.append("\n".join([f"## [{name}]", "", "| setting | default | |", "|---|---|---|", *rows]) + "\n")
    parts.append("\n".join(["## Presets", "", "An empty cell is the default.", "", *_presets()]))
    return "\n".join(parts) + "\n"


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is None or value == ():
        return ""
    return f"`{toml_text(value)}`"


def _choices(field: FieldInfo) -> str:
    """The values that a setting may have, where they are few."""
    values = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    return f" One of {', '.join(f'`{value}`' for value in values)}." if values else ""


def _presets() -> list[str]:
    named = dict.fromkeys(
        (section, key) for preset in PRESETS.values() for section, fields in preset.items() for key in fields
    )
    rows = [f"| setting | {' | '.join(f'`{one}`' for one in PRESETS)} |", "|---|" + "---|" * len(PRESETS)]
    for section, key in named:
        values = [preset.get(section, {}).get(key) for preset in PRESETS.values()]
        cells = " | ".join("" if value is None else f"`{toml_text(value)}`" for value in values)
        rows.append(f"| `{section}.{key}` | {cells} |")
    return rows


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    print(document(), end="")
