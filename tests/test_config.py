"""The configuration: presets, strict reading, messages, what overrides what, and the way to TOML and back."""

from __future__ import annotations

import errno
import os
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from helpers import message_of
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from seq2seq.config import DATA_PATHS, Config, ConfigError
from seq2seq.presets import PRESETS
from seq2seq.recipe import SECTIONS, build_config, dump_config, load_config, parse_config
from seq2seq.training.optimizer import learning_rate

FULL = """
preset = "tiny"

[data]
source_language = "en"
train_source = "a/train.en"
train_target = "a/train.de"
max_length_ratio = 3.5

[[data.downloads]]
path = "a/train.en"
url = "https://example.org/train.en"
sha256 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

[tokenizer]
byte_fallback = true

[model]
norm = "pre"

[training]
max_steps = 1_000

[decoding]
length_penalty = 1.0
"""


def fails(work: Callable[[], object], *parts: str) -> str:
    assert ConfigError.exit_code == 2
    return message_of(ConfigError, work, *parts)


def write(folder: Path, text: str | bytes, name: str = "recipe.toml") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
    return path


# Presets


def test_no_configuration_at_all_is_the_papers_base_model() -> None:
    config = build_config({})
    assert config == Config()
    model, training = config.model, config.training
    assert (model.d_model, model.d_ff, model.num_heads, model.key_size) == (512, 2048, 8, 64)
    assert (model.num_encoder_layers, model.num_decoder_layers) == (6, 6)
    assert (model.norm, model.activation, model.positions) == ("post", "relu", "sinusoidal")
    assert model.dropout == 0.1
    assert model.attention_dropout == model.activation_dropout == 0.0
    assert (training.adam_beta1, training.adam_beta2, training.adam_epsilon) == (0.9, 0.98, 1e-9)
    assert (config.decoding.beam_size, config.decoding.length_penalty, config.decoding.max_extra_length) == (4, 0.6, 50)


def test_base_has_the_numbers_of_table_3_and_section_5() -> None:
    config = build_config({}, preset="base")
    model, training = config.model, config.training
    assert (model.num_encoder_layers, model.num_decoder_layers) == (6, 6)
    assert (model.d_model, model.d_ff, model.num_heads, model.dropout) == (512, 2048, 8, 0.1)
    assert (training.schedule, training.warmup_steps, training.learning_rate_scale) == ("inverse_sqrt", 4000, 1.0)
    assert (training.label_smoothing, training.batch_tokens, training.max_steps) == (0.1, 25_000, 100_000)
    assert (training.average, training.average_checkpoints) == ("last", 5)
    assert config.tokenizer.vocab_size == 37_000
    assert config.tokenizer.shared
    assert training.max_minutes is None


def test_big_has_the_numbers_of_table_3_and_section_6() -> None:
    config = build_config({}, preset="big")
    model, training = config.model, config.training
    assert (model.num_encoder_layers, model.num_decoder_layers) == (6, 6)
    assert (model.d_model, model.d_ff, model.num_heads, model.key_size, model.dropout) == (1024, 4096, 16, 64, 0.3)
    assert (training.schedule, training.warmup_steps, training.learning_rate_scale) == ("inverse_sqrt", 4000, 1.0)
    assert (training.label_smoothing, training.max_steps) == (0.1, 300_000)
    assert (training.average, training.average_checkpoints) == ("last", 20)


@pytest.mark.parametrize(("preset", "minutes"), [("tiny", 30), ("quick", 10)])
def test_tiny_and_quick_have_the_sizes_of_wu_et_al_and_end_by_themselves(preset: str, minutes: int) -> None:
    config = build_config({}, preset=preset)
    model = config.model
    assert (model.d_model, model.d_ff, model.num_heads, model.norm) == (128, 256, 4, "post")
    assert (model.num_encoder_layers, model.num_decoder_layers) == (4, 4)
    assert config.tokenizer.vocab_size == 10_000
    assert config.training.max_minutes == minutes
    training = config.training
    assert (training.schedule, training.warmup_steps, training.average_checkpoints) == ("cosine", 400, 3)
    assert learning_rate(training, model.d_model, 400, 10_000) == pytest.approx(2.5e-3, rel=1e-3)
    assert (training.optimizer, training.weight_decay) == ("muon", 0.3)
    for other in (None, "base", "big"):
        untouched = build_config({}, preset=other).training
        assert (untouched.optimizer, untouched.weight_decay) == ("adam", 0.0)


