"""More training data out of the same: what is written, in which order, what is left out, and that nothing is lost."""

from __future__ import annotations

import errno
import itertools
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seq2seq import kept_translations
from seq2seq.commands import diversifying as commands
from seq2seq.decoding.options import Options
from seq2seq.decoding.translator import Translator
from seq2seq.diversifying import KEPT, LOCK, Counts, Monolingual, Teacher, diversify, output_paths
from seq2seq.errors import OptionError, UserError
from seq2seq.run import Run
from seq2seq.text.errors import DataError

texts = st.lists(st.tuples(*2 * [st.text("ab \u0301ß", max_size=4)]), min_size=1, max_size=12)


def teacher(*functions: Callable[[str], str | None], key: str = "") -> Teacher:
    """Has as many translations of a line as there are functions."""

    def translate(lines: Iterable[str]) -> Iterator[list[str | None]]:
        return ([function(line) for function in functions] for line in lines)

    return Teacher("a teacher", key or str(functions), lambda: translate)


def write(folder: Path, pairs: list[tuple[str, str]]) -> tuple[Path, Path]:
    folder.mkdir(exist_ok=True)
    paths = folder / "train.en", folder / "train.de"
    for side, path in enumerate(paths):
        path.write_text("".join(f"{pair[side]}\n" for pair in pairs), encoding="utf-8", newline="\n")
    return paths


def read(folder: Path) -> list[tuple[str, str]]:
    sides = [(folder / f"train.{name}").read_text(encoding="utf-8").split("\n")[:-1] for name in ("en", "de")]
    return list(zip(*sides, strict=True))


@given(texts)
def test_the_corpus_comes_first_and_whole_then_what_each_model_adds(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, str]]
) -> None:
    folder = tmp_path_factory.mktemp("pairs")
    pairs = [*pairs, ("a", "b"), ("a", "b")]  # twice in the corpus: twice as often
    done: list[tuple[int, int]] = []
    counts = diversify(
        *write(folder / "in", pairs), folder / "out",
        forward=[teacher(str.upper, str.title), teacher(lambda line: None)],
        backward=[teacher(lambda line: line[::-1])], progress=lambda *numbers: done.append(numbers),
    )  # fmt: skip
    kept = [(one, other) for one, other in pairs if one.strip() and other.strip()]
    forward = [(one, change(one)) for one, _ in kept for change in (str.upper, str.title)]
    translated = [*forward, *((other[::-1], other) for _, other in kept)]
    added = [pair for pair in dict.fromkeys(translated) if pair not in kept]
    assert read(folder / "out") == kept + added
    assert (counts.corpus, counts.empty) == (len(kept), len(pairs) - len(kept))
    assert (counts.added, counts.bad, counts.written) == (len(added), len(kept), len(kept + added))
    assert counts.added + counts.repeated + counts.bad == 4 * len(kept)
    assert done == 3 * [(number, len(kept)) for number in range(1, len(kept) + 1)]


@pytest.mark.parametrize("only", [False, True])
def test_text_of_one_language_is_translated_after_the_corpus_or_in_its_place(tmp_path: Path, only: bool) -> None:
    corpus = write(tmp_path / "in", [("a", "b"), ("", "c"), ("d", "e")])
    for name, text in (("en", "f\n\na\n"), ("de", "g\nh"), ("more.de", " \ni\n")):
        (tmp_path / name).write_text(text, encoding="utf-8")
    more = Monolingual((tmp_path / "en",), (tmp_path / "de", tmp_path / "more.de"), only)
    done: list[tuple[int, int]] = []
    counts = diversify(
        *corpus, tmp_path / "out", forward=[teacher(str.upper)], backward=[teacher(str.title), teacher(ascii)],
        monolingual=more, progress=lambda *numbers: done.append(numbers),
    )  # fmt: skip
    forward = [("f", "F"), ("a", "A")] if only else [("a", "A"), ("d", "D"), ("f", "F")]
    backward = ["g", "h", "i"] if only else ["b", "e", "g", "h", "i"]
    added = [*forward, *((line.title(), line) for line in backward), *((ascii(line), line) for line in backward)]
    assert read(tmp_path / "out") == [("a", "b"), ("d", "e"), *added]
    assert (counts.corpus, counts.empty, counts.monolingual, counts.added) == (2, 1, 5, len(added))
    assert counts.repeated == (0 if only else 1)  # "a" again
    assert ", 5 lines of one language, " in counts.describe()
    first, second = (2, 3) if only else (4, 5)
    assert done == [(n, first) for n in range(1, first + 1)] + 2 * [(n, second) for n in range(1, second + 1)]


