"""Exports compute what the run computes, or are not there."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from seq2seq.errors import OptionError, UserError
from seq2seq.export import ctranslate2_format, huggingface_format, light
from seq2seq.export.certificate import Bounds, our_logits
from seq2seq.export.ctranslate2_format import CTranslate2Model
from seq2seq.export.errors import ExportError, UnwritableExportError
from seq2seq.export.exporting import ODD_LINES, Certification, _without_loops, describe, export_run
from seq2seq.export.huggingface_format import HuggingFaceModel
from seq2seq.export.light import LightRun
from seq2seq.export.sentences import choose_sentences, made_up_sentences
from seq2seq.model.transformer import Transformer
from seq2seq.run import Run
from seq2seq.run_folder.files import RunError, UnwrittenError
from seq2seq.text.errors import DataError
from seq2seq.text.tokenizer import EOS

FEW = Certification(most=25)

# What the two formats have to express, each at least once.
BOTH: list[dict[str, Any]] = [
    {},
    {"norm": "pre"},
    {"activation": "gelu", "tied_embeddings": "none"},
    {"norm": "pre", "tied_embeddings": "target"},
    {"norm": "pre", "tied_embeddings": "none", "algorithm": "unigram"},
    {"shared": False},
    {"shared": False, "norm": "pre", "activation": "gelu"},
    {"shared": False, "tied_embeddings": "none"},
    {"byte_fallback": True, "num_decoder_layers": 2, "num_encoder_layers": 1},
]
CTRANSLATE2_ONLY: list[dict[str, Any]] = [
    {"positions": "learned", "max_positions": 257, "norm": "pre"},
    {"head_size": 12},
    {"head_size": 6, "norm": "pre", "num_heads": 3},
]


@contextlib.contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """As if the disk were full once a file has so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def name_of(model: dict[str, Any]) -> str:
    return ",".join(f"{key}={value}" for key, value in model.items()) or "paper"


@pytest.mark.parametrize("model", BOTH + CTRANSLATE2_ONLY, ids=name_of)
def test_ctranslate2_computes_the_same(model: dict[str, Any], make_run: Any, tmp_path: Path) -> None:
    certificate = export_run(make_run(**model), tmp_path / "out", to="ctranslate2", certification=FEW)
    assert certificate["passed"] and certificate["log_probabilities"]["largest"] < 1e-4
    assert certificate["identical"] + certificate["differing_at_close_choices"] == 25
    assert certificate["log_probabilities"]["count"] > 100
    assert json.loads((tmp_path / "out" / "certificate.json").read_text()) == certificate


@pytest.mark.parametrize("model", BOTH, ids=name_of)
def test_transformers_computes_the_same(model: dict[str, Any], make_run: Any, tmp_path: Path) -> None:
    run = make_run(**model)
    certificate = export_run(run, tmp_path / "out", to="huggingface", certification=FEW)
    assert certificate["logits"]["largest"] < 1e-4
    assert certificate["identical"] + certificate["differing_at_close_choices"] == 25
    assert certificate["class"] == (
        "PegasusForConditionalGeneration" if model.get("norm") == "pre" else "MarianMTModel"
    )
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"model.safetensors", "config.json", "generation_config.json", "source.spm", "target.spm"} <= files


def test_reduced_precision_is_certified_within_its_bounds(tiny_run: Any, tmp_path: Path) -> None:
    for quantization in ("int8", "int8_float32", "bfloat16", "int16"):
        certificate = export_run(
            tiny_run.path, tmp_path / quantization, to="ctranslate2", quantization=quantization, certification=FEW
        )
        assert certificate["passed"] and certificate["computing"]["quantization"] == quantization
        assert 0 < certificate["log_probabilities"]["largest"] < certificate["bounds"]["largest"]
        if not certificate["computing"]["native"]:
            assert certificate["computing"]["computed_in"] == "float32"
            assert f"does not compute in {quantization}" in describe(certificate, tmp_path)


