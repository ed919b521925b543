"""From two text files to a run folder, in one process."""

from __future__ import annotations

import gzip
import importlib.util
import json
import os
import random
import shutil
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import Listener, message_of
from safetensors.torch import load_file

from seq2seq import pipeline
from seq2seq.config import DATA_PATHS, Config
from seq2seq.decoding.translator import Translator
from seq2seq.errors import UserError
from seq2seq.evaluation.metrics import corpus_bleu
from seq2seq.recipe import build_config, load_config
from seq2seq.run import Run
from seq2seq.run_folder.files import RunError, UnwrittenError
from seq2seq.run_folder.run_files import CORPUS, LOCK
from seq2seq.stages import kept_corpus, preparing
from seq2seq.stages.finishing import Outcome
from seq2seq.text.corpus import hash_sources
from seq2seq.text.errors import DataError
from seq2seq.training.averaging import average_checkpoints
from seq2seq.training.state import Interrupted, TrainingError

Pairs = list[tuple[str, str]]

NOUNS = {"Hund": "dog", "Mann": "man", "Frosch": "frog", "Vogel": "bird", "Baum": "tree", "Größe": "size"}
VERBS = {"sieht": "sees", "hört": "hears", "mag": "likes", "sucht": "seeks"}
SIZES: dict[str, dict[str, Any]] = {
    "tokenizer": {"vocab_size": 90},
    "model": {"d_model": 16, "num_heads": 2, "d_ff": 32, "num_encoder_layers": 1, "num_decoder_layers": 1},
    "training": {
        "max_steps": 10, "batch_tokens": 600, "warmup_steps": 4, "log_every": 2, "validate_every": 5, "save_every": 5,
        "average_checkpoints": 2, "num_threads": 1, "device": "cpu", "precision": "fp32",
    },
    "decoding": {"beam_size": 2, "max_extra_length": 5},
}  # fmt: skip


def made_up_pairs(count: int, seed: int) -> Pairs:
    """German and English sentences of four or five words."""
    random_ = random.Random(seed)
    pairs = []
    for _ in range(count):
        (one, first), (two, second) = random_.choices(list(NOUNS.items()), k=2)
        verb, action = random_.choice(list(VERBS.items()))
        mark = random_.choice([".", "!", "?"])
        pairs.append((f"Der {one} {verb} {two}{mark}", f"The {first} {action} the {second}{mark}"))
    return pairs


TRAIN, VALID, TEST = made_up_pairs(200, 1), made_up_pairs(12, 2), made_up_pairs(10, 3)


pytestmark = pytest.mark.usefixtures("the_machine_as_it_was", "without_curves")


def write_sides(folder: Path, name: str, pairs: Pairs) -> dict[str, str]:
    """Two aligned files, as fields of [data]."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {f"{name}_source": folder / f"{name}.de", f"{name}_target": folder / f"{name}.en"}
    for side, path in enumerate(paths.values()):
        path.write_text("".join(f"{pair[side]}\n" for pair in pairs), encoding="utf-8")
    return {key: str(path) for key, path in paths.items()}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """[data] for the training and the validation set."""
    folder = tmp_path_factory.mktemp("corpus")
    languages = {"source_language": "German", "target_language": "English"}
    return {**languages, **write_sides(folder, "train", TRAIN), **write_sides(folder, "valid", VALID)}


def configured(corpus: Mapping[str, Any], **sections: dict[str, Any]) -> Config:
    """The tiny configuration of these tests, with other fields laid over it."""
    values = {section: {**SIZES.get(section, {}), **sections.get(section, {})} for section in {**SIZES, **sections}}
    return build_config({**values, "data": {**corpus, **sections.get("data", {})}})


def train(config: Config, folder: Path, listener: Listener | None = None, **options: Any) -> Outcome:
    return pipeline.train(config, folder, listener or Listener(), **options)


def model_bytes(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def snapshot(folder: Path) -> dict[str, bytes]:
    """What the files of a run hold, but for the corpus as last prepared."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and CORPUS not in path.relative_to(folder).parts
    }


def fails(kind: type[UserError], pattern: str, work: Callable[[], object]) -> None:
    message_of(kind, work, pattern=pattern)


@dataclass
class Finished:
    """A run with validation and test set, drawn curves included. Tests only read it."""

    config: Config
    folder: Path
    outcome: Outcome
    listener: Listener

    @property
    def info(self) -> dict[str, Any]:
        return self.outcome.run.info()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, data: dict[str, str]) -> Finished:
    folder = tmp_path_factory.mktemp("runs") / "finished"
    config = configured({**data, **write_sides(folder.parent, "test", TEST)})
    listener = Listener()
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(sys.modules, "seq2seq.stages.curves", raising=False)
        outcome = train(config, folder, listener)
    return Finished(config, folder, outcome, listener)


@pytest.fixture
def copied(tmp_path: Path, finished: Finished) -> Path:
    """The finished run once more, to do something to."""
    for name, content in snapshot(finished.folder).items():
        path = tmp_path / "run" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "run"


# What a run folder holds


def test_a_run_folder_holds_the_documented_files_and_no_others(finished: Finished) -> None:
    drawn = {"curves.png"} if importlib.util.find_spec("matplotlib") else set()
    checkpoints = {
        f"checkpoints/step-{step:08d}/{name}"
        for step in (5, 10)
        for name in ("model.safetensors", "optimizer.safetensors", "state.json")
    }
    assert set(snapshot(finished.folder)) == drawn | checkpoints | {
        "config.toml", "tokenizer.model", "model.safetensors", "model.json", "metrics.jsonl", "README.md",
        "training_sources.safetensors", "identity.json",
    }  # fmt: skip
    assert not (finished.folder / CORPUS).exists()


def test_nothing_in_a_run_folder_is_pickled(finished: Finished) -> None:
    for name, content in snapshot(finished.folder).items():
        if name.endswith(".safetensors"):
            header = int.from_bytes(content[:8], "little")
            assert isinstance(json.loads(content[8 : 8 + header]), dict)
        elif name.endswith(".json"):
            assert isinstance(json.loads(content), dict)
        elif name.endswith((".toml", ".md", ".jsonl")):
            content.decode("utf-8")
        else:
            assert name in ("tokenizer.model", "curves.png")
            # A pickle of any protocol since 2 starts with 0x80, torch's are zip files.
            assert not content.startswith((b"\x80", b"PK"))


