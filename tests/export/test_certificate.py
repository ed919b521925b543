"""What a certificate counts as a difference, and what it lets pass, with made-up figures and false exports."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from seq2seq.export.certificate import (
    Bounds,
    Difference,
    Errors,
    Findings,
    Outputs,
    bounds_for,
    find_differences,
    log_probability_errors,
    logit_errors,
    our_logits,
)
from seq2seq.export.sentences import Sentences
from seq2seq.model.transformer import BOS, EOS, PAD, Transformer
from seq2seq.run import Run
from seq2seq.text.tokenizer import UNK, Tokenizer

NOTHING = Errors(0.0, 0.0, 5)
SENTENCES = Sentences("made for this", tuple("abcd"), None)
BOUNDS = Bounds(margin=0.1, largest=0.2, mean=0.05, identical=0.5)


def problems(*margins: float, errors: Errors = NOTHING, logits: Errors | None = None, remarks: Any = ()) -> list[str]:
    """Of four sentences; those with a margin came out differently."""
    differences = [Difference(i, 1, margin, "x", "y") for i, margin in enumerate(margins, 1)]
    return Findings(SENTENCES, Outputs([], [], [], []), differences, errors, logits, remarks).problems(BOUNDS)


def test_differences_are_excused_where_the_choice_was_close() -> None:
    assert problems() == problems(0.1, -0.1) == []
    for margin in (0.11, -0.11, math.inf, math.nan):
        (found,) = problems(0.0, margin)
        assert found == "1 of 4 translations differ where the choice was not within 0.1 (lines 2)"


def test_so_many_outputs_must_be_identical() -> None:
    assert problems(0.0, 0.0) == []
    assert problems(0.0, 0.0, 0.0) == ["only 25.0% of the translations are identical, 50% must"]


def test_figures_beyond_their_bounds_are_named() -> None:
    assert problems(errors=Errors(0.2, 0.05, 5), logits=Errors(0.2, 0.05, 5)) == []
    for wrong in (Errors(0.3, 0.0, 5), Errors(math.nan, 0.0, 5)):
        assert [text.partition(" differ by up to")[0] for text in problems(errors=wrong)] == ["log-probabilities"]
        assert [text.partition(" differ by up to")[0] for text in problems(logits=wrong)] == ["logits"]
    assert problems(errors=Errors(0.2, 0.06, 5)) == ["log-probabilities differ by 0.06 on average, more than 0.05"]
    assert problems(remarks=("its tokenizer is another",)) == ["its tokenizer is another"]


def test_bounds_are_wider_where_weights_are_rounded_and_for_sentences_that_are_no_text() -> None:
    assert bounds_for("float32").largest < bounds_for("bfloat16").largest < bounds_for("int8").largest
    for quantization in ("int8", "int8_float32", "bfloat16", "float32"):
        text, made_up = bounds_for(quantization), bounds_for(quantization, made_up=True)
        assert made_up.identical == 0.0 and (made_up.margin, made_up.largest, made_up.mean) == (
            text.margin,
            text.largest,
            text.mean,
        )
        assert (text.identical > 0) is (quantization != "float32")


def test_not_a_number_is_no_small_difference() -> None:
    assert Errors.of([0.0, float("nan")]).largest == float("inf")
    assert Errors.of([]).largest == 0.0


# With a model


@pytest.fixture
def opened(make_run: Any) -> tuple[Transformer, Tokenizer]:
    run = Run.open(make_run())
    return run.load_model(), run.tokenizer()


def outputs_of(ours: list[list[int]], theirs: list[list[int]] | None = None) -> Outputs:
    return Outputs([[5, 6, 7]] * len(ours), [20] * len(ours), ours, theirs or ours)


def test_a_difference_is_as_close_as_our_probabilities(opened: tuple[Transformer, Tokenizer]) -> None:
    model, tokenizer = opened
    ours = [5, 8, 9, EOS]
    logits, _, _ = our_logits(model, [[5, 6, 7]], [ours])
    others = [[5, 8, 10, EOS], [5, EOS], ours]
    first, second = find_differences(model, tokenizer, outputs_of([ours] * 3, others))
    assert (first.sentence, first.position, second.sentence, second.position) == (1, 3, 2, 2)
    assert first.margin == pytest.approx(float(logits[0, 2, 9] - logits[0, 2, 10]), abs=1e-5)
    assert second.margin == pytest.approx(float(logits[0, 1, 8] - logits[0, 1, EOS]), abs=1e-5)


def test_pieces_that_must_not_be_generated_and_outputs_that_break_off_are_never_excused(
    opened: tuple[Transformer, Tokenizer],
) -> None:
    ours = [5, 8, EOS]
    wrong = [*([5, piece, EOS] for piece in (PAD, UNK, BOS)), [5, 8], [], [*ours, 5]]
    found = find_differences(*opened, outputs_of([ours] * len(wrong), wrong))
    assert [one.margin for one in found] == [math.inf] * len(wrong)
    assert [one.position for one in found] == [2, 2, 2, 3, 1, 4]


def test_log_probabilities_that_are_missing_are_infinitely_wrong(opened: tuple[Transformer, Tokenizer]) -> None:
    model, _ = opened
    outputs = outputs_of([[5, 8, EOS], [9, EOS]])
    logits, _, _ = our_logits(model, outputs.sources, outputs.ours)
    own = logits.log_softmax(2)

    def theirs(rows: Sequence[list[int]], ours: Sequence[list[int]], more: int = 0) -> list[list[float]]:
        numbers = [[float(own[i, t, piece]) for t, piece in enumerate(ids)] for i, ids in enumerate(ours)]
        return [[*row, 0.0][: len(row) + more] for row in numbers]

    right = log_probability_errors(model, outputs, theirs)
    assert right.largest < 1e-5 and right.count == 5
    for more in (-1, 1):
        wrong = log_probability_errors(model, outputs, lambda rows, ours, more=more: theirs(rows, ours, more))
        assert wrong.largest == wrong.mean == math.inf


def test_all_logits_of_our_outputs_are_compared_and_none_of_the_padding(
    opened: tuple[Transformer, Tokenizer],
) -> None:
    model, tokenizer = opened
    outputs, size = outputs_of([[5, 8, EOS], [9, EOS]]), tokenizer.target_vocab_size

    def changed(row: int, position: int, by: float) -> Any:
        def theirs(source: Tensor, target_input: Tensor) -> Tensor:
            with torch.inference_mode():
                logits: Tensor = model(source, target_input)
                logits[row, position, 20] += by
            return logits

        return theirs

    for theirs in (model, changed(1, 2, 9.0)):
        with torch.inference_mode():
            log_probabilities, logits = logit_errors(model, outputs, theirs)
        assert (log_probabilities.largest, logits.largest, logits.mean) == pytest.approx((0.0, 0.0, 0.0), abs=1e-5)
    assert (log_probabilities.count, logits.count) == (5, 5 * size)
    log_probabilities, logits = logit_errors(model, outputs, changed(0, 2, 3.0))
    assert logits.largest == pytest.approx(3.0, abs=1e-4) and logits.mean == pytest.approx(3 / (5 * size), abs=1e-5)
    assert 0 < log_probabilities.largest < 3
    assert logit_errors(model, outputs, changed(0, 0, math.nan))[1].largest == math.inf