def test_quick_differs_from_tiny_by_its_time_and_dropout_alone() -> None:
    tiny, quick = (build_config({}, preset=preset).model_dump() for preset in ("tiny", "quick"))
    assert (tiny["model"].pop("dropout"), quick["model"].pop("dropout")) == (0.3, 0.2)
    del tiny["training"]["max_minutes"], quick["training"]["max_minutes"], tiny["preset"], quick["preset"]
    assert tiny == quick


def test_small_is_tiny_with_twice_the_widths_and_batch_and_the_papers_search() -> None:
    tiny, small = (build_config({}, preset=preset).model_dump() for preset in ("tiny", "small"))
    assert [small["model"].pop(name) for name in ("d_model", "d_ff")] == [256, 512]
    assert [small["training"].pop(name) for name in ("max_minutes", "batch_tokens")] == [60, 4096]
    assert small["decoding"] == build_config({}, preset="base").decoding.model_dump()
    for section, names in (("model", ("d_model", "d_ff")), ("training", ("max_minutes", "batch_tokens"))):
        for name in names:
            del tiny[section][name]
    assert tiny["decoding"].pop("length_penalty") == 1.8
    assert small["decoding"].pop("length_penalty") == 0.6
    del tiny["preset"], small["preset"]
    assert tiny == small


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_names_itself_and_is_a_complete_recipe(preset: str) -> None:
    config = build_config({}, preset=preset)
    assert config.preset == preset
    assert any((config.training.max_steps, config.training.max_epochs, config.training.max_minutes))


def test_the_file_names_its_preset_and_the_argument_goes_before_it(tmp_path: Path) -> None:
    path = write(tmp_path, 'preset = "tiny"')
    assert load_config(path).model.d_model == 128
    assert load_config(path, preset="big").model.d_model == 1024


def test_the_file_changes_the_preset_and_set_changes_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, 'preset = "tiny"\n[model]\nd_model = 64\nd_ff = 96')
    model = load_config(path, overrides=["model.d_ff=48"]).model
    assert (model.d_model, model.d_ff, model.num_heads) == (64, 48, 4)


def test_an_unknown_preset_is_refused_with_the_choices() -> None:
    fails(lambda: build_config({}, preset="tinny"), "preset = 'tinny'", "tiny, quick, small, base, big")


@pytest.mark.parametrize("value", ["['tiny']", "3", "0", "false", "{ a = 1 }"])
def test_a_preset_that_is_not_a_name_is_refused(tmp_path: Path, value: str) -> None:
    fails(lambda: load_config(write(tmp_path, f"preset = {value}")), "preset = ", "tiny, quick, small, base, big")


# When training ends


@pytest.mark.parametrize("limit", ["max_steps", "max_epochs", "max_minutes"])
@pytest.mark.parametrize("preset", PRESETS)
def test_a_limit_that_is_asked_for_takes_the_place_of_the_presets_own(preset: str, limit: str) -> None:
    training = build_config({"training": {limit: 7}}, preset=preset).training
    limits = {name: getattr(training, name) for name in ("max_steps", "max_epochs", "max_minutes")}
    assert limits == {**dict.fromkeys(limits), limit: 7}


def test_two_limits_that_are_asked_for_both_hold() -> None:
    training = build_config({"training": {"max_steps": 7, "max_minutes": 1.5}}, preset="tiny").training
    assert (training.max_steps, training.max_minutes, training.max_epochs) == (7, 1.5, None)


@pytest.mark.parametrize(
    ("overrides", "limits"),
    [
        (["training.max_steps=40"], (40, None)),
        (["training.max_minutes=2"], (None, 2)),
        (["training.max_steps=40", "training.max_minutes=2"], (40, 2)),
        (["training.seed=2"], (7, 1.5)),
    ],
)
def test_an_end_by_set_takes_the_place_of_the_files(
    tmp_path: Path, overrides: list[str], limits: tuple[int | None, float | None]
) -> None:
    path = write(tmp_path, "[training]\nmax_steps = 7\nmax_minutes = 1.5")
    training = load_config(path, overrides=overrides).training
    assert (training.max_steps, training.max_minutes) == limits


def test_an_end_by_set_for_what_is_no_section_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="training is not a section"):
        load_config(write(tmp_path, "training = 3"), overrides=["training.max_steps=3"])


