import math

import pytest
import torch
from helpers import every_output
from hypothesis import given, settings
from hypothesis import strategies as st

from seq2seq.decoding.beam import beam_search, greedy_search
from seq2seq.decoding.engine import Engine, EngineDecoding
from seq2seq.decoding.hypotheses import Penalty
from seq2seq.decoding.scorer import TransformerDecoding, largest
from seq2seq.model.transformer import BOS, EOS, PAD, UNK

pytestmark = pytest.mark.usefixtures("kernels")

LENGTHS = [3, 9, 1, 6, 4, 7, 2, 5]  # sources, end-of-sentence included
LIMITS = [8, 12, 6, 3, 12, 1, 10, 7]


def next_log_probabilities(model, source, prefix):
    """log P(next piece | source [1, S], prefix), without a cache."""
    with torch.inference_mode():
        return model(source, torch.tensor([[BOS, *prefix]]))[0, -1].log_softmax(0).tolist()


def plain_beam_search(model, source, limit, beam_size, alpha):
    """One source [1, S], no cache, no early stopping, only loops. Returns [(score, pieces, ended)], best first."""
    hypotheses, finished = [(0.0, ())], []
    for step in range(1, limit + 1):
        candidates = []
        for total, pieces in hypotheses:
            log_probabilities = next_log_probabilities(model, source, pieces)
            candidates += [
                (total + log_probabilities[piece], (*pieces, piece)) for piece in range(EOS, len(log_probabilities))
            ]
        candidates.sort(key=lambda candidate: -candidate[0])
        hypotheses = []
        for total, pieces in candidates[: beam_size - len(finished)]:
            if pieces[-1] == EOS:
                finished.append((total / ((5 + step) / 6) ** alpha, pieces[:-1], True))
            elif step == limit:
                finished.append((total / ((5 + step) / 6) ** alpha, pieces, False))
            else:
                hypotheses.append((total, pieces))
    return sorted(finished, key=lambda item: -item[0])


def watch_steps(monkeypatch):
    """A list that grows by the number of decoder rows at every step that a model is asked for."""
    rows = []
    for kind in (EngineDecoding, TransformerDecoding):

        def watched(decoding, pieces, step=kind.step):
            rows.append(len(pieces))
            return step(decoding, pieces)

        monkeypatch.setattr(kind, "step", watched)

    def taken(decoding, kept, steps, now, took=EngineDecoding.took):  # several at once
        rows.extend(decoding.counts[decoding.count : decoding.count + steps].tolist())
        return took(decoding, kept, steps, now)

    monkeypatch.setattr(EngineDecoding, "took", taken)
    return rows


def outcome(hypothesis):
    return hypothesis.pieces, hypothesis.ended


@pytest.mark.parametrize("seed", range(4))
def test_one_beam_is_greedy_search(make_model, make_source, seed):
    model, source = make_model(seed, 30, biases={EOS: 2.0}), make_source(seed, 30, LENGTHS)
    greedy = greedy_search(model, source, LIMITS)
    beam = beam_search(model, source, LIMITS, beam_size=1, length_penalty=0.6)
    assert [outcome(h) for [h] in beam] == [outcome(h) for h in greedy]
    for [one], other in zip(beam, greedy, strict=True):
        assert one.score == pytest.approx(other.score, abs=1e-5)


def test_greedy_search_takes_the_most_probable_piece_at_every_step(make_model, make_source):
    model, source = make_model(5, 12), make_source(5, 12, [4])
    [hypothesis] = greedy_search(model, source, [8])
    pieces = [*hypothesis.pieces, EOS] if hypothesis.ended else list(hypothesis.pieces)
    assert len(pieces) > 1
    for step, piece in enumerate(pieces):
        allowed = next_log_probabilities(model, source, pieces[:step])[EOS:]
        assert piece == EOS + allowed.index(max(allowed))


