"""Text in, text out, with all that can be asked for: on a run that was trained for a second or two."""

from __future__ import annotations

import json
import math
import random
import re
import shutil
import signal
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seq2seq import runtime
from seq2seq.config import ModelConfig, TokenizerConfig
from seq2seq.decoding import alignment_heads
from seq2seq.decoding import demands as demands_module
from seq2seq.decoding import options as options_module
from seq2seq.decoding.alignment import (
    MAX_CELLS,
    align,
    align_words,
    batches_of_pairs,
    words_in,
    words_of,
)
from seq2seq.decoding.alignment_heads import choose_alignment_head, information
from seq2seq.decoding.asking import Line
from seq2seq.decoding.demands import Demands
from seq2seq.decoding.hypotheses import Hypothesis
from seq2seq.decoding.options import Options
from seq2seq.decoding.results import result_of
from seq2seq.decoding.translator import Translator
from seq2seq.errors import OptionError, UserError
from seq2seq.model.transformer import PAD, Transformer
from seq2seq.run_folder.files import RunError
from seq2seq.text.tokenizer import Tokenizer

Cli = Callable[..., Any]
ONE = ("--threads", "1")
LINE = "the small cat sees the old dog"


@pytest.fixture(scope="module")
def sources(tiny_corpus: Path) -> list[str]:
    return (tiny_corpus / "test.en").read_text(encoding="utf-8").splitlines()[:8]


@pytest.fixture(scope="module")
def translator(tiny_run: Any) -> Translator:
    return Translator(tiny_run.path)


@pytest.fixture
def translate(run_cli: Cli, tiny_run: Any) -> Cli:
    def run(*arguments: str | Path, lines: list[str], command: str = "translate", code: int = 0) -> Any:
        result = run_cli(command, tiny_run.path, *arguments, *ONE, stdin="".join(f"{x}\n" for x in lines).encode())
        assert result.code == code, result.err
        return result

    return run


# Lengths, prefixes, phrases


@pytest.mark.parametrize("how", [{"beam_size": 1}, {"beam_size": 4, "n_best": 4}, {"sample": True, "n_best": 3}])
def test_constraints_hold_however_outputs_are_found(translator: Translator, sources: list[str], how: Any) -> None:
    plain = translator.translate(sources)
    word = next(word for result in plain for word in result.text.split() if word not in ("der", "große"))
    found = translator.translate(
        sources, min_length=12, max_length=14, no_repeat_ngram=2, ban=[word], prefix="der große", **how
    )
    for result in found:
        for one in result.hypotheses:
            assert one.text.startswith("der große")
            assert 12 <= len(one.pieces) <= 14
            assert len(set(zip(one.pieces, one.pieces[1:], strict=False))) == len(one.pieces) - 1
            assert not re.search(rf"(?<!\w){word}(?!\w)", one.text)
            assert one.satisfied


def test_every_line_may_have_a_prefix(
    translator: Translator, translate: Cli, sources: list[str], tmp_path: Path
) -> None:
    prefixes = ["der kleine", "", "die ", "Katze"]
    found = translator.translate(sources[:4], prefix=prefixes)
    for result, prefix in zip(found, prefixes, strict=True):
        assert result.text.startswith(prefix.strip())
    assert found[1].text == translator.translate(sources[1:2])[0].text
    assert re.match(r"die( |$)", found[2].text)  # after a space, a new word begins
    (tmp_path / "prefixes").write_text("".join(f"{one}\n" for one in prefixes), encoding="utf-8")
    result = translate("--prefix-file", tmp_path / "prefixes", lines=sources[:4])
    assert result.lines == [one.text for one in found]
    result = translate("--prefix-file", tmp_path / "prefixes", lines=sources[:5], code=1)
    assert "prefixes ends after line 4, and the input has a line 5" in result.err and len(result.lines) == 4
    with pytest.raises(OptionError, match="prefix has 2 texts"):
        translator.translate(sources, prefix=["a", "b"])


def test_required_words_are_there_and_banned_ones_are_not(
    translator: Translator, translate: Cli, sources: list[str], tmp_path: Path
) -> None:
    for result in translator.translate(sources, require=["König", "grüne Tür"], beam_size=8, n_best=2):
        for one in result.hypotheses:
            assert "König" in one.text and "grüne Tür" in one.text and one.satisfied
    # What the model likes best is not there when it is banned.
    favourites = [word for word, _ in Counter(re.findall(r"\w+", translate(lines=sources).out)).most_common(3)]
    (tmp_path / "banned").write_text(f"\n{favourites[1]}\t{favourites[2]}\n\nx\n", encoding="utf-8")
    result = translate("--ban", favourites[0], "--ban-file", tmp_path / "banned", lines=sources)
    assert len(favourites) == 3 and not set(favourites) & set(re.findall(r"\w+", result.out))
    both = ("--require", "Katze", "--require", "König", "--max-length", "4", "--format", "jsonl")
    result = translate(*both, lines=sources[:1])
    assert json.loads(result.out)["satisfied"] is False
    assert re.search(
        r"required phrases have \d pieces, too many for a beam of \d: .* a beam of \d+ or more", result.err
    )
    assert re.search(
        "line 1: the search found no translation as asked for; this one lacks what was required: '(Katze|König)'",
        result.err,
    )


