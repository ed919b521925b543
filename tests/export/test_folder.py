"""Folders of exports, without a model to put into them: complete under their name, or as they were before."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from seq2seq.export import folder as export_folder
from seq2seq.export.errors import ExportError, UnwritableExportError
from seq2seq.export.folder import check_free, new_folder
from seq2seq.run_folder.files import write_json


def write_export(folder: Path, text: str, *, overwrite: bool = False) -> None:
    with new_folder(folder, overwrite=overwrite) as temporary:
        (temporary / "model.bin").write_text(text)
        write_json(temporary / "certificate.json", {"files": {"model.bin": "0"}})


@pytest.mark.parametrize("name", ["notes.txt", ".hidden", "plots/one.svg", "model.bin/mine"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_an_export_with_files_of_the_user_is_not_replaced(name: str, overwrite: bool, tmp_path: Path) -> None:
    write_export(tmp_path / "out", "first")
    write_export(tmp_path / "out", "second", overwrite=True)
    mine = tmp_path / "out" / name
    if name.startswith("model.bin"):
        mine.parent.unlink()
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("mine")
    first = tmp_path / "out" / name.partition("/")[0]
    with pytest.raises(ExportError) as error:
        write_export(tmp_path / "out", "third", overwrite=overwrite)
    assert str(error.value).startswith(f"{first}: is no part of the export") and "move it" in str(error.value)
    assert mine.read_text() == "mine" and [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("name", [".DS_Store", ".nfs0001", "Thumbs.db"])
def test_what_systems_put_everywhere_does_not_keep_an_export_from_being_replaced(name: str, tmp_path: Path) -> None:
    write_export(tmp_path / "out", "first")
    (tmp_path / "out" / name).touch()
    write_export(tmp_path / "out", "second", overwrite=True)
    assert (tmp_path / "out" / "model.bin").read_text() == "second"


def test_a_certificate_that_no_export_wrote_makes_no_export(tmp_path: Path) -> None:
    for content in ("passed, with honours", "{}", '{"files": []}'):
        (tmp_path / "certificate.json").write_text(content)
        with pytest.raises(ExportError, match="something else than an export"):
            write_export(tmp_path, "first", overwrite=True)
        assert (tmp_path / "certificate.json").read_text() == content


KILLED = """
import os, sys
from pathlib import Path
from seq2seq.export.folder import new_folder

with new_folder(Path(sys.argv[1]), overwrite=True) as temporary:
    (temporary / "model.bin").touch()
    print("writing", flush=True)
    sys.stdin.read()
    os._exit(9)
"""


def test_what_a_killed_export_left_is_removed_by_the_next_and_that_of_a_running_one_is_not(tmp_path: Path) -> None:
    mine = [tmp_path / name for name in (".out.training.tmp", ".other.abcd1234.tmp", ".out.abcd1234.tmp.txt")]
    for folder in mine:
        folder.mkdir()
    (tmp_path / ".out.abcd1234.old").mkdir()  # it was replaced when the kill came
    command = [sys.executable, "-c", KILLED, str(tmp_path / "out")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "writing\n"
        write_export(tmp_path / "out", "first")
        (running,) = {*tmp_path.iterdir()} - {*mine, tmp_path / "out"}
        assert (running / "model.bin").exists()
    assert running.exists()
    write_export(tmp_path / "out", "second", overwrite=True)
    assert {*tmp_path.iterdir()} == {*mine, tmp_path / "out"}
    assert (tmp_path / "out" / "model.bin").read_text() == "second"


def test_a_folder_that_cannot_be_made_is_told_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ExportError, match="file: is a file where a folder should be; rename it"):
        write_export(tmp_path / "file" / "out", "first")

    def read_only(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(tmp_path / ".out.12345678.tmp"))

    monkeypatch.setattr("seq2seq.export.folder.temporary_folder", read_only)
    with pytest.raises(ExportError, match=r"/out: cannot be written \(Read-only file system\); check the folder"):
        write_export(tmp_path / "out", "first")


def test_what_came_into_the_folder_while_the_export_was_made_stays(tmp_path: Path) -> None:
    with (
        pytest.raises(ExportError, match="something else than an export"),
        new_folder(tmp_path / "out", overwrite=True),
    ):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "mine.txt").write_text("mine")
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine" and [*tmp_path.iterdir()] == [tmp_path / "out"]


def test_where_renaming_fails_the_export_before_is_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_export(tmp_path / "out", "first")
    replace = os.replace

    def failing(source: Path, target: Path) -> None:
        if source.suffix == ".tmp" and source.is_dir():
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        replace(source, target)

    monkeypatch.setattr(export_folder.os, "replace", failing)
    with pytest.raises(UnwritableExportError, match=r"/out: cannot be written \(Input/output error\)"):
        write_export(tmp_path / "out", "second", overwrite=True)
    assert (tmp_path / "out" / "model.bin").read_text() == "first" and [*tmp_path.iterdir()] == [tmp_path / "out"]


def test_a_folder_where_a_disk_is_mounted_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(export_folder.os.path, "ismount", lambda path: Path(path) == tmp_path / "out")
    with pytest.raises(ExportError, match=r"/out: is where a disk is mounted; name a folder inside of it$"):
        check_free(tmp_path / "out", overwrite=True)
    write_export(tmp_path / "out" / "inside", "first")


def test_a_name_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    for name in (b"bad\xff", b"bad\xff/out"):
        with pytest.raises(ExportError, match="has to be UTF-8; name another"):
            check_free(tmp_path / os.fsdecode(name), overwrite=False)


@pytest.mark.parametrize("mode", [0o700, 0o2770, 0o555])
def test_a_folder_that_is_replaced_keeps_its_permissions(mode: int, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out").chmod(mode)
    for text, overwrite in (("first", False), ("second", True)):
        with new_folder(tmp_path / "out", overwrite=overwrite) as temporary:
            assert stat.S_IMODE(temporary.stat().st_mode) == mode | 0o700  # nobody else reads it meanwhile
            (temporary / "model.bin").write_text(text)
            write_json(temporary / "certificate.json", {"files": {"model.bin": "0"}})
        assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == mode | 0o700


def test_a_failed_export_removes_the_folders_above_it_that_it_made(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for name in ("mine/a/out", "b/c/out"):
        with pytest.raises(ZeroDivisionError), new_folder(tmp_path / name, overwrite=False):
            _ = 1 / 0
    assert [*tmp_path.rglob("*")] == [tmp_path / "mine"]
    with pytest.raises(ZeroDivisionError), new_folder(tmp_path / "b/c/out", overwrite=False):
        (tmp_path / "b" / "other").touch()
        _ = 1 / 0
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "b", tmp_path / "b" / "other", tmp_path / "mine"]
    with pytest.raises(UnwritableExportError, match="cannot be written"):  # the second of them has too long a name
        write_export(tmp_path / "d" / ("x" * 300) / "out", "first")
    assert not (tmp_path / "d").exists()