@given(
    seed=st.integers(0, 10_000),
    alpha=st.sampled_from([0.0, 0.6, 1.0, 2.5]),
    limit=st.integers(1, 3),
    vocab_size=st.integers(6, 7),
    sharpness=st.sampled_from([0.5, 2.0, 4.0]),
)
@settings(max_examples=60, deadline=None)
def test_a_beam_of_full_width_is_exhaustive_search(make_model, make_source, seed, alpha, limit, vocab_size, sharpness):
    model = make_model(seed, vocab_size, sharpness=sharpness)
    source = make_source(seed, vocab_size, [4])
    everything = every_output(model, source, limit)
    expected = sorted(
        (total / Penalty(alpha)(len(pieces) + ended), pieces, ended) for (pieces, ended), total in everything.items()
    )[::-1]
    [found] = beam_search(model, source, [limit], beam_size=len(expected), length_penalty=alpha, n_best=len(expected))
    assert {outcome(h) for h in found} == set(everything)
    assert [h.score for h in found] == pytest.approx([score for score, _, _ in expected], abs=1e-4)
    for h in found:
        assert h.log_probability == pytest.approx(everything[outcome(h)], abs=1e-4)
    [[best]] = beam_search(model, source, [limit], beam_size=len(expected), length_penalty=alpha)
    assert best.score == pytest.approx(expected[0][0], abs=1e-4)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(("beam_size", "n_best"), [(2, 1), (4, 1), (4, 3), (5, 5)])
def test_stopping_early_loses_nothing(make_model, make_source, seed, beam_size, n_best):
    alpha = (0.0, 0.6, 1.5)[seed % 3]
    model, source = make_model(seed, 12, biases={EOS: 2.0}), make_source(seed, 12, [5, 2, 7])
    limits = [7, 9, 4]
    found = beam_search(model, source, limits, beam_size=beam_size, length_penalty=alpha, n_best=n_best)
    for row, hypotheses in enumerate(found):
        expected = plain_beam_search(model, source[row : row + 1], limits[row], beam_size, alpha)[:n_best]
        assert [outcome(h) for h in hypotheses] == [(pieces, ended) for _, pieces, ended in expected]
        assert [h.score for h in hypotheses] == pytest.approx([score for score, _, _ in expected], abs=1e-4)


def test_search_ends_once_nothing_can_come_among_the_best(make_model, make_source, monkeypatch):
    # End-of-sentence is nearly certain: the first step finishes the best hypothesis, and nothing can reach it.
    model, source = make_model(1, 20, biases={EOS: 50.0}), make_source(1, 20, LENGTHS)
    steps = watch_steps(monkeypatch)
    found = beam_search(model, source, [200] * len(LENGTHS), beam_size=4, length_penalty=0.6)
    assert [outcome(h) for [h] in found] == [((), True)] * len(LENGTHS)
    assert len(steps) == 1


def test_sentences_that_are_done_leave_the_batch(make_model, make_source, monkeypatch):
    model, source = make_model(3, 30), make_source(3, 30, [4] * 6)
    for search in (
        lambda limits: greedy_search(model, source, limits),
        lambda limits: beam_search(model, source, limits, beam_size=3, length_penalty=0.0),
    ):
        with monkeypatch.context() as patch:
            rows = watch_steps(patch)
            search([2, 4, 4, 6, 6, 6])
        assert len(rows) == 6
        assert rows[0] == 6
        assert rows[-1] <= 3 * 3
        assert rows[2] <= 5 * 3


@pytest.mark.parametrize("beam_size", [0, 1, 4])  # 0: greedy search
def test_results_do_not_depend_on_the_batch(make_model, make_source, beam_size):
    lengths, limits = LENGTHS * 3, torch.tensor(LIMITS * 3)
    model, source = make_model(11, 40, biases={EOS: 2.0}), make_source(11, 40, lengths)

    def search(rows, width):
        if beam_size == 0:
            return [[best] for best in greedy_search(model, source[rows, :width], limits[rows])]
        return beam_search(
            model, source[rows, :width], limits[rows], beam_size=beam_size, length_penalty=0.6, n_best=beam_size
        )

    rows = list(range(len(lengths)))
    together = search(rows, source.shape[1])
    assert len({len(h.pieces) for hypotheses in together for h in hypotheses}) > 4
    backwards = search(rows[::-1], source.shape[1])[::-1]
    for row in rows:
        [alone] = search([row], lengths[row])
        for other in (alone, backwards[row]):
            assert [outcome(h) for h in other] == [outcome(h) for h in together[row]]
            scores = [h.score for h in together[row]]
            # The kernels' sums do not depend on the batch; those of torch do, in the last bits.
            assert [h.score for h in other] == (scores if Engine.serves(model) else pytest.approx(scores, abs=1e-4))


