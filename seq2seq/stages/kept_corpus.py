"""The prepared corpus of a training that was stopped: when it goes on, its files are not read and encoded again.

They are used again only where everything that they were made of is as it was, down to the times of the files, and where
they are the very files that this program wrote, undamaged: copies are not, whose they may be nobody knows. A hub's
dataset has no files to tell by, and is prepared anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import sentencepiece

from seq2seq import text
from seq2seq.config import DATA_PATHS, Config, DataConfig
from seq2seq.run_folder.files import RunError, file_hash, read_json, write_json
from seq2seq.text.corpus import FilterCounts
from seq2seq.text.reading import Split, has_split

PREPARED: tuple[tuple[Split, str], ...] = (
    ("train", "train.text"), ("train", "train.pieces"), ("valid", "valid.text"), ("valid", "valid.pieces"),
    ("test", "test.text"),
)  # fmt: skip
RECORD = "prepared.json"  # beside them
MadeOf = dict[str, Any]


def made_of(data: DataConfig) -> MadeOf | None:
    """All that the prepared files are a function of but the tokenizer, as JSON has it; None where that is not known.

    To be asked before anything is read: what changes while it is read is not what was read.
    """
    if data.dataset:
        return None
    try:
        inputs = {name: _stamp(path) for name in DATA_PATHS if (path := getattr(data, name))}
    except OSError:
        return None
    programs = {"sentencepiece": sentencepiece.__version__, "code": _code()}
    return {"programs": programs, "data": data.model_dump(mode="json"), "inputs": inputs}


def keep(folder: Path, config: Config, of: MadeOf, tokenizer: str, counts: FilterCounts) -> None:
    """Writes down what the prepared files of a run's `.corpus` are made of. tokenizer: its content hash.

    Where that cannot be written, they will not be used again.
    """
    with contextlib.suppress(RunError, OSError):
        files = {name: [*_stamp(folder / name), file_hash(folder / name)] for name in _needed(config.data)}
        write_json(folder / RECORD, {"made_of": of, "tokenizer": tokenizer, "counts": counts.as_dict(), "files": files})


def kept(folder: Path, config: Config, of: MadeOf | None, tokenizer: str) -> FilterCounts | None:
    """The counts of the prepared files, where they can be used again."""
    if of is None:
        return None
    try:
        record = read_json(folder / RECORD)
        counts = record["counts"]
        if (record["made_of"], record["tokenizer"]) != (of, tokenizer):
            return None
        if not all(type(count) is int for count in counts.values()):
            return None
        for name in _needed(config.data):
            *stamp, content = record["files"][name]
            if stamp != _stamp(folder / name) or content != file_hash(folder / name):
                return None
        return FilterCounts(**counts)
    except (RunError, OSError, AttributeError, KeyError, TypeError, ValueError):  # none, or a damaged one
        return None


def size(folder: Path) -> int:
    """Bytes of the prepared files."""
    return sum((folder / name).stat().st_size for _, name in PREPARED if (folder / name).exists())


def tidy(folder: Path) -> None:
    """Removes what is not to be used again: all, where nothing says what it was made of."""
    if not (folder / RECORD).exists():
        shutil.rmtree(folder, ignore_errors=True)
        return
    with contextlib.suppress(OSError):
        for entry in folder.iterdir():
            if entry.name not in (RECORD, *(name for _, name in PREPARED)):
                with contextlib.suppress(OSError):  # a network's file system keeps it for who has it open
                    entry.unlink()


def _needed(data: DataConfig) -> list[str]:
    return [name for split, name in PREPARED if has_split(data, split)]


def _stamp(path: str | Path) -> list[int]:
    """What no file has that was changed since, or copied: not even with its times."""
    found = os.stat(path)
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def _code() -> str:
    """A hash of the code that reads and encodes: a version says too little to who changes it."""
    digest = hashlib.sha256()
    for path in sorted(Path(text.__path__[0]).glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
