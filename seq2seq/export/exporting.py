"""From a finished run to a certified export folder."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from seq2seq.config import Config
from seq2seq.decoding.repetition import loop_end
from seq2seq.errors import OptionError
from seq2seq.export import ctranslate2_format, huggingface_format
from seq2seq.export.certificate import (
    Findings,
    bounds_for,
    find_differences,
    log_probability_errors,
    logit_errors,
    translate_both,
)
from seq2seq.export.errors import ExportError
from seq2seq.export.folder import CERTIFICATE, check_free, new_folder, writing
from seq2seq.export.light import FORMAT_VERSION, LightRun, check_quantization
from seq2seq.export.packages import USE_MKL, need, need_ctranslate2
from seq2seq.export.sentences import MOST_SENTENCES, Sentences, choose_sentences, made_up_sentences
from seq2seq.model.transformer import Transformer
from seq2seq.run import Run
from seq2seq.run_folder.files import file_hash, write_json
from seq2seq.text.tokenizer import EOS, Tokenizer
from seq2seq.version import __version__

To = Literal["ctranslate2", "huggingface"]
Bleu = Callable[[Sequence[str], Sequence[str], str], float]
# Texts on which tokenizers like to disagree. Marian's takes ">>xx<<" at the start of a line for a language, by design.
ODD_LINES = (
    "", " ", "  two  spaces ", "\ttab\tand\u00a0no-break", "</s> <s> <unk> <pad>", "▁ and▁this", "é e\u0301 ﬁ ½",
    "😀👩\u200d👩\u200d👧 🇩🇪", "日本語とعربى", "\u200bzero\ufeffwidth", "'' `` \" „“ — …", "1,234.56 %", "İIiı ß ẞ",
    "a" * 60, ">> quoted", "<0x41>",
)  # fmt: skip


@dataclass(frozen=True)
class Certification:
    """How an export is tried.

    source, reference: files to translate instead of the run's validation set. most: sentences at most. bleu: scores
    translations against references by a tokenisation, the run's; without it no BLEU is given. made_up: sentences are
    made up, and no file outside of the run is read.
    """

    source: Path | None = None
    reference: Path | None = None
    most: int = MOST_SENTENCES
    bleu: Bleu | None = None
    made_up: bool = False

    def sentences(self, config: Config, tokenizer: Tokenizer) -> Sentences:
        """What the export is tried on."""
        if self.made_up:
            return made_up_sentences(tokenizer, self.most)
        return choose_sentences(config, tokenizer, self.source, self.reference, self.most)


def export_run(
    run: Path,
    folder: Path,
    *,
    to: To,
    quantization: str = "float32",
    overwrite: bool = False,
    certification: Certification | None = None,
    message: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Writes an export of a run into a folder of its own and returns its certificate.

    Raises RunError where the run has no finished model; OptionError for a quantisation that there is not; ExportError
    where a package is missing, the format cannot express the model, the folder is taken or cannot be written, or the
    export does not compute what our model computes. In all these cases no folder is left. message: told what is being
    done.
    """
    certification = certification or Certification()
    folder = Path(os.path.realpath(folder))  # a link stays one, and what it names is replaced
    _check_format(to, quantization)
    check_free(folder, overwrite=overwrite)
    opened = LightRun.open(run)
    hashes = opened.hashes()  # before the weights are read: should they change meanwhile, the export is out of date
    config, tokenizer, model = opened.config, opened.tokenizer, Run.open(run).load_model()
    sentences = certification.sentences(config, tokenizer)
    bounds = bounds_for(quantization, made_up=sentences.made_up)
    with new_folder(folder, overwrite=overwrite) as temporary:
        message(f"writing {temporary}")
        with writing(folder):
            if to == "ctranslate2":
                ctranslate2_format.write_ctranslate2(temporary, model, tokenizer, config.decoding, quantization)
            else:
                huggingface_format.write_huggingface(temporary, model, tokenizer, config)
        message(f"translating {len(sentences.lines)} sentences with both ({sentences.origin})")
        if to == "ctranslate2":
            findings, details = _try_ctranslate2(temporary, model, tokenizer, config, sentences, quantization)
        else:
            findings, details = _try_huggingface(temporary, model, tokenizer, config, sentences)
        if problems := findings.problems(bounds):
            raise ExportError(f"{folder}: not exported, as it would not do what {run} does: {'; '.join(problems)}")
        certificate = {**_certificate(to, hashes, details, temporary), **findings.as_dict(bounds)}
        certificate |= _bleu(tokenizer, findings, certification.bleu, config.data.bleu_tokenize)
        with writing(folder):
            write_json(temporary / CERTIFICATE, certificate, named=folder)
    return certificate


def _check_format(to: To, quantization: str) -> None:
    if to == "ctranslate2":
        check_quantization(quantization)
        need_ctranslate2()
    elif quantization != "float32":
        raise OptionError(f"--quantization {quantization}: a Hugging Face export is float32; leave it out")
    else:
        need("transformers", "huggingface")


def _try_ctranslate2(
    folder: Path, model: Transformer, tokenizer: Tokenizer, config: Config, sentences: Sentences, quantization: str
) -> tuple[Findings, dict[str, Any]]:
    foreign = ctranslate2_format.CTranslate2Model(folder, tokenizer, quantization)
    outputs = translate_both(model, tokenizer, config.decoding, foreign, sentences.lines)
    findings = Findings(
        sentences,
        outputs,
        find_differences(model, tokenizer, outputs),
        log_probability_errors(model, outputs, foreign.log_probabilities),
    )
    computed = {
        "quantization": quantization,
        "computed_in": foreign.computes,
        "native": foreign.native,
        "processor_computes": foreign.compute_types,
        "environment": {USE_MKL: os.environ[USE_MKL]} if USE_MKL in os.environ else {},
    }
    return findings, {"computing": computed, "packages": _versions("ctranslate2")}


