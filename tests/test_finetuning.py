"""Training that begins with the weights of a finished run."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import Listener
from typer.testing import CliRunner

from seq2seq import pipeline
from seq2seq.cli import app
from seq2seq.config import Config, ConfigError
from seq2seq.errors import UserError
from seq2seq.recipe import build_config, load_config
from seq2seq.run import Run
from seq2seq.run_folder.files import RunError
from seq2seq.stages.finishing import _worse_than_at_first
from seq2seq.text.corpus import hash_sources
from seq2seq.training.state import Interrupted, TrainingState
from seq2seq.training.validation import validation_loss

FIRST = [("der rote hund", "the red dog"), ("ein hund sieht rot", "a dog sees red"), ("der hund", "the dog")] * 20
OTHER = [("die gelbe katze", "the yellow cat"), ("eine katze mag gelb", "a cat likes yellow")] * 30
SIZES: dict[str, dict[str, Any]] = {
    "tokenizer": {"vocab_size": 60},
    "model": {"d_model": 16, "num_heads": 2, "d_ff": 32, "num_encoder_layers": 1, "num_decoder_layers": 1},
    "training": {
        "max_steps": 6, "batch_tokens": 100, "warmup_steps": 4, "log_every": 2, "validate_every": 3, "save_every": 3,
        "average_checkpoints": 1, "num_threads": 1, "device": "cpu", "precision": "fp32",
    },
}  # fmt: skip


pytestmark = pytest.mark.usefixtures("the_machine_as_it_was", "without_curves")


def written(folder: Path, pairs: list[tuple[str, str]]) -> dict[str, str]:
    """Two aligned files, as fields of [data]."""
    folder.mkdir(parents=True, exist_ok=True)
    for side, name in enumerate(("a.de", "a.en")):
        (folder / name).write_text("".join(f"{pair[side]}\n" for pair in pairs), encoding="utf-8")
    return {"train_source": str(folder / "a.de"), "train_target": str(folder / "a.en")}


def configured(corpus: dict[str, str], **sections: dict[str, Any]) -> Config:
    values = {section: {**SIZES.get(section, {}), **sections.get(section, {})} for section in {**SIZES, **sections}}
    return build_config({**values, "data": corpus})


def train(config: Config, folder: Path, listener: Listener | None = None, **options: Any) -> pipeline.Outcome:
    return pipeline.train(config, folder, listener or Listener(), **options)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("first")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "seq2seq.stages.curves", None)
        train(configured(written(folder / "data", FIRST)), folder / "run")
    return folder / "run"


@pytest.fixture
def other(tmp_path: Path) -> dict[str, str]:
    return written(tmp_path / "other", OTHER)


def from_run(run: Path, **training: Any) -> dict[str, dict[str, Any]]:
    return {"training": {"init_from": str(run), **training}}


def test_training_begins_with_the_weights_and_the_vocabulary_of_the_run(
    first: Path, other: dict[str, str], tmp_path: Path
) -> None:
    listener = Listener()
    at_rest = from_run(first, learning_rate_scale=1e-12, max_steps=1, seed=5)
    outcome = train(configured(other, **at_rest), tmp_path / "run", listener)
    assert f"beginning with the weights and the vocabulary of {first}" in listener.messages
    assert (tmp_path / "run" / "tokenizer.model").read_bytes() == (first / "tokenizer.model").read_bytes()
    began = Run.open(first).load_model().state_dict()
    for name, tensor in outcome.run.load_model().state_dict().items():
        torch.testing.assert_close(tensor, began[name], rtol=0, atol=1e-9)
    weights = hashlib.sha256((first / "model.safetensors").read_bytes()).hexdigest()
    assert outcome.run.info()["training"]["init_from"] == {"name": "run", "model_sha256": weights}
    card = (tmp_path / "run" / "README.md").read_text(encoding="utf-8")
    assert f"| Fine-tuned from | run (SHA-256 of its weights {weights[:16]}) |" in card
    assert str(first) not in card, "where it lies is nobody else's business"


def test_it_goes_on_from_there(first: Path, other: dict[str, str], tmp_path: Path) -> None:
    began = Run.open(first).load_model().state_dict()
    outcome = train(configured(other, **from_run(first)), tmp_path / "run")
    now = outcome.run.load_model().state_dict()
    moved = max(float((tensor - began[name]).abs().max()) for name, tensor in now.items())
    assert 1e-4 < moved < 1.0


def test_dropout_and_everything_else_but_the_sizes_may_be_other(
    first: Path, other: dict[str, str], tmp_path: Path
) -> None:
    sections = from_run(first, optimizer="muon", weight_decay=0.1, batch_tokens=80, label_smoothing=0.0)
    config = configured(other, model={"dropout": 0.4, "head_size": 8}, tokenizer={"vocab_size": 999}, **sections)
    assert train(config, tmp_path / "run").state.step == 6


def test_the_model_is_said_to_have_seen_both_corpora(first: Path, other: dict[str, str], tmp_path: Path) -> None:
    hashes = train(configured(other, **from_run(first)), tmp_path / "run").run.source_hashes()
    assert hashes is not None
    exact, normalized = hash_sources([pair[0] for pair in FIRST + OTHER])
    np.testing.assert_array_equal(hashes["exact"], np.unique(exact))
    np.testing.assert_array_equal(hashes["normalized"], np.unique(normalized))


def test_text_that_the_vocabulary_does_not_know_is_told_of(first: Path, other: dict[str, str], tmp_path: Path) -> None:
    georgian = written(tmp_path / "ka", [("der hund", "\u10d0\u10d1\u10d2 \u10d3\u10d4")] * 40)
    for corpus, expected in ((georgian, ["target"]), (written(tmp_path / "same", FIRST), [])):
        listener = Listener()
        train(configured(corpus, **from_run(first)), tmp_path / f"run{len(expected)}", listener)
        told = [message for message in listener.messages if "unknown to the vocabulary" in message]
        assert [message.split(" pieces")[0].split()[-1] for message in told] == expected
        assert all("without training.init_from a vocabulary is learned" in message for message in told)
    listener = Listener()
    rare = {"character_coverage": 0.98, "vocab_size": 30}
    pairs = [("abcdefgh" * 4 + "\u00df", "x" * 8)] * 40 + [("abc", chr(0x3B1 + i) * 3) for i in range(9)]
    train(configured(written(tmp_path / "rare", pairs), tokenizer=rare), tmp_path / "rare-run", listener)
    assert any("raise tokenizer.character_coverage" in message for message in listener.messages)


def test_what_counts_for_nothing_and_a_run_that_is_not_finished_are_told_of(
    first: Path, other: dict[str, str], tmp_path: Path
) -> None:
    shutil.copytree(first, tmp_path / "first")
    config = Run.open(first).config()
    longer = config.model_copy(update={"training": config.training.model_copy(update={"max_steps": 20})})
    with pytest.raises(Interrupted):
        train(longer, tmp_path / "first", resume=True, stop=After(3))
    listener = Listener()
    train(configured(other, tokenizer={"vocab_size": 70}, **from_run(tmp_path / "first")), tmp_path / "run", listener)
    where = tmp_path / "first"
    assert f"tokenizer.vocab_size = 70 counts for nothing: the vocabulary is that of {where}" in listener.messages
    assert any(f"{where}: this model is of step 6, and training went on to step 9" in m for m in listener.messages)


def test_the_model_is_validated_as_it_was_before_the_first_step(
    first: Path, other: dict[str, str], tmp_path: Path
) -> None:
    data = {**other, "valid_source": other["train_source"], "valid_target": other["train_target"]}
    run = train(configured(data, **from_run(first)), tmp_path / "run").run
    steps = [record["step"] for record in run.metrics() if "valid_loss" in record]
    assert steps == [0, 3, 6]
    assert run.info()["validation"]["best_single_step"] in (3, 6)
    with pytest.raises(Interrupted):
        train(configured(data, **from_run(first)), tmp_path / "parts", stop=After(4))
    resumed = train(configured(data, **from_run(first)), tmp_path / "parts", resume=True).run
    assert [record["step"] for record in resumed.metrics() if "valid_loss" in record] == steps
    before = next(record for record in run.metrics() if "valid_loss" in record)
    model, tokenizer = Run.open(first).load_model(), Run.open(first).tokenizer()
    source = tokenizer.encode_source([pair[0] for pair in OTHER])
    target = tokenizer.encode_target([pair[1] for pair in OTHER])
    pairs = Given(source, target)
    assert before["valid_loss"] == pytest.approx(validation_loss(model, pairs, 100, torch.device("cpu")), abs=2e-3)
    other_run = train(configured(data), tmp_path / "new").run
    assert [record["step"] for record in other_run.metrics() if "valid_loss" in record] == [3, 6]


def test_a_fine_tuning_that_spoils_the_model_says_so() -> None:
    state = TrainingState(validations=[{"step": 0, "valid_loss": 2.0, "valid_bleu": 8.154}])
    assert "less than the 8.15 of the model that training began with" in (_worse_than_at_first(6.75, state) or "")
    assert _worse_than_at_first(8.16, state) is None and _worse_than_at_first(None, state) is None
    assert _worse_than_at_first(8.15399, state) is None  # the same, but for rounding
    assert _worse_than_at_first(6.75, TrainingState(validations=[{**state.validations[0], "step": 3}])) is None


class Given:
    """Encoded pairs, as validation takes them."""

    def __init__(self, sources: list[list[int]], targets: list[list[int]]) -> None:
        self.sources, self.targets = ([np.array(ids, np.int32) for ids in side] for side in (sources, targets))
        self.source_lengths, self.target_lengths = (
            np.array([len(ids) for ids in side]) for side in (self.sources, self.targets)
        )

    def __len__(self) -> int:
        return len(self.sources)

    def source(self, index: int) -> Any:
        return self.sources[index]

    def target(self, index: int) -> Any:
        return self.targets[index]


class After:
    """Asks for an end after so many steps."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def __call__(self) -> bool:
        self.left -= 1
        return self.left <= 0