def test_text_of_one_language_is_gone_on_with_where_it_was_and_may_not_change(tmp_path: Path) -> None:
    corpus = write(tmp_path / "in", [("a", "b")])
    (tmp_path / "de").write_text("c\nd\ne\n", encoding="utf-8")
    more = Monolingual(targets=(tmp_path / "de",))

    def start(change: Callable[[str], str]) -> Counts:
        one = teacher(change, key="1")
        return diversify(*corpus, tmp_path / "out", forward=[], backward=[one], monolingual=more)

    with pytest.raises(KeyboardInterrupt):
        start(Stopping(str.upper, 2))
    last = Stopping(str.upper, 2)
    assert start(last).added == 4 and last.asked == ["d", "e"]
    shutil.rmtree(tmp_path / "out")

    def changing(line: str) -> str:
        (tmp_path / "de").write_text("c\nd\nf\n", encoding="utf-8")
        return line

    with pytest.raises(UserError, match=r"in/train\.de, .*/de: changed while they were translated"):
        diversify(
            *corpus, tmp_path / "out", forward=[], backward=[teacher(changing), teacher(str.upper)], monolingual=more
        )
    (tmp_path / "de").write_text("\n \n", encoding="utf-8")
    with pytest.raises(UserError, match="de: no lines with text"):
        start(str.upper)
    with pytest.raises(OptionError, match=r"train\.de there is --monolingual-target .*train\.de; name another folder"):
        output_paths(*corpus, tmp_path, Monolingual(targets=(tmp_path / "train.de",)))


def test_counts_are_told() -> None:
    assert (
        Counts(1, 0, 2, 3, 0).describe()
        == "1 pair of the corpus, 2 added, 3 translations that were there already: 3 pairs"
    )
    assert Counts(4, 1, 2, 0, 5).describe() == (
        "4 pairs of the corpus, 1 with an empty side left out, 2 added, 0 translations that were there already, "
        "5 that were cut or ran into loops: 6 pairs"
    )


def test_what_is_there_is_not_overwritten_unasked_nor_lost_when_a_model_fails(tmp_path: Path) -> None:
    corpus = write(tmp_path / "in", [("a", "b")])
    out = tmp_path / "out"
    diversify(*corpus, out, forward=[teacher(str.upper)], backward=[])
    before = read(out)
    with pytest.raises(UserError, match=r"train\.en: is there already; add --overwrite"):
        diversify(*corpus, out, forward=[teacher(str.lower)], backward=[])

    def fail(line: str) -> str:
        raise RuntimeError("no memory")

    with pytest.raises(RuntimeError):
        diversify(*corpus, out, forward=[teacher(fail)], backward=[], overwrite=True)
    assert read(out) == before and sorted(path.name for path in out.iterdir()) == ["train.de", "train.en"]
    with pytest.raises(RuntimeError):
        diversify(*corpus, tmp_path / "new", forward=[teacher(fail)], backward=[])
    assert not (tmp_path / "new").exists()
    (out / ".train.en.4711.tmp").write_text("what a killed one left", encoding="utf-8")
    diversify(*corpus, out, forward=[teacher(str.lower)], backward=[], overwrite=True)
    assert sorted(path.name for path in out.iterdir()) == ["train.de", "train.en"]


class Stopping:
    """Translates by a function, so many lines, and then stops as Ctrl-C does."""

    def __init__(self, change: Callable[[str], str], lines: int) -> None:
        self.change, self.left, self.asked = change, lines, list[str]()

    def __call__(self, line: str) -> str:
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        self.asked.append(line)
        return self.change(line)


def test_what_was_translated_while_the_corpus_was_another_is_not_taken(tmp_path: Path) -> None:
    pairs = [("a", "b"), ("c", "d"), ("e", "f")]
    corpus = write(tmp_path / "in", pairs)

    def load() -> Any:
        write(tmp_path / "in", [("a", "b"), ("other", "d"), ("e", "f")])
        return teacher(Stopping(str.upper, 2)).load()

    with pytest.raises(KeyboardInterrupt):
        diversify(*corpus, tmp_path / "out", forward=[Teacher("", "1", load)], backward=[])
    write(tmp_path / "in", pairs)
    again = Stopping(str.upper, 2)
    diversify(*corpus, tmp_path / "out", forward=[teacher(again, key="1")], backward=[])
    assert again.asked == ["c", "e"]
    assert read(tmp_path / "out")[3:] == [("a", "A"), ("c", "C"), ("e", "E")]


