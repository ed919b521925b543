"""One update: its gradient, whoever computed which part of it, and that it is not taken where it is not finite."""

from __future__ import annotations

import copy
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

import seq2seq.training.updates as updates_module
from seq2seq.config import ModelConfig, TrainingConfig
from seq2seq.model import native
from seq2seq.model.transformer import BOS, EOS, PAD, Transformer
from seq2seq.text.batching import Batch, Indices, Lengths, collate, pad
from seq2seq.training.loss import ROW_UNIT
from seq2seq.training.muon import Muon
from seq2seq.training.optimizer import load_optimizer_tensors, optimizer_bytes, optimizer_tensors
from seq2seq.training.updates import Step, Updater, shares
from seq2seq.workers import Workers

VOCABULARY = 20
MARK = VOCABULARY - 1  # a piece of one pair alone
MARKED = 4


class Pairs:
    """Twelve pairs of many lengths; the source of one of them has a piece that no other has."""

    def __init__(self) -> None:
        random = np.random.default_rng(0)
        self.sources, self.targets = (
            [random.integers(4, MARK, random.integers(1, 9)).astype(np.int32) for _ in range(12)] for _ in range(2)
        )
        self.sources[MARKED][0] = MARK

    @property
    def source_lengths(self) -> Lengths:
        return np.array([len(source) for source in self.sources], dtype=np.int32)

    @property
    def target_lengths(self) -> Lengths:
        return np.array([len(target) for target in self.targets], dtype=np.int32)

    def source(self, index: int) -> NDArray[np.int32]:
        return self.sources[index]

    def target(self, index: int) -> NDArray[np.int32]:
        return self.targets[index]


PAIRS = Pairs()
TOKENS = sum(len(target) + 1 for target in PAIRS.targets)


def batch_of(*indices: int) -> Indices:
    return np.array(indices, dtype=np.int64)


EVERYTHING = [np.arange(12)]


def build_model(dropout: float = 0.0) -> Transformer:
    torch.manual_seed(1)
    config = ModelConfig(
        d_model=8, num_heads=2, d_ff=16, num_encoder_layers=1, num_decoder_layers=1, dropout=dropout,
        attention_dropout=dropout, activation_dropout=dropout,
    )  # fmt: skip
    return Transformer(config, VOCABULARY, VOCABULARY, shared=True)


@contextmanager
def updater_for(model: Transformer, **values: Any) -> Iterator[Updater]:
    config = TrainingConfig.model_validate({"max_steps": 10, "workers": 1, "adam_epsilon": 1e-3, **values})
    updater = Updater(config, model, torch.device("cpu"))
    yield updater
    updater.workers.close()


@dataclass
class Taken:
    """What an update said and left behind."""

    step: Step
    weights: dict[str, Tensor]
    adam: dict[str, Tensor]

    @property
    def gradients(self) -> dict[str, Tensor]:
        """Adam's first moments are a tenth of the first gradient."""
        return {name[: -len("/exp_avg")]: 10 * value for name, value in self.adam.items() if name.endswith("/exp_avg")}


