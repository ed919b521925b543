"""`seq2seq export`: a trained model for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from seq2seq.commands.common import (
    Threads,
    option,
    tell,
)
from seq2seq.errors import OptionError


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", hidden=True)],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", hidden=True)],
    to: Annotated[str, option("ctranslate2|huggingface", "The program that the model is for.")],
    quantization: Annotated[
        str | None, option("NAME", "With ctranslate2: float32, int8, int8_float32, int16, float16, bfloat16, ...")
    ] = None,
    certify_source: Annotated[
        Path | None, option("FILE", "Sentences to try it on; by default from the run's validation set.")
    ] = None,
    certify_reference: Annotated[Path | None, option("FILE", "Their translations by people, for BLEU.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the export that FOLDER holds.")] = False,
    threads: Threads = 0,
) -> None:
    """Write a trained model into FOLDER for another program, and certify that it translates as the run does.

    RUN is a run folder with a trained model. Held-out sentences are translated with both; certificate.json in FOLDER
    says what was compared and found. Where outputs differ, nothing is written.
    """
    if to not in ("ctranslate2", "huggingface"):
        raise OptionError(f"--to {to}: choose ctranslate2 or huggingface")
    if certify_reference is not None and certify_source is None:
        raise OptionError("--certify-reference goes with --certify-source: give both")
    from seq2seq.evaluation.metrics import corpus_bleu
    from seq2seq.export.exporting import Certification, describe, export_run
    from seq2seq.runtime import set_up_cpu

    set_up_cpu(threads)
    certificate = export_run(
        run,
        folder,
        to=to,  # type: ignore[arg-type]
        quantization=quantization or "float32",
        overwrite=overwrite,
        certification=Certification(certify_source, certify_reference, bleu=corpus_bleu),
        message=tell,
    )
    print(describe(certificate, folder))