UNENDED = json.dumps([kept_translations.digest("d"), ["torn"]]).encode()


@pytest.mark.parametrize("torn", [b"", UNENDED, b'["Q', b'["Q", [1]]\n', b"[1]\n", b'{"Q": 1}\n', b"\xff\n"])
def test_one_that_is_stopped_goes_on_where_it_was(tmp_path: Path, torn: bytes) -> None:
    corpus = write(tmp_path / "in", [(text, text * 2) for text in "abcde"])
    diversify(*corpus, tmp_path / "whole", forward=[teacher(str.upper)], backward=[teacher(str.title)])
    out, told = tmp_path / "out", list[str]()

    def start(forward: Callable[[str], str], backward: Callable[[str], str]) -> None:
        diversify(
            *corpus, out, forward=[teacher(forward, key="1")], backward=[teacher(backward, key="2")], tell=told.append
        )

    first, second, third = (Stopping(str.upper, lines) for lines in (3, 2, 0))
    with pytest.raises(KeyboardInterrupt):
        start(first, str.title)
    assert len(told) == 1 and [path.name for path in out.iterdir()] == [KEPT]
    (kept,) = (out / KEPT).iterdir()
    with kept.open("ab") as file:
        file.write(torn)
    with pytest.raises(KeyboardInterrupt):
        start(second, Stopping(str.title, 4))
    assert (first.asked, second.asked) == (["a", "b", "c"], ["d", "e"])
    last = Stopping(str.title, 1)
    start(third, last)
    assert (third.asked, last.asked) == ([], ["ee"])
    before = [line for line in told if line.startswith("a teacher: ")]
    assert [re.findall(r"before: (\d+)", line) for line in before] == [["3"], ["5"], ["4"]]
    assert read(out) == read(tmp_path / "whole") and not (out / KEPT).exists()


@pytest.mark.parametrize("changed", ["model", "direction", "corpus"])
def test_what_is_kept_is_of_the_same_model_direction_and_corpus(tmp_path: Path, changed: str) -> None:
    corpus = write(tmp_path / "in", [("a", "a"), ("c", "c")])  # the lines are the same in both directions
    with pytest.raises(KeyboardInterrupt):
        diversify(*corpus, tmp_path / "out", forward=[teacher(Stopping(str.upper, 1), key="1")], backward=[])
    if changed == "corpus":
        write(tmp_path / "in", [("a", "a"), ("c", "e")])
    other = Stopping(str.title, 2)
    teachers = [teacher(other, key="2" if changed == "model" else "1")], []
    forward, backward = reversed(teachers) if changed == "direction" else teachers
    diversify(*corpus, tmp_path / "out", forward=forward, backward=backward)
    assert len(other.asked) == 2 and len(read(tmp_path / "out")) == 4


@pytest.mark.parametrize("written", [0, 5])
def test_a_full_disk_is_told_of_and_what_was_kept_before_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    corpus = write(tmp_path / "in", [("a", "b"), ("c", "d"), ("e", "f")])
    asked, told, appended = Stopping(str.upper, 3), list[str](), list[bytes]()
    append = kept_translations._append

    class Full:
        def __init__(self, file: Any) -> None:
            self.file = file

        def write(self, content: bytes) -> int:
            appended.append(content)
            if len(appended) < 3:
                return int(self.file.write(content))
            if not written:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return int(self.file.write(content[:written]))

    with monkeypatch.context() as patch, pytest.raises(UserError, match=r"\.jsonl: no space left to write it"):
        patch.setattr(kept_translations, "_append", lambda file, content: append(Full(file), content))
        diversify(*corpus, tmp_path / "out", forward=[teacher(asked, key="1")], backward=[], tell=told.append)
    assert told == [f"what has been translated is in {tmp_path / 'out' / KEPT}: the same command goes on from there"]
    asked.left = 1
    diversify(*corpus, tmp_path / "out", forward=[teacher(asked, key="1")], backward=[])
    assert asked.asked == ["a", "c", "e", "e"]
    assert read(tmp_path / "out")[3:] == [("a", "A"), ("c", "C"), ("e", "E")]


