"""Training from start to end on every device that is here: a few steps, validation, resuming."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from helpers import Copies, Listener

from seq2seq.config import ModelConfig, TrainingConfig
from seq2seq.model import packed
from seq2seq.model.packed import Packed, Sentences, attend_packed
from seq2seq.model.transformer import Transformer
from seq2seq.run import Run
from seq2seq.runtime import choose_device, choose_precision
from seq2seq.text.batching import collate
from seq2seq.training.environment import differences, environment
from seq2seq.training.state import Interrupted
from seq2seq.training.trainer import Trainer
from seq2seq.training.updates import batch_losses

VOCABULARY = 40
PIECES = range(4, VOCABULARY)
DEVICES = [
    torch.device("cpu"),
    pytest.param(
        torch.device("cuda"), marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
    ),
]
on_every_device = pytest.mark.parametrize("device", DEVICES, ids=str)
in_each_precision = pytest.mark.parametrize("precision", ["fp32", "bf16"])


def build_model(seed: int = 1, dropout: float = 0.0) -> Transformer:
    torch.manual_seed(seed)
    config = ModelConfig(
        d_model=32, num_heads=2, d_ff=64, num_encoder_layers=1, num_decoder_layers=1, dropout=dropout
    )  # fmt: skip
    return Transformer(config, VOCABULARY, VOCABULARY, shared=True)


def trainer_for(
    folder: Path, device: torch.device, precision: Literal["fp32", "bf16"], *, stop_at: int = 0, seed: int = 1
) -> Trainer:
    config = TrainingConfig(
        max_steps=30, batch_tokens=600, accumulate=2, warmup_steps=10, learning_rate_scale=0.5, schedule="cosine",
        log_every=5, validate_every=10, save_every=10, clip_norm=1.0,
    )  # fmt: skip
    model = build_model(seed, dropout=0.1)
    model.compute_dtype = choose_precision(precision, device)
    trainer = Trainer(
        Run(folder) if folder.exists() else Run.create(folder),
        config,
        model,
        Copies(300, PIECES, seed=1),
        Copies(20, PIECES, seed=2),
        None,
        Listener(),
        device=device,
        stop=lambda: trainer.state.step == stop_at,
    )
    return trainer


@on_every_device
@in_each_precision
def test_training_lowers_the_loss_and_is_resumed(
    tmp_path: Path, device: torch.device, precision: Literal["fp32", "bf16"]
) -> None:
    whole = trainer_for(tmp_path / "whole", device, precision)
    state = whole.train()
    assert (state.step, state.finished, state.skipped_steps) == (30, True, 0)
    losses = [record["valid_loss"] for record in state.validations]
    assert len(losses) == 3 and losses[-1] < losses[0] - 0.05
    assert {parameter.device.type for parameter in whole.model.parameters()} == {device.type}
    assert {parameter.dtype for parameter in whole.model.parameters()} == {torch.float32}

    first = trainer_for(tmp_path / "parts", device, precision, stop_at=15)
    with pytest.raises(Interrupted):
        first.train()
    again = trainer_for(tmp_path / "parts", device, precision, seed=2)
    assert again.resume() and again.state.step == 15
    resumed = again.train()
    assert (resumed.step, resumed.target_tokens) == (30, state.target_tokens)
    # To the bit on a CPU; a GPU may add up in another order.
    tolerance = 0.0 if device.type == "cpu" else 0.02
    for one, other in zip(resumed.validations, state.validations, strict=True):
        assert one["valid_loss"] == pytest.approx(other["valid_loss"], abs=tolerance)


@on_every_device
@in_each_precision
@pytest.mark.parametrize("norm", ["post", "pre"])
def test_loss_and_gradients_are_those_of_a_cpu_without_kernels(
    device: torch.device, precision: Literal["fp32", "bf16"], norm: Literal["post", "pre"]
) -> None:
    def losses(device: torch.device, dtype: torch.dtype) -> tuple[float, float, torch.Tensor]:
        torch.manual_seed(3)
        config = ModelConfig(
            d_model=32, num_heads=2, d_ff=64, num_encoder_layers=2, num_decoder_layers=2, dropout=0.0, norm=norm
        )
        model = Transformer(config, VOCABULARY, VOCABULARY, shared=True).to(device)
        model.compute_dtype = dtype
        if dtype == torch.float64:
            model.double()
        batch = collate(Copies(30, PIECES, seed=5), np.arange(30)).to(device)
        loss, nll = batch_losses(model, batch, 0.1)
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        return loss.item(), nll.item(), torch.cat([gradient.flatten() for gradient in gradients]).double().cpu()

    loss, nll, gradient = losses(device, choose_precision(precision, device))
    exact_loss, exact_nll, exact = losses(torch.device("cpu"), torch.float64)
    near = 1e-4 if precision == "fp32" else 0.03
    assert (loss, nll) == pytest.approx((exact_loss, exact_nll), rel=near)
    assert float((gradient - exact).norm() / exact.norm()) < near


@on_every_device
@in_each_precision
@pytest.mark.parametrize("kind", ["within", "causal", "across"])
@pytest.mark.parametrize("size", [8, 12, 64])
def test_attention_over_packed_sentences_is_that_of_each_alone(
    device: torch.device, precision: Literal["fp32", "bf16"], kind: str, size: int
) -> None:
    dtype = choose_precision(precision, device)
    lengths, others = [5, 1, 9, 3], [2, 7, 1, 4]
    queries, keys = (Sentences.of(torch.tensor([0, *side]).cumsum(0)).to(device) for side in (lengths, others))
    torch.manual_seed(0)
    projected = torch.randn(18, 1 if kind == "across" else 3, 2, size).to(device, dtype).requires_grad_()
    memory = torch.randn(14, 2, 2, size).to(device, dtype).requires_grad_() if kind == "across" else None
    layout = Packed(queries, keys if kind == "across" else queries, causal=kind == "causal")
    attended = attend_packed(projected, memory, layout)
    attended.float().square().sum().backward()  # type: ignore[no-untyped-call]
    near = 1e-5 if precision == "fp32" else 0.03
    for b, (length, other) in enumerate(zip(lengths, others, strict=True)):
        first, second = sum(lengths[:b]), sum(others[:b])
        own = projected[first : first + length].detach().double().requires_grad_()
        if memory is None:
            query, key, value = own.unbind(1)
        else:
            query, (key, value) = own[:, 0], memory[second : second + other].detach().double().unbind(1)
        scores = torch.einsum("qhs,khs->hqk", query, key) / size**0.5
        if kind == "causal":
            scores = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), -torch.inf)
        expected = torch.einsum("hqk,khs->qhs", scores.softmax(-1), value)
        found = attended[first : first + length].double()
        torch.testing.assert_close(found, expected, rtol=near, atol=near)
        expected.square().sum().backward()  # type: ignore[no-untyped-call]
        assert projected.grad is not None and own.grad is not None
        gradient = projected.grad[first : first + length].double()
        torch.testing.assert_close(gradient, own.grad, rtol=2 * near, atol=4 * near)


class OnGPU:
    """As much of a tensor on a GPU as is asked for."""

    is_cuda, dtype, device = True, torch.bfloat16, torch.device("cuda", 0)

    def __init__(self, size: int) -> None:
        self.shape = 7, 2, size


@pytest.mark.parametrize(
    ("size", "capability", "runs"),
    [
        (64, (8, 0), True), (8, (9, 0), True), (256, (8, 6), True),
        (12, (8, 0), False), (264, (8, 0), False), (64, (7, 5), False),
    ],
)  # fmt: skip
def test_torchs_packed_attention_is_asked_for_what_its_kernel_has(
    monkeypatch: pytest.MonkeyPatch, size: int, capability: tuple[int, int], runs: bool
) -> None:
    """torch's mha_varlen_fwd refuses other heads, and GPUs before Ampere."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    packed._varlen_runs_on.cache_clear()
    try:
        assert packed._has_varlen(OnGPU(size), 0.0) is runs  # type: ignore[arg-type]
        assert not packed._has_varlen(OnGPU(size), 0.1)  # type: ignore[arg-type]
    finally:
        packed._varlen_runs_on.cache_clear()


def test_a_gpu_does_without_the_attention_that_prepares_every_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    before = torch.backends.cuda.cudnn_sdp_enabled()
    try:
        torch.backends.cuda.enable_cudnn_sdp(True)
        assert choose_device("cpu").type == "cpu" and torch.backends.cuda.cudnn_sdp_enabled()
        assert choose_device("auto").type == "cuda" and not torch.backends.cuda.cudnn_sdp_enabled()
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)


def test_the_name_of_a_gpu_is_kept_with_a_checkpoint_and_threads_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "GPU 1")
    first, cpu = (environment(build_model(), torch.device(kind), 1) for kind in ("cuda", "cpu"))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "GPU 2")
    assert differences(first, environment(build_model(), torch.device("cuda"), 2)) == ["device GPU 2 instead of GPU 1"]
    assert differences(cpu, environment(build_model(), torch.device("cpu"), 2)) == ["workers 2 instead of 1"]