def first_update(
    micro_batches: Sequence[Indices] = EVERYTHING,
    *,
    dropout: float = 0.0,
    number: int = 1,
    rate: float = 0.01,
    dtype: torch.dtype = torch.float32,
    **values: Any,
) -> Taken:
    """Of a new model."""
    model = build_model(dropout)
    model.compute_dtype = dtype
    with updater_for(model, **values) as updater:
        step = updater.update(PAIRS, micro_batches, number, rate)
        return Taken(step, copy.deepcopy(model.state_dict()), optimizer_tensors(updater.optimizers, model))


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def assert_near(found: dict[str, Tensor], expected: dict[str, Tensor], relative: float = 1e-5) -> None:
    """Up to `relative` of the largest number of each tensor."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name].double(), value.double(), rtol=0, atol=relative * max(1e-3, float(value.abs().max())), msg=name
        )


def in_torch(smoothing: float) -> tuple[float, float, dict[str, Tensor]]:
    """Sums of loss and -log p over all target tokens, and gradients of the mean loss; padded, in float64."""
    model = build_model().double()
    model.compute_dtype = torch.float64
    logits = model(pad(PAIRS.sources, end=EOS), pad(PAIRS.targets, start=BOS)).flatten(0, 1)
    targets = pad(PAIRS.targets, end=EOS).flatten()
    loss = F.cross_entropy(logits, targets, ignore_index=PAD, label_smoothing=smoothing, reduction="sum")
    nll = F.cross_entropy(logits, targets, ignore_index=PAD, reduction="sum")
    (loss / TOKENS).backward()  # type: ignore[no-untyped-call]
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    return loss.item(), nll.item(), gradients


# The gradient


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
def test_an_update_takes_the_gradient_of_the_mean_loss_over_all_target_tokens(kernels: str, workers: int) -> None:
    taken = first_update(workers=workers, label_smoothing=0.1)
    loss, nll, gradients = in_torch(0.1)
    assert_near(taken.gradients, gradients)
    assert (float(taken.step.loss), float(taken.step.nll)) == pytest.approx((loss, nll), rel=1e-5)
    assert taken.step.tokens == TOKENS
    assert float(taken.step.finite) == 1.0
    norm = math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients.values()))
    assert float(taken.step.grad_norm) == pytest.approx(norm, rel=1e-5)
    assert {tensor.dtype for tensor in taken.adam.values()} == {torch.float32}


@pytest.mark.parametrize("workers", [1, 3])
def test_in_bfloat16_the_gradient_is_near_and_in_float32(kernels: str, workers: int) -> None:
    taken = first_update(workers=workers, label_smoothing=0.1, dtype=torch.bfloat16)
    loss, _, gradients = in_torch(0.1)
    assert float(taken.step.loss) == pytest.approx(loss, rel=0.01)
    for name, gradient in taken.gradients.items():
        assert gradient.dtype == torch.float32
        assert float((gradient - gradients[name]).norm()) < 0.1 * max(0.01, float(gradients[name].norm())), name


@pytest.mark.parametrize("workers", [1, 2])
def test_accumulated_micro_batches_are_one_batch(workers: int) -> None:
    """Sums over all target tokens of an update, not means of means: these micro-batches differ in size."""
    parts = [batch_of(7), batch_of(0, 1, 2, 3, 4, 5, 6), batch_of(8, 9), batch_of(10, 11)]
    whole, accumulated = first_update(workers=workers), first_update(parts, workers=workers)
    assert_near(accumulated.gradients, whole.gradients)
    assert_near(accumulated.weights, whole.weights)
    assert float(accumulated.step.loss) == pytest.approx(float(whole.step.loss), rel=1e-6)
    assert float(accumulated.step.nll) == pytest.approx(float(whole.step.nll), rel=1e-6)
    assert accumulated.step.tokens == whole.step.tokens


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=30), st.integers(1, 40))
def test_shares_have_every_tensor_once_and_are_about_as_large(sizes: list[int], count: int) -> None:
    found = shares(sizes, count)
    assert sorted(number for share in found for number in share) == list(range(len(sizes)))
    assert len(found) == min(count, len(sizes)) and all(found)
    loads = sorted(sum(sizes[i] for i in share) for share in found)
    assert loads[-1] - loads[0] <= max(sizes)


def test_each_worker_does_its_share_of_adam_with_its_own_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """An operation that is divided among threads waits for all of them, which other work may have put off."""
    done: list[tuple[int, int]] = []
    step = torch.optim.AdamW.step

    def watched(self: torch.optim.AdamW) -> None:
        done.append((threading.get_ident(), torch.get_num_threads()))
        meeting.wait()
        step(self)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    meeting = threading.Barrier(2, timeout=60)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        first_update(workers=2)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert len({thread for thread, _ in done}) == 2 and [threads for _, threads in done] == [1, 1]


def test_another_number_of_workers_goes_on_with_the_moments_of_all_parameters() -> None:
    saved = first_update(workers=3)
    model = build_model()
    model.load_state_dict(saved.weights)
    with updater_for(model, workers=2) as updater:
        load_optimizer_tensors(updater.optimizers, model, saved.adam)
        assert equal(optimizer_tensors(updater.optimizers, model), saved.adam)
        updater.update(PAIRS, EVERYTHING, 2, 0.01)
        after = optimizer_tensors(updater.optimizers, model)
    assert after.keys() == saved.adam.keys()
    assert all(int(value) == 2 for name, value in after.items() if name.endswith("/step"))


def test_frozen_weights_stay_and_have_no_moments() -> None:
    model = build_model()
    frozen = model.target_embedding.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    with updater_for(model, optimizer="muon") as updater:
        updater.update(PAIRS, EVERYTHING, 1, 0.01)
        saved = optimizer_tensors(updater.optimizers, model)
        load_optimizer_tensors(updater.optimizers, model, saved)
        assert equal(optimizer_tensors(updater.optimizers, model), saved)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == before.keys() - {"target_embedding"} and not frozen.requires_grad
    assert {name.rpartition("/")[0] for name in saved} == changed
    steps = sum(value.numel() * value.element_size() for name, value in saved.items() if name.endswith("/step"))
    size = sum(value.numel() * value.element_size() for value in saved.values())
    assert optimizer_bytes(updater.config, model) == size - steps


def test_muon_takes_the_same_update_however_many_share_it() -> None:
    alone, together = (first_update(optimizer="muon", workers=workers) for workers in (1, 3))
    assert alone.adam.keys() == together.adam.keys() and any(name.endswith("/momentum") for name in alone.adam)
    for name, weights in alone.weights.items():
        torch.testing.assert_close(together.weights[name], weights, msg=name)
    again = first_update(optimizer="muon", workers=3)
    assert equal(again.weights, together.weights)
    assert not equal(first_update(workers=3).weights, together.weights), "Adam's is another"


def test_muon_computes_in_the_dtype_of_the_model() -> None:
    """Which a resumed run may set when the optimizers are there already."""
    model = build_model()
    with updater_for(model, optimizer="muon") as updater:
        (muon,) = [optimizer for optimizer in updater.optimizers if isinstance(optimizer, Muon)]
        for dtype in (torch.float32, torch.bfloat16):
            model.compute_dtype = dtype
            updater.update(PAIRS, EVERYTHING, 1, 0.01)
            assert muon.dtype == dtype


def test_workers_without_a_sentence_are_left_out() -> None:
    pair = [batch_of(3, 9)]
    alone = first_update(pair, workers=1)
    together = first_update(pair, workers=5)
    assert_near(together.gradients, alone.gradients)
    assert together.step.tokens == len(PAIRS.targets[3]) + len(PAIRS.targets[9]) + 2
    single = first_update([batch_of(3)], workers=5, dropout=0.3)
    assert equal(single.weights, first_update([batch_of(3)], workers=1, dropout=0.3).weights)


def test_every_pair_is_one_workers_and_all_have_about_as_much_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[int]] = []

    def counting(pairs: Pairs, indices: Indices) -> Batch:
        seen.append(indices.tolist())
        return collate(pairs, indices)

    monkeypatch.setattr(updates_module, "collate", counting)
    order = np.argsort(PAIRS.target_lengths, kind="stable")  # as micro-batches are: sorted by length
    first_update([order], workers=3)
    assert sorted(i for part in seen for i in part) == list(range(12))
    assert [len(part) for part in seen] == [4, 4, 4]
    tokens = [sum(int(PAIRS.target_lengths[i]) for i in part) for part in seen]
    assert max(tokens) - min(tokens) <= int(PAIRS.target_lengths.max())


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_the_same_seed_step_and_workers_give_the_same_bits(workers: int) -> None:
    def update(**changes: Any) -> Taken:
        torch.manual_seed(len(changes))  # whatever happened before does not matter
        values = {"seed": 3, "number": 7, "workers": workers, "dropout": 0.3, **changes}
        return first_update([np.arange(6), np.arange(6, 12)], **values)

    taken, again = update(), update()
    assert equal(again.weights, taken.weights) and equal(again.adam, taken.adam)
    assert float(again.step.loss) == float(taken.step.loss)
    for change in ({"seed": 4}, {"number": 8}, {"workers": workers + 1}):
        assert not equal(update(**change).weights, taken.weights), change


def test_the_order_of_the_threads_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last worker to begin, or the first one, to the same bits: parts are added up in their order."""
    taken = first_update(workers=2, dropout=0.3)

    def backwards(self: Any, tasks: Sequence[Callable[[], Any]]) -> list[Any]:
        return [task() for task in reversed(tasks)][::-1]

    monkeypatch.setattr(Workers, "run", backwards)
    assert equal(first_update(workers=2, dropout=0.3).weights, taken.weights)


