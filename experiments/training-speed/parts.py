"""Where the time of a training step goes, measured from outside: no system's own code knows of it.

The forward pass is divided where the layers' methods return, the backward pass where the gradient of a layer's output
arrives. On a CPU every operation ends before the next begins, so that a clock is enough.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import wraps
from typing import Any

import torch
from common import Settings
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook

DATA, WAITING, OPTIMIZER = "data", "waiting for other threads", "optimizer"
ENCODER, DECODER, OUTPUT = "encoder", "decoder", "output layer and loss"


def forward(part: str) -> str:
    return f"{part}, forward"


def backward(part: str) -> str:
    return f"{part}, backward"


PARTS = (DATA, *(way(part) for part in (ENCODER, DECODER, OUTPUT) for way in (forward, backward)), WAITING, OPTIMIZER)


class PartClock:
    """Sums the seconds of each part over the timed steps.

    A lap is added to the part that it was spent on: batches and what the loop does beside them until the model is
    entered (data), source embedding to the last encoder layer (encoder), target embedding to the last decoder layer
    (decoder), from there to the end of the loss, the same ways back, and what comes after them: adding up, clipping,
    update (optimizer). Only the thread that made the clock is watched: where others train parts of the batch beside
    it, its laps and the time that it waits for them add up to the whole step.
    """

    def __init__(self, settings: Settings) -> None:
        self.first, self.last = settings.warmup_steps, settings.total_steps
        self.step = 0
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self.phase = backward(OUTPUT)
        self.thread = threading.get_ident()
        self.latest = time.perf_counter()

    def lap(self, part: str) -> None:
        """Adds the time since the last lap to a part."""
        now = time.perf_counter()
        if self.first <= self.step < self.last:
            self.seconds[part] += now - self.latest
        self.latest = now

    def watch(self, model: type, entries: Sequence[str], encoder_layer: type, decoder_layer: type) -> None:
        """Watches classes, from now on and for the rest of the process.

        entries: those methods of the model that begin a forward pass; of them and of the layers' `forward` and
        `packed`, those are watched that there are.
        """
        for name in entries:
            if hasattr(model, name):
                setattr(model, name, self._entered(getattr(model, name)))
        for layer, part in ((encoder_layer, ENCODER), (decoder_layer, DECODER)):
            for name in ("forward", "packed"):
                if hasattr(layer, name):
                    setattr(layer, name, self._layer(getattr(layer, name), part))
        for name in ("backward", "grad"):  # the first is what Tensor.backward calls
            setattr(torch.autograd, name, self._backward(getattr(torch.autograd, name)))
        for name in ("result", "exception"):
            setattr(Future, name, self._waited(getattr(Future, name)))
        register_optimizer_step_post_hook(self._optimized)

    def _watching(self) -> bool:
        return torch.is_grad_enabled() and threading.get_ident() == self.thread

    def _entered(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def watched(*arguments: Any, **options: Any) -> Any:
            if self._watching():
                self.lap(DATA)
            return function(*arguments, **options)

        return watched

    def _layer(self, function: Callable[..., Any], part: str) -> Callable[..., Any]:
        @wraps(function)
        def watched(*arguments: Any, **options: Any) -> Any:
            output = function(*arguments, **options)
            if self._watching() and isinstance(output, Tensor) and output.requires_grad:
                self.lap(forward(part))
                output.register_hook(lambda gradient: self._arrived(part))  # type: ignore[no-untyped-call]
            return output

        return watched

    def _arrived(self, part: str) -> None:
        """The gradient of a layer's output is complete: what comes after the layer is done."""
        self.lap(self.phase)
        self.phase = backward(part)

    def _backward(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def watched(*arguments: Any, **options: Any) -> Any:
            if not self._watching():
                return function(*arguments, **options)
            self.lap(forward(OUTPUT))
            self.phase = backward(OUTPUT)
            result = function(*arguments, **options)
            self.lap(self.phase)
            return result

        return watched

    def _waited(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def watched(*arguments: Any, **options: Any) -> Any:
            if not self._watching():
                return function(*arguments, **options)
            self.lap(OPTIMIZER)  # this thread's share of adding up; the way back has had its lap
            result = function(*arguments, **options)
            self.lap(WAITING)
            return result

        return watched

    def _optimized(self, *_: object) -> None:
        if threading.get_ident() != self.thread:  # another thread's share
            return
        self.lap(OPTIMIZER)
        self.step += 1

    def milliseconds_per_step(self) -> dict[str, float]:
        """Of each part. Raises RuntimeError where a part was never seen: the watched classes are others by now."""
        unseen = [part for part, seconds in self.seconds.items() if not seconds and part != WAITING]
        if unseen:
            raise RuntimeError(f"no time was seen for {'; '.join(unseen)}: the watched classes are not what trains")
        return {part: 1000 * seconds / (self.last - self.first) for part, seconds in self.seconds.items()}
