import math

import pytest
import torch

from seq2seq.decoding.beam import greedy_search
from seq2seq.decoding.sampling import kept_probabilities, sample, sentence_seed
from seq2seq.model.transformer import BOS, EOS, PAD, UNK

LENGTHS = [3, 9, 1, 6, 4, 7, 2, 5]  # sources, end-of-sentence included
LIMITS = [8, 12, 6, 3, 12, 1, 10, 7]
SEEDS = [sentence_seed(1, line) for line in range(len(LENGTHS))]


def outcomes(hypotheses):
    return [(h.pieces, h.ended) for h in hypotheses]


def test_what_is_drawn_depends_on_the_sentence_and_its_seed_only(make_model, make_source):
    model, source = make_model(3, 30, sharpness=1.0), make_source(3, 30, LENGTHS)
    limits = torch.tensor(LIMITS)
    together = outcomes(sample(model, source, limits, seeds=SEEDS, top_p=0.9))
    order = [5, 2, 7, 0, 3, 1, 6, 4]
    permuted = outcomes(sample(model, source[order], limits[order], seeds=[SEEDS[row] for row in order], top_p=0.9))
    assert permuted == [together[row] for row in order]
    for row, length in enumerate(LENGTHS):
        alone = sample(model, source[row : row + 1, :length], limits[[row]], seeds=[SEEDS[row]], top_p=0.9)
        assert outcomes(alone) == [together[row]]


def test_a_longer_maximum_does_not_change_what_came_before(make_model, make_source):
    model, source = make_model(3, 30, sharpness=1.0, biases={EOS: -9.0}), make_source(3, 30, [5])
    [short] = sample(model, source, [6], seeds=[7])
    [long] = sample(model, source, [40], seeds=[7])
    assert len(short.pieces) == 6
    assert long.pieces[:6] == short.pieces


def test_another_seed_draws_something_else(make_model, make_source):
    model, source = make_model(3, 30, sharpness=0.5, biases={EOS: -9.0}), make_source(3, 30, [5] * 50)
    drawn = outcomes(sample(model, source, [8] * 50, seeds=range(50)))
    assert len(set(drawn)) == 50
    assert outcomes(sample(model, source, [8] * 50, seeds=range(50))) == drawn


