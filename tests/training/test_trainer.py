"""The training loop: it learns, it stops when it should, and it resumes as if it had never stopped."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers import Copies, Listener
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

import seq2seq.training.state as state_module
import seq2seq.training.trainer as trainer_module
import seq2seq.training.updates as updates_module
from seq2seq.config import ConfigError, ModelConfig, TrainingConfig
from seq2seq.decoding.beam import Hypothesis, beam_search, greedy_search
from seq2seq.decoding.scoring import score_batch
from seq2seq.model import native
from seq2seq.model.dropout import dropout as drop
from seq2seq.model.transformer import BOS, EOS, PAD, Transformer
from seq2seq.run import Run
from seq2seq.run_folder.checkpoints import STATE, STATE_HASH
from seq2seq.run_folder.files import RunError
from seq2seq.text.batching import Batch, Indices, PiecePairs, collate, pad, plan_epoch
from seq2seq.training.averaging import best_steps, choose_checkpoints, regular_steps
from seq2seq.training.state import STATE_FORMAT, TIMINGS, Interrupted, TrainingError, TrainingState
from seq2seq.training.trainer import Trainer
from seq2seq.training.validation import validation_loss

DIGITS = range(4, 14)  # ten pieces after the special ids
VOCABULARY = 14
CPU = torch.device("cpu")

Evaluate = Callable[[Transformer], float]


def tiny_model(seed: int = 1, *, dropout: float = 0.0, d_model: int = 8) -> Transformer:
    torch.manual_seed(seed)
    config = ModelConfig(
        d_model=d_model, num_heads=2, d_ff=2 * d_model, num_encoder_layers=1, num_decoder_layers=1, dropout=dropout
    )
    return Transformer(config, VOCABULARY, VOCABULARY, shared=True)


def settings(**values: Any) -> TrainingConfig:
    """A configuration for small corpora; one validation and one checkpoint at the end unless asked for."""
    defaults = {
        "batch_tokens": 128, "warmup_steps": 4, "learning_rate_scale": 0.5, "log_every": 1000, "validate_every": 1000,
        "save_every": 1000,
    }  # fmt: skip
    return TrainingConfig.model_validate({**defaults, **values})


def weight_score(model: Transformer) -> float:
    """Stands for BLEU: a function of the weights that also draws random numbers, as decoding might."""
    torch.rand(3)
    np.random.rand()
    return float(sum(parameter.detach().abs().sum() for parameter in model.parameters())) % 7


def trainer_for(
    folder: Path,
    config: TrainingConfig,
    *,
    model: Transformer | None = None,
    train: Copies | None = None,
    valid: Copies | None = None,
    evaluate: Evaluate | None = None,
    stop: Callable[[], bool] = lambda: False,
    identity: Mapping[str, str] | None = None,
) -> Trainer:
    """A trainer on a run folder, which is made where there is none."""
    run = Run(folder) if folder.exists() else Run.create(folder)
    return Trainer(
        run,
        config,
        model if model is not None else tiny_model(),
        train if train is not None else Copies(60, DIGITS),
        valid,
        evaluate,
        Listener(),
        device=CPU,
        stop=stop,
        identity=identity,
    )


def listener(trainer: Trainer) -> Listener:
    assert isinstance(trainer.observer, Listener)
    return trainer.observer


def stop_after(*steps: int) -> Callable[[], bool]:
    """To be asked after every step: yes at the given ones, counted from when it is made."""
    asked = iter(range(1, 10**9))
    return lambda: next(asked) in steps


def kept_steps(run: Run) -> list[int]:
    return [checkpoint.step for checkpoint in run.checkpoints()]


def weights(run: Run, step: int) -> dict[str, Tensor]:
    (checkpoint,) = [found for found in run.checkpoints() if found.step == step]
    checkpoint.verify()
    return checkpoint.model_tensors()


def equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# A copy task, learned


@dataclass
class Learned:
    model: Transformer
    state: TrainingState
    run: Run
    listener: Listener


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Learned:
    """A model that has learned to copy digits."""
    config = settings(
        max_steps=550, batch_tokens=512, warmup_steps=100, schedule="cosine", label_smoothing=0.0, log_every=50
    )
    folder = tmp_path_factory.mktemp("copy") / "run"
    model = tiny_model(1, d_model=32)
    trainer = trainer_for(
        folder, config, model=model, train=Copies(5000, DIGITS, seed=1), valid=Copies(100, DIGITS, seed=2)
    )
    state = trainer.train()
    return Learned(model.eval(), state, trainer.run, listener(trainer))


@pytest.fixture(scope="module")
def unseen() -> list[NDArray[np.int32]]:
    """Digits that the model has not seen, of many lengths."""
    return Copies(40, DIGITS, seed=3).rows


def search(
    model: Transformer, rows: list[NDArray[np.int32]], beam_size: int | None = None, n_best: int = 1
) -> list[list[Hypothesis]]:
    """Greedy search, or beam search where a size is given."""
    source, limits = pad(rows, end=EOS), [len(row) + 5 for row in rows]
    if beam_size is None:
        return [[best] for best in greedy_search(model, source, limits)]
    return beam_search(model, source, limits, beam_size=beam_size, length_penalty=0.6, n_best=n_best)


def test_a_copy_task_is_learned_to_nearly_no_loss(learned: Learned) -> None:
    assert learned.state.finished and learned.state.step == 550
    (validation,) = learned.listener.validations
    assert validation["valid_loss"] < 0.05
    losses = [report["nll"] for report in learned.listener.reports]
    assert losses[0] > 1.5 and losses[-1] < 0.05


def test_greedy_search_copies_what_it_has_never_seen(learned: Learned, unseen: list[NDArray[np.int32]]) -> None:
    found = search(learned.model, unseen)
    copied = [list(best.pieces) == row.tolist() and best.ended for (best,), row in zip(found, unseen, strict=True)]
    assert sum(copied) >= 0.95 * len(copied)


def test_greedy_search_equals_one_beam(learned: Learned, unseen: list[NDArray[np.int32]]) -> None:
    for (greedy,), (beam,) in zip(search(learned.model, unseen), search(learned.model, unseen, 1), strict=True):
        assert greedy.pieces == beam.pieces and greedy.ended == beam.ended
        assert greedy.log_probability == pytest.approx(beam.log_probability, abs=1e-5)


@pytest.mark.parametrize("beam_size", [None, 4])
def test_a_translation_does_not_depend_on_its_batch(
    learned: Learned, unseen: list[NDArray[np.int32]], beam_size: int | None
) -> None:
    together = search(learned.model, unseen, beam_size)
    for row, (in_batch,) in zip(unseen, together, strict=True):
        ((alone,),) = search(learned.model, [row], beam_size)
        assert alone.pieces == in_batch.pieces
        assert alone.log_probability == pytest.approx(in_batch.log_probability, abs=1e-4)


def test_decoding_with_the_cache_equals_decoding_without(learned: Learned, unseen: list[NDArray[np.int32]]) -> None:
    for row, (cached,) in zip(unseen, search(learned.model, unseen), strict=True):
        pieces, total = [BOS], 0.0
        with torch.inference_mode():
            memory = learned.model.encode(pad([row], end=EOS))
            while pieces[-1] != EOS and len(pieces) <= len(row) + 5:
                logits = learned.model.decode(torch.tensor([pieces]), *memory)[0, -1]
                log_probabilities = logits.log_softmax(0)
                pieces.append(EOS + int(log_probabilities[EOS:].argmax()))
                total += float(log_probabilities[pieces[-1]])
        assert [*cached.pieces, EOS] == pieces[1:] if cached.ended else list(cached.pieces) == pieces[1:]
        assert cached.log_probability == pytest.approx(total, abs=1e-4)


@pytest.mark.parametrize("beam_size", [None, 1, 4])
def test_generated_pieces_score_the_same_again(
    learned: Learned, unseen: list[NDArray[np.int32]], beam_size: int | None
) -> None:
    n_best = min(beam_size or 1, 3)
    for place in range(n_best):
        found = [hypotheses[place] for hypotheses in search(learned.model, unseen, beam_size, n_best)]
        outputs = [np.array([*best.pieces, *([EOS] if best.ended else [])], dtype=np.int32) for best in found]
        again = score_batch(
            learned.model, pad(unseen, end=EOS), pad([row[:-1] for row in outputs], start=BOS), pad(outputs)
        )
        for best, output, scores in zip(found, outputs, again, strict=True):
            assert scores[: len(output)].tolist() == pytest.approx(best.piece_log_probabilities, abs=1e-4)
            assert float(scores.sum()) == pytest.approx(best.log_probability, abs=1e-4)


# Same seed, same weights


def test_the_same_seed_gives_the_same_weights_to_the_bit(tmp_path: Path) -> None:
    def train(name: str, seed: int) -> dict[str, Tensor]:
        trainer = trainer_for(tmp_path / name, settings(max_steps=6, seed=seed), model=tiny_model(dropout=0.3))
        torch.manual_seed(len(name))  # whatever happened before does not matter
        trainer.train()
        return weights(trainer.run, 6)

    first = train("first", 1)
    assert equal(train("again", 1), first)
    assert not equal(train("other seed", 2), first)


@pytest.mark.parametrize("workers", [1, 2])
def test_every_part_of_every_step_draws_its_own_dropout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    """Every micro-batch of every step does, and every worker's part of it."""
    masks: list[bytes] = []
    whole = updates_module.batch_losses

    def batch_losses(model: Transformer, batch: Batch, *settings: float) -> tuple[Tensor, Tensor]:
        masks.append(drop(torch.ones(128), 0.5, training=True).numpy().tobytes())
        return whole(model, batch, *settings)

    monkeypatch.setattr(updates_module, "batch_losses", batch_losses)
    config = settings(max_steps=6, accumulate=2, workers=workers)
    trainer_for(tmp_path / "run", config, model=tiny_model(dropout=0.3)).train()
    assert len(masks) > 6 * workers
    assert len(set(masks)) == len(masks)
    drawn, masks[:] = set(masks), []
    torch.manual_seed(1)  # whatever happened before does not matter
    trainer_for(tmp_path / "again", config, model=tiny_model(dropout=0.3)).train()
    assert set(masks) == drawn


