"""Test sets: source and references from files, or from sacreBLEU's collection by name."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError

from seq2seq.config import ConfigError
from seq2seq.evaluation.downloads import download_timeout, one_line
from seq2seq.text.errors import DataError
from seq2seq.text.reading import read_lines


@dataclass(frozen=True)
class TextFile:
    """The lines of a file, and where they came from."""

    name: str
    lines: list[str]

    @property
    def blank(self) -> int:
        """Lines with nothing but white space."""
        return sum(not line.strip() for line in self.lines)

    def as_dict(self) -> dict[str, Any]:
        digest = sha256_of_lines(self.lines)
        return {"file": self.name, "lines": len(self.lines), "blank_lines": self.blank, "sha256": digest}


@dataclass(frozen=True)
class EvaluationSet:
    """A test set: source sentences and one or more whole sets of references, all raw, detokenised text.

    name, language_pair: as sacreBLEU knows it, empty for files.
    """

    source: TextFile
    references: tuple[TextFile, ...]
    name: str = ""
    language_pair: str = ""

    def __len__(self) -> int:
        return len(self.source.lines)

    def remarks(self) -> list[str]:
        """What should be known of the test set before its scores are believed, a line each."""
        counted = "and count in the scores: whatever is said there is wrong"
        if len(self.references) > 1:
            counted = "and count as not given where another set has text, else as text that is empty"
        effects = [
            (self.source, "and count in the scores: a blank sentence is translated by a blank one"),
            *((reference, counted) for reference in self.references),
        ]
        return [
            f"{file.name}: {file.blank:,} of {len(file.lines):,} lines are blank, {effect}"
            for file, effect in effects
            if file.blank
        ]

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "language_pair": self.language_pair,
            "source": self.source.as_dict(),
            "references": [reference.as_dict() for reference in self.references],
        }


def sha256_of_lines(lines: Sequence[str]) -> str:
    """SHA-256 of the lines, each ended by a line feed: what `sha256sum` gives for a plain file of them."""
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode("utf-8") + b"\n")
    return digest.hexdigest()


def load_test_set(source: Path, references: Sequence[Path]) -> EvaluationSet:
    """A test set from files, gzipped or not.

    Raises ConfigError where no reference file is given, DataError where files cannot be read, are empty, or do not have
    as many lines as each other.
    """
    if not references:
        raise ConfigError("--reference is missing: give --reference FILE, once for each set of references")
    return _checked(EvaluationSet(_read(source), tuple(_read(path) for path in references)))


def load_named_test_set(name: str, language_pair: str = "") -> EvaluationSet:
    """One of sacreBLEU's test sets, fetched on first use into sacreBLEU's own folder (~/.sacrebleu, or $SACREBLEU).

    language_pair: such as "en-de"; may be left out where the test set has only one. Raises ConfigError for an unknown
    name or pair, DataError where the test set cannot be fetched.
    """
    from sacrebleu.dataset import DATASETS
    from sacrebleu.utils import SACREBLEU_DIR

    if name not in DATASETS:
        close = difflib.get_close_matches(name, DATASETS, n=5, cutoff=0.5)
        hint = f"did you mean {' or '.join(close)}?" if close else "`sacrebleu --list` lists them"
        raise ConfigError(f"--test-set {name}: not one of sacreBLEU's; {hint}")
    dataset: Any = DATASETS[name]
    pairs = sorted(dataset.langpairs)
    if not language_pair and len(pairs) == 1:
        (language_pair,) = pairs
    if language_pair not in pairs:
        wrong = f" {language_pair}: not in test set {name}" if language_pair else f" is missing for test set {name}"
        raise ConfigError(f"--language-pair{wrong}; choose one of {', '.join(pairs)}")
    try:
        with download_timeout():
            source, references = dataset.get_source_file(language_pair), dataset.get_reference_files(language_pair)
    # Whatever goes wrong in there: the network, a lock, an archive; sacreBLEU itself ends the program for a wrong sum.
    except (Exception, SystemExit) as error:
        reason = "the download is not what it should be" if isinstance(error, SystemExit) else one_line(error)
        if isinstance(error, URLError) and error.reason:
            reason = str(error.reason)
        raise DataError(
            f"test set {name} ({language_pair}) cannot be fetched ({reason}); check the network, delete "
            f"{Path(SACREBLEU_DIR, name)} if a download broke off, or give files with --source and --reference"
        ) from None
    if not references:
        raise DataError(f"test set {name} ({language_pair}) has no references; choose another")
    files = (_read(Path(path)) for path in references)
    return _checked(EvaluationSet(_read(Path(source)), tuple(files), name, language_pair))


def _read(path: Path) -> TextFile:
    return TextFile(str(path), list(read_lines(path)))


def _checked(test_set: EvaluationSet) -> EvaluationSet:
    source = test_set.source
    for reference in test_set.references:
        if len(reference.lines) != len(source.lines):
            raise DataError(
                f"{source.name} has {len(source.lines):,} lines and {reference.name} has {len(reference.lines):,}; "
                f"line i of the one must translate line i of the other"
            )
    if not source.lines:
        raise DataError(f"{source.name}: no lines; a test set needs at least one")
    return test_set