@pytest.mark.parametrize(
    "narrow", [{"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-6}, {"temperature": 1e-46}, {"temperature": 5e-324}]
)
def test_the_narrowest_sampling_is_greedy_search(make_model, make_source, narrow):
    model, source = make_model(4, 30, biases={EOS: 2.0}), make_source(4, 30, LENGTHS)
    greedy = greedy_search(model, source, LIMITS)
    drawn = sample(model, source, LIMITS, seeds=SEEDS, **narrow)
    assert outcomes(drawn) == outcomes(greedy)
    assert [h.score for h in drawn] == pytest.approx([h.score for h in greedy], abs=1e-5)


@pytest.mark.parametrize("filters", [{}, {"temperature": 0.5, "top_k": 5}, {"temperature": 2.0, "top_p": 0.8}])
def test_samples_score_the_same_again(make_model, make_source, rescore, filters):
    model, source = make_model(4, 30, biases={EOS: 2.0}), make_source(4, 30, LENGTHS)
    drawn = sample(model, source, LIMITS, seeds=SEEDS, length_penalty=1.0, **filters)
    for h, logs in zip(drawn, rescore(model, source, drawn), strict=True):
        assert h.piece_log_probabilities == pytest.approx(logs, abs=1e-4)
        assert h.log_probability == pytest.approx(math.fsum(logs), abs=1e-4)
        assert h.score == pytest.approx(math.fsum(logs) / ((5 + len(logs)) / 6), abs=1e-4)


@pytest.mark.parametrize(
    "filters", [{}, {"temperature": 0.7}, {"temperature": 1.5, "top_k": 4}, {"top_p": 0.8}, {"top_k": 5, "top_p": 0.7}]
)
def test_frequencies_are_those_of_the_distribution(make_model, make_source, filters):
    draws = 4000
    model, source = make_model(5, 12, sharpness=1.0), make_source(5, 12, [4])
    with torch.inference_mode():
        logits = model(source, torch.tensor([[BOS]]))[0, 0].double()
        logits[:EOS] = -math.inf
    expected = (logits / filters.get("temperature", 1.0)).softmax(0)
    order = expected.argsort(descending=True)
    expected[order[filters.get("top_k") or 12 :]] = 0.0
    expected /= expected.sum()
    before = expected[order].cumsum(0) - expected[order]
    expected[order[before >= filters.get("top_p", 1.0)]] = 0.0
    expected /= expected.sum()

    drawn = sample(model, source.expand(draws, -1), [1] * draws, seeds=range(draws), **filters)
    counts = torch.zeros(12, dtype=torch.float64)
    for h in drawn:
        counts[h.pieces[0] if h.pieces else EOS] += 1
    assert counts[expected == 0].sum() == 0
    deviation = (draws * expected * (1 - expected)).sqrt()
    assert ((counts - draws * expected).abs() <= 4 * deviation).all()


def test_special_pieces_are_never_drawn(make_model, make_source):
    model, source = make_model(2, 10, biases={PAD: 20.0, UNK: 20.0, BOS: 20.0}), make_source(2, 10, [4] * 100)
    drawn = sample(model, source, [6] * 100, seeds=range(100), temperature=5.0)
    assert all(piece > EOS for h in drawn for piece in h.pieces)
    assert {len(h.piece_log_probabilities) for h in drawn} == set(range(1, 7))


def test_top_k_keeps_the_most_probable_and_top_p_the_smallest_sufficient_set():
    log_probabilities = torch.tensor([[0.1, 0.5, 0.15, 0.25]]).log()

    def kept(temperature, top_k, top_p):
        weights, ids = kept_probabilities(log_probabilities, temperature, top_k, top_p)
        ids = torch.arange(4)[None] if ids is None else ids
        return {piece: pytest.approx(p) for piece, p in zip(ids[0].tolist(), weights[0].tolist(), strict=True) if p > 0}

    assert kept(1.0, 0, 1.0) == {0: 0.1, 1: 0.5, 2: 0.15, 3: 0.25}
    assert kept(1.0, 2, 1.0) == {1: 2 / 3, 3: 1 / 3}
    assert kept(1.0, 9, 1.0) == {0: 0.1, 1: 0.5, 2: 0.15, 3: 0.25}
    assert set(kept(1.0, 0, 0.45)) == {1}
    assert set(kept(1.0, 0, 0.55)) == {1, 3}
    assert set(kept(1.0, 0, 0.76)) == {1, 2, 3}
    assert set(kept(1.0, 2, 0.6)) == {1}  # two thirds of what top-k left
    assert kept(0.5, 2, 1.0) == {1: 0.8, 3: 0.2}


def test_the_seed_of_a_line_is_its_own():
    assert len({sentence_seed(seed, line) for seed in range(20) for line in range(20)}) == 400
    for seed, line in ((-1, 0), (0, -1), (2**64, 0), (0, 2**64)):
        with pytest.raises(ValueError, match=f"seed = {seed} and line = {line}"):
            sentence_seed(seed, line)


def test_an_empty_batch_gives_no_hypotheses(make_model, make_source):
    assert sample(make_model(0, 10), make_source(0, 10, [3])[:0], [], seeds=[]) == []


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"temperature": 0.0}, "temperature = 0.0"),
        ({"temperature": math.nan}, "temperature = nan"),
        ({"temperature": math.inf}, "temperature = inf"),
        ({"top_k": -1}, "top_k = -1"),
        ({"top_p": 0.0}, "top_p = 0.0"),
        ({"top_p": 1.5}, "top_p = 1.5"),
        ({"seeds": [1]}, "seeds has 1"),
        ({"seeds": [1, -1]}, "seeds must be from 0"),
        ({"length_penalty": -1.0}, "length_penalty = -1.0"),
        ({"max_lengths": [4, 0]}, "max_lengths holds 0"),
    ],
)
def test_arguments_out_of_range_are_named(make_model, make_source, changed, message):
    model, source = make_model(0, 10), make_source(0, 10, [3, 3])
    arguments = {"max_lengths": [5, 5], "seeds": [1, 2], **changed}
    with pytest.raises(ValueError, match=message):
        sample(model, source, arguments.pop("max_lengths"), **arguments)
