"""Dropout with the compiled kernels and without them, and the stream of its seeds."""

import math
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import pytest
import torch

from seq2seq.model import native
from seq2seq.model.dropout import LEVELS, Seeds, dropout, next_seed, seeded

DTYPES = [torch.float32, torch.bfloat16]

pytestmark = pytest.mark.usefixtures("kernels")


def scale_of(kernels, probability):
    """What kept elements are multiplied by; the drop probability is a multiple of 2^-32 or 2^-16."""
    levels = 2**32 if kernels == "compiled" else LEVELS
    return levels / (levels - round(probability * levels))


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
def test_the_mean_stays_and_elements_are_dropped_or_scaled(probability, dtype, kernels):
    torch.manual_seed(0)
    x = torch.rand(200_003).to(dtype) + 1
    y = dropout(x, probability, True)
    kept = y != 0
    scale = scale_of(kernels, probability)
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
def test_the_gradient_is_the_mask_times_the_scale(dtype, kernels):
    torch.manual_seed(0)
    x = (torch.rand(33, 5) + 0.5).to(dtype).requires_grad_()
    y = dropout(x, 0.4, True)
    weight = torch.randn(33, 5).to(dtype)
    y.backward(weight)
    mask = (y != 0).to(dtype)
    scale = scale_of(kernels, 0.4)
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


def test_a_residual_is_added_to_what_is_left():
    torch.manual_seed(0)
    x, residual = torch.randn(7, 9), torch.randn(7, 9)
    with seeded(3):
        alone = dropout(x, 0.4, True)
    with seeded(3):
        joined = dropout(x, 0.4, True, residual=residual)
    assert torch.equal(joined == residual, alone == 0)
    torch.testing.assert_close(joined, residual + alone)


@pytest.mark.parametrize(("probability", "training"), [(0.4, False), (0.0, True)])
def test_without_dropout_a_residual_is_added_to_everything(probability, training):
    x, residual = torch.randn(7, 9), torch.randn(7, 9)
    assert torch.equal(dropout(x, probability, training, residual=residual), residual + x)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_residual_gets_the_whole_gradient_and_the_rest_that_of_the_mask(dtype, kernels):
    torch.manual_seed(0)
    x, residual = (torch.randn(7, 9).to(dtype).requires_grad_() for _ in range(2))
    weight = torch.randn(7, 9).to(dtype)
    with seeded(3):
        mask = (dropout(torch.ones(7, 9, dtype=dtype), 0.4, True) != 0).to(dtype)
    with seeded(3):
        dropout(x, 0.4, True, residual=residual).backward(weight)
    assert torch.equal(residual.grad, weight)
    assert torch.equal(x.grad, (weight * mask) * scale_of(kernels, 0.4))


@pytest.mark.parametrize("wanted", ["x", "residual"])
def test_either_of_x_and_the_residual_may_want_a_gradient_alone(wanted):
    tensors = {"x": torch.randn(7, 9), "residual": torch.randn(7, 9)}
    tensors[wanted].requires_grad_()
    with seeded(3):
        dropout(tensors["x"], 0.4, True, residual=tensors["residual"]).sum().backward()
    assert [name for name, tensor in tensors.items() if tensor.grad is not None] == [wanted]
    assert (tensors[wanted].grad == 0).any() == (wanted == "x")


def mask(size=512):
    """What one use of dropout drops, as bytes."""
    return (dropout(torch.ones(size), 0.5, True) == 0).numpy().tobytes()


def test_under_a_seed_the_masks_are_a_function_of_it_and_of_the_order_of_their_uses():
    torch.manual_seed(0)
    with seeded(7):
        first = [mask() for _ in range(20)]
    torch.manual_seed(1)
    torch.rand(5)
    with seeded(7):
        assert [mask() for _ in range(20)] == first
    with seeded(8):
        other = [mask() for _ in range(20)]
    assert len({*first, *other}) == 40


def test_under_a_seed_torchs_generator_is_neither_read_nor_moved():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    with seeded(7):
        mask()
    assert torch.equal(torch.get_rng_state(), before)


def test_outside_of_seeds_torchs_generator_decides():
    torch.manual_seed(4)
    first, second = mask(), mask()
    with seeded(7):
        mask()
    torch.manual_seed(4)
    assert [mask(), mask()] == [first, second]
    assert first != second


def test_a_seed_within_another_leaves_the_outer_stream_where_it_was():
    with seeded(7):
        plain = [mask(), mask()]
    with seeded(7):
        around = [mask()]
        with pytest.raises(KeyError), seeded(7):
            assert mask() == plain[0]
            raise KeyError
        around.append(mask())
    assert around == plain


def test_threads_have_streams_of_their_own(kernels):
    """One thread's uses do not move another's stream, and a thread without a seed has none."""

    def masks(seed):
        with native.disabled() if kernels == "torch" else nullcontext(), seeded(seed):
            return [mask() for _ in range(50)]

    def mask_without_seed():
        with native.disabled() if kernels == "torch" else nullcontext():
            return mask()

    alone = [masks(seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(masks, range(4))) == alone
        torch.manual_seed(5)
        outside = mask()
        torch.manual_seed(5)
        with seeded(0):
            assert pool.submit(mask_without_seed).result() == outside


def test_the_stream_of_seeds_is_splitmix64():
    """The reference implementation's first numbers (S. Vigna, prng.di.unimi.it/splitmix64.c)."""
    seeds = Seeds(0)
    assert [seeds.next() for _ in range(3)] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    with seeded(1234567):
        assert [next_seed() for _ in range(2)] == [6457827717110365317, 3203168211198807973]


@pytest.mark.parametrize("pair", [(0, 1), (1, 2), (7, 7 + 2**32), (5, 5 + 2**63)])
def test_masks_of_seeds_next_to_each_other_are_not_alike(pair):
    draws = []
    for seed in pair:
        with seeded(seed):
            draws.append((dropout(torch.ones(100_000), 0.5, True) == 0).float())
    correlation = torch.corrcoef(torch.stack(draws))[0, 1]
    assert abs(float(correlation)) < 5 / math.sqrt(100_000)


def test_masks_of_one_stream_are_not_alike():
    with seeded(11):
        dropped = torch.stack([(dropout(torch.ones(50_000), 0.5, True) == 0).float() for _ in range(24)])
    correlations = torch.corrcoef(dropped) - torch.eye(24)
    assert float(correlations.abs().max()) < 6 / math.sqrt(50_000)
    assert float((dropped.mean(0) - 0.5).abs().max()) < 0.5  # no place is always kept or always dropped
