"""`seq2seq diversify`: more training data out of the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from seq2seq.commands.common import (
    BeamSize,
    LengthPenalty,
    PrecisionName,
    Threads,
    load_translator,
    option,
    parse_precision,
    tell,
)
from seq2seq.errors import OptionError


def diversify(
    source: Annotated[Path, option("FILE", "The training corpus, one sentence a line.")],
    target: Annotated[Path, option("FILE", "Its translations, line by line.")],
    output: Annotated[Path, option("FOLDER", "Where files of the same names are written.")],
    forward: Annotated[list[Path] | None, option("RUN", "Translates the sources; repeatable.")] = None,
    backward: Annotated[
        list[Path] | None, option("RUN", "Trained the other way, translates the targets; repeatable.")
    ] = None,
    beam_size: BeamSize = None,
    length_penalty: LengthPenalty = None,
    precision: PrecisionName = "auto",
    threads: Threads = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the files that FOLDER holds.")] = False,
) -> None:
    """Translate a training corpus with models that were trained on it, for another model to be trained on it all.

    The corpus itself comes first; each --forward model adds pairs with other targets, each --backward model pairs with
    other sources. Needs at least one of them. Nothing but the corpus is used (data diversification, arXiv 1911.01986).
    """
    if not forward and not backward:
        raise OptionError("name a model: --forward RUN (source to target), --backward RUN (target to source), or both")
    precision_name = parse_precision(precision)
    from seq2seq.decoding.options import Options, check_options
    from seq2seq.diversifying import Translates, diversify, output_paths
    from seq2seq.run import Run

    output_paths(source, target, output)
    options = Options(beam_size=beam_size, length_penalty=length_penalty)
    runs = {path: Run.open(path) for path in (*(forward or ()), *(backward or ()))}
    for run in runs.values():  # what is wrong is told before the first has translated for an hour
        run.load_model()
        check_options(options, run.config().decoding)

    def loader(path: Path) -> Callable[[], Translates]:
        def load() -> Translates:
            tell(f"translating with {path}")
            translator = load_translator([runs[path]], precision_name, threads)
            return lambda lines: (result.text for result in translator.stream(lines, options))

        return load

    one_way, other_way = ([loader(path) for path in paths or ()] for paths in (forward, backward))
    counts = diversify(source, target, output, forward=one_way, backward=other_way, overwrite=overwrite)
    print(counts.describe())
