"""More training data out of the same: data diversification (Nguyen et al. 2020, arXiv 1911.01986).

Models that were trained on a corpus translate it: its sources by some, its targets by others that go the other way. A
model that is trained on the original pairs and these learns from several teachers at once. Translated targets alone are
sequence-level knowledge distillation (Kim and Rush 2016, arXiv 1606.07947), translated sources back-translation of the
corpus itself.

Text of one language alone can be translated with it, or in its place: that of the target by models that go the other
way is back-translation (Sennrich et al. 2016, arXiv 1511.06709), that of the source self-training (He et al. 2020,
arXiv 1909.13788).
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from seq2seq.atomic import left_behind
from seq2seq.errors import OptionError, UserError
from seq2seq.kept_translations import Kept, Translations
from seq2seq.run_folder.files import UnwrittenError, locked, replacing
from seq2seq.text.reading import aligned_files, read_lines
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


@dataclass(frozen=True)
class Monolingual:
    """Files with text of one language alone, one sentence a line, that models translate, too.

    sources, targets: in the language of either side. only: models translate these, and not the corpus.
    """

    sources: tuple[Path, ...] = ()
    targets: tuple[Path, ...] = ()
    only: bool = False

    def of(self, side: int) -> tuple[Path, ...]:
        return (self.sources, self.targets)[side]


@dataclass
class Counts:
    """Pairs of the corpus, those of it that were left out for an empty side; pairs that models added, and did not.

    monolingual: lines of one language.
    """

    corpus: int = 0
    empty: int = 0
    added: int = 0
    repeated: int = 0  # there already
    bad: int = 0  # cut, looping, endless or empty
    monolingual: int = 0

    @property
    def written(self) -> int:
        return self.corpus + self.added

    def describe(self) -> str:
        parts = [f"{self.corpus:,} pair{'s' if self.corpus != 1 else ''} of the corpus"]
        parts += [f"{self.empty:,} with an empty side left out"] * (self.empty > 0)
        parts += [f"{self.monolingual:,} line{'s' if self.monolingual != 1 else ''} of one language"] * (
            self.monolingual > 0
        )
        parts += [f"{self.added:,} added", f"{self.repeated:,} translations that were there already"]
        parts += [f"{self.bad:,} that were cut or ran into loops"] * (self.bad > 0)
        return f"{', '.join(parts)}: {self.written:,} pairs"


def output_paths(
    source: Path, target: Path, folder: Path, monolingual: Monolingual = Monolingual()
) -> tuple[Path, Path]:
    """Where `diversify` writes: the names of the corpus in another folder, not gzipped. Raises OptionError."""
    more = [("--monolingual-source", path) for path in monolingual.sources]
    more += [("--monolingual-target", path) for path in monolingual.targets]
    for name, path in (("--source", source), ("--target", target), *more):
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
        for name, other in more:
            if path.resolve() == other.resolve():
                raise OptionError(f"--output {folder}: {path.name} there is {name} {other}; name another folder")
    return paths[0], paths[1]


def diversify(
    source: Path,
    target: Path,
    folder: Path,
    *,
    forward: Iterable[Teacher],
    backward: Iterable[Teacher],
    monolingual: Monolingual = Monolingual(),
    overwrite: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
    tell: Callable[[str], None] = lambda text: None,
) -> Counts:
    """Writes the pairs of two aligned files, and those with translations, into two files of the same names in a folder.

    forward, backward: models that translate sources, or targets; one is loaded at a time. monolingual: text that they
    translate after the corpus. The pairs of the corpus come first, all but those with an empty side, then those that
    each model adds, none of them twice. Both files appear when
    all is done; until then what has been translated is kept in the folder, and another start goes on from there.
    progress: told how many lines of how many a model has translated. tell: of what has been kept. Raises DataError for
    files that cannot be read, UserError where there are files to be overwritten, nothing to be translated, a corpus
    that changes meanwhile, or another process that writes into the folder.
    """
    paths = output_paths(source, target, folder, monolingual)
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    translated = _Translated(_Texts(source, target, monolingual), folder / KEPT, progress, tell)
    try:
        check_links(folder, [LOCK, KEPT])
        with locked(folder / LOCK, f"{folder}: another `diversify`{{holder}} writes there: name another folder"):
            for path in paths:
                if path.exists() and not overwrite:
                    raise UserError(f"{path}: is there already; add --overwrite, or name another folder")
                for old in left_behind(folder, path.name):
                    old.unlink()
            try:
                counts = _write(paths, translated, forward, backward)
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
    paths: tuple[Path, Path], translated: _Translated, forward: Iterable[Teacher], backward: Iterable[Teacher]
) -> Counts:
    counts, seen, texts = Counts(), set[bytes](), translated.texts
    with contextlib.ExitStack() as opened:
        temporary = [opened.enter_context(replacing(path)) for path in paths]
        files = [opened.enter_context(path.open("w", encoding="utf-8", newline="\n")) for path in temporary]

        def write(pair: Pair) -> None:
            for file, text in zip(files, pair, strict=True):
                file.write(f"{text}\n")

        whole = _Whole()
        for pair in aligned_files(texts.source, texts.target):
            if not all(text.strip() for text in pair):
                counts.empty += 1
                continue
            counts.corpus += 1
            seen.add(whole.add(pair))
            write(pair)
        if not counts.corpus:
            names = f"{texts.source}, {texts.target}"
            raise UserError(f"{names}: no pairs with something on both sides ({counts.empty:,} without)")
        wholes = [texts.whole(side, whole) for side in (0, 1)]
        counts.monolingual = sum(texts.lines)
        for pair in translated.pairs(wholes, forward, backward, counts):
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


@dataclass
class _Whole:
    """A hash of pairs, in their order, and how many there are."""

    hash: Any = field(default_factory=hashlib.blake2b)
    count: int = 0

    def add(self, pair: Pair) -> bytes:
        digest = _digest(pair)
        self.hash.update(digest)
        self.count += 1
        return digest

    def copy(self) -> _Whole:
        return _Whole(self.hash.copy(), self.count)


class _Texts:
    """What is translated: the pairs of a corpus, and lines of one language as pairs with an empty side."""

    def __init__(self, source: Path, target: Path, monolingual: Monolingual) -> None:
        self.source, self.target, self.monolingual = source, target, monolingual
        self.lines = [0, 0]  # of one language, on either side

    def pairs(self, side: int) -> Iterator[Pair]:
        """All that models of a side translate."""
        if not self.monolingual.only:
            yield from (pair for pair in aligned_files(self.source, self.target) if all(text.strip() for text in pair))
        yield from self._of_one_language(side)

    def _of_one_language(self, side: int) -> Iterator[Pair]:
        lines = (line for path in self.monolingual.of(side) for line in read_lines(path) if line.strip())
        return ((line, "") if side == 0 else ("", line) for line in lines)

    def whole(self, side: int, corpus: _Whole) -> _Whole:
        """Of `pairs`, given what the corpus is. Raises UserError for files without any text."""
        whole = _Whole() if self.monolingual.only else corpus.copy()
        for path in self.monolingual.of(side):
            if not any(line.strip() for line in read_lines(path)):
                raise UserError(f"{path}: no lines with text; nothing there to translate")
        before = whole.count
        for pair in self._of_one_language(side):
            whole.add(pair)
        self.lines[side] = whole.count - before
        return whole

    def changed(self, side: int, before: int, now: int) -> UserError:
        corpus = () if self.monolingual.only else (self.source, self.target)
        names = ", ".join(map(str, (*corpus, *self.monolingual.of(side))))
        return UserError(
            f"{names}: changed while they were translated (there were {before:,} pairs, now {now:,}); they are read "
            "once for each model and must stay as they are"
        )


class _Translated:
    """Pairs with one side translated. folder: where translations are kept until all are there."""

    def __init__(
        self, texts: _Texts, folder: Path, progress: Callable[[int, int], None], tell: Callable[[str], None]
    ) -> None:
        self.texts, self.folder, self.progress, self.tell = texts, folder, progress, tell
        self._files: list[Path] = []  # of one path twice where two models are the same

    def kept(self) -> bool:
        """Whether something has been translated now or was taken from an earlier start."""
        return any(path.exists() for path in self._files)

    def forget(self) -> None:
        """Removes it, and nothing that others have kept there."""
        for path in self._files:
            path.unlink(missing_ok=True)

    def pairs(
        self, wholes: Sequence[_Whole], forward: Iterable[Teacher], backward: Iterable[Teacher], counts: Counts
    ) -> Iterator[Pair]:
        """Model by model. wholes: what all pairs are that either side's models are given, read before."""
        for side, teachers in enumerate((forward, backward)):
            whole = wholes[side]
            for teacher in teachers:
                parts = (side, whole.hash.digest(), teacher.key.encode())
                key = hashlib.blake2b(b"%d %b %b" % parts, digest_size=16).hexdigest()
                self._files.append(self.folder / f"{key}.jsonl")
                if self._files[-1].exists():
                    self._compare(side, whole, self._now(side))
                kept = Kept(self._files[-1], teacher.name, self.tell)
                yield from self._by(teacher, side, whole, kept, counts)

    def _now(self, side: int) -> _Whole:
        now = _Whole()
        for pair in self.texts.pairs(side):
            now.add(pair)
        return now

    def _compare(self, side: int, before: _Whole, now: _Whole) -> None:
        if (now.hash.digest(), now.count) != (before.hash.digest(), before.count):
            raise self.texts.changed(side, before.count, now.count)

    def _by(self, teacher: Teacher, side: int, whole: _Whole, kept: Kept, counts: Counts) -> Iterator[Pair]:
        read = _Whole()
        pairs, given = itertools.tee(self.texts.pairs(side))  # a translator reads some thousand lines ahead
        lines = (pair[side] for pair in given)
        translations = kept.translations(lines, whole.count, lambda rest: teacher.load()(rest))
        for some, pair in zip(translations, pairs, strict=True):
            read.add(pair)
            self.progress(read.count, whole.count)
            for translation in some:
                if translation is None or not translation.strip():
                    counts.bad += 1
                else:
                    yield (pair[0], translation) if side == 0 else (translation, pair[1])
        self._compare(side, whole, read)
