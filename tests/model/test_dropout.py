import pytest
import torch

from seq2seq.model.dropout import dropout


def test_nothing_happens_outside_training_or_at_probability_zero():
    x = torch.randn(5, 7)
    assert dropout(x, 0.5, False) is x
    assert dropout(x, 0.0, True) is x


@pytest.mark.parametrize("probability", [0.1, 0.3, 0.9])
def test_elements_are_dropped_at_the_given_rate_and_the_mean_stays(probability):
    torch.manual_seed(0)
    dropped = dropout(torch.ones(400_001), probability, True)
    assert float((dropped == 0).float().mean()) == pytest.approx(probability, abs=0.005)
    assert float(dropped.mean()) == pytest.approx(1.0, abs=0.03)
    assert len(dropped.unique()) == 2


def test_neighbours_are_dropped_independently():
    torch.manual_seed(0)
    dropped = (dropout(torch.ones(100_000, 4), 0.5, True) == 0).float()
    correlations = torch.corrcoef(dropped.T) - torch.eye(4)
    assert float(correlations.abs().max()) < 0.02


def test_the_gradient_passes_where_the_value_did():
    torch.manual_seed(0)
    x = torch.randn(33, 5, requires_grad=True)
    y = dropout(x, 0.4, True)
    weight = torch.randn_like(y)
    (y * weight).sum().backward()
    torch.testing.assert_close(x.grad, weight * (y / x).detach())


def test_draws_are_repeated_under_a_seed_and_keep_shape_and_dtype():
    x = torch.ones(3, 5, 7, dtype=torch.bfloat16).transpose(1, 2)
    torch.manual_seed(3)
    first = dropout(x, 0.5, True)
    second = dropout(x, 0.5, True)
    torch.manual_seed(3)
    assert torch.equal(dropout(x, 0.5, True), first)
    assert not torch.equal(first, second)
    assert first.shape == x.shape
    assert first.dtype == torch.bfloat16
