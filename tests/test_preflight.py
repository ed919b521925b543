"""The rehearsal before the first step: what it takes for the largest batch, what it says, that it changes nothing."""

from __future__ import annotations

import math
import mmap
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import Copies, Listener
from hypothesis import given
from hypothesis import strategies as st

from seq2seq import machine, pipeline
from seq2seq.config import Config, ModelConfig, TrainingConfig
from seq2seq.model.transformer import Transformer
from seq2seq.recipe import build_config
from seq2seq.run import Run
from seq2seq.stages import preflight
from seq2seq.stages.preflight import (
    Forecast,
    MemoryForecastError,
    check_memory,
    foretold,
    largest_batches,
    longest_sentences,
    training_time,
)  # fmt: skip
from seq2seq.text.batching import plan_epoch
from seq2seq.training import updates
from seq2seq.training.state import Interrupted
from seq2seq.training.trainer import Trainer
from seq2seq.training.updates import Updater
from seq2seq.verifying import fingerprints

WORDS = ["cat", "dog", "mouse", "horse", "bird", "frog", "sees", "hears"]
PIECES = range(4, 30)
lengths = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=80)


@pytest.fixture(autouse=True)
def the_machine_as_it_was() -> object:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.set_flush_denormal(False)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    draw = random.Random(1)
    for name, count in (("train", 80), ("valid", 8)):
        lines = [" ".join(draw.choices(WORDS, k=draw.randint(1, 12))) + "\n" for _ in range(count)]
        for language in ("en", "de"):
            (tmp_path / f"{name}.{language}").write_text("".join(lines), encoding="utf-8")
    return build_config(
        {
            "data": {f"{name}_{side}": str(tmp_path / f"{name}.{language}")
                     for name in ("train", "valid") for side, language in (("source", "en"), ("target", "de"))},
            "tokenizer": {"vocab_size": 40},
            "model": {"d_model": 16, "num_heads": 2, "d_ff": 32, "num_encoder_layers": 1, "num_decoder_layers": 1},
            "training": {"max_steps": 12, "batch_tokens": 100, "warmup_steps": 4, "save_every": 4, "num_threads": 1},
        }
    )  # fmt: skip


def without_preflight(config: Config) -> Config:
    training = config.training.model_copy(update={"preflight": False})
    return config.model_copy(update={"training": training})


