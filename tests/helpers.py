"""What tests of several folders share: messages of errors, an observer of trainings, pairs to copy, every output."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from seq2seq.errors import UserError
from seq2seq.model import native
from seq2seq.model.transformer import BOS, EOS, Transformer


def message_of(kind: type[UserError], work: Callable[[], object], *parts: str, pattern: str = "") -> str:
    """The message of the error of this kind that `work` raises: one line that matches and has all the parts in it."""
    with pytest.raises(kind, match=pattern) as caught:
        work()
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message, message
    return message


def write(path: Path, text: str | bytes) -> str:
    """Writes a file as it is given, line ends and all; its name."""
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
    return str(path)


def on_one_thread() -> Iterator[None]:
    """For a fixture: small models are quicker so, the more so where the machine is busy; and sums come in one order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@dataclass
class Listener:
    """An observer of a training that remembers."""

    messages: list[str] = field(default_factory=list)
    work: list[tuple[str, int, int | None]] = field(default_factory=list)
    reports: list[dict[str, Any]] = field(default_factory=list)
    validations: list[dict[str, Any]] = field(default_factory=list)

    def message(self, text: str) -> None:
        self.messages.append(text)

    def working(self, what: str, done: int = 0, total: int | None = None) -> None:
        self.work.append((what, done, total))

    def progress(self, record: Mapping[str, Any]) -> None:
        self.reports.append(dict(record))

    def validation(self, record: Mapping[str, Any]) -> None:
        self.validations.append(dict(record))


class Copies:
    """Pairs whose target is their source: one to `longest` of the pieces, at random."""

    def __init__(self, count: int, pieces: Sequence[int] | NDArray[Any], *, seed: int = 0, longest: int = 8) -> None:
        random = np.random.default_rng(seed)
        self.rows = [random.choice(pieces, size=random.integers(1, longest + 1)).astype(np.int32) for _ in range(count)]

    @property
    def source_lengths(self) -> NDArray[np.int32]:
        return np.array([len(row) for row in self.rows], dtype=np.int32)

    @property
    def target_lengths(self) -> NDArray[np.int32]:
        return self.source_lengths

    def source(self, index: int) -> NDArray[np.int32]:
        return self.rows[index]

    def target(self, index: int) -> NDArray[np.int32]:
        return self.rows[index]


def every_output(model: Transformer, source: Tensor, limit: int) -> dict[tuple[tuple[int, ...], bool], float]:
    """(pieces, ended) -> log-probability, for all outputs up to the limit of one source [1, S]."""
    longest = list(itertools.product(range(EOS + 1, model.target_vocab_size), repeat=limit))
    with torch.inference_mode():
        inputs = torch.tensor([(BOS, *pieces[:-1]) for pieces in longest])
        scores = model(source.expand(len(longest), -1), inputs).log_softmax(-1).tolist()
    found = {}
    for pieces, steps in zip(longest, scores, strict=True):
        totals = [0.0, *itertools.accumulate(step[piece] for step, piece in zip(steps, pieces, strict=True))]
        found[pieces, False] = totals[limit]
        for count in range(limit):
            found[pieces[:count], True] = totals[count] + steps[count][EOS]
    return found


@contextmanager
def kernels_of(generation: str) -> Iterator[None]:
    """Within it the compiled kernels are those of a generation of processors, or of the newest before it."""
    before = os.environ.get("SEQ2SEQ_KERNELS")
    os.environ["SEQ2SEQ_KERNELS"] = generation
    native._chosen.cache_clear()
    try:
        yield
    finally:
        os.environ.pop("SEQ2SEQ_KERNELS")
        if before is not None:
            os.environ["SEQ2SEQ_KERNELS"] = before
        native._chosen.cache_clear()


def generations() -> list[str]:
    """Those whose kernels were built and run here; none where kernels are switched off."""
    found = []
    for name, _ in native.GENERATIONS if native.available() else ():
        with kernels_of(name):
            if native.generation() == name:
                found.append(name)
    return found
