"""`seq2seq diversify`: more training data out of the same."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seq2seq.commands.common import (
    BeamSize,
    LengthPenalty,
    PrecisionName,
    Threads,
    load_translator,
    option,
    parse_precision,
    seen_sources,
    tell,
    warn,
)  # fmt: skip
from seq2seq.errors import OptionError, UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from seq2seq.decoding.options import Options
    from seq2seq.decoding.translator import Translator
    from seq2seq.diversifying import Teacher, Translates
    from seq2seq.run import Run
    from seq2seq.runtime import Precision

SAMPLE, FAMILIAR = 1000, 0.5  # lines of the corpus that are looked up in what a model was trained on; the least share


def diversify(
    source: Annotated[Path, option("FILE", "The training corpus, one sentence a line.")],
    target: Annotated[Path, option("FILE", "Its translations, line by line.")],
    output: Annotated[Path, option("FOLDER", "Where files of the same names are written, not gzipped.")],
    forward: Annotated[list[Path] | None, option("RUN", "Translates the sources; repeatable.")] = None,
    backward: Annotated[
        list[Path] | None, option("RUN", "Trained the other way, translates the targets; repeatable.")
    ] = None,
    monolingual_source: Annotated[
        list[Path] | None, option("FILE", "More text in the source's language, for --forward models; repeatable.")
    ] = None,
    monolingual_target: Annotated[
        list[Path] | None, option("FILE", "More text in the target's language, for --backward models; repeatable.")
    ] = None,
    only_monolingual: Annotated[
        bool, typer.Option("--only-monolingual", help="Translate those files alone, and not the corpus.")
    ] = False,
    beam_size: BeamSize = None,
    length_penalty: LengthPenalty = None,
    n_best: Annotated[int, option("N", "Translations that each model adds of a line, at most.")] = 1,
    precision: PrecisionName = "auto",
    threads: Threads = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the files that FOLDER holds.")] = False,
) -> None:
    """Translate a training corpus with models that were trained on it, for another model to be trained on it all.

    The corpus itself comes first, but for pairs with an empty side; each --forward model adds pairs with other targets,
    each --backward model pairs with other sources. Translations that were cut or ran into loops are left out, and none
    is there twice (data diversification, arXiv 1911.01986). Files with text of one language alone, one sentence a line
    and prepared as the corpus is, are translated after it: with --monolingual-target that is back-translation (arXiv
    1511.06709). Both files appear when all is done; stopped, the same command goes on where it was.
    """
    both = [*(forward or ()), *(backward or ())]
    if not both:
        raise OptionError("name a model: --forward RUN (source to target), --backward RUN (target to source), or both")
    if len({path.resolve() for path in both}) < len(both):
        raise OptionError("a run is named twice with --forward and --backward: name each once")
    for way, models, files in (("source", forward, monolingual_source), ("target", backward, monolingual_target)):
        _check_monolingual(way, models or [], files or [], only=only_monolingual)
    precision_name = parse_precision(precision)
    from seq2seq.decoding.options import Options, check_options
    from seq2seq.diversifying import Monolingual, diversify, output_paths
    from seq2seq.run import Run

    monolingual = Monolingual(tuple(monolingual_source or ()), tuple(monolingual_target or ()), only_monolingual)
    output_paths(source, target, output, monolingual)
    options = Options(beam_size=beam_size, length_penalty=length_penalty, n_best=n_best)
    runs = {path: Run.open(path) for path in both}
    for run in runs.values():  # what is wrong is told before the first has translated for an hour
        run.load_model()
        check_options(options, run.config().decoding)
    ways = ("--forward", source), ("--backward", target)
    for paths, mine, others in ((forward, *ways), (backward, *ways[::-1])):
        for path in paths or ():
            _see_whether_it_knows(runs[path], mine, others)

    one_way, other_way = (
        [_teacher(runs[path], options, precision_name, threads) for path in paths or ()]
        for paths in (forward, backward)
    )
    with _progress() as progress:
        counts = diversify(
            source, target, output, forward=one_way, backward=other_way, monolingual=monolingual, overwrite=overwrite,
            progress=progress, tell=tell,
        )  # fmt: skip
    warn.close()
    if not counts.added:
        tell("nothing was added: see whether the models have been trained enough, and go the right way")
    print(counts.describe())


def _check_monolingual(side: str, models: list[Path], files: list[Path], *, only: bool) -> None:
    """Raises OptionError for text that no model translates, and for a model without any. side: source or target."""
    way = "--forward" if side == "source" else "--backward"
    for path in files:
        if not models:
            raise OptionError(f"--monolingual-{side} {path}: no model translates it: add {way} RUN")
        if not path.exists():
            raise UserError(f"--monolingual-{side} {path}: no such file; check the path")
    if len({path.resolve() for path in files}) < len(files):
        raise OptionError(f"--monolingual-{side}: a file is named twice: name it once")
    if only and models and not files:
        raise OptionError(
            f"--only-monolingual: {way} {models[0]} has nothing to translate: add --monolingual-{side} FILE, or leave "
            "one of the two out"
        )


def _see_whether_it_knows(run: Run, mine: tuple[str, Path], others: tuple[str, Path]) -> None:
    """Warns where a model was not trained on these sentences. Raises OptionError where it goes the other way.

    mine: the option that named it, and the file that it is to translate; others: those of the other direction.
    """
    hashes = seen_sources(run)
    if hashes is None:
        return
    (way, path), (other_way, other_path) = mine, others
    known, count = _known(hashes, path)
    if not count or known >= FAMILIAR * count:
        return
    other_known, other_count = _known(hashes, other_path)
    if other_known > max(known, FAMILIAR * other_count):
        raise OptionError(
            f"{way} {run.path}: was trained to translate sentences of {other_path}, and not of {path}: it goes the "
            f"other way; name it with {other_way}"
        )
    warn(
        f"{way} {run.path}: was trained to translate {known:,} of the first {count:,} sentences of {path}; is it the "
        "right model, and does it go that way?"
    )


def _known(hashes: dict[str, NDArray[np.int64]], path: Path) -> tuple[int, int]:
    """How many of the first sentences of a file a model was trained on, and how many those are."""
    from itertools import islice

    from seq2seq.evaluation.overlap import find_overlap
    from seq2seq.text.reading import read_lines

    lines = [line for line in islice(read_lines(path), SAMPLE) if line.strip()]
    return (find_overlap(lines, hashes["exact"], hashes["normalized"]).exact if lines else 0), len(lines)


def _teacher(run: Run, options: Options, precision: Precision, threads: int) -> Teacher:
    from seq2seq.diversifying import Teacher

    def load() -> Translates:
        tell(f"translating with {run.path}")
        return _translates(load_translator([run], precision, threads), options)

    return Teacher(str(run.path), _key(run, options, precision), load)


def _key(run: Run, options: Options, precision: Precision) -> str:
    """Of what the translations of a run depend on beside the text, but for what only rounds differently."""
    from dataclasses import asdict

    from seq2seq.run_folder.checkpoints import MODEL
    from seq2seq.run_folder.files import file_hash
    from seq2seq.runtime import choose_device, choose_precision
    from seq2seq.version import __version__

    config, device = run.config(), choose_device("auto")
    arithmetic = f"{device.type} {choose_precision(precision, device)}"
    parts = [__version__, file_hash(run.path / MODEL), run.tokenizer().content_hash(), arithmetic, asdict(options)]
    return json.dumps([*parts, config.model.model_dump(), config.decoding.model_dump()])


def _translates(translator: Translator, options: Options) -> Translates:
    def translate(lines: Iterable[str]) -> Iterator[list[str | None]]:
        for result in translator.stream(lines, options):
            yield [
                one.text if result.complete and one.ended and not one.repetition else None for one in result.hypotheses
            ]

    return translate


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    console = Console(stderr=True)
    columns = BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
