"""Scores are sacreBLEU's: called directly, and as its command gives them."""

from __future__ import annotations

import json
import random
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sacrebleu.metrics import BLEU, CHRF, TER

import seq2seq.evaluation.metrics as metrics_module
from seq2seq.config import ConfigError
from seq2seq.evaluation import downloads
from seq2seq.evaluation.metrics import (
    USUAL_METRICS,
    Score,
    compare_systems,
    corpus_bleu,
    parse_metrics,
)
from seq2seq.evaluation.significance import randomization_p_value
from seq2seq.evaluation.tokenization import tokenize_remark, try_tokenize, usual_tokenize
from seq2seq.text.errors import DataError

WORDS = ["a", "dog", "runs", "over", "green", "grass", ",", "two", "men", "(", "hats", ")", "watch", "&", "laugh", "."]


def sentences(count: int, seed: int = 0) -> list[str]:
    generator = random.Random(seed)
    return [" ".join(generator.choices(WORDS, k=generator.randint(4, 14))) for _ in range(count)]


def corrupted(lines: list[str], rate: float, seed: int = 1) -> list[str]:
    """The lines with this share of the words replaced."""
    generator = random.Random(seed)
    return [
        " ".join(generator.choice(WORDS) if generator.random() < rate else word for word in line.split())
        for line in lines
    ]


REFERENCES = sentences(200)
HYPOTHESES = corrupted(REFERENCES, 0.3)


def score_system(
    hypotheses: list[str], references: list[list[str]], *arguments: Any, **options: Any
) -> dict[str, Score]:
    """The scores of one system alone."""
    [scores] = compare_systems([hypotheses], references, *arguments, **options)
    return dict(scores)


