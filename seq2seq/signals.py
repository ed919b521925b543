"""SIGINT (Ctrl-C), SIGTERM and SIGHUP (the terminal has gone): the first ends a command in good order, a second
at once."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

REASONS: dict[int, str] = {signal.SIGTERM: "terminated", signal.SIGHUP: "the terminal has gone"}


class Stopped(KeyboardInterrupt):
    """A signal has come. Raised where the program stands, so that everything on the way out is cleaned up."""


class Signals:
    """Raises Stopped on a signal; as a context manager, only remembers it, for a loop that asks `received`."""

    def __init__(self) -> None:
        self.number = 0  # of the signal that came
        self.raised = False
        self._gentle = self._held = False

    def install(self) -> None:
        self.number, self.raised = 0, False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # `nohup` has it ignored
            signal.signal(signal.SIGHUP, self._handle)

    def received(self) -> bool:
        return self.number != 0

    def reason(self) -> tuple[str, int]:
        """What to say at the end, and the exit code: 128 and the number, as a shell gives it."""
        return REASONS.get(self.number, "interrupted"), 128 + (self.number or signal.SIGINT)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Within it a signal waits, so that what is begun is done and counted; a second one ends at once."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
        if self.number and not self.raised:
            self.raised = True
            raise Stopped

    def __enter__(self) -> Signals:
        self._gentle = True
        return self

    def __exit__(self, *_: object) -> None:
        self._gentle = False

    def _handle(self, number: int, _frame: object) -> None:
        if self.number and number == signal.SIGHUP:
            return  # the shell and the terminal each send one
        if self.number:
            os._exit(128 + number)
        self.number = number
        if self._held:
            return
        if not self._gentle:
            self.raised = True
            raise Stopped
        with contextlib.suppress(OSError):  # there may be nobody left to tell
            # Not print: the signal may have come in the middle of one.
            os.write(2, b"\n" if os.isatty(2) else b"")  # the live display's line is not ended
            os.write(2, b"stopping after the next step, with a checkpoint; once more to stop at once\n")
