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
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from seq2seq.atomic import left_behind
from seq2seq.errors import OptionError, UserError
from seq2seq.files import UnwrittenError, locked, replacing
from seq2seq.kept_translations import Kept, Translations
from seq2seq.text.reading import aligned_files
from seq2seq.untrusted import check_links

Pair = tuple[str, str]
LOCK, KEPT = ".diversify.lock", ".translated"


class Translates(Protocol):
    """What a teacher is asked: its translations of each line, in the lines' order; None for each that is no good."""

    def __call__(self, lines: Iterable[str]) -> Iterator[Translations]: ...


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
    translated = _Translated((source, target), folder / KEPT, progress, tell)
    try:
        check_links(folder, [LOCK, KEPT])
        with locked(folder / LOCK, f"{folder}: another `diversify`{{holder}} writes there: name another folder"):
            for path in paths:
                if path.exists() and not overwrite:
                    raise UserError(f"{path}: is there already; add --overwrite, or name another folder")
                for old in left_behind(folder, path.name):
                    old.unlink()
            try:
                counts = _write(source, target, paths, translated, forward, backward)
                translated.forget()
            except BaseException as error:
                if translated.kept() and not (isinstance(error, UserError) and not isinstance(error, UnwrittenError)):
                    again = " with --overwrite" if not overwrite and any(path.exists() for path in paths) else ""
                    tell(f"what has been translated is in {folder / KEPT}: the same command{again} goes on from there")
                raise
            finally:
                with contextlib.suppress(OSError):  # others have kept something there, or there is none
                    (folder / KEPT).rmdir()
            if (folder / KEPT).exists():
                tell(f"{folder / KEPT} has what other commands translated; remove it where none is to go on")
            return counts
    except BaseException:
        if made:
            with contextlib.suppress(OSError):
                folder.rmdir()
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


class _Translated:
    """The pairs of a corpus with one side translated. folder: where translations are kept until all are there."""

    def __init__(
        self,
        corpus: tuple[Path, Path],
        folder: Path,
        progress: Callable[[int, int], None],
        tell: Callable[[str], None],
    ) -> None:
        self.source, self.target = corpus
        self.folder, self.progress, self.tell = folder, progress, tell
        self._files: list[Path] = []  # of one path twice where two models are the same

    def kept(self) -> bool:
        """Whether something has been translated now or was taken from an earlier start."""
        return any(path.exists() for path in self._files)

    def forget(self) -> None:
        """Removes it, and nothing that others have kept there."""
        for path in self._files:
            path.unlink(missing_ok=True)

    def pairs(
        self, whole: bytes, forward: Iterable[Teacher], backward: Iterable[Teacher], counts: Counts
    ) -> Iterator[Pair]:
        """Model by model. whole: the hash of all pairs, read before."""
        for side, teachers in enumerate((forward, backward)):
            for teacher in teachers:
                key = hashlib.blake2b(b"%d %b %b" % (side, whole, teacher.key.encode()), digest_size=16).hexdigest()
                self._files.append(self.folder / f"{key}.jsonl")
                if self._files[-1].exists() and (now := self._hash()) != (whole, counts.corpus):
                    raise self._changed(counts.corpus, now[1])
                kept = Kept(self._files[-1], teacher.name, self.tell)
                yield from self._by(teacher, side, whole, kept, counts)

    def _corpus(self) -> Iterator[Pair]:
        return (pair for pair in aligned_files(self.source, self.target) if all(text.strip() for text in pair))

    def _hash(self) -> tuple[bytes, int]:
        """Of all pairs, and how many there are."""
        read, found = hashlib.blake2b(), 0
        for pair in self._corpus():
            read.update(_digest(pair))
            found += 1
        return read.digest(), found

    def _changed(self, before: int, now: int) -> UserError:
        return UserError(
            f"{self.source}, {self.target}: changed while they were translated (there were {before:,} pairs, now "
            f"{now:,}); they are read once for each model and must stay as they are"
        )

    def _by(self, teacher: Teacher, side: int, whole: bytes, kept: Kept, counts: Counts) -> Iterator[Pair]:
        found, read = 0, hashlib.blake2b()
        pairs, given = itertools.tee(self._corpus())  # a translator reads some thousand lines ahead
        lines = (pair[side] for pair in given)
        translations = kept.translations(lines, counts.corpus, lambda rest: teacher.load()(rest))
        for some, pair in zip(translations, pairs, strict=True):
            found += 1
            read.update(_digest(pair))
            self.progress(found, counts.corpus)
            for translation in some:
                if translation is None or not translation.strip():
                    counts.bad += 1
                else:
                    yield (pair[0], translation) if side == 0 else (translation, pair[1])
        if read.digest() != whole:
            raise self._changed(counts.corpus, found)