@pytest.mark.parametrize("workers", [1, 3])
def test_matrix_products_have_few_different_numbers_of_rows(monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    """Whatever the batch: the library of matrix products keeps a kernel for each number, and memory for it."""
    rows: list[int] = []
    whole = Transformer.packed_states

    def packed_states(self: Transformer, *arguments: Any) -> Tensor:
        states = whole(self, *arguments)
        rows.extend((len(arguments[0]), len(arguments[2]), len(states)))
        return states

    monkeypatch.setattr(Transformer, "packed_states", packed_states)
    first_update([np.arange(12), batch_of(1), np.arange(3, 9)], workers=workers)
    assert rows and all(count % ROW_UNIT == 0 for count in rows)
    assert TOKENS % ROW_UNIT, "or the test shows nothing"


def test_kernels_that_are_switched_off_are_so_in_every_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []
    call = native.call

    def counted(name: str, *arguments: Any) -> None:
        called.append(name)
        call(name, *arguments)

    monkeypatch.setattr(native, "call", counted)
    with native.disabled():
        first_update(workers=3, dropout=0.3)
    assert called == []
    first_update(workers=3, dropout=0.3)
    assert bool(called) == native.available()


def test_updates_train_and_validation_between_them_changes_nothing() -> None:
    """An update puts the model into training mode, with dropout, whatever it was in before."""
    model = build_model(0.3)
    with updater_for(model) as updater:
        model.eval()
        found = updater.update(PAIRS, EVERYTHING, 1, 0.01)
        assert model.training
    assert float(found.loss) == float(first_update(dropout=0.3).step.loss)
    assert float(found.loss) != float(first_update(dropout=0.0).step.loss)


@pytest.mark.parametrize("workers", [1, 2])
def test_two_predictions_under_different_dropout_pay_for_what_divides_them(kernels: str, workers: int) -> None:
    """R-Drop: without dropout both are equal, and it costs and changes nothing."""
    calm, same = (first_update(workers=workers, r_drop=price) for price in (0.0, 5.0))
    assert_near(same.gradients, calm.gradients, 1e-4)
    assert float(same.step.loss) == pytest.approx(float(calm.step.loss), rel=1e-5)
    cheap, again, dear = (first_update(workers=workers, r_drop=price, dropout=0.3) for price in (0.1, 0.1, 5.0))
    assert equal(cheap.weights, again.weights)
    assert float(dear.step.nll) == float(cheap.step.nll)
    assert float(dear.step.loss) > float(cheap.step.loss) + 1.0
    assert not equal(dear.weights, cheap.weights)


# The step


def test_the_learning_rate_is_the_one_given() -> None:
    before = build_model().state_dict()
    moved = {}
    for rate in (0.0, 0.01, 0.02):
        taken = first_update(rate=rate, adam_epsilon=1e-12, weight_decay=0.0)
        moved[rate] = {name: taken.weights[name] - before[name] for name in before}
    assert not any(change.any() for change in moved[0.0].values())
    # Adam's first step is as long as the rate wherever there is a gradient.
    for rate in (0.01, 0.02):
        assert max(float(change.abs().max()) for change in moved[rate].values()) == pytest.approx(rate, rel=1e-3)
    for name, change in moved[0.02].items():
        torch.testing.assert_close(change, 2 * moved[0.01][name], rtol=1e-3, atol=1e-6)


def test_every_update_has_a_rate_of_its_own() -> None:
    model = build_model()
    with updater_for(model) as updater:
        updater.update(PAIRS, EVERYTHING, 1, 0.01)
        between = copy.deepcopy(model.state_dict())
        updater.update(PAIRS, EVERYTHING, 2, 0.0)
        assert equal(model.state_dict(), between)
        updater.update(PAIRS, EVERYTHING, 3, 0.01)
        assert not equal(model.state_dict(), between)
        assert {
            int(value) for name, value in optimizer_tensors(updater.optimizers, model).items() if "/step" in name
        } == {3}


@pytest.mark.parametrize("workers", [1, 2])
def test_the_whole_gradient_is_clipped_to_its_norm(workers: int) -> None:
    def norm(taken: Taken) -> float:
        return math.sqrt(sum(float(gradient.square().sum()) for gradient in taken.gradients.values()))

    free = first_update(workers=workers, clip_norm=0.0)
    clipped = first_update(workers=workers, clip_norm=0.01)
    assert norm(free) > 0.1
    assert norm(clipped) == pytest.approx(0.01, rel=1e-3)
    # What is reported is the norm before.
    assert float(clipped.step.grad_norm) == float(free.step.grad_norm) == pytest.approx(norm(free), rel=1e-5)
    scale = 0.01 / norm(free)
    assert_near(clipped.gradients, {name: gradient * scale for name, gradient in free.gradients.items()}, 1e-3)
    loose = first_update(workers=workers, clip_norm=1000.0)
    assert equal(loose.adam, free.adam)


def test_no_gradient_is_kept_after_an_update() -> None:
    model = build_model()
    with updater_for(model) as updater:
        step = updater.update(PAIRS, EVERYTHING, 1, 0.01)
    assert all(parameter.grad is None for parameter in model.parameters())
    for value in (step.loss, step.nll, step.grad_norm, step.finite):
        assert value.grad_fn is None and value.shape == () and value.dtype == torch.float32


# Numbers that are not finite


def spoil_loss(loss: Tensor, model: Transformer) -> Tensor:
    return loss * math.nan


def make_loss_infinite(loss: Tensor, model: Transformer) -> Tensor:
    return loss + math.inf


def spoil_gradient(loss: Tensor, model: Transformer) -> Tensor:
    """A finite loss whose gradient is not: the root's slope at 0 is infinite."""
    return loss + (model.target_embedding * 0).abs().sqrt().sum()


def break_marked(patch: pytest.MonkeyPatch, spoil: Callable[[Tensor, Transformer], Tensor]) -> None:
    """Makes the loss go wrong of the part of a batch that has the marked pair, and of no other."""
    whole = updates_module.batch_losses

    def batch_losses(model: Transformer, batch: Batch, *settings: float) -> tuple[Tensor, Tensor]:
        loss, nll = whole(model, batch, *settings)
        return (spoil(loss, model) if MARK in batch.source else loss), nll

    patch.setattr(updates_module, "batch_losses", batch_losses)


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
@pytest.mark.parametrize("spoil", [spoil_loss, make_loss_infinite, spoil_gradient])
@pytest.mark.parametrize("clip_norm", [0.0, 1.0])
@pytest.mark.parametrize(
    ("workers", "micro_batches"),
    [
        (1, [np.arange(12)]),
        (1, [batch_of(MARKED), batch_of(0, 1)]),
        (1, [batch_of(0, 1), batch_of(MARKED)]),
        (2, [batch_of(MARKED, 0, 1, 2)]),
        (2, [batch_of(0, MARKED, 1, 2)]),
        (3, [batch_of(0, 1, 2), batch_of(3, 5, MARKED)]),
    ],
)
def test_an_update_that_is_not_finite_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[Tensor, Transformer], Tensor],
    clip_norm: float,
    workers: int,
    micro_batches: list[Indices],
    optimizer: str,
) -> None:
    """Neither weights nor moments nor the number of steps that Adam corrects its moments by, to the bit."""
    break_marked(monkeypatch, spoil)
    good = [batch_of(0, 1, 2, 3)]
    model, never = build_model(0.3), build_model(0.3)
    values = {"workers": workers, "clip_norm": clip_norm, "optimizer": optimizer}
    with updater_for(model, **values) as updater, updater_for(never, **values) as undisturbed:
        for both in (updater, undisturbed):
            assert float(both.update(PAIRS, good, 1, 0.01).finite) == 1.0
        weights, adam = copy.deepcopy(model.state_dict()), optimizer_tensors(updater.optimizers, model)
        broken = updater.update(PAIRS, micro_batches, 2, 0.01)
        assert float(broken.finite) == 0.0
        assert math.isfinite(float(broken.loss)) == (spoil is spoil_gradient)
        assert equal(model.state_dict(), weights)
        assert equal(optimizer_tensors(updater.optimizers, model), adam)
        # And training goes on as if it had never been.
        for both in (updater, undisturbed):
            assert float(both.update(PAIRS, good, 3, 0.01).finite) == 1.0
        assert equal(model.state_dict(), never.state_dict())
        assert not equal(model.state_dict(), weights)
        assert equal(optimizer_tensors(updater.optimizers, model), optimizer_tensors(undisturbed.optimizers, never))


