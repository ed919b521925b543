"""Muon: what it does to a matrix, which matrices it has, and that it resumes and skips as Adam does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from seq2seq.config import Config, ModelConfig, TrainingConfig
from seq2seq.model.transformer import Transformer
from seq2seq.run_folder.files import RunError
from seq2seq.run_folder.resume_rules import check_changes
from seq2seq.training.muon import COST, Muon, costs, layer_matrices, orthogonal
from seq2seq.training.optimizer import build_optimizers, load_optimizer_tensors, optimizer_tensors

RATE = 0.01


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def muon_for(*parameters: nn.Parameter, blocks: int = 1, **options: Any) -> Muon:
    muon = Muon(dict.fromkeys(parameters, blocks), **{"momentum": 0.95, "scale": 0.4, **options})
    for group in muon.param_groups:
        group["lr"] = RATE
    return muon


def small_transformer() -> Transformer:
    torch.manual_seed(1)
    config = ModelConfig(d_model=8, num_heads=2, d_ff=12, num_encoder_layers=1, num_decoder_layers=2, norm="pre",
                         positions="learned", tied_embeddings="none")  # fmt: skip
    return Transformer(config, 20, 20, shared=True)


def test_singular_vectors_stay_and_values_come_near_one() -> None:
    left, values, right = torch.linalg.svd(random(5, 12, 30), full_matrices=False)
    spread = torch.logspace(0, -1.7, 12).expand(5, 12)  # down to a fiftieth of the largest
    found = orthogonal(left @ (spread * values[:, :1])[..., None].mul(torch.eye(12)) @ right)
    within = left.mT @ found @ right.mT
    diagonal = within.diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(within, torch.diag_embed(diagonal), atol=1e-4, rtol=0)
    assert ((diagonal > 0.4) & (diagonal < 1.25)).all(), diagonal


def test_the_size_of_a_gradient_does_not_matter_and_nothing_stays_nothing() -> None:
    matrix = random(2, 6, 9)
    torch.testing.assert_close(orthogonal(1e-6 * matrix), orthogonal(matrix))
    assert not orthogonal(torch.zeros(1, 3, 4)).any()
    half = orthogonal(matrix, torch.bfloat16)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, orthogonal(matrix), atol=0.05, rtol=0)


@pytest.mark.parametrize("flush", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_nearly_nothing_stays_small(flush: bool, dtype: torch.dtype) -> None:
    """Squares of numbers below 1e-19 are denormal, or 0: a norm of 0 must not make others infinite."""
    torch.set_flush_denormal(flush)
    try:
        for exponent in range(-44, -8):
            found = orthogonal(random(2, 6, 9) * 10.0**exponent, dtype)
            assert found.isfinite().all() and found.abs().max() < 1.3, exponent
    finally:
        torch.set_flush_denormal(False)


@pytest.mark.parametrize("flush", [True, False])
def test_a_matrix_whose_gradient_is_gone_comes_to_rest(flush: bool) -> None:
    """As that of a feed-forward network all of whose units are off: its momentum fades for a thousand steps."""
    torch.set_flush_denormal(flush)
    try:
        parameter = nn.Parameter(random(4, 6))
        muon = muon_for(parameter)
        parameter.grad = 1e-3 * random(4, 6, seed=1)
        for number in range(2500):
            muon.step()
            parameter.grad = torch.zeros(4, 6)
            if number == 600:
                rested = parameter.detach().clone()
        assert parameter.isfinite().all()
        assert (parameter - rested).abs().max() < RATE
    finally:
        torch.set_flush_denormal(False)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon")
@pytest.mark.parametrize("shape", [(16, 16), (8, 24), (24, 8)])
def test_updates_are_those_of_torchs_muon(shape: tuple[int, int]) -> None:
    """Which computes in bfloat16, and one matrix at a time."""
    ours, theirs = nn.Parameter(random(*shape)), nn.Parameter(random(*shape))
    muon = muon_for(ours, scale=0.2, weight_decay=0.1)
    other = torch.optim.Muon([theirs], lr=RATE, weight_decay=0.1, ns_steps=3, adjust_lr_fn="match_rms_adamw")
    start = ours.detach().clone()
    for number in range(4):
        ours.grad = random(*shape, seed=number + 1)
        theirs.grad = ours.grad.clone()
        muon.step()
        other.step()
    moved = ours.detach() - start
    assert (moved - (theirs.detach() - start)).norm() < 0.03 * moved.norm()


@pytest.mark.parametrize("shape", [(16, 16), (8, 24), (24, 8)])
def test_an_update_of_any_shape_is_as_large_as_the_scale_says(shape: tuple[int, int]) -> None:
    parameter = nn.Parameter(torch.zeros(shape))
    parameter.grad = random(*shape)
    muon_for(parameter).step()
    size = parameter.detach().square().mean().sqrt()
    assert 0.7 < size / (0.4 * RATE) < 1.25


def test_fused_projections_are_updated_one_by_one() -> None:
    fused = nn.Parameter(random(12, 6))
    alone = [nn.Parameter(part.clone()) for part in fused.detach().chunk(3)]
    gradient = random(12, 6, seed=1)
    fused.grad = gradient * torch.tensor([1.0, 5.0, 0.1]).repeat_interleave(4)[:, None]
    for parameter, part in zip(alone, gradient.chunk(3), strict=True):
        parameter.grad = part.clone()
    muon_for(fused, blocks=3).step()
    muon_for(*alone).step()
    torch.testing.assert_close(fused.detach(), torch.cat([part.detach() for part in alone]))


def test_matrices_that_stand_and_lie_are_treated_alike() -> None:
    lying, standing = nn.Parameter(random(4, 9)), nn.Parameter(random(4, 9).t().contiguous())
    lying.grad = random(4, 9, seed=1)
    standing.grad = lying.grad.t().contiguous()
    muon_for(lying, standing).step()
    torch.testing.assert_close(standing.detach(), lying.detach().t())


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1.0])
def test_what_is_not_to_be_taken_changes_nothing(bad: float) -> None:
    parameter = nn.Parameter(random(4, 6))
    muon = muon_for(parameter, weight_decay=0.5)
    parameter.grad = random(4, 6, seed=1)
    muon.step()
    weights, momentum = parameter.detach().clone(), muon.state[parameter]["momentum"].clone()
    parameter.grad, muon.found_inf = torch.full((4, 6), bad), torch.tensor(1.0)
    muon.step()
    assert torch.equal(parameter, weights)
    assert torch.equal(muon.state[parameter]["momentum"], momentum)
    parameter.grad, muon.found_inf = random(4, 6, seed=2), torch.tensor(0.0)
    muon.step()
    assert not torch.equal(parameter, weights)


def test_it_has_all_matrices_of_layers_and_nothing_else() -> None:
    model = small_transformer()
    names = {name for name, parameter in model.named_parameters() if parameter in layer_matrices(model)}
    expected = {name for name, parameter in model.named_parameters() if parameter.dim() == 2 and "_layers." in name}
    assert names == expected and len(names) == (2 + 2) + 2 * (2 + 2 + 2)
    assert {parameter.shape[0] // blocks for parameter, blocks in layer_matrices(model).items()} == {8, 12}


def test_it_has_a_matrix_that_is_new_in_a_layer() -> None:
    model = small_transformer()
    layer = model.decoder_layers[0]
    layer.gate, layer.scale = torch.nn.Parameter(torch.ones(3, 8)), torch.nn.Parameter(torch.ones(8))
    matrices = layer_matrices(model)
    assert matrices[layer.gate] == 1 and layer.scale not in matrices


def test_adam_has_the_rest() -> None:
    model = small_transformer()
    parameters = list(model.parameters())
    matrices = layer_matrices(model)
    adam, muon = build_optimizers(TrainingConfig(optimizer="muon"), parameters, matrices)
    assert isinstance(muon, Muon)
    owned = [[id(p) for group in optimizer.param_groups for p in group["params"]] for optimizer in (adam, muon)]
    assert sorted(owned[0] + owned[1]) == sorted(map(id, parameters))
    assert set(owned[1]) == set(map(id, matrices))
    assert costs(parameters[:1], matrices) == [parameters[0].numel()]
    assert costs(list(matrices), matrices) == [COST * parameter.numel() for parameter in matrices]
    assert [type(o) for o in build_optimizers(TrainingConfig(optimizer="muon"), list(matrices), matrices)] == [Muon]


def updated(model: Transformer, optimizers: list[torch.optim.Optimizer], seed: int) -> None:
    for number, parameter in enumerate(model.parameters()):
        parameter.grad = random(*parameter.shape, seed=1000 * seed + number)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = RATE
        optimizer.step()


def test_the_state_goes_through_tensors_and_back_exactly() -> None:
    model, twin = small_transformer(), small_transformer()
    mine, others = (
        build_optimizers(TrainingConfig(optimizer="muon"), list(one.parameters()), layer_matrices(one))
        for one in (model, twin)
    )
    for seed in range(3):
        updated(model, mine, seed)
    tensors = optimizer_tensors(mine, model)
    keys = {name.rpartition("/")[2] for name in tensors}
    assert keys == {"exp_avg", "exp_avg_sq", "step", "momentum"}
    twin.load_state_dict(model.state_dict())
    load_optimizer_tensors(others, twin, tensors)
    updated(model, mine, 3)
    updated(twin, others, 3)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))
    lacking = {name: tensor for name, tensor in tensors.items() if not name.endswith("/momentum")}
    with pytest.raises(ValueError, match="lacks momentum"):
        load_optimizer_tensors(others, twin, lacking)


def test_a_run_keeps_its_optimizer() -> None:
    adam, muon = Config(), Config.model_validate({"training": {"optimizer": "muon"}})
    with pytest.raises(RunError, match=r"training.optimizer = 'muon', but this run began with 'adam'"):
        check_changes(adam, muon)


@pytest.mark.parametrize("name", ["muon_scale", "learning_rate_scale", "weight_decay"])
def test_settings_that_no_float32_holds_are_refused(name: str) -> None:
    with pytest.raises(ValidationError, match=name):
        TrainingConfig.model_validate({"optimizer": "muon", name: 1e300})
