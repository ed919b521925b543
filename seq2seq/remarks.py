"""Warnings on standard error: the first of each kind, then only how many more there were."""

from __future__ import annotations

import re
import sys

MOST = 20  # of a kind, before they are only counted
KINDS = 1000  # those that come after so many others are one
# Numbers, and text that is quoted, which may have been cut; what a quote follows on a letter is an apostrophe.
_VARYING = re.compile(r"""(?<![\w-])\d[\d,]*(?![\w-])|(?<!\w)'[^']*(?:'|$)|(?<!\w)"[^"]*(?:"|$)""")


class Remarks:
    """Call it with a warning. Warnings are of one kind when nothing but numbers, or text that is quoted, differs."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[int, str]] = {}  # kind: how many, and the first that was not shown

    def __call__(self, text: str) -> None:
        kind = _VARYING.sub("0", text)
        if len(self._seen) >= KINDS and kind not in self._seen:
            kind = ""
        count, example = self._seen.get(kind, (0, ""))
        count += 1
        self._seen[kind] = count, example or (text if count > MOST else "")
        if count <= MOST:
            more = " (more like this are counted, not shown)" if count == MOST else ""
            print(f"seq2seq: {text}{more}", file=sys.stderr)

    def close(self) -> None:
        """Says how many were not shown, and begins anew."""
        for count, example in self._seen.values():
            if count > MOST:
                print(f"seq2seq: {count - MOST:,} more ({count:,} in all) were like this: {example}", file=sys.stderr)
        self._seen = {}