def test_accumulated_micro_batches_are_one_batch(tmp_path: Path) -> None:
    """Sums over all target tokens of an update, not means of means: the micro-batches here differ in size."""
    pairs = Copies(60, DIGITS)
    config = settings(max_steps=1, batch_tokens=800, adam_epsilon=1e-3)
    plans = [
        plan_epoch(pairs.source_lengths, pairs.target_lengths, tokens, seed=config.seed, epoch=0)
        for tokens in (800, 800 // 5)
    ]
    assert len(plans[0]) == 1 and 3 <= len(plans[1]) <= 5
    states = []
    for accumulate in (1, 5):
        trainer = trainer_for(
            tmp_path / str(accumulate), replace_fields(config, accumulate=accumulate), train=pairs, model=tiny_model()
        )
        state = trainer.train()
        assert (state.epoch, state.update) == (1, 0), "one update takes in the whole corpus"
        (checkpoint,) = trainer.run.checkpoints()
        states.append((checkpoint.model_tensors(), checkpoint.optimizer_tensors()))
        assert state.target_tokens == sum(len(row) + 1 for row in pairs.rows)
    (model, adam), (accumulated, accumulated_adam) = states
    for name in adam:  # Adam's first moment is a tenth of the gradient
        torch.testing.assert_close(accumulated_adam[name], adam[name], rtol=1e-4, atol=1e-8)
    for name in model:
        torch.testing.assert_close(accumulated[name], model[name], rtol=1e-4, atol=1e-6)


def replace_fields(config: TrainingConfig, **values: Any) -> TrainingConfig:
    return TrainingConfig.model_validate({**config.model_dump(), **values})


def padded(pairs: PiecePairs, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Source, target input and target output of the first pairs, [B, S] and [B, T], padded."""
    sources, targets = [pairs.source(i) for i in range(count)], [pairs.target(i) for i in range(count)]
    return pad(sources, end=EOS), pad(targets, start=BOS), pad(targets, end=EOS)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_gradient_is_that_of_the_mean_loss_over_target_tokens(tmp_path: Path, workers: int) -> None:
    pairs, model = Copies(20, DIGITS), tiny_model()
    source, target_input, target_output = padded(pairs, 20)
    logits = model(source, target_input).flatten(0, 1)
    targets = target_output.flatten()
    expected = F.cross_entropy(logits, targets, ignore_index=PAD, label_smoothing=0.1)
    nll = F.cross_entropy(logits, targets, ignore_index=PAD)
    expected.backward()  # type: ignore[no-untyped-call]
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    config = settings(max_steps=1, batch_tokens=1000, workers=workers)
    trainer = trainer_for(tmp_path / "run", config, train=pairs, model=tiny_model())
    trainer.train()
    (checkpoint,) = trainer.run.checkpoints()
    adam = checkpoint.optimizer_tensors()
    for name, gradient in gradients.items():
        assert gradient is not None
        torch.testing.assert_close(adam[f"{name}/exp_avg"], 0.1 * gradient, rtol=1e-4, atol=1e-8)
    (record,) = trainer.run.metrics()
    assert record["loss"] == pytest.approx(expected.item(), abs=1e-4)
    assert record["nll"] == pytest.approx(nll.item(), abs=1e-4)


def test_gradients_are_clipped_to_their_norm_where_configured(tmp_path: Path) -> None:
    norms = {}
    for clip in (0.0, 0.01):
        trainer = trainer_for(tmp_path / str(clip), settings(max_steps=1, clip_norm=clip))
        trainer.train()
        (checkpoint,) = trainer.run.checkpoints()
        moments = [tensor for name, tensor in checkpoint.optimizer_tensors().items() if name.endswith("exp_avg")]
        norms[clip] = 10 * float(torch.cat([moment.flatten() for moment in moments]).norm())
        assert next(trainer.run.metrics())["grad_norm"] == pytest.approx(norms[0.0], abs=1e-3)
    assert norms[0.0] > 0.1
    assert norms[0.01] == pytest.approx(0.01, rel=1e-3)


# Resuming

RESUMED = settings(
    max_steps=13, batch_tokens=120, accumulate=2, schedule="cosine", log_every=5, validate_every=4, save_every=3,
    keep_last=2, keep_best=2, average="none",
)  # fmt: skip


def sitting(folder: Path, config: TrainingConfig = RESUMED, stop: Callable[[], bool] = lambda: False) -> Trainer:
    """A trainer as a new process would make it: a model of other weights, until a checkpoint is read."""
    resumed = folder.exists()
    trainer = trainer_for(
        folder,
        config,
        model=tiny_model(99 if resumed else 1, dropout=0.3),
        valid=Copies(10, DIGITS, seed=5),
        evaluate=weight_score,
        stop=stop,
    )
    if resumed:
        assert trainer.resume()
    return trainer


def without_timings(records: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in record.items() if key not in TIMINGS} for record in records]


def assert_same_run(one: Run, other: Run) -> None:
    """Equal but for the clock: the same checkpoints to the bit, the same state, the same log."""
    assert kept_steps(one) == kept_steps(other)
    for first, second in zip(one.checkpoints(), other.checkpoints(), strict=True):
        assert equal(first.model_tensors(), second.model_tensors())
        assert first.resumable() == second.resumable()
        if first.resumable():
            assert equal(first.optimizer_tensors(), second.optimizer_tensors())
        states = [checkpoint.state() for checkpoint in (first, second)]
        for state in states:
            for timing in ("seconds", "metrics_size"):
                state.pop(timing)
            state["since_log"].pop("seconds")
        assert states[0] == states[1]
    assert without_timings(one.metrics()) == without_timings(other.metrics())


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Thirteen steps in one sitting, over several epochs, with dropout, accumulation and validation."""
    trainer = sitting(tmp_path_factory.mktemp("straight") / "run")
    state = trainer.train()
    assert state.step == 13 and state.epoch >= 2 and state.update > 0
    return trainer.run


@pytest.mark.parametrize("stops", [[1], [3], [4], [5], [7], [11], [2, 3, 6]])
def test_stopping_and_resuming_changes_nothing(tmp_path: Path, straight: Run, stops: list[int]) -> None:
    """Stopped anywhere, between or at log, validation, checkpoint and epoch; several times as well."""
    folder, done = tmp_path / "run", 0
    for step in stops:
        trainer = sitting(folder, stop=stop_after(step - done))
        with pytest.raises(Interrupted):
            trainer.train()
        done = trainer.state.step
        assert done == step == kept_steps(trainer.run)[-1]
    last = sitting(folder)
    state = last.train()
    assert state.finished and state.step == 13
    assert_same_run(straight, last.run)


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_stopping_and_resuming_changes_nothing_with_several_workers(
    tmp_path: Path, straight: Run, optimizer: str
) -> None:
    config = replace_fields(RESUMED, workers=2, optimizer=optimizer)
    whole = sitting(tmp_path / "whole", config)
    assert whole.train().step == 13
    with pytest.raises(Interrupted):
        sitting(tmp_path / "parts", config, stop=stop_after(5)).train()
    again = sitting(tmp_path / "parts", config)
    assert again.train().step == 13
    assert_same_run(whole.run, again.run)
    assert listener(again).messages == []
    assert not equal(weights(straight, 13), weights(whole.run, 13)), "each worker draws dropout of its own"


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_resuming_with_another_number_of_workers_says_so_and_goes_on(tmp_path: Path, optimizer: str) -> None:
    config = replace_fields(RESUMED, optimizer=optimizer)
    with pytest.raises(Interrupted):
        sitting(tmp_path / "run", replace_fields(config, workers=2), stop=stop_after(3)).train()
    again = sitting(tmp_path / "run", replace_fields(config, workers=3))
    assert listener(again).messages == ["resuming with workers 3 instead of 2: not bit for bit what it would have been"]
    assert again.train().step == 13


def test_resuming_without_the_compiled_kernels_says_so_and_goes_on(tmp_path: Path) -> None:
    if not native.available():
        pytest.skip("the compiled kernels were not built")
    with pytest.raises(Interrupted):
        sitting(tmp_path / "run", stop=stop_after(3)).train()
    generation = native.generation()
    with native.disabled():
        again = sitting(tmp_path / "run")
        assert listener(again).messages == [
            f"resuming with kernels torch instead of {generation}: not bit for bit what it would have been"
        ]
        assert again.train().step == 13


def test_what_a_crash_lost_is_done_again(tmp_path: Path, straight: Run) -> None:
    """Killed at step 5, when it has been logged: the run goes on from the checkpoint of step 4."""

    def crash() -> bool:
        if trainer.state.step == 5:
            raise KeyboardInterrupt
        return False

    trainer = sitting(tmp_path / "run", stop=crash)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert [record["step"] for record in trainer.run.metrics()] == [4, 5]
    with (trainer.run.path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')
    (trainer.run.path / "checkpoints" / ".saving-abc").mkdir()
    again = sitting(tmp_path / "run")
    assert again.state.step == 4
    assert [record["step"] for record in again.run.metrics()] == [4]
    assert not list((trainer.run.path / "checkpoints").glob(".saving-*"))
    again.train()
    assert_same_run(straight, again.run)


def test_more_steps_may_be_asked_for_later(tmp_path: Path) -> None:
    """A run extended past its end has the weights of one that was to be as long from the start."""
    longer, shorter = (settings(max_steps=steps, warmup_steps=2) for steps in (9, 5))
    whole = trainer_for(tmp_path / "whole", longer, model=tiny_model(dropout=0.3))
    whole.train()
    first = trainer_for(tmp_path / "parts", shorter, model=tiny_model(dropout=0.3))
    assert first.train().horizon == 5
    again = trainer_for(tmp_path / "parts", longer, model=tiny_model(7, dropout=0.3))
    assert again.resume()
    state = again.train()
    assert (state.step, state.horizon) == (9, 9)
    assert equal(weights(again.run, 9), weights(whole.run, 9))


def test_resuming_a_finished_run_does_nothing(tmp_path: Path) -> None:
    trainer_for(tmp_path / "run", settings(max_steps=3)).train()
    again = trainer_for(tmp_path / "run", settings(max_steps=3))
    assert again.resume()
    before = sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "run").rglob("*"))
    assert again.train().step == 3
    assert sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "run").rglob("*")) == before


