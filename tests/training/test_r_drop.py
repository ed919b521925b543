"""R-Drop: the loss of two predictions, in chunks, against autograd over whole distributions."""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from seq2seq.model import native
from seq2seq.training import loss as loss_module
from seq2seq.training import r_drop
from seq2seq.training.loss import smoothed_cross_entropy
from seq2seq.training.r_drop import paired_cross_entropy


def plain(a: Tensor, b: Tensor, weight: Tensor, targets: Tensor, smoothing: float, alpha: float) -> Tensor:
    """The loss as the paper writes it, halved."""
    logits = [x[: len(targets)] @ weight.t() for x in (a, b)]
    log_p, log_q = (x.log_softmax(1) for x in logits)
    cross = sum(F.cross_entropy(x, targets, reduction="sum", label_smoothing=smoothing) for x in logits)
    p_to_q = F.kl_div(log_q, log_p, reduction="sum", log_target=True)
    q_to_p = F.kl_div(log_p, log_q, reduction="sum", log_target=True)
    return 0.5 * cross + alpha / 2 * 0.5 * (p_to_q + q_to_p)


def inputs(vocabulary: int, rows: int, tokens: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    a = torch.randn(rows, 16, dtype=torch.float64)
    b = a + 0.3 * torch.randn_like(a)
    weight = torch.randn(vocabulary, 16, dtype=torch.float64)
    targets = torch.randint(vocabulary, (tokens,))
    # Values that are the same in every dtype.
    a, b, weight = (x.bfloat16().to(dtype).requires_grad_() for x in (a, b, weight))
    return a, b, weight, targets


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize(("vocabulary", "rows", "tokens"), [(50, 70, 67), (1000, 5, 5), (3, 1, 1)])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_and_gradients_are_those_of_the_plain_form(
    compiled: bool, vocabulary: int, rows: int, tokens: int, smoothing: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    if compiled and not native.available():
        pytest.skip("the kernels were not built")
    monkeypatch.setattr(loss_module, "SMALLEST_CHUNK", 64)  # several chunks
    monkeypatch.setattr(r_drop, "CHUNK_ELEMENTS", 64 * vocabulary)
    exact = inputs(vocabulary, rows, tokens, torch.float64)
    expected = plain(*exact, smoothing, 5.0)
    expected_gradients = torch.autograd.grad(expected, exact[:3])
    tensors = inputs(vocabulary, rows, tokens, torch.float32)
    with contextlib.nullcontext() if compiled else native.disabled():
        loss, nll = paired_cross_entropy(*tensors, smoothing, 5.0)
        gradients = torch.autograd.grad(loss * 0.5, tensors[:3])
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-5)
    correct = [(x[:tokens] @ exact[2].t()).log_softmax(1).gather(1, exact[3][:, None]) for x in exact[:2]]
    torch.testing.assert_close(nll.double(), -0.5 * (correct[0] + correct[1]).sum(), rtol=1e-5, atol=1e-5)
    for gradient, wanted in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient.double(), 0.5 * wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("compiled", [True, False])
def test_in_bfloat16_gradients_stay_close(compiled: bool) -> None:
    if compiled and not native.available():
        pytest.skip("the kernels were not built")
    exact = inputs(200, 64, 60, torch.float64)
    expected = torch.autograd.grad(plain(*exact, 0.1, 3.0), exact[:3])
    a, b, weight, targets = inputs(200, 64, 60, torch.float32)
    with contextlib.nullcontext() if compiled else native.disabled():
        loss, _ = paired_cross_entropy(a.bfloat16(), b.bfloat16(), weight, targets, 0.1, 3.0)
        gradients = torch.autograd.grad(loss, (a, b, weight))
    for gradient, wanted in zip(gradients, expected, strict=True):
        assert (gradient - wanted).norm() < 0.02 * wanted.norm()


def test_equal_predictions_cost_what_one_does() -> None:
    a, _, weight, targets = inputs(100, 64, 50, torch.float32)
    loss, nll = paired_cross_entropy(a, a, weight, targets, 0.1, 7.0)
    single, single_nll = smoothed_cross_entropy(a, weight, targets, 0.1)
    torch.testing.assert_close(loss, single, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(nll, single_nll, rtol=1e-5, atol=1e-4)
