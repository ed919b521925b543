"""What is shown while a model trains, and what is said when it is done."""

from __future__ import annotations

import io
import shlex
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from seq2seq.config import Config
from seq2seq.progress import TrainingProgress, counted_lines, describe_outcome
from seq2seq.recipe import build_config
from seq2seq.run import Run
from seq2seq.stages.finishing import Example, Outcome
from seq2seq.training.trainer import TrainingState

RECORD: dict[str, Any] = {
    "step": 1200, "epoch": 3, "loss": 2.5, "nll": 2.1234, "learning_rate": 0.000312, "grad_norm": 0.5,
    "target_tokens": 4_000_000, "target_tokens_per_second": 12_345, "seconds": 600.0, "skipped_steps": 0,
    "horizon": 10_000, "time_left": 4400.0,
}  # fmt: skip
VALIDATION: dict[str, Any] = {"step": 1250, "valid_loss": 1.98765, "valid_bleu": 31.456, "validation_seconds": 2.0}


def shown(capfd: pytest.CaptureFixture[str]) -> list[str]:
    out, err = capfd.readouterr()
    assert out == ""  # standard output is for results
    return err.splitlines()


def test_without_a_terminal_every_report_is_a_plain_line(capfd: pytest.CaptureFixture[str]) -> None:
    with TrainingProgress() as progress:
        progress.progress(RECORD)
        progress.validation(VALIDATION)
        progress.progress({**RECORD, "step": 1300, "time_left": 4350.0})
    first, validation, second = shown(capfd)
    assert first == "step 1,200/10,000  loss 2.123  12,345 tokens/s  lr 3.12e-04  1:13:20 left"
    assert validation == "step 1,250  validation loss 1.988  BLEU 31.46"
    assert second == "step 1,300/10,000  loss 2.123  12,345 tokens/s  lr 3.12e-04  BLEU 31.5  1:12:30 left"


def test_without_a_horizon_there_is_no_time_left(capfd: pytest.CaptureFixture[str]) -> None:
    with TrainingProgress() as progress:
        progress.progress({**RECORD, "horizon": None, "time_left": None})
    assert shown(capfd) == ["step 1,200  loss 2.123  12,345 tokens/s  lr 3.12e-04  -:-- left"]


def test_the_last_step_has_no_time_left(capfd: pytest.CaptureFixture[str]) -> None:
    with TrainingProgress() as progress:
        progress.progress({**RECORD, "step": 10_000, "time_left": 0.0})
        progress.progress({**RECORD, "step": 10_001, "time_left": -40.0})  # as after a resume with fewer steps
    assert [line.split("  ")[-1] for line in shown(capfd)] == ["0:00 left", "0:00 left"]


def test_validation_without_bleu_shows_the_loss_alone(capfd: pytest.CaptureFixture[str]) -> None:
    with TrainingProgress() as progress:
        progress.validation({**VALIDATION, "valid_bleu": None})
        progress.progress(RECORD)
    validation, line = shown(capfd)
    assert validation == "step 1,250  validation loss 1.988"
    assert "BLEU" not in line


def test_quiet_shows_validations_and_messages_only(capfd: pytest.CaptureFixture[str]) -> None:
    with TrainingProgress(quiet=True) as progress:
        progress.progress(RECORD)
        progress.validation(VALIDATION)
        progress.message("training data: 3 pairs")
    assert shown(capfd) == ["step 1,250  validation loss 1.988  BLEU 31.46", "training data: 3 pairs"]


def test_examples_do_not_steer_the_terminal(tmp_path: Path) -> None:
    example = Example("a \x1b[31mred\x9b dog", "ein\tHund", "\x07")
    text = describe_outcome(Outcome(Run(tmp_path), TrainingState(), 12.0, (example,), "a \x1b[2J dog"), Config())
    assert not set(text) & set("\x1b\x9b\t\x07\u202e")
    persian = Example("می\u200cروم", "\u202eab", "")
    text += describe_outcome(Outcome(Run(tmp_path), TrainingState(), 12.0, (persian,), "a"), Config())
    assert "می\u200cروم" in text and "\u202e" not in text
    assert "source       a \N{REPLACEMENT CHARACTER}[31mred\N{REPLACEMENT CHARACTER} dog\n" in text


@pytest.mark.parametrize("text", ["runs/[bold]x[/bold]", "a :smile: b", "x" * 300, "[/]", "Übung"])
def test_messages_are_shown_as_they_are(capfd: pytest.CaptureFixture[str], text: str) -> None:
    with TrainingProgress() as progress:
        progress.message(text)
    assert shown(capfd) == [text]


