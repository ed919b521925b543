"""Learning SentencePiece models, reading them back, and refusing those that do not fit."""

from __future__ import annotations

import io
import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import sentencepiece
from helpers import message_of
from hypothesis import given, settings
from hypothesis import strategies as st

import seq2seq.text.tokenizer as tokenizer_module
from seq2seq.config import ConfigError, TokenizerConfig
from seq2seq.recipe import build_config
from seq2seq.text.special_ids import with_special_ids
from seq2seq.text.tokenizer import BOS, EOS, PAD, UNK, Tokenizer, TokenizerError, read_model

Algorithm = Literal["bpe", "unigram"]

ALPHABET = "abcdeghiklmnorstuvABDKMäöüÄÖÜßéØ0123456789.,!?-'"


def corpus(seed: int, count: int = 300) -> list[str]:
    """Lines of made-up words that hold every character of ALPHABET, with case, diacritics and digits."""
    random_ = random.Random(seed)
    words = ["".join(random_.choices(ALPHABET, k=random_.randint(1, 8))) for _ in range(60)]
    return [" ".join(random_.choices(words, k=random_.randint(2, 9))) for _ in range(count)] + [ALPHABET]


SOURCES, TARGETS = corpus(1), corpus(2)


def learn(
    sources: list[str] = SOURCES,
    targets: list[str] = TARGETS,
    *,
    algorithm: Algorithm = "bpe",
    vocab_size: int = 200,
    shared: bool = True,
    byte_fallback: bool = False,
    character_coverage: float = 1.0,
    seed: int = 1,
) -> Tokenizer:
    config = TokenizerConfig(
        algorithm=algorithm, vocab_size=vocab_size, shared=shared, byte_fallback=byte_fallback, max_sentences=1000,
        character_coverage=character_coverage,
    )  # fmt: skip
    return Tokenizer.learn(config, sources, targets, seed=seed)


@pytest.fixture(scope="module", params=["bpe", "unigram"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return learn(algorithm=request.param)


@pytest.fixture(scope="module")
def separate() -> Tokenizer:
    return learn(shared=False)


@pytest.fixture(scope="module")
def with_bytes() -> Tokenizer:
    return learn(vocab_size=400, byte_fallback=True)


def foreign_model(*, pad: int = 3, unk: int = 0, bos: int = 1, eos: int = 2, **more: Any) -> bytes:
    """A model with SentencePiece's own special ids, unless told otherwise."""
    output = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SOURCES), model_writer=output, pad_id=pad, unk_id=unk, bos_id=bos, eos_id=eos,
        minloglevel=2, **{"model_type": "bpe", "vocab_size": 120, **more},
    )  # fmt: skip
    return output.getvalue()


def fails(pattern: str, work: Callable[[], object]) -> str:
    return message_of(TokenizerError, work, pattern=pattern)


# Text to pieces and back


def test_special_ids_are_pad_unk_bos_eos(tokenizer: Tokenizer, separate: Tokenizer) -> None:
    assert (PAD, UNK, BOS, EOS) == (0, 1, 2, 3)
    for processor in (tokenizer.source, tokenizer.target, separate.source, separate.target):
        ids = processor.pad_id(), processor.unk_id(), processor.bos_id(), processor.eos_id()
        assert ids == (0, 1, 2, 3)


sentences = st.lists(st.text(ALPHABET, min_size=1, max_size=10), min_size=0, max_size=8).map(" ".join)


@settings(deadline=None)
@given(lines=st.lists(sentences, max_size=5))
def test_decoding_gives_back_what_was_encoded(tokenizer: Tokenizer, lines: list[str]) -> None:
    """Case and diacritics included: nothing is normalised unless configured."""
    assert tokenizer.decode(tokenizer.encode_target(lines)) == lines