@pytest.mark.parametrize("workers", [1, 2])
def test_the_first_update_may_be_the_one_that_is_not_finite(monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    break_marked(monkeypatch, spoil_loss)
    model, good = build_model(), [batch_of(0, 1)]
    before = copy.deepcopy(model.state_dict())
    with updater_for(model, workers=workers) as updater:
        assert float(updater.update(PAIRS, EVERYTHING, 1, 0.01).finite) == 0.0
        assert equal(model.state_dict(), before)
        assert not any(value.any() for value in optimizer_tensors(updater.optimizers, model).values())
        updater.update(PAIRS, good, 2, 0.01)
        found = copy.deepcopy(model.state_dict())
    assert equal(found, first_update(good, workers=workers, number=2).weights)


@pytest.mark.parametrize("r_drop", [0.0, 1.0])
def test_a_weight_that_is_not_finite_is_noticed(kernels: str, r_drop: float) -> None:
    """Whichever it is: in every layer, kernels pass on what is not a number."""
    for name, _ in build_model().named_parameters():
        model = build_model()
        parameter = dict(model.named_parameters())[name]
        with torch.no_grad():
            parameter.view(-1)[-1 if name != "target_embedding" else MARK * 8] = math.nan
        with updater_for(model, workers=2, r_drop=r_drop) as updater:
            assert float(updater.update(PAIRS, EVERYTHING, 1, 0.01).finite) == 0.0, name


def test_an_error_in_a_worker_comes_out_and_leaves_everything_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(loss: Tensor, model: Transformer) -> Tensor:
        raise KeyError("worker")

    model = build_model()
    before = copy.deepcopy(model.state_dict())
    with updater_for(model, workers=2) as updater:
        with monkeypatch.context() as patch, pytest.raises(KeyError, match="worker"):
            break_marked(patch, fail)
            updater.update(PAIRS, [batch_of(0, MARKED)], 1, 0.01)
        assert equal(model.state_dict(), before)
        updater.update(PAIRS, EVERYTHING, 1, 0.01)
        assert equal(model.state_dict(), first_update(workers=2).weights)
