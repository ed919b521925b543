"""The chunked loss against the plain one, with the compiled kernels and without them."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

import seq2seq.training.loss as loss_module
from seq2seq.training.loss import smoothed_cross_entropy

Inputs = tuple[Tensor, Tensor, Tensor]

pytestmark = pytest.mark.usefixtures("kernels")


def set_chunks(patch: pytest.MonkeyPatch, elements: int) -> None:
    """Logits that exist at once."""
    patch.setattr(loss_module, "SMALLEST_CHUNK", 1)
    patch.setattr(loss_module, "CHUNK_ELEMENTS", elements)
    patch.setattr(loss_module, "NATIVE_CHUNK_BYTES", 4 * elements)  # float32
    patch.setattr(loss_module, "ROW_UNIT", 1)


def inputs(tokens: int, d_model: int, vocabulary: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Inputs:
    """States [N, D] and an output matrix [V, D] that want gradients, and targets [N]."""
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(tokens, d_model, generator=generator).to(dtype).requires_grad_()
    weight = torch.randn(vocabulary, d_model, generator=generator).requires_grad_()
    return states, weight, torch.randint(0, vocabulary, (tokens,), generator=generator)


def plain(states: Tensor, weight: Tensor, targets: Tensor, smoothing: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """torch's own loss, its gradients by the states and the weight, and -log p; all in float64."""
    states, weight = (tensor.detach().double().requires_grad_() for tensor in (states, weight))
    logits = states @ weight.t()
    loss = F.cross_entropy(logits, targets, label_smoothing=smoothing, reduction="sum")
    loss.backward()  # type: ignore[no-untyped-call]
    assert states.grad is not None and weight.grad is not None
    return loss.detach(), states.grad, weight.grad, F.cross_entropy(logits, targets, reduction="sum").detach()


def assert_equal_to_plain(given: Inputs, smoothing: float, *, relative: float = 1e-5, scale: float = 1.0) -> None:
    """The same loss, -log p and gradients, up to `relative` of the largest number in each (0.1 where all are smaller:
    differences of probabilities near 1 are no more exact than these)."""
    states, weight, targets = given
    loss, nll = smoothed_cross_entropy(states, weight, targets, smoothing)
    assert loss.dtype == nll.dtype == torch.float32 and loss.shape == nll.shape == ()
    (loss * scale).backward()  # type: ignore[no-untyped-call]
    assert states.grad is not None and weight.grad is not None
    assert (states.grad.dtype, weight.grad.dtype) == (states.dtype, weight.dtype)
    expected_loss, by_states, by_weight, expected_nll = plain(states, weight, targets, smoothing)
    for value, expected in (
        (loss.detach(), expected_loss),
        (nll, expected_nll),
        (states.grad, scale * by_states),
        (weight.grad, scale * by_weight),
    ):
        torch.testing.assert_close(
            value.double(), expected, rtol=0, atol=relative * max(0.1, float(expected.abs().max()))
        )


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_and_gradients_are_those_of_torch(smoothing: float) -> None:
    assert_equal_to_plain(inputs(50, 16, 37), smoothing)


# The kernels are switched for all examples alike.
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    tokens=st.integers(1, 70),
    d_model=st.integers(1, 9),
    vocabulary=st.integers(2, 40),
    smoothing=st.sampled_from([0.0, 0.1, 0.5, 0.99]),
    chunk=st.integers(1, 3000),
    seed=st.integers(0, 1000),
)
def test_it_does_not_matter_how_the_tokens_are_cut_into_chunks(
    tokens: int, d_model: int, vocabulary: int, smoothing: float, chunk: int, seed: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        set_chunks(patch, chunk)
        assert_equal_to_plain(inputs(tokens, d_model, vocabulary, seed=seed), smoothing)


@pytest.mark.parametrize("tokens", [1, 63, 64, 65, 256])
def test_the_edges_of_chunks_are_where_they_should_be(monkeypatch: pytest.MonkeyPatch, tokens: int) -> None:
    set_chunks(monkeypatch, 64 * 11)
    assert_equal_to_plain(inputs(tokens, 8, 11), 0.1)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tokens=st.integers(0, 5000), most=st.integers(1, 100).map(lambda units: 64 * units))