def _try_huggingface(
    folder: Path, model: Transformer, tokenizer: Tokenizer, config: Config, sentences: Sentences
) -> tuple[Findings, dict[str, Any]]:
    foreign = huggingface_format.HuggingFaceModel(folder, model.target_vocab_size)
    outputs = translate_both(model, tokenizer, config.decoding, foreign, sentences.lines)
    findings = Findings(
        sentences,
        outputs,
        find_differences(model, tokenizer, outputs),
        *logit_errors(model, outputs, foreign.logits),
        _tokenizer_problems(foreign, tokenizer, (*sentences.lines, *ODD_LINES), outputs.ours),
    )
    details = {
        "class": type(foreign.model).__name__,
        "tokenizer": {"class": type(foreign.tokenizer).__name__, "lines": len(sentences.lines) + len(ODD_LINES)},
        "packages": _versions("transformers", "tokenizers"),
    }
    return findings, details


def _tokenizer_problems(
    foreign: huggingface_format.HuggingFaceModel,
    tokenizer: Tokenizer,
    lines: Sequence[str],
    outputs: Sequence[Sequence[int]],
) -> tuple[str, ...]:
    """Where the exported tokenizer gives other ids, or other text for our outputs."""
    for line, ids in zip(lines, tokenizer.encode_source(list(lines)), strict=True):
        if line.startswith(">>") and "<<" in line:
            continue
        if foreign.encode(line) != [*ids, EOS]:
            return (f"its tokenizer gives other pieces for {line[:60]!r}",)
    for text, output in zip(tokenizer.decode(outputs), outputs, strict=True):
        theirs = foreign.decode(output)
        if theirs.strip() != text.strip():
            return (f"its tokenizer gives {theirs[:60]!r} for {text[:60]!r}",)
    return ()


def _certificate(to: To, hashes: dict[str, str], details: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Of an export that has passed, but for what was found: no other is kept."""
    packages = {"seq2seq": __version__, **_versions("torch", "sentencepiece"), **details.pop("packages")}
    return {
        "format_version": FORMAT_VERSION,
        "passed": True,
        "to": to,
        **details,
        "run": hashes,
        "files": {path.name: file_hash(path) for path in sorted(folder.iterdir())},
        "packages": packages,
        "python": platform.python_version(),
    }


def _bleu(tokenizer: Tokenizer, findings: Findings, bleu: Bleu | None, tokenize: str) -> dict[str, Any]:
    references, outputs = findings.sentences.references, findings.outputs
    if bleu is None or references is None:
        return {}
    texts = (_without_loops(tokenizer, outputs.sources, ids) for ids in (outputs.ours, outputs.theirs))
    ours, theirs = (bleu(lines, references, tokenize) for lines in texts)
    figures = {"ours": round(ours, 3), "theirs": round(theirs, 3), "difference": round(theirs - ours, 3)}
    return {"bleu": {**figures, "tokenize": tokenize}}


def _without_loops(
    tokenizer: Tokenizer, sources: Sequence[Sequence[int]], outputs: Sequence[Sequence[int]]
) -> list[str]:
    """Texts as `translate` gives them: cut where they run into a loop, unless the source has one."""
    kept = [
        ids[: None if loop_end(source) is not None else loop_end(ids)]
        for source, ids in zip(sources, outputs, strict=True)
    ]
    return tokenizer.decode(kept)


def _versions(*packages: str) -> dict[str, str]:
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "unknown"
    return found


def describe(certificate: dict[str, Any], folder: Path) -> str:
    """A certificate in a few lines, for people."""
    count, identical = certificate["sentences"]["count"], certificate["identical"]
    what = certificate.get("class") or f"CTranslate2, {certificate['computing']['quantization']}"
    lines = [f"{folder}: {what}, certified"]
    close = certificate["differing_at_close_choices"]
    lines.append(
        f"  greedy translations identical to the run's: {identical} of {count} ({certificate['sentences']['origin']})"
        + (f"; {close} differ{'s' if close == 1 else ''} where the choice was close" if close else "")
    )
    for name, key in (("log-probabilities", "log_probabilities"), ("logits", "logits")):
        if key in certificate:
            errors = certificate[key]
            lines.append(f"  {name} differ by at most {errors['largest']:.2g}, on average {errors['mean']:.2g}")
    if "bleu" in certificate:
        bleu = certificate["bleu"]
        figures = f"BLEU {bleu['theirs']:.2f}, the run's {bleu['ours']:.2f} ({bleu['difference']:+.2f})"
        lines.append(f"  {figures}, tokenised by {bleu['tokenize']}")
    computing = certificate.get("computing")
    if computing is not None and not computing["native"]:
        lines.append(
            f"  this processor's CTranslate2 does not compute in {computing['quantization']}, only in "
            f"{', '.join(computing['processor_computes'])}: the rounded weights were tried in "
            f"{computing['computed_in']}, the arithmetic was not"
        )
    elif computing is not None and computing["environment"] and computing["quantization"].startswith("int8"):
        (setting,) = (f"{name}={value}" for name, value in computing["environment"].items())
        lines.append(f"  computed with {setting} in the environment, which other programs may need here, too")
    return "\n".join(lines)
