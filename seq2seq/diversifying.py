"""More training data out of the same: data diversification (Nguyen et al. 2020, arXiv 1911.01986).

Models that were trained on a corpus translate it: its sources by some, its targets by others that go the other way. A
model that is trained on the original pairs and these learns from several teachers at once. Translated targets alone are
sequence-level knowledge distillation (Kim and Rush 2016, arXiv 1606.07947), translated sources back-translation of the
corpus itself (Sennrich et al. 2016, arXiv 1511.06709). Nothing but the corpus is used.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from pydantic import TypeAdapter

from seq2seq.atomic import left_behind
from seq2seq.errors import OptionError, UserError
from seq2seq.files import locked, naming, replacing
from seq2seq.text.reading import aligned_files
from seq2seq.untrusted import open_regular

Pair = tuple[str, str]
_KEPT_LINE = TypeAdapter(tuple[str, list[str | None]])
LOCK, KEPT = ".diversify.lock", ".translated"


class Translates(Protocol):
    """What a teacher is asked: its translations of each line, in the lines' order; None for each that is no good."""

    def __call__(self, lines: Iterable[str]) -> Iterator[Sequence[str | None]]: ...


@dataclass(frozen=True)
class Teacher:
    """A model that translates the corpus: its name, and how to load it.

    key: stands for all that its translations depend on beside the corpus. By it they are known when they are kept.
    """

    name: str
    key: str
    load: Callable[[], Translates]


@dataclass
class Counts:
    """Pairs of the corpus, those of it that were left out for an empty side; pairs that models added, and did not."""

    corpus: int = 0
    empty: int = 0
    added: int = 0
    repeated: int = 0  # there already
    bad: int = 0  # cut, looping, endless or empty

    @property
    def written(self) -> int:
        return self.corpus + self.added

    def describe(self) -> str:
        parts = [f"{self.corpus:,} pair{'s' if self.corpus != 1 else ''} of the corpus"]
        parts += [f"{self.empty:,} with an empty side left out"] * (self.empty > 0)
        parts += [f"{self.added:,} added", f"{self.repeated:,} translations that were there already"]
        parts += [f"{self.bad:,} that were cut or ran into loops"] * (self.bad > 0)
        return f"{', '.join(parts)}: {self.written:,} pairs"


def output_paths(source: Path, target: Path, folder: Path) -> tuple[Path, Path]:
    """Where `diversify` writes: the names of the corpus in another folder, not gzipped. Raises OptionError."""
    for name, path in (("--source", source), ("--target", target)):
        if path.exists() and not path.is_file():
            raise OptionError(f"{name} {path}: is no file; it is read once for each model, so name one that stays")
    if folder.exists() and not folder.is_dir():
        raise OptionError(f"--output {folder}: is a file; name a folder")
    if (folder / "config.toml").exists():
        raise OptionError(f"--output {folder}: holds a run; name another folder")
    paths = tuple(folder / path.name.removesuffix(".gz") for path in (source, target))
    if paths[0] == paths[1]:
        raise OptionError(f"--source and --target are both named {paths[0].name}: rename one of them")
    for path in paths:
        if path.resolve() in (source.resolve(), target.resolve()):
            raise OptionError(f"--output {folder}: {path.name} there is the corpus itself; name another folder")
    return paths[0], paths[1]


def diversify(
    source: Path,
    target: Path,
    folder: Path,
    *,
    forward: Iterable[Teacher],
    backward: Iterable[Teacher],
    overwrite: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
    tell: Callable[[str], None] = lambda text: None,
) -> Counts:
    """Writes the pairs of two aligned files, and those with translations, into two files of the same names in a folder.

    forward, backward: models that translate sources, or targets; one is loaded at a time. The pairs of the corpus come
    first, all but those with an empty side, then those that each model adds, none of them twice. Both files appear when
    all is done; until then what has been translated is kept in the folder, and another start goes on from there.
    progress: told how many lines of how many a model has translated. tell: of what has been kept. Raises DataError for
    files that cannot be read, UserError where there are files to be overwritten, nothing to be translated, a corpus
    that changes meanwhile, or another process that writes into the folder.
    """
    paths = output_paths(source, target, folder)
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with locked(folder / LOCK, f"{folder}: another `diversify`{{holder}} writes there: name another folder"):
            for path in paths:
                if path.exists() and not overwrite:
                    raise UserError(f"{path}: is there already; add --overwrite, or name another folder")
                for old in left_behind(folder, path.name):
                    old.unlink()
            translated = _Translated(source, target, folder / KEPT, progress, tell)
            counts = _write(source, target, paths, translated, forward, backward)
            shutil.rmtree(folder / KEPT, ignore_errors=True)
            return counts
    except BaseException:
        for empty in (folder / KEPT, folder)[: 1 + made]:
            with contextlib.suppress(OSError):  # it holds what goes on being used, or is not there
                empty.rmdir()
        raise