def test_set_max_steps_takes_the_place_of_the_presets_minutes(tmp_path: Path) -> None:
    training = load_config(write(tmp_path, 'preset = "tiny"'), overrides=["training.max_steps=40"]).training
    assert (training.max_steps, training.max_minutes) == (40, None)


def test_presets_are_not_changed_by_those_who_build_on_them() -> None:
    before = build_config({}, preset="tiny")
    build_config({"training": {"max_steps": 3}, "model": {"d_model": 64}}, preset="tiny")
    assert build_config({}, preset="tiny") == before


# To TOML and back

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
odd_texts = st.sampled_from(
    ['a "quoted" name', "back\\slash", "tab\tnew\nline", "\x7f\x00\x1f", "Übung – 日本語 🐈", "'''", "#"]
)
fractions = st.floats(0.0, 0.99)
hexadecimal = st.text("0123456789abcdefABCDEF", min_size=64, max_size=64)
downloads = st.lists(
    st.fixed_dictionaries(
        {"path": texts.filter(bool), "url": texts.map(lambda text: f"https://x/{text}"), "sha256": hexadecimal}
    ),
    max_size=2,
)
any_sections = st.fixed_dictionaries(
    {},
    optional={
        "data": st.fixed_dictionaries(
            {},
            optional={
                "source_language": texts | odd_texts,
                "dataset": odd_texts,
                "train_split": texts,
                "downloads": downloads,
                "max_length_ratio": st.floats(1.0, 1e300),
                "drop_duplicates": st.booleans(),
                "bleu_tokenize": st.sampled_from(["13a", "none", "zh"]),
            },
        ),
        "tokenizer": st.fixed_dictionaries(
            {},
            optional={"source_model": odd_texts, "vocab_size": st.integers(16, 10**6), "byte_fallback": st.booleans()},
        ),
        "model": st.fixed_dictionaries(
            {},
            optional={
                "dropout": fractions,
                "head_size": st.integers(1, 1000),
                "norm": st.sampled_from(["pre", "post"]),
                "tied_embeddings": st.sampled_from(["auto", "all", "target", "none"]),
            },
        ),
        "training": st.fixed_dictionaries(
            {},
            optional={
                "max_steps": st.integers(1, 10**12),
                "max_minutes": st.floats(1e-300, 1e300),
                "max_epochs": st.integers(1, 99),
                "adam_epsilon": st.floats(5e-324, 1.0),
                "seed": st.integers(0, 2**31 - 1),
                "weight_decay": fractions,
            },
        ),
        "decoding": st.fixed_dictionaries({}, optional={"length_penalty": st.floats(0.0, 10.0)}),
    },
)


@given(any_sections, st.sampled_from(["", *PRESETS]))
@example({"data": {"source_language": '"\\\x00\x1f\x7f\x85\u2028\r\n'}}, "tiny")
@settings(max_examples=60, deadline=None)
def test_what_is_dumped_is_read_back_as_it_was(sections: dict[str, Any], preset: str) -> None:
    config = build_config(sections, preset=preset)
    assert parse_config(dump_config(config), origin="dump") == config


def test_a_dump_has_every_section_and_field_that_has_a_value() -> None:
    config = build_config({"data": {"train_source": "/a", "train_target": "/b"}}, preset="tiny")
    values = tomllib.loads(dump_config(config))
    assert values["preset"] == "tiny"
    for section in SECTIONS:
        fields = {name: value for name, value in getattr(config, section).model_dump().items() if value is not None}
        fields.pop("downloads", None)
        assert values[section] == fields


def test_a_dumped_configuration_serves_as_a_recipe(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, FULL))
    again = load_config(write(tmp_path / "elsewhere", dump_config(config)))
    assert again == config
    assert again.data.downloads[0].path == str(tmp_path / "a/train.en")


# Frozen and strict


def test_pieces_are_sampled_only_where_asked_for() -> None:
    assert not Config().tokenizer.samples
    assert build_config({"tokenizer": {"sample_source": 0.1}}).tokenizer.samples
    assert build_config({"tokenizer": {"sample_target": 1.0}}).tokenizer.samples


def test_a_configuration_cannot_be_changed() -> None:
    config = build_config({"data": {"downloads": [{"path": "a", "url": "http://x", "sha256": "0" * 64}]}})
    for section, field in [(config, "preset"), (config.model, "d_model"), (config.data.downloads[0], "path")]:
        with pytest.raises(ValidationError, match="frozen"):
            setattr(section, field, "x")
    assert hash(config) == hash(parse_config(dump_config(config), origin="dump"))


