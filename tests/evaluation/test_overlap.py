"""Overlap of a test set with training data, told from hashes."""

from __future__ import annotations

import numpy as np

from seq2seq.evaluation.overlap import Overlap, find_overlap, union
from seq2seq.text.corpus import hash_sources

TRAINING = ["A dog runs.", "Two men watch.", "A dog runs.", "Straße", "!!!"]


def overlap_with(training: list[str], test: list[str]) -> Overlap:
    exact, normalized = hash_sources(training)
    return find_overlap(test, np.unique(exact), np.unique(normalized))


def test_exact_and_normalised_overlap_are_told_apart() -> None:
    test = ["A dog runs.", "a  DOG runs", "STRASSE!", "A cat runs.", "Two men watch.", "A dog runs."]
    overlap = overlap_with(TRAINING, test)
    assert overlap.in_exact.tolist() == [True, False, False, False, True, True]
    assert overlap.in_normalized.tolist() == [True, True, True, False, True, True]
    assert (overlap.total, overlap.exact, overlap.normalized) == (6, 3, 5)
    assert overlap.keep_exact.tolist() == [False, True, True, True, False, False]
    assert overlap.keep_normalized.tolist() == [False, False, False, True, False, False]


def test_lines_without_letters_or_digits_only_overlap_exactly() -> None:
    overlap = overlap_with(TRAINING, ["!!!", "???", ""])
    assert overlap.in_exact.tolist() == overlap.in_normalized.tolist() == [True, False, False]


def test_vowels_that_are_marks_tell_sentences_apart() -> None:
    """He goes home, she goes home, they go home: only signs that are no letters of their own differ."""
    overlap = overlap_with(["वह घर जाता है।"], ["वह घर जाती है।", "वह घर जाते हैं।", "वह घर, जाता है"])
    assert overlap.in_normalized.tolist() == [False, False, True]
    # How a symbol looks is no letter, and composed or not, an accent is the same.
    composed = overlap_with(
        ["I \N{HEAVY BLACK HEART}\ufe0f caf\u00e9s"], ["I \N{HEAVY BLACK HEART} cafe\u0301s!", "I cafés", "I cafes"]
    )
    assert composed.in_normalized.tolist() == [True, True, False]
    variants = overlap_with(["\u845b 1"], ["\u845b\U000e0100 1\ufe0f\u20e3"])
    assert variants.in_normalized.tolist() == [True]


def test_nothing_overlaps_with_no_training_data() -> None:
    overlap = overlap_with([], TRAINING)
    assert (overlap.total, overlap.exact, overlap.normalized) == (5, 0, 0)


def test_union_is_what_stands_in_any_training_set() -> None:
    test = ["A dog runs.", "two men watch", "else"]
    both = union([overlap_with(["A dog runs."], test), overlap_with(["Two men watch."], test)])
    assert both is not None
    assert both.in_exact.tolist() == [True, False, False]
    assert both.in_normalized.tolist() == [True, True, False]
    assert union([]) is None
