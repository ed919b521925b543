"""What stands in the files of an export, and what neither program can have."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import torch

from seq2seq.export import ctranslate2_format, huggingface_format
from seq2seq.export.errors import ExportError
from seq2seq.export.exporting import Certification, export_run
from seq2seq.export.huggingface_format import HuggingFaceModel
from seq2seq.recipe import build_config
from seq2seq.run import Run
from seq2seq.run_folder.weights import build_model
from seq2seq.text.tokenizer import PAD, Tokenizer


def write_huggingface(run: Run, folder: Path) -> None:
    folder.mkdir()
    huggingface_format.write_huggingface(folder, run.load_model(), run.tokenizer(), run.config())


@pytest.mark.parametrize("beam_size", [1, 3])
def test_the_search_of_the_run_stands_in_a_hugging_face_export(beam_size: int, make_run: Any, tmp_path: Path) -> None:
    decoding = {"beam_size": beam_size, "length_penalty": 0.7, "max_source_length": 40, "max_extra_length": 12}
    data = {"max_source_length": 20, "max_target_length": 30}
    run = make_run(sections={"decoding": decoding, "data": data})
    export_run(run, tmp_path / "out", to="huggingface", certification=Certification(most=3))
    search = json.loads((tmp_path / "out" / "generation_config.json").read_text(encoding="utf-8"))
    # transformers refuses a penalty where there is one beam, and then has none.
    assert (search["num_beams"], search.get("length_penalty")) == (beam_size, 0.7 if beam_size > 1 else None)
    assert search["max_new_tokens"] == 30 + 12
    tokenizer = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert tokenizer["model_max_length"] == 40 + 1
    assert HuggingFaceModel(tmp_path / "out", 60).tokenizer.model_max_length == 41


def test_pieces_that_only_fill_up_a_vocabulary_have_no_probability(make_run: Any, tmp_path: Path) -> None:
    run = Run.open(make_run(shared=False, norm="pre"))
    write_huggingface(run, tmp_path / "out")
    size = run.tokenizer().target_vocab_size
    theirs = HuggingFaceModel(tmp_path / "out", size).model
    with torch.inference_mode():
        logits = theirs(input_ids=torch.tensor([[5, 6, 3]]), decoder_input_ids=torch.tensor([[2, 7]])).logits
    assert logits.shape[2] == run.tokenizer().source_vocab_size > size
    probabilities = logits.softmax(2)
    assert probabilities[..., size:].max() == 0.0 and bool(logits.log_softmax(2).isfinite().all())
    assert theirs.final_logits_bias[:, :size].abs().max() == 0.0


def test_long_lines_are_encoded_without_a_warning(
    make_run: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = Run.open(make_run(sections={"decoding": {"max_source_length": 2}}))
    write_huggingface(run, tmp_path / "out")
    theirs = HuggingFaceModel(tmp_path / "out", 60)
    capfd.readouterr()
    assert len(theirs.encode("the cat sees the dog")) > 3
    assert capfd.readouterr() == ("", "")


# Names of pieces


def learn(words: str, **names: str) -> bytes:
    """A SentencePiece model with other names of special pieces."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([words] * 9), model_writer=written, model_type="bpe", vocab_size=60,
        hard_vocab_limit=False, minloglevel=2, pad_id=PAD, unk_id=1, bos_id=2, eos_id=3, **names,
    )  # fmt: skip
    return written.getvalue()


@pytest.mark.parametrize("name", ["pad", "unk", "bos", "eos"])
def test_a_special_piece_of_two_names_is_refused(name: str) -> None:
    config = build_config({"model": {"d_model": 8, "num_heads": 2, "d_ff": 8}, "tokenizer": {"shared": False}})
    tokenizer = Tokenizer(learn("the cat sees"), learn("die Katze sieht", **{f"{name}_piece": "<other>"}))
    with pytest.raises(ExportError, match=r"the source tokenizer calls piece \d '.*', the target tokenizer '<other>'"):
        huggingface_format.check_expressible(config, tokenizer)
    model = build_model(config, tokenizer)
    if name in ("unk", "eos"):  # CTranslate2 has the two others of one side only
        with pytest.raises(ExportError, match=r"the target tokenizer '<other>': CTranslate2 has one name for both"):
            ctranslate2_format.build_spec(model, tokenizer, config.decoding)
    else:
        ctranslate2_format.build_spec(model, tokenizer, config.decoding)


@pytest.mark.parametrize("error", [ValueError("no\n  such type"), RuntimeError("no such type")])
@pytest.mark.parametrize("step", ["validate", "optimize"])
def test_what_ctranslate2_refuses_is_told_in_one_line(
    step: str, error: Exception, make_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ctranslate2.specs import transformer_spec

    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(transformer_spec.TransformerSpec, step, refuse)
    with pytest.raises(ExportError, match=r"^CTranslate2 refuses the model: no such type$"):
        export_run(make_run(), tmp_path / "out", to="ctranslate2")