@pytest.mark.parametrize(
    ("toml", "parts"),
    [
        ("[modle]\nd_model = 8", ["'modle'", "did you mean 'model'?"]),
        ("presett = 'tiny'", ["'presett'", "did you mean 'preset'?"]),
        ("max_steps = 8", ["'max_steps'", "below [training]"]),
        ("[zzz]", ["'zzz'", "data, tokenizer, model, training, decoding"]),
        ("[model]\ndmodel = 8", ["model.dmodel", "did you mean 'd_model'?"]),
        ("[decoding]\nzzz = 8", ["decoding.zzz", "beam_size", "length_penalty"]),
        ("[[data.downloads]]\npth = 'a'", ["data.downloads.0.pth", "did you mean 'path'?"]),
        ("model = 3", ["model is a section", "[model]"]),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_known_one(tmp_path: Path, toml: str, parts: list[str]) -> None:
    fails(lambda: load_config(write(tmp_path, toml)), "recipe.toml: ", *parts)


@pytest.mark.parametrize(
    ("toml", "parts"),
    [
        ("[training]\nmax_steps = 'many'", ["training.max_steps = 'many'", "valid integer"]),
        ("[training]\nmax_steps = 10.0", ["training.max_steps = 10.0", "valid integer"]),
        ("[training]\nmax_steps = true", ["training.max_steps = true", "valid integer"]),
        ("[training]\nmax_steps = 0", ["training.max_steps = 0", "greater than or equal to 1"]),
        ("[training]\nmax_minutes = nan", ["training.max_minutes = nan", "finite"]),
        ("[training]\nmax_minutes = inf", ["training.max_minutes = inf", "finite"]),
        ("[training]\nmax_minutes = '5'", ["training.max_minutes = '5'", "valid number"]),
        ("[training]\nseed = 2147483648", ["training.seed = 2147483648", "less than 2147483648"]),
        ("[model]\ndropout = 1.0", ["model.dropout = 1.0", "less than 1"]),
        ("[model]\nnorm = 'middle'", ["model.norm = 'middle'", "must be 'post' or 'pre'"]),
        ("[tokenizer]\nshared = 'yes'", ["tokenizer.shared = 'yes'", "true or false"]),
        ("[tokenizer]\nshared = 1", ["tokenizer.shared = 1", "true or false"]),
        ("[tokenizer]\nsample_source = -0.1", ["tokenizer.sample_source = -0.1", "greater than or equal to 0"]),
        ("[tokenizer]\nsample_target = 1.1", ["tokenizer.sample_target = 1.1", "less than or equal to 1"]),
        ("[data]\nsource_column = 2", ["data.source_column = 2", "in quotes"]),
        ("[data]\ndownloads = 'x'", ["data.downloads = 'x'", "[[data.downloads]]"]),
        ("[data]\ndownloads = [3]", ["data.downloads.0 = 3", "[[data.downloads]]"]),
        ("[[data.downloads]]\npath = 'a'\nurl = 'http://x'", ["data.downloads.0.sha256", "missing"]),
        ("[[data.downloads]]\npath = 'a'\nurl = 'ftp://x'\nsha256 = 'f'", ["data.downloads.0.url = 'ftp://x'"]),
        (f"[training]\nseed = 0x{'f' * 5000}", ["training.seed = ...", "less than 2147483648"]),
        (f"[model]\nnorm = '{'x' * 5000}'", ["model.norm = 'xxx", " ...: must be"]),
    ],
)
def test_a_wrong_value_is_refused_with_field_value_and_remedy(tmp_path: Path, toml: str, parts: list[str]) -> None:
    message = fails(lambda: load_config(write(tmp_path, toml)), "recipe.toml: ", *parts)
    assert len(message) < len(str(tmp_path)) + 250


FILES = {"train_source": "a", "train_target": "b"}


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ({"data": {"train_source": "a"}}, ["data.train_target is missing", "data.train_pairs"]),
        ({"data": {"test_target": "a"}}, ["data.test_source is missing"]),
        ({"data": {**FILES, "train_pairs": "c.tsv"}}, ["data.train_pairs and data.train_source"]),
        ({"data": {**FILES, "dataset": "c"}}, ["data.dataset and training files"]),
        ({"data": {"train_pairs": "c.tsv", "dataset": "c"}}, ["data.dataset and training files"]),
        ({"tokenizer": {"target_model": "b"}}, ["tokenizer.target_model", "without tokenizer.source_model"]),
        ({"tokenizer": {"source_model": "a", "target_model": "b"}}, ["tokenizer.shared is true", "shared=false"]),
        ({"tokenizer": {"source_model": "a", "shared": False}}, ["tokenizer.target_model is missing"]),
        ({"model": {"num_heads": 7}}, ["model.d_model = 512", "model.num_heads = 7", "model.head_size"]),
        ({"model": {"d_model": 33, "num_heads": 3}}, ["model.d_model = 33 is odd", "even"]),
        ({"training": {"keep_last": 2}}, ["training.average_checkpoints = 5", "training.keep_last = 2"]),
        ({"training": {"average": "best"}}, ["training.average_checkpoints = 5", "training.keep_best = 1"]),
        (
            {"model": {"tied_embeddings": "all"}, "tokenizer": {"shared": False}},
            ['model.tied_embeddings = "all"', "tokenizer.shared=true"],
        ),
        (
            {"model": {"positions": "learned", "max_positions": 256}},
            ["model.max_positions = 256", "data.max_source_length"],
        ),
    ],
)
def test_fields_that_do_not_fit_together_are_refused(values: dict[str, Any], parts: list[str]) -> None:
    fails(lambda: build_config(values, origin="here"), "here: ", *parts)


