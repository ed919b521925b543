"""The compiled decoder against the model in torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from helpers import generations, kernels_of
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from seq2seq.config import ModelConfig
from seq2seq.decoding import steps
from seq2seq.decoding.beam import Beams, beam_search, greedy_search
from seq2seq.decoding.engine import PANEL, Engine
from seq2seq.decoding.sampling import sample
from seq2seq.decoding.scorer import Scorer, TransformerScorer
from seq2seq.decoding.twins import scorer_for
from seq2seq.model import native
from seq2seq.model.transformer import BOS, EOS, PAD, Transformer

pytestmark = pytest.mark.skipif(not native.available(), reason="the compiled kernels were not built")

VOCABULARY = 150
MODELS: dict[str, dict[str, Any]] = {
    "post-norm": {},
    "pre-norm": {"norm": "pre"},
    "gelu": {"activation": "gelu"},
    "learned positions": {"positions": "learned", "max_positions": 80},
    "untied": {"tied_embeddings": "none"},
    "odd sizes": {"d_model": 30, "num_heads": 3, "head_size": 7, "d_ff": 33, "norm": "pre"},
    "heads of 64": {"d_model": 64, "num_heads": 2, "head_size": 64, "d_ff": 520},
    "no encoder to speak of": {"num_encoder_layers": 1, "num_decoder_layers": 4},
}


def build(name: str, vocabulary: int = VOCABULARY, *, dtype: torch.dtype = torch.float32) -> Transformer:
    torch.manual_seed(3)
    options = {"d_model": 32, "num_heads": 4, "d_ff": 64, "num_encoder_layers": 2, "num_decoder_layers": 2}
    model = Transformer(ModelConfig(**{**options, **MODELS[name]}), vocabulary, vocabulary, shared=True).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # biases and norms that are 0 and 1 would hide mistakes
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.compute_dtype = dtype
    return model


@pytest.fixture(scope="module", autouse=True, params=generations() or ["none"])
def generation(request: pytest.FixtureRequest) -> Iterator[None]:
    """With the kernels for each generation of processors that run on this one."""
    with kernels_of(request.param):
        yield


@pytest.fixture
def source() -> torch.Tensor:
    lengths = [3, 17, 1, 40, 8]
    ids = torch.full((len(lengths), max(lengths)), PAD)
    generator = torch.Generator().manual_seed(0)
    for row, length in enumerate(lengths):
        ids[row, : length - 1] = torch.randint(4, VOCABULARY, (length - 1,), generator=generator)
        ids[row, length - 1] = EOS
    return ids


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


def walk(scorer: Scorer, source: torch.Tensor, number: int) -> list[torch.Tensor]:
    """Log-probabilities over some steps in which rows multiply, change places, and sentences leave."""
    decoding = scorer.start(source)
    generator = torch.Generator().manual_seed(1)
    sentences, beams, found = len(source), 1, []
    pieces = torch.full((sentences,), BOS)
    for step in range(number):
        found.append(decoding.step(pieces).all())
        keep = torch.arange(sentences)
        if step % 7 == 5 and sentences > 2:
            keep = torch.randperm(sentences, generator=generator)[:-1].sort().values
        width = int(torch.randint(1, 7, (), generator=generator))
        choice = torch.randint(0, beams, (len(keep), width), generator=generator)
        rows = (keep[:, None] * beams + choice).flatten()
        decoding.select(keep if len(keep) < sentences else None, rows)
        sentences, beams = len(keep), width
        pieces = torch.randint(4, VOCABULARY, (sentences * beams,), generator=generator)
    return found


@pytest.mark.parametrize("name", MODELS)
def test_predictions_are_those_of_the_model(name: str, source: torch.Tensor) -> None:
    model = build(name)
    assert isinstance(scorer_for(model), Engine)
    pairs = zip(walk(Engine(model), source, 40), walk(TransformerScorer(model), source, 40), strict=True)
    for ours, expected in pairs:
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_in_bfloat16_predictions_stay_close(name: str, source: torch.Tensor) -> None:
    if not native.has_half_products():
        pytest.skip("this processor, or this generation, has no products of bfloat16 numbers")
    exact, half = walk(Engine(build(name)), source, 10), walk(Engine(build(name, dtype=torch.bfloat16)), source, 10)
    error = max(float((a - b)[:, EOS:].abs().max()) for a, b in zip(half, exact, strict=True))
    assert 0.0 < error < 0.5


@pytest.mark.parametrize("count", [1, 2, 5, 64, 65, VOCABULARY])
def test_the_best_pieces_are_those_with_the_highest_probabilities(count: int, source: torch.Tensor) -> None:
    predictions = Engine(build("pre-norm")).start(source).step(torch.full((len(source),), BOS))
    values, ids = predictions.best(count)
    expected = predictions.all().topk(min(count, VOCABULARY - EOS), dim=1)
    assert torch.equal(ids, expected.indices.sort(1).values)
    torch.testing.assert_close(values, predictions.all().gather(1, ids), rtol=1e-5, atol=1e-5)


def test_of_equally_probable_pieces_the_first_are_best(source: torch.Tensor) -> None:
    model = build("untied")
    model.output_weight.zero_()
    values, ids = Engine(model).start(source).step(torch.full((len(source),), BOS)).best(3)
    assert ids.tolist() == [[EOS, EOS + 1, EOS + 2]] * len(source)
    torch.testing.assert_close(values, torch.full_like(values, VOCABULARY).log().neg())


def test_a_model_that_has_no_probabilities_is_an_error(source: torch.Tensor) -> None:
    model = build("pre-norm")
    model.decoder_layers[0].feed_forward.in_weight[0, 0] = float("nan")
    with pytest.raises(ArithmeticError, match="weights"):
        greedy_search(model, source, [5] * len(source))
    with pytest.raises(ArithmeticError, match="weights"):
        sample(model, source, [5] * len(source), seeds=range(len(source)))
    with pytest.raises(ArithmeticError, match="weights"):
        sample(model, source, [5] * len(source), seeds=range(len(source)), top_k=5)
    with pytest.raises(ArithmeticError, match="weights"):
        beam_search(model, source, [5] * len(source), beam_size=3, length_penalty=0.6)


@pytest.mark.parametrize("beam_size", [1, 4])
def test_searches_find_the_same_with_it_and_without(beam_size: int, source: torch.Tensor) -> None:
    model, limits = build("pre-norm"), [70, 12, 3, 64, 1]
    for ours, expected in zip(
        beam_search(Engine(model), source, limits, beam_size=beam_size, length_penalty=0.6),
        beam_search(TransformerScorer(model), source, limits, beam_size=beam_size, length_penalty=0.6),
        strict=True,
    ):
        assert [h.pieces for h in ours] == [h.pieces for h in expected]
        assert [h.score for h in ours] == pytest.approx([h.score for h in expected], abs=1e-4)


@settings(deadline=None, max_examples=40)
@given(
    name=st.sampled_from(sorted(MODELS)),
    vocabulary=st.one_of(st.just(VOCABULARY), st.integers(5, 9)),
    limits=st.lists(st.one_of(st.integers(1, 9), st.integers(1, 79)), min_size=1, max_size=12),
    beam_size=st.one_of(st.integers(1, 6), st.sampled_from([64, 65])),
    data=st.data(),
    half=st.booleans(),
)
def test_many_steps_at_once_find_what_single_steps_do(
    name: str, vocabulary: int, limits: list[int], beam_size: int, data: st.DataObject, half: bool
) -> None:
    """To the bit, whatever leaves the batch in between, and whenever there is no more room."""
    n_best, alpha = data.draw(st.integers(1, beam_size)), data.draw(st.sampled_from([0.0, 0.6, 2.0]))
    model = build(name, vocabulary, dtype=torch.bfloat16 if half and native.has_half_products() else torch.float32)
    model.output_weight[EOS] += data.draw(st.sampled_from([0.0, 0.3]))
    generator = torch.Generator().manual_seed(len(limits))
    source = torch.randint(4, vocabulary, (len(limits), 9), generator=generator)
    source[:, -1] = EOS
    asked: dict[str, Any] = {"beam_size": beam_size, "n_best": n_best, "length_penalty": alpha}
    asked["length_normalization"] = data.draw(st.sampled_from(["wu", "power"]))
    floats = data.draw(st.sampled_from([1, steps.FLOATS]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "FLOATS", floats)
        calls = watch(patch)
        at_once = beam_search(Engine(model), source, limits, **asked)
        assert bool(calls) == (beam_size <= 64)
        patch.setattr(steps, "serves", lambda *_: False)
        calls.clear()
        assert at_once == beam_search(Engine(model), source, limits, **asked)
        assert not calls
        if beam_size == 1:
            del asked["beam_size"], asked["n_best"]
            assert [best for [best] in at_once] == greedy_search(Engine(model), source, limits, **asked)


def watch(patch: pytest.MonkeyPatch) -> list[int]:
    """Grows with every call that makes many steps at once."""
    calls, advance = list[int](), steps.advance

    def watched(search: Beams) -> None:
        calls.append(len(search.live))
        advance(search)

    patch.setattr(steps, "advance", watched)
    return calls


@pytest.mark.parametrize("seed", range(6))
def test_a_hypothesis_without_probability_is_an_error_there_too(seed: int) -> None:
    """Where it is not the best one, so that there are others to go on with."""
    model, source = build("untied"), torch.tensor([[10, 20, 30, 40, EOS]])
    table = model.target_embedding
    table.add_(torch.randn(table.shape, generator=torch.Generator().manual_seed(seed)))
    values, ids = Engine(model).start(source).step(torch.tensor([BOS])).best(4)
    table[ids[0, values[0].argsort(descending=True)[2]]] = float("nan")

    def found() -> object:
        try:
            return beam_search(Engine(model), source, [12], beam_size=4, length_penalty=0.6)
        except ArithmeticError:
            return "error"

    with pytest.MonkeyPatch.context() as patch:
        at_once = found()
        patch.setattr(steps, "serves", lambda *_: False)
        assert at_once == found()


def test_equally_probable_continuations_go_by_place_and_piece_there_too(source: torch.Tensor) -> None:
    model = build("untied")
    model.output_weight.zero_()
    asked = {"beam_size": 5, "n_best": 5, "length_penalty": 0.6}
    with pytest.MonkeyPatch.context() as patch:
        calls = watch(patch)
        at_once = beam_search(Engine(model), source, [4] * len(source), **asked)
        assert calls
        patch.setattr(steps, "serves", lambda *_: False)
        assert at_once == beam_search(Engine(model), source, [4] * len(source), **asked)


def test_ids_that_no_vocabulary_has_are_refused(source: torch.Tensor) -> None:
    engine = Engine(build("pre-norm"))
    with pytest.raises(IndexError, match="table of 150"):
        engine.start(source.masked_fill(source == EOS, VOCABULARY))
    with pytest.raises(IndexError, match="table of 150"):
        engine.start(source).step(torch.full((len(source),), VOCABULARY))


@settings(deadline=None, max_examples=60)
@given(
    rows=st.integers(1, 120),
    outputs=st.integers(1, 3 * PANEL + 1),
    inputs=st.one_of(st.integers(1, 70), st.just(600), st.just(1100)),
    half=st.booleans(),
    biased=st.booleans(),
)
def test_products_of_any_size_are_right(rows: int, outputs: int, inputs: int, half: bool, biased: bool) -> None:
    half = half and native.has_half_products()
    generator = torch.Generator().manual_seed(rows)
    x, weight = torch.randn(rows, inputs, generator=generator), torch.randn(outputs, inputs, generator=generator)
    bias = torch.randn(outputs, generator=generator) if biased else None
    panels = (outputs + PANEL - 1) // PANEL * PANEL
    laid_out = torch.empty(panels, (inputs + 1) // 2 * 2 if half else inputs, dtype=torch.bfloat16 if half else None)
    native.run("lay_out_weights_bf16" if half else "lay_out_weights_f32", laid_out, weight, outputs, inputs)
    out = torch.full((rows + 1, outputs), 7.0)
    native.run("linear_rows", out, x, laid_out, bias, rows, outputs, inputs, int(half))
    if half:
        x, weight = x.bfloat16().float(), weight.bfloat16().float()
    expected = F.linear(x.double(), weight.double(), None if bias is None else bias.double())
    torch.testing.assert_close(out[:rows].double(), expected, rtol=1e-5, atol=1e-5 * inputs**0.5 * 4)
    assert (out[rows] == 7.0).all()


def test_sources_and_pieces_of_any_integer_type_are_read(source: torch.Tensor) -> None:
    engine = Engine(build("pre-norm"))
    expected, given_ = engine.start(source), engine.start(source.to(torch.int32))
    pieces = torch.full((len(source),), BOS)
    assert torch.equal(expected.step(pieces).all(), given_.step(pieces.to(torch.int32)).all())


@pytest.mark.parametrize("name", ["post-norm", "learned positions"])
def test_later_changes_of_the_weights_do_not_reach_it(name: str, source: torch.Tensor) -> None:
    model, pieces = build(name), torch.full((len(source),), BOS)
    engine = Engine(model)
    before = engine.start(source).step(pieces).all()
    for parameter in model.parameters():
        parameter.zero_()
    assert torch.equal(engine.start(source).step(pieces).all(), before)


def test_a_step_beyond_learned_positions_says_so(source: torch.Tensor) -> None:
    model = build("learned positions")
    with pytest.raises(ValueError, match=r"model\.max_positions = 80"):
        greedy_search(model.eval(), source, [200] * len(source))


def test_what_nobody_looks_back_on_is_freed(source: torch.Tensor) -> None:
    engine = Engine(build("pre-norm"))
    many = source.repeat(20, 1)
    decoding, alone = engine.start(many), engine.start(source[:1])
    for step in range(6):
        decoding.step(torch.full((len(many),), 10 + step))
        alone.step(torch.full((1,), 10 + step))
    decoding.select(torch.tensor([0]), torch.tensor([0]))
    assert all(kept.shape[1] == 1 for kept in decoding.kept)
    pieces = torch.full((1,), 20)
    assert torch.equal(decoding.step(pieces).all(), alone.step(pieces).all())
