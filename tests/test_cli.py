"""The command line as a user meets it: what goes in, what comes out, and what is said when something is wrong."""

from __future__ import annotations

import contextlib
import errno
import gzip
import json
import math
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from seq2seq import __version__
from seq2seq.decoding import options as options_module
from seq2seq.decoding.translator import Options, Translator
from seq2seq.errors import UserError
from seq2seq.run import Run
from seq2seq.signals import Signals, Stopped

Cli = Callable[..., Any]
COMMANDS = ("train", "translate", "score", "benchmark", "explain", "verify-resume")
ONE = ("--threads", "1")


@pytest.fixture(scope="module")
def sources(tiny_corpus: Path) -> list[str]:
    return (tiny_corpus / "test.en").read_text(encoding="utf-8").splitlines()


@pytest.fixture(scope="module")
def translator(tiny_run: Any) -> Translator:
    return Translator(tiny_run.path)


@pytest.fixture
def translate(run_cli: Cli, tiny_run: Any) -> Cli:
    """`seq2seq translate RUN ...` with lines, or bytes, on standard input."""

    def run(*arguments: str | Path, lines: list[str] | None = None, stdin: bytes = b"", code: int = 0) -> Any:
        given = stdin if lines is None else "".join(f"{line}\n" for line in lines).encode()
        result = run_cli("translate", tiny_run.path, *arguments, *ONE, stdin=given)
        assert result.code == code, result.err
        return result

    return run


