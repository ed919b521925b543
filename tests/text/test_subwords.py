"""Random segmentations: how often each is drawn, and that nothing but the sentences and the generator decides them."""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Iterator
from itertools import product
from typing import Any, Literal

import numpy as np
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

import seq2seq.text.subwords as subwords
from seq2seq.config import TokenizerConfig
from seq2seq.text.subwords import SubwordSampler
from seq2seq.text.tokenizer import BOS, EOS, PAD, UNK, Tokenizer, TokenizerError

Algorithm = Literal["bpe", "unigram"]

STEMS = ["low", "new", "wid", "weit", "häuf", "öff", "Tür", "Wett", "12"]
WORDS = [stem + ending for stem in STEMS for ending in ("er", "est", "en", "ig", "ung")]
LINES = [" ".join(WORDS[(i * k) % len(WORDS)] for k in range(1, 3 + i % 7)) for i in range(1, 120)]


def model(algorithm: str, vocab_size: int = 90, **options: Any) -> sentencepiece.SentencePieceProcessor:
    output = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES), model_writer=output, model_type=algorithm, vocab_size=vocab_size,
        hard_vocab_limit=False, normalization_rule_name="identity", character_coverage=1.0,
        pad_id=PAD, unk_id=UNK, bos_id=BOS, eos_id=EOS, minloglevel=2, **options,
    )  # fmt: skip
    return sentencepiece.SentencePieceProcessor(model_proto=output.getvalue())


Processor = sentencepiece.SentencePieceProcessor


@pytest.fixture(scope="module")
def bpe() -> Processor:
    return model("bpe")


@pytest.fixture(scope="module")
def unigram() -> Processor:
    return model("unigram")


@pytest.fixture(scope="module", params=["bpe", "unigram"])
def processor(request: pytest.FixtureRequest) -> Processor:
    return request.getfixturevalue(request.param)


def encode(processor: Processor, lines: list[str]) -> list[np.ndarray]:
    return [np.array(ids, np.int32) for ids in processor.encode(lines)] if lines else []


def draw(sampler: SubwordSampler, processor: Processor, lines: list[str], seed: int) -> list[list[int]]:
    """Samples of lines, as lists of ids."""
    pieces, lengths = sampler.sample(encode(processor, lines), np.random.default_rng(seed))
    assert pieces.dtype == lengths.dtype == np.int32
    assert len(lengths) == len(lines) and lengths.sum() == len(pieces)
    return [part.tolist() for part in np.split(pieces, np.cumsum(lengths)[:-1])] if lines else []


strengths = st.floats(0.01, 1.0)
words = st.sampled_from(WORDS) | st.text("".join(WORDS), min_size=1, max_size=8)
sentences = st.lists(words, min_size=1, max_size=8).map(" ".join)
characters = st.characters(exclude_categories=["Cs"])
any_text = st.lists(words | st.text(characters, max_size=6), max_size=5).map(" ".join)


# What is drawn


@settings(deadline=None, max_examples=60)
@given(lines=st.lists(sentences, max_size=5), strength=strengths, seed=st.integers(0, 2**70))
def test_samples_decode_to_the_text(processor: Processor, lines: list[str], strength: float, seed: int) -> None:
    samples = draw(SubwordSampler(processor, strength), processor, lines, seed)
    assert [processor.decode(ids) for ids in samples] == lines
    assert not {PAD, UNK, BOS, EOS} & {i for ids in samples for i in ids}


@settings(deadline=None, max_examples=60)
@given(lines=st.lists(any_text, max_size=5), strength=strengths)
def test_unknown_text_stays_unknown(processor: Processor, lines: list[str], strength: float) -> None:
    plain = processor.encode(lines) if lines else []
    samples = draw(SubwordSampler(processor, strength), processor, lines, 1)
    assert [processor.decode(ids) for ids in samples] == [processor.decode(ids) for ids in plain]
    assert [ids.count(UNK) for ids in samples] == [ids.count(UNK) for ids in plain]
    assert not {PAD, BOS, EOS} & {i for ids in samples for i in ids}


def test_samples_are_many(processor: Processor) -> None:
    sampler = SubwordSampler(processor, 0.2)
    one, other = (draw(sampler, processor, LINES, seed) for seed in (1, 2))
    assert sum(a != b for a, b in zip(one, other, strict=True)) > len(LINES) // 2
    assert sum(map(len, one)) > sum(map(len, processor.encode(LINES)))


@settings(deadline=None, max_examples=60)
@given(lines=st.lists(any_text, max_size=5))
def test_bpe_without_dropout_is_that_of_sentencepiece(bpe: Processor, lines: list[str]) -> None:
    plain = bpe.encode(lines) if lines else []
    assert draw(SubwordSampler(bpe, 1e-12), bpe, lines, 1) == plain