@pytest.mark.parametrize(
    "values",
    [
        {"model": {"num_heads": 7, "head_size": 64}},
        {"model": {"d_model": 33, "num_heads": 3, "positions": "learned"}},
        {"model": {"positions": "learned", "max_positions": 257}},
        {"tokenizer": {"shared": False}},
        {"tokenizer": {"source_model": "a", "target_model": "b", "shared": False}},
        {"training": {"average": "none", "keep_last": 1}},
        {"training": {"average": "best", "keep_best": 5}},
        {"data": {"dataset": "a", "valid_source": "b", "valid_target": "c"}},
    ],
)
def test_fields_that_fit_together_pass(values: dict[str, Any]) -> None:
    config = build_config(values)
    for section, fields in values.items():
        assert {name: getattr(getattr(config, section), name) for name in fields} == fields


# --set


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("training.max_steps=1_000", 1000),
        ("training.max_steps = 1000", 1000),
        ("training.max_minutes=2", 2.0),
        ("training.adam_epsilon=1e-6", 1e-6),
        ("model.norm=pre", "pre"),
        ('model.norm="pre"', "pre"),
        ("model.norm='pre'", "pre"),
        ("tokenizer.byte_fallback=true", True),
        ("data.bleu_tokenize=13a", "13a"),
        ("data.source_language=en", "en"),
        ("data.source_language=pt-BR # of Brazil", "pt-BR # of Brazil"),
        ("data.source_language=a=b", "a=b"),
        ("data.source_language=", ""),
        ("data.source_column=2", "2"),
        ("data.source_column='2'", "2"),
        ("data.dataset_config=2020-01-01", "2020-01-01"),
        ("data.dataset=true", "true"),
        ("data.downloads=[]", ()),
    ],
)
def test_set_takes_toml_and_plain_text(override: str, value: object) -> None:
    section, _, field = override.partition("=")[0].strip().partition(".")
    config = load_config(None, overrides=["training.max_steps=1", override])
    assert getattr(getattr(config, section), field.strip()) == value
    assert type(getattr(getattr(config, section), field.strip())) is type(value)


def test_set_takes_lists_of_tables() -> None:
    table = "{ path = 'a', url = 'https://x', sha256 = '" + "0" * 64 + "' }"
    assert load_config(None, overrides=[f"data.downloads=[{table}]"]).data.downloads[0].url == "https://x"