def test_resuming_without_a_checkpoint_starts_over(tmp_path: Path) -> None:
    trainer = trainer_for(tmp_path / "run", settings(max_steps=3))
    trainer.run.append_metrics({"step": 1, "loss": 9.0})
    assert not trainer.resume()
    assert list(trainer.run.metrics()) == []
    assert trainer.train().step == 3


def test_another_corpus_is_refused(tmp_path: Path) -> None:
    identity = {"corpus": "abc", "tokenizer": "def"}
    trainer_for(tmp_path / "run", settings(max_steps=2), identity=identity).train()
    for changed in identity:
        again = trainer_for(tmp_path / "run", settings(max_steps=4), identity={**identity, changed: "other"})
        with pytest.raises(RunError, match=f"the {changed} is not the one that this run began with"):
            again.resume()
    assert trainer_for(tmp_path / "run", settings(max_steps=4), identity=identity).resume()


# Numbers that are not finite


def break_at(
    monkeypatch: pytest.MonkeyPatch, trainer: Trainer, steps: set[int], spoil: Callable[[Tensor, Transformer], Tensor]
) -> None:
    """Makes the loss of the given steps go wrong."""
    whole = updates_module.batch_losses

    def batch_losses(model: Transformer, batch: Batch, *settings: float) -> tuple[Tensor, Tensor]:
        loss, nll = whole(model, batch, *settings)
        return (spoil(loss, model) if trainer.state.step in steps else loss), nll

    monkeypatch.setattr(updates_module, "batch_losses", batch_losses)