def test_each_line_is_kept_before_the_next_is_asked_for(tmp_path: Path) -> None:
    """A kill leaves no time to write what is in a buffer."""
    corpus, lines = write(tmp_path / "in", [("a", "b"), ("c", "d"), ("e", "f")]), list[int]()

    def look(line: str) -> str:
        lines.append(sum(path.read_bytes().count(b"\n") for path in (tmp_path / "out" / KEPT).iterdir()))
        return line.upper()

    diversify(*corpus, tmp_path / "out", forward=[teacher(look)], backward=[])
    assert lines == [0, 1, 2]


def test_what_another_has_kept_there_stays(tmp_path: Path) -> None:
    corpus = write(tmp_path / "in", [("a", "b"), ("c", "d")])
    with pytest.raises(KeyboardInterrupt):
        diversify(*corpus, tmp_path / "out", forward=[teacher(Stopping(str.upper, 1), key="1")], backward=[])
    diversify(*corpus, tmp_path / "out", forward=[teacher(str.title, key="2")], backward=[])
    last = Stopping(str.upper, 1)
    diversify(*corpus, tmp_path / "out", forward=[teacher(last, key="1")], backward=[], overwrite=True)
    assert last.asked == ["c"] and not (tmp_path / "out" / KEPT).exists()


def test_of_two_models_that_are_the_same_the_second_adds_nothing(tmp_path: Path) -> None:
    corpus, second = write(tmp_path / "in", [("a", "b"), ("c", "d")]), Stopping(str.upper, 0)
    told: list[str] = []
    forward = [teacher(str.upper, key="1"), teacher(second, key="1")]
    counts = diversify(*corpus, tmp_path / "out", forward=forward, backward=[], tell=told.append)
    assert (counts.added, counts.repeated, second.asked) == (2, 2, [])
    assert told == ["a teacher: lines translated before: 2"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["train.de", "train.en"]


def test_a_corpus_that_changes_before_a_model_begins_costs_nothing_that_is_kept(tmp_path: Path) -> None:
    pairs = [("a", "b"), ("c", "d"), ("e", "f")]
    corpus, told = write(tmp_path / "in", pairs), list[str]()

    def load() -> Any:
        write(tmp_path / "in", [("other", "b"), *pairs[1:]])
        return lambda lines: ([None] for _ in lines)

    with pytest.raises(KeyboardInterrupt):
        diversify(*corpus, tmp_path / "out", forward=[teacher(Stopping(str.upper, 2), key="2")], backward=[])
    forward = [Teacher("", "1", load), teacher(str.upper, key="2")]
    with pytest.raises(UserError, match="changed while they were translated"):
        diversify(*corpus, tmp_path / "out", forward=forward, backward=[], tell=told.append)
    assert told == []
    write(tmp_path / "in", pairs)
    last = Stopping(str.upper, 1)
    diversify(*corpus, tmp_path / "out", forward=[teacher(last, key="2")], backward=[], tell=told.append)
    assert last.asked == ["e"]
    assert told[-1] == f"{tmp_path / 'out' / KEPT} has what other commands translated; remove it where none is to go on"


def test_a_stop_between_the_two_files_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus, told, replace = write(tmp_path / "in", [("a", "b")]), list[str](), os.replace

    def stop_after_one(old: Path, new: Path) -> None:
        replace(old, new)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", stop_after_one)
        diversify(*corpus, tmp_path / "out", forward=[teacher(str.upper, key="1")], backward=[], tell=told.append)
    assert told[-1].endswith("the same command with --overwrite goes on from there")
    diversify(*corpus, tmp_path / "out", forward=[teacher(Stopping(str, 0), key="1")], backward=[], overwrite=True)
    assert read(tmp_path / "out") == [("a", "b"), ("a", "A")]


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    corpus, other = write(tmp_path / "in", [("a", "b"), ("c", "d")]), tmp_path / "other"
    with pytest.raises(KeyboardInterrupt):
        diversify(*corpus, tmp_path / "out", forward=[teacher(Stopping(str.upper, 1), key="1")], backward=[])
    (kept,) = (tmp_path / "out" / KEPT).iterdir()
    kept.unlink()
    other.write_text("mine", encoding="utf-8")
    kept.symlink_to(other)
    with pytest.raises(UserError, match="a link that leads out of the folder"):
        diversify(*corpus, tmp_path / "out", forward=[teacher(str.upper, key="1")], backward=[])
    kept.unlink()
    kept.mkdir()
    with pytest.raises(UserError, match=rf"{kept.name}: is a folder, not a file"):
        diversify(*corpus, tmp_path / "out", forward=[teacher(str.upper, key="1")], backward=[])
    assert other.read_text(encoding="utf-8") == "mine"
    shutil.rmtree(tmp_path / "out" / KEPT)
    for name in (KEPT, LOCK):
        (tmp_path / "out" / name).symlink_to(other)
        with pytest.raises(UserError, match=rf"{name}: a link that leads out of the folder"):
            diversify(*corpus, tmp_path / "out", forward=[teacher(str.upper, key="1")], backward=[])
        (tmp_path / "out" / name).unlink()
    assert other.read_text(encoding="utf-8") == "mine"


def test_the_corpus_itself_is_never_written_over(tmp_path: Path) -> None:
    source, target = write(tmp_path / "in", [("a", "b")])
    with pytest.raises(OptionError, match="is the corpus itself"):
        output_paths(source, target, tmp_path / "in")
    with pytest.raises(OptionError, match=r"both named train\.txt"):
        output_paths(tmp_path / "en" / "train.txt.gz", tmp_path / "de" / "train.txt", tmp_path / "out")


def test_what_cannot_be_a_corpus_or_an_output_is_named(tmp_path: Path) -> None:
    source, target = write(tmp_path / "in", [("a", "b")])
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.toml").touch()
    for arguments, words in (
        ((tmp_path / "pipe", target, tmp_path / "out"), "is no file; it is read once for each model"),
        ((source, target, source), "is a file; name a folder"),
        ((source, target, tmp_path / "run"), "holds a run"),
    ):
        with pytest.raises(OptionError, match=words):
            output_paths(*arguments)
    empty = write(tmp_path / "empty", [("", "b")])
    with pytest.raises(UserError, match="no pairs with something on both sides"):
        diversify(*empty, tmp_path / "out", forward=[teacher(str.upper)], backward=[])


def test_a_corpus_that_changes_while_it_is_translated_is_an_error(tmp_path: Path) -> None:
    source, target = write(tmp_path / "in", [("a", "b"), ("c", "d")])

    def load() -> Any:
        write(tmp_path / "in", [("a", "b")])
        return teacher(str.upper).load()

    with pytest.raises(UserError, match="there were 2 pairs, now 1"):
        diversify(source, target, tmp_path / "out", forward=[Teacher("", "", load)], backward=[])


def test_a_corpus_of_as_many_other_pairs_is_an_error_and_no_line_gets_the_translation_of_another(
    tmp_path: Path,
) -> None:
    source, target = write(tmp_path / "in", [("a", "b"), ("c", "d")])

    def load() -> Any:
        write(tmp_path / "in", [("c", "d"), ("a", "b")])
        return teacher(str.upper).load()

    with pytest.raises(UserError, match="changed while they were translated"):
        diversify(source, target, tmp_path / "out", forward=[Teacher("", "", load)], backward=[])
    assert [path.name for path in (tmp_path / "out").iterdir()] == [KEPT]


def test_lines_that_are_appended_while_a_model_translates_are_an_error(tmp_path: Path) -> None:
    source, target = write(tmp_path / "in", [("a", "b"), ("c", "d")])

    def append(line: str) -> str:
        if line == "a":
            for path in (source, target):
                with path.open("a", encoding="utf-8") as file:
                    file.write("e\n")
        return line.upper()

    with pytest.raises(UserError, match="changed while they were translated"):
        diversify(source, target, tmp_path / "out", forward=[teacher(append), teacher(str.lower)], backward=[])


def test_two_do_not_write_into_one_folder(tmp_path: Path) -> None:
    corpus = write(tmp_path / "in", [("a", "b")])

    def load() -> Any:
        with pytest.raises(UserError, match=rf"another `diversify` \(process {os.getpid()}\) writes there"):
            diversify(*corpus, tmp_path / "out", forward=[teacher(str.lower)], backward=[])
        return teacher(str.upper).load()

    assert diversify(*corpus, tmp_path / "out", forward=[Teacher("", "", load)], backward=[]).added == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["train.de", "train.en"]


def test_files_of_unequal_length_are_refused(tmp_path: Path) -> None:
    source, target = write(tmp_path / "in", [("a", "b"), ("c", "d")])
    source.write_text("a\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"has 1 lines and .* has 2"):
        diversify(source, target, tmp_path / "out", forward=[teacher(str.upper)], backward=[])
    assert not (tmp_path / "out").exists()


def test_the_command_translates_with_runs(tiny_run: Any, run_cli: Any, tmp_path: Path) -> None:
    source, target = tmp_path / "train.en", tmp_path / "train.de"
    source.write_text("the cat sees the dog\nthe old king\n", encoding="utf-8")
    target.write_text("der Katze sieht der Hund\nder alte König\n", encoding="utf-8")
    files = ("--source", source, "--target", target, "--output", tmp_path / "more")
    refused = run_cli("diversify", *files)
    assert refused.code == 2 and "name a model" in refused.err
    done = run_cli("diversify", *files, "--forward", tiny_run.path, "--beam-size", "1", "--precision", "fp32")
    assert done.code == 0, done.err
    assert done.out.startswith("2 pairs of the corpus")
    assert ("nothing was added" in done.err) == (" 0 added" in done.out)
    assert "was trained to translate 0 of the first 2 sentences" in done.err
    more = ("--forward", tiny_run.path, "--beam-size", "4", "--n-best", "3", "--precision", "fp32", "--overwrite")
    translated = [result.hypotheses for result in Translator(tiny_run.path).translate(
        source.read_text(encoding="utf-8").splitlines(), beam_size=4, n_best=3)]  # fmt: skip
    assert run_cli("diversify", *files, *more).code == 0
    good = {one.text for some in translated for one in some if one.ended and not one.repetition and one.text}
    assert {other for _, other in read(tmp_path / "more")[2:]} | {"der Katze sieht der Hund"} >= good
    refused = run_cli("diversify", *files, "--forward", tiny_run.path, "--beam-size", "2", "--n-best", "3")
    assert refused.code == 2 and "--n-best" in refused.err
    twice = run_cli("diversify", *files, "--forward", tiny_run.path, "--backward", tiny_run.path)
    assert twice.code == 2 and "named twice" in twice.err


def test_the_command_translates_text_of_one_language(tiny_run: Any, run_cli: Any, tmp_path: Path) -> None:
    source, target = write(tmp_path / "in", [("the cat sees the dog", "der Katze sieht der Hund")])
    (tmp_path / "more.en").write_text("the old king\nthe cat\n", encoding="utf-8")
    files = ("--source", source, "--target", target, "--output", tmp_path / "out")
    forward, more = ("--forward", tiny_run.path), ("--monolingual-source", tmp_path / "more.en")
    for options, words in (
        ((*forward, "--monolingual-target", tmp_path / "more.en"), "no model translates it: add --backward RUN"),
        ((*forward, "--only-monolingual"), "has nothing to translate: add --monolingual-source FILE"),
        ((*forward, *more, *more), "a file is named twice"),
    ):
        refused = run_cli("diversify", *files, *options)
        assert refused.code == 2 and words in refused.err and not (tmp_path / "out").exists()
    missing = run_cli("diversify", *files, *forward, "--monolingual-source", tmp_path / "none.en")
    assert missing.code == 1 and "none.en: no such file" in missing.err
    done = run_cli("diversify", *files, *forward, *more, "--only-monolingual", "--precision", "fp32")
    assert done.code == 0 and done.out.startswith("1 pair of the corpus, 2 lines of one language, "), done.err
    texts = [result.text for result in Translator(tiny_run.path).translate(["the old king", "the cat"])]
    assert read(tmp_path / "out")[1:] == [
        pair for pair in zip(["the old king", "the cat"], texts, strict=True) if pair[1].strip()
    ]


def test_the_command_goes_on_where_it_was_stopped(
    tiny_run: Any, run_cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = write(tmp_path / "in", [("the cat", "1"), ("the old king", "2"), ("a door", "3")])

    def run(output: str, *options: str) -> Any:
        files = ("--source", corpus[0], "--target", corpus[1], "--output", tmp_path / output)
        return run_cli("diversify", *files, "--forward", tiny_run.path, "--precision", "fp32", *options)

    def stopping(*given: Any) -> Any:
        def translate(lines: Iterable[str]) -> Iterator[Any]:
            yield from itertools.islice(whole(*given)(lines), 2)
            raise KeyboardInterrupt

        return translate

    whole = commands._translates
    with monkeypatch.context() as patch:
        patch.setattr(commands, "_translates", stopping)
        stopped = run("out")
    assert stopped.code == 130
    assert f"is in {tmp_path / 'out' / KEPT}: the same command goes on from there\n" in stopped.err
    done = run("out")
    assert done.code == 0 and f"{tiny_run.path}: lines translated before: 2; " in done.err
    at_once = run("whole")
    assert done.out == at_once.out and read(tmp_path / "out") == read(tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(commands, "_translates", stopping)
        assert run("other").code == 130
    assert "translated before" not in run("other", "--beam-size", "2").err


def test_translations_are_known_by_all_that_they_depend_on(
    tiny_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def changed(name: str, change: Callable[[Path], object]) -> Run:
        shutil.copytree(tiny_run.path, tmp_path / name)
        change(tmp_path / name)
        return Run(tmp_path / name)

    def weights(path: Path) -> None:
        content = bytearray((path / "model.safetensors").read_bytes())
        content[-1] ^= 1
        (path / "model.safetensors").write_bytes(content)

    def configuration(old: str, new: str) -> Callable[[Path], None]:
        def change(path: Path) -> None:
            text = (path / "config.toml").read_text(encoding="utf-8")
            assert text.count(old) == 1
            (path / "config.toml").write_text(text.replace(old, new), encoding="utf-8")

        return change

    def tokenizer(path: Path) -> None:
        with (path / "tokenizer.model").open("ab") as file:
            file.write(b"\x9a\x06\x00")  # a field that SentencePiece does not know

    same, plain = changed("same", lambda path: None), Options(beam_size=2)
    runs = [
        Run(tiny_run.path), changed("weights", weights), changed("tokenizer", tokenizer),
        changed("penalty", configuration("length_penalty = 0.6", "length_penalty = 0.7")),
        changed("norm", configuration('norm = "post"', 'norm = "pre"')),
    ]  # fmt: skip
    keys = {commands._key(run, plain, "fp32") for run in runs}
    at_half = commands._key(same, plain, "bf16")
    keys |= {commands._key(same, options, "fp32") for options in (Options(beam_size=3), Options(beam_size=2, n_best=2))}
    assert len({*keys, at_half}) == 8
    assert commands._key(same, plain, "fp32") in keys
    assert commands._key(same, plain, "auto") in {
        commands._key(same, plain, "fp32"),
        commands._key(same, plain, "bf16"),
    }


def test_only_whole_translations_are_used(tiny_run: Any) -> None:
    """Not of lines that were cut, nor such as have no end or run into loops."""
    translator = Translator(tiny_run.path)
    short = translator.config.model_copy(update={"max_source_length": 4})
    lines = ["the cat", "the old king sees the green door"]
    translate = commands._translates(translator, Options(beam_size=1))
    results = [result.hypotheses[0] for result in translator.translate(lines, beam_size=1)]
    good = [one.text if one.ended and not one.repetition else None for one in results]
    assert list(translate(lines)) == [[one] for one in good]
    translator.config = short
    assert list(commands._translates(translator, Options(beam_size=1))(lines))[1] == [None]


@pytest.mark.parametrize("why", ["characters of several bytes", "learned positions"])
def test_a_line_is_cut_by_its_pieces_not_its_characters(
    why: str, tiny_run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pieces may be more than characters, and learned positions may end before the configured length."""
    said: list[str] = []
    translator = Translator(tiny_run.path, warn=said.append)
    encode = translator.tokenizer.encode_source
    if why == "learned positions":
        learned = {"positions": "learned", "max_positions": 5}
        translator.model.config = translator.model.config.model_copy(update=learned)
    else:
        translator.config = translator.config.model_copy(update={"max_source_length": 20})
        monkeypatch.setattr(translator.tokenizer, "encode_source", lambda lines: [ids * 9 for ids in encode(lines)])
    lines = ["the old king sees the green door"]
    [result] = translator.stream(lines, Options(beam_size=1))
    assert not result.complete and "it is cut to the first" in said[0]
    assert list(commands._translates(translator, Options(beam_size=1))(lines)) == [[None]]
