"""Recipes: configurations as TOML files, presets, `--set` overrides.

A preset (`tiny`, `quick`, `small`, `base`, `big`) changes the defaults, the TOML file changes the preset, and
`--set section.key=value` changes the file. Unknown fields, wrong types and impossible combinations are `ConfigError`s
that name the field, the value and the remedy.

Data paths are resolved against the folder of the TOML file (or the working directory where there is none), so that a
resolved configuration means the same wherever it is read.
"""

from __future__ import annotations

import difflib
import json
import math
import tomllib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from seq2seq import other_names
from seq2seq.config import DATA_PATHS, Config, ConfigError, Download, Section
from seq2seq.errors import unreadable
from seq2seq.presets import PRESETS
from seq2seq.untrusted import MAX_CONFIG_BYTES

LIMITS = ("max_steps", "max_epochs", "max_minutes")
LANGUAGES = ("source_language", "target_language", "bleu_tokenize")  # what is of a corpus, but is not where it lies
SECTIONS = ("data", "tokenizer", "model", "training", "decoding")
PATHS = {"data": DATA_PATHS, "tokenizer": ("source_model", "target_model"), "training": ("init_from",)}


def build_config(
    values: Mapping[str, Any],
    *,
    preset: str | None = None,
    origin: str = "configuration",
    overridden: Collection[str] = (),
) -> Config:
    """Lays `values` (nested, as TOML gives them) over a preset and validates the whole.

    overridden: names of fields that came by --set, for the message. Raises ConfigError, naming `origin`, the field, the
    value and the remedy.
    """
    values = dict(values)
    name = values.pop("preset", "")
    name = preset or name
    if not isinstance(name, str) or (name and name not in PRESETS):
        origin = "--preset" if preset else origin
        raise ConfigError(f"{origin}: preset = {_show(name)} is unknown; choose one of {', '.join(PRESETS)}")
    merged: dict[str, Any] = {section: dict(fields) for section, fields in PRESETS.get(name, {}).items()}
    for section, fields in values.items():
        if section not in SECTIONS:
            homes = [f"; it belongs below [{home}]" for home in SECTIONS if section in _fields(home)]
            hint = homes[0] if homes else _suggest(section, (*SECTIONS, "preset"))
            raise ConfigError(f"{origin}: unknown section or field {section!r}{hint}")
        if not isinstance(fields, Mapping):
            raise ConfigError(f"{origin}: {section} is a section: write [{section}] and its fields below it")
        merged.setdefault(section, {}).update(fields)
    # A horizon that is asked for takes the place of the preset's own.
    asked = values.get("training", {})
    if any(limit in asked for limit in LIMITS):
        for limit in LIMITS:
            if limit not in asked:
                merged["training"].pop(limit, None)
    try:
        return Config.model_validate({"preset": name, **merged})
    except ValidationError as error:
        explained = _explain(error)
        field = explained.split(" ", 1)[0].rstrip(":")
        raise ConfigError(f"{'--set' if field in overridden else origin}: {explained}") from None


def load_config(
    path: Path | None,
    *,
    preset: str | None = None,
    overrides: Sequence[str] = (),
    data: Mapping[str, str] | None = None,
    own: bool = False,
) -> Config:
    """Reads a TOML file (or none), applies `--set` overrides and corpus paths, resolves data paths.

    path: the TOML file; None starts from the preset alone. overrides: `section.key=value`, values as TOML or plain
    text; the ends of training among them take the place of all that the file has. data: corpus paths from the command
    line, relative to the working directory; they replace the file's corpus. own: the file is the configuration of a run
    that goes on, or is fine-tuned: its languages and the tokenisation for BLEU stay with a corpus from elsewhere.
    """
    values: dict[str, Any] = {}
    if path is not None:
        values = _parse_toml(_read_text(path), str(path))
    base = path.resolve().parent if path is not None else Path.cwd()
    sections = {name: dict(value) for name, value in values.items() if isinstance(value, Mapping)}
    _resolve_paths(sections, base, str(path))
    if data:
        corpus = {key: _absolute(value, Path.cwd(), f"data.{key}") for key, value in data.items()}
        kept = LANGUAGES if own else ()
        sections["data"] = {**_without_corpus(sections.get("data", {}), kept), **corpus}
    values.update(sections)
    overridden = {override.partition("=")[0].strip() for override in overrides}
    training = values.get("training")
    if overridden & {f"training.{limit}" for limit in LIMITS} and isinstance(training, Mapping):
        values["training"] = {key: value for key, value in training.items() if key not in LIMITS}
    for override in overrides:
        _apply_override(values, override)
    origin = str(path) if path is not None else "command line"
    return build_config(values, preset=preset, origin=origin, overridden=overridden)