def spoil_loss(loss: Tensor, model: Transformer) -> Tensor:
    return loss * math.nan


def spoil_gradient(loss: Tensor, model: Transformer) -> Tensor:
    """A finite loss whose gradient is not: the root's slope at 0 is infinite."""
    return loss + (model.target_embedding * 0).abs().sqrt().sum()


@pytest.mark.parametrize(("spoil", "what"), [(spoil_loss, "loss"), (spoil_gradient, "gradient")])
def test_a_step_that_is_not_finite_is_skipped_and_counted(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[Tensor, Transformer], Tensor],
    what: str,
) -> None:
    config = settings(max_steps=5, save_every=1, keep_last=5, max_skipped_steps=2, log_every=1)
    trainer = trainer_for(tmp_path / "run", config)
    break_at(monkeypatch, trainer, {2, 4}, spoil)
    state = trainer.train()
    assert (state.step, state.skipped_steps, state.skipped_in_a_row) == (5, 2, 0)
    assert listener(trainer).messages == [
        f"step {step}: the {what} is not finite; the step is skipped" for step in (2, 4)
    ]
    for skipped in (2, 4):
        assert equal(weights(trainer.run, skipped), weights(trainer.run, skipped - 1))
        assert not equal(weights(trainer.run, skipped + 1), weights(trainer.run, skipped))
    assert all(tensor.isfinite().all() for tensor in weights(trainer.run, 5).values())
    assert [record["skipped_steps"] for record in trainer.run.metrics()] == [0, 1, 1, 2, 2]


def test_too_many_in_a_row_end_training_with_remedies_and_a_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(max_steps=20, save_every=2, max_skipped_steps=3)
    trainer = trainer_for(tmp_path / "run", config)
    break_at(monkeypatch, trainer, set(range(6, 20)), spoil_loss)
    with pytest.raises(TrainingError, match="3 steps in a row") as caught:
        trainer.train()
    for remedy in ("training.learning_rate_scale", "training.clip_norm=1", 'training.precision="fp32"'):
        assert remedy in str(caught.value)
    assert trainer.state.step == 8
    assert all(tensor.isfinite().all() for tensor in weights(trainer.run, 4).values())
    monkeypatch.undo()
    again = trainer_for(tmp_path / "run", config)
    assert again.resume()
    assert again.train().step == 20


