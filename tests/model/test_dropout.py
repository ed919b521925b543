"""Dropout whose random numbers are packed four to a draw of 64 bits."""

import math

import pytest
import torch

from seq2seq.model.dropout import LEVELS, dropout

DTYPES = [torch.float32, torch.bfloat16]


def test_nothing_happens_outside_training_or_at_probability_zero():
    x = torch.randn(5, 7)
    assert dropout(x, 0.5, False) is x
    assert dropout(x, 0.0, True) is x


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("probability", [0.1, 0.3, 0.9])
def test_elements_are_dropped_at_the_given_rate_at_every_place_of_a_draw(probability, dtype):
    """A draw has four places, and two of them fill a vector register's lane: positions modulo 8 see them all."""
    torch.manual_seed(0)
    count = 100_000
    dropped = (dropout(torch.ones(count * 8, dtype=dtype), probability, True) == 0).view(count, 8)
    rates = dropped.float().mean(0)
    deviation = math.sqrt(probability * (1 - probability) / count)
    assert float((rates - probability).abs().max()) < 5 * deviation


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("probability", [0.1, 0.5])
def test_the_mean_stays_and_elements_are_dropped_or_scaled(probability, dtype):
    torch.manual_seed(0)
    x = torch.rand(200_003).to(dtype) + 1
    y = dropout(x, probability, True)
    kept = y != 0
    scale = LEVELS / (LEVELS - round(probability * LEVELS))
    tolerance = 1e-6 if dtype == torch.float32 else 8e-3
    torch.testing.assert_close(y[kept].float(), x[kept].float() * scale, rtol=tolerance, atol=0)
    assert scale == pytest.approx(1 / (1 - probability), rel=1e-4)
    assert float(y.double().mean()) == pytest.approx(float(x.double().mean()), rel=0.01)


@pytest.mark.parametrize("distance", [1, 2, 3, 4, 5, 8])
def test_neighbours_are_dropped_independently(distance):
    torch.manual_seed(0)
    dropped = (dropout(torch.ones(400_000), 0.5, True) == 0).float()
    correlation = torch.corrcoef(torch.stack([dropped[:-distance], dropped[distance:]]))[0, 1]
    assert abs(float(correlation)) < 0.01


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_gradient_is_the_mask_times_the_scale(dtype):
    torch.manual_seed(0)
    x = (torch.rand(33, 5) + 0.5).to(dtype).requires_grad_()
    y = dropout(x, 0.4, True)
    weight = torch.randn(33, 5).to(dtype)
    y.backward(weight)
    mask = (y != 0).to(dtype)
    scale = LEVELS / (LEVELS - round(0.4 * LEVELS))
    assert x.grad.dtype == dtype
    assert torch.equal(x.grad, (weight * mask) * scale)
    assert 0 < int(mask.sum()) < mask.numel()


def test_the_gradient_does_not_touch_what_it_was_given():
    x = torch.randn(40, requires_grad=True)
    given = torch.ones(40)
    dropout(x, 0.5, True).backward(given)
    assert torch.equal(given, torch.ones(40))
    assert x.detach().isfinite().all()


@pytest.mark.parametrize("shape", [(0,), (1,), (2,), (3,), (5,), (7, 1), (3, 5, 7), (0, 4), ()])
def test_any_number_of_elements_will_do(shape):
    torch.manual_seed(1)
    x = torch.ones(shape)
    y = dropout(x, 0.5, True)
    assert y.shape == x.shape
    assert torch.equal(x, torch.ones(shape))
    assert set(y.flatten().tolist()) <= {0.0, 2.0}


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


def test_the_mask_does_not_depend_on_the_dtype():
    masks = []
    for dtype in DTYPES:
        torch.manual_seed(5)
        masks.append(dropout(torch.ones(1001, dtype=dtype), 0.3, True) != 0)
    assert torch.equal(*masks)


def test_a_probability_next_to_one_leaves_no_infinity():
    torch.manual_seed(0)
    y = dropout(torch.ones(500_000), 1 - 1e-9, True)
    assert y.isfinite().all()
    assert float((y == 0).float().mean()) > 0.9999