def refuse_fetching(downloads: Sequence[Download], origin: str) -> None:
    """Raises ConfigError where the configuration of a run folder names a file that would have to be fetched.

    The folder may be a stranger's, and a download is written wherever its path says. A recipe is the user's own word.
    """
    for download in downloads:
        if not Path(download.path).is_file():
            raise ConfigError(
                f"{origin}: {download.path}, one of data.downloads, is not there, and nothing is fetched on the word "
                "of a run folder; name the recipe that it was made with: seq2seq train RECIPE.toml ..., or say where "
                "the file is now, such as --set data.train_source=FILE"
            )


def dump_config(config: Config, *, name_unset: bool = False) -> str:
    """The whole configuration as TOML, every field that has a value; `load_config` reads it back to an equal object.

    name_unset: those without one stand in comments.
    """
    lines = [f"preset = {toml_text(config.preset)}"]
    for section in SECTIONS:
        lines += ["", f"[{section}]"]
        fields = getattr(config, section).model_dump()
        downloads = fields.pop("downloads", ())
        for key, value in fields.items():
            if value is not None:
                lines.append(f"{key} = {toml_text(value)}")
            elif name_unset:
                lines.append(f"# {key} is not set")
        for download in downloads:
            written = [f"{key} = {toml_text(value)}" for key, value in download.items()]
            lines += ["", f"[[{section}.downloads]]", *written]
    return "\n".join(lines) + "\n"


def parse_config(text: str, *, origin: str) -> Config:
    """Reads back what `dump_config` wrote."""
    return build_config(_parse_toml(text, origin), origin=origin)


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:  # which may be a pipe: train <(generate recipe)
            content = file.read(MAX_CONFIG_BYTES + 1)
        if len(content) > MAX_CONFIG_BYTES:
            raise ConfigError(f"{path}: more than {MAX_CONFIG_BYTES:,} bytes; this is no configuration file")
        return content.decode("utf-8-sig")  # some editors put a byte order mark first
    except IsADirectoryError as error:
        if not (path / "config.toml").is_file():
            raise ConfigError(unreadable(path, error, "configuration file")) from None
        raise ConfigError(
            f"{path}: is a run; its recipe is {path / 'config.toml'}, and to go on with it: seq2seq train --run-dir "
            f"{path} --resume"
        ) from None
    except OSError as error:
        raise ConfigError(unreadable(path, error, "configuration file")) from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start + 1}); save it as UTF-8") from None