def test_certificate_says_what_was_compared(tiny_run: Any, tmp_path: Path) -> None:
    certificate = export_run(
        tiny_run.path,
        tmp_path / "out",
        to="ctranslate2",
        certification=Certification(
            bleu=lambda _, references, tokenize: {("13a", 12): 12.5}[tokenize, len(references)]
        ),
    )
    assert certificate["sentences"]["origin"] == "the run's validation set"
    assert certificate["sentences"]["count"] == 12
    assert certificate["bleu"] == {"ours": 12.5, "theirs": 12.5, "difference": 0.0, "tokenize": "13a"}
    assert "BLEU 12.50, the run's 12.50 (+0.00), tokenised by 13a" in describe(certificate, tmp_path)
    run = Run.open(tiny_run.path)
    assert certificate["run"]["tokenizer"] == run.tokenizer().content_hash()
    assert certificate["run"]["model.safetensors"] == run.info()["files"]["model.safetensors"]
    assert {"seq2seq", "torch", "ctranslate2", "sentencepiece"} <= certificate["packages"].keys()
    assert certificate["files"].keys() == {"config.json", "model.bin", "shared_vocabulary.json", "tokenizer.model"}
    assert "12 of 12" in describe(certificate, tmp_path)


def test_bleu_is_tokenised_as_the_run_has_it(make_run: Any, tmp_path: Path) -> None:
    source, reference = tmp_path / "a.en", tmp_path / "a.de"
    for file in (source, reference):
        file.write_text("the cat , sees the dog .\n", encoding="utf-8")
    asked = []

    def bleu(hypotheses: object, references: object, tokenize: str) -> float:
        asked.append(tokenize)
        return 1.0

    run = make_run(sections={"data": {"bleu_tokenize": "char"}})
    certification = Certification(source, reference, bleu=bleu)
    certificate = export_run(run, tmp_path / "out", to="ctranslate2", certification=certification)
    assert asked == ["char", "char"] and certificate["bleu"]["tokenize"] == "char"


def test_bleu_is_of_texts_as_translate_gives_them() -> None:
    class Tokenizer:
        def decode(self, ids: list[list[int]]) -> list[str]:
            return [" ".join(map(str, some)) for some in ids]

    loop = [7] * 9
    texts = _without_loops(Tokenizer(), [[5, 6], [5] * 8, [5, 6]], [[4, *loop], loop, [4, 5]])  # type: ignore[arg-type]
    assert texts == ["4 7 7 7 7 7 7", "7 7 7 7 7 7 7 7 7", "4 5"]  # what the source repeats is no fault


def test_a_link_stays_and_what_it_names_is_replaced(make_run: Any, tmp_path: Path) -> None:
    run, link = make_run(), tmp_path / "link"
    (tmp_path / "real").mkdir()
    link.symlink_to("real")
    export_run(run, link, to="ctranslate2", certification=FEW)
    made = (tmp_path / "real" / "model.bin").stat().st_ino
    export_run(run, link, to="ctranslate2", overwrite=True, certification=FEW)
    assert link.is_symlink() and (tmp_path / "real" / "model.bin").stat().st_ino != made
    link.unlink()
    link.symlink_to("new")
    export_run(run, link, to="ctranslate2", certification=FEW)
    assert link.is_symlink() and (tmp_path / "new" / "certificate.json").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "new", "real", "run"]


def test_the_folder_that_one_is_in_is_not_replaced(
    make_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for name in (".", ".."):
        with pytest.raises(ExportError, match="the folder that you are in"):
            export_run(run, Path(name), to="ctranslate2", certification=FEW)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "run"]


# Tokenizers


