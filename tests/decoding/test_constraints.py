"""Searches under constraints against all outputs that there are, on vocabularies of a few pieces."""

import math

import pytest
import torch
from helpers import every_output
from hypothesis import given, settings
from hypothesis import strategies as st

from seq2seq.decoding.beam import beam_search, greedy_search
from seq2seq.decoding.constraints import Apart, Constraints, MinLength, NoRepeat, prefixes
from seq2seq.decoding.ensemble import EnsembleScorer
from seq2seq.decoding.hypotheses import Penalty
from seq2seq.decoding.phrases import Banned, begins_within_a_word, ends_with_a_word
from seq2seq.decoding.repetition import loop_end
from seq2seq.decoding.required import Required, round_the_banks
from seq2seq.decoding.sampling import sample
from seq2seq.decoding.scorer import TransformerScorer
from seq2seq.model.transformer import BOS, EOS

VOCABULARY = 7  # pieces 4, 5 and 6, which are written:
TEXTS = [b"", b"", b"", b"", b" a", b"b", b" c"]
WORD_STARTS = torch.tensor([text.startswith(b" ") for text in TEXTS]) | (torch.arange(VOCABULARY) == EOS)
PHRASES = ["a", "b", "ab", "a c", "c ab", "abb"]


def text_of(pieces):
    return b"".join(TEXTS[piece] for piece in pieces).decode().strip()


@st.composite
def wishes(draw):
    """Constraints, and a function that says whether an output (pieces, ended) has them all."""
    masks, checks = [], []
    if minimum := draw(st.integers(0, 3)):
        masks.append(MinLength(minimum))
        checks.append(lambda pieces: len(pieces) >= minimum)
    if n := draw(st.integers(0, 3)):
        masks.append(NoRepeat(n))
        checks.append(
            lambda pieces: len({pieces[i : i + n] for i in range(len(pieces) - n + 1)}) == max(0, len(pieces) - n + 1)
        )
    if phrases := draw(st.lists(st.sampled_from(PHRASES), max_size=2)):
        banned = Banned(phrases, TEXTS)
        masks.append(banned)
        # What may come next is tried on its own below; here every piece of an output must have been allowed.
        checks.append(lambda pieces: all(pieces[i] not in banned.ruled_out(pieces[:i]) for i in range(len(pieces))))
    required = None
    if phrases := draw(st.lists(st.lists(st.integers(4, 6), min_size=1, max_size=2), max_size=2)):
        required = Required(phrases)
        checks.append(
            lambda pieces: all(
                any(list(pieces[i : i + len(one)]) == one for i in range(len(pieces))) for one in phrases
            )
        )
    return Constraints(tuple(masks), None, required), lambda pieces: all(check(pieces) for check in checks)