def test_bpe_with_all_merges_left_out_is_characters(bpe: Processor) -> None:
    samples = draw(SubwordSampler(bpe, 1.0), bpe, LINES, 1)
    written = [[bpe.id_to_piece(i) for i in ids] for ids in samples]
    assert written == [list("▁" + line.replace(" ", "▁")) for line in LINES]


def assert_drawn(drawn: Counter[tuple[int, ...]], expected: dict[tuple[int, ...], float]) -> None:
    """Within four and a half standard deviations each."""
    count = drawn.total()
    assert abs(sum(expected.values()) - 1.0) < 1e-9
    assert drawn.keys() <= expected.keys()
    for ids, chance in expected.items():
        assert abs(drawn[ids] - count * chance) < 4.5 * math.sqrt(count * chance * (1 - chance)) + 1


@pytest.mark.parametrize("word", ["lowest", "weitung", "Türer", "newest"])
@pytest.mark.parametrize("strength", [0.1, 0.5])
def test_bpe_dropout_is_that_of_the_paper(bpe: Processor, strength: float, word: str) -> None:
    """Provilkov et al. 2020, algorithm 1, taken literally: every set of merges that may be left out at a step."""
    pieces = {bpe.id_to_piece(i): i for i in range(4, bpe.get_piece_size())}

    def outcomes(texts: tuple[str, ...]) -> Counter[tuple[str, ...]]:
        merges = [place for place in range(len(texts) - 1) if texts[place] + texts[place + 1] in pieces]
        merges.sort(key=lambda place: (-bpe.get_score(pieces[texts[place] + texts[place + 1]]), place))
        found: Counter[tuple[str, ...]] = Counter()
        for left_out in product([True, False], repeat=len(merges)):
            chance = math.prod(strength if out else 1 - strength for out in left_out)
            remaining = [place for place, out in zip(merges, left_out, strict=True) if not out]
            if not remaining:
                found[texts] += chance
                continue
            place = remaining[0]
            after = outcomes((*texts[:place], texts[place] + texts[place + 1], *texts[place + 2 :]))
            for ids, part in after.items():
                found[ids] += chance * part
        return found

    (plain,) = encode(bpe, [word])
    assert len(SubwordSampler(bpe, strength)._vocabulary.runs(plain, np.array([len(plain)]))) == 1
    expected = {tuple(pieces[text] for text in texts): p for texts, p in outcomes(tuple("▁" + word)).items()}
    assert len(expected) > 2
    assert_drawn(Counter(map(tuple, draw(SubwordSampler(bpe, strength), bpe, [word] * 6000, 1))), expected)


@pytest.mark.parametrize("word", ["lowest", "weitung", "Türer", "newest"])
@pytest.mark.parametrize("strength", [0.1, 0.5, 1.0])
def test_unigram_samples_follow_the_smoothed_probabilities(unigram: Processor, strength: float, word: str) -> None:
    """Kudo 2018, section 3.2: p(x)^alpha over the sum of it for all segmentations."""
    pieces = {unigram.id_to_piece(i): i for i in range(4, unigram.get_piece_size())}

    def segmentations(text: str) -> Iterator[tuple[int, ...]]:
        if not text:
            yield ()
        for end in range(1, len(text) + 1):
            if text[:end] in pieces:
                yield from ((pieces[text[:end]], *rest) for rest in segmentations(text[end:]))

    weights = {ids: math.exp(strength * sum(map(unigram.get_score, ids))) for ids in segmentations("▁" + word)}
    expected = {ids: weight / sum(weights.values()) for ids, weight in weights.items()}
    assert len(expected) > 1
    assert_drawn(Counter(map(tuple, draw(SubwordSampler(unigram, strength), unigram, [word] * 6000, 1))), expected)


def test_words_are_drawn_apart(processor: Processor) -> None:
    """The same word twice in a sentence, and in the next: all combinations of segmentations come."""
    (plain,) = encode(processor, ["weiter"])
    sampler = SubwordSampler(processor, 0.4)
    samples = draw(sampler, processor, ["weiter weiter"] * 3000, 1)
    alone = {tuple(ids) for ids in draw(sampler, processor, ["weiter"] * 3000, 2)}
    assert len(alone) > 2 and tuple(plain.tolist()) in alone
    common = Counter(map(tuple, draw(sampler, processor, ["weiter"] * 3000, 3))).most_common(2)
    for one, other in product([ids for ids, _ in common], repeat=2):
        assert [*one, *other] in samples


# What decides it