def sacrebleu_command(folder: Path, hypotheses: list[list[str]], *arguments: str) -> Any:
    """What the `sacrebleu` command prints as JSON for systems against REFERENCES."""
    names = ["references", *(f"system-{number}" for number in range(len(hypotheses)))]
    for name, lines in zip(names, [REFERENCES, *hypotheses], strict=True):
        (folder / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    command = [sys.executable, "-m", "sacrebleu", *names[:1], "-i", *names[1:], "-f", "json", "-w", "8", *arguments]
    return json.loads(subprocess.run(command, cwd=folder, capture_output=True, check=True).stdout)


@pytest.mark.parametrize("tokenize", ["13a", "none", "intl", "char"])
def test_corpus_bleu_is_sacrebleus(tokenize: str) -> None:
    expected = BLEU(tokenize=tokenize).corpus_score(HYPOTHESES, [REFERENCES]).score
    assert corpus_bleu(HYPOTHESES, REFERENCES, tokenize) == expected


@pytest.mark.parametrize(
    ("metric", "make"),
    [
        ("bleu", lambda: BLEU(tokenize="13a")),
        ("chrf", lambda: CHRF()),
        ("chrf++", lambda: CHRF(word_order=2)),
        ("ter", lambda: TER()),
    ],
)
@pytest.mark.parametrize("num_references", [1, 2])
def test_scores_intervals_and_signatures_are_sacrebleus(
    metric: str, make: Callable[[], Any], num_references: int
) -> None:
    references = [REFERENCES, corrupted(REFERENCES, 0.1, seed=2)][:num_references]
    direct = make()
    expected = direct.corpus_score(HYPOTHESES, references, n_bootstrap=300)
    score = score_system(HYPOTHESES, references, parse_metrics(metric), num_samples=300)[metric]
    assert (score.metric, score.name, score.value) == (metric, expected.name, expected.score)
    assert score.mean == pytest.approx(expected._mean, rel=1e-6)  # sacreBLEU's paired test averages in float32
    assert score.confidence == pytest.approx(expected._ci, rel=1e-5)
    assert score.signature == str(direct.get_signature())
    assert f"nrefs:{num_references}|bs:300|seed:12345|" in score.signature
    assert (score.num_samples, score.seed, score.p_value) == (300, "12345", None)
    assert score.low < score.value < score.high


def test_the_sacrebleu_command_gives_the_same_numbers(tmp_path: Path) -> None:
    command = sacrebleu_command(
        tmp_path, [HYPOTHESES], "--tokenize", "none", "--force", "-m", "bleu", "chrf", "ter", "--confidence"
    )
    ours = score_system(HYPOTHESES, [REFERENCES], tokenize="none")
    assert {score["name"]: score["signature"] for score in command} == {
        score.name: score.signature for score in ours.values()
    }
    for score in ours.values():
        theirs = next(entry for entry in command if entry["name"] == score.name)
        assert score.value == pytest.approx(theirs["score"], abs=1e-7)
        assert score.mean == pytest.approx(theirs["confidence_mean"], rel=1e-6)
        assert score.confidence == pytest.approx(theirs["confidence_var"], rel=1e-5)


def test_intervals_of_several_systems_are_those_of_the_sacrebleu_command(tmp_path: Path) -> None:
    systems = [HYPOTHESES, corrupted(REFERENCES, 0.28, seed=5)]
    command = sacrebleu_command(tmp_path, systems, "-m", "bleu", "--paired-bs", "--paired-bs-n", "200")
    ours = compare_systems(systems, [REFERENCES], ("bleu",), num_samples=200)
    for theirs, scores in zip(command, ours, strict=True):
        entry, score = theirs["BLEU"], scores["bleu"]
        assert score.value == pytest.approx(entry["score"])
        assert score.mean == pytest.approx(entry["mean"])
        assert score.confidence == pytest.approx(entry["ci"])


def test_p_values_are_nearly_those_of_the_sacrebleu_commands_randomisation(tmp_path: Path) -> None:
    """Other draws, so not the same; 2,000 trials have p = 0.2 within 0.04, four standard errors of a difference."""
    systems = [HYPOTHESES, corrupted(REFERENCES, 0.24, seed=5)]
    command = sacrebleu_command(tmp_path, systems, "-m", "bleu", "--paired-ar", "--paired-ar-n", "2000")
    theirs = command[1]["BLEU"]["p_value"]
    ours = compare_systems(systems, [REFERENCES], ("bleu",), num_samples=2000)[1]["bleu"].p_value
    assert 0.02 < theirs < 0.5
    assert ours == pytest.approx(theirs, abs=0.05)


def test_equally_good_systems_are_told_apart_as_rarely_as_the_p_value_says() -> None:
    """Of 200 pairs that differ by chance alone, p < 0.05 in 10; a one-sided count would have 20."""
    metric, generator, found = BLEU(), np.random.default_rng(9), []
    one, other = (
        np.array(metric._extract_corpus_statistics(system, [REFERENCES]))
        for system in (HYPOTHESES, corrupted(REFERENCES, 0.3, seed=4))
    )
    for _ in range(200):
        swapped = generator.random((len(REFERENCES), 1)) < 0.5
        pair = np.where(swapped, one, other), np.where(swapped, other, one)
        found.append(randomization_p_value(metric, *pair, num_trials=100, seed="12345"))
    assert 2 <= sum(p < 0.05 for p in found) <= 19  # 10 but for three standard errors
    assert max(found) > 0.9


@pytest.mark.parametrize("seed", ["12345", "0", "None"])
def test_systems_that_do_not_differ_are_not_significantly_different(monkeypatch: pytest.MonkeyPatch, seed: str) -> None:
    monkeypatch.setenv("SACREBLEU_SEED", seed)
    same, respaced = list(HYPOTHESES), [f"{line}  " for line in HYPOTHESES]
    _, *others = compare_systems([HYPOTHESES, same, respaced], [REFERENCES], num_samples=100)
    assert all(score.p_value == 1.0 for scores in others for score in scores.values())


@pytest.mark.parametrize("lines", [1, 2, 3])
def test_a_few_sentences_show_no_significant_difference(lines: int) -> None:
    wrong, right = ["a dog ran ."] * lines, ["a dog runs ."] * lines
    _, other = compare_systems([wrong, right], [right], num_samples=200)
    assert all(score.p_value is not None and score.p_value > 0.1 for score in other.values())


def test_intervals_stay_on_the_scale() -> None:
    nearly = [*REFERENCES[:48], "a", "b"]
    scores = score_system(nearly, [REFERENCES[:50]], ("bleu", "chrf", "ter"), num_samples=300)
    assert scores["bleu"].mean + scores["bleu"].confidence > 100 == scores["bleu"].high
    assert scores["ter"].mean - scores["ter"].confidence < 0 == scores["ter"].low


def test_a_blank_line_of_one_set_of_references_is_not_a_reference() -> None:
    short, long = ["a dog runs over"] * 20, ["a dog runs over the green grass in the park ."] * 20
    alone, blank = score_system(short, [long]), score_system(short, [long, [" "] * 20])
    for metric in USUAL_METRICS:
        assert alone[metric].value == blank[metric].value
    mixed = score_system(short, [long, [*long[:10], *[""] * 10]])
    assert "nrefs:var" in mixed["bleu"].signature and mixed["bleu"].value == alone["bleu"].value
    # Where no set has text, an empty translation is right, as sacreBLEU has it.
    empty = score_system(["", "a dog"], [["", "a dog"], ["", "a cat"]], ("ter",), num_samples=100)
    assert empty["ter"].value == 0.0


def test_case_counts_unless_it_is_said_not_to() -> None:
    loud = [line.upper() for line in HYPOTHESES]
    metrics = ("bleu", "chrf", "chrf++", "ter")
    plain, heard = (
        score_system(lines, [REFERENCES], metrics, num_samples=100, lowercase=True) for lines in (HYPOTHESES, loud)
    )
    assert {name: score.value for name, score in plain.items()} == {name: score.value for name, score in heard.items()}
    assert "case:lc" in heard["bleu"].signature and "case:lc" in heard["chrf"].signature
    assert score_system(loud, [REFERENCES], ("bleu",), num_samples=100)["bleu"].value < 5 < heard["bleu"].value


def test_a_clearly_better_system_is_significantly_better() -> None:
    better, slightly = corrupted(REFERENCES, 0.15, seed=3), corrupted(REFERENCES, 0.3, seed=4)
    first, second, third = compare_systems([HYPOTHESES, better, slightly], [REFERENCES], num_samples=300)
    for metric in USUAL_METRICS:
        gain = second[metric].value - first[metric].value
        assert gain < 0 if metric == "ter" else gain > 0
        assert second[metric].p_value is not None and second[metric].p_value < 0.05
        assert third[metric].p_value is not None and third[metric].p_value > 0.05
        # Each system is resampled alike, alone or in company.
        assert score_system(better, [REFERENCES], (metric,), num_samples=300)[metric].mean == second[metric].mean


def test_empty_lines_and_empty_outputs_are_scored() -> None:
    empty = [""] * len(REFERENCES)
    assert corpus_bleu(empty, REFERENCES) == 0.0
    scores = score_system(empty, [REFERENCES], num_samples=100)
    assert [scores[metric].value for metric in USUAL_METRICS] == [0.0, 0.0, 100.0]
    assert corpus_bleu([*HYPOTHESES, ""], [*REFERENCES, ""]) == corpus_bleu(HYPOTHESES, REFERENCES)


def test_tokenised_text_gives_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    lines = ["a dog runs ."] * 150
    BLEU().corpus_score(lines, [lines])
    assert "tokenized" in caplog.text
    caplog.clear()
    assert corpus_bleu(lines, lines, "none") == pytest.approx(100.0)
    assert not caplog.text


def test_counts_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match="200 hypotheses and 199 references: give one for each"):
        corpus_bleu(HYPOTHESES, REFERENCES[1:])
    with pytest.raises(ValueError, match="200 hypotheses and 1 references in set 2"):
        score_system(HYPOTHESES, [REFERENCES, ["one"]])
    with pytest.raises(ValueError, match="199 hypotheses and 200 references"):
        compare_systems([HYPOTHESES, HYPOTHESES[1:]], [REFERENCES])
    with pytest.raises(ValueError, match="0 hypotheses and 0 references"):
        corpus_bleu([], [])
    with pytest.raises(ValueError, match="200 hypotheses and no references"):
        score_system(HYPOTHESES, [])


