"""What sacreBLEU fetches: a time-out that it does not set itself, and its errors in one line."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

DOWNLOAD_TIMEOUT = 30.0  # seconds without an answer


@contextmanager
def download_timeout() -> Iterator[None]:
    """Connections made inside end with an OSError after DOWNLOAD_TIMEOUT seconds without an answer."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def one_line(error: BaseException) -> str:
    """An error's message without line breaks, or its type where it has none."""
    return " ".join(str(error).split()) or type(error).__name__