# Validation, and which checkpoints are kept


def test_validation_loss_is_the_mean_over_tokens_without_smoothing_or_dropout() -> None:
    model, pairs = tiny_model(dropout=0.5), Copies(30, DIGITS)
    source, target_input, target_output = padded(pairs, 30)
    model.eval()
    with torch.no_grad():
        logits = model(source, target_input).flatten(0, 1)
    expected = F.cross_entropy(logits, target_output.flatten(), ignore_index=PAD).item()
    for batch_tokens in (1, 50, 10_000):
        model.train()
        assert validation_loss(model, pairs, batch_tokens, CPU) == pytest.approx(expected, rel=1e-5)


def test_validation_does_not_change_training(tmp_path: Path) -> None:
    found = []
    for every in (1, 1000):
        trainer = trainer_for(
            tmp_path / str(every),
            settings(max_steps=6, validate_every=every),
            model=tiny_model(dropout=0.3),
            valid=Copies(10, DIGITS, seed=5),
            evaluate=weight_score,
        )
        trainer.train()
        found.append(weights(trainer.run, 6))
    assert equal(*found)


def scores(*values: float) -> Evaluate:
    """An evaluation that gives these, one after the other."""
    remaining = iter(values)
    return lambda model: next(remaining)


@pytest.fixture
def losses_are(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes validations find these losses, one after the other."""

    def make(*values: float) -> None:
        remaining = iter(values)
        monkeypatch.setattr("seq2seq.training.trainer.validation_loss", lambda *_: next(remaining))

    return make


def test_patience_ends_training_after_so_many_validations_without_a_better_one(
    tmp_path: Path, losses_are: Callable[..., None]
) -> None:
    losses_are(3, 3.5, 3, 3.2, 3.1)
    config = settings(max_steps=100, validate_every=2, patience=2)
    trainer = trainer_for(
        tmp_path / "run", config, valid=Copies(5, DIGITS), evaluate=scores(10, 9, 11, 11, 10.5, 99)
    )  # fmt: skip
    state = trainer.train()
    assert state.step == 10 and state.best is not None
    assert (state.best["step"], state.best["valid_bleu"]) == (6, 11)
    assert state.finished
    assert {6, 10} <= set(kept_steps(trainer.run))
    assert [record["valid_bleu"] for record in listener(trainer).validations] == [10, 9, 11, 11, 10.5]


def test_patience_waits_as_long_as_the_loss_or_bleu_gets_better(
    tmp_path: Path, losses_are: Callable[..., None]
) -> None:
    losses_are(4, 3, 2, 2.5, 2.4, 2.1)  # BLEU is nothing for three validations, and better in the fifth
    config = settings(max_steps=100, validate_every=1, patience=1)
    state = trainer_for(tmp_path / "run", config, valid=Copies(5, DIGITS), evaluate=scores(0, 0, 0, 1, 2, 1)).train()
    assert state.step == 6 and state.best is not None
    assert (state.best["step"], state.best["valid_bleu"]) == (5, 2)


def test_of_validations_with_equal_bleu_the_one_of_the_lowest_loss_is_the_best(
    tmp_path: Path, losses_are: Callable[..., None]
) -> None:
    losses_are(4, 2, 3, 2)
    config = settings(max_steps=4, validate_every=1, save_every=100, average="none")
    trainer = trainer_for(tmp_path / "run", config, valid=Copies(5, DIGITS), evaluate=scores(0, 0, 0, 0))
    state = trainer.train()
    assert state.best is not None and state.best["step"] == 2  # and not the later of the same
    assert best_steps([1, 2, 3, 4], state) == [2, 4, 3, 1]
    assert 2 in kept_steps(trainer.run)


def test_patience_alone_is_a_limit_only_where_something_is_validated(
    tmp_path: Path, losses_are: Callable[..., None]
) -> None:
    losses_are(2, 2)
    config = settings(patience=1, validate_every=1)
    state = trainer_for(tmp_path / "valid", config, valid=Copies(5, DIGITS), evaluate=scores(2, 1)).train()
    assert (state.step, state.horizon) == (2, None)
    with pytest.raises(ConfigError, match="nothing says when training ends"):
        trainer_for(tmp_path / "none", config).train()


def test_without_a_score_the_loss_tells_the_best_checkpoint(tmp_path: Path) -> None:
    trainer = trainer_for(tmp_path / "run", settings(max_steps=6, validate_every=2), valid=Copies(5, DIGITS, seed=4))
    state = trainer.train()
    losses = {record["step"]: record["valid_loss"] for record in state.validations}
    assert state.best is not None and state.best["step"] == min(losses, key=lambda step: losses[step])
    assert all(record["valid_bleu"] is None for record in state.validations)


@pytest.mark.parametrize(
    ("save_every", "validate_every", "keep_last", "keep_best", "bleu", "kept"),
    [
        (2, 2, 2, 1, [1, 2, 3, 4, 5, 6], {10, 12}),
        (2, 2, 2, 1, [1, 9, 3, 4, 5, 6], {4, 10, 12}),
        (2, 2, 2, 2, [1, 9, 3, 8, 5, 6], {4, 8, 10, 12}),
        (2, 2, 1, 3, [7, 9, 3, 8, 5, 6], {2, 4, 8, 12}),
        (1, 6, 4, 1, [2, 1], {6, 9, 10, 11, 12}),
        # The best between two regular checkpoints is saved for its own sake, and takes no regular one's place.
        (4, 3, 2, 1, [1, 2, 9, 3], {8, 9, 12}),
    ],
)
def test_the_last_and_the_best_checkpoints_are_kept_and_no_others(
    tmp_path: Path,
    save_every: int,
    validate_every: int,
    keep_last: int,
    keep_best: int,
    bleu: list[float],
    kept: set[int],
) -> None:
    config = settings(
        max_steps=12, save_every=save_every, validate_every=validate_every, keep_last=keep_last, keep_best=keep_best,
        average="none",
    )  # fmt: skip
    trainer = trainer_for(tmp_path / "run", config, valid=Copies(5, DIGITS), evaluate=scores(*bleu))
    trainer.train()
    assert set(kept_steps(trainer.run)) == kept
    resumable = [checkpoint.step for checkpoint in trainer.run.checkpoints() if checkpoint.resumable()]
    assert resumable == sorted(kept)[-2:]


def test_what_was_saved_regularly_stays_when_save_every_changes(tmp_path: Path) -> None:
    config = settings(max_steps=23, save_every=5, keep_last=3, average_checkpoints=3)
    trainer_for(tmp_path / "run", config).train()
    assert kept_steps(Run(tmp_path / "run")) == [15, 20, 23]
    finished = trainer_for(tmp_path / "run", replace_fields(config, save_every=7))
    assert finished.resume() and finished.train().step == 23  # nothing is left to train
    assert kept_steps(finished.run) == [15, 20, 23]
    longer = trainer_for(tmp_path / "run", replace_fields(config, save_every=7, max_steps=29))
    assert longer.resume()
    state = longer.train()
    assert kept_steps(longer.run) == [20, 28, 29] and state.regular == [15, 20, 28]
    assert [one.step for one in choose_checkpoints(longer.config, longer.run.checkpoints(), state)] == [20, 28, 29]


def test_a_run_that_did_not_write_down_its_regular_checkpoints_keeps_all(tmp_path: Path) -> None:
    config = settings(max_steps=23, save_every=5)
    begun = trainer_for(tmp_path / "run", config)
    begun.train()
    newest = begun.run.checkpoints()[-1].path / STATE
    before = {key: value for key, value in json.loads(newest.read_text()).items() if key not in ("regular", STATE_HASH)}
    newest.write_text(json.dumps(before))
    for _ in range(2):  # as if killed before it has saved anything
        again = trainer_for(tmp_path / "run", replace_fields(config, save_every=7))
        assert again.resume()
        again.train()
        assert kept_steps(again.run) == again.state.regular == [5, 10, 15, 20, 23]
    assert regular_steps([10, 12, 15, 23], TrainingState(step=23, regular=[12])) == [12, 23]


def test_an_epoch_is_planned_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned: list[int] = []

    def plan(*arguments: Any, **options: Any) -> Any:
        planned.append(options["epoch"])
        return plan_epoch(*arguments, **options)

    monkeypatch.setattr(trainer_module, "plan_epoch", plan)
    trainer = trainer_for(tmp_path / "run", settings(max_epochs=2))
    trainer.epoch_plan()
    assert trainer.updates_per_epoch == len(trainer.epoch_plan()[1])
    trainer.train()
    assert planned == [0, 1]


def test_an_update_that_no_epoch_has_is_told(tmp_path: Path) -> None:
    trainer_for(tmp_path / "run", settings(max_steps=3)).train()
    state = Run(tmp_path / "run").checkpoints()[-1].path / STATE
    values = json.loads(state.read_text())
    values.pop(STATE_HASH)
    state.write_text(json.dumps({**values, "update": 999_999}))
    again = trainer_for(tmp_path / "run", settings(max_steps=5))
    assert again.resume()
    with pytest.raises(TrainingError, match=r"damaged: the checkpoint has done update 999,999 of \d+ of epoch 0"):
        again.train()


def test_what_goes_before_training_takes_none_of_its_speed(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither when it begins, nor when it goes on: what an earlier sitting has measured stays."""
    monkeypatch.setattr(state_module, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    trainer = trainer_for(tmp_path / "run", settings(max_steps=4, log_every=3, save_every=2), train=SMALL)
    clock.now += 100.0
    trainer.train()
    speeds = [record["target_tokens_per_second"] for record in trainer.run.metrics() if "loss" in record]
    again = trainer_for(tmp_path / "run", settings(max_steps=8, log_every=3, save_every=2), train=SMALL)
    again.resume()
    clock.now += 100.0
    again.train()
    later = [record["target_tokens_per_second"] for record in again.run.metrics() if "loss" in record]
    assert later[: len(speeds)] == speeds and min(later) > 0.5 * max(later)


def test_a_resumed_run_does_not_split_other_epochs_into_pieces_than_its_own(tmp_path: Path) -> None:
    class Sampled:
        def __init__(self) -> None:
            self.asked: list[int] = []

        def for_epoch(self, epoch: int) -> PiecePairs:
            self.asked.append(epoch)
            return Copies(60, DIGITS, seed=epoch)

        def prefetch(self, epoch: int) -> None:
            pass

    def begin(config: TrainingConfig, sampled: Sampled) -> Trainer:
        trainer = trainer_for(tmp_path / "run", config)
        trainer.sampled = sampled
        return trainer

    first, again = Sampled(), Sampled()
    begin(settings(max_epochs=3), first).train()
    assert sorted(set(first.asked)) == [0, 1, 2]
    resumed = begin(settings(max_epochs=5), again)
    assert resumed.resume()
    resumed.train()
    assert sorted(set(again.asked)) == [3, 4] and resumed.epochs() == pytest.approx(5.0, abs=0.5)


# When training ends


@dataclass
class FakeClock:
    """Every micro-batch takes `pace` seconds; nothing else takes any."""

    pace: float = 1.0
    now: float = 1000.0

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        whole = updates_module.batch_losses

        def batch_losses(model: Transformer, batch: Batch, *settings: float) -> tuple[Tensor, Tensor]:
            self.now += self.pace
            return whole(model, batch, *settings)

        monkeypatch.setattr(trainer_module, "time", SimpleNamespace(perf_counter=lambda: self.now))
        monkeypatch.setattr(updates_module, "batch_losses", batch_losses)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    fake = FakeClock()
    fake.install(monkeypatch)
    return fake


SMALL = Copies(8, DIGITS)  # one micro-batch an update and an epoch


@pytest.mark.parametrize("schedule", ["cosine", "linear", "inverse_sqrt", "constant"])
@pytest.mark.parametrize("warmup_steps", [1, 2, 5, 40])
def test_minutes_become_a_number_of_steps_once(
    tmp_path: Path, clock: FakeClock, schedule: str, warmup_steps: int
) -> None:
    """A second a step, two minutes, a tenth of them held back: 108 steps, however short the warm-up is."""
    config = settings(max_minutes=2, schedule=schedule, warmup_steps=warmup_steps, log_every=9)
    trainer = trainer_for(tmp_path / "run", config, train=SMALL)
    state = trainer.train()
    assert (state.step, state.horizon, state.seconds) == (108, 108, 108.0)
    assert listener(trainer).messages == ["planned 108 steps to fit into 2 minutes"]
    assert trainer.run.checkpoints()[-1].state()["horizon"] == 108
    if schedule in ("cosine", "linear"):
        assert listener(trainer).reports[-1]["learning_rate"] == pytest.approx(0.0, abs=1e-9)


def test_the_time_left_is_the_budgets_until_there_is_a_plan(tmp_path: Path, clock: FakeClock) -> None:
    """A second a step, a tenth of two minutes held back; planned when 15% of them, 18 steps, are over."""
    config = settings(max_minutes=2, schedule="cosine", warmup_steps=40, log_every=10)
    trainer = trainer_for(tmp_path / "run", config, train=SMALL)
    trainer.train()
    reports = {report["step"]: (report["horizon"], report["time_left"]) for report in listener(trainer).reports}
    assert reports[10] == (None, 98.0)
    assert (reports[20], reports[100], reports[108]) == ((108, 88.0), (108, 8.0), (108, 0.0))


@pytest.mark.parametrize(
    ("limits", "left"),
    [
        ({"max_steps": 40}, 30.0),
        ({"max_steps": 40, "max_minutes": 0.5}, 20.0),
        ({"max_steps": 20, "max_minutes": 0.5}, 10.0),
        ({"patience": 1, "schedule": "constant"}, None),
    ],
)
def test_the_time_left_is_that_of_the_limit_that_comes_first(
    tmp_path: Path, clock: FakeClock, limits: dict[str, Any], left: float | None
) -> None:
    config = settings(**{"max_steps": None, "log_every": 10, "validate_every": 10, **limits})
    trainer = trainer_for(
        tmp_path / "run",
        config,
        train=SMALL,
        valid=Copies(5, DIGITS),
        evaluate=scores(1),
        stop=lambda: trainer.state.step == 10,
    )
    with pytest.raises(Interrupted):
        trainer.train()
    assert [report["time_left"] for report in listener(trainer).reports] == [left]


def test_a_horizon_is_planned_from_later_steps_than_the_first(tmp_path: Path, clock: FakeClock) -> None:
    """Four quick steps do not make a plan that the slower ones after them cannot keep."""
    config = settings(max_minutes=2, schedule="cosine", warmup_steps=20)

    def tire() -> bool:
        clock.pace = 1.0 if trainer.state.step < 4 else 2.0
        return False

    trainer = trainer_for(tmp_path / "run", config, train=SMALL, stop=tire)
    state = trainer.train()
    assert state.horizon == 11 + 45  # 4 + 7 * 2 = 18 seconds are over, and of 120 but for a tenth 90 are left
    assert state.seconds == 108.0


@pytest.mark.parametrize(("validation_seconds", "steps"), [(0.0, 108), (0.5, 107), (10.0, 44)])
def test_validations_that_take_long_are_planned_for(
    tmp_path: Path, clock: FakeClock, validation_seconds: float, steps: int
) -> None:
    """One every ten steps of a second: half a second is in the reserve. Ten seconds are planned for, and so are two
    validations at the end and the one that was timed for the plan.
    """

    def evaluate(model: Transformer) -> float:
        clock.now += validation_seconds
        return 1.0

    config = settings(max_minutes=2, schedule="cosine", warmup_steps=2, validate_every=10)
    trainer = trainer_for(tmp_path / "run", config, train=SMALL, valid=Copies(5, DIGITS), evaluate=evaluate)
    state = trainer.train()
    assert state.step == state.horizon == steps
    assert state.seconds + validation_seconds <= 120
    assert [validation["step"] for validation in state.validations] == [*range(10, steps, 10), steps]


def test_a_validation_counts_once_where_a_run_is_resumed_shortly_before_its_plan(
    tmp_path: Path, clock: FakeClock
) -> None:
    def evaluate(model: Transformer) -> float:
        clock.now += 6
        return 1.0

    config = settings(max_minutes=2, schedule="cosine", warmup_steps=12, validate_every=20)
    more: dict[str, Any] = {"train": SMALL, "valid": Copies(5, DIGITS), "evaluate": evaluate}
    whole = trainer_for(tmp_path / "whole", config, **more)
    horizon = whole.train().horizon
    assert horizon is not None
    plan, remark = listener(whole).messages[:2]
    assert plan.startswith(f"planned {horizon} steps")
    assert remark.startswith("without validations there would be 108: one takes 6 s; raise training.validate_every")
    first = trainer_for(tmp_path / "run", config, **more, stop=stop_after(9))
    with pytest.raises(Interrupted):
        first.train()
    again = trainer_for(tmp_path / "run", config, **more)
    assert again.resume()
    assert again.train().horizon == horizon


@pytest.mark.parametrize(("warmup_steps", "planned_at"), [(54, 18), (55, 8)])
def test_a_plan_of_less_than_two_warm_ups_comes_early(
    tmp_path: Path, clock: FakeClock, warmup_steps: int, planned_at: int
) -> None:
    """It raises the rate at once, which is to be little then. 108 steps are planned, from 8 at the least."""
    config = settings(max_minutes=2, schedule="cosine", warmup_steps=warmup_steps, log_every=1)
    trainer = trainer_for(tmp_path / "run", config, train=SMALL)
    trainer.train()
    reports = listener(trainer).reports
    assert [report["step"] for report in reports if report["horizon"] is None][-1] == planned_at - 1
    rates = [report["learning_rate"] for report in reports]
    assert max(rates) == pytest.approx(rates[53], rel=1e-6)


def test_a_run_that_is_resumed_shortly_before_its_plan_plans_from_all_that_it_has_done(
    tmp_path: Path, clock: FakeClock
) -> None:
    config = settings(max_minutes=2, schedule="cosine", warmup_steps=12)
    first = trainer_for(tmp_path / "run", config, train=SMALL, stop=lambda: first.state.step == 11)
    with pytest.raises(Interrupted):
        first.train()
    clock.pace = 7.0  # of the first step of this sitting, at which it plans
    again = trainer_for(tmp_path / "run", config, train=SMALL)
    assert again.resume()
    assert again.train().horizon == 12 + int(90 / (18 / 12))


def test_a_planned_horizon_is_kept_when_training_is_resumed(tmp_path: Path, clock: FakeClock) -> None:
    config = settings(max_minutes=2, schedule="cosine", warmup_steps=10)

    def crash() -> bool:  # with nothing saved since the plan was made
        if first.state.step == 30:
            raise KeyboardInterrupt
        return False

    first = trainer_for(tmp_path / "run", config, train=SMALL, stop=crash)
    with pytest.raises(KeyboardInterrupt):
        first.train()
    clock.pace = 7.0  # on a slower machine
    again = trainer_for(tmp_path / "run", config, train=SMALL)
    assert again.resume() and again.state.horizon == 108
    assert again.train().step == 108
    assert listener(again).messages == []


def test_a_horizon_is_planned_anew_where_the_minutes_are_changed(tmp_path: Path, clock: FakeClock) -> None:
    config = settings(max_minutes=2, schedule="cosine", warmup_steps=10)
    assert trainer_for(tmp_path / "run", config, train=SMALL).train().step == 108
    again = trainer_for(tmp_path / "run", replace_fields(config, max_minutes=4.0), train=SMALL)
    assert again.resume()
    assert again.train().step == 216


def test_a_run_too_slow_for_its_minutes_ends_with_them(tmp_path: Path, clock: FakeClock) -> None:
    clock.pace = 50.0
    state = trainer_for(tmp_path / "run", settings(max_minutes=2, warmup_steps=4000), train=SMALL).train()
    assert state.step == 3 and state.finished


def test_minutes_are_a_limit_beside_steps_and_do_not_change_the_horizon(tmp_path: Path, clock: FakeClock) -> None:
    long = trainer_for(tmp_path / "long", settings(max_minutes=0.5, max_steps=1000), train=SMALL)
    state = long.train()
    assert (state.step, state.horizon) == (30, 1000)
    assert listener(long).messages == ["training.max_minutes = 0.5 are over: stopped at step 30 of 1,000"]
    short = trainer_for(tmp_path / "short", settings(max_minutes=0.5, max_steps=7), train=SMALL)
    state = short.train()
    assert (state.step, state.horizon) == (7, 7)
    assert listener(short).messages == []


def test_epochs_are_a_limit_alone_and_beside_the_others(tmp_path: Path, clock: FakeClock) -> None:
    pairs = Copies(60, DIGITS)
    config = settings(max_epochs=3, schedule="linear")
    alone = trainer_for(tmp_path / "alone", config, train=pairs)
    state = alone.train()
    assert (state.epoch, state.update, state.horizon) == (3, 0, state.step)
    assert alone.epochs() == 3.0
    updates = state.step // 3
    steps = trainer_for(tmp_path / "steps", replace_fields(config, max_steps=1000), train=pairs).train()
    assert (steps.step, steps.horizon) == (3 * updates, 1000)
    both = replace_fields(config, max_minutes=1000.0, warmup_steps=4000, log_every=1)
    minutes = trainer_for(tmp_path / "minutes", both, train=pairs)
    state = minutes.train()
    assert (state.step, state.horizon) == (
        3 * updates,
        3 * updates,
    )  # epochs end it within its warm-up: they are the plan
    rates = [record["learning_rate"] for record in minutes.run.metrics() if "learning_rate" in record]
    assert rates[-1] == 0.0 < rates[0] < max(rates[1:-1])
    part = trainer_for(tmp_path / "part", replace_fields(config, max_steps=updates + 1), train=pairs)
    part.train()
    assert part.epochs() == pytest.approx(1 + 1 / updates)


def test_a_run_without_any_limit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"training\.max_steps, training\.max_epochs or training\.max_minutes"):
        trainer_for(tmp_path / "run", settings()).train()


@pytest.mark.parametrize("workers", [1, 3])
def test_every_epoch_takes_each_pair_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    seen: list[int] = []

    def counting(pairs: PiecePairs, indices: Indices) -> Batch:
        seen.extend(int(i) for i in indices)
        return collate(pairs, indices)

    monkeypatch.setattr(updates_module, "collate", counting)
    config = settings(max_epochs=2, accumulate=3, workers=workers)
    trainer_for(tmp_path / "run", config, train=Copies(60, DIGITS)).train()
    assert sorted(seen[:60]) == sorted(seen[60:]) == list(range(60))
    assert seen[:60] != seen[60:]


# Reports


def test_metrics_say_what_the_observer_hears(tmp_path: Path) -> None:
    config = settings(max_steps=5, log_every=2, validate_every=3)
    trainer = trainer_for(tmp_path / "run", config, valid=Copies(5, DIGITS), evaluate=scores(1, 2))
    trainer.train()
    records = list(trainer.run.metrics())
    assert [(record["step"], "loss" in record) for record in records] == [
        (2, True), (3, False), (4, True), (5, True), (5, False),
    ]  # fmt: skip
    reports, validations = listener(trainer).reports, listener(trainer).validations
    assert [record for record in records if "loss" in record] == [
        {key: value for key, value in report.items() if key not in ("horizon", "time_left")} for report in reports
    ]
    assert [record for record in records if "valid_loss" in record] == validations
    assert {report["horizon"] for report in reports} == {5}
    assert json.loads((trainer.run.path / "metrics.jsonl").read_text().splitlines()[0]) == records[0]


def test_a_state_ignores_what_later_versions_may_add() -> None:
    state = TrainingState(step=3, epoch=1)
    assert TrainingState.from_dict({**vars(state), "state_format": STATE_FORMAT, "unknown": 1}) == state
    for other in (None, STATE_FORMAT + 1):
        with pytest.raises(TrainingError, match="state_format"):
            TrainingState.from_dict({**vars(state), "state_format": other})
