"""`seq2seq score`: how probable translations are."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from seq2seq.commands.common import (
    LengthNormalization,
    LengthPenalty,
    PrecisionName,
    Threads,
    load_translator,
    option,
    parse_precision,
)
from seq2seq.errors import OptionError


def score(
    run: Annotated[Path, typer.Argument(metavar="RUN", hidden=True)],
    source: Annotated[Path, option("FILE", "Sentences, one a line.")],
    target: Annotated[Path, option("FILE", "Their translations, line by line.")],
    length_penalty: LengthPenalty = None,
    length_normalization: LengthNormalization = None,
    format_: Annotated[str, option("text|jsonl", "Text, or JSON objects with every piece.", "--format")] = "text",
    ensemble: Annotated[list[Path] | None, option("RUN", "Another run to judge with; repeatable.")] = None,
    precision: PrecisionName = "fp32",
    threads: Threads = 0,
) -> None:
    """Score given translations, one sentence a line: how probable the model finds them.

    RUN is a run folder with a trained model. Text output is `score TAB log-probability TAB pieces`, the score being the
    log-probability over the length penalty, as `translate` ranks by; pieces include end-of-sentence.
    """
    if format_ not in ("text", "jsonl"):
        raise OptionError(f"--format {format_}: choose text or jsonl")
    precision_name = parse_precision(precision)
    from seq2seq.decoding.options import Options
    from seq2seq.run import Run
    from seq2seq.text.reading import aligned_files

    options = Options(length_penalty=length_penalty, length_normalization=length_normalization)  # type: ignore[arg-type]
    if source.is_file() and target.is_file():  # pipes are read once
        for _ in aligned_files(source, target):
            pass
    translator = load_translator([Run.open(one) for one in (run, *(ensemble or ()))], precision_name, threads)
    pairs = aligned_files(source, target)
    for number, found in enumerate(translator.score_stream(pairs, options)):
        count = len(found.piece_log_probabilities)
        if format_ == "text":
            print(f"{found.score:.4f}\t{found.log_probability:.4f}\t{count}", flush=True)
            continue
        record = {"line": number, **asdict(found), "num_pieces": count}
        print(json.dumps(record, ensure_ascii=False), flush=True)