def test_samples_do_not_depend_on_what_was_sampled_before(
    processor: Processor, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [draw(SubwordSampler(processor, 0.2), processor, LINES, seed) for seed in range(3)]
    used = SubwordSampler(processor, 0.2)
    draw(used, processor, LINES[::-1], 9)
    assert [draw(used, processor, LINES, seed) for seed in range(3)] == expected
    assert [draw(used, processor, LINES, seed) for seed in (2, 1, 0)] == expected[::-1]
    monkeypatch.setattr(subwords, "MAX_EDGES", 50)  # begins anew every time
    assert [draw(used, processor, LINES, seed) for seed in range(3)] == expected


def test_memory_is_given_back_now_and_then(processor: Processor, monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = SubwordSampler(processor, 0.2)
    draw(sampler, processor, LINES, 1)
    full = sampler._graph.num_edges
    monkeypatch.setattr(subwords, "MAX_EDGES", full - 1)
    draw(sampler, processor, LINES[:1], 1)
    assert sampler._graph.num_edges < full / 2


def test_no_sentences_and_empty_sentences_are_fine(processor: Processor) -> None:
    sampler = SubwordSampler(processor, 0.2)
    for sentences in ([], [[]], [[], []]):
        pieces, lengths = sampler.sample([np.array(ids, np.int32) for ids in sentences], np.random.default_rng(1))
        assert len(pieces) == 0 and lengths.tolist() == [0] * len(sentences)
    plain = encode(processor, ["lowest", "", "newer", ""])
    pieces, lengths = sampler.sample(plain, np.random.default_rng(1))
    assert (lengths > 0).tolist() == [True, False, True, False]
    assert lengths.sum() == len(pieces)


# Models of all kinds


@pytest.mark.parametrize("algorithm", ["bpe", "unigram"])
def test_with_byte_fallback_every_sample_comes_back(algorithm: Algorithm) -> None:
    config = TokenizerConfig(algorithm=algorithm, vocab_size=400, byte_fallback=True, max_sentences=1000)
    processor = Tokenizer.learn(config, LINES, LINES, seed=1).source
    samples = draw(SubwordSampler(processor, 0.1), processor, ["lower Ω 猫lowest newest"] * 50, 1)
    assert all(UNK not in ids and processor.decode(ids) == "lower Ω 猫lowest newest" for ids in samples)
    assert len(set(map(tuple, samples))) > 2


@pytest.mark.parametrize("algorithm", ["bpe", "unigram"])
def test_symbols_that_the_user_defined_stay_whole(algorithm: Algorithm) -> None:
    """Those too whose characters are pieces, as if they had been merged."""
    defined = ["<low>", "<new>", "lo", "we"]
    processor = model(algorithm, user_defined_symbols=defined)
    lines = ["lower <low> newest", "<new> <low>er", "lowest"]

    def symbols(ids: list[int]) -> list[str]:
        return [piece for piece in map(processor.id_to_piece, ids) if piece in defined]

    plain = [symbols(ids) for ids in processor.encode(lines)]
    assert plain == [["lo", "we", "<low>", "we"], ["<new>", "<low>"], ["lo", "we"]]
    for seed in range(20):
        samples = draw(SubwordSampler(processor, 0.5), processor, lines, seed)
        assert [processor.decode(ids) for ids in samples] == lines
        assert [symbols(ids) for ids in samples] == plain


@pytest.mark.parametrize("algorithm", ["bpe", "unigram"])
@pytest.mark.parametrize("options", [{"split_by_whitespace": False}, {"treat_whitespace_as_suffix": True}])
def test_pieces_may_reach_over_spaces(algorithm: Algorithm, options: dict[str, bool]) -> None:
    processor = model(algorithm, 300, **options)
    samples = draw(SubwordSampler(processor, 0.2), processor, LINES, 1)
    plain = processor.encode(LINES)
    assert [processor.decode(ids) for ids in samples] == [processor.decode(ids) for ids in plain]
    assert samples != plain
    if algorithm == "bpe":
        assert draw(SubwordSampler(processor, 1e-12), processor, LINES, 1) == plain


def test_a_run_without_end_is_sampled_in_parts(processor: Processor) -> None:
    line = "weitenwidest" * 150
    for ids in draw(SubwordSampler(processor, 0.3), processor, [line, line, "low"], 1)[:2]:
        assert processor.decode(ids) == line


@pytest.mark.parametrize("algorithm", ["char", "word"])
def test_a_model_with_but_one_segmentation_is_told(algorithm: str) -> None:
    with pytest.raises(TokenizerError, match=r"tokenizer\.sample_source") as caught:
        SubwordSampler(model(algorithm), 0.1)
    assert "\n" not in str(caught.value)