def _write(
    source: Path,
    target: Path,
    paths: tuple[Path, Path],
    translated: _Translated,
    forward: Iterable[Teacher],
    backward: Iterable[Teacher],
) -> Counts:
    counts, seen, whole = Counts(), set[bytes](), hashlib.blake2b()
    with contextlib.ExitStack() as opened:
        temporary = [opened.enter_context(replacing(path)) for path in paths]
        files = [opened.enter_context(path.open("w", encoding="utf-8", newline="\n")) for path in temporary]

        def write(pair: Pair) -> None:
            for file, text in zip(files, pair, strict=True):
                file.write(f"{text}\n")

        for pair in aligned_files(source, target):
            if not all(text.strip() for text in pair):
                counts.empty += 1
                continue
            counts.corpus += 1
            whole.update(_digest(pair))
            seen.add(_digest(pair))
            write(pair)
        if not counts.corpus:
            raise UserError(f"{source}, {target}: no pairs with something on both sides ({counts.empty:,} without)")
        for pair in translated.pairs(whole.digest(), forward, backward, counts):
            if _digest(pair) in seen:
                counts.repeated += 1
                continue
            seen.add(_digest(pair))
            counts.added += 1
            write(pair)
        for file in files:
            file.close()  # before it is renamed
    return counts


def _digest(pair: Pair) -> bytes:
    return hashlib.blake2b("\n".join(pair).encode(), digest_size=16).digest()


@dataclass(frozen=True)
class _Translated:
    """The pairs of a corpus with one side translated. folder: where translations are kept until all are there."""

    source: Path
    target: Path
    folder: Path
    progress: Callable[[int, int], None]
    tell: Callable[[str], None]

    def pairs(
        self, whole: bytes, forward: Iterable[Teacher], backward: Iterable[Teacher], counts: Counts
    ) -> Iterator[Pair]:
        """Model by model. whole: the hash of all pairs, read before."""
        for side, teachers in enumerate((forward, backward)):
            for teacher in teachers:
                key = hashlib.blake2b(b"%d %b %b" % (side, whole, teacher.key.encode()), digest_size=16).hexdigest()
                yield from self._by(teacher, side, whole, self.folder / f"{key}.jsonl", counts)

    def _by(self, teacher: Teacher, side: int, whole: bytes, kept: Path, counts: Counts) -> Iterator[Pair]:
        found, read = 0, hashlib.blake2b()
        corpus = (pair for pair in aligned_files(self.source, self.target) if all(text.strip() for text in pair))
        pairs, given = itertools.tee(corpus)  # a translator reads some thousand lines ahead
        lines = (pair[side] for pair in given)
        for some, pair in zip(self._asked(teacher, lines, kept, counts.corpus), pairs, strict=True):
            found += 1
            read.update(_digest(pair))
            self.progress(found, counts.corpus)
            for translation in some:
                if translation is None or not translation.strip():
                    counts.bad += 1
                else:
                    yield (pair[0], translation) if side == 0 else (translation, pair[1])
        if read.digest() != whole:
            kept.unlink(missing_ok=True)  # of no more use
            raise UserError(
                f"{self.source}, {self.target}: changed while they were translated (there were {counts.corpus:,} "
                f"pairs, now {found:,}); they are read once for each model and must stay as they are"
            )

    def _asked(self, teacher: Teacher, lines: Iterator[str], kept: Path, total: int) -> Iterator[Sequence[str | None]]:
        """The translations of each line: those that are kept, then those that the model makes, which are added."""
        size = number = 0
        for of, before, length in _whole_lines(kept):
            line = next(lines, None)
            if line is None:
                return
            if of != _line_digest(line):  # the corpus changed, and changed back after a stop
                lines = itertools.chain([line], lines)
                break
            size, number = size + length, number + 1
            yield before
        if number:
            self.tell(f"{teacher.name}: {number:,} lines were translated before")
        if number == total:
            yield from ([] for _ in lines)  # none, unless the corpus has grown, which is then told
            return
        lines, given = itertools.tee(lines)
        with contextlib.ExitStack() as opened:
            file = None
            for some, line in zip(teacher.load()(given), lines, strict=True):
                with naming(kept):
                    file = file or opened.enter_context(_to_go_on(kept, size))
                    file.write(json.dumps([_line_digest(line), list(some)]).encode() + b"\n")
                yield some


def _line_digest(line: str) -> str:
    return hashlib.blake2b(line.encode(), digest_size=8).hexdigest()


def _whole_lines(kept: Path) -> Iterator[tuple[str, list[str | None], int]]:
    """What lines were translated, their translations, and how many bytes it takes, up to what is torn by a kill."""
    if not kept.exists():
        return
    with open_regular(kept) as file:
        for line in file:
            try:
                of, some = _KEPT_LINE.validate_json(line)
            except ValueError:
                return
            if not line.endswith(b"\n"):
                return
            yield of, some, len(line)


def _to_go_on(kept: Path, size: int) -> BinaryIO:
    """A file to be written after `size` bytes, at once: what has been translated outlasts a kill."""
    kept.parent.mkdir(exist_ok=True)
    file = kept.open("ab", buffering=0)
    file.truncate(size)
    return file
