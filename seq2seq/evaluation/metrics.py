"""BLEU, chrF and TER, as sacreBLEU computes them; their confidence intervals and paired significance tests too.

This is the one scoring path of the project: validation during training, `benchmark` and the experiments all come here.
Nothing is tokenised, lower-cased or otherwise prepared on the way, so a score is the one that the `sacrebleu` command
gives for the same files, and its signature is sacreBLEU's own. Resampling is seeded as sacreBLEU does it: with 12345,
or with what the environment variable SACREBLEU_SEED says.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast, get_args

from seq2seq.config import ConfigError
from seq2seq.text.errors import DataError

Metric = Literal["bleu", "chrf", "ter"]
METRICS: tuple[Metric, ...] = get_args(Metric)

NUM_SAMPLES = 1000  # bootstrap resamples, sacreBLEU's default
MIN_SAMPLES = 100
# Lines times resamples: sacreBLEU gathers the statistics of all resamples at once, up to 72 bytes a line of each.
MAX_DRAWS = 20_000_000


@dataclass(frozen=True)
class Score:
    """One metric of one system on one test set.

    name: as sacreBLEU writes it ("BLEU", "chrF2", "TER"). value: on the whole test set, 0 to 100 (TER may exceed 100,
    and lower is better). mean, confidence: over the bootstrap resamples, the mean and half the width of the 95 %
    interval around it. p_value: of the paired bootstrap test against the first system, None for that one itself.
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
        return self.mean - self.confidence

    @property
    def high(self) -> float:
        return self.mean + self.confidence

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "low": self.low, "high": self.high}


def parse_metrics(text: str) -> tuple[Metric, ...]:
    """ "bleu,chrf" as a tuple, without repetitions. Raises ConfigError (a ValueError) for a name that is not known."""
    names = [name.strip().lower() for name in text.split(",") if name.strip()]
    if not names:
        raise ConfigError(f"metrics = {text!r} names none; choose from {', '.join(METRICS)}")
    for name in names:
        if name not in METRICS:
            raise ConfigError(f"metrics = {name!r} is unknown; choose from {', '.join(METRICS)}")
    return cast("tuple[Metric, ...]", tuple(dict.fromkeys(names)))