def test_hypotheses_score_the_same_again(make_model, make_source, rescore):
    model, source = make_model(4, 30, biases={EOS: 2.0}), make_source(4, 30, LENGTHS)
    found = beam_search(model, source, LIMITS, beam_size=4, length_penalty=0.6, n_best=4)
    assert {h.ended for hypotheses in found for h in hypotheses} == {True, False}
    for hypotheses in [greedy_search(model, source, LIMITS), *zip(*found, strict=True)]:
        again = rescore(model, source, hypotheses)
        for h, logs in zip(hypotheses, again, strict=True):
            assert h.piece_log_probabilities == pytest.approx(logs, abs=1e-4)
            assert h.log_probability == pytest.approx(math.fsum(logs), abs=1e-4)
            assert h.score == pytest.approx(math.fsum(logs) / ((5 + len(logs)) / 6) ** 0.6, abs=1e-4)


def test_special_pieces_are_never_generated_and_nothing_is_renormalised(make_model, make_source, rescore):
    # Padding, unknown and begin-of-sentence take nearly all of the probability.
    model, source = make_model(2, 10, biases={PAD: 200.0, UNK: 200.0, BOS: 200.0}), make_source(2, 10, [3, 5, 4])
    found = beam_search(model, source, [6, 6, 6], beam_size=4, length_penalty=0.6, n_best=4)
    for hypotheses in [greedy_search(model, source, [6, 6, 6]), *zip(*found, strict=True)]:
        assert all(piece > EOS for h in hypotheses for piece in h.pieces)
        assert all(log < -3 for h in hypotheses for log in h.piece_log_probabilities)
        for h, logs in zip(hypotheses, rescore(model, source, hypotheses), strict=True):
            assert h.piece_log_probabilities == pytest.approx(logs, abs=1e-4)


def test_the_n_best_are_sorted_distinct_and_begin_with_the_best(make_model, make_source):
    model, source = make_model(4, 25, biases={EOS: 2.0}), make_source(4, 25, LENGTHS)
    ten = beam_search(model, source, LIMITS, beam_size=10, length_penalty=0.6, n_best=10)
    three = beam_search(model, source, LIMITS, beam_size=10, length_penalty=0.6, n_best=3)
    for many, few in zip(ten, three, strict=True):
        assert len(many) == 10
        assert len({outcome(h) for h in many}) == 10
        assert [h.score for h in many] == sorted((h.score for h in many), reverse=True)
        assert [outcome(h) for h in few] == [outcome(h) for h in many[:3]]


def test_fewer_hypotheses_are_returned_where_fewer_exist(make_model, make_source):
    model, source = make_model(4, 6), make_source(4, 6, [3])
    [found] = beam_search(model, source, [1], beam_size=10, length_penalty=0.6, n_best=10)
    assert sorted(outcome(h) for h in found) == [((), True), ((4,), False), ((5,), False)]


def test_no_output_is_longer_than_its_maximum(make_model, make_source):
    model, source = make_model(8, 20, biases={EOS: -3.0}), make_source(8, 20, LENGTHS)
    found = beam_search(model, source, LIMITS, beam_size=3, length_penalty=1.0, n_best=3)
    for limit, hypotheses, greedy in zip(LIMITS, found, greedy_search(model, source, LIMITS), strict=True):
        for h in (*hypotheses, greedy):
            assert len(h.pieces) + h.ended == len(h.piece_log_probabilities) <= limit
            assert h.ended or len(h.pieces) == limit
    assert any(not h.ended for hypotheses in found for h in hypotheses)


def test_a_stronger_length_penalty_gives_longer_outputs(make_model, make_source):
    model, source = make_model(9, 20, biases={EOS: 2.0}), make_source(9, 20, LENGTHS)
    limits = [12] * len(LENGTHS)

    def total(alpha):
        return sum(len(h.pieces) for [h] in beam_search(model, source, limits, beam_size=4, length_penalty=alpha))

    assert total(0.0) < total(3.0)