def _parse_toml(text: str, origin: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError also for a number with more digits than Python reads
        reason = str(error).replace("Cannot overwrite a value", "a key is given twice")
        kind = (
            "" if origin.lower().endswith(".toml") else " (a recipe is a .toml file; corpora are named in its [data])"
        )
        raise ConfigError(f"{origin}: not valid TOML{kind}: {reason}") from None


def toml_text(value: object) -> str:
    """A value as TOML writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else "nan"
    return str(value)


def _resolve_paths(sections: dict[str, dict[str, Any]], base: Path, origin: str) -> None:
    """Makes the paths of a file absolute; values of the wrong type are left for the validation to find."""

    def resolve(fields: dict[str, Any], key: str, name: str) -> None:
        if isinstance(fields.get(key), str) and fields[key]:
            fields[key] = _absolute(fields[key], base, f"{origin}: {name}")

    for section, keys in PATHS.items():
        for key in keys:
            resolve(sections.get(section, {}), key, f"{section}.{key}")
    dataset = sections.get("data", {}).get("dataset")
    if isinstance(dataset, str) and _is_folder(dataset, base):
        resolve(sections["data"], "dataset", "data.dataset")
    downloads = sections.get("data", {}).get("downloads")
    if isinstance(downloads, list):
        sections["data"]["downloads"] = copies = [dict(d) if isinstance(d, dict) else d for d in downloads]
        for index, download in enumerate(copies):
            if isinstance(download, dict):
                resolve(download, "path", f"data.downloads.{index}.path")


def _is_folder(dataset: str, base: Path) -> bool:
    """Whether data.dataset is a folder here rather than a dataset of the hub: it looks like one, or there is one."""
    if dataset.startswith(("./", "../", "/")):
        return True
    try:
        return bool(dataset) and (base / dataset).is_dir()
    except (ValueError, OSError):
        return False


def _absolute(path: str, base: Path, name: str) -> str:
    """Raises ConfigError for what no file can be called: with a NUL in it, or not UTF-8."""
    try:
        path.encode("utf-8")
        is_pipe, found = (base / path).is_fifo(), str((base / path).resolve())
    except (ValueError, OSError, RuntimeError) as error:
        raise ConfigError(f"{name} = {_show(path)}: not a usable path ({error}); rename the file") from None
    if is_pipe:
        raise ConfigError(f"{name} = {_show(path)}: is a pipe; training reads it more than once: name a file")
    return found


def _without_corpus(data: Mapping[str, Any], kept: Collection[str] = ()) -> dict[str, Any]:
    corpus = {"dataset", "dataset_config", "downloads", *LANGUAGES} - set(kept)
    return {key: value for key, value in data.items() if key not in corpus and key not in DATA_PATHS}


def _apply_override(values: dict[str, Any], override: str) -> None:
    name, equals, text = override.partition("=")
    section, dot, key = name.strip().partition(".")
    if equals and not dot:
        if section == "preset":
            raise ConfigError(f"--set {override}: write --preset {text}")
        plain = section.replace("-", "_")
        if places := settings_called(plain) or [ours for ours in (other_names.setting(plain),) if ours is not None]:
            raise ConfigError(f"--set {override}: write it with its section: {' or '.join(places)}")
    if not (equals and dot and key):
        raise ConfigError(f"--set {override}: write it as section.key=value, for example training.max_steps=1000")
    if section not in SECTIONS:
        raise ConfigError(f"--set {override}: unknown section {section!r}{_suggest(section, SECTIONS)}")
    try:
        value: Any = tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        value = text.strip()
    field = _fields(section).get(key)
    if field is not None and field.annotation is str and not isinstance(value, str):
        value = text.strip()  # a column 2, a folder named 2024: text all the same
    is_path = key in PATHS.get(section, ()) or (key == "dataset" and _is_folder(str(value), Path.cwd()))
    if is_path and isinstance(value, str) and value:
        value = _absolute(value, Path.cwd(), f"--set {section}.{key}")
    target = values.setdefault(section, {})
    if not isinstance(target, dict):
        raise ConfigError(f"--set {override}: {section} is not a section in the configuration file")
    target[key] = value


def _explain(error: ValidationError) -> str:
    """The first problem of a pydantic error, as `field = value: what is wrong; remedy`."""
    problems = error.errors(include_url=False)
    # A misspelt field may leave another one missing: the misspelling is the news.
    first = next((problem for problem in problems if problem["type"] == "extra_forbidden"), problems[0])
    location = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        if first["loc"][-1] == "preset":
            return f"{location}: preset belongs at the top of the file, before the first [section]"
        return f"{location}: unknown field{_known_otherwise(first['loc'])}"
    if first["type"] == "value_error":
        return str(first["ctx"]["error"])
    if first["type"] == "missing":
        return f"{location}: missing; it is required"
    remedies = {
        "string_type": "; write it in quotes",
        "bool_type": ": true or false, without quotes",
        "tuple_type": "; write [[data.downloads]] with path, url and sha256 below it",
        "model_type": "; write [[data.downloads]] with path, url and sha256 below it",
    }
    if first["type"] == "string_type" and isinstance(first["input"], list) and first["loc"][-1] in DATA_PATHS:
        return f"{location} = {_show(first['input'])}: must be one file; join several with cat, both sides alike"
    message = str(first["msg"]).replace("Input should be", "must be").replace("a valid tuple", "a list")
    return f"{location} = {_show(first['input'])}: {message[0].lower()}{message[1:]}{remedies.get(first['type'], '')}"


def _known_otherwise(location: tuple[int | str, ...]) -> str:
    """What an unknown field may have been meant for: one of another section, or what another toolkit calls it."""
    name = str(location[-1])
    if len(location) == 2:
        if places := settings_called(name):
            return f"; did you mean {' or '.join(places)}?"
        if ours := other_names.setting(name):
            return f"; that is {ours} here" if other_names.is_setting(ours) else f"; {ours}"
    return _suggest(name, _known_fields(location), like=0.8)  # names of settings are alike


def _show(value: object) -> str:
    """A value for an error message, on one line and not too long."""
    if isinstance(value, bool):
        return toml_text(value)
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number with more digits than Python writes
        return "..."
    return text if len(text) <= 80 else f"{text[:76]} ..."


def _known_fields(location: tuple[int | str, ...]) -> list[str]:
    return list(Download.model_fields if len(location) > 2 else _fields(str(location[0])))


def settings_called(name: str) -> list[str]:
    """The settings of this name, with their sections."""
    return [f"{section}.{name}" for section in SECTIONS if name in _fields(section)]


def _fields(section: str) -> dict[str, FieldInfo]:
    kind = Config.model_fields[section].annotation
    assert isinstance(kind, type) and issubclass(kind, Section)
    return kind.model_fields


def _suggest(name: str, known: Sequence[str], like: float = 0.6) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=like)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"
