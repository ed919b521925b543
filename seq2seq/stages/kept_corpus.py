"""The prepared corpus of a training that was stopped: when it goes on, its files are not read and encoded again.

They are used again only where everything that they were made of is as it was, down to the times of the files, and where
they are the very files that this program wrote, undamaged: copies are not, whose they may be nobody knows. A hub's
dataset has no files to tell by, and is prepared anew.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Any

import sentencepiece

from seq2seq.config import DATA_PATHS, Config, DataConfig
from seq2seq.run_folder.files import RunError, file_hash, read_json, write_json
from seq2seq.text.corpus import FilterCounts
from seq2seq.text.reading import Split, has_split
from seq2seq.version import __version__

NEEDED: tuple[tuple[Split, str], ...] = (
    ("train", "text"), ("train", "pieces"), ("valid", "text"), ("valid", "pieces"), ("test", "text"),
)  # fmt: skip
PREPARED = tuple(f"{split}.{kind}" for split, kind in NEEDED)
RECORD = "prepared.json"  # beside them


def keep(folder: Path, config: Config, tokenizer: str, counts: FilterCounts) -> None:
    """Writes down what the prepared files of a run's `.corpus` are made of. tokenizer: its content hash."""
    made_of = _made_of(config.data, tokenizer)
    if made_of is not None:
        files = {name: _described(folder / name) for name in PREPARED if (folder / name).exists()}
        write_json(folder / RECORD, {"made_of": made_of, "counts": counts.as_dict(), "files": files})


def kept(folder: Path, config: Config, tokenizer: str) -> FilterCounts | None:
    """The counts of the prepared files, where they can be used again."""
    try:
        record = read_json(folder / RECORD)
        if record.get("made_of") != _made_of(config.data, tokenizer):
            return None
        files = record["files"]
        if any(_described(folder / name) != files.get(name) for name in PREPARED if (folder / name).exists()):
            return None
        needed = [f"{split}.{kind}" for split, kind in NEEDED if has_split(config.data, split)]
        return FilterCounts(**record["counts"]) if all((folder / name).exists() for name in needed) else None
    except (RunError, OSError, AttributeError, KeyError, TypeError):  # none, or a damaged one
        return None


def forget(folder: Path) -> None:
    """Before the files are made anew: from now on nothing vouches for them."""
    with contextlib.suppress(OSError):
        (folder / RECORD).unlink()


def tidy(folder: Path) -> None:
    """Removes what is not to be used again: all, where nothing says what it was made of."""
    if not (folder / RECORD).exists():
        shutil.rmtree(folder, ignore_errors=True)
        return
    for entry in folder.iterdir():
        if entry.name not in (RECORD, *PREPARED):
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)


def _described(path: Path) -> list[Any]:
    return [*_stamp(path), file_hash(path)]


def _stamp(path: str | Path) -> list[int]:
    """What no file has that was changed since, or copied: not even with its times."""
    found = os.stat(path)
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def _made_of(data: DataConfig, tokenizer: str) -> dict[str, Any] | None:
    """All that the prepared files are a function of, as JSON has it."""
    if data.dataset:
        return None
    inputs = {}
    for name in DATA_PATHS:
        if path := getattr(data, name):
            try:
                inputs[name] = _stamp(path)
            except OSError:
                return None
    programs = {"seq2seq": __version__, "sentencepiece": sentencepiece.__version__}
    return {"programs": programs, "data": data.model_dump(mode="json"), "inputs": inputs, "tokenizer": tokenizer}
