"""Which sentences of a test set stand in the training data.

A score on sentences that a model has been trained on tells how well it remembers. A run folder keeps 64-bit hashes of
its training sources, so that this can be told of any test set and without the training data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from seq2seq.text.corpus import hash_sources


@dataclass(frozen=True, eq=False)
class Overlap:
    """Two masks over a test set's N source sentences, True where a sentence stands in the training data.

    in_exact: letter by letter. in_normalized: that, or alike but for case, punctuation, spacing and Unicode form.
    """

    in_exact: NDArray[np.bool_]
    in_normalized: NDArray[np.bool_]

    @property
    def total(self) -> int:
        """Sentences in the test set."""
        return len(self.in_exact)

    @property
    def exact(self) -> int:
        return int(self.in_exact.sum())

    @property
    def normalized(self) -> int:
        return int(self.in_normalized.sum())

    @property
    def keep_exact(self) -> NDArray[np.bool_]:
        """The sentences that are left without exact overlap."""
        return ~self.in_exact

    @property
    def keep_normalized(self) -> NDArray[np.bool_]:
        """The sentences that are left without overlap after normalisation."""
        return ~self.in_normalized

    def __or__(self, other: Overlap) -> Overlap:
        """What overlaps with either training set."""
        return Overlap(self.in_exact | other.in_exact, self.in_normalized | other.in_normalized)


def find_overlap(sources: Sequence[str], exact: NDArray[np.int64], normalized: NDArray[np.int64]) -> Overlap:
    """The overlap of a test set with training sources, given the latter's hashes as the run folder keeps them.

    A sentence without any letter or digit has nothing left to compare after normalisation: it only overlaps exactly.
    """
    own_exact, own_normalized = hash_sources(sources)
    _, (nothing,) = hash_sources([""])
    in_exact = np.isin(own_exact, exact)
    in_normalized = np.isin(own_normalized, normalized) & (own_normalized != nothing)
    return Overlap(in_exact, in_exact | in_normalized)


def union(overlaps: Sequence[Overlap]) -> Overlap | None:
    """What overlaps with any of the training sets; None where none is known."""
    return reduce(Overlap.__or__, overlaps) if overlaps else None
