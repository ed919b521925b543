"""BLEU, chrF and TER, as sacreBLEU computes them; their confidence intervals and paired significance tests too.

This is the one scoring path of the project: validation during training, `benchmark` and the experiments all come here.
Nothing is tokenised, lower-cased or otherwise prepared on the way, so a score is the one that the `sacrebleu` command
gives for the same files, and its signature is sacreBLEU's own. Resampling is seeded as sacreBLEU does it: with 12345,
or with what the environment variable SACREBLEU_SEED says.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast, get_args

import numpy as np

from seq2seq.config import ConfigError
from seq2seq.evaluation.significance import randomization_p_value
from seq2seq.evaluation.tokenization import tokenizer_errors

Metric = Literal["bleu", "chrf", "chrf++", "ter"]
METRICS: tuple[Metric, ...] = get_args(Metric)
USUAL_METRICS: tuple[Metric, ...] = ("bleu", "chrf", "ter")

NUM_SAMPLES = 1000  # bootstrap resamples, sacreBLEU's default, and as many trials of the significance test
MIN_SAMPLES = 100
# Lines times resamples: sacreBLEU gathers the statistics of all resamples at once, up to 72 bytes a line of each.
MAX_DRAWS = 20_000_000


@dataclass(frozen=True)
class Score:
    """One metric of one system on one test set.

    name: as sacreBLEU writes it ("BLEU", "chrF2", "TER"). value: on the whole test set, 0 to 100 (TER may exceed 100,
    and lower is better). mean, confidence: over the bootstrap resamples, the mean and half the width of the 95 %
    interval around it. p_value: of a difference to the first system like this one where the two are equally good, by
    `num_samples` trials of approximate randomisation; None for the first itself.
    """

    metric: Metric
    name: str
    value: float
    mean: float
    confidence: float
    p_value: float | None
    num_samples: int
    seed: str
    signature: str

    @property
    def low(self) -> float:
        return max(0.0, self.mean - self.confidence)

    @property
    def high(self) -> float:
        high = self.mean + self.confidence
        return high if self.metric == "ter" else min(100.0, high)

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "low": self.low, "high": self.high}


def parse_metrics(text: str, name: str = "metrics") -> tuple[Metric, ...]:
    """ "bleu,chrf" as a tuple, without repetitions. Raises ConfigError (a ValueError) for a metric that is not known.

    name: of the option that the message is to speak of.
    """
    named = [one.strip().lower() for one in text.split(",") if one.strip()]
    if not named:
        raise ConfigError(f"{name} {text!r}: names none; choose from {', '.join(METRICS)}")
    for one in named:
        if one not in METRICS:
            raise ConfigError(f"{name} {one}: not one of the metrics; choose from {', '.join(METRICS)}")
    return cast("tuple[Metric, ...]", tuple(dict.fromkeys(named)))


def check_seed() -> None:
    """Raises ConfigError for a SACREBLEU_SEED that is no seed."""
    seed = os.environ.get("SACREBLEU_SEED", "0")
    if seed.lower() != "none" and not seed.isdecimal():
        raise ConfigError(f"SACREBLEU_SEED = {seed!r} in the environment: set a whole number, or None, or remove it")


def corpus_bleu(hypotheses: Sequence[str], references: Sequence[str], tokenize: str = "13a") -> float:
    """BLEU of hypotheses against one reference each, 0 to 100.

    Raises ValueError, with both counts, where there is not one reference a hypothesis or nothing to score.
    """
    check_counts(hypotheses, [references])
    return float(_make_metric("bleu", tokenize, [references]).corpus_score(list(hypotheses), None).score)


def compare_systems(
    systems: Sequence[Sequence[str]],
    references: Sequence[Sequence[str]],
    metrics: Sequence[Metric] = USUAL_METRICS,
    tokenize: str = "13a",
    num_samples: int = NUM_SAMPLES,
    *,
    lowercase: bool = False,
) -> list[dict[Metric, Score]]:
    """The scores of each system, and how probable its difference to the first is by chance.

    systems: hypotheses, one a line of the test set. references: one or more whole sets of them; where a line is blank
    in one and not in another, it counts as not given. num_samples: resamples, and trials of the significance test; for
    more than 20,000 lines fewer are drawn, and the signature says how many, so that memory stays bounded up to
    200,000; beyond, as few as make an interval. lowercase: without regard to case (TER never regards it). Raises
    ValueError where counts do not fit, ConfigError for unknown metrics and tokenisations, DataError for a tokeniser
    whose model cannot be fetched.
    """
    for hypotheses in systems:
        check_counts(hypotheses, references)
    if num_samples < 2:
        raise ConfigError(f"num_samples = {num_samples} is too few to resample; use {NUM_SAMPLES}")
    metrics = parse_metrics(",".join(metrics))
    num_samples = min(num_samples, max(MIN_SAMPLES, MAX_DRAWS // len(references[0])))
    scores: list[dict[Metric, Score]] = [{} for _ in systems]
    for metric in metrics:
        instance = _make_metric(metric, tokenize, references, lowercase=lowercase)
        for found, score in zip(scores, _score_all(metric, instance, systems, num_samples), strict=True):
            found[metric] = score
    return scores


def _score_all(metric: Metric, instance: Any, systems: Sequence[Sequence[str]], num_samples: int) -> list[Score]:
    """One metric's score of each system. Each system's statistics are counted once: those of TER are dear."""
    from sacrebleu.significance import _bootstrap_resample, estimate_ci

    scores = []
    baseline = None
    for hypotheses in systems:
        statistics = instance._extract_corpus_statistics(list(hypotheses), None)
        whole = instance._aggregate_and_compute(statistics)
        instance.seed, resampled = _bootstrap_resample(statistics, instance, num_samples)
        instance.n_bootstrap = num_samples
        mean, confidence = estimate_ci(np.array([one.score for one in resampled], dtype=np.float64))
        p_value = None
        if baseline is None:
            baseline = statistics
        else:
            p_value = randomization_p_value(instance, baseline, statistics, num_samples, instance.seed)
        scores.append(
            Score(
                metric=metric,
                name=whole.name,
                value=float(whole.score),
                mean=float(mean),
                confidence=float(confidence),
                p_value=p_value,
                num_samples=num_samples,
                seed=str(instance.seed),
                signature=str(instance.get_signature()),
            )
        )
    return scores


def check_counts(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    """Raises ValueError, with the counts, where there is not one reference a hypothesis or nothing to score."""
    if not references:
        raise ValueError(f"{len(hypotheses):,} hypotheses and no references: give a reference for each")
    for number, lines in enumerate(references, 1):
        if len(hypotheses) != len(lines):
            which = f" in set {number}" if len(references) > 1 else ""
            raise ValueError(f"{len(hypotheses):,} hypotheses and {len(lines):,} references{which}: give one for each")
    if not hypotheses:
        raise ValueError("0 hypotheses and 0 references: there is nothing to score")


def _make_metric(metric: Metric, tokenize: str, references: Sequence[Sequence[str]], *, lowercase: bool = False) -> Any:
    """A sacreBLEU metric with sacreBLEU's own defaults, its references prepared once for all systems."""
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF
    from sacrebleu.metrics.ter import TER

    given: Any = _given_references(references)
    if metric == "bleu":
        with tokenizer_errors(tokenize):
            # force: no warning that text looks tokenised; it changes no number.
            return BLEU(tokenize=tokenize, force=True, lowercase=lowercase, references=given)
    if metric == "ter":
        return TER(references=given)
    return CHRF(lowercase=lowercase, word_order=2 if metric == "chrf++" else 0, references=given)


def _given_references(references: Sequence[Sequence[str]]) -> list[list[str | None]]:
    """The sets, with None for what is blank in one and not in another.

    To sacreBLEU an empty reference is one of length 0, and no translation too short to be as good as it.
    """
    some = [any(line.strip() for line in lines) for lines in zip(*references, strict=True)]
    return [
        [line if line.strip() or not text else None for line, text in zip(lines, some, strict=True)]
        for lines in references
    ]
