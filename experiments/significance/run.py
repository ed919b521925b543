"""How often does a test call one of two equally good systems better?

    python experiments/significance/run.py FIRST SECOND REFERENCE [--tests 600] [--trials 1000]

FIRST and SECOND are translations of the same lines by two systems that are about as good, REFERENCE their translations
by people. Each test is of another resampled set of lines, with the two systems' translations exchanged at random in
each: they differ by chance alone. A test that is right has p < 0.05 in 5% of them. BLEU, text as it is.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.significance import Result, _paired_bs_test

from seq2seq.evaluation.significance import randomization_p_value
from seq2seq.text.reading import read_lines

Pair = tuple[np.ndarray, np.ndarray]  # statistics of each line, by either system


class Counted(BLEU):  # type: ignore[misc]
    """BLEU of lines whose statistics are known: sacreBLEU's test asks for them by text."""

    statistics: np.ndarray

    def _extract_corpus_statistics(self, hypotheses: Any, references: Any) -> Any:
        return self.statistics.tolist()


def sacrebleu_p_value(metric: Counted, pair: Pair, trials: int, seed: int) -> float:
    """Of sacreBLEU's own paired bootstrap."""
    first, metric.statistics = pair
    baseline = {"BLEU": (first, Result(metric._aggregate_and_compute(first.tolist()).score))}
    lines = [""] * len(first)
    _, results = _paired_bs_test(baseline, "second", lines, None, {"BLEU": metric}, n_samples=trials, seed=seed)
    return float(results["BLEU"].p_value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs=3, metavar="FILE")
    parser.add_argument("--tests", type=int, default=600)
    parser.add_argument("--trials", type=int, default=1000)
    arguments = parser.parse_args()
    first, second, reference = (list(read_lines(path)) for path in arguments.files)
    plain = BLEU(tokenize="none", force=True, references=[reference])
    one, other = (np.array(plain._extract_corpus_statistics(lines, None), dtype=float) for lines in (first, second))
    metric = Counted(tokenize="none", force=True)
    tests: dict[str, Callable[[Pair, int], float]] = {
        "sacreBLEU, paired bootstrap": lambda pair, seed: sacrebleu_p_value(metric, pair, arguments.trials, seed),
        "here, randomisation": lambda pair, seed: randomization_p_value(metric, *pair, arguments.trials, str(seed)),
    }
    generator = np.random.default_rng(1)
    found: dict[str, list[float]] = {name: [] for name in tests}
    for number in range(1, arguments.tests + 1):
        lines = generator.choice(len(reference), len(reference))
        swapped = generator.integers(2, size=len(reference), dtype=bool)[:, None]
        pair = (
            np.where(swapped, one[lines], other[lines]),
            np.where(swapped, other[lines], one[lines]),
        )
        for name, test in tests.items():
            found[name].append(test(pair, number))
    for name, values in found.items():
        below = [100 * float(np.mean(np.array(values) < level)) for level in (0.05, 0.01)]
        print(f"{name}: p < 0.05 in {below[0]:.1f}%, p < 0.01 in {below[1]:.1f}%, largest p {max(values):.3f}")


if __name__ == "__main__":
    main()