def test_metrics_are_parsed_and_unknown_ones_refused() -> None:
    assert parse_metrics("ter, BLEU,ter") == ("ter", "bleu")
    with pytest.raises(
        ConfigError, match=r"--metrics rouge: not one of the metrics; choose from bleu, chrf, chrf\+\+, ter"
    ):
        parse_metrics("bleu,rouge", "--metrics")
    with pytest.raises(ConfigError, match="names none"):
        parse_metrics(" , ")
    with pytest.raises(ConfigError, match="num_samples = 1 is too few"):
        score_system(HYPOTHESES, [REFERENCES], num_samples=1)


def test_unknown_tokenisations_are_refused_with_the_choices() -> None:
    with pytest.raises(
        ConfigError, match=r"tokenize = '13b': not one of sacreBLEU's \(did you mean 13a\?\); choose from none, zh"
    ):
        corpus_bleu(HYPOTHESES, REFERENCES, "13b")


@pytest.mark.parametrize(
    ("raised", "expected", "message"),
    [
        (RuntimeError("needs extras.\n\n   pip install sacrebleu[ja]\n"), ConfigError, "needs extras. pip install"),
        (OSError("no route"), DataError, "cannot be fetched .no route.; check the network"),
        (SystemExit(1), DataError, "cannot be fetched"),
    ],
)
def test_tokenisers_that_cannot_be_had_give_one_line(
    monkeypatch: pytest.MonkeyPatch, raised: BaseException, expected: type[Exception], message: str
) -> None:
    def refuse(name: str) -> None:
        raise raised

    monkeypatch.setattr("sacrebleu.metrics.bleu._get_tokenizer", refuse)
    with pytest.raises(expected, match=message) as caught:
        corpus_bleu(HYPOTHESES, REFERENCES, "flores200")
    assert "\n" not in str(caught.value)
    with pytest.raises(expected, match=rf"^data.bleu_tokenize = 'flores200': .*{message}"):
        try_tokenize("flores200", "data.bleu_tokenize = 'flores200'")