def test_the_configuration_reads_back_equal(finished: Finished) -> None:
    assert finished.outcome.run.config() == finished.config
    assert load_config(finished.folder / "config.toml") == finished.config


def test_every_line_of_the_metrics_is_an_object(finished: Finished) -> None:
    records = [json.loads(line) for line in (finished.folder / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records if "loss" in record] == [2, 4, 6, 8, 10]
    validations = [record for record in records if "valid_loss" in record]
    assert [record["step"] for record in validations] == [5, 10]
    assert validations == finished.listener.validations
    assert all(0 <= record["valid_bleu"] <= 100 for record in validations)


def test_an_observer_is_told_what_comes_before_and_after_the_steps(finished: Finished) -> None:
    work = finished.listener.work
    assert list(dict.fromkeys(what for what, *_ in work)) == [
        "reading", f"learning {finished.config.tokenizer.vocab_size:,} pieces", "encoding",
        "trying the largest batches", "hashing the sources", "hashing the prepared corpus",
        "training", "validating the final model",
    ]  # fmt: skip
    read = finished.info["corpus"]["read"]
    assert ("encoding", read, read) in work


def test_too_little_space_for_the_prepared_corpus_is_told_first(
    tmp_path: Path, finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = sum(Path(getattr(finished.config.data, name)).stat().st_size for name in DATA_PATHS[:6])
    for free in (2 * raw, 2 * raw - 1):
        monkeypatch.setattr("seq2seq.stages.preparing.free_space", lambda _, free=free: free)
        listener = Listener()
        with pytest.raises(Interrupted):
            train(finished.config, tmp_path / f"{free}", listener, stop=lambda: True)
        remarks = [text for text in listener.messages if "the prepared corpus may come to" in text]
        if free == 2 * raw:
            assert not remarks
        else:
            assert remarks == [listener.messages[0]] and f"{tmp_path / str(free)}" in remarks[0]


def test_a_single_checkpoint_is_not_validated_twice(tmp_path: Path, data: dict[str, str]) -> None:
    listener = Listener()
    one = {"average": "best", "average_checkpoints": 1}
    outcome = train(configured(data, training=one), tmp_path / "run", listener)
    assert "validating the final model" not in [what for what, *_ in listener.work]
    info = outcome.run.info()
    [step] = info["training"]["averaged_steps"]
    [known] = [validation["valid_bleu"] for validation in listener.validations if validation["step"] == step]
    assert info["validation"]["bleu"] == known
    translated = Translator(tmp_path / "run").translate([source for source, _ in VALID], beam_size=1)
    bleu = corpus_bleu([result.text for result in translated], [target for _, target in VALID], "13a")
    assert known == pytest.approx(bleu, abs=1e-3)


def test_the_model_is_the_mean_of_the_checkpoints_it_names(finished: Finished) -> None:
    run = finished.outcome.run
    assert finished.info["training"]["averaged_steps"] == [5, 10]
    mean = average_checkpoints(run.checkpoints())
    kept = load_file(finished.folder / "model.safetensors")
    assert kept.keys() == mean.keys()
    assert all(torch.equal(kept[name], mean[name]) for name in mean)


def test_model_json_tells_how_the_model_was_made(finished: Finished) -> None:
    info, run = finished.info, finished.outcome.run
    training = info["training"]
    assert info["format_version"] == 1
    assert info["num_parameters"] == run.load_model().num_parameters()
    assert info["source_vocab_size"] == info["target_vocab_size"] == run.tokenizer().source_vocab_size
    assert info["shared_vocabulary"] is True
    assert info["corpus"]["read"] == info["corpus"]["kept"] == len(TRAIN)
    assert (training["steps"], training["seed"], training["precision"]) == (10, 1, "fp32")
    assert training["torch"] == torch.__version__
    state = finished.outcome.state
    assert training["epochs"] == pytest.approx(state.epoch + state.update / 5, abs=1) and training["epochs"] > 1
    assert info["validation"]["best_single_step"] in (5, 10)
    assert info["identity"]["tokenizer"] == run.tokenizer().content_hash()


def test_a_damaged_checkpoint_is_set_aside_when_the_model_is_made_and_others_take_its_place(
    tmp_path: Path, copied: Path, finished: Finished
) -> None:
    steps = finished.info["training"]["averaged_steps"]
    assert len(steps) > 1
    [older] = [checkpoint for checkpoint in Run(copied).checkpoints() if checkpoint.step == steps[0]]
    weights = older.path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    (copied / "model.json").unlink()  # as a kill while the model was being made leaves it
    listener = Listener()
    train(Run(copied).config(), copied, listener, resume=True)
    assert any("damaged" in said and f"damaged-{older.path.name}" in said for said in listener.messages)
    assert (older.path.with_name(f"damaged-{older.path.name}") / "model.safetensors").exists()
    made = Run(copied).info()["training"]["averaged_steps"]
    assert steps[0] not in made and set(steps[1:]) <= set(made)


def test_where_all_checkpoints_are_damaged_none_is_touched_and_the_remedy_is_told(
    copied: Path, finished: Finished
) -> None:
    checkpoints = Run(copied).checkpoints()
    for checkpoint in checkpoints[:-1]:
        shutil.rmtree(checkpoint.path)
    before = (checkpoints[-1].path / "model.safetensors").read_bytes()
    (checkpoints[-1].path / "model.safetensors").write_bytes(before[:-1] + b"x")
    fails(RunError, "damaged.*start anew with --overwrite", lambda: Run(copied).sound_checkpoints(print))
    assert [one.step for one in Run(copied).checkpoints()] == [checkpoints[-1].step]


def test_weights_beside_a_damaged_optimizer_are_sound(copied: Path) -> None:
    newest = Run(copied).checkpoints()[-1]
    content = (newest.path / "optimizer.safetensors").read_bytes()
    (newest.path / "optimizer.safetensors").write_bytes(content[:-1] + b"x")
    assert Run(copied).sound_checkpoints(print) == Run(copied).checkpoints()


@pytest.mark.parametrize("left", ["nothing", "those of 5 steps"])
def test_a_kill_before_the_model_card_leaves_it_to_the_resumed_run(
    copied: Path, finished: Finished, left: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is an extra")
    monkeypatch.delitem(sys.modules, "seq2seq.stages.curves", raising=False)
    card, curves = copied / "README.md", copied / "curves.png"
    expected = card.read_text(encoding="utf-8")
    if left == "nothing":
        card.unlink()
        curves.unlink()
    else:
        card.write_text(expected.replace("10 steps", "5 steps"), encoding="utf-8")
        curves.write_bytes(b"older")
        os.utime(curves, (0, 0))
    train(Run(copied).config(), copied, resume=True)
    assert card.read_text(encoding="utf-8") == expected
    assert curves.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("own", ["more words", "other words", "one word less"])
def test_a_model_card_that_was_edited_stays(copied: Path, own: str) -> None:
    card = copied / "README.md"
    text = card.read_text(encoding="utf-8")
    edited = {
        "more words": f"{text}\nMy own words.\n",
        "other words": "my own notes, written by hand\n",
        "one word less": text.replace("| Training | 10 steps", "| Trained | 10 steps"),
    }[own]
    card.write_text(edited, encoding="utf-8")
    listener = Listener()
    train(Run(copied).config(), copied, listener, resume=True)
    assert card.read_text(encoding="utf-8") == edited
    assert len(listener.messages) == 1  # finished already


def test_a_model_card_that_is_a_pipe_is_not_waited_for(copied: Path) -> None:
    (copied / "README.md").unlink()
    os.mkfifo(copied / "README.md")
    assert train(Run(copied).config(), copied, resume=True).state.finished
    assert (copied / "README.md").is_fifo()


def test_a_finished_run_whose_model_json_lacks_a_field_is_finished_all_the_same(copied: Path) -> None:
    (copied / "README.md").unlink()
    info = json.loads((copied / "model.json").read_text(encoding="utf-8"))
    del info["shared_vocabulary"]
    (copied / "model.json").write_text(json.dumps(info), encoding="utf-8")
    assert train(Run(copied).config(), copied, resume=True).state.finished
    assert not (copied / "README.md").exists()


def test_a_run_goes_on_though_model_json_lacks_what_was_trained(copied: Path, finished: Finished) -> None:
    info = json.loads((copied / "model.json").read_text(encoding="utf-8"))
    del info["training"]
    (copied / "model.json").write_text(json.dumps(info), encoding="utf-8")
    longer = configured(finished.config.data.model_dump(), training={"max_steps": 12})
    assert train(longer, copied, resume=True).run.info()["training"]["steps"] == 12


def test_a_matplotlib_that_does_not_work_is_told_and_costs_the_curves_alone(
    data: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = types.ModuleType("seq2seq.stages.curves")  # from which nothing can be imported
    monkeypatch.setitem(sys.modules, "seq2seq.stages.curves", broken)
    listener = Listener()
    outcome = train(configured(data), tmp_path / "run", listener)
    assert outcome.state.finished and (tmp_path / "run" / "README.md").exists()
    assert any(said.startswith("curves.png is not drawn: matplotlib cannot be used") for said in listener.messages)


def test_the_model_card_mentions_the_numbers(finished: Finished) -> None:
    card, info = (finished.folder / "README.md").read_text(encoding="utf-8"), finished.info
    for text in (
        "German to English", f"{info['num_parameters']:,}", f"{info['source_vocab_size']:,} pieces, shared",
        "200 of 200 read", "10 steps", f"{info['training']['epochs']} epochs", "seed 1", "1 + 1 layers", "d_model 16",
        "steps 5, 10", f"{info['validation']['bleu']:.2f} (beam 1, sacreBLEU tokenisation 13a)",
        f"torch {torch.__version__}",
    ):  # fmt: skip
        assert text in card


def test_the_hashes_of_the_training_sources_are_kept(finished: Finished) -> None:
    known = finished.outcome.run.source_hashes()
    assert known is not None
    exact, loose = hash_sources([TRAIN[0][0], TRAIN[0][0].upper(), "Nie gesehen."])
    assert np.isin(exact, known["exact"]).tolist() == [True, False, False]
    assert np.isin(loose, known["normalized"]).tolist() == [True, True, False]


def test_the_run_says_what_it_does(finished: Finished) -> None:
    said = "\n".join(finished.listener.messages)
    assert "training data: 200 pairs read, 200 kept" in said
    assert f"{finished.info['num_parameters']:,} parameters" in said
    assert "CPU, 1 thread, " in said and said.count(", fp32") == 1 and said.count("kernels") == 1


# The model, used


def test_the_test_set_is_scored_as_the_finished_run_translates_it(finished: Finished) -> None:
    translated = [result.text for result in Translator(finished.folder).translate([s for s, _ in TEST])]
    assert finished.outcome.test_bleu == pytest.approx(corpus_bleu(translated, [t for _, t in TEST], "13a"))
    assert len(finished.outcome.examples) == 3
    rows = [(source, hypothesis, target) for (source, target), hypothesis in zip(TEST, translated, strict=True)]
    assert all((shown.source, shown.translation, shown.reference) in rows for shown in finished.outcome.examples)
    assert len({shown.source for shown in finished.outcome.examples}) > 1


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_final_validation_score_is_what_translating_again_comes_to(
    tmp_path: Path, data: dict[str, str], monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    used: list[torch.dtype] = []
    stream = Translator.stream

    def watched(self: Translator, *arguments: Any, **options: Any) -> Iterator[Any]:
        used.append(self.model.compute_dtype)
        return stream(self, *arguments, **options)

    monkeypatch.setattr(Translator, "stream", watched)
    outcome = train(configured(data, training={"precision": precision}), tmp_path / "run")
    translated = Translator(tmp_path / "run").translate([source for source, _ in VALID], beam_size=1)
    bleu = corpus_bleu([result.text for result in translated], [target for _, target in VALID], "13a")
    info = outcome.run.info()
    assert info["validation"]["bleu"] == pytest.approx(bleu, abs=1e-3)
    assert info["training"]["precision"] == precision
    # The rehearsal, two validations, the final one, and ours.
    assert len(used) == 5 and set(used) == {torch.float32}


def test_as_many_lines_come_out_as_go_in(finished: Finished) -> None:
    lines = [TEST[0][0], "", "völlig  anderes ☃ Zeug", TEST[0][0]]
    results = Translator(finished.folder).translate(lines)
    assert [result.source for result in results] == lines
    assert results[1].text == ""
    assert results[0].text == results[3].text


def test_a_tokenizer_that_the_model_was_not_trained_with_is_refused(copied: Path) -> None:
    whole = (copied / "tokenizer.model").read_bytes()
    for content, message in (
        (b"damaged", r"tokenizer\.model: not a SentencePiece model"),
        (whole.replace("▁Der".encode(), "▁Dar".encode()), "not the one that the model was trained with"),
    ):
        assert content != whole
        (copied / "tokenizer.model").write_bytes(content)
        fails(RunError, message, lambda: Translator(copied))


def test_the_sentence_to_try_is_one_that_a_command_takes(tmp_path: Path, data: dict[str, str]) -> None:
    pairs = [(" ", "x"), ("wort " * 30, "x"), ("- nein", "x"), TEST[0]]
    outcome = train(configured({**data, **write_sides(tmp_path, "test", pairs)}), tmp_path / "run")
    assert outcome.sentence == TEST[0][0]


@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_small_test_set_gives_as_many_examples_as_it_can(tmp_path: Path, data: dict[str, str], count: int) -> None:
    config = configured({**data, **write_sides(tmp_path, "test", TEST[:count])}, training={"max_steps": 1})
    outcome = train(config, tmp_path / "run")
    assert [shown.source for shown in outcome.examples] == [source for source, _ in TEST[: min(count, 3)]]


# Other ways to give a corpus, and to do without


def test_a_corpus_may_be_lines_tsv_or_jsonl(tmp_path: Path, data: dict[str, str]) -> None:
    tsv = "".join(f"{target}\t{source}\n" for source, target in TRAIN)
    (tmp_path / "train.tsv.gz").write_bytes(gzip.compress(tsv.encode()))
    rows = "".join(json.dumps({"translation": {"German": s, "English": t}}) + "\n" for s, t in TRAIN)
    (tmp_path / "train.jsonl").write_text(rows, encoding="utf-8")
    languages = {key: data[key] for key in ("source_language", "target_language")}
    corpora = {
        "lines": {**languages, **{key: data[key] for key in ("train_source", "train_target")}},
        "tsv": {"train_pairs": str(tmp_path / "train.tsv.gz"), "source_column": "2", "target_column": "1"},
        "jsonl": {**languages, "train_pairs": str(tmp_path / "train.jsonl")},
    }
    runs = {
        name: train(configured(corpus, training={"max_steps": 2}), tmp_path / name).run
        for name, corpus in corpora.items()
    }
    assert len({run.info()["identity"]["corpus"] for run in runs.values()}) == 1
    assert len({model_bytes(run.path) for run in runs.values()}) == 1


def test_without_a_validation_set_training_works_and_scores_nothing(tmp_path: Path, data: dict[str, str]) -> None:
    corpus = {key: value for key, value in data.items() if not key.startswith("valid")}
    for average, steps in (("last", [5, 10]), ("best", [5, 10]), ("none", [10])):
        listener = Listener()
        options = {"average": average, "keep_best": 2}
        outcome = train(configured(corpus, training=options), tmp_path / average, listener)
        info = outcome.run.info()
        assert info["validation"]["bleu"] is None and info["validation"]["best_single_bleu"] is None
        assert info["training"]["averaged_steps"] == steps
        assert "Validation BLEU" not in (outcome.run.path / "README.md").read_text()
        assert listener.validations == []
        assert outcome.test_bleu is None and outcome.examples == ()
        assert outcome.sentence == TRAIN[0][0]  # there is one to try it on all the same


def test_the_best_checkpoint_is_the_model_where_nothing_is_averaged(tmp_path: Path, data: dict[str, str]) -> None:
    options = {"average": "none", "validate_every": 3, "max_steps": 9}
    outcome = train(configured(data, training=options), tmp_path / "run")
    info = outcome.run.info()
    assert outcome.state.best is not None
    best = outcome.state.best["step"]
    assert best is not None and info["training"]["averaged_steps"] == [best]
    (checkpoint,) = [found for found in outcome.run.checkpoints() if found.step == best]
    model = load_file(tmp_path / "run" / "model.safetensors")
    assert all(torch.equal(model[name], value) for name, value in checkpoint.model_tensors().items())


def test_the_best_checkpoints_are_averaged_where_that_is_asked_for(tmp_path: Path, data: dict[str, str]) -> None:
    options = {"average": "best", "average_checkpoints": 2, "keep_best": 2, "validate_every": 3, "max_steps": 12}
    run = train(configured(data, training=options), tmp_path / "run").run
    validations = [record for record in run.metrics() if "valid_bleu" in record]
    ranked = sorted(validations, key=lambda record: (-record["valid_bleu"], record["valid_loss"]))
    assert sorted(run.info()["training"]["averaged_steps"]) == sorted(record["step"] for record in ranked[:2])


def test_an_average_of_fewer_checkpoints_than_asked_for_is_told(tmp_path: Path, data: dict[str, str]) -> None:
    few = {"keep_last": 1, "average_checkpoints": 1}
    train(configured(data, training=few), tmp_path / "run")
    listener = Listener()
    more = configured(data, training={"keep_last": 2, "average_checkpoints": 2})
    outcome = train(more, tmp_path / "run", listener, resume=True)
    assert outcome.run.info()["training"]["averaged_steps"] == [10]
    assert "these are fewer than training.average_checkpoints: there are no more" in listener.messages


def test_a_tokenizer_that_cannot_be_made_anew_is_named(copied: Path, finished: Finished) -> None:
    (copied / "tokenizer.model").write_bytes(b"damaged")
    corpus = dict(finished.config.data.model_dump())
    changed = Path(corpus["train_source"]).with_name("changed.de")
    changed.write_text(Path(corpus["train_source"]).read_text().replace("Der", "Das"))
    config = configured({**corpus, "train_source": str(changed)}, training={"max_steps": 12})
    fails(
        RunError,
        "the tokenizer that the corpus gives is not the one that this run began with",
        lambda: train(config, copied, resume=True),
    )


def test_separate_vocabularies_make_two_models(tmp_path: Path, data: dict[str, str]) -> None:
    config = configured(data, tokenizer={"shared": False, "vocab_size": 200}, training={"max_steps": 2})
    run = train(config, tmp_path / "run").run
    assert {"source.model", "target.model"} <= set(snapshot(run.path))
    assert "tokenizer.model" not in snapshot(run.path)
    info = run.info()
    tokenizer = run.tokenizer()
    assert info["shared_vocabulary"] is False
    assert info["source_vocab_size"] == tokenizer.source_vocab_size != tokenizer.target_vocab_size
    assert info["target_vocab_size"] == tokenizer.target_vocab_size
    assert tokenizer.source_bytes != tokenizer.target_bytes
    assert len(Translator(run).translate(["Der Hund sieht Baum."])) == 1


def test_where_matplotlib_is_missing_the_remedy_is_told(tmp_path: Path, data: dict[str, str]) -> None:
    listener = Listener()
    train(configured(data, training={"max_steps": 1}), tmp_path / "run", listener)
    assert "curves.png" not in snapshot(tmp_path / "run")
    assert any("pip install 'seq2seq[plot]'" in message for message in listener.messages)


def test_what_is_filtered_out_is_counted_and_told(tmp_path: Path) -> None:
    pairs = [*TRAIN, ("", "nothing"), ("Der Hund.", "dog " * 300), TRAIN[0]]
    config = configured(
        {**write_sides(tmp_path, "train", pairs), "drop_duplicates": True}, training={"max_steps": 1}
    )  # fmt: skip
    listener = Listener()
    counts = train(config, tmp_path / "run", listener).run.info()["corpus"]
    unique = len(set(TRAIN))
    assert (counts["read"], counts["kept"]) == (203, unique)
    assert (counts["empty"], counts["too_long_target"], counts["duplicate"]) == (1, 1, 201 - unique)
    assert any("1 empty" in message and "1 too long" in message for message in listener.messages)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [([], "no sentence pairs"), ([("", "x"), (" ", "y")], "no sentence pairs.*2 empty")],
)
def test_an_empty_corpus_is_told(tmp_path: Path, pairs: Pairs, message: str) -> None:
    config = configured(write_sides(tmp_path, "train", pairs))
    fails(DataError, message, lambda: train(config, tmp_path / "run"))


def test_a_corpus_that_the_filters_leave_nothing_of_is_told(tmp_path: Path, data: dict[str, str]) -> None:
    config = configured(data, data={"max_source_length": 1})
    fails(DataError, "no training pair is left after filtering.*200 too long", lambda: train(config, tmp_path / "run"))


def test_a_validation_sentence_beyond_learned_positions_is_told_before_training(
    tmp_path: Path, data: dict[str, str]
) -> None:
    long = write_sides(tmp_path, "valid", [*VALID, ("Der Hund. " * 40, "The dog.")])
    limits = {"max_source_length": 40, "max_target_length": 40}
    config = configured({**data, **long}, data=limits, model={"positions": "learned", "max_positions": 50})
    fails(DataError, "pair 13 of the validation set has .*max_positions = 50", lambda: train(config, tmp_path / "run"))


def test_a_validation_set_of_which_no_pair_counts_is_told_before_training(tmp_path: Path, data: dict[str, str]) -> None:
    long = write_sides(tmp_path, "valid", [("Der Hund. " * 1100, "The dog. " * 1100)] * 2)
    fails(
        DataError,
        "valid.*every pair has a side of more than 1,024 pieces",
        lambda: train(configured({**data, **long}), tmp_path / "run"),
    )
    mixed = write_sides(tmp_path, "valid", [("Der Hund. " * 1100, "The dog. " * 1100), *VALID])
    assert train(configured({**data, **mixed}), tmp_path / "run").run.info()["validation"]["bleu"] is not None


def test_a_package_that_bleu_needs_is_missed_before_training(
    tmp_path: Path, data: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "MeCab", None)
    corpus = {key: value for key, value in data.items() if not key.startswith("valid")}
    corpus |= {key.replace("valid", "test"): value for key, value in data.items() if key.startswith("valid")}
    config = configured(corpus, data={"bleu_tokenize": "ja-mecab"})
    fails(UserError, "ja-mecab|mecab", lambda: train(config, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


# Existing runs


def test_an_existing_run_is_not_touched_unasked(copied: Path, finished: Finished) -> None:
    before = snapshot(copied)
    fails(RunError, "--resume.*--overwrite", lambda: train(finished.config, copied))
    assert snapshot(copied) == before


def test_overwriting_replaces_the_run_and_leaves_what_is_not_its_own(copied: Path, data: dict[str, str]) -> None:
    (copied / "notes.txt").write_text("mine")
    (copied / "plots").mkdir()
    (copied / "plots" / "one.svg").write_text("mine, too")
    config = configured(data, tokenizer={"shared": False, "vocab_size": 60}, training={"max_steps": 2, "seed": 5})
    outcome = train(config, copied, overwrite=True)
    files = snapshot(copied)
    assert files["notes.txt"] == b"mine" and files["plots/one.svg"] == b"mine, too"
    assert "curves.png" not in files and "tokenizer.model" not in files, "left over from the run before"
    assert [checkpoint.step for checkpoint in outcome.run.checkpoints()] == [2]
    assert outcome.run.info()["training"]["seed"] == 5
    assert next(outcome.run.metrics())["step"] == 2


def test_what_no_run_wrote_is_left_as_it_is(tmp_path: Path, copied: Path, finished: Finished) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.toml").write_text("[data]\ntrain_pairs = 'mine.tsv'\n")
    (copied / "checkpoints" / "mine.ckpt").write_text("mine")
    for folder, words in (
        (tmp_path / "mine", "config.toml: a run would replace it"),
        (copied, "mine.ckpt: is no part"),
    ):
        before = snapshot(folder)
        fails(RunError, words, lambda folder=folder: train(finished.config, folder, overwrite=True))
        assert snapshot(folder) == before


@pytest.mark.parametrize("writer", ["write_tokenizer", "write_source_hashes", "write_config"])
@pytest.mark.parametrize("options", [{}, {"resume": True}, {"overwrite": True}])
def test_a_start_that_was_killed_is_no_hindrance(
    tmp_path: Path, finished: Finished, monkeypatch: pytest.MonkeyPatch, writer: str, options: dict[str, bool]
) -> None:
    """Its tokenizer is known for a run's, where that of the user is not."""

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Run, writer, killed)
    with pytest.raises(KeyboardInterrupt):
        train(finished.config, tmp_path / "run")
    monkeypatch.undo()
    assert (tmp_path / "run" / "identity.json").exists()
    shorter = finished.config.training.model_copy(update={"max_steps": 1})
    config = finished.config.model_copy(update={"training": shorter})
    assert train(config, tmp_path / "run", **options).state.step == 1


def test_overwriting_with_a_corpus_that_cannot_be_read_leaves_the_run_as_it_was(
    copied: Path, finished: Finished
) -> None:
    before = snapshot(copied)
    wrong = {**finished.config.data.model_dump(), "train_source": str(copied / "mistyped.de")}
    fails(DataError, "mistyped.de: no such file", lambda: train(configured(wrong), copied, overwrite=True))
    assert snapshot(copied) == before


@pytest.mark.parametrize("there", [True, False])
def test_a_folder_that_was_there_before_stays(tmp_path: Path, data: dict[str, str], there: bool) -> None:
    if there:
        (tmp_path / "run").mkdir(mode=0o770)
    missing = configured({**data, "train_source": str(tmp_path / "none")})
    fails(UserError, "none", lambda: train(missing, tmp_path / "run"))
    assert (tmp_path / "run").exists() == there


def test_what_failed_before_it_was_a_run_may_be_tried_again(tmp_path: Path, data: dict[str, str]) -> None:
    wrong = configured({**data, "train_target": str(tmp_path / "mistyped.en")}, tokenizer={"vocab_size": 90})
    fails(DataError, "mistyped.en: no such file", lambda: train(wrong, tmp_path / "run"))
    assert not (tmp_path / "run").exists()
    # This one comes as far as the tokenizer.
    nothing_left = configured(data, data={"max_source_length": 1})
    fails(DataError, "no training pair", lambda: train(nothing_left, tmp_path / "run"))
    config = configured(data, tokenizer={"shared": False, "vocab_size": 60}, training={"max_steps": 1})
    run = train(config, tmp_path / "run").run
    assert not run.tokenizer().shared


def test_the_same_configuration_gives_the_same_model_to_the_bit(tmp_path: Path, finished: Finished) -> None:
    again = train(finished.config, tmp_path / "again")
    assert model_bytes(tmp_path / "again") == model_bytes(finished.folder)
    assert (tmp_path / "again" / "tokenizer.model").read_bytes() == (finished.folder / "tokenizer.model").read_bytes()
    assert again.test_bleu == finished.outcome.test_bleu


def test_a_run_that_was_stopped_ends_as_if_it_had_not_been(tmp_path: Path, finished: Finished) -> None:
    asked = iter(range(1, 100))
    with pytest.raises(Interrupted):
        train(finished.config, tmp_path / "run", stop=lambda: next(asked) == 7)
    fails(RunError, "no finished model.*step 7.*--resume", lambda: Run.open(tmp_path / "run").info())
    outcome = train(finished.config, tmp_path / "run", resume=True)
    assert model_bytes(tmp_path / "run") == model_bytes(finished.folder)
    assert outcome.examples == finished.outcome.examples
    ours, theirs = outcome.run.info(), finished.info
    for info in (ours, theirs):
        del info["training"]["seconds"], info["training"]["peak_memory_bytes"]
    assert ours == theirs


@pytest.mark.parametrize("options", [{}, {"resume": True}, {"overwrite": True}])
def test_a_run_that_is_being_written_is_left_alone(copied: Path, finished: Finished, options: dict[str, bool]) -> None:
    with Run(copied).locked():
        (copied / CORPUS).mkdir()
        before = sorted(copied.rglob("*"))
        message = "another training" if options else "holds a run already"
        fails(RunError, message, lambda: train(finished.config, copied, **options))
        assert sorted(copied.rglob("*")) == before
    assert not (copied / LOCK).exists()


def test_a_run_is_locked_until_it_is_finished(tmp_path: Path, finished: Finished) -> None:
    def stop() -> bool:
        fails(RunError, "another training", lambda: train(finished.config, tmp_path / "run", resume=True))
        fails(RunError, "another training", lambda: train(finished.config, tmp_path / "run", overwrite=True))
        return False

    train(finished.config, tmp_path / "run", stop=stop)
    assert model_bytes(tmp_path / "run") == model_bytes(finished.folder)
    assert not (tmp_path / "run" / LOCK).exists()


def test_a_run_that_another_training_made_meanwhile_is_not_replaced(
    tmp_path: Path, finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = Run.locked

    def late(run: Run) -> Any:
        run.write_config(finished.config)
        return locked(run)

    monkeypatch.setattr(Run, "locked", late)
    fails(RunError, "holds a run already", lambda: train(finished.config, tmp_path / "run"))
    assert list(snapshot(tmp_path / "run")) == ["config.toml"]


def prepared(folder: Path) -> set[str]:
    return {path.name for path in (folder / CORPUS).glob("*")}


PREPARED = {"prepared.json", "train.text", "train.pieces", "valid.text", "valid.pieces", "test.text"}


def test_the_prepared_corpus_stays_for_a_run_that_may_go_on_and_for_no_other(
    tmp_path: Path, finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"

    def failing(name: str, error: BaseException) -> None:
        def fail(*_: object, **__: object) -> None:
            raise error

        with monkeypatch.context() as patch, pytest.raises(type(error)):
            patch.setattr(pipeline.Trainer, name, fail)
            train(finished.config, folder, resume=folder.exists())

    failing("epoch_plan", KeyboardInterrupt())  # before there is a run
    assert not folder.exists()
    failing("train", KeyboardInterrupt())
    assert prepared(folder) == PREPARED
    failing("train", UnwrittenError("no space left"))  # it takes some
    assert not (folder / CORPUS).exists()
    with pytest.raises(Interrupted):
        train(finished.config, folder, resume=True, stop=lambda: True)
    assert prepared(folder) == PREPARED
    for name in ("train", "resume"):
        failing(name, TrainingError("no"))
        assert prepared(folder) == PREPARED
    other = configured(finished.config.data.model_dump(), training={"seed": 2})
    fails(RunError, "seed", lambda: train(other, folder, resume=True))
    assert prepared(folder) == PREPARED
    train(finished.config, folder, resume=True)
    assert model_bytes(folder) == model_bytes(finished.folder)
    assert not (folder / CORPUS).exists()


def test_a_prepared_corpus_that_cannot_be_kept_is_no_reason_to_end_a_training(
    tmp_path: Path, finished: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise UnwrittenError("no space left")

    monkeypatch.setattr("seq2seq.stages.kept_corpus.write_json", fail)
    train(finished.config, tmp_path / "run")
    assert model_bytes(tmp_path / "run") == model_bytes(finished.folder)


@pytest.fixture
def stopped(tmp_path: Path) -> tuple[Config, Path]:
    """A run that was stopped after its first step, and its configuration; with a corpus of its own, to be changed."""
    sides = [write_sides(tmp_path, name, pairs) for name, pairs in (("train", TRAIN), ("valid", VALID), ("test", TEST))]
    config = configured({name: path for side in sides for name, path in side.items()})
    with pytest.raises(Interrupted):
        train(config, tmp_path / "run", stop=lambda: True)
    return config, tmp_path / "run"


def went_on(config: Config, run: Path) -> list[str]:
    """What a training that goes on is busy with."""
    listener = Listener()
    train(config, run, listener, resume=True)
    return [what for what, *_ in listener.work]


def test_a_stopped_run_goes_on_without_preparing_its_corpus_again(
    stopped: tuple[Config, Path], finished: Finished
) -> None:
    config, run = stopped
    run = run.rename(run.with_name("elsewhere"))
    work = went_on(config, run)
    assert work and not {"reading", "encoding"} & set(work)
    outcome, before = Run(run).info(), finished.info
    assert model_bytes(run) == model_bytes(finished.folder)
    assert outcome["corpus"] == before["corpus"] and outcome["validation"] == before["validation"]


def vouched(folder: Path, name: str) -> None:
    """Gives a prepared file the stamp that is written down of it, as if it were the one that was."""
    record = json.loads((folder / "prepared.json").read_text())
    record["files"][name][:-1] = kept_corpus._stamp(folder / name)
    (folder / "prepared.json").write_text(json.dumps(record))


@pytest.mark.parametrize(
    "change", ["touched", "damaged", "changed", "lost", "copied", "record", "counts", "code", "data"]
)
def test_a_prepared_corpus_that_may_be_another_is_made_anew(
    stopped: tuple[Config, Path], finished: Finished, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    config, run = stopped
    corpus = run / CORPUS
    if change == "touched":
        os.utime(config.data.train_source)
    elif change in ("damaged", "changed"):
        content = (corpus / "valid.text").read_bytes()
        (corpus / "valid.text").write_bytes(content.replace(b"dog", b"cat") if change == "damaged" else content)
        if change == "damaged":
            vouched(corpus, "valid.text")
    elif change == "lost":
        (corpus / "test.text").unlink()
    elif change == "copied":
        shutil.copytree(run, run.with_name("copy"))
        run = run.with_name("copy")
    elif change == "record":
        (corpus / "prepared.json").write_text('{"made_of": [], "files": {}}')
    elif change == "counts":
        record = (corpus / "prepared.json").read_text()
        (corpus / "prepared.json").write_text(record.replace('"read": 200', '"read": "x"'))
    elif change == "code":
        monkeypatch.setattr(kept_corpus, "_code", lambda: "another")
    else:
        config = configured(config.data.model_dump(), data={"source_language": "de"})
        monkeypatch.setattr("seq2seq.pipeline.check_changes", lambda *_: None)
        monkeypatch.setattr("seq2seq.pipeline.check_settings", lambda *_: None)
    assert {"reading", "encoding"} <= set(went_on(config, run))
    assert model_bytes(run) == model_bytes(finished.folder)


def test_a_stamp_alone_is_vouched_for(stopped: tuple[Config, Path]) -> None:
    config, run = stopped
    content = (run / CORPUS / "valid.text").read_bytes()
    (run / CORPUS / "valid.text").write_bytes(content)
    vouched(run / CORPUS, "valid.text")
    assert "reading" not in went_on(config, run)


def test_a_file_that_is_away_for_a_while_costs_nothing(stopped: tuple[Config, Path], finished: Finished) -> None:
    config, run = stopped
    source = Path(config.data.test_source)
    source.rename(source.with_name("away"))
    fails(DataError, "no such file", lambda: train(config, run, resume=True))
    assert prepared(run) == PREPARED
    source.with_name("away").rename(source)  # where its change time is another now, it is prepared anew
    assert went_on(config, run)
    assert model_bytes(run) == model_bytes(finished.folder)


def test_what_changes_while_it_is_prepared_is_not_vouched_for(
    tmp_path: Path, stopped: tuple[Config, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, _ = stopped
    learn = preparing.Tokenizer.learn

    def meanwhile(*arguments: Any, **options: Any) -> Any:
        with open(config.data.train_source, "a", encoding="utf-8") as file:
            file.write("Der Hund mag Hund.\n")
        return learn(*arguments, **options)

    monkeypatch.setattr(preparing.Tokenizer, "learn", meanwhile)
    with pytest.raises(Interrupted):
        train(config, tmp_path / "other", stop=lambda: True)
    monkeypatch.undo()
    fails(DataError, "201 lines", lambda: train(config, tmp_path / "other", resume=True))


def test_sampled_pairs_are_not_kept(stopped: tuple[Config, Path], tmp_path: Path) -> None:
    config, _ = stopped
    sampled = configured(config.data.model_dump(), tokenizer={"sample_source": 0.1})
    whole = train(sampled, tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(sampled, tmp_path / "other", stop=lambda: True)
    assert prepared(tmp_path / "other") == PREPARED
    assert "reading" not in went_on(sampled, tmp_path / "other")
    assert model_bytes(tmp_path / "other") == model_bytes(whole.run.path)


def test_a_corpus_that_was_changed_since_a_run_was_stopped_is_noticed(stopped: tuple[Config, Path]) -> None:
    config, run = stopped
    path = Path(config.data.train_source)
    path.write_text(path.read_text(encoding="utf-8").replace("Hund", "Pudel", 1), encoding="utf-8")
    fails(RunError, "the corpus is not the one that this run began with", lambda: train(config, run, resume=True))


def test_asked_to_stop_during_the_last_step_it_stops_before_finishing(tmp_path: Path, finished: Finished) -> None:
    class Gently:
        inside = asked = False

        def __enter__(self) -> None:
            self.inside = True

        def __exit__(self, *_: object) -> None:
            self.inside, self.asked = False, True

    gently = Gently()

    def stop() -> bool:
        assert gently.inside or gently.asked
        return gently.asked

    with pytest.raises(Interrupted):
        train(finished.config, tmp_path / "run", stop=stop, gently=gently)
    assert not Run(tmp_path / "run").finished()
    train(finished.config, tmp_path / "run", resume=True)
    assert model_bytes(tmp_path / "run") == model_bytes(finished.folder)


def test_what_helps_against_steps_that_are_not_finite_may_change_and_is_told(copied: Path, finished: Finished) -> None:
    remedies = {"learning_rate_scale": 0.25, "clip_norm": 1.0, "precision": "bf16"}
    listener = Listener()
    changed = configured(finished.config.data.model_dump(), training={**remedies, "max_steps": 12})
    outcome = train(changed, copied, listener, resume=True)
    assert outcome.state.step == 12
    for line in (
        "resuming with training.learning_rate_scale = 0.25 instead of 1.0",
        "resuming with training.clip_norm = 1.0 instead of 0.0",
        'resuming with training.precision = "bf16" instead of "fp32"',
    ):
        assert line in listener.messages
    assert outcome.run.info()["training"]["precision"] == "bf16"
    again = Listener()
    train(changed, copied, again, resume=True)
    assert not any("instead of" in message for message in again.messages)


def test_a_corpus_that_merely_moved_may_be_resumed(tmp_path: Path) -> None:
    def corpus(folder: Path, valid: Pairs = VALID) -> dict[str, Any]:
        return {
            **write_sides(folder, "train", TRAIN), **write_sides(folder, "valid", valid),
            **write_sides(folder, "test", TEST),
        }  # fmt: skip

    folder = tmp_path / "run"
    train(configured(corpus(tmp_path / "old"), training={"max_steps": 2}), folder)
    moved = {**corpus(tmp_path / "new"), "downloads": []}
    outcome = train(configured(moved, training={"max_steps": 4}), folder, resume=True)
    assert outcome.state.step == 4
    assert outcome.run.config().data.train_source == str(tmp_path / "new" / "train.de")
    before = snapshot(folder)
    other = configured(corpus(tmp_path / "other", VALID[:-1]), training={"max_steps": 6})
    fails(RunError, "the validation is not the one", lambda: train(other, folder, resume=True))
    without = configured({name: path for name, path in moved.items() if not name.startswith("valid")})
    fails(RunError, r"data\.valid_source = '', but", lambda: train(without, folder, resume=True))
    assert snapshot(folder) == before


def test_a_configuration_that_was_edited_by_hand_is_refused(copied: Path, finished: Finished) -> None:
    config = finished.config
    longer = config.model_copy(update={"training": config.training.model_copy(update={"max_steps": 14, "seed": 77})})
    Run(copied).write_config(longer)
    before = snapshot(copied)
    message = r"config\.toml has training\.seed = 77, but this run began with \d+: put it back"
    fails(RunError, message, lambda: train(longer, copied, resume=True))
    assert snapshot(copied) == before


def test_a_given_tokenizer_may_move_but_not_appear(tmp_path: Path, copied: Path, finished: Finished) -> None:
    corpus = finished.config.data.model_dump()
    for name in ("one", "two"):
        (tmp_path / f"{name}.model").write_bytes((copied / "tokenizer.model").read_bytes())
        given = {"source_model": str(tmp_path / f"{name}.model")}
        steps = {"max_steps": 2 if name == "one" else 3}
        train(configured(corpus, tokenizer=given, training=steps), tmp_path / "given", resume=name == "two")
    fails(RunError, r"tokenizer\.source_model", lambda: train(configured(corpus, tokenizer=given), copied, resume=True))


def test_a_finished_run_may_be_resumed_and_stays_as_it_is(copied: Path, finished: Finished) -> None:
    outcome = train(finished.config, copied, resume=True)
    assert outcome.state.step == 10
    assert model_bytes(copied) == model_bytes(finished.folder)
    assert outcome.run.info()["training"]["epochs"] == finished.info["training"]["epochs"]


def test_a_run_may_go_on_for_more_steps(copied: Path, finished: Finished) -> None:
    longer = configured(finished.config.data.model_dump(), training={"max_steps": 15, "validate_every": 15})
    outcome = train(longer, copied, resume=True)
    assert outcome.state.step == 15
    assert outcome.run.config() == longer
    info = outcome.run.info()
    assert (info["training"]["steps"], info["training"]["averaged_steps"]) == (15, [10, 15])
    assert [record["step"] for record in outcome.run.metrics() if "valid_loss" in record] == [5, 10, 15]


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        ("model", "d_model", 32),
        ("model", "dropout", 0.2),
        ("tokenizer", "vocab_size", 80),
        ("training", "seed", 2),
        ("training", "batch_tokens", 700),
        ("data", "max_source_length", 99),
    ],
)
def test_resuming_another_configuration_is_refused_by_the_name_of_the_field(
    copied: Path, finished: Finished, section: str, name: str, value: object
) -> None:
    before = snapshot(copied)
    changed = configured(finished.config.data.model_dump(), **{section: {name: value}})
    fails(RunError, rf"--resume: {section}\.{name} = {value}, but this run began with", lambda: train(
        changed, copied, resume=True
    ))  # fmt: skip
    assert snapshot(copied) == before


def test_resuming_with_another_corpus_under_the_same_name_is_refused(tmp_path: Path) -> None:
    corpus = write_sides(tmp_path, "train", TRAIN)
    train(configured(corpus, training={"max_steps": 2}), tmp_path / "run")
    before = snapshot(tmp_path / "run")
    write_sides(tmp_path, "train", TRAIN[:-1])
    longer = configured(corpus, training={"max_steps": 4})
    fails(RunError, "the corpus is not the one", lambda: train(longer, tmp_path / "run", resume=True))
    assert snapshot(tmp_path / "run") == before


def test_resuming_a_folder_without_a_run_starts_at_step_0_there(
    tmp_path: Path, data: dict[str, str], finished: Finished
) -> None:
    """As after a kill while the data was prepared; what else is in the folder stays."""
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed" / "notes.txt").write_text("mine")
    (tmp_path / "killed" / "identity.json").write_text('{"corpus": "of another time", "tokenizer": "too"}')
    (tmp_path / "killed" / "tokenizer.model").write_bytes(b"of a configuration that nobody knows any more")
    for name in ("absent", "killed"):
        listener = Listener()
        train(finished.config, tmp_path / name, listener, resume=True)
        assert any("there is nothing to resume: starting at step 0" in message for message in listener.messages)
        assert model_bytes(tmp_path / name) == model_bytes(finished.folder)
    assert (tmp_path / "killed" / "notes.txt").read_text() == "mine"


def test_what_is_left_of_a_run_without_its_configuration_is_not_taken_for_one(copied: Path, finished: Finished) -> None:
    (copied / "config.toml").unlink()
    before = snapshot(copied)
    fails(RunError, "not a run folder", lambda: train(finished.config, copied, resume=True))
    assert snapshot(copied) == before