@settings(deadline=None)
@given(line=st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_encoding_any_text_gives_pieces_of_the_vocabulary_and_no_control_ids(tokenizer: Tokenizer, line: str) -> None:
    (ids,) = tokenizer.encode_source([line])
    assert all(type(i) is int and i < tokenizer.source_vocab_size for i in ids)
    assert not {PAD, BOS, EOS} & set(ids)


@settings(deadline=None)
@given(line=st.text(st.characters(categories=["L", "N", "P"], exclude_characters="▁"), max_size=12))
def test_with_byte_fallback_every_word_comes_back(with_bytes: Tokenizer, line: str) -> None:
    (ids,) = with_bytes.encode_target([line])
    assert UNK not in ids
    assert with_bytes.decode([ids]) == [line]


def test_a_line_encodes_the_same_alone_as_among_others(tokenizer: Tokenizer) -> None:
    together = tokenizer.encode_source(SOURCES[:20])
    assert together == [tokenizer.encode_source([line])[0] for line in SOURCES[:20]]
    assert tokenizer.encode_source([]) == []


def test_surrounding_and_repeated_spaces_do_not_matter(tokenizer: Tokenizer) -> None:
    plain, spaced = tokenizer.encode_source(["ab cd", "  ab   cd "])
    assert plain == spaced


def test_half_a_character_is_unknown_text(tokenizer: Tokenizer) -> None:
    broken, marked = tokenizer.encode_source(["ab\ud800", "ab?"])
    assert broken == marked


def test_unknown_text_has_a_name_where_one_character_becomes_several_pieces(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    spans = [(0, 0), (0, 0), (0, 0), (0, 1), (1, 3)]  # ½ as ▁ 1 ⁄ 2
    monkeypatch.setattr(tokenizer_module, "_spans", lambda processor, line: spans)
    for side in ("source", "target"):
        assert tokenizer.unknown_places("½ x", [7, 8, UNK, 9, 10, EOS], side) == {2: "½"}
        assert tokenizer.unknown_text("½ x", [7, 8, UNK, UNK, 10], side) == ["½"]
    assert tokenizer.unknown_places("½ x", [7, 8, 9]) == {}


def test_special_ids_vanish_when_decoding_and_the_unknown_piece_shows(tokenizer: Tokenizer) -> None:
    (ids,) = tokenizer.encode_target(["ab cd"])
    assert tokenizer.decode([[BOS, *ids, EOS, PAD, PAD], [], [EOS]]) == ["ab cd", "", ""]
    assert "⁇" in tokenizer.decode([[*ids, UNK]])[0]
    assert tokenizer.decode([]) == []


def test_pieces_are_written_as_in_the_model(tokenizer: Tokenizer, separate: Tokenizer) -> None:
    line = SOURCES[0]
    for written in (
        tokenizer.source_pieces(tokenizer.encode_source([line])[0]),
        separate.source_pieces(separate.encode_source([line])[0]),
        separate.target_pieces(separate.encode_target([line])[0]),
    ):
        assert "".join(written) == "▁" + line.replace(" ", "▁")


# Learning


@pytest.mark.parametrize("algorithm", ["bpe", "unigram"])
def test_the_vocabulary_size_is_reached_where_the_text_allows(algorithm: Algorithm) -> None:
    learned = learn(algorithm=algorithm, vocab_size=90)
    assert learned.source_vocab_size == learned.target_vocab_size == 90
    separate = learn(SOURCES, ["ab ba"], algorithm=algorithm, vocab_size=90, shared=False)
    assert separate.source_vocab_size == 90 > separate.target_vocab_size


@pytest.mark.parametrize("algorithm", ["bpe", "unigram"])
def test_the_vocabulary_size_is_a_ceiling(algorithm: Algorithm) -> None:
    small = learn(["ein Hund", "eine Katze"], ["a dog", "a cat"], algorithm=algorithm, vocab_size=8000)
    assert 4 < small.source_vocab_size < 100
    assert small.decode(small.encode_target(["a Hund"])) == ["a Hund"]


@pytest.mark.parametrize("algorithm", ["bpe", "unigram"])
@pytest.mark.parametrize("shared", [True, False])
def test_learning_is_a_function_of_text_and_seed(algorithm: Algorithm, shared: bool) -> None:
    one, again = (learn(algorithm=algorithm, shared=shared, vocab_size=150, seed=7) for _ in range(2))
    assert one.files() == again.files()
    other = learn(TARGETS, corpus(3), algorithm=algorithm, shared=shared, vocab_size=150, seed=7)
    assert other.files() != one.files()


def test_learning_reads_streams_once() -> None:
    config = TokenizerConfig(vocab_size=200, max_sentences=1000)
    streamed = Tokenizer.learn(config, iter(SOURCES), iter(TARGETS), seed=1)
    assert streamed.content_hash() == learn().content_hash()


def test_a_shared_model_learns_from_both_sides_and_separate_ones_from_their_own() -> None:
    latin, greek = ["abab ab", "ba bab"] * 20, ["γδ δγ", "δδ γγ"] * 20
    shared = learn(latin, greek)
    assert shared.shared and shared.source is shared.target
    assert UNK not in shared.encode_source(["ab γδ"])[0]
    separate = learn(latin, greek, shared=False)
    assert not separate.shared
    assert UNK not in separate.encode_source(["ab"])[0] + separate.encode_target(["γδ"])[0]
    assert UNK in separate.encode_source(["γ"])[0] and UNK in separate.encode_target(["a"])[0]


def test_normalisation_happens_only_when_configured() -> None:
    config = TokenizerConfig(vocab_size=200, normalization="nmt_nfkc_cf", max_sentences=1000)
    folded = Tokenizer.learn(config, SOURCES, TARGETS, seed=1)
    assert folded.decode(folded.encode_target(["ÄB １"])) == ["äb 1"]


def test_a_nul_in_the_text_does_not_stop_learning() -> None:
    assert learn(["ein\0 Hund", "\0"], ["a\0dog", "x"]).source_vocab_size > 4


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("lines", [[], ["", " ", "\t \u2028"], ["\0"], ["▁"]])
def test_text_without_a_character_is_told(lines: list[str], shared: bool) -> None:
    fails("no text", lambda: learn(lines, lines, shared=shared))


@pytest.mark.parametrize("algorithm", ["bpe", "unigram"])
def test_a_vocabulary_smaller_than_the_alphabet_names_the_field(algorithm: Algorithm) -> None:
    message = fails(r"tokenizer\.vocab_size = 20 ", lambda: learn(algorithm=algorithm, vocab_size=20))
    needed = re.search(r"raise it to (\d+) or more, or lower tokenizer\.character_coverage", message)
    assert needed is not None
    assert learn(algorithm=algorithm, vocab_size=int(needed[1])).source_vocab_size == int(needed[1])
    too_few = int(needed[1]) - 1
    fails(
        r"smaller than.*raise it to [\d,]+ or more, or lower tokenizer.character_coverage",
        lambda: learn(algorithm=algorithm, vocab_size=too_few),
    )
    fails(r"or more$", lambda: learn(algorithm=algorithm, vocab_size=16, character_coverage=0.98))


def test_a_sample_smaller_than_sentencepiece_takes_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match=r"tokenizer\.max_sentences = 100"):
        build_config({"tokenizer": {"max_sentences": 100}})
    sampled = Tokenizer.learn(TokenizerConfig(vocab_size=150, max_sentences=101), SOURCES, TARGETS, seed=1)
    assert sampled.source_vocab_size > 4


SAMPLE = """
import sys
from seq2seq.config import TokenizerConfig
from seq2seq.text.special_ids import with_special_ids
from seq2seq.text.tokenizer import Tokenizer
lines = [f"{'abcdefgh'[i % 8]}{'klmnop'[i % 6]} {'rstuvwx'[i % 7]}{i % 5}" for i in range(500)]
lines = [line * 400 if i % 3 == 0 else line for i, line in enumerate(lines)]  # which are cut into several
for shared in (True, False):
    config = TokenizerConfig(vocab_size=60, max_sentences=120, algorithm=sys.argv[1], shared=shared)
    print(Tokenizer.learn(config, lines, lines[::-1], seed=int(sys.argv[2]), pairs=500).content_hash())
"""


@pytest.mark.parametrize("algorithm", ["bpe", "unigram"])
def test_a_sample_to_learn_from_is_the_seeds_in_every_process(algorithm: str) -> None:
    """SentencePiece's own is not."""

    def learned(seed: int) -> str:
        command = [sys.executable, "-c", SAMPLE, algorithm, str(seed)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    first = learned(1)
    assert first == learned(1) != learned(2)


def test_every_line_is_as_likely_to_be_in_the_sample() -> None:
    lines = [str(i) for i in range(10)]
    drawn = [list(tokenizer_module._sample(lines, 10, 4, seed)) for seed in range(2000)]
    assert all(len(sample) == 4 and sample == sorted(sample) for sample in drawn)
    counts = Counter(line for sample in drawn for line in sample)
    assert all(abs(counts[line] - 800) < 110 for line in lines)  # five standard deviations
    for count, most in ((10, 10), (None, 4)):
        assert list(tokenizer_module._sample(lines, count, most, 1)) == lines


@pytest.mark.parametrize("line", ["猫犬鳥" * 700, "猫 犬鳥 " * 500, "chien " * 1000, "x" * 9000], ids=len)
def test_long_lines_are_learned_from(line: str) -> None:
    """SentencePiece skips lines of more than 4,192 bytes."""
    parts = list(tokenizer_module._cut(line))
    assert "".join(parts) == line and len(parts) > 1
    assert all(len(part.encode()) <= tokenizer_module.MAX_LEARNING_LINE_BYTES for part in parts)
    assert all(part.endswith(" ") for part in parts[:-1]) or " " not in line
    learned = learn([line], ["a"])
    assert UNK not in learned.encode_source([line])[0]


# Files


@pytest.mark.parametrize("shared", [True, False])
def test_files_load_back_to_an_equal_tokenizer(tmp_path: Path, shared: bool) -> None:
    saved = learn(shared=shared, vocab_size=150)
    assert set(saved.files()) == ({"tokenizer.model"} if shared else {"source.model", "target.model"})
    for name, content in saved.files().items():
        (tmp_path / name).write_bytes(content)
    loaded = Tokenizer.load(tmp_path)
    assert loaded.shared == shared
    assert loaded.files() == saved.files()
    assert loaded.content_hash() == saved.content_hash()
    assert loaded.encode_source(SOURCES) == saved.encode_source(SOURCES)
    assert loaded.encode_target(TARGETS) == saved.encode_target(TARGETS)


def test_content_hashes_are_equal_exactly_where_models_are(separate: Tokenizer) -> None:
    a, b = separate.source_bytes, separate.target_bytes
    variants = [(a, None), (b, None), (a, b), (b, a), (a, a), (b, b)]
    hashes = [Tokenizer(source, target).content_hash() for source, target in variants]
    assert len(set(hashes)) == len(variants)
    assert hashes == [Tokenizer(bytes(source), target).content_hash() for source, target in variants]
    assert all(len(digits) == 64 for digits in hashes)


def test_existing_models_are_used_instead_of_learning(tmp_path: Path, separate: Tokenizer) -> None:
    source, target = tmp_path / "s.model", tmp_path / "t.model"
    source.write_bytes(separate.source_bytes)
    target.write_bytes(separate.target_bytes)
    one = Tokenizer.learn(TokenizerConfig(source_model=str(source)), [], [], seed=1)
    assert one.files() == {"tokenizer.model": separate.source_bytes}
    config = TokenizerConfig(source_model=str(source), target_model=str(target), shared=False)
    assert Tokenizer.learn(config, [], [], seed=1).files() == separate.files()


@pytest.mark.parametrize(
    ("special", "more"),
    [
        ({}, {}),
        ({"pad": -1}, {}),  # what SentencePiece does unless told otherwise
        ({"pad": 0, "unk": 1, "bos": 3, "eos": 2}, {}),
        ({"pad": 0, "eos": 1, "unk": 2, "bos": -1}, {}),
        ({"pad": -1}, {"byte_fallback": True, "vocab_size": 400, "user_defined_symbols": ["<2de>", "<2fr>"]}),
        ({"pad": -1}, {"bos_piece": "[CLS]", "unk_piece": "[UNK]"}),
        ({"pad": -1}, {"model_type": "unigram", "vocab_size": 90}),
    ],
)
def test_a_model_with_other_special_ids_gets_those_of_here(
    tmp_path: Path, special: dict[str, int], more: dict[str, Any]
) -> None:
    content = foreign_model(**{"pad": 3, **special}, **more)
    path = tmp_path / "foreign.model"
    path.write_bytes(content)
    tokenizer = Tokenizer.learn(TokenizerConfig(source_model=str(path)), [], [], seed=1)
    theirs, ours = sentencepiece.SentencePieceProcessor(model_proto=content), tokenizer.source
    assert (ours.pad_id(), ours.unk_id(), ours.bos_id(), ours.eos_id()) == (PAD, UNK, BOS, EOS)
    missing = -sum(one for one in (theirs.pad_id(), theirs.bos_id()) if one < 0)
    assert ours.get_piece_size() == theirs.get_piece_size() + missing
    pieces = [ours.id_to_piece(i) for i in range(ours.get_piece_size())]
    rest = [theirs.id_to_piece(i) for i in range(theirs.get_piece_size())]
    assert pieces[4:] == [piece for piece in rest if piece not in pieces[:4]]
    for line in [*SOURCES, "<2de> Xylophon ☂ 漢"]:
        found = ours.encode(line)
        assert [ours.id_to_piece(i) for i in found] == theirs.encode(line, out_type=str) or UNK in found
        assert ours.decode(found) == theirs.decode(theirs.encode(line))
    for i in range(4, len(pieces)):
        place = theirs.piece_to_id(pieces[i])
        assert ours.get_score(i) == theirs.get_score(place)
        assert (ours.is_byte(i), ours.is_control(i)) == (theirs.is_byte(place), theirs.is_control(place))
    assert with_special_ids(tokenizer.source_bytes) == tokenizer.source_bytes


def test_a_model_whose_own_piece_has_a_special_name_is_refused_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "foreign.model"
    path.write_bytes(foreign_model(pad=-1, user_defined_symbols=["<pad>"]))
    message = fails(
        "not a special one", lambda: Tokenizer.learn(TokenizerConfig(source_model=str(path)), [], [], seed=1)
    )
    assert (
        message
        == f"{path}: its piece '<pad>' is not a special one: learn it without that among the user-defined symbols"
    )


def test_a_run_folder_with_other_special_ids_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(foreign_model())
    fails(r"needs \(0, 1, 2, 3\)", lambda: Tokenizer.load(tmp_path))


@pytest.mark.parametrize("damage", ["empty", "cut", "text", "zeros"])
def test_a_damaged_model_is_named(tmp_path: Path, separate: Tokenizer, damage: str) -> None:
    good = separate.source_bytes
    bad = {"empty": b"", "cut": good[:-7], "text": b"not a model", "zeros": bytes(100)}[damage]
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "tokenizer.model").write_bytes(bad)
    fails(f"{shared}/tokenizer.model: not a SentencePiece model, or a damaged one", lambda: Tokenizer.load(shared))
    for side, other in (("source", "target"), ("target", "source")):
        folder = tmp_path / side
        folder.mkdir()
        (folder / f"{side}.model").write_bytes(bad)
        (folder / f"{other}.model").write_bytes(good)
        fails(f"{folder}/{side}.model: not a Sent", lambda at=folder: Tokenizer.load(at))
        config = TokenizerConfig(
            source_model=str(folder / "source.model"), target_model=str(folder / "target.model"), shared=False
        )
        fails(f"{folder}/{side}.model: not a Sent", lambda given=config: Tokenizer.learn(given, [], [], seed=1))


def test_a_missing_model_is_named(tmp_path: Path, separate: Tokenizer) -> None:
    fails(f"{tmp_path}/tokenizer.model: .*cannot be read: No such file", lambda: Tokenizer.load(tmp_path))
    (tmp_path / "source.model").write_bytes(separate.source_bytes)
    fails(f"{tmp_path}/target.model: .*cannot be read: No such file", lambda: Tokenizer.load(tmp_path))
    config = TokenizerConfig(source_model=str(tmp_path / "absent.model"))
    fails("absent.model: .*cannot be read", lambda: Tokenizer.learn(config, [], [], seed=1))
    fails("cannot be read: Is a directory", lambda: read_model(tmp_path))


def test_an_oversized_model_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer_module, "MAX_MODEL_BYTES", 1000)
    path = tmp_path / "tokenizer.model"
    path.write_bytes(bytes(1000))
    assert read_model(path) == bytes(1000)
    path.write_bytes(bytes(1001))
    monkeypatch.setattr(Path, "read_bytes", lambda self: pytest.fail("an oversized file was read"))
    fails(f"{path}: 1,001 bytes is too large", lambda: Tokenizer.load(tmp_path))
