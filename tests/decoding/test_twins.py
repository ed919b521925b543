"""What tells that the compiled decoder does not do any more what the code does that is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from seq2seq.config import ModelConfig
from seq2seq.decoding import twins
from seq2seq.decoding.beam import Beams, beam_search
from seq2seq.decoding.engine import Engine
from seq2seq.decoding.scorer import TransformerScorer
from seq2seq.decoding.twins import Mismatch, mismatch, scorer_for
from seq2seq.model import layers, native
from seq2seq.model.layers import FeedForward
from seq2seq.model.transformer import EOS, Transformer

pytestmark = pytest.mark.skipif(not native.available(), reason="the compiled kernels were not built")
CHOICES: list[dict[str, Any]] = [
    {},
    {"norm": "pre", "activation": "gelu"},
    {"positions": "learned", "max_positions": 8},
    {"tied_embeddings": "none"},
    {"head_size": 5, "num_heads": 3},
]


@pytest.fixture(autouse=True)
def tried_anew() -> Iterator[None]:
    for function in (twins.step_difference, twins.same_search):
        function.cache_clear()
    yield
    for function in (twins.step_difference, twins.same_search):
        function.cache_clear()


def model_of(**choices: Any) -> Transformer:
    sizes = {"d_model": 16, "num_heads": 2, "d_ff": 32, "num_encoder_layers": 1, "num_decoder_layers": 1}
    torch.manual_seed(1)
    return Transformer(ModelConfig(**{**sizes, **choices}), 30, 30, shared=True).eval()


@pytest.mark.parametrize("choices", CHOICES, ids=str)
def test_the_compiled_decoder_does_the_same(choices: dict[str, Any]) -> None:
    model, before = model_of(**choices), torch.get_rng_state()
    assert mismatch(model) is None
    assert twins.step_difference(model.config, native.generation()) < 1e-5
    scorer = scorer_for(model, pytest.fail)
    assert isinstance(scorer, Engine) and scorer.many_steps
    assert torch.equal(torch.get_rng_state(), before)


def told_of(model: Transformer) -> tuple[Any, list[str]]:
    texts: list[str] = []
    return scorer_for(model, texts.append), texts


def test_another_activation_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers.F, "relu", F.silu)
    scorer, [text] = told_of(model_of())
    assert isinstance(scorer, TransformerScorer)
    assert "does not compute what seq2seq/model does, log-probabilities differ by " in text


def test_a_module_that_it_does_not_know_is_found() -> None:
    class Gated(FeedForward):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * x.sigmoid()

    model = model_of()
    layer = model.encoder_layers[0]
    layer.feed_forward = Gated(model.config)
    layer.feed_forward.reset_parameters()
    scorer, [text] = told_of(model)
    assert isinstance(scorer, TransformerScorer) and "does not have all modules of this model" in text


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.register_parameter("gate", torch.nn.Parameter(torch.ones(16))),
        lambda model: setattr(model, "extra", torch.nn.Linear(2, 2)),
        lambda model: setattr(
            model.decoder_layers[0].feed_forward, "in_weight", torch.nn.Parameter(torch.zeros(64, 16))
        ),
    ],
)
def test_a_parameter_that_it_does_not_know_is_found(change: Callable[[Transformer], object]) -> None:
    model = model_of()
    change(model)
    found = mismatch(model)
    assert found is not None and not found.search and "all modules" in found.text


@pytest.mark.parametrize("choices", CHOICES, ids=str)
def test_what_is_searched_ends_in_all_ways(choices: dict[str, Any]) -> None:
    config = model_of(**choices).config
    models = [twins.ending(twins.specimen(config), weight) for weight in (1.0, 2.0, 4.0)]
    options: dict[str, Any] = {"beam_size": twins.BEAMS, "n_best": twins.BEAMS, "length_penalty": 1.0}
    found = [beam_search(Engine(model), twins.SOURCES, twins.LIMITS, **options) for model in models]
    ends = {(one.ended, len(one.pieces)) for lines in found for line in lines for one in line}
    assert len({length for ended, length in ends if ended}) > 1 and any(not ended for ended, _ in ends)


def test_a_search_that_ends_otherwise_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Beams.advance

    def dearer_ends(self: Beams, log_probabilities: torch.Tensor, ids: torch.Tensor, *rest: Any) -> None:
        original(self, log_probabilities - 0.7 * (ids == EOS), ids, *rest)

    monkeypatch.setattr(Beams, "advance", dearer_ends)
    assert not twins.same_search(model_of().config, native.generation())


def test_another_search_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Beams.advance

    def by_rank(self: Beams, log_probabilities: torch.Tensor, *rest: Any) -> None:
        original(self, log_probabilities - 0.5 * torch.arange(log_probabilities.shape[1]), *rest)

    monkeypatch.setattr(Beams, "advance", by_rank)
    model = model_of()
    scorer, [text] = told_of(model)
    assert isinstance(scorer, Engine) and not scorer.many_steps
    assert "does not find what decoding/beam.py does" in text
    source = torch.tensor([[7, 8, 9, 3]])
    options: dict[str, Any] = {"beam_size": 3, "n_best": 3, "length_penalty": 1.0}
    [found], [expected] = (beam_search(one, source, [6], **options) for one in (scorer, TransformerScorer(model)))
    assert [one.pieces for one in found] == [one.pieces for one in expected]  # the changed one's


def test_a_library_user_is_warned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(twins, "mismatch", lambda model: Mismatch("not the same", search=False))
    with pytest.warns(UserWarning, match="not the same"):
        beam_search(model_of(), torch.tensor([[7, 3]]), [2], beam_size=1, length_penalty=1.0)


def test_what_it_does_not_serve_is_no_mismatch() -> None:
    model = model_of().double()
    model.compute_dtype = torch.float64
    assert mismatch(model) is None
    assert isinstance(scorer_for(model, pytest.fail), TransformerScorer)