def test_a_tokeniser_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server on this machine that takes the connection and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"

        def fetch(name: str) -> None:
            urllib.request.urlopen(url)

        monkeypatch.setattr("sacrebleu.metrics.bleu._get_tokenizer", fetch)
        monkeypatch.setattr(downloads, "DOWNLOAD_TIMEOUT", 0.2)
        with pytest.raises(DataError, match=r"cannot be fetched .*timed out.*check the network"):
            try_tokenize("flores200")


@pytest.mark.parametrize(
    ("language", "expected"),
    [("zh", "zh"), ("zho_Hans", "zh"), ("cmn", "zh"), ("jpn", "ja-mecab"), ("ko-KR", "ko-mecab"), ("de", "13a")],
)
def test_languages_have_their_usual_tokenisation_by_any_code(language: str, expected: str) -> None:
    assert usual_tokenize(language) == expected
    assert (tokenize_remark("13a", language) is None) == (expected == "13a")


@pytest.mark.parametrize(
    ("tokenize", "line", "remedy"),
    [
        ("13a", "两只狗在草地上奔跑。", "choose zh"),
        ("intl", "二匹の犬が草の上で遊んでいる。", "choose ja-mecab, or char"),
        ("none", "สุนัขสองตัววิ่งเล่นบนสนามหญ้า", "choose char"),
        ("zh", "两只狗在草地上奔跑。", None),
        ("char", "สุนัขสองตัววิ่งเล่นบนสนามหญ้า", None),
        ("13a", "Zwei Hunde spielen im Gras.", None),
    ],
)
def test_text_without_spaces_is_told_from_words(tokenize: str, line: str, remedy: str | None) -> None:
    remark = tokenize_remark(tokenize, "", [line] * 3)
    assert remark is None if remedy is None else (remark or "").endswith(f"tell nothing; {remedy}")
    assert tokenize_remark(tokenize, "", []) is None


def test_large_test_sets_draw_fewer_resamples_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_module, "MAX_DRAWS", 150 * len(REFERENCES))
    score = score_system(HYPOTHESES, [REFERENCES], ("bleu",))["bleu"]
    assert score.num_samples == 150 and "|bs:150|" in score.signature