def check_tokenize(tokenize: str) -> None:
    """Raises ConfigError (a ValueError), naming the choices, for a tokenisation that sacreBLEU does not have."""
    from sacrebleu.metrics.bleu import BLEU

    if tokenize not in BLEU.TOKENIZERS:
        close = difflib.get_close_matches(tokenize, BLEU.TOKENIZERS, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise ConfigError(f"tokenize = {tokenize!r} is unknown{hint}; choose from {', '.join(BLEU.TOKENIZERS)}")


def usual_tokenize(target_language: str) -> str:
    """The tokenisation that sacreBLEU takes for a language (an ISO code such as "zh") where nobody names another."""
    from sacrebleu.metrics.bleu import BLEU

    language = target_language.lower().replace("_", "-").split("-")[0]
    return str(BLEU._TOKENIZER_MAP.get(language, "13a"))


def tokenize_remark(tokenize: str, target_language: str) -> str | None:
    """What is to be said of 13a for a language that sacreBLEU tokenises in another way."""
    usual = usual_tokenize(target_language)
    if tokenize != "13a" or usual == "13a":
        return None
    return (
        f"BLEU is tokenised by 13a; for {target_language} sacreBLEU takes {usual}, and published figures cannot be "
        "compared with others"
    )


def check_seed() -> None:
    """Raises ConfigError for a SACREBLEU_SEED that is no seed."""
    seed = os.environ.get("SACREBLEU_SEED", "0")
    if seed.lower() != "none" and not seed.isdecimal():
        raise ConfigError(f"SACREBLEU_SEED = {seed!r} in the environment: set a whole number, or None, or remove it")


def try_tokenize(tokenize: str) -> None:
    """Raises ConfigError or DataError for a tokenisation that cannot be had: its package or its model is missing."""
    corpus_bleu(["a"], ["a"], tokenize)


def corpus_bleu(hypotheses: Sequence[str], references: Sequence[str], tokenize: str = "13a") -> float:
    """BLEU of hypotheses against one reference each, 0 to 100.

    Raises ValueError, with both counts, where there is not one reference a hypothesis or nothing to score.
    """
    check_counts(hypotheses, [references])
    return float(_make_metric("bleu", tokenize, [references]).corpus_score(list(hypotheses), None).score)


def score_system(
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    metrics: Sequence[Metric] = METRICS,
    tokenize: str = "13a",
    num_samples: int = NUM_SAMPLES,
) -> dict[Metric, Score]:
    """The scores of one system; see `compare_systems`."""
    return compare_systems([hypotheses], references, metrics, tokenize, num_samples)[0]


def compare_systems(
    systems: Sequence[Sequence[str]],
    references: Sequence[Sequence[str]],
    metrics: Sequence[Metric] = METRICS,
    tokenize: str = "13a",
    num_samples: int = NUM_SAMPLES,
) -> list[dict[Metric, Score]]:
    """The scores of each system, with paired bootstrap significance (Koehn 2004) against the first.

    systems: hypotheses, one a line of the test set. references: one or more whole sets of them. num_samples: resamples;
    for more than 20,000 lines fewer are drawn, and the signature says how many, so that memory stays bounded up to
    200,000; beyond, as few as make an interval. Raises
    ValueError where counts do not fit, ConfigError for unknown metrics and tokenisations, DataError for a tokeniser
    whose model cannot be fetched.
    """
    from sacrebleu.significance import PairedTest

    for hypotheses in systems:
        check_counts(hypotheses, references)
    if num_samples < 2:
        raise ConfigError(f"num_samples = {num_samples} is too few to resample; use {NUM_SAMPLES}")
    metrics = parse_metrics(",".join(metrics))
    num_samples = min(num_samples, max(MIN_SAMPLES, MAX_DRAWS // len(references[0])))
    instances: dict[str, Any] = {metric: _make_metric(metric, tokenize, references) for metric in metrics}
    named: list[tuple[str, Sequence[str]]] = [(str(i), list(hypotheses)) for i, hypotheses in enumerate(systems)]
    test: Any = PairedTest(named, instances, references=None, test_type="bs", n_samples=num_samples)
    signatures, results = test()  # by metric: the signature, and the results in the order of the systems
    return [
        {
            metric: Score(
                metric=metric,
                name=name,
                value=float(results[name][index].score),
                mean=float(results[name][index].mean),
                confidence=float(results[name][index].ci),
                p_value=_p_value(results[name], index, systems) if index else None,
                num_samples=num_samples,
                seed=str(signature.info["seed"]),
                signature=str(signature),
            )
            for metric, (name, signature) in zip(metrics, signatures.items(), strict=True)
        }
        for index in range(len(systems))
    ]


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


def _p_value(results: Sequence[Any], index: int, systems: Sequence[Sequence[str]]) -> float:
    """sacreBLEU's p-value, but 1 where resampling has nothing to vary.

    sacreBLEU counts the resamples whose difference exceeds the measured one. Where the systems do not differ in any
    line, or the test set is a single line, all of these are equal, the count is 0 and it would report its smallest p.
    """
    baseline, result = results[0], results[index]
    same = (result.score, result.mean, result.ci) == (baseline.score, baseline.mean, baseline.ci)
    if same or len(systems[0]) == 1 or list(systems[index]) == list(systems[0]):
        return 1.0
    return float(result.p_value)


def _make_metric(metric: Metric, tokenize: str, references: Sequence[Sequence[str]]) -> Any:
    """A sacreBLEU metric with sacreBLEU's own defaults, its references prepared once for all systems."""
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF
    from sacrebleu.metrics.ter import TER

    references = [list(lines) for lines in references]
    if metric == "chrf":
        return CHRF(references=references)
    if metric == "ter":
        return TER(references=references)
    check_tokenize(tokenize)
    try:
        # force: no warning that text looks tokenised; it changes no number.
        return BLEU(tokenize=tokenize, force=True, references=references)
    except (OSError, SystemExit) as error:  # sacreBLEU ends the program where a download is not what it should be
        raise DataError(
            f"tokenize = {tokenize!r} needs a model that cannot be fetched ({one_line(error)}); check the network, or "
            f"choose another tokenisation"
        ) from None
    except (ImportError, RuntimeError) as error:
        raise ConfigError(f"tokenize = {tokenize!r} cannot be used here: {one_line(error)}") from None


def one_line(error: BaseException) -> str:
    """An error's message without line breaks, or its type where it has none."""
    return " ".join(str(error).split()) or type(error).__name__