def test_the_last_set_of_a_field_counts() -> None:
    assert load_config(None, overrides=["training.seed=2", "training.seed=3"]).training.seed == 3


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("training.max_steps", ["section.key=value", "training.max_steps=1000"]),
        ("max_steps=3", ["write it with its section: training.max_steps"]),
        ("batch_tokens=3", ["write it with its section: training.batch_tokens or decoding.batch_tokens"]),
        ("hidden-size=3", ["write it with its section: model.d_model"]),
        ("preset=tiny", ["--set preset=tiny: write --preset tiny"]),
        ("bogus=3", ["section.key=value"]),
        ("training.=3", ["section.key=value"]),
        ("=3", ["section.key=value"]),
        ("", ["section.key=value"]),
        ("trainig.seed=3", ["unknown section 'trainig'", "did you mean 'training'?"]),
        ("training.sed=3", ["training.sed: unknown field", "did you mean 'seed'?"]),
        ("training.dropout=0.1", ["training.dropout: unknown field; did you mean model.dropout?"]),
        ("train.max_steps=3", ["unknown section 'train'", "did you mean 'training'?"]),
        ("training.reset_optimizer=true", ["training.reset_optimizer: unknown field; a training that begins with"]),
        ("model.hidden_size=64", ["model.hidden_size: unknown field; that is model.d_model here"]),
        ("training.lr=1e-3", ["training.lr: unknown field; the rate's peak is training.learning_rate_scale * ("]),
        ("model.nonsense=1", ["model.nonsense: unknown field; known: d_model, num_heads"]),
        ("training.seed=x", ["training.seed = 'x'", "valid integer"]),
        ("training.seed=", ["training.seed = ''", "valid integer"]),
        ("training.seed=" + "9" * 5000, ["training.seed = '999"]),
        ("data.downloads.path=x", ["data.downloads.path: unknown field"]),
        ("data.train_source=a\0b", ["data.train_source", "not a usable path"]),
        ("data.train_source=\udcff", ["data.train_source", "not a usable path"]),
    ],
)
def test_a_bad_set_is_refused(override: str, parts: list[str]) -> None:
    fails(lambda: load_config(None, overrides=[override]), *parts)


def test_set_into_a_section_that_the_file_made_a_value_is_refused(tmp_path: Path) -> None:
    fails(
        lambda: load_config(write(tmp_path, "training = 1"), overrides=["training.seed=3"]), "training is not a section"
    )


# Paths


def paths_of(config: Config) -> dict[str, str]:
    return {name: getattr(config.data, name) for name in DATA_PATHS if getattr(config.data, name)}


def test_paths_in_a_file_are_relative_to_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, FULL, "recipes/de/recipe.toml")
    config = load_config(Path("recipes/de/recipe.toml"))
    folder = tmp_path / "recipes/de"
    assert paths_of(config) == {"train_source": f"{folder}/a/train.en", "train_target": f"{folder}/a/train.de"}
    assert config.data.downloads[0].path == f"{folder}/a/train.en"


def test_every_path_of_a_file_is_resolved_and_absolute_ones_stay(tmp_path: Path) -> None:
    sides = "\n".join(f'{split}_{side} = "../{split}.{side}"' for split in ("train", "valid", "test") for side in SIDES)
    path = write(
        tmp_path / "recipes",
        f'[data]\n{sides}\n[tokenizer]\nshared = false\nsource_model = "s.model"\ntarget_model = "/t.model"',
    )
    config = load_config(path)
    expected = {
        f"{split}_{side}": f"{tmp_path}/{split}.{side}" for split in ("train", "valid", "test") for side in SIDES
    }
    assert paths_of(config) == expected
    assert config.tokenizer.source_model == f"{tmp_path}/recipes/s.model"
    assert config.tokenizer.target_model == "/t.model"
    pairs = "\n".join(f'{split}_pairs = "{split}.tsv"' for split in ("train", "valid", "test"))
    assert set(paths_of(load_config(write(tmp_path, f"[data]\n{pairs}"))).values()) == {
        f"{tmp_path}/{split}.tsv" for split in ("train", "valid", "test")
    }


SIDES = ("source", "target")


def test_paths_in_set_and_arguments_are_relative_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path, FULL, "recipes/recipe.toml")
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    config = load_config(
        path,
        overrides=["data.test_source=t.en", "data.test_target=../t.de", "tokenizer.source_model=2024"],
        data={"train_source": "x.en", "train_target": "/x.de"},
    )
    assert paths_of(config) == {
        "train_source": f"{here}/x.en",
        "train_target": "/x.de",
        "test_source": f"{here}/t.en",
        "test_target": f"{tmp_path}/t.de",
    }
    assert config.tokenizer.source_model == f"{here}/2024"