@given(
    wished=wishes(), seed=st.integers(0, 10_000), alpha=st.sampled_from([0.0, 0.6, 1.5]), limit=st.integers(1, 4),
    normalization=st.sampled_from(["wu", "power"]),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_a_beam_of_full_width_is_exhaustive_search(make_model, make_source, wished, seed, alpha, limit, normalization):
    constraints, allowed = wished
    model, source = make_model(seed, VOCABULARY), make_source(seed, VOCABULARY, [4])
    everything = every_output(model, source, limit)
    penalty = Penalty(alpha, normalization)
    expected = {
        (pieces, ended): total / penalty(float(len(pieces) + ended))
        for (pieces, ended), total in everything.items()
        if allowed(pieces)
    }
    width = len(everything)
    [found] = beam_search(
        TransformerScorer(model), source, [limit], beam_size=width, n_best=width, length_penalty=alpha,
        length_normalization=normalization, constraints=constraints,
    )  # fmt: skip
    if not expected:  # nothing is like that: what comes is as near as can always be
        assert found
        return
    assert {(h.pieces, h.ended) for h in found} == set(expected)
    for h in found:
        assert h.score == pytest.approx(expected[h.pieces, h.ended], abs=1e-4)
    [[best]] = beam_search(
        TransformerScorer(model), source, [limit], beam_size=width, length_penalty=alpha,
        length_normalization=normalization, constraints=constraints,
    )  # fmt: skip
    assert best.score == pytest.approx(max(expected.values()), abs=1e-4)


@given(pieces=st.lists(st.integers(4, 6), max_size=2), seed=st.integers(0, 100), new_word=st.booleans())
@settings(max_examples=25, deadline=None)
def test_prefixes_are_forced_a_sentence_each_and_their_probabilities_count(
    make_model, make_source, rescore, pieces, seed, new_word
):
    model, source = make_model(seed, VOCABULARY), make_source(seed, VOCABULARY, [4, 4])
    forced = prefixes([pieces, [5]], [new_word, False], WORD_STARTS)
    constraints = Constraints((NoRepeat(1),), forced)
    found = beam_search(
        TransformerScorer(model), source, [4, 4], beam_size=200, n_best=200, length_penalty=0.6, constraints=constraints
    )
    for prefix, hypotheses in zip((tuple(pieces), (5,)), found, strict=True):
        assert {h.pieces[: len(prefix)] for h in hypotheses} == {prefix}
    followers = {h.pieces[len(pieces)] for h in found[0] if len(h.pieces) > len(pieces)}
    assert not new_word or 5 not in followers
    best = [hypotheses[0] for hypotheses in found]
    for h, logs in zip(best, rescore(model, source, best), strict=True):
        assert h.piece_log_probabilities == pytest.approx(logs, abs=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_one_beam_is_greedy_search_and_the_narrowest_sampling(make_model, make_source, seed):
    model, source = make_model(seed, 30), make_source(seed, 30, [3, 9, 1, 6])
    constraints = Constraints((MinLength(4), NoRepeat(2)))
    arguments = {"length_penalty": 0.6, "constraints": constraints}
    beam = [best for [best] in beam_search(model, source, [9, 12, 8, 9], beam_size=1, **arguments)]
    assert [h.pieces for h in greedy_search(model, source, [9, 12, 8, 9], **arguments)] == [h.pieces for h in beam]
    drawn = sample(model, source, [9, 12, 8, 9], seeds=range(4), top_k=1, constraints=constraints)
    assert [h.pieces for h in drawn] == [h.pieces for h in beam]
    assert all(len(h.pieces) >= 4 for h in beam)


def test_constraints_and_the_batch_do_not_mix(make_model, make_source):
    model, lengths = make_model(3, 30, biases={EOS: 2.0}), [3, 9, 1, 6, 4, 7, 2, 5]
    source, limits = make_source(3, 30, lengths), [8, 12, 6, 3, 12, 5, 10, 7]
    forced = [[row + 4] if row % 2 else [] for row in range(8)]

    def search(rows):
        prefix = prefixes([forced[row] for row in rows], [False] * len(rows), torch.ones(30, dtype=torch.bool))
        constraints = Constraints((NoRepeat(2), MinLength(2)), prefix, Required([[9], [7, 8]]))
        width = max(lengths[row] for row in rows)
        return beam_search(
            model, source[rows, :width], [limits[row] for row in rows], beam_size=5, length_penalty=0.6,
            constraints=constraints,
        )  # fmt: skip

    together = search(list(range(8)))
    for row in range(8):
        [alone] = search([row])
        assert [h.pieces for h in alone] == [h.pieces for h in together[row]]


@pytest.mark.parametrize("beam_size", [1, 3, 8])
def test_required_phrases_come_out_of_every_beam(make_model, make_source, rescore, beam_size):
    model, source = make_model(5, 40, biases={EOS: 3.0}), make_source(5, 40, [4, 6, 3])
    required = Required([[10, 11, 12], [20], [11, 30]])
    found = beam_search(
        model, source, [20] * 3, beam_size=beam_size, n_best=beam_size, length_penalty=0.6,
        constraints=Constraints(required=required),
    )  # fmt: skip
    for hypotheses in found:
        assert all(len(required.met(h.pieces)) == 3 for h in hypotheses)
    best = [hypotheses[0] for hypotheses in found]
    for h, logs in zip(best, rescore(model, source, best), strict=True):
        assert h.log_probability == pytest.approx(math.fsum(logs), abs=1e-4)


def test_a_bank_counts_pieces_of_phrases():
    required = Required([[4, 4, 5], [6], [6]])
    assert (required.total, required.phrases) == (4, [[4, 4, 5], [6]])
    assert required.met([4, 6, 4, 5]) == {1}
    assert required.bank(frozenset(), [4, 4, 4]) == 2  # the last two begin the phrase
    assert required.bank(frozenset({1}), [4]) == 2
    order = round_the_banks(torch.tensor([[-1.0, -2, -3, -4, -math.inf]]), torch.tensor([[0, 0, 1, 1, 2]]))
    assert order.tolist() == [[2, 0, 3, 1, 4]]


def test_where_nothing_is_left_the_rest_is_obeyed(make_model, make_source):
    model, source = make_model(1, 6), make_source(1, 6, [3])  # two pieces: no third can be new
    [[best]] = beam_search(
        model, source, [9], beam_size=4, length_penalty=0.6, constraints=Constraints((MinLength(5), NoRepeat(1)))
    )
    assert len(set(best.pieces)) == len(best.pieces) <= 2
    [drawn] = sample(model, source, [9], seeds=[1], constraints=Constraints((MinLength(5), NoRepeat(1))))
    assert set(drawn.pieces) == {4, 5}
    assert drawn.ended


@given(
    phrases=st.lists(
        st.sampled_from([*PHRASES, "ab a", "c.", "ä", "aä", ".", ". a", "×", "×a", "猫", "猫犬", "a犬", "ก", "ี", "개"]),
        min_size=1,
        max_size=3,
    ),
    data=st.data(),
)
@settings(max_examples=150, deadline=None)
def test_no_way_through_the_pieces_writes_a_banned_phrase(phrases, data):
    texts = [b"", b"", b"", b"", b" a", b"b", b" c", b".", b" ", b" ab", b"a", "ä".encode(), b"\xc3", b"\xa4", b"c  a"]
    texts += [b"\x97"]  # the second byte of "×"
    texts += [text.encode() for text in ("猫", " 犬", "犬", "犬猫", "ก", "กี", "ี", "개", " 개", "가")] + [
        "猫".encode()[:2],
        "猫".encode()[2:],
    ]
    banned, history = Banned(phrases, texts), []
    for _ in range(data.draw(st.integers(0, 10))):
        left = sorted(set(range(EOS + 1, len(texts))) - set(banned.ruled_out(history)))
        history.append(data.draw(st.sampled_from(left)))
    assert not banned.found_in(b"".join(texts[piece] for piece in history).decode("utf-8", "replace"))


def test_what_is_banned_are_whole_words():
    texts = [b"", b"", b"", b"", b" cat", b" ca", b"t", b" cats", b"cat", b" con", b"(", b" the", b" "]
    names = {text.decode(): i for i, text in enumerate(texts) if text}

    def out(phrase, *before):
        return {texts[i].decode() for i in Banned([phrase], texts).ruled_out([names[one] for one in before])}

    assert out("cat") == {" cat", "cat"}
    assert out("cat", " ca") == {" cat", "t"}
    assert out("cat", " con") == {" cat"}  # "concat" is another word
    assert out("cat", "(") == {" cat", "cat"}
    assert out("the cat", " the") == {" cat"}
    assert out("the cat", " the", " ") == {" cat", "cat"}
    assert out("the cat", " con") == set()
    texts += [b".", b".x"]
    both = Banned(["cat", "."], texts)  # each by its own rule, whichever stands first
    assert {texts[i] for i in both.ruled_out([names["("]])} == {b" cat", b"cat", b".", b".x"}
    assert {texts[i] for i in both.ruled_out([names[" con"]])} == {b" cat", b".", b".x"}
    banned = Banned(["the cat"], texts)
    assert banned.found_in("in the  cat.") and not banned.found_in("the cats") and not banned.found_in("bathe cat")


def test_without_spaces_between_words_a_phrase_is_banned_wherever_it_stands():
    texts = [b"", b"", b"", b"", *(text.encode() for text in ("黒", "猫", "が", "黒猫", "猫背", "ก", "กี", "cat", "s"))]
    names = {text.decode(): i for i, text in enumerate(texts) if text}

    def out(phrase, *before):
        return {texts[i].decode() for i in Banned([phrase], texts).ruled_out([names[one] for one in before])}

    assert out("猫") == out("猫", "黒") == out("猫", "cat") == {"猫", "黒猫", "猫背"}
    assert out("黒猫", "黒") == {"猫", "黒猫", "猫背"}
    assert out("ก") == {"ก"}  # with its vowel it is another character
    assert out("cat", "猫") == {"cat"} and out("cat", "s") == set()
    for phrase, there, absent in (
        ("개", ["개가", "큰 개", "개"], ["무지개", "무지개가"]),  # a particle may follow, and no word goes before
        ("二〇", ["二〇〇〇年"], ["二年"]),
        ("時々", ["時々a"], ["時時"]),
        ("๒", ["๒ ตัว"], ["๒๕๖๖"]),  # digits of any script are as ours
        ("ี", ["กี", " ี"], ["ก"]),
    ):
        one = Banned([phrase], texts)
        assert all(map(one.found_in, there)) and not any(map(one.found_in, absent)), phrase
    banned = Banned(["猫", "ก"], texts)
    assert banned.found_in("黒猫が") and banned.found_in("キก") and not banned.found_in("犬กี")


def test_an_output_is_kept_apart_from_others():
    values = torch.zeros(2, 8)
    Apart(torch.tensor([[[4, 5, -1], [4, -1, -1]]]), 0.5).mask(values, torch.tensor([[4], [6]]), torch.tensor([0, 0]))
    assert values[0].tolist() == [0, 0, 0, -math.inf, 0, -0.5, 0, 0]  # ending here would be the second one again
    assert values[1].tolist() == [0, 0, 0, 0, 0, -0.5, 0, 0]


def test_an_ensemble_has_the_mean_of_probabilities(make_model, make_source):
    models, source = [make_model(seed, 20) for seed in (1, 2)], make_source(1, 20, [5, 3])
    scorer = EnsembleScorer([TransformerScorer(model) for model in models])
    decoding, each = scorer.start(source), [TransformerScorer(model).start(source) for model in models]
    pieces = torch.full((2,), BOS)
    with torch.inference_mode():
        for _ in range(4):
            expected = torch.stack([one.step(pieces).all().exp() for one in each]).mean(0)
            predictions = decoding.step(pieces)
            torch.testing.assert_close(predictions.all().exp(), expected)
            assert (predictions.all()[:, :EOS] == -math.inf).all()
            pieces = predictions.best(1)[1].squeeze(1)
    with torch.inference_mode():
        alone = beam_search(models[0], source, [6, 6], beam_size=3, length_penalty=0.6)
    twice = EnsembleScorer([TransformerScorer(models[0])] * 2)
    for [one], [other] in zip(alone, beam_search(twice, source, [6, 6], beam_size=3, length_penalty=0.6), strict=True):
        assert one.pieces == other.pieces
        assert one.score == pytest.approx(other.score, abs=1e-4)


@pytest.mark.usefixtures("kernels")
def test_draws_that_share_an_encoder_are_those_that_do_not(make_model, make_source):
    model, source = make_model(3, 30, sharpness=1.0), make_source(3, 30, [3, 9, 1, 6])
    limits = [8, 12, 6, 3]
    shared = sample(model, source, limits, seeds=range(12), draws=3)
    apart = sample(
        model, source.repeat_interleave(3, dim=0), [limit for limit in limits for _ in range(3)], seeds=range(12)
    )
    assert [h.pieces for h in shared] == [h.pieces for h in apart]
    assert [h.score for h in shared] == pytest.approx([h.score for h in apart], abs=1e-4)


@given(
    before=st.lists(st.integers(0, 3), max_size=5), gram=st.lists(st.integers(0, 3), min_size=1, max_size=8),
    after=st.lists(st.integers(0, 3), max_size=5),
)  # fmt: skip
def test_loops_are_found_where_the_sixth_round_ends(before, gram, after):
    pieces = before + gram * 6 + after

    def loops(end):
        return any(end >= 6 * n and pieces[end - 6 * n : end] == pieces[end - n : end] * 6 for n in range(1, 9))

    assert loop_end(pieces) == next(end for end in range(1, len(pieces) + 1) if loops(end))
    assert loop_end(range(50)) is None
    assert loop_end(gram * 5 + [9]) in (None, *range(len(gram) * 5))


# Whole words


@pytest.mark.parametrize(
    ("piece", "continues"),
    [
        ("e", True), (" e", False), ("-", False), ("7", True), ("", False), ("ä", True), ("\u0301", True), ("ा", True),
        ("\ufe0f", False), ("猫", False), ("ひ", False), ("ฉ", False), ("에", False), ("я", True), (".", False),
    ],
)  # fmt: skip
def test_pieces_that_go_on_with_a_word_are_known(piece, continues):
    assert begins_within_a_word(piece.encode()) == continues


def test_a_byte_may_begin_a_letter():
    assert [begins_within_a_word(bytes([byte])) for byte in (0x20, 0x61, 0x80, 0xC3, 0xE4)] == [
        False, True, False, True, True,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("phrase", "closed"),
    [
        ("Hund", True),
        ("Hund.", False),
        ("Hund ", True),
        ("हिन्दी", True),
        ("cafe\u0301", True),
        ("猫", False),
        ("서울", False),
    ],
)
def test_phrases_that_end_with_a_word_are_known(phrase, closed):
    assert ends_with_a_word(phrase) == closed


def test_a_phrase_is_there_where_no_word_goes_on_with_it():
    """Pieces 6 and 7 would go on with a word; phrases (4, 5) and (5,), the second of which may be followed by them."""
    continues = torch.zeros(10, dtype=torch.bool)
    continues[[6, 7]] = True
    required = Required([[4, 5], [5]], continues, [True, False], frozenset([6, 7]))
    assert required.met([4, 5]) == {0, 1}  # where the end is, a word may end
    assert required.met([4, 5, 6]) == {1} and required.met([4, 5, 8]) == {0, 1}
    assert required.met([4, 5, 6, 4, 5]) == {0, 1}
    assert required.end([4, 5, 6, 8, 4, 5, 9]) == 6
    values = torch.zeros(3, 10)
    required.mask(values, torch.tensor([[8, 4, 5], [4, 5, 8], [4, 5, 6]]))
    assert (values == -math.inf).nonzero().tolist() == [[0, 6], [0, 7], [2, EOS]]
