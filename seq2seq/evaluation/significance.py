"""Whether one system is better than another beyond chance, by approximate randomisation.

sacreBLEU's paired bootstrap counts in one direction: of two equally good systems it calls one better at p < 0.05 in one
test of ten (experiments/significance). Its own randomisation counts no trial that is as far apart as what was measured,
and finds two equal systems different beyond chance. Hence the test is made here, of sacreBLEU's statistics.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

ROUNDING = 1e-9  # of a score: equal sums of numbers in another order


def randomization_p_value(
    metric: Any, first: Sequence[Sequence[float]], second: Sequence[Sequence[float]], num_trials: int, seed: str
) -> float:
    """How often two systems are at least so far apart when their translations are exchanged at random, two-sided.

    In each trial every line's translations change sides with probability 1/2 (Riezler and Maxwell 2005, "On Some
    Pitfalls in Automatic Evaluation and Significance Testing for MT", section 4); the measured difference counts as one
    trial more, so that p is at least 1 / (num_trials + 1). Systems that do not differ have p = 1.

    metric: sacreBLEU's. first, second: what it counted for each line, [lines, statistics]. seed: a number, or "none"
    for draws that are different each time.
    """
    one, other = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    total = one.sum(0) + other.sum(0)

    def difference(statistics: np.ndarray) -> float:
        """Between the system of these sums and that of all the rest."""
        of_one, of_other = (metric._compute_score_from_stats(sums).score for sums in (statistics, total - statistics))
        return abs(float(of_one) - float(of_other))

    measured = difference(one.sum(0)) - ROUNDING
    generator = np.random.default_rng(None if seed == "none" else int(seed))
    as_far = 0
    for _ in range(num_trials):
        kept = generator.integers(2, size=len(one), dtype=bool)
        as_far += difference(np.where(kept[:, None], one, other).sum(0)) >= measured
    return (as_far + 1) / (num_trials + 1)
