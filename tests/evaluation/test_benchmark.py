"""The benchmark from test set to table: with a translator that is a dictionary, and without a network."""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
import os
import random
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sacrebleu.dataset import DATASETS
from sacrebleu.metrics import BLEU

from seq2seq.config import ConfigError, DecodingConfig
from seq2seq.evaluation.benchmark import (
    BenchmarkReport,
    SystemOutput,
    load_translations,
    run_benchmark,
    save_report,
    translate_test_set,
)
from seq2seq.evaluation.report import format_report
from seq2seq.evaluation.testsets import EvaluationSet, TextFile, load_named_test_set, load_test_set
from seq2seq.text.corpus import hash_sources
from seq2seq.text.errors import DataError

SOURCES = [f"sentence number {i} is about {i * 7 % 31} dogs" for i in range(60)]
REFERENCES = [f"Satz Nummer {i} handelt von {i * 7 % 31} Hunden" for i in range(60)]
NAMED = "multi30k/2016"


def corrupted(lines: list[str], rate: float, seed: int = 0) -> list[str]:
    generator = random.Random(seed)
    return [" ".join("x" if generator.random() < rate else word for word in line.split()) for line in lines]


@dataclass
class Hypothesis:
    pieces: tuple[str, ...]
    ended: bool = True


@dataclass
class Result:
    text: str

    @property
    def hypotheses(self) -> list[Hypothesis]:
        return [Hypothesis(tuple(self.text.split()))]


@dataclass
class FakeTranslator:
    """Knows translations by heart, each with as many pieces as words, and remembers what it was asked.

    It warns of each line that it does not know.
    """

    known: dict[str, str]
    delay: float = 0.0
    config: DecodingConfig = field(default_factory=DecodingConfig)
    device: torch.device = torch.device("cpu")  # noqa: RUF009  # immutable
    precision: str = "fp32"
    calls: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    warn: Callable[[str], None] = lambda text: None

    def translate(self, lines: Sequence[str], **search: Any) -> list[Result]:
        self.calls.append((len(lines), search))
        time.sleep(self.delay)
        for number, line in enumerate(lines, 1):
            if line not in self.known:
                self.warn(f"line {number} is not known")
        return [Result(self.known.get(line, "")) for line in lines]


def hashes_of(lines: list[str]) -> dict[str, NDArray[np.int64]]:
    exact, normalized = hash_sources(lines)
    return {"exact": np.unique(exact), "normalized": np.unique(normalized)}


def evaluation_set(sources: list[str] = SOURCES, references: list[str] = REFERENCES) -> EvaluationSet:
    return EvaluationSet(TextFile("test.en", sources), (TextFile("test.de", references),))


def write(path: Path, lines: list[str]) -> Path:
    path.write_bytes("".join(f"{line}\n" for line in lines).encode())
    return path


@pytest.fixture
def report() -> BenchmarkReport:
    """Two runs, of which the first has seen two sources (one in another case), and a file of translations."""
    first, second = (
        dict(zip(SOURCES, corrupted(REFERENCES, rate, seed), strict=True)) for rate, seed in ((0.3, 1), (0.1, 2))
    )
    seen = hashes_of([SOURCES[0], SOURCES[1].upper()])
    systems = [
        translate_test_set(FakeTranslator(first), SOURCES, name="runs/A", source_hashes=seen),
        translate_test_set(FakeTranslator(second), SOURCES, name="runs/longer-name", source_hashes=hashes_of([])),
        SystemOutput("finished.de", corrupted(REFERENCES, 0.3, seed=3)),
    ]
    return run_benchmark(evaluation_set(), systems, num_samples=100)


# Translating


def test_translating_is_timed_and_target_pieces_are_counted_with_end_of_sentence() -> None:
    translator = FakeTranslator({"one": "eins", "two words": "zwei Worte"}, delay=0.05)
    output = translate_test_set(translator, ["one", "", "two words", "unknown"], name="runs/A", search={"beam_size": 2})
    assert output.hypotheses == ["eins", "", "zwei Worte", ""]
    assert translator.calls == [(1, {"beam_size": 2}), (4, {"beam_size": 2})]  # one sentence before the clock starts
    speed = output.speed
    assert speed is not None and speed.output_tokens == 2 + 3 + 1  # an empty source gives none
    assert 0.05 <= speed.seconds < 1
    assert speed.sentences_per_second == pytest.approx(4 / speed.seconds)
    assert speed.output_tokens_per_second == pytest.approx(6 / speed.seconds)
    assert re.search(r"\d+ threads?$", speed.hardware)
    assert output.decoding is not None
    assert (output.decoding["beam_size"], output.decoding["length_penalty"]) == (2, 0.6)
    assert output.overlap is None


