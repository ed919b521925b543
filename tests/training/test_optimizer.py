"""Learning-rate schedules, Adam, and its state as plain tensors."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from seq2seq.config import ModelConfig, TrainingConfig
from seq2seq.model.transformer import Transformer
from seq2seq.training.muon import layer_matrices
from seq2seq.training.optimizer import (
    build_adam,
    build_optimizers,
    learning_rate,
    load_optimizer_tensors,
    optimizer_bytes,
    optimizer_tensors,
)

Schedule = Literal["inverse_sqrt", "cosine", "linear", "constant"]
SCHEDULES: tuple[Schedule, ...] = ("inverse_sqrt", "cosine", "linear", "constant")

schedules = st.sampled_from(SCHEDULES)
properties = settings(deadline=None)


@properties
@given(step=st.integers(1, 300_000), d_model=st.sampled_from([128, 512, 1024]), warmup=st.integers(1, 16_000))
def test_the_default_schedule_is_equation_3_of_the_paper(step: int, d_model: int, warmup: int) -> None:
    config = TrainingConfig(warmup_steps=warmup)
    expected = d_model**-0.5 * min(step**-0.5, step * warmup**-1.5)
    assert learning_rate(config, d_model, step, None) == pytest.approx(expected, rel=1e-12)
    assert learning_rate(config, d_model, step, 2 * max(step, warmup)) == pytest.approx(expected, rel=1e-12)


@properties
@given(
    schedule=schedules,
    warmup=st.integers(1, 500),
    horizon=st.integers(1000, 5000),
    scale=st.floats(0.1, 10),
    d_model=st.sampled_from([32, 512]),
)
def test_all_schedules_rise_to_one_peak_at_the_end_of_the_warm_up(
    schedule: Schedule, warmup: int, horizon: int, scale: float, d_model: int
) -> None:
    config = TrainingConfig(schedule=schedule, warmup_steps=warmup, learning_rate_scale=scale)
    rates = [learning_rate(config, d_model, step, horizon) for step in range(1, horizon + 1)]
    assert max(rates) == rates[warmup - 1] == pytest.approx(scale * (d_model * warmup) ** -0.5)
    assert all(a < b for a, b in pairwise(rates[:warmup]))
    assert all(a >= b >= 0 for a, b in pairwise(rates[warmup - 1 :]))


@properties
@given(schedule=schedules, warmup=st.integers(1, 500))
def test_the_warm_up_needs_no_horizon(schedule: Schedule, warmup: int) -> None:
    """Whoever plans the horizon from the speed of steps has until the last of the warm-up to do so."""
    config = TrainingConfig(schedule=schedule, warmup_steps=warmup)
    for step in {1, max(1, warmup // 2), warmup}:
        assert learning_rate(config, 64, step, None) == learning_rate(config, 64, step, 2 * warmup)


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_a_schedule_that_falls_to_zero_needs_a_horizon_after_the_warm_up(schedule: Schedule) -> None:
    config = TrainingConfig(schedule=schedule, warmup_steps=10)
    with pytest.raises(ValueError, match=f"'{schedule}' needs a horizon"):
        learning_rate(config, 64, 11, None)


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
@pytest.mark.parametrize("horizon", [2, 3, 10, 1000])
def test_cosine_and_linear_reach_zero_at_the_horizon_and_stay_there(schedule: Schedule, horizon: int) -> None:
    config = TrainingConfig(schedule=schedule, warmup_steps=100)
    peak = (64 * 100) ** -0.5
    assert learning_rate(config, 64, horizon, horizon) == pytest.approx(0.0, abs=1e-12 * peak)
    assert learning_rate(config, 64, horizon + 50, horizon) == pytest.approx(0.0, abs=1e-12 * peak)


def test_cosine_and_linear_are_at_half_the_peak_half_way_down() -> None:
    for schedule in ("cosine", "linear"):
        config = TrainingConfig(schedule=schedule, warmup_steps=100)
        assert learning_rate(config, 64, 300, 500) == pytest.approx(0.5 * (64 * 100) ** -0.5)
    quarter = TrainingConfig(schedule="cosine", warmup_steps=100)
    expected = 0.5 * (1 + math.cos(math.pi / 4)) * (64 * 100) ** -0.5
    assert learning_rate(quarter, 64, 200, 500) == pytest.approx(expected)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("horizon", [1, 2, 3, 50, 199])
def test_a_run_shorter_than_its_warm_up_still_reaches_the_peak(schedule: Schedule, horizon: int) -> None:
    config = TrainingConfig(schedule=schedule, warmup_steps=4000)
    rates = [learning_rate(config, 64, step, horizon) for step in range(1, horizon + 1)]
    assert max(rates) == rates[max(1, horizon // 2) - 1] == pytest.approx((64 * 4000) ** -0.5)


# Adam


class Small(nn.Module):
    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.matrix = nn.Parameter(torch.randn(4, 3))
        self.vector = nn.Parameter(torch.randn(4))

    def loss(self, x: Tensor) -> Tensor:
        return (x @ self.matrix.t() + self.vector).square().sum()


def step(model: Small, optimizer: torch.optim.Optimizer, seed: int, rate: float = 0.01) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad()
    torch.manual_seed(seed)
    model.loss(torch.randn(5, 3)).backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def test_updates_are_those_of_adam_with_the_papers_coefficients() -> None:
    model, twin = Small(), Small()
    ours = build_adam(TrainingConfig(), list(model.parameters()))
    theirs = torch.optim.Adam(twin.parameters(), lr=0.01, betas=(0.9, 0.98), eps=1e-9)
    for number in range(5):
        step(model, ours, number)
        step(twin, theirs, number)
    for own, other in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(own, other)


def test_weight_decay_shrinks_matrices_and_leaves_vectors_alone() -> None:
    model = Small()
    matrix, vector = model.matrix.detach().clone(), model.vector.detach().clone()
    optimizer = build_adam(TrainingConfig(weight_decay=0.5), list(model.parameters()))
    for group in optimizer.param_groups:
        group["lr"] = 0.1
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    torch.testing.assert_close(model.matrix.detach(), matrix * (1 - 0.1 * 0.5))
    assert torch.equal(model.vector.detach(), vector)


def test_the_state_goes_through_tensors_and_back_exactly() -> None:
    model, twin = Small(), Small(seed=9)
    optimizer, other = (build_adam(TrainingConfig(), list(one.parameters())) for one in (model, twin))
    for number in range(3):
        step(model, optimizer, number)
    tensors = optimizer_tensors([optimizer], model)
    assert set(tensors) == {
        f"{name}/{key}" for name in ("matrix", "vector") for key in ("exp_avg", "exp_avg_sq", "step")
    }
    twin.load_state_dict(model.state_dict())
    load_optimizer_tensors([other], twin, tensors)
    for number in range(3, 6):
        step(model, optimizer, number)
        step(twin, other, number)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))
    after, others = optimizer_tensors([optimizer], model), optimizer_tensors([other], twin)
    assert all(torch.equal(after[name], others[name]) for name in after)
    assert not all(torch.equal(after[name], tensors[name]) for name in after), "tensors are copies, not views"


def test_before_the_first_step_there_is_no_state() -> None:
    model = Small()
    optimizer = build_adam(TrainingConfig(), list(model.parameters()))
    assert optimizer_tensors([optimizer], model) == {}
    with pytest.raises(ValueError, match="lacks exp_avg"):  # no checkpoint is saved there
        load_optimizer_tensors([optimizer], model, {})
    step(model, optimizer, 1)
    assert optimizer_tensors([optimizer], model)


def test_state_that_is_missing_or_misshapen_is_refused() -> None:
    model = Small()
    optimizer = build_adam(TrainingConfig(), list(model.parameters()))
    step(model, optimizer, 1)
    good = optimizer_tensors([optimizer], model)
    for missing in good:
        bad = {name: tensor for name, tensor in good.items() if name != missing}
        name, _, key = missing.partition("/")
        with pytest.raises(ValueError, match=f"state of {name} lacks {key}"):
            load_optimizer_tensors([build_adam(TrainingConfig(), list(model.parameters()))], model, bad)
    for name in ("matrix/exp_avg", "vector/exp_avg_sq"):
        with pytest.raises(ValueError, match=rf"{name} has shape \(2, 2\)"):
            load_optimizer_tensors([optimizer], model, {**good, name: torch.zeros(2, 2)})


def test_state_that_lacks_a_whole_parameter_is_refused() -> None:
    model = Small()
    optimizer = build_adam(TrainingConfig(), list(model.parameters()))
    step(model, optimizer, 1)
    only_one = {name: tensor for name, tensor in optimizer_tensors([optimizer], model).items() if "vector" not in name}
    with pytest.raises(ValueError, match="state of vector lacks"):
        load_optimizer_tensors([optimizer], model, only_one)


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_the_size_of_the_optimizers_state_is_what_is_said_before(optimizer: Literal["adam", "muon"]) -> None:
    sizes = {"d_model": 16, "num_heads": 2, "d_ff": 32, "num_encoder_layers": 1, "num_decoder_layers": 2}
    model = Transformer(ModelConfig.model_validate(sizes), 50, 50, shared=True)
    config = TrainingConfig(optimizer=optimizer)
    optimizers = build_optimizers(
        config, list(model.parameters()), layer_matrices(model) if optimizer == "muon" else {}
    )
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    for one in optimizers:
        one.step()
    kept = optimizer_tensors(optimizers, model)
    held = sum(tensor.numel() * tensor.element_size() for name, tensor in kept.items() if not name.endswith("/step"))
    assert optimizer_bytes(config, model) == held
