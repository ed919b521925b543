"""The benchmark: translate a test set with each system, time it, score it, and say what the scores are worth.

A system is a run that translates here, or a file of finished translations. Scores are given for the whole test set
and without the sentences that stand in the training data of any of the systems; the latter, after normalisation, is the
number to quote. All systems are scored on the same sentences, so that they can be compared pairwise.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from seq2seq.config import DecodingConfig
from seq2seq.evaluation.metrics import NUM_SAMPLES, USUAL_METRICS, Metric, Score, compare_systems
from seq2seq.evaluation.overlap import Overlap, find_overlap, union
from seq2seq.evaluation.testsets import EvaluationSet, sha256_of_lines
from seq2seq.runtime import describe_hardware
from seq2seq.text.errors import DataError, write_result
from seq2seq.text.reading import read_lines
from seq2seq.version import __version__

FORMAT_VERSION = 1  # of the JSON

Scores = dict[Metric, Score]


class Hypothesis(Protocol):
    @property
    def pieces(self) -> Sequence[str]: ...
    @property
    def ended(self) -> bool: ...


class Result(Protocol):
    @property
    def text(self) -> str: ...
    @property
    def hypotheses(self) -> Sequence[Hypothesis]: ...


class Translator(Protocol):
    """What the benchmark needs of a `seq2seq.decoding.translator.Translator`."""

    warn: Callable[[str], None]

    @property
    def config(self) -> DecodingConfig: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def precision(self) -> str: ...

    @property
    def translate(self) -> Callable[..., Sequence[Result]]: ...


@dataclass(frozen=True)
class Speed:
    """How long translating the test set took, without loading the model.

    output_tokens: target pieces, end-of-sentence included where it came. hardware: what it ran on, in one line;
    precision: of its arithmetic, "fp32" or "bf16".
    """

    seconds: float
    sentences: int
    output_tokens: int
    hardware: str
    precision: str

    @property
    def sentences_per_second(self) -> float:
        return self.sentences / max(self.seconds, 1e-9)

    @property
    def output_tokens_per_second(self) -> float:
        return self.output_tokens / max(self.seconds, 1e-9)

    def as_dict(self) -> dict[str, Any]:
        return {
            "seconds": self.seconds,
            "sentences_per_second": self.sentences_per_second,
            "output_tokens": self.output_tokens,
            "output_tokens_per_second": self.output_tokens_per_second,
            "hardware": self.hardware,
            "precision": self.precision,
        }


@dataclass(frozen=True)
class SystemOutput:
    """The translations of a test set by one system. A file of finished translations has nothing but name and lines.

    decoding: the options that it was translated with. overlap: of the test set with the system's training data.
    """

    name: str
    hypotheses: list[str]
    speed: Speed | None = None
    decoding: Mapping[str, Any] | None = None
    overlap: Overlap | None = None


@dataclass(frozen=True)
class Subset:
    """Part of the test set, and what each system scores on it, in the systems' order; nothing where no line is left."""

    lines: int
    scores: list[Scores]


@dataclass(frozen=True)
class BenchmarkReport:
    """What the benchmark found. The two subsets are None where no system's training data is known."""

    test_set: EvaluationSet
    systems: list[SystemOutput]
    metrics: tuple[Metric, ...]
    tokenize: str
    lowercase: bool
    whole: Subset
    without_exact: Subset | None
    without_normalized: Subset | None
    versions: Mapping[str, str] = field(default_factory=lambda: versions())

    def as_dict(self) -> dict[str, Any]:
        """All of it as JSON takes it."""
        subsets = {
            "whole": self.whole,
            "without_exact_overlap": self.without_exact,
            "without_normalized_overlap": self.without_normalized,
        }
        systems = []
        for index, system in enumerate(self.systems):
            overlap = system.overlap
            entry: dict[str, Any] = {
                "name": system.name,
                "hypotheses": {"lines": len(system.hypotheses), "sha256": sha256_of_lines(system.hypotheses)},
                "decoding": dict(system.decoding) if system.decoding is not None else None,
                "speed": system.speed.as_dict() if system.speed else None,
                "overlap": {"exact": overlap.exact, "normalized": overlap.normalized} if overlap else None,
            }
            for name, subset in subsets.items():
                scores = subset.scores[index] if subset and subset.scores else None
                key = "scores" if name == "whole" else f"scores_{name}"
                entry[key] = {metric: score.as_dict() for metric, score in scores.items()} if scores else None
            systems.append(entry)
        return {
            "format_version": FORMAT_VERSION,
            "test_set": self.test_set.as_dict(),
            "lines": {name: subset.lines if subset else None for name, subset in subsets.items()},
            "metrics": list(self.metrics),
            "tokenize": self.tokenize if "bleu" in self.metrics else None,
            "lowercase": self.lowercase,
            "signatures": {metric: score.signature for metric, score in self.whole.scores[0].items()},
            "systems": systems,
            "versions": dict(self.versions),
        }