def one_line(result: Any, code: int, *parts: str) -> str:
    """The one line on standard error of a command that failed, with all the parts in it and nothing on stdout."""
    assert (result.code, result.out) == (code, ""), result
    assert re.fullmatch(r"seq2seq: [^\n]+\n", result.err), result.err
    assert "Traceback" not in result.err
    for part in parts:
        assert part in result.err
    return str(result.err)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def start(*arguments: str | Path, **options: Any) -> subprocess.Popen[bytes]:
    """`seq2seq ARGUMENTS` as a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **options.pop("env", {})}
    program = "from seq2seq.cli import main; main()"
    command = [sys.executable, "-c", program, *map(str, arguments)]
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen(command, env=environment, **{**streams, **options})


# Help


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_the_help_of_every_command_has_an_example(run_cli: Cli, command: str, option: str) -> None:
    result = run_cli(command, option)
    assert (result.code, result.err) == (0, "")
    assert f"Example: {'echo' if command == 'translate' else 'seq2seq ' + command}" in result.out
    assert result.out.startswith(f"Usage: seq2seq {command} [OPTIONS]")
    assert "[[" not in result.out  # of nested metavars such as [[FILE]...]...
    assert " range>" not in result.out
    assert "<list" not in result.out


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help_lists_the_commands_and_a_first_step(run_cli: Cli, arguments: list[str]) -> None:
    result = run_cli(*arguments)
    assert (result.code, result.err) == (0, "")
    for command in COMMANDS:
        assert re.search(rf"^  {command} +[A-Z][^.]+\.$", result.out, re.MULTILINE)
    assert "Start here: seq2seq train data/quickstart.toml" in result.out


def test_the_version_is_shown(run_cli: Cli) -> None:
    result = run_cli("--version")
    assert (result.code, result.out, result.err) == (0, f"{__version__}\n", "")


@pytest.mark.parametrize("command", COMMANDS)
def test_options_in_the_examples_exist(run_cli: Cli, command: str) -> None:
    usage, _, example = run_cli(command, "--help").out.partition("Example:")
    for option in re.findall(r"--[a-z-]+", example):
        assert re.search(rf"^ +(-\w, )?{option} ", usage, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--bogus"], ["No such option", "--bogus", "seq2seq --help"]),
        (["tranlsate"], ["No such command 'tranlsate'", "translate", "seq2seq --help"]),
        (["generate"], ["No such command 'generate'; instead: seq2seq translate (see seq2seq --help)"]),
        (["bogus"], ["No such command 'bogus'; there are train, translate, score, benchmark"]),
        (
            ["train", "--max-steps", "9"],
            ["No such option: --max-steps; it is a setting: --set training.max_steps=... ("],
        ),
        (["train", "--layers=9"], ["--set model.num_encoder_layers=... --set model.num_decoder_layers=... (see"]),
        (["train", "--batch-tokens=9"], ["--set training.batch_tokens=... or --set decoding.batch_tokens=... (see"]),
        (["train", "--lr", "1e-3"], ["No such option: --lr; the rate's peak is training.learning_rate_scale *"]),
        (["train", "--save-dir", "x"], ["No such option: --save-dir; instead: --run-dir"]),
        (["translate", "x", "--max-steps"], ["No such option: --max-steps", "(see seq2seq translate --help)"]),
        (["translate", "x", "--batch_size=1"], ["No such option: --batch_size; instead: decoding.batch_tokens in the"]),
        (
            ["train", "--source", "a", "--target", "b", "--source=c"],
            ["--source is given twice, and takes one file: join"],
        ),
        (["translate", "x", "--ban-file=a", "--ban-file=b"], ["--ban-file is given twice, and takes one file"]),
        (["translate", "x", "--ban", "--", "--prefix=a", "--prefix=b"], ["--prefix is given twice"]),
        (["benchmark", "x", "--json", "a", "--json", "b"], ["name the test set"]),
        (["train", "--gpus", "4"], ["No such option: --gpus; a training has one device, training.device"]),
        (["translate", "x", "--prefix", "a", "--prefix", "b"], ["--prefix is given twice, and takes one text"]),
        (["train", "--resum"], ["--resum", "--resume", "seq2seq train --help"]),
        (["train", "a.toml", "b.toml"], ["extra argument", "b.toml"]),
        (["train", "--set"], ["--set", "requires an argument"]),
        (["translate"], ["Missing argument 'RUN'", "seq2seq translate --help"]),
        (["translate", "x", "--beam-size", "four"], ["--beam-size", "valid integer", "'four'"]),
        (["translate", "x", "--temperature", "hot"], ["--temperature", "'hot'"]),
        (["benchmark"], ["Missing argument 'SYSTEM'"]),
    ],
)
def test_arguments_that_make_no_sense_are_told_in_one_line(
    run_cli: Cli, arguments: list[str], parts: list[str]
) -> None:
    one_line(run_cli(*arguments), 2, *parts)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--beam-size", "2", "--beam-size", "3"], "no such run folder"),  # a script's, and what is typed after it
        (["--ban", "a", "--ban", "b"], "no such run folder"),
        (["--prefix", "a", "--", "--prefix", "b"], "--prefix: no such file"),
        (["--ban", "--prefix", "--prefix", "a"], "no such run folder"),
    ],
)
def test_options_that_may_come_twice_are_not_refused(run_cli: Cli, arguments: list[str], part: str) -> None:
    one_line(run_cli("translate", "no-run", *arguments), 1, part)


def test_a_defect_of_the_program_is_not_hidden(run_cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr("seq2seq.recipe.load_config", fail)
    with pytest.raises(ZeroDivisionError):
        run_cli("train", "recipe.toml")


@pytest.mark.parametrize("folder", ["", "seq2seq"])
def test_the_package_is_the_command(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir(exist_ok=True)  # a clone, in the folder where one is
    result = subprocess.run(
        [sys.executable, "-m", "seq2seq", "--version"], capture_output=True, text=True, cwd=tmp_path
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, f"{__version__}\n", "")


def test_an_interrupt_while_the_program_is_loaded_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Interrupting:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "seq2seq.cli":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "seq2seq.cli", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Interrupting(), *sys.meta_path])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("seq2seq", run_name="__main__")
    assert (ended.value.code, capsys.readouterr().err) == (130, "seq2seq: interrupted\n")


@pytest.mark.parametrize(
    ("error", "code", "parts"),
    [
        (KeyboardInterrupt(), 130, ["interrupted"]),
        (OSError(errno.ENOSPC, "No space left on device", "/x/file"), 1, ["/x/file: No space left"]),
        (OSError(errno.EIO, "Input/output error"), 1, ["Input/output error"]),
        (MemoryError(), 1, ["out of memory", "training.batch_tokens"]),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), 1, ["out of memory"]),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), 1, ["out of memory"]),
        (RuntimeError("could not create a primitive"), 1, ["out of memory"]),
        (RuntimeError("Resource temporarily unavailable"), 1, ["no more threads", "--threads"]),
        (RuntimeError("can't start new thread"), 1, ["no more threads"]),
        (UnicodeEncodeError("ascii", "Übung.en", 0, 1, "ordinal not in range"), 1, ["'Übung.en'", "PYTHONUTF8=1"]),
    ],
)
def test_what_the_machine_refuses_is_told_in_one_line(
    run_cli: Cli, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, parts: list[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("seq2seq.recipe.load_config", fail)
    one_line(run_cli("train", "recipe.toml"), code, *parts)


# translate: text


def test_as_many_lines_come_out_as_went_in_and_in_their_order(
    translate: Cli, translator: Translator, sources: list[str]
) -> None:
    lines = [*sources, "", "   ", "\t", *sources[::-1]]
    expected = [result.text for result in translator.translate(lines)]
    result = translate(lines=lines)
    assert result.lines == expected
    assert expected[len(sources) : len(sources) + 3] == ["", "", ""]
    assert expected == expected[::-1]  # each line is what it is, wherever it stands
    assert len(set(expected)) > 5
    assert result.err == ""


@pytest.mark.parametrize(
    ("stdin", "count"),
    [
        (b"", 0),
        (b"\n", 1),
        (b"the cat", 1),
        (b"the cat\n", 1),
        (b"the cat\n\n", 2),
        (b"a\r\nb\r\n", 2),
        (b"\n\nthe\n", 3),
    ],
)
def test_a_last_line_may_lack_its_end(translate: Cli, stdin: bytes, count: int) -> None:
    result = translate(stdin=stdin)
    assert result.out.count("\n") == count
    assert result.out.endswith("\n") or not count
    assert b"\r" not in result.stdout


@pytest.mark.parametrize(
    "line", ["the\u2028cat\u0085sees\x0cthe dog", "日本語 🐈 the cat", "the ||| cat", "\ufeffcat\x00dog"]
)
def test_any_line_of_text_gives_one_line(translate: Cli, line: str) -> None:
    assert len(translate(lines=[line, line]).lines) == 2


def test_several_files_gzipped_or_not_and_standard_input_come_out_one_after_the_other(
    translate: Cli, tmp_path: Path, sources: list[str]
) -> None:
    plain, packed = tmp_path / "a.en", tmp_path / "b.en.gz"
    plain.write_text("\n".join(sources[:3]), encoding="utf-8")  # without a last line break: a line all the same
    packed.write_bytes(gzip.compress("".join(f"{line}\n" for line in sources[3:6]).encode()))
    expected = translate(lines=sources[:6] + sources[6:8] + sources[:3]).lines
    assert translate(plain, packed, "-", plain, lines=sources[6:8]).lines == expected
    assert translate(stdin=packed.read_bytes()).lines == expected[3:6]


def test_german_comes_out_as_utf8_whatever_the_locale(translate: Cli) -> None:
    # The streams that the tests hand to the program are ASCII ones.
    result = translate("--format", "jsonl", lines=["große Tür 日本語"])
    assert json.loads(result.out)["source"] == "große Tür 日本語"
    assert "große Tür 日本語".encode() in result.stdout


def test_n_best_gives_numbered_translations_best_first(
    translate: Cli, translator: Translator, sources: list[str]
) -> None:
    rows = [line.split(" ||| ") for line in translate("--n-best", "3", lines=sources[:4]).lines]
    assert [row[0] for row in rows] == [str(number) for number in range(4) for _ in range(3)]
    expected = translator.translate(sources[:4], n_best=3)
    assert [row[1] for row in rows] == [best.text for result in expected for best in result.hypotheses]
    scores = [float(row[2]) for row in rows]
    for number in range(4):
        group = scores[3 * number : 3 * number + 3]
        assert group == sorted(group, reverse=True)
    assert [row[2] for row in rows] == [f"{best.score:.4f}" for result in expected for best in result.hypotheses]


def test_jsonl_has_fields_of_the_right_types(translate: Cli, sources: list[str]) -> None:
    lines = [sources[0], "", sources[1]]
    plain = translate(lines=lines).lines
    records = [json.loads(line) for line in translate("--format", "jsonl", lines=lines).lines]
    assert [record["line"] for record in records] == [0, 1, 2]
    assert [record["source"] for record in records] == lines
    assert [record["translation"] for record in records] == plain
    for record in records:
        assert set(record) == {
            "line", "source", "complete", "translation", "score", "log_probability", "pieces",
            "piece_log_probabilities", "ended", "satisfied", "repetition",
        }  # fmt: skip
        assert isinstance(record["score"], float)
        assert record["log_probability"] <= 0
        assert all(isinstance(piece, str) for piece in record["pieces"])
    first, empty, _ = records
    # Every piece, and end-of-sentence where it was reached.
    assert len(first["piece_log_probabilities"]) == len(first["pieces"]) + first["ended"]
    assert math.isclose(sum(first["piece_log_probabilities"]), first["log_probability"], abs_tol=1e-4)
    assert "".join(first["pieces"]).replace("▁", " ").strip() == first["translation"]
    assert (empty["pieces"], empty["score"], empty["piece_log_probabilities"]) == ([], 0.0, [])


def test_jsonl_with_n_best_has_all_hypotheses(translate: Cli, sources: list[str]) -> None:
    (record,) = (json.loads(line) for line in translate("--format", "jsonl", "--n-best", "2", lines=sources[:1]).lines)
    best, second = record["hypotheses"]
    assert best == {name: value for name, value in record.items() if name in best}
    assert best["score"] >= second["score"]
    assert best["translation"] != second["translation"] or best["pieces"] != second["pieces"]


def test_the_beam_size_and_length_penalty_reach_the_search(
    translate: Cli, translator: Translator, sources: list[str]
) -> None:
    def scores(*arguments: str) -> list[float]:
        return [json.loads(line)["score"] for line in translate("--format", "jsonl", *arguments, lines=sources).lines]

    for beam_size, alpha in ((1, 0.0), (5, 1.5)):
        expected = [
            result.hypotheses[0].score
            for result in translator.translate(sources, beam_size=beam_size, length_penalty=alpha)
        ]
        assert scores("--beam-size", str(beam_size), "--length-penalty", str(alpha)) == pytest.approx(
            expected, abs=1e-5
        )
    assert scores() == scores("--beam-size", "3", "--length-penalty", "0.6")  # the run's own
    assert scores("--beam-size", "1") != scores()


def test_sampling_is_a_function_of_the_seed(translate: Cli, sources: list[str]) -> None:
    def draw(*arguments: str) -> list[str]:
        return list(translate("--sample", "--temperature", "1.5", *arguments, lines=sources).lines)

    assert draw("--seed", "3") == draw("--seed", "3")
    assert draw("--seed", "3") != draw("--seed", "4")
    assert draw() == draw("--seed", "1")
    assert draw("--seed", "3", "--top-k", "1") == translate("--beam-size", "1", lines=sources).lines
    assert draw("--seed", "3", "--top-p", "0.000001") == translate("--beam-size", "1", lines=sources).lines


def test_more_samples_than_the_beam_is_wide_can_be_drawn(translate: Cli, sources: list[str]) -> None:
    assert len(translate("--sample", "--n-best", "7", lines=sources[:2]).lines) == 14


# translate: what can go wrong


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--n-best", "4"], ["--n-best 4", "--beam-size 3", "raise --beam-size"]),
        (["--n-best", "0"], ["--n-best 0", "from 1"]),
        (["--beam-size", "0"], ["--beam-size 0", "from 1"]),
        (["--beam-size", "100000"], ["--beam-size 100000", "1000"]),
        (["--length-penalty", "-1"], ["--length-penalty -1", "from 0"]),
        (["--length-penalty", "nan"], ["--length-penalty nan"]),
        (["--length-normalization", "log"], ["--length-normalization log", "wu or power"]),
        (["--format", "xml"], ["--format xml", "text or jsonl"]),
        (["--precision", "fp64"], ["--precision fp64", "fp32, bf16 or auto"]),
        (["--threads", "-1"], ["--threads", "greater than or equal to 0"]),
        (["--threads", "100000"], ["--threads", "less than or equal to 1024"]),
        (["--temperature", "2"], ["--temperature", "--sample"]),
        (["--top-k", "3"], ["--top-k", "--sample"]),
        (["--sample", "--temperature", "0"], ["--temperature 0", "above 0"]),
        (["--sample", "--top-p", "1.5"], ["--top-p 1.5", "at most 1"]),
        (["--sample", "--top-k", "-1"], ["--top-k -1"]),
        (["--sample", "--seed", "-1"], ["--seed -1"]),
        (["--seed", "1"], ["--seed 1", "add --sample"]),
        (["--sample", "--beam-size", "4"], ["--beam-size 4", "--sample", "choose one"]),
        (["--sample", "--require", "Katze"], ["--require", "--sample", "choose one"]),
        (["--sample", "--diverse", "3"], ["--diverse 3", "--sample"]),
        (["--diverse", "1"], ["--diverse 1", "2 or more"]),
        (["--diverse", "2", "--n-best", "2"], ["--n-best 2", "--diverse 2"]),
        (["--diversity-penalty", "1"], ["--diversity-penalty 1", "--diverse"]),
        (["--min-length", "-1"], ["--min-length -1"]),
        (["--max-length", "0"], ["--max-length 0", "at least 1"]),
        (["--min-length", "5", "--max-length", "4"], ["--max-length 4", "--min-length 5"]),
        (["--no-repeat-ngram", "-2"], ["--no-repeat-ngram -2"]),
        (["--ban", " "], ["--ban", "empty"]),
        (["--require", "日"], ["--require 日", "vocabulary"]),
        (["--prefix", "日"], ["--prefix 日", "vocabulary"]),
        (["--prefix", "der kleine Hund", "--max-length", "2"], ["--prefix", "--max-length 2"]),
        (["--prefix", "a", "--prefix-file", "b"], ["--prefix", "--prefix-file"]),
        (["--alignments"], ["--alignments", "--format jsonl"]),
    ],
)
def test_options_out_of_range_are_named(run_cli: Cli, tiny_run: Any, arguments: list[str], parts: list[str]) -> None:
    one_line(run_cli("translate", tiny_run.path, *ONE, *arguments, stdin=b"the cat\n"), 2, *parts)


def test_runs_that_cannot_translate_are_named(run_cli: Cli, tiny_run: Any, tmp_path: Path) -> None:
    one_line(run_cli("translate", tmp_path / "none"), 1, "none: no such run folder", "seq2seq train")
    one_line(run_cli("translate", tmp_path), 1, "not a run folder")
    unfinished = tmp_path / "unfinished"
    shutil.copytree(tiny_run.path, unfinished)
    (unfinished / "model.json").unlink()
    one_line(
        run_cli("translate", unfinished), 1, "no finished model", "at step 100", f"--run-dir {unfinished} --resume"
    )


def test_input_that_cannot_be_unpacked_is_named(translate: Cli) -> None:
    one_line(translate(stdin=b"\x1f\x8bnot gzip at all", code=1), 1, "standard input, line 1", "gzip")


def test_files_that_cannot_be_read_are_named(translate: Cli, tmp_path: Path) -> None:
    one_line(translate(tmp_path / "none.en", code=1), 1, "none.en: no such file")
    one_line(translate(tmp_path, code=1), 1, "is a folder")


def test_an_overlong_line_is_cut_with_a_warning(
    translate: Cli, tiny_run: Any, tmp_path: Path, run_cli: Cli, sources: list[str]
) -> None:
    short = tmp_path / "short"
    shutil.copytree(tiny_run.path, short)
    text = (short / "config.toml").read_text(encoding="utf-8")
    changed = re.sub(r"(\[decoding\][^\[]*max_source_length = )\d+", r"\g<1>6", text)
    (short / "config.toml").write_text(changed, encoding="utf-8")
    result = run_cli("translate", short, *ONE, stdin=f"cat\n{' '.join(sources)}\ndog\n".encode())
    assert result.code == 0
    assert len(result.lines) == 3
    assert re.fullmatch(
        r"seq2seq: line 2 has \d\d\d pieces; it is cut .*6 \(decoding.max_source_length\)\n", result.err
    )


# translate: streams


def test_warnings_of_one_kind_are_counted_after_the_first_few(translate: Cli) -> None:
    bad = b"a \xff b\n" * 30 + b"the cat\n" + b"\xfe\n" * 2
    done = translate(stdin=bad)
    assert done.code == 0 and len(done.lines) == 33
    told = [line for line in done.err.split("\n") if "UTF-8" in line]
    assert len(told) == 21 and "line 20" in told[19] and "are counted, not shown" in told[19]
    assert "12 more (32 in all) were like this: standard input, line 21: not UTF-8 text" in told[20]
    assert "line 1 " in translate(stdin=b"\xff\n").err  # the next command begins to count anew


def test_a_stream_is_read_a_window_at_a_time(translator: Translator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options_module, "STREAM_LINES", 8)
    read = 0

    def endless() -> Iterator[str]:
        nonlocal read
        while True:
            read += 1
            yield "the cat"

    results = translator.stream(endless(), Options(beam_size=1))
    assert read == 0
    for number in range(20):
        assert next(results).source == "the cat"
        assert read == 8 * (number // 8 + 1)


def test_windows_do_not_change_translations(
    translator: Translator, monkeypatch: pytest.MonkeyPatch, sources: list[str]
) -> None:
    options = Options(sample=True, seed=5)
    whole = [result.text for result in translator.stream(sources, options)]
    monkeypatch.setattr(options_module, "STREAM_LINES", 3)
    assert [result.text for result in translator.stream(sources, options)] == whole


def test_a_line_break_that_the_model_writes_does_not_break_the_line(
    translator: Translator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(translator.tokenizer, "decode", lambda ids: ["eins\nzwei" for _ in ids])
    assert translator.translate(["the cat"])[0].text == "eins zwei"


def test_translations_come_before_the_input_ends_and_a_reader_may_leave(tiny_run: Any) -> None:
    process = start("translate", tiny_run.path, "--beam-size", "1", *ONE)
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    told: list[bytes] = []  # this model runs into loops and says so
    reader = threading.Thread(target=lambda: told.extend(process.stderr or ()))
    reader.start()
    process.stdin.write(b"the cat\n" * (options_module.STREAM_LINES + 1))
    process.stdin.flush()
    assert process.stdout.readline().endswith(b"\n")  # standard input is still open
    process.stdout.close()
    process.stdin.close()
    assert process.wait(300) == 0
    reader.join(60)
    assert [line for line in told if b"loop" not in line] == []


@pytest.mark.parametrize(
    ("arguments", "each"),
    [(("--beam-size", "1"), 1), (("--beam-size", "2", "--n-best", "2"), 2), (("--prefix-file", "prefixes"), 1)],
)
def test_who_writes_a_line_and_waits_gets_its_translation(
    tiny_run: Any, tmp_path: Path, arguments: tuple[str, ...], each: int
) -> None:
    (tmp_path / "prefixes").write_text("die\n\n", encoding="utf-8")
    arguments = tuple(str(tmp_path / name) if name == "prefixes" else name for name in arguments)
    process = start("translate", tiny_run.path, *arguments, *ONE)
    assert process.stdin is not None and process.stdout is not None
    too_long = threading.Timer(300, process.kill)  # or a line that never comes would be waited for
    too_long.start()
    for _ in range(2):
        process.stdin.write(b"the cat\n")
        process.stdin.flush()
        for _ in range(each):
            assert process.stdout.readline().endswith(b"\n")
    assert process.communicate()[0] == b"" and process.returncode == 0
    too_long.cancel()


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_behind_standard_output_is_told(unbuffered: str) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", "from seq2seq.cli import main; main()", "--version"],
            stdout=full, stderr=subprocess.PIPE, timeout=300, check=False,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        )  # fmt: skip
    message = b"seq2seq: standard output: No space left on device; free some space or choose another disk\n"
    assert (done.returncode, done.stderr) == (1, message)


def test_on_a_terminal_sentences_are_asked_for(
    run_cli: Cli, tiny_run: Any, monkeypatch: pytest.MonkeyPatch, translator: Translator
) -> None:
    answers = iter(["the cat", "", "the dog"])

    def ask(prompt: str) -> str:
        assert prompt == ""  # standard output is no terminal here: nothing but translations goes there
        try:
            return next(answers)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("builtins.input", ask)
    result = run_cli("translate", tiny_run.path, *ONE, terminal=True)
    assert result.code == 0
    assert result.lines == [best.text for best in translator.translate(["the cat", "", "the dog"])]
    assert "Ctrl-D" in result.err
    # Lines are numbered, and drawn, as they are from a pipe.
    draws = ("--sample", "--seed", "3", "--temperature", "3", "--format", "jsonl")
    answers = iter(["the cat", "the cat"])
    typed = run_cli("translate", tiny_run.path, *ONE, *draws, terminal=True).lines
    piped = run_cli("translate", tiny_run.path, *ONE, *draws, stdin=b"the cat\nthe cat\n").lines
    # Not the whole lines: without the kernels, sums of one sentence differ from those of two in the last bits.
    assert [json.loads(line)["translation"] for line in typed] == [json.loads(line)["translation"] for line in piped]
    assert [json.loads(line)["line"] for line in typed] == [0, 1]
    assert len({json.loads(line)["translation"] for line in typed}) == 2


# train


def test_training_prints_the_score_examples_and_what_to_do_next(tiny_run: Any) -> None:
    result = tiny_run.result
    lines = result.lines
    assert re.fullmatch(r"test BLEU \d+\.\d\d", lines[0])
    for name in ("source", "translation", "reference"):
        assert sum(line.startswith(f"{name} ") for line in lines) == 3
    assert "The model is in runs/recipe. Next:" in lines
    assert "training data: 300 pairs read, 300 kept" in result.err
    assert "validation loss" in result.err
    assert "\x1b" not in result.err


def test_the_next_commands_work_as_printed(tiny_run: Any, tmp_path: Path) -> None:
    translate, explain, benchmark = (line.strip() for line in tiny_run.result.lines[-3:])
    assert translate.startswith("echo ")
    program = tmp_path / "seq2seq"
    program.write_text(f"#!{sys.executable}\nfrom seq2seq.cli import main\nmain()\n", encoding="utf-8")
    program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        " --threads 1 && ".join([translate, benchmark, explain, "true"]), shell=True, cwd=tiny_run.corpus,
        env=environment, capture_output=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    shown = next(line for line in tiny_run.result.lines if line.startswith("translation "))
    first, _, table = done.stdout.decode().partition("\n")
    assert first == shown.removeprefix("translation ").strip()
    # The same test set, the same path of scoring, the same number.
    bleu = tiny_run.result.lines[0].removeprefix("test BLEU ")
    assert re.search(rf"^runs/recipe +{re.escape(bleu)} \[", table, re.MULTILINE)
    assert re.search(rf"^translation +{re.escape(first)}$", table, re.MULTILINE)  # as explained


def test_by_default_the_run_is_named_after_the_recipe(tiny_run: Any) -> None:
    assert tiny_run.path == tiny_run.corpus / "runs" / "recipe"
    assert Run.open(tiny_run.path).info()["training"]["steps"] == 100


def test_a_trained_folder_holds_what_the_design_says_and_no_leftovers(tiny_run: Any) -> None:
    names = {path.name for path in tiny_run.path.iterdir()}
    assert names - {"curves.png"} == {
        "config.toml", "tokenizer.model", "model.safetensors", "model.json", "checkpoints", "metrics.jsonl",
        "training_sources.safetensors", "README.md", "identity.json",
    }  # fmt: skip


@pytest.fixture
def in_corpus(run_cli: Cli, tiny_corpus: Path) -> Cli:
    """`seq2seq train ...` in the folder of the corpus, with a run folder that is new."""

    def run(*arguments: str | Path) -> Any:
        return run_cli("train", *arguments, cwd=tiny_corpus)

    return run


SIDES = ["--source", "train.en", "--target", "train.de"]


@pytest.mark.parametrize(
    ("arguments", "code", "parts"),
    [
        ([], 2, ["nothing to train on", "--source and --target"]),
        (["--preset", "tiny"], 2, ["nothing to train on"]),
        (["--source", "train.en"], 2, ["--source and --target belong together"]),
        (["--valid-source", "train.en"], 2, ["--source and --target belong together"]),
        ([*SIDES, "--valid-source", "valid.en"], 2, ["data.valid_target is missing"]),
        (["recipe.toml", "--preset", "tinny"], 2, ["preset = 'tinny'", "tiny, quick, small, base, big"]),
        (["recipe.toml", "--set", "model.d_modle=3"], 2, ["model.d_modle", "'d_model'"]),
        (["recipe.toml", "--set", "model.d_model"], 2, ["--set model.d_model", "section.key=value"]),
        (["recipe.toml", "--set", "model.d_model=many"], 2, ["model.d_model = 'many'", "valid integer"]),
        (["recipe.toml", "--resume", "--overwrite"], 2, ["--resume and --overwrite"]),
        (["none.toml"], 2, ["none.toml: no such configuration file"]),
        (["recipe.toml", "--set", "data.preset=tiny"], 2, ["data.preset: preset belongs at the top of the file"]),
        (["train.en"], 2, ["train.en: not valid TOML"]),
        (SIDES, 2, ["nothing says when training ends", "training.max_steps"]),
        (["recipe.toml", "--source", "none.en", "--target", "train.de"], 1, ["none.en: no such file"]),
        (["recipe.toml", "--source", "train.en", "--target", "test.de"], 1, ["300 lines", "20", "same number"]),
        (["recipe.toml", "--set", "tokenizer.vocab_size=16"], 1, ["tokenizer.vocab_size = 16", "raise it"]),
        (["recipe.toml", "--set", "training.device=cuda"], 2, ["training.device", "auto"]),
        (["--resume"], 1, ["no such run folder"]),
    ],
)
def test_training_that_cannot_start_says_why_and_leaves_nothing(
    in_corpus: Cli, tmp_path: Path, arguments: list[str], code: int, parts: list[str]
) -> None:
    import torch

    if "training.device=cuda" in arguments and torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    one_line(in_corpus(*arguments, "--run-dir", tmp_path / "new"), code, *parts)
    assert not (tmp_path / "new").exists()


def test_resuming_needs_the_folder_of_the_run(in_corpus: Cli) -> None:
    one_line(in_corpus("--resume"), 2, "--resume", "--run-dir")


def test_a_corpus_may_be_named_by_set_alone(in_corpus: Cli, tmp_path: Path) -> None:
    one_line(
        in_corpus("--set", "data.train_pairs=none.tsv", "--preset", "tiny", "--run-dir", tmp_path / "new"),
        1,
        "none.tsv",
    )


def test_a_run_is_not_replaced_unasked(in_corpus: Cli, tiny_run: Any) -> None:
    before = tree(tiny_run.path)
    one_line(in_corpus("recipe.toml"), 1, "runs/recipe holds a run already", "--resume", "--overwrite")
    assert tree(tiny_run.path) == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["--source", "none.en", "--target", "train.de"],
        ["--source", "train.en", "--target", "test.de"],
        ["--set", "tokenizer.vocab_size=16"],
        ["--set", "model.d_model=7"],
        ["--set", "data.max_source_length=1"],
    ],
)
def test_overwriting_a_run_by_one_that_cannot_start_leaves_it_as_it_was(
    in_corpus: Cli, tiny_run: Any, arguments: list[str]
) -> None:
    before = tree(tiny_run.path)
    result = in_corpus("recipe.toml", "--overwrite", *arguments)
    assert result.code in (1, 2)
    assert tree(tiny_run.path) == before


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--set", "model.d_ff=32"], ["model.d_ff = 32", "64", "--overwrite"]),
        (["--set", "training.seed=2"], ["training.seed = 2"]),
        (["--source", "test.en", "--target", "test.de"], ["data.source_language"]),
    ],
)
def test_resuming_with_another_configuration_names_the_field(
    in_corpus: Cli, tiny_run: Any, arguments: list[str], parts: list[str]
) -> None:
    before = tree(tiny_run.path)
    one_line(in_corpus("recipe.toml", "--resume", *arguments), 1, "--resume: ", *parts)
    assert tree(tiny_run.path) == before


def test_a_finished_run_goes_on_with_more_steps_and_can_be_replaced(
    in_corpus: Cli, tiny_run: Any, tmp_path: Path
) -> None:
    path = tmp_path / "run"
    shutil.copytree(tiny_run.path, path)
    more = in_corpus("recipe.toml", "--run-dir", path, "--resume", "--quiet", "--set", "training.max_steps=110")
    assert more.code == 0, more.err
    assert "resumed at step 100" in more.err
    assert "tokens/s" not in more.err
    assert Run(path).info()["training"]["steps"] == 110
    (path / "notes.txt").write_text("mine", encoding="utf-8")
    small = ["--set", "training.max_steps=5", "--set", "training.validate_every=5"]
    sides = ["--source", "train.en", "--target", "train.de"]
    anew = in_corpus("recipe.toml", "--run-dir", path, "--overwrite", *small, *sides)
    assert anew.code == 0, anew.err
    assert Run(path).info()["training"]["steps"] == 5
    assert [checkpoint.step for checkpoint in Run(path).checkpoints()] == [5]
    assert "test BLEU" not in anew.out  # files on the command line are the whole corpus: there is no test set
    assert (path / "notes.txt").read_text(encoding="utf-8") == "mine"


def test_a_recipe_can_be_looked_at_without_training(run_cli: Cli, tmp_path: Path) -> None:
    from seq2seq.recipe import build_config, load_config

    shown = run_cli("train", "--preset", "small", "--set", "training.max_steps=7", "--print-config", cwd=tmp_path)
    assert shown.code == 0 and shown.err == "" and list(tmp_path.iterdir()) == []
    assert "max_steps = 7" in shown.lines and "# max_minutes is not set" in shown.lines
    (tmp_path / "recipe.toml").write_text(shown.out, encoding="utf-8")
    assert load_config(tmp_path / "recipe.toml") == build_config({"training": {"max_steps": 7}}, preset="small")
    one_line(run_cli("train", "--preset", "middling", "--print-config", cwd=tmp_path), 2, "--preset", "middling")


def test_the_recipe_of_a_run_can_be_looked_at(run_cli: Cli, tiny_run: Any, tmp_path: Path) -> None:
    from seq2seq.recipe import parse_config

    for arguments in (("--run-dir", tiny_run.path), ("--run-dir", tiny_run.path, "--resume")):
        shown = run_cli("train", *arguments, "--print-config", "--set", "training.max_steps=7", cwd=tmp_path)
        assert shown.code == 0, shown.err
        expected = Run(tiny_run.path).config()
        training = expected.training.model_copy(update={"max_steps": 7})
        assert parse_config(shown.out, origin="shown") == expected.model_copy(update={"training": training})
    one_line(run_cli("train", "--run-dir", tmp_path / "none", "--print-config", cwd=tmp_path), 1, "--run-dir: ", "none")


def test_an_end_that_is_given_on_resuming_takes_the_place_of_the_minutes(in_corpus: Cli, tmp_path: Path) -> None:
    path = tmp_path / "run"
    short = ["--set", "training.max_minutes=0.02", "--set", "training.warmup_steps=1"]
    first = in_corpus("recipe.toml", "--run-dir", path, *short)
    assert first.code == 0, first.err
    last = Run(path).info()["training"]["steps"]
    done = in_corpus("--run-dir", path, "--resume")
    command = f"seq2seq train --run-dir {path} --resume --set training.max_steps={2 * last}"
    assert done.code == 0 and f"give it a later end: {command}\n" in done.err
    more = in_corpus("--run-dir", path, "--resume", "--set", f"training.max_steps={last + 3}")
    assert more.code == 0, more.err
    assert Run(path).info()["training"]["steps"] == last + 3
    assert Run(path).config().training.max_minutes is None


def test_another_preset_than_a_runs_own_is_refused(in_corpus: Cli, tiny_run: Any) -> None:
    before = tree(tiny_run.path)
    result = in_corpus("--run-dir", tiny_run.path, "--resume", "--preset", "big")
    one_line(result, 2, "--preset big: ", "began without a preset; leave --preset out")
    assert tree(tiny_run.path) == before


def test_an_interrupt_while_the_test_set_is_translated_tells_how_to_score_it(
    in_corpus: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("seq2seq.pipeline.translate_test_set", interrupted)
    result = in_corpus("recipe.toml", "--run-dir", tmp_path / "run", "--set", "training.max_steps=2")
    assert result.code == 130
    assert "only its test set was not translated" in result.err and "continue with" not in result.err
    command = result.lines[-1].strip()
    assert command.startswith("seq2seq benchmark") and command.endswith("--source test.en --reference test.de")
    monkeypatch.setattr("seq2seq.pipeline.prepare", interrupted)  # where all of it is to be done again
    again = in_corpus("recipe.toml", "--run-dir", tmp_path / "run", "--set", "training.max_steps=2", "--overwrite")
    assert again.code == 130 and "the training is finished" not in again.err


def test_a_run_where_a_recipe_is_wanted_is_told_how_it_goes_on(run_cli: Cli, tiny_run: Any) -> None:
    for command, options, words in (
        ("train", [tiny_run.path], f"{tiny_run.path}: is a run; its recipe is {tiny_run.path / 'config.toml'}"),
        ("verify-resume", [tiny_run.path], f"its recipe is {tiny_run.path / 'config.toml'}"),
        ("train", ["--run-dir", tiny_run.path], f"to go on with the run in {tiny_run.path}, add --resume"),
    ):
        result = run_cli(command, *options)
        assert result.code == 2 and words in result.err, result.err


def test_a_run_that_patience_ended_goes_on_as_it_says(in_corpus: Cli, tmp_path: Path) -> None:
    path = tmp_path / "run"
    impatient = ["--set", "training.patience=1", "--set", "training.validate_every=1", "--set", "training.max_steps=50"]
    first = in_corpus("recipe.toml", "--run-dir", path, *impatient)
    last = Run(path).info()["training"]["steps"]
    reason = f"no better validation for training.patience = 1: stopped at step {last} of "
    assert first.code == 0 and last < 50 and f"{reason}50\n" in first.err
    longer = in_corpus("--run-dir", path, "--resume", "--set", "training.max_steps=60")
    assert longer.code == 0 and f"{reason}60: nothing is trained\n" in longer.err
    said = in_corpus("--run-dir", path, "--resume").err.splitlines()[-1]
    assert said.endswith(f"a later end: seq2seq train --run-dir {path} --resume --set training.patience=0")
    more = in_corpus(*said.partition("seq2seq train ")[2].split())
    assert more.code == 0, more.err
    assert Run(path).info()["training"]["steps"] == 60


@pytest.mark.parametrize("name", ["model.json", "model.safetensors", "tokenizer.model", "a bit of tokenizer.model"])
def test_a_damaged_file_of_a_finished_run_is_made_anew_by_the_command_that_is_told(
    in_corpus: Cli, run_cli: Cli, tiny_run: Any, tmp_path: Path, name: str
) -> None:
    path = tmp_path / "run"
    shutil.copytree(tiny_run.path, path)
    bit, name = name.startswith("a bit"), name.split()[-1]
    whole = (path / name).read_bytes()
    (path / name).write_bytes(whole[:-20])
    if bit:  # one with which it can still be read
        for i in range(len(whole) // 2, len(whole)):
            (path / name).write_bytes(whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :])
            with contextlib.suppress(UserError):
                Run(path).tokenizer()
                break
    model = (path / "model.safetensors").read_bytes()
    if name == "tokenizer.model":  # the model is whole, and not made of what checkpoints are left
        for checkpoint in Run(path).checkpoints()[:-1]:
            shutil.rmtree(checkpoint.path)
    told = one_line(
        run_cli("translate", path, stdin=b"the cat\n"),
        1,
        name.split(".")[0],
        f"`seq2seq train --run-dir {path} --resume`",
    )
    assert "makes it anew" in told
    mended = in_corpus("--run-dir", path, "--resume")
    assert mended.code == 0, mended.err
    assert Run(path).sound()
    assert run_cli("translate", path, stdin=b"the cat\n").code == 0
    if name != "model.json":  # which has times in it
        assert (path / name).read_bytes() == whole
    if name == "tokenizer.model":
        assert (path / "model.safetensors").read_bytes() == model


@pytest.mark.parametrize("identity", [None, b"{"])
@pytest.mark.parametrize("damage", ["none", "tokenizer"])
def test_a_resumed_finished_run_keeps_its_model(
    in_corpus: Cli, tiny_run: Any, tmp_path: Path, identity: bytes | None, damage: str
) -> None:
    """Not all checkpoints that made it are left, the corpus has moved, and identity.json is gone or torn."""
    path, moved = tmp_path / "run", tmp_path / "moved"
    shutil.copytree(tiny_run.path, path)
    shutil.copytree(tiny_run.corpus, moved, ignore=shutil.ignore_patterns("runs"))
    for checkpoint in Run(path).checkpoints()[:-1]:
        shutil.rmtree(checkpoint.path)
    (path / "identity.json").unlink()
    if identity is not None:
        (path / "identity.json").write_bytes(identity)
    whole = (path / "tokenizer.model").read_bytes()
    if damage == "tokenizer":
        (path / "tokenizer.model").write_bytes(whole[:-20])
    model, info = (path / "model.safetensors").read_bytes(), (path / "model.json").read_bytes()
    names = {"source": "train.en", "target": "train.de", "valid-source": "valid.en", "valid-target": "valid.de"}
    files = [part for option, name in names.items() for part in (f"--{option}", str(moved / name))]
    result = in_corpus("--run-dir", path, "--resume", *files)
    assert result.code == 0, result.err
    assert ("its tokenizer is damaged: it is made anew" in result.err) == (damage == "tokenizer")
    assert (path / "model.safetensors").read_bytes() == model and (path / "model.json").read_bytes() == info
    assert (path / "tokenizer.model").read_bytes() == whole
    assert (path / "identity.json").read_bytes() == (tiny_run.path / "identity.json").read_bytes()
    assert Run(path).config().data.train_source == str(moved / "train.en")


@pytest.mark.parametrize("name", ["tokenizer.model", "model.safetensors", "model.json", ""])
def test_a_finished_run_without_checkpoints_is_not_trained_anew_unasked(
    in_corpus: Cli, tiny_run: Any, tmp_path: Path, name: str
) -> None:
    path = tmp_path / "run"
    shutil.copytree(tiny_run.path, path)
    shutil.rmtree(path / "checkpoints")
    if name:
        (path / name).write_bytes(b"x")
    before = tree(path)
    result = in_corpus("--run-dir", path, "--resume")
    if name == "tokenizer.model":  # which needs none
        assert result.code == 0, result.err
        whole = {name: content for name, content in tree(tiny_run.path).items() if "checkpoints" not in name}
        assert tree(path) == whole
        return
    command = f"seq2seq train {path}/config.toml --run-dir {path} --overwrite"
    sound = "" if name else "the model is finished and sound, and "
    one_line(result, 1, f"run: {sound}there is no checkpoint to go on from; to train it anew: {command}")
    assert tree(path) == before


@pytest.mark.parametrize("option", ["--resume", "--overwrite"])
def test_a_readme_that_is_not_a_model_card_stays(in_corpus: Cli, tiny_run: Any, tmp_path: Path, option: str) -> None:
    path = tmp_path / "run"
    shutil.copytree(tiny_run.path, path)
    (path / "README.md").write_text("my notes", encoding="utf-8")
    result = in_corpus("recipe.toml", "--run-dir", path, option, "--set", "training.max_steps=101")
    assert result.code == 0 and "README.md: is not of this program and stays" in result.err
    assert (path / "README.md").read_text(encoding="utf-8") == "my notes"


def test_a_run_goes_on_without_files_of_its_recipe_that_it_does_not_use(
    in_corpus: Cli, tiny_run: Any, tmp_path: Path
) -> None:
    path = tmp_path / "run"
    shutil.copytree(tiny_run.path, path)
    lines = [
        "[[data.downloads]]",
        f'path = "{tmp_path}/gone"',
        'url = "http://127.0.0.1:9/x"',
        f'sha256 = "{"0" * 64}"',
    ]
    text = (
        (path / "config.toml")
        .read_text(encoding="utf-8")
        .replace("[tokenizer]", "\n".join([*lines, "", "[tokenizer]"]))
    )
    (path / "config.toml").write_text(text, encoding="utf-8")
    result = in_corpus("--run-dir", path, "--resume", "--set", "training.max_steps=101")
    assert result.code == 0, result.err
    assert not (tmp_path / "gone").exists()


def test_a_benchmark_does_without_damaged_hashes_of_the_training_data(
    run_cli: Cli, tiny_run: Any, tmp_path: Path
) -> None:
    path = tmp_path / "run"
    shutil.copytree(tiny_run.path, path)
    (path / "training_sources.safetensors").write_bytes(b"x")
    files = ["--source", tiny_run.corpus / "test.en", "--reference", tiny_run.corpus / "test.de"]
    result = run_cli("benchmark", path, *files)
    assert result.code == 0 and "BLEU" in result.out
    assert "what the model was trained on is not known" in result.err


def test_the_corpus_of_a_run_may_be_named_where_it_is_now(in_corpus: Cli, tiny_run: Any, tmp_path: Path) -> None:
    shutil.copytree(tiny_run.path, tmp_path / "run")
    shutil.copytree(tiny_run.corpus, tmp_path / "moved", ignore=shutil.ignore_patterns("runs"))
    names = {"source": "train.en", "target": "train.de", "valid-source": "valid.en", "valid-target": "valid.de"}
    files = [part for option, name in names.items() for part in (f"--{option}", str(tmp_path / "moved" / name))]
    more = ["--run-dir", tmp_path / "run", "--resume", "--set", "training.max_steps=103"]
    result = in_corpus(*more, *files)
    assert result.code == 0, result.err
    assert Run(tmp_path / "run").info()["training"]["steps"] == 103
    assert Run(tmp_path / "run").config().data.train_source == str(tmp_path / "moved" / "train.en")


def test_what_is_said_of_a_file_that_has_moved_helps(in_corpus: Cli, tiny_run: Any, tmp_path: Path) -> None:
    shutil.copytree(tiny_run.path, tmp_path / "run")
    shutil.copytree(tiny_run.corpus, tmp_path / "moved", ignore=shutil.ignore_patterns("runs"))
    more = ["--run-dir", tmp_path / "run", "--resume", "--set", "training.max_steps=103"]
    for name in ("train.en", "train.de", "valid.en", "valid.de"):
        more += ["--set", f"data.{name[:5]}_{'source' if name.endswith('en') else 'target'}={tmp_path / 'gone' / name}"]
    before = tree(tmp_path / "run")
    for field, name in (("train_source", "train.en"), ("train_target", "train.de"), ("valid_source", "valid.en")):
        result = in_corpus(*more)
        one_line(result, 1, f"{name}: no such file", f"add --set data.{field}=FILE")
        assert tree(tmp_path / "run") == before
        option = re.search(r"add --set (\S+)FILE", result.err)
        assert option is not None
        more += ["--set", f"{option[1]}{tmp_path / 'moved' / name}"]
    result = in_corpus(*more, "--set", f"data.valid_target={tmp_path / 'moved' / 'valid.de'}")
    assert result.code == 0, result.err
    assert Run(tmp_path / "run").info()["training"]["steps"] == 103


def test_the_same_command_with_resume_begins_what_has_not_begun(in_corpus: Cli, tmp_path: Path) -> None:
    sides = ["--source", "train.en", "--target", "train.de", "--set", "training.max_steps=2"]
    small = ["--set", "model.d_model=16", "--set", "model.num_heads=2", "--set", "tokenizer.vocab_size=60"]
    (tmp_path / "killed").mkdir()
    for path in (tmp_path / "new", tmp_path / "killed"):
        result = in_corpus(*sides, *small, "--run-dir", path, "--resume")
        assert result.code == 0, result.err
        assert "starting at step 0" in result.err
        assert in_corpus(*sides, *small, "--run-dir", path, "--resume").code == 0
    nameless = in_corpus(*[part.replace("train.", "none.") for part in sides], "--preset", "tiny", "--resume")
    assert nameless.code == 1 and "none.en: no such file" in nameless.err  # and not which run: that is runs/tiny
    assert "runs/tiny: there is nothing to resume" in nameless.err


def test_a_folder_named_corpus_beside_a_run_is_left_alone(in_corpus: Cli, tmp_path: Path) -> None:
    mine = tmp_path / "corpus" / "train.text"
    mine.parent.mkdir()
    mine.write_text("mine", encoding="utf-8")
    result = in_corpus("recipe.toml", "--run-dir", tmp_path, "--set", "training.max_steps=1")
    assert result.code == 0, result.err
    assert mine.read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_training_after_a_step_with_a_checkpoint_to_resume_from(
    tiny_corpus: Path, tmp_path: Path, run_cli: Cli, number: signal.Signals
) -> None:
    path = tmp_path / "a run"
    process = start(
        "train", "recipe.toml", "--run-dir", path, "--set", "training.max_steps=1000000",
        "--set", "training.log_every=1", cwd=tiny_corpus,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # the tests may run under `nohup`
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(b"step 3/"):
            process.send_signal(number)
            break
    out, err = process.communicate(timeout=300)
    assert (process.returncode, out) == (128 + number, b"")
    assert b"Traceback" not in err
    assert f"continue with: seq2seq train --run-dir '{path}' --resume" in err.decode()
    checkpoint = Run.open(path).latest_checkpoint()
    assert checkpoint is not None
    assert checkpoint.step >= 3
    assert not Run(path).finished()
    more = run_cli("train", "--run-dir", path, "--resume", "--set", f"training.max_steps={checkpoint.step + 2}")
    assert more.code == 0, more.err
    assert f"resumed at step {checkpoint.step}" in more.err
    assert Run(path).info()["training"]["steps"] == checkpoint.step + 2


@pytest.fixture
def handlers_as_they_were() -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers_as_they_were")
@pytest.mark.parametrize("gently", [True, False])
def test_a_second_signal_ends_at_once(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], gently: bool
) -> None:
    monkeypatch.setattr(os, "_exit", sys.exit)
    signals = Signals()
    signals.install()
    with contextlib.ExitStack() as stack:
        if gently:
            stack.enter_context(signals)
            signal.raise_signal(signal.SIGTERM)
        else:
            with pytest.raises(Stopped):
                signal.raise_signal(signal.SIGTERM)
        assert signals.received()
        with pytest.raises(SystemExit, match="130"):
            signal.raise_signal(signal.SIGINT)
    assert capfd.readouterr().err.count("once more to stop at once") == gently
    assert signals.reason() == ("terminated", 143)


@pytest.mark.usefixtures("handlers_as_they_were")
def test_a_hangup_that_is_ignored_stays_so() -> None:
    signals = Signals()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as `nohup` begins a command
    signals.install()
    signal.raise_signal(signal.SIGHUP)
    assert not signals.received()
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signals.install()
    with pytest.raises(Stopped):
        signal.raise_signal(signal.SIGHUP)
    assert signals.reason() == ("the terminal has gone", 129)
    signal.raise_signal(signal.SIGHUP)  # the shell's own, after the terminal's


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_log_that_cannot_be_written_does_not_end_a_training(tiny_corpus: Path, tmp_path: Path) -> None:
    with open("/dev/full", "wb") as full:
        process = start(
            "train", "recipe.toml", "--run-dir", tmp_path / "run", "--set", "training.max_steps=3", cwd=tiny_corpus,
            stderr=full,
        )  # fmt: skip
        process.communicate(timeout=300)
    assert process.returncode == 0
    assert Run(tmp_path / "run").finished()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_results_that_cannot_be_written_are_told_of(tiny_run: Any) -> None:
    with open("/dev/full", "wb") as full:
        process = start("translate", "runs/recipe", "test.en", *ONE, cwd=tiny_run.corpus, stdout=full)
        _, err = process.communicate(timeout=300)
    assert process.returncode == 1
    assert err.decode() == (
        "seq2seq: standard output: No space left on device; free some space or choose another disk\n"
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("module", "function"),
    [
        ("stages.preparing", "ensure_downloads"), ("stages.preparing", "build_piece_corpus"),
        ("stages.finishing", "average_checkpoints"),
        ("pipeline", "corpus_bleu"),
    ],
)  # fmt: skip
def test_a_signal_outside_of_the_training_loop_ends_the_command_at_once(
    in_corpus: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, function: str, number: signal.Signals
) -> None:
    arguments = ("recipe.toml", "--run-dir", tmp_path / "run", "--quiet", "--set", "training.max_steps=2")
    arguments += ("--set", "training.preflight=false")  # it scores sentences, too
    with monkeypatch.context() as patch:
        patch.setattr(f"seq2seq.{module}.{function}", lambda *_, **__: signal.raise_signal(number))
        patch.setattr("seq2seq.training.trainer.Trainer._validate", lambda _: False)
        result = in_corpus(*arguments)
    assert (result.code, result.out) == (128 + number, "")
    assert result.err.endswith("seq2seq: interrupted\n" if number == signal.SIGINT else "seq2seq: terminated\n")
    assert "Traceback" not in result.err and "after the next step" not in result.err
    if module == "stages.preparing":
        assert not (tmp_path / "run").exists()
    else:
        assert ".lock" not in os.listdir(tmp_path / "run")
        assert in_corpus(*arguments, "--resume").code == 0


def test_a_signal_that_a_library_makes_an_error_of_is_told_as_what_it_is(
    in_corpus: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def learn(*_: object, **__: object) -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise UserError("the training corpus has no text") from None

    monkeypatch.setattr("seq2seq.stages.preparing.Tokenizer.learn", learn)
    result = in_corpus("recipe.toml", "--run-dir", tmp_path / "run")
    one_line(result, 130, "interrupted")


def test_a_second_training_of_a_run_is_refused(in_corpus: Cli, tiny_run: Any) -> None:
    before = tree(tiny_run.path)
    with Run(tiny_run.path).locked():
        for option in ("--resume", "--overwrite"):
            one_line(in_corpus("recipe.toml", option), 1, f"another training (process {os.getpid()}) is writing")
    assert tree(tiny_run.path) == before


def test_a_model_whose_training_was_extended_and_interrupted_comes_with_a_warning(
    run_cli: Cli, in_corpus: Cli, tiny_run: Any, tmp_path: Path
) -> None:
    path = tmp_path / "run"
    shutil.copytree(tiny_run.path, path)
    shutil.copytree(path / "checkpoints" / "step-00000100", path / "checkpoints" / "step-00000150")
    result = run_cli("translate", path, *ONE, stdin=b"the cat\n")
    assert (result.code, len(result.lines)) == (0, 1)
    assert re.fullmatch(r"seq2seq: [^\n]+ step 100, [^\n]+ step 150: finish it with [^\n]+--resume`\n", result.err)
    scored = run_cli("benchmark", path, "--source", "test.en", "--reference", "test.de", *ONE, cwd=tiny_run.corpus)
    assert scored.code == 0 and scored.err.count("finish it with") == 1


def test_a_locale_without_umlauts_can_read_recipes_and_show_german(tiny_corpus: Path, tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    shutil.copytree(tiny_corpus, folder, ignore=shutil.ignore_patterns("runs"))
    recipe = (folder / "recipe.toml").read_text(encoding="utf-8").replace('"en"', '"Englisch für Anfänger"')
    (folder / "recipe.toml").write_text(recipe, encoding="utf-8")
    narrow = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "", "PYTHONCOERCECLOCALE": "0"}
    process = start("train", "recipe.toml", "--set", "training.max_steps=3", cwd=folder, env=narrow)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    text = out.decode("utf-8")
    assert any(letter in text for letter in "äöüß")
    assert Run(folder / "runs/recipe").config().data.source_language == "Englisch für Anfänger"


# benchmark


@pytest.fixture
def benchmark(run_cli: Cli, tiny_run: Any) -> Cli:
    def run(*arguments: str | Path) -> Any:
        return run_cli("benchmark", *arguments, *ONE, cwd=tiny_run.corpus)

    return run


TEST = ("--source", "test.en", "--reference", "test.de")


def test_the_benchmark_shows_scores_signatures_overlap_and_writes_json(benchmark: Cli, tmp_path: Path) -> None:
    result = benchmark("runs/recipe", "test.de", *TEST, "--json", tmp_path / "r.json", "--output", tmp_path / "texts")
    assert result.code == 0, result.err
    for part in ("BLEU", "chrF2", "TER", "sentences/s", "p against runs/recipe", "tok:13a", "version:2."):
        assert part in result.out
    assert re.search(r"^test\.de +100\.00 \[100\.00, 100\.00\]", result.out, re.MULTILINE)
    assert re.search(r"^runs/recipe +2 of 20 +2 of 20$", result.out, re.MULTILINE)
    assert "Without 2 sentences of exact or normalised overlap (18 left):" in result.out
    assert result.err == "translating with runs/recipe\nscoring 20 lines by bleu, chrf, ter\n"
    report = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert [system["name"] for system in report["systems"]] == ["runs/recipe", "test.de"]
    assert report["systems"][0]["overlap"] == {"exact": 2, "normalized": 2}
    assert set(report["signatures"]) == {"bleu", "chrf", "ter"}
    translations = (tmp_path / "texts" / "recipe.txt").read_text(encoding="utf-8").splitlines()
    assert len(translations) == 20
    again = benchmark(tmp_path / "texts" / "recipe.txt", *TEST, "--metrics", "bleu")
    ours = re.search(r"^runs/recipe +(\d+\.\d\d) ", result.out, re.MULTILINE)
    assert ours is not None
    assert re.search(rf"recipe\.txt +{re.escape(ours[1])} \[", again.out)
    assert "chrF2" not in again.out


@pytest.mark.parametrize("role", ["system", "source", "reference", "json", "link"])
def test_the_benchmark_does_not_replace_what_it_was_given(
    benchmark: Cli, tiny_run: Any, tmp_path: Path, role: str
) -> None:
    mine = tmp_path / "recipe.txt"
    shutil.copy(tiny_run.corpus / f"test.{'en' if role == 'source' else 'de'}", mine)
    if role == "json":
        mine.write_text("", encoding="utf-8")
    before = mine.read_bytes()
    arguments = {
        "system": [mine, *TEST],
        "source": ["--source", mine, "--reference", "test.de"],
        "reference": ["--source", "test.en", "--reference", mine],
        "json": [*TEST, "--json", mine],
        "link": [tmp_path / "link.txt", *TEST],
    }[role]
    if role == "link":
        (tmp_path / "link.txt").symlink_to(mine)
    result = benchmark("runs/recipe", *arguments, "--metrics", "bleu", "--output", tmp_path)
    one_line(result, 2, f"--output {tmp_path}", "runs/recipe would replace", "recipe.txt", "name another folder")
    assert mine.read_bytes() == before


def test_the_benchmark_replaces_no_file_of_another_kind(benchmark: Cli, tmp_path: Path) -> None:
    report, mine, texts = tmp_path / "r.json", tmp_path / "mine.txt", tmp_path / "texts"
    mine.write_text("mine", encoding="utf-8")
    options = (*TEST, "--metrics", "bleu")
    one_line(benchmark("test.de", *options, "--json", mine), 2, "--json", "mine.txt: holds something else")
    assert mine.read_text(encoding="utf-8") == "mine"
    for content in ('{"source": "a"}\n{"source": "b"}\n', '{"format_version": 1}', "{", "[]"):
        mine.write_text(content, encoding="utf-8")
        one_line(benchmark("test.de", *options, "--json", mine), 2, "mine.txt: holds something else")
        assert mine.read_text(encoding="utf-8") == content
    read = tmp_path / "read.txt"
    read.write_text('{"format_version": 1, "test_set": 1, "systems": ' + "\n" * 19 + "1}", encoding="utf-8")
    one_line(benchmark(read, *options, "--json", read), 2, "--json", "this command reads it")
    for _ in range(2):  # a report, or nothing, may be replaced
        assert benchmark("test.de", *options, "--json", report).code == 0
    texts.mkdir()
    (texts / "recipe.txt").write_text("mine", encoding="utf-8")
    one_line(benchmark("runs/recipe", *options, "--output", texts), 2, "--output", "recipe.txt is there already")
    assert (texts / "recipe.txt").read_text(encoding="utf-8") == "mine"
    assert benchmark("runs/recipe", *options, "--output", texts, "--overwrite").code == 0
    assert len((texts / "recipe.txt").read_text(encoding="utf-8").splitlines()) == 20
    one_line(benchmark("runs/recipe", *options, "--overwrite"), 2, "--overwrite", "add --output")
    (tmp_path / "more" / "recipe.txt").mkdir(parents=True)
    result = benchmark("runs/recipe", *options, "--output", tmp_path / "more", "--overwrite")
    one_line(result, 2, "recipe.txt: is a folder")


@pytest.mark.parametrize("option", ["--prefix", "--ban", "--require"])
def test_options_that_are_no_utf_8_are_refused(translate: Cli, option: str) -> None:
    one_line(translate(option, "a\udcff", lines=["the cat"], code=2), 2, option, "is not UTF-8 text")


def test_a_run_folder_has_a_name_in_utf_8(run_cli: Cli, tiny_run: Any, tiny_corpus: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "a\udcff"
    one_line(run_cli("train", "recipe.toml", "--run-dir", wrong, cwd=tiny_corpus), 1, "has to be UTF-8")
    shutil.copytree(tiny_run.path, wrong)
    one_line(run_cli("translate", wrong, *ONE, stdin=b"the cat"), 1, "has to be UTF-8", "rename it")


def test_what_is_no_run_folder_is_told_apart(run_cli: Cli, tiny_corpus: Path, tmp_path: Path) -> None:
    one_line(run_cli("translate", tiny_corpus / "test.en"), 1, "is a file; the folder of a run is expected")
    one_line(run_cli("train", "recipe.toml", "--run-dir", "", cwd=tiny_corpus), 2, "--run-dir is empty")
    (tmp_path / "dangling").symlink_to("nowhere")
    result = run_cli("train", "recipe.toml", "--run-dir", tmp_path / "dangling", cwd=tiny_corpus)
    one_line(result, 1, "it is a link to what is not there")


def test_a_key_that_is_given_twice_is_told(run_cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text("[training]\nseed = 1\nseed = 2\n", encoding="utf-8")
    one_line(run_cli("train", tmp_path / "r.toml"), 2, "r.toml", "a key is given twice", "line 3")


def test_a_training_without_an_end_is_told_of_presets(run_cli: Cli, tiny_corpus: Path, tmp_path: Path) -> None:
    files = ("--source", tiny_corpus / "train.en", "--target", tiny_corpus / "train.de")
    one_line(run_cli("train", *files, "--run-dir", tmp_path / "r"), 2, "--preset tiny", "training.max_minutes")


def test_quotes_of_a_spreadsheet_are_remarked_on(run_cli: Cli, tmp_path: Path) -> None:
    rows = [(f"cat {n}", f"Katze {n}") for n in range(40)]
    text = "en\tde\n" + "".join(f'"{source}"\t{target}\n' for source, target in rows)
    (tmp_path / "train.tsv").write_text(text, encoding="utf-8")
    options = (
        "--set", "data.train_pairs=train.tsv", "--set", "training.max_steps=1", "--preset", "quick", "--set",
        "model.d_model=16", "--set", "model.d_ff=16", "--set", "training.num_threads=1",
    )  # fmt: skip
    result = run_cli("train", *options, cwd=tmp_path)
    assert result.code == 0 and "train.tsv: 40 of 41 pairs have a side in double quotes" in result.err
    table = ("--set", "data.tsv_quotes=true", "--set", "data.tsv_header=true", "--set", "data.source_column=en")
    result = run_cli("train", *options, *table, "--run-dir", "runs/table", cwd=tmp_path)
    assert result.code == 0 and "double quotes" not in result.err
    assert "training data: 40 pairs read, 40 kept" in result.err


def test_translations_are_kept_as_soon_as_they_are_there(
    benchmark: Cli, tiny_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from seq2seq.evaluation import benchmark as bench

    whole = bench.translate_test_set

    def once(*arguments: Any, name: str, **options: Any) -> Any:
        if name != "runs/recipe":
            raise UserError("the second one fails")
        return whole(*arguments, name=name, **options)

    monkeypatch.setattr(bench, "translate_test_set", once)
    shutil.copytree(tiny_run.path, tmp_path / "second")
    result = benchmark("runs/recipe", tmp_path / "second", *TEST, "--output", tmp_path / "texts")
    assert result.code == 1 and "the second one fails" in result.err
    assert [path.name for path in (tmp_path / "texts").iterdir()] == ["recipe.txt"]


def test_a_damaged_run_is_told_before_another_translates(benchmark: Cli, tiny_run: Any, tmp_path: Path) -> None:
    shutil.copytree(tiny_run.path, tmp_path / "second")
    (tmp_path / "second" / "model.safetensors").write_bytes(b"damaged")
    one_line(benchmark("runs/recipe", tmp_path / "second", *TEST), 1, "model.safetensors")


def test_bleu_is_tokenised_as_in_training(benchmark: Cli, tiny_run: Any, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(tiny_run.path, other)
    config = (other / "config.toml").read_text(encoding="utf-8")
    assert 'bleu_tokenize = "13a"' in config
    (other / "config.toml").write_text(config.replace('tokenize = "13a"', 'tokenize = "char"'), encoding="utf-8")
    bleu = (*TEST, "--metrics", "bleu")
    result = benchmark(other, *bleu)
    assert "tok:char" in result.out and "tokenised by char, as in training" in result.err
    assert "tok:13a" in benchmark(other, *bleu, "--tokenize", "13a").out
    both = benchmark(other, "runs/recipe", *bleu)
    assert "tok:13a" in both.out and "in training it was by 13a and char" in both.err


def test_warnings_of_different_text_are_of_one_kind(translate: Cli) -> None:
    told = translate(lines=[f"the {chr(0x4E00 + number)}" for number in range(30)]).err.splitlines()
    assert len(told) == 21 and told[19].endswith("(more like this are counted, not shown)")
    assert (
        "10 more (30 in all) were like this: line 21 has text that the model does not know" in told[20]
        and "且" in told[20]
    )


def test_each_runs_warnings_are_counted_anew(benchmark: Cli, tiny_run: Any, tmp_path: Path) -> None:
    shutil.copytree(tiny_run.path, tmp_path / "second")
    for name, word in (("t.en", "\N{SNOWMAN}"), ("t.de", "x")):
        (tmp_path / name).write_text(f"{word}\n" * 25, encoding="utf-8")
    test = ("--source", tmp_path / "t.en", "--reference", tmp_path / "t.de", "--metrics", "chrf")
    result = benchmark("runs/recipe", tmp_path / "second", *test)
    assert result.code == 0 and result.err.count("5 more (25 in all) were like this") == 2
    assert result.err.index("5 more (25") < result.err.index(f"translating with {tmp_path / 'second'}")


def test_what_is_tokenised_already_or_takes_long_is_remarked_on(benchmark: Cli, tmp_path: Path) -> None:
    (tmp_path / "t.en").write_text("a dog .\n" * 100, encoding="utf-8")
    (tmp_path / "t.de").write_text("ein hund .\n" * 99 + "ein hund . " * 67 + "\n", encoding="utf-8")
    test = ("--source", tmp_path / "t.en", "--reference", tmp_path / "t.en")
    assert "t.en seems to be tokenised already" in benchmark(tmp_path / "t.en", *test, "--metrics", "bleu").err
    untold = benchmark(tmp_path / "t.en", *test, "--metrics", "bleu", "--tokenize", "none")
    assert untold.err == "scoring 100 lines by bleu\n"
    long = ("--source", tmp_path / "t.en", "--reference", tmp_path / "t.de", "--metrics")
    assert "t.de, line 100 has 201 words: TER takes long" in benchmark(tmp_path / "t.de", *long, "ter").err
    assert benchmark(tmp_path / "t.de", *long, "chrf").err == "scoring 100 lines by chrf\n"


def test_case_is_disregarded_where_it_is_asked_for(benchmark: Cli, tiny_run: Any, tmp_path: Path) -> None:
    loud = tmp_path / "loud.de"
    text = (tiny_run.corpus / "test.de").read_text(encoding="utf-8")
    loud.write_text("".join(letter if letter == "ß" else letter.upper() for letter in text), encoding="utf-8")
    result = benchmark(loud, *TEST, "--lowercase", "--metrics", "bleu,chrf++", "--json", tmp_path / "r.json")
    assert re.search(r"loud\.de +100\.00 .* 100\.00", result.out) and "chrF2++|nrefs:1" in result.out
    assert json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))["lowercase"] is True


def test_a_report_names_files_whatever_their_names(benchmark: Cli, tiny_run: Any, tmp_path: Path) -> None:
    wrong = tmp_path / "h\udcff.de"
    shutil.copy(tiny_run.corpus / "test.de", wrong)
    result = benchmark(wrong, *TEST, "--metrics", "chrf", "--json", tmp_path / "r.json")
    assert result.code == 0, result.err
    report = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert report["systems"][0]["name"] == str(wrong) and report["tokenize"] is None


def test_the_benchmark_says_what_was_computed_in(benchmark: Cli, tmp_path: Path) -> None:
    for precision in ("fp32", "bf16"):
        options = ("--precision", precision, "--metrics", "bleu", "--json", tmp_path / "r.json")
        result = benchmark("runs/recipe", *TEST, *options)
        assert re.search(rf"^Speed on .*, {precision}; tokens are", result.out, re.MULTILINE)
        [system] = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))["systems"]
        assert system["speed"]["precision"] == precision


def test_a_test_set_is_tokenised_as_sacrebleu_does_it_for_its_language(
    benchmark: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from seq2seq.evaluation import testsets

    references = ["我们 在 公园 里 散步。", "今天天气很好。", "他喜欢读书和写字。"]
    hypothesis = tmp_path / "a.zh"
    hypothesis.write_text("我们在公园散步。\n今天天气好。\n他喜欢读书。\n", encoding="utf-8")
    loaded = testsets.EvaluationSet(
        testsets.TextFile("a.en", ["a", "b", "c"]), (testsets.TextFile("a.zh", references),), "wmt20", "en-zh"
    )
    monkeypatch.setattr(testsets, "load_named_test_set", lambda *_: loaded)
    named = ("--test-set", "wmt20", "--language-pair", "en-zh", "--metrics", "bleu")
    assert "tok:zh" in benchmark(hypothesis, *named).out
    assert "tok:13a" in benchmark(hypothesis, *named, "--tokenize", "13a").out


def test_languages_without_spaces_are_remarked_on(run_cli: Cli, tiny_corpus: Path, tmp_path: Path) -> None:
    options = ("--set", "training.max_steps=2", "--set", "data.target_language=zh", "--run-dir", tmp_path / "run")
    result = run_cli("train", "recipe.toml", *options, cwd=tiny_corpus)
    assert (
        result.code == 0 and "tokenised by 13a; for zh sacreBLEU takes zh" in result.err and "(data.bleu_" in result.err
    )
    test = ("--source", tiny_corpus / "test.en", "--reference", tiny_corpus / "test.de", "--metrics", "bleu", *ONE)
    assert "for zh sacreBLEU takes zh" in run_cli("benchmark", tmp_path / "run", *test).err
    assert "sacreBLEU takes" not in run_cli("benchmark", tmp_path / "run", *test, "--tokenize", "13a").err


def test_a_seed_that_is_none_is_told(benchmark: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SACREBLEU_SEED", "abc")
    one_line(benchmark("test.de", *TEST), 2, "SACREBLEU_SEED = 'abc'", "whole number")
    monkeypatch.setenv("SACREBLEU_SEED", "7")
    assert "seed:7" in benchmark("test.de", *TEST, "--metrics", "bleu").out


def test_all_runs_are_looked_at_before_the_first_translates(benchmark: Cli, tiny_run: Any, tmp_path: Path) -> None:
    shutil.copytree(tiny_run.path, tmp_path / "unfinished")
    (tmp_path / "unfinished" / "model.json").unlink()
    one_line(benchmark("runs/recipe", tmp_path / "unfinished", *TEST), 1, "unfinished")


def test_runs_of_one_name_are_written_to_files_of_their_own(benchmark: Cli, tiny_run: Any, tmp_path: Path) -> None:
    shutil.copytree(tiny_run.path, tmp_path / "recipe")
    result = benchmark("runs/recipe", tmp_path / "recipe/", *TEST, "--metrics", "bleu", "--output", tmp_path / "texts")
    assert result.code == 0, result.err
    first, second = sorted((tmp_path / "texts").iterdir())
    assert first.read_bytes() == second.read_bytes()
    assert [path.name for path in (first, second)] == ["recipe-1.txt", "recipe-2.txt"]
    shutil.copytree(tiny_run.path, tmp_path / "recipe-1")
    runs = "runs/recipe", tmp_path / "recipe", tmp_path / "recipe-1"
    benchmark(*runs, *TEST, "--metrics", "bleu", "--output", tmp_path / "more")
    names = sorted(path.name for path in (tmp_path / "more").iterdir())
    assert names == ["recipe-1.txt", "recipe-2.txt", "recipe-3.txt"]


@pytest.mark.parametrize(
    ("arguments", "code", "parts"),
    [
        (["runs/recipe"], 2, ["--source", "--test-set"]),
        (["runs/recipe", "--source", "test.en"], 2, ["--reference"]),
        (["runs/recipe", *TEST, "--test-set", "wmt14"], 2, ["--source", "--test-set"]),
        (["runs/recipe", "--test-set", "wmt14", "--reference", "test.de"], 2, ["--reference goes with --source"]),
        (["runs/recipe", "--test-set", "wmt41"], 2, ["--test-set wmt41: not", "did you mean"]),
        (["runs/recipe", *TEST, "--metrics", "blue"], 2, ["--metrics blue: not", "bleu, chrf, chrf++, ter"]),
        (["runs/recipe", *TEST, "--tokenize", "14a"], 2, ["--tokenize 14a: not", "13a"]),
        (["runs/recipe", *TEST, "--precision", "half"], 2, ["--precision half"]),
        (["runs/recipe", *TEST, "--beam-size", "0"], 2, ["--beam-size 0"]),
        (["runs/recipe", *TEST, "--metrics", "chrf", "--tokenize", "zh"], 2, ["--tokenize zh means nothing"]),
        (["test.de", *TEST, "--precision", "bf16"], 2, ["--precision bf16 means nothing without a run"]),
        (["test.de", *TEST, "--output", "texts"], 2, ["--output texts means nothing without a run"]),
        (["test.de", *TEST, "--length-normalization", "wu"], 2, ["--length-normalization wu means nothing"]),
        (["runs/recipe", *TEST, "--json", "none/r.json"], 2, ["--json none/r.json", "no folder none"]),
        (["runs/recipe", *TEST, "--json", "runs"], 2, ["--json runs", "is a folder"]),
        (["runs/recipe", *TEST, "--output", "test.de"], 2, ["--output test.de", "is a file"]),
        (["runs/recipe", *TEST, "--output", "test.de/texts"], 2, ["--output test.de/texts", "cannot be made"]),
        (["runs/recipe", *TEST, "--language-pair", "en-de"], 2, ["--language-pair en-de", "add --test-set"]),
        (["runs/none", *TEST], 1, ["runs/none: no such run folder, nor a file"]),
        (["test.de", "runs/none", *TEST], 1, ["runs/none: no such run folder"]),
        (["runs/recipe", "test.de", "runs/../runs/recipe", *TEST], 2, ["recipe: is given twice"]),
        (["train.de", *TEST], 1, ["train.de has 300 lines", "test.en has 20"]),
        (["test.de", "--source", "test.en", "--reference", "train.de"], 1, ["test.en has 20", "train.de has 300"]),
        (["test.de", "--source", "none.en", "--reference", "test.de"], 1, ["none.en: no such file"]),
        (["test.de", "--source", os.devnull, "--reference", os.devnull], 1, ["no lines"]),
    ],
)
def test_a_benchmark_that_cannot_be_done_says_why(
    benchmark: Cli, arguments: list[str], code: int, parts: list[str]
) -> None:
    one_line(benchmark(*arguments), code, *parts)


def test_the_tests_leave_signal_handlers_as_they_were(tiny_run: Any) -> None:
    assert tiny_run.result.code == 0  # training, which sets its own
    # Ignored it is where a shell has started the tests in the background.
    assert signal.getsignal(signal.SIGINT) in (signal.default_int_handler, signal.SIG_IGN)


def test_a_reader_that_is_slow_gets_all_of_what_does_not_wait(tiny_run: Any, tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    (tmp_path / "lines").write_text("the small cat sees the old dog\n" * 3000)  # more than a pipe holds
    command = [sys.executable, "-m", "seq2seq", "translate", str(tiny_run.path), str(tmp_path / "lines"), *ONE]
    with subprocess.Popen(command, stdout=writer, stderr=subprocess.PIPE, text=True) as child:
        os.close(writer)
        assert child.stderr is not None
        time.sleep(2)
        with os.fdopen(reader, encoding="utf-8") as file:
            said = file.read().splitlines()
        assert child.wait(60) == 0, child.stderr.read()
    assert len(said) == 3000 and len(set(said)) == 1
