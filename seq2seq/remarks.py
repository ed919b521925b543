"""Warnings on standard error: the first of each kind, then only how many more there were."""

from __future__ import annotations

import re
import sys

MOST = 20  # of a kind, before they are only counted
_NUMBERS = re.compile(r"\d[\d,]*")


class Remarks:
    """Call it with a warning. Two warnings are of one kind when nothing but their numbers differs."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def __call__(self, text: str) -> None:
        kind = _NUMBERS.sub("...", text)
        count = self._counts[kind] = self._counts.get(kind, 0) + 1
        if count <= MOST:
            print(f"seq2seq: {text}", file=sys.stderr)
        if count == MOST:
            print("seq2seq: more like the last one are counted, and not shown", file=sys.stderr)

    def close(self) -> None:
        """Says how many were not shown, and begins anew."""
        for kind, count in self._counts.items():
            if count > MOST:
                print(f"seq2seq: {count - MOST:,} more like this: {kind}", file=sys.stderr)
        self._counts = {}
