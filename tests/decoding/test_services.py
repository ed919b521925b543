"""A translator in a service: many threads, forked children, pools, callers that hand over anything."""

from __future__ import annotations

import concurrent.futures
import itertools
import pickle
import queue
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from seq2seq.decoding.alignment_heads import choose_alignment_head
from seq2seq.decoding.options import Options
from seq2seq.decoding.translator import Translator
from seq2seq.errors import OptionError, SearchOptionError
from seq2seq.inspection.explaining import explain_translation
from seq2seq.run import Run
from seq2seq.run_folder.files import RunError, read_json

LINES = ["the cat", "the small cat sees the old dog", "the old king", "the queen sees the cat", "the dog"]


@pytest.fixture(scope="module")
def translator(tiny_run: Any) -> Translator:
    return Translator(tiny_run.path)


def ran(code: str, run: Path) -> str:
    done = subprocess.run([sys.executable, "-c", code, run], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_threads_are_explained_what_they_asked(translator: Translator) -> None:
    def tell(line: str) -> tuple[str, list[Any], int, list[float]]:
        told = explain_translation(translator, line)
        return told.translation, told.by_layer, len(told.encoder.active), told.log_probabilities.tolist()

    expected = [tell(line) for line in LINES]
    aligned = [result.hypotheses[0].alignment for result in translator.translate(LINES, alignments=True)]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        beside = [pool.submit(translator.translate, LINES, alignments=True) for _ in range(4)]
        found = list(pool.map(tell, LINES * 6))
    for one, other in zip(found, expected * 6, strict=True):
        assert one[:3] == other[:3] and one[3] == pytest.approx(other[3], abs=1e-4)
    assert all([one.hypotheses[0].alignment for one in future.result()] == aligned for future in beside)


FORKED = """
import os, sys, torch
torch.set_num_threads(2)
from seq2seq.decoding.translator import Translator
from seq2seq.inspection.explaining import explain_translation
translator = Translator(sys.argv[1])
lines = ["the cat", "the old dog sees the king"] * 10

def work():
    print(torch.get_num_threads(), [result.text for result in translator.translate(lines, beam_size=1)][:2])
    print([round(one.log_probability, 3) for one in translator.score(lines[:2], ["die Katze", "der Hund"])])
    print(translator.translate(lines[:2], alignments=True)[1].hypotheses[0].alignment)
    print([one.text for one in translator.translate(lines[:1], diverse=2)[0].hypotheses])
    print(explain_translation(translator, lines[1]).translation, flush=True)

work()
child = os.fork()
if child == 0:
    work()
    os._exit(0)
sys.exit(os.waitpid(child, 0)[1])
"""


def test_a_forked_child_translates_with_one_thread(tiny_run: Any) -> None:
    said = ran(FORKED, tiny_run.path).splitlines()
    parent, child = said[: len(said) // 2], said[len(said) // 2 :]
    assert parent[0].startswith("2 ") and child == ["1 " + parent[0].removeprefix("2 "), *parent[1:]]


OUTLIVING = """
import sys, threading, torch
torch.set_num_threads(2)
from seq2seq.decoding.translator import Translator
translator = Translator(sys.argv[1])

def serve():
    threading.main_thread().join()
    print(len(translator.translate(["the cat", "the old dog sees the king"] * 100, beam_size=2)), flush=True)

threading.Thread(target=serve).start()
"""


def test_a_thread_that_outlives_the_main_one_translates(tiny_run: Any) -> None:
    assert ran(OUTLIVING, tiny_run.path) == "200\n"


def test_errors_go_to_other_processes(translator: Translator) -> None:
    with pytest.raises(SearchOptionError) as raised:
        translator.translate(["the cat"], prefix="{☃}")
    again = pickle.loads(pickle.dumps(raised.value))
    assert (str(again), again.typed, type(again)) == (str(raised.value), raised.value.typed, SearchOptionError)


@pytest.mark.parametrize("kind", ["stream", "score_stream"])
def test_a_line_is_worked_on_before_the_next_one_comes(translator: Translator, kind: str) -> None:
    coming: queue.Queue[Any] = queue.Queue()

    def lines() -> Any:
        return itertools.chain([coming.get(timeout=60)], (coming.get(timeout=60) for _ in range(1)))

    coming.put("the cat" if kind == "stream" else ("the cat", "die Katze"))
    results = getattr(translator, kind)(lines(), ready=lambda seconds: False)
    assert next(results).source == "the cat"


def test_halves_of_surrogate_pairs_are_unknown_text(tiny_run: Any) -> None:
    said: list[str] = []
    translator = Translator(tiny_run.path, warn=said.append)
    [result, plain] = translator.translate(["the \udce9 cat", "the \N{REPLACEMENT CHARACTER} cat"])
    assert result.text == plain.text
    assert [text.partition(":")[0] for text in said] == [
        f"line {n} has text that the model does not know, and that is lost" for n in (1, 2)
    ]
    wrong: dict[str, Any]
    for wrong in ({"ban": ["\udce9"]}, {"require": ["Hund\udce9"]}, {"prefix": "\ud800"}):
        with pytest.raises(OptionError, match="bytes that are not UTF-8, or no text"):
            translator.translate(["the cat"], **wrong)


WRONG: list[tuple[Callable[[Translator], Any], str]] = [
    (lambda t: list(t.stream(LINES[:2], prefixes="De")), "is one text"),
    (lambda t: list(t.stream(LINES[:2], prefixes=5)), "is no list of lines"),  # type: ignore[arg-type]
    (lambda t: t.stream(LINES, {"beam_size": 1}), "options are"),  # type: ignore[arg-type]
    (lambda t: t.stream_tokens("the cat", {"beam_size": 1}), "options are"),  # type: ignore[arg-type]
    (lambda t: t.stream_tokens("the cat", Options(n_best=2)), "only greedy search and sampling"),
    (lambda t: t.stream(None), "None is no list of lines"),  # type: ignore[arg-type]
    (lambda t: t.score_stream(None), "None is no list of lines"),  # type: ignore[arg-type]
    (lambda t: t.score(None, None), "None is no list of lines"),  # type: ignore[arg-type]
    (lambda t: t.score(iter(LINES), iter(LINES)), "give a list"),  # type: ignore[arg-type]
    (lambda t: Translator(None), "give the folder of a run"),  # type: ignore[arg-type]
    (lambda t: Translator([5]), "give the folder of a run"),  # type: ignore[list-item]
    (lambda t: Translator(b"runs"), "give the folder of a run"),  # type: ignore[arg-type]
    (lambda t: Translator("runs", warn=None), "give a function"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("call", "told"), WRONG)
def test_wrong_types_are_told_where_they_come_in(
    translator: Translator, call: Callable[[Translator], Any], told: str
) -> None:
    with pytest.raises(OptionError, match=told):
        call(translator)


def test_sentences_to_choose_heads_by_are_text(tiny_run: Any) -> None:
    with pytest.raises(OptionError, match="target 1 is None, not text"):
        choose_alignment_head(tiny_run.path, ["the cat"], [None])  # type: ignore[list-item]


def test_torchs_default_type_changes_nothing(tiny_run: Any) -> None:
    def found() -> Any:
        translator = Translator(tiny_run.path)
        aligned = translator.translate(LINES, alignments=True)
        scored = [one.log_probability for one in translator.score(["the cat"], ["die Katze"])]
        return [(one.text, one.hypotheses[0].alignment) for one in aligned], scored

    before, usual = found(), torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        now = found()
    finally:
        torch.set_default_dtype(usual)
    assert now[0] == before[0] and now[1] == pytest.approx(before[1], abs=1e-4)


def test_what_may_not_be_read_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RunError) as raised:
        read_json(tmp_path)
    assert "JSON" not in str(raised.value)

    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_file", refuse)
    with pytest.raises(RunError, match="may not be read; check its permissions"):
        Run.open(tmp_path / "run")