def test_bfloat16_activations_give_float32_scores(make_model, make_source, rescore):
    model, source = make_model(6, 30, biases={EOS: 2.0}), make_source(6, 30, LENGTHS)
    model.compute_dtype = torch.bfloat16
    found = [best for [best] in beam_search(model, source, LIMITS, beam_size=4, length_penalty=0.6)]
    model.compute_dtype = torch.float32
    for h, logs in zip(found, rescore(model, source, found), strict=True):
        assert h.piece_log_probabilities == pytest.approx(logs, abs=0.15)
        assert h.log_probability == pytest.approx(math.fsum(h.piece_log_probabilities), abs=1e-9)


def test_an_empty_batch_gives_no_hypotheses(make_model, make_source):
    model, source = make_model(0, 10), make_source(0, 10, [3])[:0]
    assert greedy_search(model, source, []) == []
    assert beam_search(model, source, [], beam_size=2, length_penalty=0.6) == []


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"beam_size": 0}, "beam_size = 0"),
        ({"n_best": 3}, "n_best = 3"),
        ({"n_best": 0}, "n_best = 0"),
        ({"length_penalty": -0.5}, "length_penalty = -0.5"),
        ({"max_lengths": [5, 0]}, "max_lengths holds 0"),
        ({"max_lengths": [5]}, "max_lengths has shape"),
    ],
)
def test_arguments_out_of_range_are_named(make_model, make_source, changed, message):
    model, source = make_model(0, 10), make_source(0, 10, [3, 3])
    arguments = {"max_lengths": [5, 5], "beam_size": 2, "length_penalty": 0.6, "n_best": 1, **changed}
    with pytest.raises(ValueError, match=message):
        beam_search(model, source, arguments.pop("max_lengths"), **arguments)


def test_a_model_of_nan_is_an_error_and_not_a_translation(make_model, make_source):
    model, source = make_model(0, 10), make_source(0, 10, [3, 3])
    with torch.no_grad():
        model.output_weight[UNK] = math.nan
    with pytest.raises(ArithmeticError, match="NaN"):
        greedy_search(model, source, [4, 4])
    with pytest.raises(ArithmeticError, match="NaN"):
        beam_search(model, source, [4, 4], beam_size=3, length_penalty=0.6)


def test_decoding_a_model_in_training_mode_is_refused(make_model, make_source):
    model, source = make_model(0, 10).train(), make_source(0, 10, [3])
    with pytest.raises(AssertionError, match="eval"):
        greedy_search(model, source, [4])


def test_length_penalty_is_that_of_wu_et_al():
    assert Penalty(0.6)(1) == 1.0
    assert Penalty(0.5)(19) == pytest.approx(2.0)
    assert Penalty(0.0)(7) == 1.0


@given(
    seed=st.integers(0, 10_000), size=st.sampled_from([1, 5, 63, 64, 300, 513, 2000]), count=st.sampled_from([1, 2, 7])
)
@settings(max_examples=30, deadline=None)
def test_largest_agrees_with_sorting(seed, size, count):
    values = torch.randn(5, size, generator=torch.Generator().manual_seed(seed))
    expected = values.sort(dim=1, descending=True).indices[:, :count].sort(dim=1).values
    assert torch.equal(largest(values, count), expected)


@pytest.mark.parametrize("size", [20, 1000])
def test_the_first_of_equal_values_is_the_largest(size):
    values = torch.zeros(3, size)
    values[1, size // 2 :] = 1.0
    values[2, -1] = 1.0
    assert largest(values, 1).flatten().tolist() == [0, size // 2, size - 1]


def test_equal_continuations_go_by_lower_piece(make_model, make_source):
    # All rows of the output matrix are one: every piece is equally probable at every step.
    model, source = make_model(0, 8), make_source(0, 8, [3])
    with torch.no_grad():
        model.output_weight.copy_(model.output_weight[:1].expand_as(model.output_weight))
    [found] = beam_search(model, source, [2], beam_size=5, length_penalty=0.0, n_best=5)
    assert [outcome(h) for h in found] == [((), True), ((4,), True), ((4, 4), False), ((4, 5), False), ((4, 6), False)]