def test_a_translation_that_was_cut_has_no_end_of_sentence_to_count() -> None:
    @dataclass
    class Cut(Result):
        @property
        def hypotheses(self) -> list[Hypothesis]:
            return [Hypothesis(tuple(self.text.split()), ended=False)]

    class Cutting(FakeTranslator):
        def translate(self, lines: Sequence[str], **options: Any) -> list[Result]:
            return [Cut("a b c") for _ in lines]

    output = translate_test_set(Cutting({}), ["one", "two"], name="runs/A")
    assert output.speed is not None and output.speed.output_tokens == 6


def test_what_is_translated_before_the_clock_starts_is_not_warned_of_twice() -> None:
    warnings: list[str] = []
    translator = FakeTranslator({"": "", "two words": "zwei Worte"}, warn=warnings.append)
    translate_test_set(translator, ["", "unknown", "two words"], name="runs/A")
    assert warnings == ["line 2 is not known"]
    assert translator.warn == warnings.append


def test_a_test_set_of_empty_lines_is_translated_and_scored() -> None:
    output = translate_test_set(FakeTranslator({}), ["", " "], name="runs/A")
    assert output.speed is not None and output.speed.output_tokens == 0
    report = run_benchmark(evaluation_set(["", " "], ["Hund", "Katze"]), [output], num_samples=100)
    assert report.whole.scores[0]["bleu"].value == 0.0


# Test sets


def test_test_sets_are_read_from_files_gzipped_or_not(tmp_path: Path) -> None:
    source = write(tmp_path / "t.en", SOURCES)
    packed = tmp_path / "t.de.gz"
    packed.write_bytes(gzip.compress("\n".join(REFERENCES).encode()))
    second = write(tmp_path / "t2.de", REFERENCES[::-1])
    test_set = load_test_set(source, [packed, second])
    assert test_set.source.lines == SOURCES and len(test_set) == 60
    assert [reference.lines for reference in test_set.references] == [REFERENCES, REFERENCES[::-1]]
    described = test_set.as_dict()
    assert described["source"] == {
        "file": str(source),
        "lines": 60,
        "blank_lines": 0,
        "sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
    }
    assert described["references"][1]["sha256"] == hashlib.sha256(second.read_bytes()).hexdigest()


def test_sides_of_other_lengths_are_refused_with_both_counts_and_names(tmp_path: Path) -> None:
    source, reference = write(tmp_path / "t.en", SOURCES), write(tmp_path / "t.de", REFERENCES[1:])
    with pytest.raises(DataError, match=r"t\.en has 60 lines and .*t\.de has 59"):
        load_test_set(source, [reference])
    with pytest.raises(ConfigError, match="reference is missing"):
        load_test_set(source, [])
    empty = write(tmp_path / "empty", [])
    with pytest.raises(DataError, match="empty: no lines"):
        load_test_set(empty, [empty])
    with pytest.raises(DataError, match=r"t\.fr: no such file"):
        load_test_set(source, [tmp_path / "t.fr"])


def test_translations_of_another_length_are_refused_with_both_counts_and_names(tmp_path: Path) -> None:
    output = load_translations(write(tmp_path / "out.txt", REFERENCES[2:]))
    assert (output.name, output.speed, output.overlap) == (str(tmp_path / "out.txt"), None, None)
    with pytest.raises(DataError, match=r"out\.txt has 58 lines and test\.en has 60"):
        run_benchmark(evaluation_set(), [output])


@pytest.fixture
def sacrebleu_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for sacreBLEU's test set, and no network."""

    def no_network(*arguments: Any, **options: Any) -> Any:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(DATASETS[NAMED], "_outdir", str(tmp_path))
    monkeypatch.setattr(DATASETS[NAMED], "_rawdir", str(tmp_path / "raw"))
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return tmp_path


def test_named_test_sets_come_from_sacrebleu(sacrebleu_folder: Path) -> None:
    write(sacrebleu_folder / "multi30k_2016.en-de.src", SOURCES)
    write(sacrebleu_folder / "multi30k_2016.en-de.ref", REFERENCES)
    test_set = load_named_test_set(NAMED, "en-de")
    assert (test_set.name, test_set.language_pair) == (NAMED, "en-de")
    assert test_set.source.lines == SOURCES and [reference.lines for reference in test_set.references] == [REFERENCES]