def test_a_rehearsal_changes_no_bit_of_what_is_trained(config: Config, tmp_path: Path) -> None:
    told, silent = Listener(), Listener()
    pipeline.train(config, tmp_path / "with", told)
    pipeline.train(without_preflight(config), tmp_path / "without", silent)
    assert fingerprints(Run(tmp_path / "with")) == fingerprints(Run(tmp_path / "without"))
    assert [text for text in told.messages if text not in silent.messages and "forecast: " not in text] == []
    assert sum(text.startswith("forecast: ") for text in told.messages) == 1


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_too_little_memory_is_told_and_leaves_everything_as_it_was(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resident = machine.resident_bytes()
    if resident is None:
        pytest.skip("this system does not tell how much memory a process has")
    pipeline.train(config, tmp_path / "run", Listener())
    before = snapshot(tmp_path / "run")
    monkeypatch.setattr(preflight, "available_memory", lambda: -resident // 2)
    message = r"training would need .* of memory .*: lower training.batch_tokens"
    with pytest.raises(MemoryForecastError, match=message) as caught:
        pipeline.train(config, tmp_path / "run", Listener(), overwrite=True)
    assert "\n" not in str(caught.value)
    assert snapshot(tmp_path / "run") == before
    with pytest.raises(MemoryForecastError):
        pipeline.train(config, tmp_path / "new", Listener())
    assert not (tmp_path / "new").exists()
    longer = config.model_copy(update={"training": config.training.model_copy(update={"max_steps": 14})})
    with pytest.raises(MemoryForecastError, match="end other programs"):  # batch_tokens may not change any more
        pipeline.train(longer, tmp_path / "run", Listener(), resume=True)
    # A run that is finished needs no memory for batches.
    assert pipeline.train(config, tmp_path / "run", Listener(), resume=True).state.finished


def test_the_whole_is_foretold_by_its_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert foretold([(10, 1_000), (20, 1_400)], 40) == 2_200
    assert foretold([(1, 1_000), (1, 1_000)], 1) == 1_000
    monkeypatch.setattr(preflight, "_all_there_is", lambda: 2_200)
    check_memory(2_200, resumed=False)
    with pytest.raises(MemoryForecastError, match=r"need 2\.2 kB of memory .* there are 2\.2 kB"):
        check_memory(2_201, resumed=False)
    monkeypatch.setattr(preflight, "_all_there_is", lambda: None)
    check_memory(10**15, resumed=False)  # a system that does not tell


def test_a_batch_of_which_a_part_takes_much_is_not_tried_whole(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if every pair took 100 MB, on a machine that has room for a few pairs fewer than the largest batch has."""
    tried: list[int] = []
    monkeypatch.setattr(Updater, "rehearse", lambda self, pairs, part: tried.append(len(part)) or 0)
    monkeypatch.setattr(preflight, "forget_peak", lambda: True)
    monkeypatch.setattr(preflight, "recent_peak_bytes", lambda: 100_000_000 * tried[-1])
    monkeypatch.setattr(preflight, "_all_there_is", lambda: 10**12)
    pipeline.train(config, tmp_path / "roomy", Listener())
    largest = max(tried)
    tried.clear()
    monkeypatch.setattr(preflight, "_all_there_is", lambda: 100_000_000 * (largest - 1))
    with pytest.raises(MemoryForecastError):
        pipeline.train(config, tmp_path / "small", Listener())
    assert max(tried) == -(-largest // 2)


def test_a_resumed_run_is_forecast_by_what_is_left(config: Config, tmp_path: Path) -> None:
    pipeline.train(config, tmp_path / "run", Listener())
    longer = config.model_copy(update={"training": config.training.model_copy(update={"max_steps": 10**9})})
    told = Listener()
    steps = []

    def stop() -> bool:
        steps.append(1)
        return len(steps) > 1

    with pytest.raises(Interrupted):
        pipeline.train(longer, tmp_path / "run", told, resume=True, stop=stop)
    [forecast] = [text for text in told.messages if text.startswith("forecast: ")]
    assert "hours of training" in forecast


@pytest.mark.parametrize(
    ("limits", "fresh", "resumed"),
    [
        ({"max_steps": 100}, 200.0, 450.0),
        ({"max_steps": 100, "max_minutes": 3}, 180.0, 130.0),
        ({"max_minutes": 10}, 540.0, 490.0),
        ({"patience": 1}, None, None),
    ],
)
def test_time_is_forecast_by_a_batch_and_then_by_the_speed_so_far(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    limits: dict[str, float],
    fresh: float | None,
    resumed: float | None,
) -> None:
    """An epoch of two updates takes four seconds by a batch that is all of it; ten steps took five seconds each."""
    pairs = Copies(20, PIECES)
    training = TrainingConfig(batch_tokens=10, **limits)
    sizes = ModelConfig(d_model=8, num_heads=1, d_ff=8, num_encoder_layers=1, num_decoder_layers=1)
    model = Transformer(sizes, 30, 30, shared=True)
    trainer = Trainer(Run(tmp_path), training, model, pairs, pairs, None, Listener(), device=torch.device("cpu"))
    monkeypatch.setattr(trainer, "epoch_plan", lambda: (pairs, [[np.arange(10)], [np.arange(10, 20)]]))
    trainer.state.updates_per_epoch = 2
    trainer.set_horizon()
    assert training_time(trainer, pairs, np.arange(20), 4.0) == fresh
    trainer.state.step, trainer.state.seconds = 10, 50.0
    assert training_time(trainer, pairs, np.arange(20), 4.0) == resumed
    trainer.environment_changed = True  # a faster machine: no longer five seconds a step
    if trainer.state.horizon is not None:
        assert training_time(trainer, pairs, np.arange(20), 4.0) == min(90 * 2.0, resumed or math.inf)


def test_a_forecast_that_is_close_says_what_to_do() -> None:
    assert Forecast(1_500_000_000, 8_000_000_000, 30_000_000, 90 * 60).describe() == (
        "forecast: up to 1.5 GB of 8.0 GB of memory, 30.0 MB of disk, about 90 minutes of training"
    )
    assert Forecast(9_000_000_000, 8_000_000_000, 30_000_000, 20, tight=True).describe() == (
        "forecast: up to 9.0 GB of 8.0 GB of memory, 30.0 MB of disk, about 20 seconds of training; should it be "
        "killed, lower training.batch_tokens"
    )
    assert Forecast(None, None, 1_000, 7 * 3600).describe() == "forecast: 1.0 kB of disk, about 7.0 hours of training"
    assert Forecast(None, None, 1_000, 0.2, splits=3).describe() == (
        "forecast: 1.0 kB of disk, about 1 second of training; the largest batches do not fit and will be "
        "split (training.accumulate=2 does so with all)"
    )


@given(lengths, st.integers(10, 200), st.integers(0, 5))
def test_no_batch_of_any_epoch_has_more_tokens_than_the_largest(
    pairs: list[tuple[int, int]], batch_tokens: int, epoch: int
) -> None:
    source, target = (np.array(side, dtype=np.int32) for side in zip(*pairs, strict=True))

    def size(indices: np.ndarray) -> int:
        return int(source[indices].sum() + target[indices].sum()) + 2 * len(indices)

    first = largest_batches(source, target, plan_epoch(source, target, batch_tokens, seed=1, epoch=0))[0]
    plan = plan_epoch(source, target, batch_tokens, seed=1, epoch=epoch)
    assert size(first) == max(size(indices) for indices in plan)


@given(st.lists(st.text(max_size=60), min_size=1, max_size=40), st.integers(1, 4), st.integers(1, 300))
def test_the_longest_sentences_are_decoded(texts: list[str], threads: int, batch_tokens: int) -> None:
    config = Config.model_validate({"decoding": {"batch_tokens": batch_tokens}})
    chosen = longest_sentences(texts, config, threads)
    assert 1 <= len(chosen) == len(set(chosen)) <= len(texts)
    left_out = [len(text) for i, text in enumerate(texts) if i not in chosen]
    assert min(len(texts[i]) for i in chosen) >= max(left_out, default=0)


def test_peaks_are_counted_anew_and_none_is_forgotten() -> None:
    if not machine.forget_peak():
        pytest.skip("this system cannot count a peak anew")
    block = mmap.mmap(-1, 80_000_000)  # not of the allocator, which may keep what is freed
    block.write(bytes(80_000_000))
    assert machine.recent_peak_bytes() >= (machine.resident_bytes() or 0) - 1_000_000
    highest = machine.recent_peak_bytes()
    block.close()
    machine.forget_peak()
    assert machine.recent_peak_bytes() < highest - 40_000_000
    assert machine.peak_memory_bytes() >= highest - 1_000_000  # the system counts in bundles of pages
    assert (machine.available_memory() or 1) > 0


def test_limits_of_control_groups_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path

    def played(*parts: str) -> Path:
        path = "/".join(parts)
        return real(path) if not path.startswith(("/proc/self/cgroup", "/sys/fs/cgroup")) else real(f"{tmp_path}{path}")

    group = tmp_path / "sys/fs/cgroup/jobs/mine"
    group.mkdir(parents=True)
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/jobs/mine\n", encoding="ascii")
    (group / "memory.max").write_text("max\n", encoding="ascii")
    (group.parent / "memory.max").write_text("5000\n", encoding="ascii")
    (group.parent / "memory.current").write_text("4000\n", encoding="ascii")
    (group.parent / "memory.stat").write_text("anon 3000\ninactive_file 300\nactive_file 200\n", encoding="ascii")
    monkeypatch.setattr(machine, "Path", played)
    assert machine.available_memory() == 1500


# Batches that do not fit into a GPU's memory


class Full:
    """A memory that holds so many target tokens."""

    def __init__(self, patch: pytest.MonkeyPatch, tokens: int) -> None:
        self.computed: list[int] = []
        whole = updates.batch_losses

        def losses(model: Transformer, batch: updates.Batch, *rest: float) -> tuple[torch.Tensor, torch.Tensor]:
            if batch.num_target_tokens > tokens:
                raise torch.OutOfMemoryError("out of memory")
            self.computed.append(batch.num_target_tokens)
            return whole(model, batch, *rest)

        patch.setattr(updates, "batch_losses", losses)


def build_model() -> Transformer:
    torch.manual_seed(1)
    sizes = {"d_model": 16, "num_heads": 2, "d_ff": 32, "num_encoder_layers": 1, "num_decoder_layers": 1}
    return Transformer(ModelConfig.model_validate({**sizes, "dropout": 0.0}), 30, 30, shared=True)


def test_a_batch_that_does_not_fit_is_split_and_gives_the_same_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs, indices = Copies(60, PIECES, seed=3), np.arange(60)
    config = TrainingConfig(max_steps=1, batch_tokens=2000, clip_norm=0.0, precision="fp32", workers=1)
    tokens = int(pairs.target_lengths.sum()) + len(indices)
    found = []
    for memory in (10_000, 70):
        full = Full(monkeypatch, memory)
        updater = Updater(config, build_model(), torch.device("cpu"))
        [(loss, nll, gradients)] = updater._micro_batch(pairs, indices, tokens, 1, 0)
        found.append([loss, nll, *gradients])
        monkeypatch.undo()
        assert max(full.computed) <= memory and sum(full.computed) == tokens
        assert (updater.splits == 0) if memory == 10_000 else updater.splits >= 4
    for whole, parts in zip(*found, strict=True):
        torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-6)


def test_what_did_not_fit_once_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs, model = Copies(60, PIECES, seed=3), build_model()
    updater = Updater(TrainingConfig(max_steps=1, workers=1), model, torch.device("cpu"))
    full, tried = Full(monkeypatch, 200), []
    attempt = updater._gradients_at_once

    def attempting(*arguments: object) -> updates.Sums:
        tried.append(len(arguments[1]))  # type: ignore[arg-type]
        return attempt(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(updater, "_gradients_at_once", attempting)
    first = updater.update(pairs, [np.arange(60)], 1, 1e-3)
    assert tried == [60, 30, 30] and first.splits == 1
    again = updater.update(pairs, [np.arange(60)], 2, 1e-3)
    assert tried[3:] == [30, 30] and again.splits == 1 and len(full.computed) == 4


def test_a_resumed_run_knows_what_did_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or its batches would be split, and their dropout drawn, in another way."""
    Full(monkeypatch, 60)

    def trainer(stop_at: int = 0) -> Trainer:
        config = TrainingConfig(max_steps=6, batch_tokens=120, warmup_steps=2, workers=1)
        run = Run(tmp_path / "run") if (tmp_path / "run").exists() else Run.create(tmp_path / "run")
        made = Trainer(
            run, config, build_model(), Copies(60, PIECES), None, None, Listener(), device=torch.device("cpu"),
            stop=lambda: made.state.step == stop_at,
        )  # fmt: skip
        return made

    with pytest.raises(Interrupted):
        trainer(stop_at=4).train()
    again = trainer()
    assert again.updater.rehearse(again.epoch_plan()[0], np.arange(30)) > 0  # and is forgotten
    again.resume()
    assert again.updater.too_many == again.state.too_many_tokens is not None
    known = again.state.too_many_tokens
    assert again.train().too_many_tokens <= known


def test_a_single_pair_that_does_not_fit_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    Full(monkeypatch, 0)
    updater = Updater(TrainingConfig(max_steps=1, workers=1), build_model(), torch.device("cpu"))
    with pytest.raises(torch.OutOfMemoryError):
        updater.update(Copies(4, PIECES), [np.arange(4)], 1, 1e-3)


def test_a_training_counts_its_split_batches_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Full(monkeypatch, 60)
    config = TrainingConfig(max_steps=6, batch_tokens=120, warmup_steps=2, log_every=3, workers=1)
    listener = Listener()
    trainer = Trainer(
        Run.create(tmp_path / "run"), config, build_model(), Copies(60, PIECES), None, None, listener,
        device=torch.device("cpu"),
    )  # fmt: skip
    state = trainer.train()
    assert state.finished and state.skipped_steps == 0 and state.split_batches >= 3
    assert listener.reports[-1]["split_batches"] == state.split_batches
    assert sum("too large for the memory" in text for text in listener.messages) == 1
