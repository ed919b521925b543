"""What a person sees while a model trains, on standard error: a live line on a terminal, plain lines elsewhere; and,
when it is done, what came of it and what to do with it."""

from __future__ import annotations

import os
import shlex
import time
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column

if TYPE_CHECKING:
    from seq2seq.config import Config
    from seq2seq.stages.finishing import Outcome


DIRECTIONS = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
WIDE = 96  # columns of a terminal that has room for all of the live line
SILENCE = 10  # seconds after which a log, too, is told what is being prepared
LONG_SILENCE = 60  # and of the same once more


class TrainingProgress:
    """Shows what is prepared; then step, loss, target tokens a second, learning rate, time left and validation BLEU.

    The time left is by the trainer's own clock, which knows of a run's earlier sittings. Use it as a context manager.
    quiet: only validations and messages.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.console = Console(stderr=True, highlight=False, emoji=False, soft_wrap=True)
        self.quiet = quiet
        self._bleu: list[str] = []
        self._progress = Progress(
            TextColumn("{task.fields[work]}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=None, table_column=Column(ratio=1, max_width=24)),  # gives way on a narrow terminal
            TextColumn("{task.fields[numbers]}", table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[left]}", table_column=Column(no_wrap=True)),
            console=self.console,
            transient=True,
            refresh_per_second=4,
            expand=True,
            disable=quiet or not self.console.is_terminal,
        )
        self._task = self._progress.add_task("", total=None, work="", numbers="", left="", visible=False)
        self._work, self._patience = "", SILENCE
        self._told = time.monotonic()

    def __enter__(self) -> TrainingProgress:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def message(self, text: str) -> None:
        self.console.print(text, markup=False)
        self._told = time.monotonic()

    def working(self, what: str, done: int = 0, total: int | None = None) -> None:
        count = f"{done:,}" + (f" of {total:,}" if total else "") + " pairs"
        self._progress.tasks[0].total = total  # to `update` None is as it was
        self._progress.update(
            self._task, completed=done, work=what, numbers=count if done else "", left="", visible=True
        )
        if what != self._work:
            self._work, self._patience = what, SILENCE
            self._progress.refresh()  # it may leave no time for the display
        if self._progress.disable and not self.quiet and time.monotonic() - self._told > self._patience:
            self.message(f"{what}: {count}" if done else what)
            self._patience = LONG_SILENCE

    def progress(self, record: Mapping[str, Any]) -> None:
        horizon, step, left = record["horizon"], record["step"], f"{_clock(record['time_left'])} left"
        steps = f"{step:,}" + (f"/{horizon:,}" if horizon else "")
        speed, rate = f"{record['target_tokens_per_second']:,} tokens/s", f"lr {record['learning_rate']:.2e}"
        parts = [f"loss {_loss(record['nll'])}", speed, rate, *self._bleu]
        if not self._progress.disable and self.console.width < WIDE:
            parts.remove(rate)
        numbers = "  ".join(parts)
        if self._progress.disable and not self.quiet:
            self.message(f"step {steps}  {numbers}  {left}")
        self._progress.tasks[0].total = horizon
        self._progress.update(
            self._task, completed=step, work=f"step {steps}", numbers=numbers, left=left, visible=True
        )

    def validation(self, record: Mapping[str, Any]) -> None:
        bleu = record["valid_bleu"]
        text = f"step {record['step']:,}  validation loss {record['valid_loss']:.3f}"
        if bleu is not None:
            self._bleu = [f"BLEU {bleu:.1f}"]
            text += f"  BLEU {bleu:.2f}"
        self.message(text)


@contextmanager
def counted_lines() -> Iterator[Callable[[int], None]]:
    """Shows on a terminal's standard error how many lines are done; what it gives is told their number."""
    begun = time.monotonic()
    with Progress(
        TextColumn("{task.description}"),
        console=Console(stderr=True, highlight=False, emoji=False, soft_wrap=True),  # warnings go through it
        transient=True,
        refresh_per_second=2,
        redirect_stdout=False,  # which gets the translations
    ) as progress:
        task = progress.add_task("0 lines")

        def count(done: int) -> None:
            seconds = time.monotonic() - begun
            progress.update(task, description=f"{done:,} lines in {_clock(seconds)}")

        yield count


def _loss(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _clock(seconds: float | None) -> str:
    if seconds is None:
        return "-:--"
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def describe_outcome(outcome: Outcome, config: Config) -> str:
    """The test score, examples, and the next commands, ready to be copied."""
    lines = [] if outcome.test_bleu is None else [f"test BLEU {outcome.test_bleu:.2f}"]
    for example in outcome.examples:
        lines += ["", f"source       {_printable(example.source)}", f"translation  {_printable(example.translation)}"]
        lines += [f"reference    {_printable(example.reference)}"]
    folder, data = shlex.quote(str(outcome.run.path)), config.data
    sentence = shlex.quote(_printable(outcome.sentence or "..."))
    source, reference = (shlex.quote(_near(path)) for path in (data.test_source, data.test_target))
    tokenize = f" --tokenize {data.bleu_tokenize}" if data.bleu_tokenize != "13a" else ""
    lines += ["", f"The model is in {outcome.run.path}. Next:", f"  echo {sentence} | seq2seq translate {folder}"]
    lines += [f"  seq2seq explain {folder} {sentence}"]
    lines += [f"  seq2seq benchmark {folder} --source {source} --reference {reference}{tokenize}"]
    return "\n".join(lines)


def _printable(text: str) -> str:
    """Text of a corpus without what would steer a terminal: controls, other directions, line separators."""
    plain = text.replace("\t", " ")
    return "".join(
        "\N{REPLACEMENT CHARACTER}" if one in DIRECTIONS or unicodedata.category(one) in ("Cc", "Zl", "Zp") else one
        for one in plain
    )


def _near(path: str) -> str:
    """A path as one would type it here; something to fill in where there is none."""
    relative = os.path.relpath(path) if path else "FILE"
    return path if relative.startswith("..") else relative