@pytest.mark.parametrize("tokenizer", [{}, {"algorithm": "unigram"}, {"byte_fallback": True}, {"shared": False}])
def test_exported_tokenizer_gives_the_same_ids(tokenizer: dict[str, Any], make_run: Any, tmp_path: Path) -> None:
    run = Run.open(make_run(**tokenizer))
    model, ours = run.load_model(), run.tokenizer()
    (tmp_path / "out").mkdir()
    huggingface_format.write_huggingface(tmp_path / "out", model, ours, run.config())
    theirs = HuggingFaceModel(tmp_path / "out", model.target_vocab_size)
    lines = [*ODD_LINES, "the cat</s>", "<pad>", "a  ▁▁ b", "x\r\ny", "cat\u0000dog", "e\u0301\u0323", "\U0001f1e9"]
    for line, ids in zip(lines, ours.encode_source(lines), strict=True):
        assert theirs.encode(line) == [*ids, EOS], repr(line)
    outputs = ours.encode_target(["der Hund , die Katze !", "Tür ▁ 12"])
    assert [theirs.decode([*ids, EOS]) for ids in outputs] == ours.decode(outputs)


# What goes wrong


def test_a_wrong_weight_fails_the_certificate_and_leaves_nothing(
    make_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run()
    write_ctranslate2, write_huggingface = ctranslate2_format.write_ctranslate2, huggingface_format.write_huggingface

    def damaged(write: Any) -> Any:
        def written(folder: Path, model: Transformer, *others: Any) -> None:
            weight = model.get_parameter("encoder_layers.1.feed_forward.out_weight")
            kept = weight.detach().clone()
            with torch.no_grad():
                weight[:7, :5] += 0.3  # not of all rows alike, which the norm behind it would undo
            write(folder, model, *others)
            with torch.no_grad():
                weight.copy_(kept)

        return written

    monkeypatch.setattr(ctranslate2_format, "write_ctranslate2", damaged(write_ctranslate2))
    monkeypatch.setattr(huggingface_format, "write_huggingface", damaged(write_huggingface))
    for to in ("ctranslate2", "huggingface"):
        with pytest.raises(ExportError, match="not exported, as it would not do what") as error:
            export_run(run, tmp_path / "exports" / "out", to=to, certification=FEW)  # type: ignore[arg-type]
        assert error.value.exit_code == 1 and "\n" not in str(error.value)
        assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_failed_export_leaves_the_one_before(make_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run()
    export_run(run, tmp_path / "out", to="ctranslate2", certification=FEW)
    before = (tmp_path / "out" / "certificate.json").read_bytes()
    nothing = Bounds(margin=0.0, largest=0.0, mean=0.0, identical=0.0)
    monkeypatch.setattr("seq2seq.export.exporting.bounds_for", lambda quantization, *, made_up: nothing)
    with pytest.raises(ExportError, match="log-probabilities differ by up to"):
        export_run(run, tmp_path / "out", to="ctranslate2", overwrite=True, certification=FEW)
    assert (tmp_path / "out" / "certificate.json").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "run"]


@pytest.mark.parametrize(
    ("model", "field"),
    [({"positions": "learned", "max_positions": 300}, "model.positions"), ({"head_size": 12}, "model.head_size")],
)
def test_what_transformers_cannot_express_is_refused_by_name(
    model: dict[str, Any], field: str, make_run: Any, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=field):
        export_run(make_run(**model), tmp_path / "out", to="huggingface")
    assert not (tmp_path / "out").exists()


def test_folders_that_are_taken_are_left_alone(make_run: Any, tmp_path: Path) -> None:
    run = make_run()
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine.txt").write_text("mine")
    for name, message in (("file", "is a file"), ("folder", "something else than an export")):
        with pytest.raises(ExportError, match=message):
            export_run(run, tmp_path / name, to="ctranslate2", overwrite=True)
    (tmp_path / "empty").mkdir()
    export_run(run, tmp_path / "empty", to="ctranslate2", certification=FEW)
    with pytest.raises(ExportError, match="--overwrite"):
        export_run(run, tmp_path / "empty", to="ctranslate2")
    export_run(
        run, tmp_path / "empty", to="ctranslate2", quantization="int8_float32", overwrite=True, certification=FEW
    )
    assert (tmp_path / "folder" / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize(("to", "package"), [("ctranslate2", "ctranslate2"), ("huggingface", "transformers")])
def test_a_missing_package_is_named_with_its_extra(
    to: Any, package: str, make_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ExportError) as error:
        export_run(make_run(), tmp_path / "out", to=to)
    assert f"{package} is not installed" in str(error.value) and f"pip install 'seq2seq[{to}]'" in str(error.value)
    assert not (tmp_path / "out").exists()


def test_unknown_quantisations_are_refused(make_run: Any, tmp_path: Path) -> None:
    for to, quantization in (("ctranslate2", "int4"), ("huggingface", "int8")):
        with pytest.raises(OptionError, match=f"quantization {quantization}: "):
            export_run(make_run(), tmp_path / "out", to=to, quantization=quantization)  # type: ignore[arg-type]


@pytest.mark.parametrize("to", ["ctranslate2", "huggingface"])
def test_a_full_disk_is_told_in_one_line(to: Any, make_run: Any, tmp_path: Path) -> None:
    run = make_run()
    with files_of_at_most(20_000), pytest.raises(UnwritableExportError) as error:
        export_run(run, tmp_path / "new" / "out", to=to, certification=FEW)
    message = str(error.value)
    assert message.startswith(f"{tmp_path}/new/out: no space left to write it (") and error.value.exit_code == 1
    assert message.endswith("free some space or choose another disk") and "\n" not in message
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_certificate_that_cannot_be_written_is_told_in_one_line(
    make_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise UnwrittenError("no space left")

    monkeypatch.setattr("seq2seq.export.exporting.write_json", full)
    with pytest.raises(UnwritableExportError, match="no space left"):
        export_run(make_run(), tmp_path / "out", to="ctranslate2", certification=FEW)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_sparse_terabyte_of_weights_is_not_hashed(
    make_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run()
    with (run / "model.safetensors").open("r+b") as file:
        file.truncate(1 << 40)
    monkeypatch.setattr(light.hashlib, "file_digest", None)
    for read in (lambda: export_run(run, tmp_path / "out", to="ctranslate2"), LightRun.open(run).hashes):
        with pytest.raises(RunError, match=r"model\.safetensors: damaged: .* bytes"):
            read()
    with pytest.raises(OSError, match="too large"):  # of whatever is hashed
        light.sha256_of(run / "model.safetensors")


def test_weights_of_another_size_than_the_configurations_are_not_hashed(
    make_run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, other = make_run(), make_run(name="other", d_ff=96)
    shutil.copy(other / "model.safetensors", run)
    monkeypatch.setattr(light.hashlib, "file_digest", None)
    with pytest.raises(RunError, match=r"has shape .* the configuration says"):
        LightRun.open(run).hashes()


@pytest.mark.parametrize(
    ("method", "wrong", "message"),
    [
        ("encode", [5], "its tokenizer gives other pieces for "),
        ("decode", "other", "its tokenizer gives 'other' for "),
    ],
)
def test_an_exported_tokenizer_that_differs_fails_the_certificate(
    method: str, wrong: Any, message: str, make_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HuggingFaceModel, method, lambda self, given: wrong)
    with pytest.raises(ExportError, match=f"not exported, as .*: {message}"):
        export_run(make_run(), tmp_path / "out", to="huggingface", certification=Certification(most=3))
    assert not (tmp_path / "out").exists()


# Sentences


def test_sentences_are_given_held_out_or_made_up(tiny_run: Any, make_run: Any, tmp_path: Path) -> None:
    run = Run.open(tiny_run.path)
    config, tokenizer = run.config(), run.tokenizer()
    assert choose_sentences(config, tokenizer).references is not None
    assert len(choose_sentences(config, tokenizer, most=5).lines) == 5
    other = Run.open(make_run(sections={"data": {"valid_source": "/gone/a", "valid_target": "/gone/b"}}))
    made_up = choose_sentences(other.config(), other.tokenizer())
    assert made_up.references is None and len(made_up.lines) == 100
    assert made_up == choose_sentences(other.config(), other.tokenizer())

    given, short = tmp_path / "given.en", tmp_path / "short.de"
    given.write_text("the cat\n\nthe dog\n" + "cat " * 900 + "\n")
    short.write_text("die Katze\n")
    assert choose_sentences(config, tokenizer, given).lines == ("the cat", "the dog")
    with pytest.raises(DataError, match=r"4 lines and .* has 1"):
        choose_sentences(config, tokenizer, given, short)
    for content, where in (("\n\n", "it"), ("\n" * 800 + "the cat\n", "its first 800 lines")):
        given.write_text(content)
        with pytest.raises(UserError, match=f"no sentence of 1 to 200 pieces in {where};"):
            choose_sentences(config, tokenizer, given)


def test_a_vocabulary_that_gives_no_text_is_not_tried_for_ever(make_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = Run.open(make_run()).tokenizer()
    tried = 0

    def serves(*_: object) -> bool:
        nonlocal tried
        tried += 1
        assert tried < 10**5
        return tried % 7 == 0 and tried < limit

    monkeypatch.setattr("seq2seq.export.sentences._serves", serves)
    limit = 30
    assert len(made_up_sentences(tokenizer, 5).lines) == 4
    tried, limit = 0, 0
    with pytest.raises(ExportError, match="no text can be made up from the run's vocabulary"):
        made_up_sentences(tokenizer, 5)
    monkeypatch.setattr(type(tokenizer.source), "is_byte", lambda *_: True)
    with pytest.raises(ExportError, match="no text can be made up from the run's vocabulary"):
        made_up_sentences(tokenizer, 5)


@pytest.mark.parametrize("name", ["valid_source", "valid_target", "valid_pairs"])
def test_a_pipe_that_a_run_names_is_not_waited_for(name: str, make_run: Any, tmp_path: Path) -> None:
    (tmp_path / "a.en").write_text("the cat\n")
    os.mkfifo(tmp_path / "pipe.tsv")
    files = {"valid_source": str(tmp_path / "a.en"), "valid_target": str(tmp_path / "a.en")}
    data = {**(files if name != "valid_pairs" else {}), name: str(tmp_path / "pipe.tsv")}
    run = Run.open(make_run(sections={"data": data}))
    assert choose_sentences(run.config(), run.tokenizer()).made_up


# The numbers themselves, without the certificate


def test_the_full_distribution_is_the_models(make_run: Any, tmp_path: Path) -> None:
    """Log-probabilities of pieces that no search would choose, unknown and end-of-sentence too."""
    run = Run.open(make_run(shared=False))
    model, tokenizer, config = run.load_model(), run.tokenizer(), run.config()
    (tmp_path / "out").mkdir()
    ctranslate2_format.write_ctranslate2(tmp_path / "out", model, tokenizer, config.decoding, "float32")
    theirs = CTranslate2Model(tmp_path / "out", tokenizer, "float32")
    generator = torch.Generator().manual_seed(0)
    sources = [torch.randint(4, 60, (n,), generator=generator).tolist() for n in (1, 5, 60)]
    outputs = [[*torch.randint(4, 60, (n,), generator=generator).tolist(), 1, EOS] for n in (3, 9, 40)]
    logits, _, _ = our_logits(model, sources, outputs)
    found = theirs.log_probabilities(sources, outputs)
    for row, ids, others in zip(logits.log_softmax(2), outputs, found, strict=True):
        assert others == pytest.approx([float(row[t, i]) for t, i in enumerate(ids)], abs=1e-4)