def test_chunks_are_few_and_even(tokens: int, most: int) -> None:
    size = loss_module.even_chunk(tokens, most)
    assert 0 < size <= most and size % 64 == 0
    assert -(-tokens // size) == -(-tokens // most)  # no more of them than there have to be


def test_no_tokens_cost_nothing() -> None:
    states, weight, targets = inputs(0, 8, 11)
    loss, nll = smoothed_cross_entropy(states, weight, targets, 0.1)
    assert loss.item() == nll.item() == 0.0
    loss.backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None and not weight.grad.any()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_bfloat16_is_near(monkeypatch: pytest.MonkeyPatch, smoothing: float) -> None:
    set_chunks(monkeypatch, 64 * 37)
    assert_equal_to_plain(inputs(300, 16, 37, dtype=torch.bfloat16), smoothing, relative=0.02)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("closeness", [2.2, 2.9, 3.4])  # p(target) of about 0.95, 0.99, 0.999
def test_bfloat16_is_near_where_the_model_is_confident(closeness: float, smoothing: float) -> None:
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(1000, 64, generator=generator) * 0.3
    targets = torch.randint(0, 1000, (200,), generator=generator)
    noise = torch.randn(200, 64, generator=generator) * 0.05
    states = (weight[targets] * closeness + noise).bfloat16().requires_grad_()
    weight = weight.bfloat16().float().requires_grad_()
    loss, nll = smoothed_cross_entropy(states, weight, targets, smoothing)
    loss.backward()  # type: ignore[no-untyped-call]
    assert states.grad is not None and weight.grad is not None
    _, by_states, by_weight, expected_nll = plain(states, weight, targets, smoothing)
    assert nll.item() == pytest.approx(expected_nll.item(), rel=0.01)
    for gradient, expected in ((states.grad, by_states), (weight.grad, by_weight)):
        assert float((gradient.double() - expected).norm() / expected.norm()) < 0.03


def test_no_more_logits_exist_at_once_than_a_chunk_has(monkeypatch: pytest.MonkeyPatch) -> None:
    set_chunks(monkeypatch, 64 * 11)
    states, weight, targets = inputs(256, 8, 11)
    with torch.profiler.profile(record_shapes=True) as profile:
        smoothed_cross_entropy(states, weight, targets, 0.1)
    shapes = [shape for event in profile.events() for shape in event.input_shapes if len(shape) == 2]
    assert max(rows for rows, columns in shapes if columns == 11) == 64


def test_no_gradient_is_computed_where_none_is_wanted() -> None:
    given_ = inputs(20, 8, 11)
    with torch.no_grad():
        loss, nll = smoothed_cross_entropy(*given_, 0.1)
    assert not loss.requires_grad and not nll.requires_grad
    with torch.no_grad(), torch.profiler.profile() as profile:
        smoothed_cross_entropy(*given_, 0.1)
    products = sum(event.count for event in profile.key_averages() if event.key == "aten::mm")
    assert products == 1


@pytest.mark.parametrize("scale", [0.0, 1 / 4096, -3.0])
def test_gradients_scale_with_what_comes_from_above(scale: float) -> None:
    assert_equal_to_plain(inputs(20, 8, 11), 0.1, scale=scale)


def test_the_nll_is_that_of_the_targets_whatever_the_smoothing() -> None:
    given_ = inputs(20, 8, 11)
    values = {float(smoothed_cross_entropy(*given_, smoothing)[1]) for smoothing in (0.0, 0.1, 0.9)}
    assert max(values) == pytest.approx(min(values), rel=1e-5)
    loss, nll = smoothed_cross_entropy(*given_, 0.0)
    assert loss.item() == pytest.approx(nll.item(), rel=1e-6)
    assert not nll.requires_grad


def test_uniform_logits_cost_the_logarithm_of_the_vocabulary() -> None:
    for smoothing in (0.0, 0.1):
        loss, nll = smoothed_cross_entropy(torch.zeros(7, 4), torch.randn(50, 4), torch.arange(7), smoothing)
        assert float(loss) == pytest.approx(7 * math.log(50), rel=1e-5)
        assert float(nll) == pytest.approx(7 * math.log(50), rel=1e-5)


def test_a_certain_and_wrong_prediction_has_a_finite_loss_and_the_right_gradient() -> None:
    states = torch.tensor([[300.0], [-300.0]], requires_grad=True)
    weight = torch.tensor([[1.0], [-1.0], [0.0]], requires_grad=True)
    targets = torch.tensor([1, 1])  # hopeless, then certain
    loss, nll = smoothed_cross_entropy(states, weight, targets, 0.0)
    assert float(loss.detach()) == float(nll) == 600.0
    loss.backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(states.grad, torch.tensor([[2.0], [0.0]]))
    torch.testing.assert_close(weight.grad, torch.tensor([[300.0], [-300.0], [0.0]]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("gap", [20.0, 80.0, 90.0, 150.0, 1e4])
def test_the_loss_goes_on_growing_where_the_probability_is_too_small_for_a_number(
    gap: float, dtype: torch.dtype
) -> None:
    """exp(-90) is no normal number of float32, exp(-150) none at all."""
    states, weight = torch.tensor([[gap]], dtype=dtype), torch.zeros(50, 1)
    weight[7] = 1.0
    loss, nll = smoothed_cross_entropy(states, weight, torch.tensor([3]), 0.1)
    expected, _, _, expected_nll = plain(states, weight, torch.tensor([3]), 0.1)
    assert float(nll) == pytest.approx(float(expected_nll), rel=1e-5)
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("chunk", [64 * 11, 1 << 20])
@pytest.mark.parametrize("more", [1, 30, 64, 200])
def test_states_past_the_last_target_count_for_nothing(monkeypatch: pytest.MonkeyPatch, chunk: int, more: int) -> None:
    """They cost nothing, get no gradient, and give the weight none."""
    set_chunks(monkeypatch, chunk)
    states, weight, targets = inputs(70, 8, 11)
    longer = torch.cat([states.detach(), torch.randn(more, 8)]).requires_grad_()
    found = smoothed_cross_entropy(longer, weight, targets, 0.1)
    torch.testing.assert_close(found, smoothed_cross_entropy(states, weight, targets, 0.1))
    by_longer, by_weight = torch.autograd.grad(found[0], (longer, weight))
    assert not by_longer[70:].any()
    _, by_states, expected, _ = plain(states, weight, targets, 0.1)
    torch.testing.assert_close(by_longer[:70].double(), by_states, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(by_weight.double(), expected, rtol=1e-4, atol=1e-5)


def test_a_state_that_is_not_a_number_shows() -> None:
    states, weight, targets = inputs(5, 4, 6)
    broken = states.detach().clone()
    broken[2, 1] = math.nan
    loss, nll = smoothed_cross_entropy(broken, weight, targets, 0.1)
    assert loss.isnan() and nll.isnan()


def test_no_graph_is_kept_where_no_gradient_is_wanted() -> None:
    states, weight, targets = inputs(5, 4, 6)
    with torch.no_grad():
        loss, _ = smoothed_cross_entropy(states, weight, targets, 0.1)
    assert loss.grad_fn is None and not loss.requires_grad
    loss, _ = smoothed_cross_entropy(states.detach(), weight.detach(), targets, 0.1)
    assert loss.grad_fn is None and not loss.requires_grad


@pytest.mark.parametrize("wanted", [0, 1])
def test_either_input_may_want_a_gradient_alone(wanted: int) -> None:
    states, weight, targets = inputs(9, 4, 6)
    (other := (states, weight)[1 - wanted]).requires_grad_(False)
    loss, _ = smoothed_cross_entropy(states, weight, targets, 0.1)
    loss.backward()  # type: ignore[no-untyped-call]
    _, *gradients, _ = plain(states, weight, targets, 0.1)
    assert other.grad is None
    torch.testing.assert_close((states, weight)[wanted].grad, gradients[wanted].float())


def test_the_inputs_are_not_written_to() -> None:
    states, weight, targets = inputs(40, 4, 6)
    before = [tensor.detach().clone() for tensor in (states, weight, targets)]
    smoothed_cross_entropy(states, weight, targets, 0.1)[0].backward()  # type: ignore[no-untyped-call]
    assert all(torch.equal(tensor, copy) for tensor, copy in zip((states, weight, targets), before, strict=True))