def test_a_log_is_told_of_what_takes_long_before_the_first_step(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr("seq2seq.progress.time.monotonic", lambda: clock[0])
    with TrainingProgress() as progress, TrainingProgress(quiet=True) as quiet:
        for clock[0], what, done in [
            (0, "reading", 0), (9, "reading", 90_000), (11, "reading", 110_000), (15, "reading", 150_000),
            (20, "learning 100 pieces", 0),  # nobody waits yet
            (22, "encoding", 0), (30, "encoding", 5_000),
            (83, "encoding", 60_000), (90, "encoding", 70_000),
            (94, "trying the largest batches", 0),
        ]:  # fmt: skip
            for one in (progress, quiet):
                one.working(what, done, 100_000 if what == "encoding" else None)
    assert shown(capfd) == [
        "reading: 110,000 pairs",
        "encoding",
        "encoding: 60,000 of 100,000 pairs",
        "trying the largest batches",
    ]


@pytest.mark.parametrize("width", [80, 120])
def test_on_a_terminal_one_line_is_drawn_over_and_validations_stay(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    screen = io.StringIO()

    def terminal(**options: Any) -> Console:
        return Console(**{**options, "file": screen, "force_terminal": True, "width": width, "color_system": None})

    monkeypatch.setattr("seq2seq.progress.Console", terminal)
    with TrainingProgress() as progress:
        progress.working("encoding")  # is drawn at once: what begins may leave no time for it
        assert "encoding" in screen.getvalue()
        progress.working("encoding", 5_000, 10_000)
        assert progress._progress.tasks[0].total == 10_000
        progress._progress.refresh()
        assert "5,000 of 10,000 pairs" in screen.getvalue() and "left" not in screen.getvalue()
        progress.working("trying the largest batches")
        assert progress._progress.tasks[0].total is None  # it is not known how much of it is done
        progress.validation(VALIDATION)
        progress.progress(RECORD)
        progress._progress.refresh()
    drawn = screen.getvalue()
    for part in ("step 1,200/10,000", "loss 2.123", "12,345 tokens/s", "BLEU 31.5", "1:13:20 left"):
        assert part in drawn
    assert ("lr 3.12e-04" in drawn) == (width == 120) and "…" not in drawn
    assert "step 1,250  validation loss 1.988  BLEU 31.46" in drawn
    assert "\x1b[2K" in drawn  # the line is erased before it is drawn anew


def test_lines_are_counted_beside_standard_output(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(
        "seq2seq.progress.Console", lambda **options: Console(**{**options, "file": screen, "force_terminal": True})
    )
    with counted_lines() as count:
        print("a translation")
        count(1_234)
    assert capsys.readouterr().out == "a translation\n"
    assert "1,234 lines in 0:00" in screen.getvalue() and "translation" not in screen.getvalue()


def outcome(path: str, **changes: Any) -> Outcome:
    example = Example('it\'s "1 < 2" $HOME', "es ist", "es sind")
    given = {"run": Run(Path(path)), "state": TrainingState(), "test_bleu": 12.345, "examples": (example,)}
    return Outcome(**{**given, "sentence": example.source, **changes})


def test_the_outcome_has_the_score_examples_and_commands_that_a_shell_takes(tmp_path: Path) -> None:
    config = build_config({"data": {"test_source": f"{tmp_path}/a b.en", "test_target": f"{tmp_path}/b.de"}})
    lines = describe_outcome(outcome("runs/my run"), config).splitlines()
    assert lines[0] == "test BLEU 12.35"
    assert 'source       it\'s "1 < 2" $HOME' in lines
    assert "translation  es ist" in lines
    assert "reference    es sind" in lines
    echo, explain, benchmark = lines[-3:]
    assert shlex.split(explain) == ["seq2seq", "explain", "runs/my run", 'it\'s "1 < 2" $HOME']
    assert shlex.split(echo) == ["echo", 'it\'s "1 < 2" $HOME', "|", "seq2seq", "translate", "runs/my run"]
    sides = ["--source", f"{tmp_path}/a b.en", "--reference", f"{tmp_path}/b.de"]
    assert shlex.split(benchmark) == ["seq2seq", "benchmark", "runs/my run", *sides]


def test_paths_in_the_working_directory_are_shown_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sides = {"test_source": f"{tmp_path}/data/t.en", "test_target": f"{tmp_path}/data/t.de"}
    config = build_config({"data": {**sides, "bleu_tokenize": "none"}})
    last = describe_outcome(outcome("runs/x"), config).splitlines()[-1]
    assert last == "  seq2seq benchmark runs/x --source data/t.en --reference data/t.de --tokenize none"


def test_without_a_test_set_the_commands_have_places_to_fill_in() -> None:
    text = describe_outcome(outcome("runs/x", test_bleu=None, examples=(), sentence=None), Config())
    assert text.splitlines() == [
        "",
        "The model is in runs/x. Next:",
        "  echo ... | seq2seq translate runs/x",
        "  seq2seq explain runs/x ...",
        "  seq2seq benchmark runs/x --source FILE --reference FILE",
    ]
