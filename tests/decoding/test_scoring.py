from contextlib import nullcontext

import pytest
import torch

from seq2seq.decoding import scoring
from seq2seq.decoding.scoring import score_batch, score_pieces
from seq2seq.model import native
from seq2seq.model.transformer import BOS, EOS, PAD

LENGTHS = [3, 9, 1, 6, 4]  # of both sides, end-of-sentence included


def targets(make_source, seed, vocab_size, lengths):
    """target_input `bos pieces` and target_output `pieces eos`."""
    target_output = make_source(seed, vocab_size, lengths)
    target_input = target_output.roll(1, dims=1)
    target_input[:, 0] = BOS
    target_input[target_output == PAD] = PAD
    return target_input, target_output


@pytest.mark.parametrize("kernels", [True, False])
def test_scores_are_the_log_probabilities_of_the_pieces_and_nothing_at_padding(make_model, make_source, kernels):
    model, source = make_model(1, 30), make_source(1, 30, LENGTHS)
    target_input, target_output = targets(make_source, 2, 30, LENGTHS[::-1])
    with nullcontext() if kernels else native.disabled():
        scores = score_batch(model, source, target_input, target_output)
    with torch.inference_mode():
        expected = model(source, target_input).log_softmax(-1).gather(2, target_output[:, :, None]).squeeze(2)
    real = target_output != PAD
    assert scores.dtype == torch.float32
    assert scores.shape == target_output.shape
    torch.testing.assert_close(scores[real], expected[real], atol=1e-5, rtol=1e-5)
    assert (scores[~real] == 0).all()
    assert (scores[real] < 0).all()


def test_scores_do_not_depend_on_the_chunks_they_are_computed_in(make_model, make_source, monkeypatch):
    model, source = make_model(1, 30), make_source(1, 30, LENGTHS)
    batch = targets(make_source, 2, 30, LENGTHS)
    whole = score_batch(model, source, *batch)
    rows, project = [], model.project
    monkeypatch.setattr(scoring, "ROWS_AT_ONCE", 4)
    monkeypatch.setattr(model, "project", lambda states: rows.append(len(states)) or project(states))
    torch.testing.assert_close(score_batch(model, source, *batch), whole, atol=1e-5, rtol=1e-5)
    assert rows == [4, 4, 4, 4, 4, 3]  # 23 real pieces; padding is not projected


def test_scores_do_not_depend_on_the_batch(make_model, make_source):
    model, source = make_model(1, 30), make_source(1, 30, LENGTHS)
    target_input, target_output = targets(make_source, 2, 30, LENGTHS)
    together = score_batch(model, source, target_input, target_output)
    for row, length in enumerate(LENGTHS):
        here = slice(row, row + 1)
        alone = score_batch(model, source[here, :length], target_input[here, :length], target_output[here, :length])
        torch.testing.assert_close(alone[0], together[row, :length], atol=1e-5, rtol=1e-5)


def test_the_probabilities_of_all_next_pieces_sum_to_one(make_model, make_source):
    model, source = make_model(1, 12), make_source(1, 12, [4])
    total = (
        score_batch(model, source.expand(11, -1), torch.full((11, 1), BOS), torch.arange(1, 12)[:, None]).exp().sum()
    )
    with torch.inference_mode():
        padding = model(source, torch.tensor([[BOS]]))[0, 0].softmax(0)[PAD]
    assert float(total + padding) == pytest.approx(1.0, abs=1e-5)


def test_bfloat16_activations_give_float32_scores_near_those_of_float32(make_model, make_source):
    model, source = make_model(1, 30, sharpness=0.5), make_source(1, 30, LENGTHS)
    batch = targets(make_source, 2, 30, LENGTHS)
    expected = score_batch(model, source, *batch)
    model.compute_dtype = torch.bfloat16
    scores = score_batch(model, source, *batch)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, expected, atol=0.15, rtol=0.0)
    assert not torch.equal(scores, expected)


def test_rows_of_padding_among_others_score_zero(make_model, make_source):
    model, source = make_model(1, 30), make_source(1, 30, LENGTHS)
    target_input, target_output = targets(make_source, 2, 30, LENGTHS)
    whole = score_batch(model, source, target_input, target_output)
    target_input[1], target_output[1] = PAD, PAD
    scores = score_batch(model, source, target_input, target_output)
    assert (scores[1] == 0).all()
    others = [0, 2, 3, 4]
    torch.testing.assert_close(scores[others], whole[others], atol=1e-5, rtol=1e-5)


def test_scores_do_not_depend_on_the_threads(make_model):
    model = make_model(1, 30)
    generator = torch.Generator().manual_seed(3)
    sources, outputs = (
        [torch.randint(4, 30, (int(length),), generator=generator).tolist() for length in range(1, 40)] for _ in "ab"
    )
    expected = score_pieces([model], sources, outputs, 100)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert score_pieces([model], sources, outputs, 100) == expected
    finally:
        torch.set_num_threads(threads)
    assert [len(row) for row in expected] == [len(output) for output in outputs]


def test_a_batch_of_padding_scores_zero(make_model, make_source):
    model, source = make_model(1, 12), make_source(1, 12, [4])
    padding = torch.full((1, 3), PAD)
    assert score_batch(model, source, padding, padding).tolist() == [[0.0, 0.0, 0.0]]


def test_shapes_that_do_not_fit_are_refused(make_model, make_source):
    model, source = make_model(1, 12), make_source(1, 12, [4, 4])
    with pytest.raises(ValueError, match=r"target_output \(2, 4\)"):
        score_batch(model, source, torch.full((2, 3), BOS), torch.full((2, 4), EOS))
    with pytest.raises(ValueError, match=r"source \(2, 4\)"):
        score_batch(model, source, torch.full((1, 3), BOS), torch.full((1, 3), EOS))


def test_scoring_a_model_in_training_mode_is_refused(make_model, make_source):
    model, source = make_model(1, 12).train(), make_source(1, 12, [4])
    with pytest.raises(AssertionError, match="eval"):
        score_batch(model, source, torch.tensor([[BOS]]), torch.tensor([[EOS]]))
