"""Translating with CTranslate2: the torch engine's outputs where the search is the same, and its face everywhere."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from seq2seq.decoding.options import Options
from seq2seq.decoding.translator import Translator
from seq2seq.errors import OptionError, SearchOptionError, UserError
from seq2seq.export import ctranslate2_engine, kept
from seq2seq.export.ctranslate2_engine import CTranslate2Translator
from seq2seq.export.errors import ExportError
from seq2seq.run import Run
from seq2seq.text.tokenizer import EOS

LINES = [
    "the cat sees the dog .",
    "",
    "a big king",
    "   ",
    "unknown ☃ letters",
    "the queen hears a small horse today !",
] * 3


def texts(results: Any) -> list[list[str]]:
    return [[one.text for one in result.hypotheses] for result in results]


@pytest.mark.parametrize(
    "model", [{}, {"norm": "pre", "shared": False}, {"positions": "learned", "max_positions": 257}]
)
def test_one_beam_is_the_torch_engines(model: dict[str, Any], make_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(**model)
    lines = [*LINES, "cat door " * 50]
    ours = Translator(run).translate(lines, beam_size=1)
    for batch_tokens in (30, 4000):
        monkeypatch.setattr(ctranslate2_engine, "BATCH_TOKENS", batch_tokens)
        theirs = CTranslate2Translator(run, threads=2)
        for own, other in zip(ours, theirs.translate(lines, beam_size=1), strict=True):
            one, two = own.hypotheses[0], other.hypotheses[0]
            assert (own.source, one.text, one.pieces, one.ended) == (other.source, two.text, two.pieces, two.ended)
            assert two.score == pytest.approx(one.score, abs=1e-4)
            assert two.log_probability == pytest.approx(one.log_probability, abs=1e-4)
            assert two.piece_log_probabilities == pytest.approx(one.piece_log_probabilities, abs=1e-4)


def test_beam_search_finds_what_the_model_scores_the_same(tiny_run: Any, tmp_path: Path) -> None:
    run = copy_of(tiny_run, tmp_path)
    lines = (tiny_run.corpus / "test.en").read_text(encoding="utf-8").splitlines()
    ours = Translator(run).translate(lines, n_best=3)
    engine = CTranslate2Translator(run, threads=1)
    theirs = engine.translate(lines, n_best=3)
    assert sum(own.text == other.text for own, other in zip(ours, theirs, strict=True)) >= 0.9 * len(lines)
    scores = {(own.source, one.pieces, one.ended): one.score for own in ours for one in own.hypotheses}
    found = [(other.source, one) for other in theirs for one in other.hypotheses]
    common = [(scores[key], one.score) for source, one in found if (key := (source, one.pieces, one.ended)) in scores]
    assert len(common) > len(found) / 2
    assert all(own == pytest.approx(other, abs=1e-4) for own, other in common)
    assert all(len(result.hypotheses) == 3 for result in theirs)
    for result in theirs:
        ranked = [one.score for one in result.hypotheses]
        assert ranked == sorted(ranked, reverse=True)
    assert [result.text for result in engine.translate(lines)] == [result.text for result in theirs]


def test_no_output_is_longer_than_its_line_allows(make_run: Any) -> None:
    run = make_run(sections={"decoding": {"max_extra_length": 2}})
    engine = CTranslate2Translator(run, threads=1)
    lengths = [len(ids) for ids in engine.tokenizer.encode_source(LINES)]
    for search in ({"beam_size": 1}, {"beam_size": 4, "n_best": 4}, {"sample": True, "temperature": 3.0}):
        for length, result in zip(lengths, engine.translate(LINES, **search), strict=True):  # type: ignore[arg-type]
            for one in result.hypotheses:
                assert len(one.pieces) + one.ended <= max(length + 2, 1)


def test_special_pieces_are_never_generated(make_run: Any) -> None:
    engine = CTranslate2Translator(make_run(tied_embeddings="none"), threads=1)
    results = engine.translate(LINES, sample=True, temperature=50.0, n_best=5)
    pieces = {piece for result in results for one in result.hypotheses for piece in one.pieces}
    assert len(pieces) > 20 and not pieces & {"<pad>", "<unk>", "<s>", "</s>"}


def test_sampling_repeats_with_its_seed(make_run: Any) -> None:
    engine = CTranslate2Translator(make_run(), threads=2)
    one, again, other = (engine.translate(LINES, sample=True, n_best=2, seed=seed) for seed in (1, 1, 2))
    assert texts(one) == texts(again) != texts(other)
    greedy = engine.translate(LINES, beam_size=1)
    for search in ({"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-3}):
        drawn = engine.translate(LINES, sample=True, **search)  # type: ignore[arg-type]
        assert [result.text for result in drawn] == [result.text for result in greedy]
    assert len(engine.translate(LINES, sample=True, top_k=10**6)) == len(LINES)


def test_long_lines_are_cut_with_a_warning(make_run: Any) -> None:
    warnings: list[str] = []
    engine = CTranslate2Translator(make_run(), threads=1, warn=warnings.append)
    warnings.clear()
    results = engine.translate(["the cat", "cat " * 100])
    assert [result.complete for result in results] == [True, False]
    [cut] = [warning for warning in warnings if "loop" not in warning]  # this model runs into one
    assert cut.startswith("line 2 has ") and "cut to the first 60 (decoding.max_source_length)" in cut


def test_no_text_is_lost_where_sources_may_be_long(make_run: Any) -> None:
    """CTranslate2 by itself cuts them to 1,024 pieces."""
    run = make_run(sections={"decoding": {"max_source_length": 1200, "max_extra_length": 0}})
    engine = CTranslate2Translator(run, threads=1)
    lines = ["cat dog " * 225 + end for end in ("king", "door")]
    assert all(1100 < len(ids) <= 1200 for ids in engine.tokenizer.encode_source(lines))
    ours, theirs = Translator(run).translate(lines, beam_size=1), engine.translate(lines, beam_size=1)
    for own, other in zip(ours, theirs, strict=True):
        assert own.complete and other.complete and own.hypotheses[0].pieces == other.hypotheses[0].pieces
        assert other.hypotheses[0].score == pytest.approx(own.hypotheses[0].score, abs=1e-4)
    # The search itself sees the last words too, though the model is too simple for them to change its outputs.
    sources, _ = engine._encode(lines, 0)
    one, two = engine._submit(engine.model, sources, [0, 1], engine.check(Options(beam_size=1)))
    assert one.result().scores != two.result().scores


def test_lines_before_a_damaged_one_are_translated(make_run: Any) -> None:
    def lines() -> Any:
        yield "the cat"
        raise UserError("damaged")

    engine = CTranslate2Translator(make_run(), threads=1)
    stream = engine.stream(lines())
    assert next(stream).source == "the cat"
    with pytest.raises(UserError, match="damaged"):
        next(stream)


def test_options_out_of_range_and_options_that_it_lacks_are_refused(make_run: Any) -> None:
    run = make_run()
    engine = CTranslate2Translator(run, threads=1)
    for wrong in ({"n_best": 9}, {"beam_size": 0}, {"length_penalty": -1.0}, {"top_p": 0.0}, {"seed": -1}):
        with pytest.raises(OptionError, match=next(iter(wrong))):
            engine.translate(["x"], **wrong)  # type: ignore[arg-type]

    @dataclass(frozen=True)
    class More(Options):
        diversity: float = 0.0

    assert engine.check(More()).beam_size == engine.config.beam_size
    with pytest.raises(OptionError, match=r"diversity = 0\.5: the ctranslate2 engine cannot do that"):
        engine.check(More(diversity=0.5))
    with pytest.raises(SearchOptionError) as refused:
        engine.check(Options(min_length=3))
    assert refused.value.typed == "--min-length 3: the ctranslate2 engine cannot do that; use --engine torch"
    for arguments in ({"quantization": "int4"}, {"threads": -1}, {"length_normalization": "none"}):
        with pytest.raises(OptionError):
            CTranslate2Translator(run, **arguments)


@pytest.mark.parametrize("beam_size", [1, 3])
def test_an_empty_translation_may_be_the_best(beam_size: int, make_run: Any) -> None:
    opened = Run.open(make_run(seed=1))
    model = opened.load_model()
    norm = model.decoder_layers[-1].feed_forward_residual.norm
    with torch.no_grad():  # whatever is read, what follows is end-of-sentence
        norm.weight.zero_()
        norm.bias.copy_(5 * model.output_weight[EOS])
    opened.write_model(dict(model.state_dict()), opened.info())
    for engine in (Translator(opened.path), CTranslate2Translator(opened.path, threads=1)):
        results = engine.translate(["the cat sees the dog .", "a big king"], beam_size=beam_size)
        assert texts(results) == [[""], [""]] and results[0].hypotheses[0].ended


def test_the_export_is_made_once_and_again_when_the_model_changes(make_run: Any) -> None:
    told: list[str] = []

    def warn(text: str) -> None:
        if "loop" not in text and "does not know" not in text:  # these models run into some, and know little
            told.append(text)

    run = make_run(seed=1)
    first = CTranslate2Translator(run, threads=1, warn=warn).translate(LINES, beam_size=1)
    model = run / "exports" / "ctranslate2-float32" / "model.bin"
    made = model.stat().st_mtime_ns
    CTranslate2Translator(run, threads=1, warn=warn)
    assert len(told) == 1 and model.stat().st_mtime_ns == made

    other = Run.open(make_run(name="other", seed=2)).load_model()
    opened = Run.open(run)
    opened.write_model(dict(other.state_dict()), opened.info())
    second = CTranslate2Translator(run, threads=1, warn=warn).translate(LINES, beam_size=1)
    assert len(told) == 2 and texts(first) != texts(second)
    assert texts(second) == texts(Translator(run).translate(LINES, beam_size=1))


@pytest.mark.parametrize("damage", ["flipped bit", "no model", "empty model", "other version"])
def test_a_damaged_export_is_made_anew(make_run: Any, damage: str) -> None:
    run = make_run()
    translator = CTranslate2Translator(run, threads=1)
    expected = texts(translator.translate(LINES, beam_size=1))
    model, certificate = translator.folder / "model.bin", translator.folder / "certificate.json"
    before = model.read_bytes()
    content, record = bytearray(before), json.loads(certificate.read_text(encoding="utf-8"))
    if damage == "flipped bit":
        content[len(content) // 2] ^= 0x40
        model.write_bytes(content)
    elif damage == "no model":
        model.unlink()
    elif damage == "empty model":
        model.write_bytes(b"")
    else:
        certificate.write_text(json.dumps({**record, "format_version": 0}), encoding="utf-8")
    told: list[str] = []
    again = CTranslate2Translator(run, threads=1, warn=told.append)
    assert ["making an export" in text for text in told] == [True]
    assert again.folder == translator.folder and model.read_bytes() == before
    assert json.loads(certificate.read_text(encoding="utf-8"))["files"] == record["files"]
    assert texts(again.translate(LINES, beam_size=1)) == expected


def test_exports_of_a_stranger_lead_nowhere_and_are_not_waited_for(make_run: Any, tmp_path: Path) -> None:
    run, outside = make_run(), tmp_path / "outside"
    outside.mkdir()
    for name in ("exports", "exports/ctranslate2-float32"):
        (run / name).parent.mkdir(exist_ok=True)
        (run / name).symlink_to(outside)
        with pytest.raises(UserError, match="leads out of the folder"):
            CTranslate2Translator(run, threads=1)
        (run / name).unlink()
    assert not list(outside.iterdir())
    folder = run / "exports" / "ctranslate2-float32"
    folder.mkdir()
    os.mkfifo(folder / "certificate.json")
    with pytest.raises(ExportError, match="remove it, and it is made anew"):  # without waiting
        CTranslate2Translator(run, threads=1)
    (folder / "certificate.json").unlink()
    CTranslate2Translator(run, threads=1)
    record = json.loads((folder / "certificate.json").read_text(encoding="utf-8"))
    for files in ({"config.json": record["files"]["config.json"]}, record["files"]):  # listed or not
        for make in (os.mkfifo, lambda path: path.symlink_to("/etc/passwd")):
            (folder / "certificate.json").write_text(json.dumps({**record, "files": files}), encoding="utf-8")
            (folder / "model.bin").unlink()
            make(folder / "model.bin")
            told: list[str] = []
            try:
                CTranslate2Translator(run, threads=1, warn=told.append)
            except ExportError as error:
                assert "remove it, and it is made anew" in str(error)
                (folder / "model.bin").unlink()
                (folder / "model.bin").touch()
            else:
                assert any("making an export" in text for text in told)
                assert (folder / "model.bin").is_file() and not (folder / "model.bin").is_symlink()


@pytest.mark.parametrize("kind", ["pipe", "file"])
def test_making_an_export_reads_nothing_outside_of_the_run(kind: str, make_run: Any, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    if kind == "pipe":
        os.mkfifo(outside)
    else:
        outside.write_text("the cat\n")
    run = make_run(sections={"data": {"valid_source": str(outside), "valid_target": str(outside)}})
    folder = CTranslate2Translator(run, threads=1, quantization="int8_float32").folder
    record = json.loads((folder / "certificate.json").read_text(encoding="utf-8"))
    assert record["sentences"]["origin"] == "random pieces of the vocabulary" and record["sentences"]["count"] == 50
    assert record["bounds"]["identical"] == 0.0  # they are no text


def test_an_export_of_a_sparse_terabyte_is_not_hashed(make_run: Any) -> None:
    run = make_run()
    model = CTranslate2Translator(run, threads=1).folder / "model.bin"
    size = model.stat().st_size
    os.truncate(model, 1 << 40)
    told: list[str] = []
    CTranslate2Translator(run, threads=1, warn=told.append)
    assert len(told) == 1 and model.stat().st_size == size


def test_an_old_export_that_one_is_in_is_told_as_such(make_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run()
    folder = CTranslate2Translator(run, threads=1).folder
    monkeypatch.chdir(folder)
    CTranslate2Translator(run, threads=1)  # it is sound
    (folder / "model.bin").write_bytes(b"")
    with pytest.raises(ExportError, match=r"is the folder that you are in, or holds it; leave it first"):
        CTranslate2Translator(run, threads=1)


@pytest.mark.parametrize("damage", ["certificate", "other file", "folder in place of the model", "file for the folder"])
def test_what_the_program_does_not_replace_is_told_with_the_remedy(make_run: Any, damage: str) -> None:
    run = make_run()
    folder = CTranslate2Translator(run, threads=1).folder
    if damage == "certificate":
        (folder / "certificate.json").write_text("{", encoding="utf-8")
    elif damage == "other file":
        (folder / "notes.txt").write_text("mine", encoding="utf-8")
    elif damage == "folder in place of the model":
        (folder / "model.bin").unlink()
        (folder / "model.bin").mkdir()
    else:
        shutil.rmtree(folder)
        folder.touch()
    told: list[str] = []
    with pytest.raises(ExportError, match=r"holds something else as well: remove it, and it is made anew$"):
        CTranslate2Translator(run, threads=1, warn=told.append)
    assert told == []


def test_an_export_that_cannot_be_loaded_is_told_in_one_line(make_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run()
    folder = CTranslate2Translator(run, threads=1).folder
    (folder / "model.bin").unlink()
    monkeypatch.setattr(kept, "_is_sound", lambda *_: True)
    with pytest.raises(ExportError, match=r"cannot load it .* remove the folder$") as error:
        CTranslate2Translator(run, threads=1)
    assert "\n" not in str(error.value)


def test_a_run_where_no_export_can_be_kept_is_told_with_a_remedy(
    make_run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run()
    (run / "exports").touch()
    with pytest.raises(ExportError, match=r"/exports: is a file where a folder should be; rename it$"):
        CTranslate2Translator(run, threads=1)
    (run / "exports").unlink()

    for place, number, reason in (
        ("seq2seq.export.folder.temporary_folder", errno.EROFS, "cannot be written (Read-only file system)"),
        ("seq2seq.export.ctranslate2_format.write_ctranslate2", errno.ENOSPC, "no space left to write it"),
    ):

        def fail(*_: object, number: int = number) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(place, fail)
        with pytest.raises(ExportError) as error:
            CTranslate2Translator(run, threads=1)
        monkeypatch.undo()
        message = str(error.value)
        assert message.startswith(f"{run}/exports/ctranslate2-float32: {reason}")
        assert f"translate once where {run} can be written" in message and f"`seq2seq export {run} FOLDER" in message
        assert "\n" not in message and not (run / "exports").exists()


def test_ranking_by_the_power_of_the_length_is_a_choice(make_run: Any) -> None:
    run = make_run()
    wu, power = (CTranslate2Translator(run, threads=1, length_normalization=name) for name in ("wu", "power"))
    one, two = (engine.translate(LINES[:1], beam_size=1)[0].hypotheses[0] for engine in (wu, power))
    length = len(one.pieces) + one.ended
    assert one.score * ((5 + length) / 6) ** 0.6 == pytest.approx(two.score * length**0.6, rel=1e-4)


# The command line


def copy_of(tiny_run: Any, tmp_path: Path) -> Path:
    """The trained run where an export may be put into it."""
    import shutil

    shutil.copytree(tiny_run.path, tmp_path / "run")
    return tmp_path / "run"


def test_command_line(tiny_run: Any, tmp_path: Path, run_cli: Any) -> None:
    run = copy_of(tiny_run, tmp_path)
    done = run_cli("export", run, tmp_path / "out", "--to", "ctranslate2", "--threads", "1")
    assert done.code == 0, done.err
    assert "12 of 12" in done.out and "BLEU" in done.out
    assert run_cli("export", run, tmp_path / "out", "--to", "ctranslate2").code == 1
    for wrong in (
        ("--to", "onnx"),
        ("--to", "ctranslate2", "--certify-reference", "x"),
        ("--to", "ctranslate2", "--quantization", "q"),
    ):
        assert run_cli("export", run, tmp_path / "other", *wrong).code == 2

    text = b"the cat\n\nthe dog sees the king\n"
    ours = run_cli("translate", run, "--beam-size", "1", stdin=text)
    theirs = run_cli("translate", run, "--beam-size", "1", "--engine", "ctranslate2", "--threads", "1", stdin=text)
    assert theirs.code == 0 and theirs.out == ours.out and "making an export (float32)" in theirs.err
    again = run_cli("translate", run, "--engine", "ctranslate2", "--format", "jsonl", "--n-best", "2", stdin=text)
    assert again.err == "" and json.loads(again.lines[0])["piece_log_probabilities"]
    for wrong in (("--engine", "onnx"), ("--quantization", "int8"), ("--engine", "ctranslate2", "--precision", "bf16")):
        assert run_cli("translate", run, *wrong, stdin=text).code == 2


def test_translating_with_an_export_imports_no_torch(make_run: Any) -> None:
    run = make_run()
    CTranslate2Translator(run, threads=1)
    code = (
        "import sys; from seq2seq.cli import main\n"
        f"sys.argv = ['seq2seq', 'translate', {str(run)!r}, '--engine', 'ctranslate2', '--threads', '1']\n"
        "main()\n"
        "print('heavy:', *[name for name in ('torch', 'transformers', 'safetensors') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input="the cat\n", capture_output=True, text=True, env={**os.environ}, timeout=120
    )
    translation, imported = done.stdout.splitlines()
    assert done.returncode == 0 and translation and imported == "heavy:"


# In a service


def test_another_export_in_its_place_is_never_drawn_from(make_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run()
    monkeypatch.chdir(run.parent)
    engine = CTranslate2Translator(run.name, threads=1)
    monkeypatch.chdir("/")
    drawn = texts(engine.translate(LINES, sample=True, seed=3))
    weights = engine.folder / "model.bin"
    content = weights.read_bytes()
    weights.unlink()
    for again in (lambda: None, lambda: weights.write_bytes(content)):
        again()
        with pytest.raises(ExportError, match="has changed since it was loaded: load the translator anew"):
            engine.translate(LINES, sample=True, seed=3)
        assert engine.translate(LINES[:1], beam_size=1)[0].text
    assert texts(CTranslate2Translator(run, threads=1).translate(LINES, sample=True, seed=3)) == drawn


def test_lines_that_are_left_out_change_nothing_of_the_others(make_run: Any, run_cli: Any) -> None:
    run = make_run()
    engine = CTranslate2Translator(run, threads=1)
    whole = [(one.source, one.text) for one in engine.translate(LINES)]
    assert [(one.source, one.text) for one in engine.stream(LINES, first=2)] == whole[2:]
    result = run_cli("translate", run, "--engine", "ctranslate2", "--sample", "--skip-lines", "1", stdin=b"a\nb\n")
    assert result.code == 2 and "--skip-lines: with CTranslate2 --sample draws by the lines before" in result.err


def test_threads_draw_by_their_own_seeds(make_run: Any) -> None:
    engine = CTranslate2Translator(make_run(), threads=1)

    def drawn(seed: int) -> list[list[str]]:
        return texts(engine.translate(LINES, sample=True, seed=seed))

    expected = [drawn(seed) for seed in range(6)]
    assert len({str(one) for one in expected}) > 1
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(drawn, range(6))) == expected


def test_a_forked_child_is_told_to_load_it(make_run: Any) -> None:
    code = (
        "import os, sys\n"
        "from seq2seq.export.ctranslate2_engine import CTranslate2Translator\n"
        "engine = CTranslate2Translator(sys.argv[1], threads=1)\n"
        "if os.fork() == 0:\n"
        "    try:\n"
        "        engine.translate(['the cat'])\n"
        "    except ValueError as error:\n"
        "        print(error, flush=True)\n"
        "    os._exit(0)\n"
        "os.wait()\n"
    )
    done = subprocess.run([sys.executable, "-c", code, make_run()], capture_output=True, text=True, timeout=120)
    assert done.stdout.endswith("load it in this one, too\n"), done


@pytest.mark.parametrize("wrong", [{"threads": "2"}, {"threads": None}])
def test_threads_are_a_number(make_run: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="has to be a whole number"):
        CTranslate2Translator(make_run(), **wrong)
