"""Files whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from seq2seq.atomic import left_behind, readable_size, replacing, temporary_path


def test_the_file_is_there_when_all_of_it_is(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with replacing(path) as temporary:
        assert temporary.parent == path.parent  # or the rename would be a copy
        temporary.write_bytes(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_content_and_name_are_made_durable_in_this_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        done.append("folder" if os.path.samestat(os.fstat(descriptor), tmp_path.stat()) else "file")
        fsync(descriptor)

    def replaced(source: Path, target: Path) -> None:
        done.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    with replacing(tmp_path / "file") as temporary:
        temporary.write_bytes(b"new")
    assert done == ["file", "rename", "folder"]


@pytest.mark.parametrize("name", ["a" * 255, "ü" * 127])
def test_names_may_be_as_long_as_file_systems_have_them(tmp_path: Path, name: str) -> None:
    with replacing(tmp_path / name) as temporary:
        temporary.write_bytes(b"new")
        assert left_behind(tmp_path, name) == [temporary]
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    with replacing(tmp_path / "file") as first:
        first.write_bytes(b"first")
        with replacing(tmp_path / "file") as second:
            second.write_bytes(b"second")
    assert (tmp_path / "file").read_bytes() == b"first"


def test_what_killed_writers_left_is_found_by_the_name(tmp_path: Path) -> None:
    left = temporary_path(tmp_path / "file")
    for path in (left, tmp_path / ".other.12.tmp", tmp_path / "file"):
        path.touch()
    assert left_behind(tmp_path, "file") == [left]
    assert left_behind(tmp_path / "none", "file") == []


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 bytes"), (999, "999 bytes"), (1200, "1.2 kB"), (3_450_000_000, "3.5 GB")]
)
def test_sizes_are_for_people(size: int, text: str) -> None:
    assert readable_size(size) == text
