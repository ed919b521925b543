"""The mean of checkpoints."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from seq2seq.run import Run
from seq2seq.run_folder.checkpoints import Checkpoint
from seq2seq.run_folder.files import RunError
from seq2seq.training.averaging import average_checkpoints


def tensors(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {"matrix": torch.randn(4, 3, generator=generator), "vector": torch.randn(5, generator=generator)}


def saved(folder: Path, *contents: Mapping[str, Tensor]) -> list[Checkpoint]:
    run = Run.create(folder)
    for step, content in enumerate(contents, start=1):
        run.save_checkpoint(step, content, {}, {})
    return run.checkpoints()


@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seeds=st.lists(st.integers(0, 1000), min_size=1, max_size=5))
def test_the_mean_of_checkpoints_is_the_mean_of_their_tensors(tmp_path: Path, seeds: list[int]) -> None:
    contents = [tensors(seed) for seed in seeds]
    mean = average_checkpoints(saved(Path(tempfile.mkdtemp(dir=tmp_path)), *contents))
    assert mean.keys() == contents[0].keys()
    for name, value in mean.items():
        expected = torch.stack([content[name].double() for content in contents]).mean(0)
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, expected.float(), rtol=1e-6, atol=1e-7)


def test_the_mean_of_one_or_of_equal_checkpoints_is_the_checkpoint(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, *[tensors(7)] * 3)
    for chosen in (checkpoints[:1], checkpoints):
        mean = average_checkpoints(chosen)
        assert all(torch.equal(mean[name], value) for name, value in tensors(7).items())


def test_many_checkpoints_lose_no_precision(tmp_path: Path) -> None:
    """Sums are float64: adding in float32 would lose the small numbers beside the large ones."""
    contents = [{"x": torch.tensor([value])} for value in (1e8, 1.0, -1e8, 1.0)]
    assert average_checkpoints(saved(tmp_path, *contents))["x"].tolist() == [0.5]


@pytest.mark.parametrize(
    "other",
    [
        {"matrix": torch.zeros(4, 3)},
        {"matrix": torch.zeros(4, 3), "vector": torch.zeros(5), "more": torch.zeros(1)},
        {"matrix": torch.zeros(4, 3), "vector": torch.zeros(6)},
        {"matrix": torch.zeros(4, 3), "vector": torch.zeros(1)},
        {"matrix": torch.zeros(4, 3), "other": torch.zeros(5)},
    ],
)
def test_checkpoints_of_other_tensors_are_refused_by_name(tmp_path: Path, other: dict[str, Tensor]) -> None:
    first, second = saved(tmp_path, tensors(1), other)
    with pytest.raises(RunError) as caught:
        average_checkpoints([first, second])
    assert str(first.path) in str(caught.value) and str(second.path) in str(caught.value)


def test_no_checkpoints_have_no_mean() -> None:
    with pytest.raises(RunError, match="no checkpoints"):
        average_checkpoints([])


def test_a_checkpoint_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    first, second = saved(tmp_path, tensors(1), tensors(2))
    (second.path / "model.safetensors").write_bytes(json.dumps({"not": "tensors"}).encode())
    with pytest.raises(RunError, match=r"step-00000002.model\.safetensors"):
        average_checkpoints([first, second])
