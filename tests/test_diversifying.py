"""More training data out of the same: what is written, in which order, what is left out, and that nothing is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seq2seq.diversifying import diversify, output_paths
from seq2seq.errors import OptionError, UserError
from seq2seq.text.errors import DataError

texts = st.lists(st.tuples(*2 * [st.text("ab \u0301ß", max_size=4)]), min_size=1, max_size=12)


def teacher(function: Callable[[str], str]) -> Callable[[], Any]:
    def translate(lines: Iterable[str]) -> Iterator[str]:
        return (function(line) for line in lines)

    return lambda: translate


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
def test_the_corpus_comes_first_then_each_model_and_nothing_twice(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, str]]
) -> None:
    folder = tmp_path_factory.mktemp("pairs")
    counts = diversify(
        *write(folder / "in", pairs), folder / "out", forward=[teacher(str.upper), teacher(lambda line: "")],
        backward=[teacher(lambda line: line[::-1])],
    )  # fmt: skip
    kept = [(one, other) for one, other in pairs if one.strip() and other.strip()]
    expected = [*kept, *((one, one.upper()) for one, _ in kept), *((other[::-1], other) for _, other in kept)]
    assert read(folder / "out") == list(dict.fromkeys(expected))
    assert (counts.corpus, counts.all) == (len(kept), 3 * len(kept))
    assert counts.written == len(read(folder / "out"))


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


def test_the_corpus_itself_is_never_written_over(tmp_path: Path) -> None:
    source, target = write(tmp_path / "in", [("a", "b")])
    with pytest.raises(OptionError, match="is the corpus itself"):
        output_paths(source, target, tmp_path / "in")
    with pytest.raises(OptionError, match=r"both named train\.txt"):
        output_paths(tmp_path / "en" / "train.txt.gz", tmp_path / "de" / "train.txt", tmp_path / "out")


def test_files_of_unequal_length_are_refused(tmp_path: Path) -> None:
    source, target = write(tmp_path / "in", [("a", "b"), ("c", "d")])
    source.write_text("a\n", encoding="utf-8")
    with pytest.raises(DataError, match="ends after line 1"):
        diversify(source, target, tmp_path / "out", forward=[teacher(str.upper)], backward=[])
    assert not list((tmp_path / "out").iterdir())


def test_the_command_translates_with_runs(tiny_run: Any, run_cli: Any, tmp_path: Path) -> None:
    source, target = tmp_path / "train.en", tmp_path / "train.de"
    source.write_text("the cat sees the dog\nthe old king\n", encoding="utf-8")
    target.write_text("der Katze sieht der Hund\nder alte König\n", encoding="utf-8")
    files = ("--source", source, "--target", target, "--output", tmp_path / "more")
    refused = run_cli("diversify", *files)
    assert refused.code == 2 and "name a model" in refused.err
    done = run_cli("diversify", *files, "--forward", tiny_run.path, "--beam-size", "1", "--precision", "fp32")
    assert done.code == 0, done.err
    assert done.out.startswith("2 pairs of the corpus, 4 with translations")
    translated = run_cli("translate", tiny_run.path, source, "--beam-size", "1").lines
    for pair in zip(["the cat sees the dog", "the old king"], translated, strict=True):
        assert pair in read(tmp_path / "more")