def test_what_is_required_is_whole_words(translator: Translator, sources: list[str]) -> None:
    """Whatever the model would like to go on with."""
    tokenizer = translator.tokenizer
    words = {word for result in translator.translate(sources) for word in re.findall(r"\w+", result.text)}
    longer = next(  # a word whose first pieces are a shorter one
        (word[:cut], word)
        for word in sorted(words)
        for cut in range(1, len(word))
        if (begin := tokenizer.encode_target([word[:cut]])[0]) == tokenizer.encode_target([word])[0][: len(begin)]
    )
    for result in translator.translate(sources, require=[longer[0]], beam_size=8, n_best=4):
        for one in result.hypotheses:
            assert one.satisfied and re.search(rf"\b{longer[0]}\b", one.text)
            # In a text that has it as the beginning of another word alone, it is not there.
    demands = Demands(Options(require=(longer[0],)), tokenizer, torch.device("cpu"))
    [whole, part] = tokenizer.encode_target([longer[0], longer[1]])
    assert demands.unmet(whole, longer[0]) is None and demands.unmet(part, longer[1]) is not None
    assert demands.unmet([*part, *whole], " ".join(longer[::-1])) is None
    # What a prefix goes on with is not there either: it comes later.
    [result] = translator.translate(sources[:1], prefix=longer[1], require=[longer[0]], beam_size=8)
    assert result.text.startswith(longer[1]) and re.search(rf"\b{longer[0]}\b", result.text)
    assert result.hypotheses[0].satisfied


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"require": ["die Katze"], "ban": ["Katze"]}, r"require .*die Katze.* has words in it that ban rules out"),
        ({"require": ["Katze"], "max_length": 1}, r"require .*Katze.* has \d pieces, more than max_length = 1"),
        ({"n_best": 1001, "sample": True}, "n_best = 1001 must be from 1 to 1000"),
        ({"min_length": 10_001}, "min_length = 10001 must be from 0 to 10000"),
        ({"ban": None}, "ban = None: has to be phrases"),
    ],
)
def test_options_that_cannot_be_are_refused(translator: Translator, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        translator.translate(["the cat"], **options)


def test_a_precision_that_does_not_exist_is_refused(tiny_run: Any) -> None:
    with pytest.raises(OptionError, match="precision = 'fp61': choose fp32, bf16 or auto"):
        Translator(tiny_run.path, precision="fp61")  # type: ignore[arg-type]


def test_a_prefix_that_cannot_be_written_costs_its_line_alone(
    translate: Cli, sources: list[str], tmp_path: Path
) -> None:
    (tmp_path / "prefixes").write_text("der\n☃\n\n", encoding="utf-8")
    result = translate("--prefix-file", tmp_path / "prefixes", "--format", "jsonl", lines=sources[:3])
    records = [json.loads(line) for line in result.lines]
    assert [record["satisfied"] for record in records] == [True, False, True]
    assert records[0]["translation"].startswith("der")
    assert "line 2: prefix = '☃': the model's vocabulary cannot write it" in result.err and "line 1" not in result.err
    assert (
        records[1]["translation"] == json.loads(translate("--format", "jsonl", lines=sources[1:2]).out)["translation"]
    )


def test_lines_may_have_required_words_of_their_own(
    translator: Translator, translate: Cli, sources: list[str], tmp_path: Path
) -> None:
    wanted = [["König"], [], ["grüne Tür", "Katze"], ["König"], []]
    plain = translator.translate(sources[:5], beam_size=8)
    results = translator.translate(sources[:5], require=wanted, beam_size=8)
    for result, without, words in zip(results, plain, wanted, strict=True):
        assert all(word in result.text for word in words) and result.hypotheses[0].satisfied
        assert words or result.text == without.text
    # Each as alone with them; and beside words for all.
    for line, words, result in zip(sources, wanted, results, strict=False):
        [alone] = translator.translate([line], require=words, beam_size=8)
        assert alone.text == result.text
    (tmp_path / "terms").write_text("".join("\t".join(words) + "\n" for words in wanted), encoding="utf-8")
    said = translate("--require-file", tmp_path / "terms", "--beam-size", "8", lines=sources[:5])
    assert said.lines == [result.text for result in results]
    both = translate(
        "--require-file", tmp_path / "terms", "--require", "der", "--beam-size", "8", "--format", "jsonl",
        lines=sources[:5],
    )  # fmt: skip
    for line, words in zip(both.lines, wanted, strict=True):
        record = json.loads(line)
        assert record["satisfied"] and all(re.search(rf"\b{word}\b", record["translation"]) for word in ["der", *words])
    # With prefixes, and one that the vocabulary cannot write.
    (tmp_path / "terms").write_text("König\t☃\n\n", encoding="utf-8")
    (tmp_path / "prefixes").write_text("die\nder\n", encoding="utf-8")
    files = ("--require-file", tmp_path / "terms", "--prefix-file", tmp_path / "prefixes", "--beam-size", "8")
    result = translate(*files, "--format", "jsonl", lines=sources[:2])
    records = [json.loads(line) for line in result.lines]
    assert [record["satisfied"] for record in records] == [False, True]
    assert records[0]["translation"].startswith("die") and "König" in records[0]["translation"]
    narrow = translate("--require-file", tmp_path / "terms", "--beam-size", "1", lines=sources[:2])
    assert re.search(r"line 1: the required phrases have \d pieces?, too many for a beam of 1", narrow.err)
    assert (
        records[1]["translation"].startswith("der")
        and "line 1: require = '☃': the model's" in result.err
        and "translated without" in result.err
    )
    short = translate(*files, lines=sources[:3], code=1)
    assert len(short.lines) == 2 and "ends after line 2, and the input has a line 3" in short.err


def test_an_empty_line_has_nothing_of_what_was_asked_for(translate: Cli, tmp_path: Path) -> None:
    (tmp_path / "terms").write_text("König\n\nKatze\n", encoding="utf-8")
    result = translate(
        "--require-file", tmp_path / "terms", "--format", "jsonl", "--beam-size", "6", lines=["", "", "cat"]
    )
    assert [json.loads(line)["satisfied"] for line in result.lines] == [False, True, True]
    assert "line 1 is empty, and so is its translation" in result.err and "line 2" not in result.err


def test_what_lines_require_is_kept_within_bounds(translator: Translator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demands_module, "MOST_KEPT", 3)
    base = Demands(Options(), translator.tokenizer, torch.device("cpu"))
    for first in ("Katze", "Hund", "König"):
        for second in ("Tür", "der", "die"):
            both = base.requiring(first).requiring(second)
            assert both.options.require == (first, second) and both.required is not None
            assert both.going_on is base.going_on and len(base._more) <= 3
    assert base.required is None and base.requiring("Katze") is base.requiring("Katze")


def test_required_words_of_lines_that_are_none_are_refused(translator: Translator) -> None:
    with pytest.raises(OptionError, match=r"require has 1 lists of phrases: .* each of 2"):
        translator.translate(["a", "b"], require=[["c"]])
    for bad, message in (
        (["c", ["d"]], "require 1 is 'c'"),
        ([[3], []], "phrase of require 1 is 3"),
        (3, "require = 3"),
    ):
        with pytest.raises(OptionError, match=message):
            translator.translate(["a", "b"], require=bad)  # type: ignore[arg-type]


def test_text_that_the_model_does_not_know_is_told(translate: Cli) -> None:
    result = translate(lines=["the ☃ cat sees 日本", "the cat", "☃"])
    assert "line 1 has text that the model does not know, and that is lost: '☃ 日本'" in result.err
    assert "line 2" not in result.err and "line 3 has nothing in it that the model knows" in result.err


def test_files_are_looked_at_before_anything_is_translated(
    run_cli: Any, tiny_run: Any, translate: Cli, tmp_path: Path
) -> None:
    for name, lines in (("a", 2), ("b", 3), ("prefixes", 4)):
        (tmp_path / name).write_text("the cat\n" * lines)
    a, b, prefixes, none = (tmp_path / name for name in ("a", "b", "prefixes", "none"))
    for arguments, told in (
        ((a, none), "none: no such file"),
        ((a, tmp_path), "is a folder"),
        ((a, "--prefix-file", none), "none: no such file"),
        ((a, b, "--prefix-file", prefixes), f"{prefixes} has 4 lines, and the input has 5"),
    ):
        result = run_cli("translate", tiny_run.path, *arguments)
        assert (result.code, result.out) == (1, "") and told in result.err
    scored = run_cli("score", tiny_run.path, "--source", a, "--target", b)
    assert (scored.code, scored.out) == (1, "") and "has 2 lines and" in scored.err


def test_scoring_tells_of_text_that_the_model_does_not_know(run_cli: Any, tiny_run: Any, tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_text("the cat\nthe \N{SNOWMAN}\n", encoding="utf-8")
    b.write_text("die \N{COMET}\ndie Katze\n", encoding="utf-8")
    scored = run_cli("score", tiny_run.path, "--source", a, "--target", b)
    assert scored.code == 0 and len(scored.lines) == 2
    assert "line 1: the target has text that the model does not know, taken as <unk>: '\N{COMET}'" in scored.err
    assert "line 2: the source has text that the model does not know, taken as <unk>: '\N{SNOWMAN}'" in scored.err
    assert scored.err.count("does not know") == 2


def test_length_normalization_is_a_choice(translator: Translator, sources: list[str]) -> None:
    for one in (
        result.hypotheses[0] for result in translator.translate(sources, length_normalization="power", length_penalty=1)
    ):
        assert one.score == pytest.approx(one.log_probability / len(one.piece_log_probabilities), abs=1e-5)


def test_alternatives_differ_and_begin_with_the_best(
    translator: Translator, translate: Cli, sources: list[str]
) -> None:
    plain = translator.translate(sources)
    for result, best in zip(translator.translate(sources, diverse=3), plain, strict=True):
        assert len({one.text for one in result.hypotheses}) == 3
        assert best.text in {one.text for one in result.hypotheses}
        scores = [one.score for one in result.hypotheses]
        assert scores == sorted(scores, reverse=True)
        for one in result.hypotheses:  # the model's own probabilities, without the penalty
            assert one.log_probability == pytest.approx(math.fsum(one.piece_log_probabilities), abs=1e-5)
            if one.text == best.text:
                assert one.score == pytest.approx(best.hypotheses[0].score, abs=1e-4)
    assert len(translate("--diverse", "2", lines=sources[:2]).lines) == 4


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def looping(translator: Translator, warnings: list[str]) -> Iterator[Translator]:
    """Says piece 4 for as long as it may not end, and tells `warnings`."""
    model = translator.model
    with torch.no_grad():
        before = model.output_weight.clone()
        model.output_weight.zero_()  # all pieces are equally probable, and the first of them is end-of-sentence
        yield Translator.of(model, translator.tokenizer, translator.config, warnings.append)
        model.output_weight.copy_(before)


def test_a_loop_is_cut_and_marked(looping: Translator, warnings: list[str]) -> None:
    [result] = looping.translate([LINE], beam_size=1, min_length=40)
    [one] = result.hypotheses
    assert one.repetition and len(one.pieces) == 40
    assert looping.tokenizer.decode([[4] * 6]) == [one.text]
    assert not one.satisfied  # what is put out has less than 40 pieces
    assert warnings == [
        "line 1 runs into a loop: its translation is cut after 6 pieces",
        "line 1: the search found no translation as asked for; this one has 6 pieces and not the 40 that are the least",
    ]
    assert "".join(looping.stream_tokens(LINE, Options(min_length=40))) == one.text


def test_a_loop_before_a_required_phrase_is_told_of_and_not_cut(translator: Translator, warnings: list[str]) -> None:
    options = options_module.check_options(Options(require=("König",), beam_size=8), translator.config)
    demands = Demands(options, translator.tokenizer, translator.device)
    assert demands.required is not None
    before = Hypothesis((*[4] * 9, *demands.required.phrases[0]), True, -1.0, -1.0, (-0.1,) * 12)
    warnings.clear()
    line = Line(np.array([5, 6], dtype=np.int32), [], False, 20, demands)
    found = result_of(0, LINE, line, [before], None, warnings.append)
    assert found.hypotheses[0].repetition and found.hypotheses[0].satisfied and "König" in found.text
    assert warnings == ["line 1 runs into a loop before a phrase that was required, and is not cut"]


def test_what_is_asked_for_may_be_composed_or_decomposed(translator: Translator, warnings: list[str]) -> None:
    decomposed = unicodedata.normalize("NFD", "König")
    assert decomposed != "König"
    [result] = translator.translate([LINE], require=[decomposed], beam_size=8)
    assert "König" in result.text and result.hypotheses[0].satisfied
    [result] = translator.translate([LINE], prefix=decomposed)
    assert result.text.startswith("König")
    [result] = translator.translate([LINE], prefix="König", ban=[decomposed])
    assert not result.hypotheses[0].satisfied  # it is found
    telling = Translator.of(translator.model, translator.tokenizer, translator.config, warnings.append)
    telling.translate([LINE], ban=["König", "\N{SNOWMAN}"])
    assert warnings == ["what is banned cannot come out in any case, as the vocabulary cannot write it: '\N{SNOWMAN}'"]


def test_lists_that_do_not_fit_together_are_named(translator: Translator, tiny_run: Any) -> None:
    for more in ({"prefixes": ["x"]}, {"requires": [["Katze"]]}):
        with pytest.raises(OptionError, match="line 2: there are not as many prefixes, or required phrases, as lines"):
            list(translator.stream(["a", "b"], Options(), **more))  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="give a list; `stream` takes them one by one"):
        translator.translate(iter(["a"]))  # type: ignore[arg-type]
    for sources, targets in (("a", ["b"]), (["a"], "b"), (["a"], []), ([], [])):
        with pytest.raises(OptionError):
            choose_alignment_head(tiny_run.path, sources, targets)


def test_a_translation_without_a_loop_is_not_marked(translator: Translator) -> None:
    [quiet] = translator.translate([LINE])
    assert not quiet.hypotheses[0].repetition


def test_a_prefix_is_put_out_whole_though_it_repeats_itself(translator: Translator) -> None:
    prefix = " ".join(["der"] * 10)
    [result] = translator.translate([LINE], prefix=prefix, beam_size=1)
    assert result.text.startswith(prefix) and not result.hypotheses[0].repetition
    assert "".join(translator.stream_tokens(LINE, Options(prefix=prefix))) == result.text


def test_a_loop_behind_a_prefix_is_cut_after_rounds_of_its_own(looping: Translator, warnings: list[str]) -> None:
    forced = [4] * 10  # what it goes on with, too
    [prefix] = looping.tokenizer.decode([forced])
    assert looping.tokenizer.encode_target([prefix]) == [forced]
    [result] = looping.translate([LINE], prefix=prefix, beam_size=1, min_length=40)
    assert result.hypotheses[0].repetition
    assert looping.tokenizer.decode([[4] * 16]) == [result.text]
    assert "".join(looping.stream_tokens(LINE, Options(prefix=prefix, min_length=40))) == result.text
    assert warnings[0] == warnings[-1] == "line 1 runs into a loop: its translation is cut after 16 pieces"


def test_required_phrases_are_put_out_whole_though_they_repeat_themselves(translator: Translator) -> None:
    phrase = " ".join(["der"] * 8)
    for result in translator.translate([LINE], require=[phrase, "König"], beam_size=12, n_best=3):
        for one in result.hypotheses:
            assert one.satisfied and phrase in one.text and "König" in one.text


def test_an_empty_line_has_one_empty_translation(translator: Translator) -> None:
    for options in ({"n_best": 3}, {"diverse": 2}, {"prefix": "der"}, {"sample": True}, {"alignments": True}):
        [_, result] = translator.translate([LINE, " "], **options)  # type: ignore[arg-type]
        assert [one.text for one in result.hypotheses] == [""]


# Streams of tokens


@pytest.mark.parametrize(
    "options",
    [Options(), Options(sample=True, seed=4), Options(prefix="die", no_repeat_ngram=1), Options(max_length=3)],
)
def test_streamed_tokens_are_the_translation(translator: Translator, options: Options) -> None:
    parts = list(translator.stream_tokens(LINE, options))
    greedy = options if options.sample else options_module.replace(options, beam_size=1)
    [result] = translator.stream([LINE], greedy)
    assert len(parts) > 1
    assert "".join(parts) == result.text
    assert list(translator.stream_tokens("  ", options)) == []


def test_what_cannot_be_streamed_is_named(translator: Translator) -> None:
    with pytest.raises(OptionError, match="beam_size = 4: only greedy"):
        next(translator.stream_tokens(LINE, Options(beam_size=4)))


# Scores


def test_scores_are_those_of_the_search(translator: Translator, run_cli: Cli, tiny_run: Any, tmp_path: Path) -> None:
    sources = (tiny_run.corpus / "train.en").read_text(encoding="utf-8").splitlines()[:30]
    found = translator.translate(sources)
    again = translator.score(sources, [result.text for result in found])
    same = 0
    for result, score in zip(found, again, strict=True):
        one = result.hypotheses[0]
        if one.ended and one.pieces == score.pieces:  # a text may have other pieces than the search came by
            same += 1
            assert score.score == pytest.approx(one.score, abs=1e-4)
            assert score.piece_log_probabilities == pytest.approx(one.piece_log_probabilities, abs=1e-4)
    assert same > 20
    for name, lines in (("s", sources), ("t", [result.text for result in found])):
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    files = ("--source", tmp_path / "s", "--target", tmp_path / "t", *ONE)
    text = run_cli("score", tiny_run.path, *files)
    assert [float(line.split("\t")[0]) for line in text.lines] == pytest.approx([x.score for x in again], abs=1e-3)
    records = [json.loads(line) for line in run_cli("score", tiny_run.path, *files, "--format", "jsonl").lines]
    assert records[3]["num_pieces"] == len(records[3]["pieces"]) + 1 == len(records[3]["piece_log_probabilities"])
    with open(tmp_path / "t", "a", encoding="utf-8") as file:
        file.write("mehr\n")
    result = run_cli("score", tiny_run.path, *files)
    assert (result.code, result.out) == (1, "")  # nothing before all is known to fit
    assert "s has 30 lines and" in result.err and "t has 31: aligned files" in result.err


def test_scoring_reads_a_window_at_a_time_and_what_is_empty_scores_nothing(
    translator: Translator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(options_module, "STREAM_LINES", 2)
    read = 0

    def pairs() -> Iterator[tuple[str, str]]:
        nonlocal read
        while True:
            read += 1
            yield ("", "") if read % 2 else (LINE, "die Katze")

    scores = translator.score_stream(pairs())
    assert next(scores).piece_log_probabilities == ()
    assert next(scores).log_probability < 0
    assert read == 2
    with pytest.raises(UserError, match="1 sources and 2 targets"):
        translator.score(["a"], ["b", "c"])


def test_what_is_too_long_to_score_is_cut_and_said(translator: Translator) -> None:
    warnings: list[str] = []
    config = translator.config.model_copy(update={"max_source_length": 5})
    short = Translator.of(translator.model, translator.tokenizer, config, warnings.append)
    [score] = short.score([LINE], ["der Hund und die Katze und der König"])
    assert len(score.pieces) == len(score.piece_log_probabilities) == 5 and not score.complete
    assert len(warnings) == 2 and "the target has" in warnings[1]


# Going on


@pytest.mark.parametrize("options", [("--beam-size", "2"), ("--sample", "--top-k", "5"), ("--require-file",)])
def test_lines_that_are_left_out_change_nothing_of_the_others(
    translate: Cli, tmp_path: Path, sources: list[str], options: tuple[str, ...]
) -> None:
    lines = [*sources, "a ☂", *sources]
    if options == ("--require-file",):
        (tmp_path / "phrases").write_text("".join(f"{['Hund', 'König', ''][i % 3]}\n" for i in range(len(lines))))
        options = ("--require-file", str(tmp_path / "phrases"))
    whole = translate(*options, "--format", "jsonl", lines=lines)
    for skipped in (1, 8, len(lines), len(lines) + 5):
        rest = translate(*options, "--format", "jsonl", "--skip-lines", str(skipped), lines=lines)
        assert rest.lines == whole.lines[skipped:]
        assert ("line 9 has text that the model does not know" in rest.err) == (skipped <= 8)


def test_an_interrupted_translation_says_how_to_go_on(
    run_cli: Cli, tiny_run: Any, tmp_path: Path, sources: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "lines"
    file.write_text("".join(f"{line}\n" for line in sources * 3), encoding="utf-8")
    whole = run_cli("translate", tiny_run.path, file, *ONE)
    monkeypatch.setattr(options_module, "STREAM_LINES", 5)
    window = Translator._window

    def interrupted(self: Translator, requested: Any, start: int, demands: Any) -> Any:
        if start == 10:
            signal.raise_signal(signal.SIGINT)
        return window(self, requested, start, demands)

    monkeypatch.setattr(Translator, "_window", interrupted)
    first = run_cli("translate", tiny_run.path, file, *ONE)
    assert first.code == 130 and len(first.lines) == 10
    hint = "seq2seq: to go on: the same with --skip-lines 10, and >> in place of >\n"
    assert first.err.endswith(f"{hint}seq2seq: interrupted\n")
    monkeypatch.setattr(Translator, "_window", window)
    second = run_cli("translate", tiny_run.path, file, *ONE, "--skip-lines", "10")
    assert first.lines + second.lines == whole.lines
    monkeypatch.setattr(Translator, "_window", interrupted)
    result = run_cli("translate", tiny_run.path, *ONE, stdin=file.read_bytes())  # which nobody has twice
    assert result.code == 130 and "to go on" not in result.err
    result = run_cli("translate", tiny_run.path, file, *ONE, "--skip-lines", "5", "--n-best", "2")
    assert result.code == 130 and "the same with --skip-lines 10, and" in result.err


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_signal_while_a_line_is_written_does_not_lose_count(
    run_cli: Cli, tiny_run: Any, tmp_path: Path, sources: list[str], monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    file = tmp_path / "lines"
    file.write_text("".join(f"{line}\n" for line in sources), encoding="utf-8")
    whole = run_cli("translate", tiny_run.path, file, *ONE)
    written = 0

    def interrupted(*texts: str, **options: Any) -> None:
        nonlocal written
        written += 1
        if written == 3 and moment == "before":
            signal.raise_signal(signal.SIGINT)
        print(*texts, **options)
        if written == 3 and moment == "after":
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("seq2seq.commands.translating.print", interrupted, raising=False)
    result = run_cli("translate", tiny_run.path, file, *ONE)
    assert (result.code, result.lines) == (130, whole.lines[:3])
    assert "the same with --skip-lines 3, and" in result.err
    assert run_cli("translate", tiny_run.path, file, *ONE, "--skip-lines", "9" * 30).lines == []


# Ensembles


def test_an_ensemble_of_one_model_twice_is_that_model(
    tiny_run: Any, translator: Translator, sources: list[str]
) -> None:
    both = Translator([tiny_run.path, tiny_run.path])
    for one, other in zip(both.translate(sources, alignments=True), translator.translate(sources), strict=True):
        assert one.text == other.text
        assert one.hypotheses[0].score == pytest.approx(other.hypotheses[0].score, abs=1e-4)
    texts = [result.text for result in translator.translate(sources)]
    for one, other in zip(both.score(sources, texts), translator.score(sources, texts), strict=True):
        assert one.score == pytest.approx(other.score, abs=1e-4)


@pytest.mark.parametrize("option", ["--ensemble", "--ban-file", "--prefix-file", "--require-file"])
def test_ctranslate2_refuses_what_only_torch_can_do(tiny_run: Any, tmp_path: Path, translate: Cli, option: str) -> None:
    file = tmp_path / "phrases"
    file.write_text("Hund\n")
    given = tiny_run.path if option == "--ensemble" else file
    result = translate("--engine", "ctranslate2", option, given, lines=[LINE], code=2)
    assert f"{option}: not with --engine ctranslate2; use --engine torch" in result.err
    assert not result.out


def test_an_ensemble_needs_one_vocabulary(tiny_run: Any, tmp_path: Path, translate: Cli) -> None:
    import shutil

    other = tmp_path / "other"
    shutil.copytree(tiny_run.path, other)
    assert translate("--ensemble", other, lines=[LINE]).lines == translate(lines=[LINE]).lines
    lines = (tiny_run.corpus / "train.en").read_text(encoding="utf-8").splitlines()
    config = Translator(tiny_run.path).config
    from seq2seq.config import TokenizerConfig

    assert config is not None
    learned = Tokenizer.learn(TokenizerConfig(vocab_size=60), lines, lines, seed=1)
    (other / "tokenizer.model").write_bytes(learned.source_bytes)
    result = translate("--ensemble", other, lines=[LINE], code=1)
    assert "different vocabularies" in result.err and str(other) in result.err and str(tiny_run.path) in result.err


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("language", ("en", "de")),
        ("file", ("train.en", "train.de")),
        ("packed", ("train.en", "train.de")),
        ("column", ("1", "2")),
        ("same", ("", "")),
    ],
)
def test_an_ensemble_of_opposite_ways_is_refused(
    tiny_run: Any, tmp_path: Path, kind: str, names: tuple[str, str]
) -> None:
    import shutil

    keys = ("source_language", "target_language")
    if kind in ("file", "packed"):
        keys = ("train_source", "train_target")
    elif kind == "column":
        keys = ("source_column", "target_column")
    paths = [tmp_path / "one", tmp_path / "other"]
    for path, order in zip(paths, (names, names[::-1]), strict=True):
        shutil.copytree(tiny_run.path, path)
        text = (path / "config.toml").read_text(encoding="utf-8")
        if kind == "column":
            text = re.sub('(?m)^train_pairs = ""$', 'train_pairs = "train.tsv"', text)
            text = re.sub("(?m)^train_(source|target) = .*$", 'train_\\1 = ""', text)
            order = ("", "") if path.name == "one" else order  # by default the first and the second
        for key, name in zip(keys, order, strict=True):
            if kind == "packed" and path.name == "other":
                name += ".gz"
            elif kind == "language" and path.name == "other":
                name = name.upper()
            text, count = re.subn(f"(?m)^{key} = .*$", f'{key} = "{name}"', text)
            assert count == 1
        (path / "config.toml").write_text(text, encoding="utf-8")
    if kind == "same":
        assert Translator(paths).translate([LINE])
        return
    with pytest.raises(RunError, match=r"one and .*other translate opposite ways"):
        Translator(paths)


# Alignments


@pytest.mark.parametrize("native", [True, False])
def test_a_precision_that_the_processor_has_no_instructions_for_is_told(
    tiny_run: Any, monkeypatch: pytest.MonkeyPatch, native: bool
) -> None:
    monkeypatch.setattr(runtime, "cpu_has_bf16", lambda: native)
    monkeypatch.setattr(runtime.platform, "machine", lambda: "x86_64")
    told: list[str] = []
    for precision in ("fp32", "auto"):
        Translator(tiny_run.path, precision=precision, warn=told.append)
    assert told == []
    Translator(tiny_run.path, precision="bf16", warn=told.append)
    assert len(told) == (not native) and all("is faster with fp32" in text for text in told)


def test_words_are_told_from_pieces() -> None:
    assert words_of(["▁the", "▁ca", "t", "▁", "sat", "▁"]) == [0, 1, 1, None, 2, None]
    assert words_of(["a", "▁b▁c"]) == [0, 2]


def test_words_are_aligned_where_their_pieces_look() -> None:
    weights = torch.tensor([[0.9, 0.1, 0.0, 0.0], [0.1, 0.2, 0.3, 0.4], [0.0, 0.6, 0.4, 0.0], [0.0, 0.0, 0.0, 1.0]])
    assert align_words(weights, words_of(["▁a", "▁b", "c"]), words_of(["▁x", "▁y", "z"])) == ((0, 0), (1, 1))


def test_information_is_of_position_about_position() -> None:
    eye, fixed, wide = torch.eye(4), torch.eye(4)[:1].expand(4, 4), torch.full((4, 4), 0.25)
    found = information(torch.stack([eye, fixed, wide])[None])
    assert found.tolist() == [pytest.approx([math.log(4), 0.0, 0.0])]


def test_alignments_are_links_of_words(translate: Cli, tiny_run: Any, sources: list[str], run_cli: Cli) -> None:
    result = translate("--format", "jsonl", "--alignments", "--n-best", "2", lines=[*sources[:3], ""])
    for record in map(json.loads, result.lines):
        for one in record.get("hypotheses", [record]):
            for source, target in one["alignment"]:
                assert 0 <= source < len(record["source"].split())
                assert 0 <= target < len(one["translation"].split())
    assert any(json.loads(line)["alignment"] for line in result.lines)


def test_alignments_of_long_lines_come_in_smallbatches_of_pairs(translator: Translator) -> None:
    lengths = [(20, 20)] * 5000 + [(1024, 10)] * 3 + [(1024, 1000)] * 3
    batches = list(batches_of_pairs([translator.model], lengths))
    assert [number for batch in batches for number in batch] == list(range(len(lengths)))
    each = translator.model.config.num_heads * translator.model.config.num_decoder_layers
    for batch in batches:
        source, target = (max(lengths[number][side] for number in batch) + 1 for side in (0, 1))
        assert len(batch) == 1 or len(batch) * each * (source + target) ** 2 <= MAX_CELLS
    assert len(batches) < 12 and max(map(len, batches)) > 1000


def test_models_whose_positions_end_sooner_align_with_others(translator: Translator) -> None:
    tokenizer = translator.tokenizer
    sizes = {"d_model": 16, "num_heads": 2, "d_ff": 16, "num_encoder_layers": 1, "num_decoder_layers": 1}
    configs = ModelConfig(positions="learned", max_positions=8, **sizes), ModelConfig(**sizes)
    models = [
        Transformer(config, tokenizer.source_vocab_size, tokenizer.target_vocab_size, shared=tokenizer.shared).eval()
        for config in configs
    ]
    for chosen in (models[:1], models, models[::-1]):
        [[links]] = align(chosen, tokenizer, translator.config, [[10, 11, 12]], [[[20] * 8]], [[0, 1, 1]])
        assert links and all(source < 2 for source, _ in links)


@pytest.mark.parametrize("normalization", ["identity", "nmt_nfkc"])
def test_words_of_the_source_are_those_of_the_line(sources: list[str], normalization: str) -> None:
    lines = [*sources, "it´s a ﬁne … day"] * 20
    config = {"vocab_size": 400, "normalization": normalization, "byte_fallback": True}
    learned = Tokenizer.learn(TokenizerConfig.model_validate(config), lines, lines, seed=1)
    line = "  it´s  the ﬁne 中国 … cat "
    [ids] = learned.encode_source([line])
    pieces, words = learned.source_pieces(ids), words_in(line, learned, ids)
    assert "<0xE4>" in pieces and len(words) == len(pieces)
    assert [word for word in words if word is not None] == sorted(word for word in words if word is not None)
    assert {word for word in words if word is not None} == set(range(6))
    assert all((word is None) == (piece.strip("▁") == "") for piece, word in zip(pieces, words, strict=True))
    text = {word: "".join(p for p, own in zip(pieces, words, strict=True) if own == word) for word in (1, 5)}
    assert text == {1: "▁the", 5: "▁cat"}


def test_a_sentence_with_fewer_outputs_is_kept_apart_from_none_else(translator: Translator) -> None:
    apart = Demands(Options(diverse=3), translator.tokenizer, torch.device("cpu"))._apart([[[7, 8], [9]], [[7]]])
    values = torch.zeros(2, 12)
    apart.mask(values, torch.zeros(2, 0, dtype=torch.int64), torch.tensor([0, 1]))
    assert values[1].nonzero().flatten().tolist() == [PAD, 7]  # padding never comes out


def test_heads_that_look_at_what_was_written_last_come_last(tiny_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Words are translated one by one; one head looks at each in time and around, one too late, as does their mean."""
    generator, lines = random.Random(1), []
    words = [f"{a}{b}" for a in "bdfgk" for b in "aeiou"]
    for _ in range(40):
        lines.append(" ".join(generator.sample(words, 8)))

    def attention(model: Any, sources: list[list[int]], targets: list[list[int]]) -> list[torch.Tensor]:
        found = []
        for source, target in zip(sources, targets, strict=True):
            weights = torch.zeros(1, 2, len(target) + 1, len(source) + 1)
            for place in range(len(target) + 1):
                weights[0, 0, place] = 0.5 / (len(source) + 1)
                weights[0, 0, place, min(place, len(source))] += 0.5
                weights[0, 1, place, max(0, min(place - 1, len(source)))] = 1
            found.append(weights)
        return found

    monkeypatch.setattr(alignment_heads, "attention_to_source", attention)
    heads = choose_alignment_head(tiny_run.path, lines, lines)
    assert [(one.head, one.late) for one in heads] == [(0, False), (1, True), (-1, True)]
    assert heads[0].information < heads[1].information


def test_the_configured_head_is_taken(tiny_run: Any, translator: Translator) -> None:
    heads = choose_alignment_head(tiny_run.path, [LINE, "the cat"], ["die kleine Katze", "die Katze"])
    assert {(one.layer, one.head) for one in heads} == {(0, -1), (0, 0), (0, 1)}
    assert all(one.information >= -1e-9 for one in heads)
    assert heads == sorted(heads, key=lambda one: (one.late, -one.information))
    links = set()
    for head in (-1, 0, 1):
        config = translator.config.model_copy(update={"alignment_layer": 0, "alignment_head": head})
        chosen = Translator.of(translator.model, translator.tokenizer, config)
        links.add(chosen.translate([LINE], alignments=True)[0].hypotheses[0].alignment)
    assert len(links) > 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beam_size": 2.5}, "beam_size = 2.5: has to be a whole number or None"),
        ({"beam_size": "2"}, "beam_size = '2': has to be a whole number or None"),
        ({"beam_size": True}, "beam_size = True: has to be a whole number or None"),
        ({"n_best": None}, "n_best = None: has to be a whole number"),
        ({"length_penalty": "0.6"}, "length_penalty = '0.6': has to be a number or None"),
        ({"sample": 1}, "sample = 1: has to be True or False"),
        ({"ban": [5]}, r"ban = \(5,\): has to be phrases"),
        ({"prefix": 5}, "prefix = 5: give a text"),
        ({"prefix": [5]}, "prefix 1 is 5, not text"),
    ],
)
def test_options_of_another_type_are_named(translator: Translator, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        translator.translate([LINE], **options)


def test_numbers_may_be_numpys(translator: Translator) -> None:
    expected = translator.translate([LINE], beam_size=2, length_penalty=0.5)
    numbers: dict[str, Any] = {"beam_size": np.int64(2), "length_penalty": np.float32(0.5)}
    assert translator.translate([LINE], **numbers) == expected


def test_one_text_is_no_list_of_lines(translator: Translator) -> None:
    for work in (
        lambda: translator.translate("the cat"),
        lambda: translator.stream("the cat"),
        lambda: translator.score("the cat", "der Katze"),
        lambda: translator.score(["a"], "b"),
    ):
        with pytest.raises(OptionError, match=r"is one text: give a list of lines, such as \[text\]"):
            work()
    with pytest.raises(OptionError, match=r"line is \['the cat'\], not text"):
        next(translator.stream_tokens(["the cat"]))  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [None, 5, b"the cat"])
def test_lines_that_are_no_text_are_named_and_those_before_translated(translator: Translator, wrong: Any) -> None:
    found = []
    with pytest.raises(OptionError, match=f"line 3 is {re.escape(repr(wrong))}, not text"):
        found.extend(translator.stream([LINE, LINE, wrong]))
    assert found == translator.translate([LINE, LINE])
    with pytest.raises(OptionError, match=r"target 1 is .*, not text"):
        translator.score([LINE], [wrong])
    with pytest.raises(OptionError, match=r"pair 2 is .*: give a source and a target"):
        list(translator.score_stream([("a", "b"), ("c",)]))  # type: ignore[list-item]


@pytest.mark.parametrize("name", ["PYTHON.md", "INSIDE.md", "CHANGING.md"])
@pytest.mark.usefixtures("the_machine_as_it_was")
def test_the_examples_of_the_documentation_work(
    name: str, tiny_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import doctest

    shutil.copytree(tiny_run.corpus, tmp_path / "corpus")
    monkeypatch.chdir(tmp_path / "corpus")
    text = Path(__file__).parents[2].joinpath("docs", name).read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))
    test = doctest.DocTestParser().get_doctest(code, {}, name, name, 0)
    assert len(test.examples) > 15
    said: list[str] = []
    with torch.set_grad_enabled(torch.is_grad_enabled()):  # as it was, when an example has turned it off
        results = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=said.append)
    assert results.failed == 0, "".join(said)
