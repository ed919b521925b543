"""Bad data: what docs/BAD_DATA.md promises for `train`, `translate` and `benchmark`, cell by cell."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seq2seq.config import DataConfig
from seq2seq.decoding import options as options_module
from seq2seq.text import reading as reading_module
from seq2seq.text.corpus import FilterCounts, build_piece_corpus, build_text_corpus
from seq2seq.text.reading import lines_of, read_lines, read_pairs
from seq2seq.text.tokenizer import Tokenizer

Translate = Callable[[bytes], Any]
Train = Callable[[bytes, bytes], Any]

RTL = "\u202bשלום עולם\u202c العربية"
COMBINED = "e\u0301 a\u0308 n\u0303"
EMOJI = "👩\u200d👩\u200d👧 🇩🇪 😀"
LONG = b"cat " * 100_000  # 100,000 tokens in 400 kB


@pytest.fixture
def translate(run_cli: Any, tiny_run: Any) -> Translate:
    """`seq2seq translate` of these bytes on standard input."""
    return lambda data: run_cli("translate", tiny_run.path, "--beam-size", "1", "--threads", "1", stdin=data)


@pytest.fixture
def train(run_cli: Any, tmp_path: Path) -> Train:
    """`seq2seq train` on these bytes, to be refused before training begins."""

    def run(source: bytes, target: bytes) -> Any:
        (tmp_path / "s.en").write_bytes(source)
        (tmp_path / "s.de").write_bytes(target)
        sides = ("--source", tmp_path / "s.en", "--target", tmp_path / "s.de")
        return run_cli("train", *sides, "--run-dir", tmp_path / "run", "--preset", "tiny")

    return run


@pytest.fixture
def benchmark(run_cli: Any, tmp_path: Path) -> Train:
    """`seq2seq benchmark` of finished translations of these bytes, which are also the reference."""

    def run(source: bytes, target: bytes) -> Any:
        for name, content in (("b.en", source), ("b.de", target)):
            (tmp_path / name).write_bytes(content)
        files = ("--source", tmp_path / "b.en", "--reference", tmp_path / "b.de")
        return run_cli("benchmark", tmp_path / "b.de", *files, "--metrics", "chrf")

    return run


def refused(result: Any, *parts: str) -> None:
    assert result.code == 1
    assert result.err.count("\n") == 1
    for part in parts:
        assert part in result.err, result.err


def kept(tmp_path: Path, tokenizer: Tokenizer, source: bytes, target: bytes, **data: Any) -> FilterCounts:
    """What training keeps of a corpus."""
    (tmp_path / "k.en").write_bytes(source)
    (tmp_path / "k.de").write_bytes(target)
    config = DataConfig(train_source=str(tmp_path / "k.en"), train_target=str(tmp_path / "k.de"), **data)
    text, counts = build_text_corpus(
        read_pairs(config, "train"), tmp_path / "text", drop_empty=True, drop_duplicates=config.drop_duplicates
    )
    encode = tokenizer.encode_source, tokenizer.encode_target
    build_piece_corpus(text, *encode, config, tmp_path / "pieces", counts, filters=True)
    return counts


@pytest.fixture(scope="module")
def tokenizer(tiny_run: Any) -> Tokenizer:
    return Tokenizer.load(tiny_run.path)


# translate: one line is never the end


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        (LONG, ["line 2 has 300,000 pieces; it is cut to the first 1,024"]),
        (b"cat " * 300_000, ["standard input, line 2: longer than 1,000,000 bytes; the rest of it is left out"]),
        (b"the d\xf6g", ["standard input, line 2: not UTF-8 text (byte 6 of the line)"]),
        (b"the \0 cat", [r"line 2 has text that the model does not know, and that is lost: '\x00'"]),
        (b"\xef\xbb\xbfcat", [r"and that is lost: '\ufeff'"]),
        (b"the cat\r", []),
        (RTL.encode(), ["line 2 has nothing in it that the model knows"]),
        (COMBINED.encode(), ["line 2 has text that the model does not know"]),
        (EMOJI.encode(), ["line 2 has nothing in it that the model knows"]),
        (b"", []),
        (b" \t ", []),
    ],
)
def test_a_bad_line_is_translated_as_well_as_can_be_and_the_others_as_ever(
    translate: Translate, line: bytes, parts: list[str]
) -> None:
    plain = translate(b"the cat\nthe dog\n")
    result = translate(b"the cat\n" + line + b"\nthe dog\n")
    assert result.code == 0
    assert len(result.lines) == 3
    assert [result.lines[0], result.lines[2]] == plain.lines
    told = [text for text in result.err.splitlines() if "runs into a loop" not in text]
    assert bool(told) == bool(parts), result.err
    for part in parts:
        assert part in result.err
    if not line.strip():
        assert result.lines[1] == ""


def test_a_byte_order_mark_and_carriage_returns_are_no_text(translate: Translate) -> None:
    assert translate(b"\xef\xbb\xbfthe cat\r\nthe dog\r\n").out == translate(b"the cat\nthe dog\n").out


def test_nothing_and_empty_lines_give_nothing_and_empty_lines(translate: Translate) -> None:
    assert (translate(b"").out, translate(b"\n\n\n").out) == ("", "\n\n\n")
    assert translate(b"").code == translate(b"\n\n\n").code == 0


def test_of_a_gzip_cut_short_whole_lines_are_translated_first(translate: Translate) -> None:
    packed = gzip.compress(os.urandom(300_000).hex().encode() + b"\nthe cat\n" * 4, 1)
    whole = gzip.compress(b"the cat\n" * 4)
    result = translate(whole + packed[:-10_000])
    assert result.code == 1
    assert len(result.lines) == 4
    assert "standard input, line 5: damaged gzip" in result.err.splitlines()[-1]


def test_a_line_without_an_end_takes_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading_module, "MAX_LINE_BYTES", 10)
    path, told = tmp_path / "x", list[str]()
    path.write_bytes("é".encode() * 40 + b"\nnext\n" + b"y" * 30)
    assert list(read_lines(path, told.append)) == ["é" * 5, "next", "y" * 10]
    path.write_bytes(b"x" + "é".encode() * 40)
    assert list(read_lines(path, told.append)) == ["x" + "é" * 4]  # not half of one more
    assert len(told) == 3
    with gzip.open(tmp_path / "zeros.gz", "wb", compresslevel=1) as file:
        for _ in range(30):
            file.write(bytes(1_000_000))
    with open(tmp_path / "zeros.gz", "rb") as stream:
        assert [len(line) for line in lines_of(stream, "zeros", told.append)] == [10]


def test_long_lines_come_in_small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options_module, "STREAM_CHARACTERS", 10)
    seen: list[list[str]] = []

    def work(lines: list[str], start: int) -> list[str]:
        assert start == sum(map(len, seen))
        seen.append(lines)
        return lines

    lines = ["aaaa"] * 7 + ["b" * 30, "c"]
    assert list(options_module.in_windows(lines, work)) == lines
    assert [len(window) for window in seen] == [3, 3, 2, 1]


# train: what cannot be meant is refused by file and line, what is only odd is dropped and counted


@pytest.mark.parametrize(
    ("source", "target", "parts"),
    [
        (b"a\n" + b"x" * 1_100_000 + b"\n", b"b\nc\n", ["s.en, line 2: longer than 1,000,000 bytes"]),
        (b"a\nd\xf6g\n", b"b\nc\n", ["s.en, line 2: not UTF-8 text (byte 2 of the line)", "iconv"]),
        ("für".encode("utf-16"), b"b\n", ["s.en, line 1: not UTF-8", "iconv -f UTF-16 -t UTF-8 FILE"]),
        (b"", b"", ["s.en and ", "s.de: no sentence pairs to train on (0 pairs read"]),
        (b"\n\n", b"\n\n", ["s.en and ", "no sentence pairs to train on (2 pairs read, 0 kept; dropped: 2 empty)"]),
        (b"a\nb\n", b"a\n", ["s.en has 2 lines", "s.de has 1", "same number"]),
        (gzip.compress(b"a\n" * 99_999)[:-30], b"b\n" * 99_999, ["s.en, line ", "damaged gzip"]),
    ],
)
def test_training_refuses_what_cannot_be_meant(train: Train, source: bytes, target: bytes, parts: list[str]) -> None:
    refused(train(source, target), *parts)


@pytest.mark.parametrize("split", ["valid", "test"])
def test_training_refuses_held_out_pairs_that_are_all_blank_and_counts_others(
    run_cli: Any, tmp_path: Path, split: str
) -> None:
    def train(run: str, source: str, target: str) -> Any:
        text = "the cat\nthe dog\n" * 20
        for name, content in (("s.en", text), ("s.de", text), ("h.en", source), ("h.de", target)):
            (tmp_path / name).write_text(content)
        sides = ["--source", tmp_path / "s.en", "--target", tmp_path / "s.de"]
        if split == "valid":
            sides += ["--valid-source", tmp_path / "h.en", "--valid-target", tmp_path / "h.de"]
        settings = ["tokenizer.vocab_size=20", "training.max_steps=1"]
        if split == "test":
            settings += [f"data.test_source={tmp_path / 'h.en'}", f"data.test_target={tmp_path / 'h.de'}"]
        options = [part for one in settings for part in ("--set", one)]
        return run_cli("train", *sides, "--run-dir", tmp_path / run, "--preset", "tiny", *options)

    refused(train("a", "the cat\n\n", " \nthe dog\n"), "h.en and ", f"2 pairs of the {split} set has an empty side")
    assert not (tmp_path / "a").exists()
    result = train("b", "the cat\n\n", "the cat\nthe dog\n")
    assert result.code == 0
    assert "h.de: pairs with an empty side, which count in the scores: 1 of 2" in result.err


def test_training_drops_and_counts_what_is_only_odd(tmp_path: Path, tokenizer: Tokenizer) -> None:
    lines = [b"the cat", LONG, b"", b"the cat", b"the \0 cat", RTL.encode(), EMOJI.encode(), COMBINED.encode()]
    text = b"\xef\xbb\xbf" + b"\r\n".join(lines) + b"\r\n"
    counts = kept(tmp_path, tokenizer, text, text)
    assert (counts.read, counts.empty, counts.too_long_source, counts.duplicate) == (8, 1, 1, 0)
    assert counts.kept == 6  # duplicates and text that is all unknown are kept
    assert kept(tmp_path, tokenizer, text, text, drop_duplicates=True).duplicate == 1
    config = DataConfig(train_source=str(tmp_path / "k.en"), train_target=str(tmp_path / "k.de"))
    first, *_, last = list(read_pairs(config, "train"))
    assert first == ("the cat", "the cat") and last == (COMBINED, COMBINED)


# benchmark: scores are of exactly the lines that were given


@pytest.mark.parametrize(
    ("source", "target", "parts"),
    [
        (b"a\nd\xf6g\n", b"b\nc\n", ["b.en, line 2: not UTF-8"]),
        (b"a\n", b"x" * 1_100_000, ["b.de, line 1: longer than"]),
        (b"", b"", ["b.en: no lines"]),
        (b"a\nb\n", b"a\n", ["b.en has 2 lines", "b.de has 1"]),
        (gzip.compress(b"a\n" * 99_999)[:-30], b"b\n" * 99_999, ["b.en, line ", "damaged gzip"]),
    ],
)
def test_the_benchmark_refuses_what_cannot_be_meant(
    benchmark: Train, source: bytes, target: bytes, parts: list[str]
) -> None:
    refused(benchmark(source, target), *parts)


def test_the_benchmark_says_that_it_scores_blank_lines(benchmark: Train) -> None:
    result = benchmark(b"a cat\n\n\n", b"eine Katze\n \nx\n")
    assert result.code == 0
    source, reference, _ = result.err.splitlines()
    assert "b.en: 2 of 3 lines are blank" in source and "b.de: 1 of 3 lines are blank" in reference


def test_the_benchmark_takes_odd_text_as_it_is(benchmark: Train) -> None:
    text = "\n".join(["the cat", RTL, COMBINED, EMOJI, "a \0 b", "the cat"]).encode()
    result = benchmark(b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n"), text)
    assert (result.code, result.err) == (0, "scoring 6 lines by chrf\n")


def test_a_dataset_that_is_a_folder_is_found_beside_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from seq2seq.recipe import load_config

    (tmp_path / "corpus").mkdir()
    (tmp_path / "recipe.toml").write_text('[data]\ndataset = "corpus"\n', encoding="utf-8")
    assert load_config(tmp_path / "recipe.toml").data.dataset == str(tmp_path / "corpus")
    for name in ("wmt14", "someone/corpus"):
        (tmp_path / "recipe.toml").write_text(f'[data]\ndataset = "{name}"\n', encoding="utf-8")
        assert load_config(tmp_path / "recipe.toml").data.dataset == name
    (tmp_path / "recipe.toml").write_text('[data]\ndataset = "./absent"\n', encoding="utf-8")
    assert load_config(tmp_path / "recipe.toml").data.dataset == str(tmp_path / "absent")
    monkeypatch.chdir(tmp_path)
    assert load_config(None, overrides=["data.dataset=corpus"]).data.dataset == str(tmp_path / "corpus")
