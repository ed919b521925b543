"""Training that goes wrong without stopping: it is told, counted, and never saved."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import Listener
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from seq2seq.config import ModelConfig, TrainingConfig
from seq2seq.model.transformer import Transformer
from seq2seq.run import Run
from seq2seq.text.batching import Batch
from seq2seq.training import updates as updates_module
from seq2seq.training.health import EXPLODED, EXPLODED_STEPS, exploded, explosion, jumped, not_finite, watch_loss
from seq2seq.training.state import Interrupted, TrainingError, TrainingState
from seq2seq.training.trainer import Trainer

losses = st.lists(st.floats(0.0, 12.0), min_size=1, max_size=60)


class Pairs:
    """Eight pairs of one length."""

    source_lengths = target_lengths = torch.full((8,), 4, dtype=torch.int32).numpy()

    def source(self, index: int) -> Any:
        return torch.full((4,), 4 + index, dtype=torch.int32).numpy()

    target = source


def trainer_for(folder: Path, *, stop_at: int = 0, **values: Any) -> Trainer:
    defaults = {"max_steps": 40, "batch_tokens": 128, "warmup_steps": 4, "learning_rate_scale": 0.1, "save_every": 5}
    config = TrainingConfig.model_validate({**defaults, **values})
    torch.manual_seed(1)
    shape = ModelConfig(d_model=8, num_heads=2, d_ff=8, num_encoder_layers=1, num_decoder_layers=1, dropout=0.0)
    model = Transformer(shape, 12, 12, shared=True)
    run = Run(folder) if folder.exists() else Run.create(folder)
    trainer = Trainer(
        run, config, model, Pairs(), None, None, Listener(), device=torch.device("cpu"),
        stop=lambda: trainer.state.step == stop_at,
    )  # fmt: skip
    return trainer


def explode(monkeypatch: pytest.MonkeyPatch, trainer: Trainer, steps: range) -> None:
    """From here on, at the given steps, the loss looks as if every token had become impossible."""
    whole = updates_module.batch_losses

    def batch_losses(model: Transformer, batch: Batch, *settings: float) -> tuple[Tensor, Tensor]:
        loss, nll = whole(model, batch, *settings)
        return loss, nll + (40.0 * batch.num_target_tokens if trainer.state.step in steps else 0.0)

    monkeypatch.setattr(updates_module, "batch_losses", batch_losses)


@given(losses)
def test_a_loss_that_never_rises_far_does_not_explode(values: list[float]) -> None:
    state = TrainingState()
    for value in values:
        assert not watch_loss(state, min(value, 2.9))
        assert not exploded(state)
    assert state.exploded_steps == 0


@given(losses)
def test_explosions_are_counted_and_end(values: list[float]) -> None:
    state = TrainingState()
    begun = sum(watch_loss(state, value) for value in values)
    assert state.average_nll is not None and state.lowest_nll is not None
    assert begun <= state.exploded_steps <= len(values)
    assert (state.exploded_in_a_row > 0) == (state.average_nll > state.lowest_nll + EXPLODED)
    for _ in range(60):
        watch_loss(state, state.lowest_nll)
    assert not exploded(state)


def test_one_step_far_off_is_no_explosion_yet() -> None:
    state = TrainingState()
    assert not jumped(state)
    watch_loss(state, 1.0)
    assert not watch_loss(state, 8.0)
    assert jumped(state) and not exploded(state) and state.exploded_steps == 0
    assert jumped(state, math.nan) and not jumped(state, 2.0)  # what other pairs say
    assert not watch_loss(state, 1.0)
    assert not jumped(state)


@pytest.mark.parametrize("sound", [True, False])
def test_after_an_odd_batch_other_pairs_say_whether_the_model_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sound: bool
) -> None:
    trainer = trainer_for(tmp_path / "run", max_steps=20)
    whole, update = updates_module.batch_losses, trainer.updater.update

    def batch_losses(model: Transformer, batch: Batch, *settings: float) -> tuple[Tensor, Tensor]:
        loss, nll = whole(model, batch, *settings)
        return loss, nll + (9.0 * batch.num_target_tokens if model.training and trainer.state.step in (10, 20) else 0.0)

    def spoil(*arguments: Any) -> Any:
        done = update(*arguments)
        if trainer.state.step == 20 and not sound:
            with torch.no_grad():
                trainer.model.target_embedding.mul_(1000.0)
        return done

    monkeypatch.setattr(updates_module, "batch_losses", batch_losses)
    monkeypatch.setattr(trainer.updater, "update", spoil)
    if sound:
        trainer.train()
        assert trainer.state.finished
    else:
        with pytest.raises(TrainingError, match=r"^step 20: the loss has exploded"):
            trainer.train()
    assert [one.step for one in trainer.run.checkpoints()] == [5, 10, 15] + [20] * sound
    assert trainer.state.exploded_steps == 0


def test_an_explosion_is_told_in_one_line_with_its_learning_rate() -> None:
    state = TrainingState(average_nll=9.25, lowest_nll=2.0)
    assert explosion(state, 0.0123) == (
        "the loss has exploded: 9.2 nats a target token, after 2.0 at its lowest, at a learning rate of 1.2e-02"
    )


def test_the_first_tensor_that_is_not_finite_is_named() -> None:
    good = {"a": torch.ones(2), "step": torch.tensor([3])}
    assert not_finite(good) is None and not_finite({}) is None
    for value in (math.nan, math.inf, -math.inf):
        assert not_finite({**good, "b": torch.tensor([1.0, value]), "c": torch.tensor(math.nan)}) == "b"


def test_an_exploded_model_is_not_saved_and_ends_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = trainer_for(tmp_path / "run", max_steps=1000)
    explode(monkeypatch, trainer, range(12, 1001))
    with pytest.raises(
        TrainingError, match=rf"for {EXPLODED_STEPS} steps now: lower training\.learning_rate"
    ) as caught:
        trainer.train()
    assert "continue from step 10 with --resume" in str(caught.value) and "\n" not in str(caught.value)
    assert [checkpoint.step for checkpoint in trainer.run.checkpoints()] == [5, 10]
    assert isinstance(trainer.observer, Listener) and len(trainer.observer.messages) == 1
    assert "exploded" in trainer.observer.messages[0] and "nothing is saved" in trainer.observer.messages[0]


def test_after_an_explosion_that_passes_training_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = trainer_for(tmp_path / "run", max_steps=60, log_every=60)
    explode(monkeypatch, trainer, range(12, 17))
    state = trainer.train()
    assert state.finished and state.exploded_steps > 5 and state.exploded_in_a_row == 0
    steps = [checkpoint.step for checkpoint in trainer.run.checkpoints()]
    assert 15 not in steps and steps[-1] == 60
    (record,) = trainer.run.metrics()
    assert record["exploded_steps"] == state.exploded_steps


def test_a_run_that_ends_exploded_has_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = trainer_for(tmp_path / "run", max_steps=14)
    explode(monkeypatch, trainer, range(12, 15))
    with pytest.raises(TrainingError, match=r"step 14: the loss has exploded.*from step 10"):
        trainer.train()


def test_stopped_in_the_midst_of_an_explosion_it_goes_back_to_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = trainer_for(tmp_path / "run", stop_at=13)
    explode(monkeypatch, trainer, range(12, 20))
    with pytest.raises(Interrupted):
        trainer.train()
    again = trainer_for(tmp_path / "run")
    assert again.resume() and again.state.step == 10


@pytest.mark.parametrize("broken", ["weights", "optimizer"])
def test_what_is_not_finite_is_never_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    trainer = trainer_for(tmp_path / "run")
    [optimizer] = trainer.updater.optimizers
    step = optimizer.step

    def spoiled(*arguments: Any) -> Any:
        done = step(*arguments)
        if trainer.state.step == 10:
            parameter = next(trainer.model.parameters())
            spoil = parameter if broken == "weights" else optimizer.state[parameter]["exp_avg_sq"]
            spoil.data.view(-1)[0] = math.inf
        return done

    monkeypatch.setattr(optimizer, "step", spoiled)
    with pytest.raises(TrainingError, match=rf"step 10: the {broken}.* not finite, and not saved.*from step 5"):
        trainer.train()
    assert [checkpoint.step for checkpoint in trainer.run.checkpoints()] == [5]


def test_a_validation_loss_that_is_not_finite_ends_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = trainer_for(tmp_path / "run", validate_every=10)
    trainer.valid_pairs = Pairs()
    monkeypatch.setattr("seq2seq.training.trainer.validation_loss", lambda *_: math.nan)
    with pytest.raises(TrainingError, match=r"step 10: the validation loss is not finite.*from step 5"):
        trainer.train()