def translate_test_set(
    translator: Translator,
    sources: Sequence[str],
    *,
    name: str,
    search: Mapping[str, Any] | None = None,
    source_hashes: Mapping[str, NDArray[np.int64]] | None = None,
) -> SystemOutput:
    """Translates and times a test set. Empty lines are translated by empty lines and give no output tokens.

    search: options of `translate`, such as beam_size, that are not to be the run's own. source_hashes: "exact" and
    "normalized", as the run folder has them. One sentence is translated before the clock starts, so that start-up costs
    are not counted.
    """
    search = dict(search or {})
    first = next((line for line in sources if line.strip()), None)
    if first is not None:
        warn, translator.warn = translator.warn, lambda text: None  # it is translated, and warned of, once more
        try:
            translator.translate([first], **search)
        finally:
            translator.warn = warn
    start = time.perf_counter()
    results = translator.translate(sources, **search)
    seconds = time.perf_counter() - start
    best = [result.hypotheses[0] for line, result in zip(sources, results, strict=True) if line.strip()]
    tokens = sum(len(hypothesis.pieces) + hypothesis.ended for hypothesis in best)
    return SystemOutput(
        name=name,
        hypotheses=[result.text for result in results],
        speed=Speed(seconds, len(sources), tokens, describe_hardware(translator.device), translator.precision),
        decoding={**translator.config.model_dump(), **search},
        overlap=find_overlap(sources, source_hashes["exact"], source_hashes["normalized"]) if source_hashes else None,
    )


def load_translations(path: Path) -> SystemOutput:
    """A file of finished translations, one a line, gzipped or not. Raises DataError where it cannot be read."""
    return SystemOutput(name=str(path), hypotheses=list(read_lines(path)))


def check_lines(system: SystemOutput, test_set: EvaluationSet) -> None:
    """Raises DataError where a system does not have a translation for each line."""
    if len(system.hypotheses) != len(test_set):
        raise DataError(
            f"{system.name} has {len(system.hypotheses):,} lines and {test_set.source.name} has {len(test_set):,}: "
            f"give one translation for each line of the test set"
        )


def run_benchmark(
    test_set: EvaluationSet,
    systems: Sequence[SystemOutput],
    metrics: Sequence[Metric] = USUAL_METRICS,
    tokenize: str = "13a",
    num_samples: int = NUM_SAMPLES,
    *,
    lowercase: bool = False,
) -> BenchmarkReport:
    """Scores the systems on the whole test set and without what stands in their training data.

    Raises DataError where a system does not have a translation for each line, ConfigError for unknown metrics and
    tokenisations.
    """
    assert systems, "a benchmark needs a system"
    for system in systems:
        check_lines(system, test_set)
    done: dict[bytes, Subset] = {}  # by mask: mostly there is no overlap, and each set of scores costs seconds

    def score(keep: NDArray[np.bool_]) -> Subset:
        if keep.tobytes() not in done:
            chosen = np.flatnonzero(keep).tolist()
            outputs = [[system.hypotheses[i] for i in chosen] for system in systems]
            references = [[reference.lines[i] for i in chosen] for reference in test_set.references]
            scores = []
            if chosen:
                scores = compare_systems(outputs, references, metrics, tokenize, num_samples, lowercase=lowercase)
            done[keep.tobytes()] = Subset(len(chosen), scores)
        return done[keep.tobytes()]

    overlap = union([system.overlap for system in systems if system.overlap])
    whole = score(np.ones(len(test_set), dtype=np.bool_))
    return BenchmarkReport(
        test_set=test_set,
        systems=list(systems),
        metrics=tuple(whole.scores[0]),
        tokenize=tokenize,
        lowercase=lowercase,
        whole=whole,
        without_exact=score(overlap.keep_exact) if overlap else None,
        without_normalized=score(overlap.keep_normalized) if overlap else None,
    )


def save_report(report: BenchmarkReport, path: Path) -> None:
    """Writes the report as JSON, whole or not at all. Raises DataError where that is not possible."""
    text = json.dumps(report.as_dict(), indent=2, ensure_ascii=False) + "\n"
    # Of names of files that are no UTF-8 Python keeps halves of characters; JSON writes them as \udc..
    write_result(path, text.encode("utf-8", "backslashreplace").decode("utf-8"))


def versions() -> dict[str, str]:
    """The versions of what the numbers depend on."""
    names = ("torch", "sentencepiece", "sacrebleu")
    return {
        "seq2seq": __version__,
        **{name: metadata.version(name) for name in names},
        "python": platform.python_version(),
    }