@pytest.mark.parametrize("corpus", ["train_pairs = 'p.tsv'\nvalid_pairs = 'v.tsv'", "dataset = 'hub/name'"])
def test_a_corpus_from_the_command_line_replaces_the_files_whole_corpus(tmp_path: Path, corpus: str) -> None:
    path = write(
        tmp_path,
        f"preset = 'tiny'\n[data]\n{corpus}\nsource_language = 'en'\ntest_source = 't.en'\ntest_target = 't.de'\n"
        "bleu_tokenize = 'zh'\nmax_source_length = 77\n"
        f"[[data.downloads]]\npath = 'p.tsv'\nurl = 'http://x'\nsha256 = '{'0' * 64}'",
    )
    data = load_config(path, data={"train_source": "/a", "train_target": "/b"}).data
    assert (
        data
        == build_config(
            {"data": {"train_source": "/a", "train_target": "/b", "max_source_length": 77}}, preset="tiny"
        ).data
    )


# Files that cannot be read


def test_missing_files_and_folders_are_configuration_errors(tmp_path: Path) -> None:
    fails(lambda: load_config(tmp_path / "no.toml"), "no.toml: no such configuration file")
    fails(lambda: load_config(tmp_path), f"{tmp_path}: is a folder")
    fails(lambda: load_config(write(tmp_path, "") / "no.toml"), "recipe.toml/no.toml", "Not a directory")


@pytest.mark.parametrize(("number", "part"), [(errno.EACCES, "permissions"), (errno.EIO, "Input/output error")])
def test_unreadable_files_are_configuration_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, part: str
) -> None:
    def fail(path: Path, mode: str) -> bytes:
        raise OSError(number, "Input/output error", str(path))

    monkeypatch.setattr(Path, "open", fail)
    fails(lambda: load_config(tmp_path / "recipe.toml"), "recipe.toml: ", part)


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (b"\xff\xfe[", ["not UTF-8", "byte 1"]),
        (b"[data]\nsource_language = '\xfc'", ["not UTF-8", "byte 27"]),
        (b"[data\n", ["not valid TOML", "line 1"]),
        (b"[model]\nd_model = 8\nd_model = 9", ["not valid TOML"]),
        (b"x = " + b"[" * 5000, ["not valid TOML"]),
        (b"x = " + b"9" * 5000, ["not valid TOML"]),
        (b"[data]\ntrain_source = 'a'\ntrain_target = \"b\\u0000\"", ["data.train_target", "not a usable path"]),
    ],
)
def test_files_that_are_not_toml_are_configuration_errors(tmp_path: Path, content: bytes, parts: list[str]) -> None:
    fails(lambda: load_config(write(tmp_path, content)), "recipe.toml: ", *parts)


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, b"\xef\xbb\xbf[training]\r\nseed = 5\r\n")).training.seed == 5


@given(st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_mutilated_file_is_read_or_refused_but_never_worse(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(FULL.encode())
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(content) - 1))
        content[start : start + data.draw(st.integers(0, 3))] = data.draw(
            st.binary(max_size=3) | st.sampled_from([b"[", b"]", b"=", b'"', b"\n", b"1e999", b"0x", b"2020-13-01"])
        )
    path = write(tmp_path, bytes(content))
    try:
        config = load_config(path)
    except ConfigError as error:
        assert str(error).startswith(str(path))
        assert "\n" not in str(error)
    else:
        assert parse_config(dump_config(config), origin="dump") == config


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts | st.dates(),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(texts | st.sampled_from(["path", "url"]), inner, max_size=2)
    ),
    max_leaves=4,
)


@given(st.sampled_from([(s, f) for s in SECTIONS for f in getattr(Config(), s).model_dump()]), values)
@settings(max_examples=150, deadline=None)
def test_any_value_for_any_field_is_taken_or_refused_by_name(place: tuple[str, str], value: object) -> None:
    section, field = place
    values: Mapping[str, Any] = {section: {field: value}}
    try:
        config = build_config(values, origin="here")
    except ConfigError as error:
        assert field in str(error) or section in str(error)
    else:
        found = config.model_dump()[section][field]
        assert (list(found) if isinstance(found, tuple) else found) == value


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names here")
def test_a_pipe_is_no_corpus(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    message = fails(lambda: load_config(None, overrides=[f"data.train_source={tmp_path / 'pipe'}"]), "is a pipe")
    assert message.endswith("training reads it more than once: name a file") and "not a usable" not in message