def whole_and_part(first: Path, other: dict[str, str], folder: Path, *, steps: int) -> Config:
    """A copy of the first run, a training that begins with it, and the same one stopped after so many steps."""
    shutil.copytree(first, folder / "first")
    config = configured(other, **from_run(folder / "first"))
    train(config, folder / "whole")
    with pytest.raises(Interrupted):
        train(config, folder / "parts", stop=After(steps))
    return config


def test_a_resumed_run_is_the_same_to_the_bit_and_no_longer_needs_the_one_it_began_with(
    first: Path, other: dict[str, str], tmp_path: Path
) -> None:
    config = whole_and_part(first, other, tmp_path, steps=4)
    shutil.rmtree(tmp_path / "first")
    train(config, tmp_path / "parts", resume=True)
    for name in ("model.safetensors", "training_sources.safetensors", "identity.json"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_what_it_began_with_is_known_from_its_checkpoints_too(
    first: Path, other: dict[str, str], tmp_path: Path
) -> None:
    config = whole_and_part(first, other, tmp_path, steps=4)
    (tmp_path / "parts" / "identity.json").unlink()
    train(config, tmp_path / "parts", resume=True)
    for name in ("model.safetensors", "identity.json"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


@pytest.mark.parametrize("identity", [5, None, "initial_model", ["initial_model"]])
def test_a_checkpoint_whose_identity_is_none_is_named(
    first: Path, other: dict[str, str], tmp_path: Path, identity: object
) -> None:
    config = whole_and_part(first, other, tmp_path, steps=4)
    (tmp_path / "parts" / "identity.json").unlink()
    for path in (tmp_path / "parts" / "checkpoints").glob("*/state.json"):
        state = json.loads(path.read_text(encoding="utf-8"))
        del state["state_sha256"]  # which earlier versions did not write
        path.write_text(json.dumps({**state, "identity": identity}), encoding="utf-8")
    with pytest.raises(UserError, match=r"state\.json: damaged: identity = "):
        train(config, tmp_path / "parts", resume=True)


def test_a_checkpoint_that_does_not_say_what_it_began_with_is_named_before_training(
    first: Path, other: dict[str, str], tmp_path: Path
) -> None:
    config = whole_and_part(first, other, tmp_path, steps=4)
    identity = json.loads((tmp_path / "parts" / "identity.json").read_text(encoding="utf-8"))
    (tmp_path / "parts" / "identity.json").unlink()
    for path in (tmp_path / "parts" / "checkpoints").glob("*/state.json"):
        state = json.loads(path.read_text(encoding="utf-8"))
        del state["state_sha256"]
        less = {name: value for name, value in identity.items() if name != "initial_model"}
        path.write_text(json.dumps({**state, "identity": less}), encoding="utf-8")
    before = sorted((tmp_path / "parts" / "checkpoints").iterdir())
    with pytest.raises(RunError, match="no longer say which weights it began with"):
        train(config, tmp_path / "parts", resume=True)
    assert sorted((tmp_path / "parts" / "checkpoints").iterdir()) == before


def test_before_the_first_checkpoint_it_has_to_be_the_same_run(
    first: Path, other: dict[str, str], tmp_path: Path
) -> None:
    config = whole_and_part(first, other, tmp_path, steps=1)
    shutil.rmtree(tmp_path / "parts" / "checkpoints")
    (tmp_path / "first").rename(tmp_path / "moved")
    with pytest.raises(RunError, match=r"training\.init_from: .*first: no such run folder"):
        train(config, tmp_path / "parts", resume=True)
    changed = configured(written(tmp_path / "more", FIRST), training={"seed": 2})
    train(changed, tmp_path / "second")
    with pytest.raises(
        RunError, match=r"the initial_model is not the one that this run began with .*init_from.*put it back"
    ):
        train(configured(other, **from_run(tmp_path / "second")), tmp_path / "parts", resume=True)
    with pytest.raises(RunError, match=r"training\.init_from = ''"):
        train(configured(other), tmp_path / "parts", resume=True)
    train(configured(other, **from_run(tmp_path / "moved")), tmp_path / "parts", resume=True)
    assert (tmp_path / "parts/model.safetensors").read_bytes() == (tmp_path / "whole/model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"model": {"d_model": 32}}, r"that model has model\.d_model = 16, this configuration 32: .*config\.toml"),
        ({"model": {"head_size": 4}}, r"model\.head_size = 8, this configuration 4"),
        ({"model": {"norm": "pre"}}, r"model\.norm = post, this configuration pre"),
        ({"model": {"num_decoder_layers": 2}}, r"model\.num_decoder_layers = 1"),
        ({"model": {"positions": "learned"}}, r"model\.positions = sinusoidal"),
        ({"tokenizer": {"shared": False}}, r"tokenizer\.shared = true, this configuration false"),
        ({"tokenizer": {"source_model": "x.model"}}, r"tokenizer\.source_model are both given"),
        ({"model": {"tied_embeddings": "none"}}, r"model\.tied_embeddings = auto, this configuration none"),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_written(
    first: Path, other: dict[str, str], tmp_path: Path, sections: dict[str, dict[str, Any]], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        train(configured(other, **sections, **from_run(first)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_that_is_not_there_not_finished_damaged_or_the_same_is_refused(
    first: Path, other: dict[str, str], tmp_path: Path
) -> None:
    def fails(run: Path, message: str) -> None:
        with pytest.raises(UserError, match=message):
            train(configured(other, **from_run(run)), tmp_path / "run", overwrite=True)

    fails(tmp_path / "absent", r"training\.init_from: .*absent: no such run folder")
    (tmp_path / "empty").mkdir()
    fails(tmp_path / "empty", r"training\.init_from: .*not a run folder")
    shutil.copytree(first, tmp_path / "cut")
    (tmp_path / "cut" / "model.json").unlink()
    fails(tmp_path / "cut", r"training\.init_from: .*no finished model")
    shutil.copytree(first, tmp_path / "bad")
    content = bytearray((first / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "bad" / "model.safetensors").write_bytes(content)
    fails(tmp_path / "bad", r"model\.safetensors: damaged")
    assert not (tmp_path / "run").exists()
    shutil.copytree(first, tmp_path / "run")
    fails(tmp_path / "run", r"that is the run to be trained; choose another --run-dir")
    assert (tmp_path / "run/model.safetensors").read_bytes() == (first / "model.safetensors").read_bytes()


def test_a_path_in_a_recipe_is_of_its_folder_and_on_the_command_line_of_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "recipes").mkdir()
    recipe = tmp_path / "recipes" / "r.toml"
    recipe.write_text('[data]\ntrain_source = "a"\ntrain_target = "b"\n[training]\ninit_from = "../runs/x"\n')
    assert load_config(recipe).training.init_from == f"{tmp_path}/runs/x"
    monkeypatch.chdir(tmp_path)
    assert load_config(recipe, overrides=["training.init_from=runs/y"]).training.init_from == f"{tmp_path}/runs/y"


def test_on_the_command_line_the_runs_recipe_is_taken_unless_another_is_given(
    first: Path, other: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    corpus = ["--source", other["train_source"], "--target", other["train_target"]]
    result = CliRunner().invoke(app, ["train", "--init-from", str(first), *corpus, "--set", "training.max_steps=2"])
    assert result.exit_code == 0, result.output
    config = Run.open(tmp_path / "runs" / "run-finetuned").config()
    assert (config.model.d_model, config.training.max_steps, config.training.batch_tokens) == (16, 2, 100)
    assert config.training.init_from == str(first)
    assert config.data.train_source == other["train_source"] and not config.data.valid_source
    for arguments, message in (
        (["--init-from", "absent", *corpus], "--init-from: absent: no such run folder"),
        (["--init-from", str(first), "--preset", "tiny", *corpus], "model.d_model = 16"),
    ):
        failed = CliRunner().invoke(app, ["train", "--run-dir", "runs/failed", *arguments])
        assert isinstance(failed.exception, (SystemExit, UserError))
        assert message in failed.output + str(failed.exception)


@pytest.mark.parametrize("shared", [True, False])
def test_a_run_with_a_given_tokenizer_may_be_fine_tuned(
    first: Path, other: dict[str, str], tmp_path: Path, shared: bool
) -> None:
    given = {"source_model": str(first / "tokenizer.model"), "shared": shared}
    if not shared:
        given["target_model"] = given["source_model"]
    train(configured(other, tokenizer=given), tmp_path / "given")
    again = train(configured(other, tokenizer=given, **from_run(tmp_path / "given")), tmp_path / "run")
    assert again.run.tokenizer().content_hash() == Run.open(tmp_path / "given").tokenizer().content_hash()


def test_the_tuned_may_be_tuned_again(first: Path, other: dict[str, str], tmp_path: Path) -> None:
    train(configured(other, **from_run(first)), tmp_path / "second")
    third = [("drei", "three")] * 40
    run = train(configured(written(tmp_path / "third", third), **from_run(tmp_path / "second")), tmp_path / "run").run
    hashes = run.source_hashes()
    assert hashes is not None
    exact, _ = hash_sources([pair[0] for pair in FIRST + OTHER + third])
    np.testing.assert_array_equal(hashes["exact"], np.unique(exact))


@pytest.mark.parametrize("damage", ["gone", "garbage"])
def test_where_the_run_does_not_tell_what_it_saw_neither_does_the_new_one(
    first: Path, other: dict[str, str], tmp_path: Path, damage: str
) -> None:
    shutil.copytree(first, tmp_path / "first")
    hashes = tmp_path / "first" / "training_sources.safetensors"
    hashes.unlink() if damage == "gone" else hashes.write_bytes(b"nothing")
    listener = Listener()
    outcome = train(configured(other, **from_run(tmp_path / "first")), tmp_path / "run", listener)
    assert outcome.run.source_hashes() is None
    assert any("does not tell what its model was trained on" in message for message in listener.messages)


def test_a_run_that_was_not_tuned_writes_its_hashes_anew_when_it_is_resumed(first: Path, tmp_path: Path) -> None:
    shutil.copytree(first, tmp_path / "run")
    (tmp_path / "run" / "training_sources.safetensors").write_bytes(b"nothing")
    config = Run.open(first).config()
    longer = config.model_copy(update={"training": config.training.model_copy(update={"max_steps": 8})})
    hashes = train(longer, tmp_path / "run", resume=True).run.source_hashes()
    assert hashes is not None and len(hashes["exact"]) == 3


def test_a_resumed_run_keeps_to_the_run_it_began_with(first: Path, other: dict[str, str], tmp_path: Path) -> None:
    train(configured(other, **from_run(first)), tmp_path / "run")
    train(configured(written(tmp_path / "x", FIRST), training={"seed": 9}), tmp_path / "second")
    before = (tmp_path / "run" / "config.toml").read_bytes()
    for place, message in (
        (tmp_path / "second", "the initial_model is not the one"),
        (tmp_path / "absent", "absent: no such run folder"),
        (tmp_path / "run", "that is the run to be trained"),
    ):
        with pytest.raises(UserError, match=message):
            train(configured(other, **from_run(place, max_steps=8)), tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "config.toml").read_bytes() == before
    shutil.copytree(first, tmp_path / "moved")
    outcome = train(configured(other, **from_run(tmp_path / "moved", max_steps=8)), tmp_path / "run", resume=True)
    assert outcome.state.step == 8


def test_a_model_that_is_replaced_meanwhile_is_noticed(
    first: Path, other: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(first, tmp_path / "first")
    train(configured(written(tmp_path / "x", FIRST), training={"seed": 9}), tmp_path / "second")
    prepare = pipeline.prepare

    def replacing(*arguments: Any, **options: Any) -> Any:
        for name in ("model.safetensors", "model.json"):
            shutil.copy(tmp_path / "second" / name, tmp_path / "first" / name)
        return prepare(*arguments, **options)

    monkeypatch.setattr(pipeline, "prepare", replacing)
    with pytest.raises(RunError, match="another model was written there meanwhile"):
        train(configured(other, **from_run(tmp_path / "first")), tmp_path / "run")


def command(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["train", *arguments])
    if isinstance(result.exception, UserError):
        return result.exception.exit_code, str(result.exception)
    return result.exit_code, result.output


def test_the_runs_languages_stay_and_an_end_of_ones_own_takes_the_place_of_its(
    first: Path, other: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    languages = {"source_language": "de", "target_language": "en", "bleu_tokenize": "char"}
    train(configured({**written(tmp_path / "x", FIRST), **languages}), tmp_path / "run")
    corpus = ["--source", other["train_source"], "--target", other["train_target"]]
    code, output = command("--init-from", "run", *corpus, "--set", "training.max_epochs=1")
    assert code == 0, output
    config = Run.open(tmp_path / "runs" / "run-finetuned").config()
    assert {name: getattr(config.data, name) for name in languages} == languages
    assert (config.training.max_steps, config.training.max_epochs) == (None, 1)


@pytest.mark.parametrize("name", ["\U0001f600 run", "it's", '"quoted"', "back\\slash", "2024", " lead", "a\x7fb"])
def test_a_run_may_be_called_anything(
    first: Path, other: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(first, tmp_path / name)
    corpus = ["--source", other["train_source"], "--target", other["train_target"]]
    code, output = command("--init-from", name, *corpus, "--set", "training.max_steps=1")
    assert code == 0, output
    assert Run.open(tmp_path / "runs" / f"{name}-finetuned").config().training.init_from == str(tmp_path / name)


def test_what_is_no_run_or_named_twice_is_refused_on_the_command_line(first: Path) -> None:
    recipe = first / "config.toml"
    assert command("--init-from", "") == (2, "--init-from: which run? Name its folder")
    assert command("--init-from", str(recipe)) == (2, f"--init-from {recipe}: is a file; name the folder of a run")
    twice = command("--init-from", str(first), "--set", "training.init_from=x")
    assert twice == (2, "--init-from and --set training.init_from are both given: keep one of them")


def test_the_same_command_with_resume_goes_on_or_begins(
    first: Path, other: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    same = ["--init-from", str(first), "--source", other["train_source"], "--target", other["train_target"], "--resume"]
    for steps in ("2", "4"):
        code, output = command(*same, "--set", f"training.max_steps={steps}")
        assert code == 0, output
    assert Run.open(tmp_path / "runs" / "run-finetuned").info()["training"]["steps"] == 4
    code, output = command("--run-dir", "runs/run-finetuned", "--resume", "--set", "training.max_steps=5")
    assert code == 0, output


def test_a_stranger_s_run_reads_no_pipe_no_link_and_fetches_nothing(
    first: Path, other: dict[str, str], tmp_path: Path
) -> None:
    corpus = ["--source", other["train_source"], "--target", other["train_target"], "--run-dir", str(tmp_path / "new")]
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / "config.toml")
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / "config.toml").symlink_to("/etc/passwd")
    for name in ("pipe", "link"):
        assert command("--init-from", str(tmp_path / name), *corpus)[0] in (1, 2)
        assert command("--run-dir", str(tmp_path / name), "--resume")[0] in (1, 2)
    shutil.copytree(first, tmp_path / "fetches")
    download = {"path": str(tmp_path / "fetched"), "url": "http://127.0.0.1:9/x", "sha256": "0" * 64}
    lines = ["[[data.downloads]]", *(f"{key} = {json.dumps(value)}" for key, value in download.items())]
    with (tmp_path / "fetches" / "config.toml").open("a") as file:
        file.write("\n".join(["", *lines, ""]))
    code, output = command("--init-from", str(tmp_path / "fetches"), "--run-dir", str(tmp_path / "new"))
    assert code == 2 and "nothing is fetched on the word of a run folder" in output
    assert not (tmp_path / "new").exists() and not (tmp_path / "fetched").exists()
