"""What tells that the code that is read and the code that is trained are not the same any more."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from helpers import Listener
from torch.nn import functional as F

from seq2seq import pipeline
from seq2seq.config import ModelConfig
from seq2seq.model import attention, functional, layers, native, packed
from seq2seq.model.transformer import Transformer
from seq2seq.model.twins import TOLERANCE, difference, packed_difference
from seq2seq.recipe import build_config
from seq2seq.training.state import TrainingError

CHOICES: list[dict[str, Any]] = [
    {},
    {"norm": "pre"},
    {"activation": "gelu"},
    {"positions": "learned", "max_positions": 8},
    {"tied_embeddings": "none"},
    {"head_size": 5, "d_model": 7, "num_heads": 3, "positions": "learned"},
    {"norm": "pre", "activation": "gelu", "tied_embeddings": "target", "initial_gain": 9.25},
]


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("choices", CHOICES, ids=str)
def test_the_twins_are_the_same(choices: dict[str, Any]) -> None:
    before = torch.get_rng_state()
    assert packed_difference(ModelConfig(**choices)) < 1e-5
    assert torch.equal(torch.get_rng_state(), before)


def _with_distances(original: Callable[..., Any]) -> Callable[..., Any]:
    def attend(query: Any, key: Any, value: Any, mask: Any, dropout: float = 0.0, weights_out: Any = None) -> Any:
        far = torch.arange(query.shape[2])[:, None] - torch.arange(key.shape[2])
        scores = query @ key.mT / math.sqrt(query.shape[-1]) - 0.1 * far.abs()
        return scores.masked_fill(~mask, -1e9).softmax(-1) @ value

    return attend


CHANGES: dict[str, tuple[object, str, Callable[[Any], Any]]] = {
    "attention by distance": (attention, "attend", _with_distances),
    "no factor of embeddings": (
        Transformer, "embed", lambda original: lambda self, ids, weight, *rest: (
            original(self, ids, weight / math.sqrt(weight.shape[1]), *rest)
        ),
    ),
    "packed attention": (packed, "attend_packed", lambda original: lambda *given: 1.01 * original(*given)),
    "a gradient": (
        functional._LayerNorm, "backward", lambda original: staticmethod(
            lambda *given: tuple(None if one is None else 1.01 * one for one in original(*given))
        ),
    ),
    "not a number": (attention, "attend", lambda original: lambda *given: math.nan * original(*given)),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_one_alone_is_found(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if not native.available():
        pytest.skip("without kernels packed attention runs `attend`, too")
    where, name, changed = CHANGES[change]
    monkeypatch.setattr(where, name, changed(getattr(where, name)))
    if change == "packed attention":
        monkeypatch.setattr(attention, name, getattr(packed, name))
    assert packed_difference(ModelConfig()) > TOLERANCE


def test_weights_that_are_frozen_where_they_are_made_are_no_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Transformer.__init__

    def frozen(self: Transformer, *given: Any, **options: Any) -> None:
        made(self, *given, **options)
        self.target_embedding.requires_grad_(False)

    monkeypatch.setattr(Transformer, "__init__", frozen)
    assert packed_difference(ModelConfig()) < 1e-5


def test_a_change_of_both_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers.F, "relu", F.silu)
    assert packed_difference(ModelConfig()) < 1e-5


def test_what_is_not_a_number_is_far_from_everything() -> None:
    assert difference(torch.tensor([math.nan, 1.0]), torch.ones(2)) == math.inf
    assert difference(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 4.0])) == 0.5


@pytest.mark.usefixtures("the_machine_as_it_was")
def test_training_does_not_begin(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    config = build_config({"data": {"train_source": "none", "train_target": "none"}, "training": {"max_steps": 1}})
    monkeypatch.setattr(attention, "attend", _with_distances(attention.attend))
    if native.available():
        with pytest.raises(TrainingError, match=r"differ by .*; the compiled kernels lack the change: train with"):
            pipeline.train(config, tmp_path / "run", Listener())
    monkeypatch.setattr(attention, "attend_packed", lambda *given: 2 * packed.attend_packed(*given))
    with pytest.raises(TrainingError, match=r"does not compute what `forward` does.*make the same change in both"):
        pipeline.train(config, tmp_path / "run", Listener())
    assert not (tmp_path / "run").exists()
