"""What is told before a training begins."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import Listener

from seq2seq import pipeline
from seq2seq.config import Config
from seq2seq.recipe import build_config
from seq2seq.stages.advice import about_settings

SETTINGS: dict[str, dict[str, Any]] = {
    "tokenizer": {"vocab_size": 60},
    "model": {"d_model": 16, "num_heads": 2, "d_ff": 32, "num_encoder_layers": 1, "num_decoder_layers": 1},
    "training": {"max_steps": 1, "batch_tokens": 100, "num_threads": 1, "device": "cpu", "preflight": False},
}
PAIRS = [(f"ein hund sieht {word}", f"a dog sees {word}") for word in ("rot", "gelb", "nichts", "alles", "uns")] * 4
TABLE = {"train_pairs": "a.tsv", "source_column": "3", "tsv_header": True, "tsv_quotes": True}

pytestmark = pytest.mark.usefixtures("the_machine_as_it_was", "without_curves")


def of(data: dict[str, Any], **training: Any) -> Config:
    return build_config({**SETTINGS, "training": {**SETTINGS["training"], **training}, "data": data})


@pytest.mark.parametrize(
    ("data", "training", "told"),
    [
        ({"train_source": "a", "train_target": "b"}, {}, []),
        (TABLE, {}, []),
        ({"dataset": "corpus", "dataset_config": "de-en", "valid_split": "", "source_column": "de"}, {}, []),
        ({"train_pairs": "a.jsonl", "source_column": "de"}, {}, []),
        (
            {**TABLE, "train_pairs": "", "train_source": "a", "train_target": "b"},
            {},
            ["source_column counts for nothing", "tsv_header counts", "tsv_quotes counts for nothing: it is for TSV"],
        ),
        ({**TABLE, "train_pairs": "a.jsonl.gz"}, {}, ["tsv_header counts", "tsv_quotes counts"]),
        (
            {"train_pairs": "a.tsv", "dataset_config": "de-en", "test_split": "test"},
            {},
            ["dataset_config counts for nothing: it is for a dataset", "test_split counts for nothing"],
        ),
        ({"train_pairs": "a.tsv"}, {"patience": 3}, ["training.patience counts for nothing"]),
        ({"train_pairs": "a.tsv", "valid_pairs": "v.tsv"}, {"patience": 3}, []),
        ({"train_pairs": "a.tsv"}, {"average": "best", "average_checkpoints": 1}, ["the last ones are averaged"]),
        ({"train_pairs": "a.tsv", "valid_pairs": "v.tsv"}, {"average": "best", "average_checkpoints": 1}, []),
        (
            {"train_pairs": "a.tsv"},
            {"learning_rate_scale": 0.001},
            ["learning_rate_scale = 0.001 makes a learning rate of 4.0e-06 at its peak"],
        ),
        ({"train_pairs": "a.tsv"}, {"learning_rate_scale": 0.01}, []),
    ],
)
def test_settings_without_effect_are_told(data: dict[str, Any], training: dict[str, Any], told: list[str]) -> None:
    found = about_settings(of(data, **training))
    assert len(found) == len(told)
    for one, part in zip(found, told, strict=True):
        assert part in one


def test_settings_of_learning_count_for_nothing_with_a_vocabulary_that_is_there() -> None:
    learning = {"vocab_size": 500, "byte_fallback": True, "normalization": "nmt_nfkc"}
    data = {"train_pairs": "a.tsv"}
    assert not about_settings(build_config({**SETTINGS, "data": data, "tokenizer": learning}))
    found = about_settings(
        build_config({**SETTINGS, "data": data, "tokenizer": {**learning, "source_model": "/own.model"}})
    )
    assert found == [
        f"tokenizer.{name} counts for nothing: the vocabulary is that of /own.model"
        for name in ("normalization", "byte_fallback")
    ]


def said(
    folder: Path,
    valid: list[tuple[str, str]],
    test: list[tuple[str, str]] = PAIRS[:0],
    train: list[tuple[str, str]] = PAIRS,
) -> list[str]:
    """What a training tells."""
    data = {}
    for name, pairs in (("train", train), ("valid", valid), ("test", test)):
        for side, language in enumerate(("source", "target") if pairs else ()):
            (folder / f"{name}.{language}").write_text("".join(f"{pair[side]}\n" for pair in pairs), encoding="utf-8")
            data[f"{name}_{language}"] = str(folder / f"{name}.{language}")
    listener = Listener()
    pipeline.train(of(data), folder / "run", listener)
    return listener.messages


def test_held_out_sentences_that_the_model_is_trained_on_are_counted(tmp_path: Path) -> None:
    new = ("eine katze", "a cat")
    found = [text for text in said(tmp_path, [new, *PAIRS[:2]], [PAIRS[3]]) if "in the training data" in text]
    assert [text.partition(";")[0] for text in found] == [
        "sources of the validation set that are in the training data, too: 2 of 3",
        "sources of the test set that are in the training data, too: 1 of 1",
    ]
    (tmp_path / "other").mkdir()
    assert not [text for text in said(tmp_path / "other", [new]) if "in the training data" in text]


def test_what_the_vocabulary_lacks_is_named(tmp_path: Path) -> None:
    said(tmp_path, PAIRS[:2])
    other = [("ein hund sieht ☃", "a dog sees ☄"), ("☃ ein ☂", "a ☄")] * 5
    (tmp_path / "other").mkdir()
    for side, language in enumerate(("source", "target")):
        (tmp_path / "other" / language).write_text("".join(f"{pair[side]}\n" for pair in other), encoding="utf-8")
    data = {f"train_{language}": str(tmp_path / "other" / language) for language in ("source", "target")}
    listener = Listener()
    pipeline.train(of(data, init_from=str(tmp_path / "run")), tmp_path / "tuned", listener)
    source, target = [text for text in listener.messages if "unknown to the vocabulary" in text]
    assert "source pieces" in source and "(most often '☃ ☂'): without training.init_from" in source
    assert "(most often '☄')" in target


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda text: text, None),
        (lambda text: text.replace(" ", "\u00a0"), "no-break spaces in "),
        (lambda text: text.replace(" ", " \u200b"), "invisible spaces or breaks in "),
        (lambda text: text.replace("e", "e\u0301"), "decomposed accents in "),
        (lambda text: text.replace("u", "u\u00ad"), "soft hyphens in "),
    ],
)
def test_characters_that_look_like_others_are_told_of(
    tmp_path: Path, change: Callable[[str], str], told: str | None
) -> None:
    changed = [(change(source), target) for source, target in PAIRS]
    found = [text for text in said(tmp_path, PAIRS[:2], train=changed) if "of the first 40" in text]
    assert len(found) == (told is not None)
    assert told is None or told in found[0]


def test_the_same_text_on_both_sides_is_told_of(tmp_path: Path) -> None:
    same = [(target, target) for _, target in PAIRS]
    [found] = [text for text in said(tmp_path, PAIRS[:2], train=same) if "on both sides" in text]
    assert found.startswith("20 of the first 20 pairs have the same text on both sides")


def test_references_that_bleu_does_not_take_apart_are_told(tmp_path: Path) -> None:
    chinese = [("ein hund", "两只狗在草地上奔跑。")]
    [found] = [text for text in said(tmp_path, chinese) if "BLEU" in text and "finished" not in text]
    assert found.endswith("it will be near 0 and tell nothing; choose zh (data.bleu_tokenize)")


def test_the_end_says_what_the_model_is_and_how_good(tmp_path: Path) -> None:
    [last] = [text for text in said(tmp_path, PAIRS[:2]) if text.startswith("finished")]
    assert last.startswith("finished: the model is the checkpoint of step 1; validation BLEU ")