def test_without_a_network_a_named_test_set_is_a_data_error_with_a_remedy(sacrebleu_folder: Path) -> None:
    before = socket.getdefaulttimeout()
    with pytest.raises(
        DataError, match=r"multi30k/2016 \(en-de\) cannot be fetched .* --source and --reference"
    ) as caught:
        load_named_test_set(NAMED, "en-de")
    assert "\n" not in str(caught.value) and "name resolution" in str(caught.value)
    assert socket.getdefaulttimeout() == before


def test_a_damaged_download_is_a_data_error(sacrebleu_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ends_the_program(langpair: str) -> str:
        raise SystemExit(1)

    monkeypatch.setattr(DATASETS[NAMED], "get_source_file", ends_the_program)
    with pytest.raises(DataError, match="not what it should be"):
        load_named_test_set(NAMED, "en-de")


def test_unknown_test_sets_and_pairs_are_refused_with_the_choices() -> None:
    with pytest.raises(ConfigError, match=r"--test-set multi30k/2061: not .*did you mean .*multi30k/2016"):
        load_named_test_set("multi30k/2061", "en-de")
    with pytest.raises(ConfigError, match="sacrebleu --list"):
        load_named_test_set("nothing like it at all")
    with pytest.raises(
        ConfigError, match="--language-pair de-en: not in test set multi30k/2016; choose one of en-cs, en-de, en-fr"
    ):
        load_named_test_set(NAMED, "de-en")
    with pytest.raises(ConfigError, match="is missing for test set multi30k/2016; choose one of"):
        load_named_test_set(NAMED)


# Scoring


def test_overlapping_sentences_are_left_out_for_all_systems(report: BenchmarkReport) -> None:
    assert report.without_exact is not None and report.without_normalized is not None
    assert [report.whole.lines, report.without_exact.lines, report.without_normalized.lines] == [60, 59, 58]
    for index, system in enumerate(report.systems):
        for subset, skipped in ((report.whole, 0), (report.without_exact, 1), (report.without_normalized, 2)):
            by_hand = BLEU().corpus_score(system.hypotheses[skipped:], [REFERENCES[skipped:]]).score
            assert subset.scores[index]["bleu"].value == pytest.approx(by_hand)
    assert report.without_normalized.scores[0]["bleu"].value != report.whole.scores[0]["bleu"].value
    p_values = [scores["bleu"].p_value for scores in report.without_normalized.scores]
    assert p_values[0] is None and p_values[1] is not None and p_values[1] < 0.05


def test_without_known_training_data_nothing_is_said_about_overlap() -> None:
    report = run_benchmark(evaluation_set(), [SystemOutput("out.de", REFERENCES)], ("bleu",), num_samples=100)
    assert report.without_exact is None and report.without_normalized is None
    assert report.as_dict()["systems"][0]["scores_without_normalized_overlap"] is None
    assert re.search(r"out\.de +unknown +unknown", format_report(report))


def test_a_test_set_that_is_all_training_data_leaves_nothing_to_score() -> None:
    translator = FakeTranslator(dict(zip(SOURCES, REFERENCES, strict=True)))
    output = translate_test_set(translator, SOURCES, name="runs/A", source_hashes=hashes_of(SOURCES))
    report = run_benchmark(evaluation_set(), [output], ("bleu",), num_samples=100)
    assert report.without_exact is not None and report.without_exact.lines == 0
    assert "Without 60 sentences of exact or normalised overlap (0 left):\nnothing to score" in format_report(report)
    assert report.as_dict()["systems"][0]["scores_without_exact_overlap"] is None


# Reporting


def test_the_json_has_all_that_it_takes_to_check_a_score(report: BenchmarkReport, tmp_path: Path) -> None:
    save_report(report, tmp_path / "out.json")
    saved = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert saved == report.as_dict()
    assert saved["signatures"]["bleu"].startswith("nrefs:1|bs:100|seed:12345|case:mixed|eff:no|tok:13a|")
    assert saved["lines"] == {
        "whole": 60,
        "without_exact_overlap": 59,
        "without_normalized_overlap": 58,
    }
    assert (saved["metrics"], saved["tokenize"]) == (["bleu", "chrf", "ter"], "13a")
    assert {"seq2seq", "torch", "sacrebleu"} <= saved["versions"].keys()
    assert saved["test_set"]["references"][0]["lines"] == 60
    run, _, file = saved["systems"]
    assert (
        run["hypotheses"]["sha256"]
        == hashlib.sha256("".join(f"{line}\n" for line in report.systems[0].hypotheses).encode()).hexdigest()
    )
    assert run["overlap"] == {"exact": 1, "normalized": 2}
    assert run["decoding"]["beam_size"] == 4 and run["speed"]["output_tokens"] == 60 * 8
    assert run["scores"]["bleu"]["low"] < run["scores"]["bleu"]["value"] < run["scores"]["bleu"]["high"]
    assert run["scores"]["bleu"]["p_value"] is None and 0 < file["scores"]["ter"]["p_value"] <= 1
    assert file["speed"] is file["decoding"] is file["overlap"] is None


def test_a_report_that_cannot_be_written_is_a_data_error(report: BenchmarkReport, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be written"):
        save_report(report, tmp_path / "no-such-folder" / "out.json")


def test_a_report_that_cannot_be_written_leaves_the_one_before(
    report: BenchmarkReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out.json"
    path.write_text("what was found before")
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(DataError, match=r"out\.json: no space left"):
        save_report(report, path)
    assert [(found.name, found.read_text()) for found in tmp_path.iterdir()] == [("out.json", "what was found before")]


def full_disk(descriptor: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_report_goes_through_links_and_into_devices(report: BenchmarkReport, tmp_path: Path) -> None:
    (tmp_path / "real.json").write_text("{}")
    (tmp_path / "link.json").symlink_to("real.json")
    save_report(report, tmp_path / "link.json")
    assert (tmp_path / "link.json").is_symlink()
    assert json.loads((tmp_path / "real.json").read_text(encoding="utf-8")) == report.as_dict()
    save_report(report, Path(os.devnull))
    assert not Path(os.devnull).is_file()


@pytest.mark.skipif(not Path("/dev/stdout").exists(), reason="there is no /dev/stdout here")
@pytest.mark.parametrize("into", ["pipe", "file"])
def test_a_report_may_go_to_standard_output(tmp_path: Path, into: str) -> None:
    program = (
        "import sys, pathlib; from seq2seq.atomic import write_text; print('before', flush=True); "
        "write_text(pathlib.Path('/dev/stdout'), '{}\\n')"
    )
    out = tmp_path / "out"
    with out.open("a") as file:
        where = file if into == "file" else subprocess.PIPE
        done = subprocess.run([sys.executable, "-c", program], stdout=where, check=True)
    found = out.read_bytes() if into == "file" else done.stdout
    assert found == b"before\n{}\n"


def test_a_report_keeps_the_permissions_of_the_one_before(report: BenchmarkReport, tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    path.write_text("{}")
    path.chmod(0o600)
    save_report(report, path)
    assert path.stat().st_mode & 0o777 == 0o600 and path.stat().st_size > 2


def test_the_table_is_aligned_and_complete(report: BenchmarkReport) -> None:
    text = format_report(report)
    assert text.isascii() and not any(line != line.rstrip() for line in text.splitlines())
    table = next(block for block in text.split("\n\n") if block.startswith("system"))
    header, *rows = table.splitlines()
    assert header.split() == ["system", "BLEU", "chrF2", "TER"]
    assert [row.split()[0] for row in rows] == ["runs/A", "runs/longer-name", "finished.de"]
    assert len({len(line.rstrip("*")) for line in rows}) == 1
    assert len({row.index("[") for row in rows}) == 1
    speeds = next(block for block in text.split("\n\n") if block.startswith("speed")).splitlines()
    assert [row.split()[0] for row in speeds] == ["speed", "runs/A", "runs/longer-name"]  # those that translated
    assert speeds[0].split()[1:] == ["sentences/s", "tokens/s"] and len({len(row) for row in speeds}) == 1
    assert max(map(len, table.splitlines())) <= 88  # and of a name of eight characters 80
    bleu = report.whole.scores[0]["bleu"]
    assert f"{bleu.value:.2f} [{bleu.low:.2f}, {bleu.high:.2f}]" in rows[0] and "*" not in rows[0]
    assert "]*" in rows[1] and "p against runs/A" in text and "*: p < 0.05" in text
    assert re.search(r"runs/A +1 of 60 +2 of 60", text) and re.search(r"finished\.de +unknown +unknown", text)
    assert "Without 1 sentence of exact overlap (59 left):" in text
    assert "Without 2 sentences of normalised overlap (58 left):" in text
    assert f"BLEU|{bleu.signature}" in text and "TER|nrefs:1" in text
    assert "test.en" in text and "test.de" in text and "thread" in text


def test_the_table_of_one_system_speaks_of_no_significance() -> None:
    text = format_report(run_benchmark(evaluation_set(), [SystemOutput("out.de", REFERENCES)], num_samples=100))
    assert "*" not in text and "p against" not in text and "sentences/s" not in text
