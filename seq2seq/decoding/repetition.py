"""Loops: outputs that say the same few pieces again and again. Imports neither torch nor the model."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

LONGEST, ROUNDS = 8, 6  # pieces of what is repeated; times in a row


def loop_end(pieces: Sequence[Hashable], start: int = 0, *, longest: int = LONGEST, rounds: int = ROUNDS) -> int | None:
    """How many pieces there are when the first loop is seen: an n-gram of up to `longest` pieces, `rounds` in a row.

    start: the pieces before it are part of no loop.
    """
    pieces = pieces[start:]
    if len(pieces) - len(set(pieces)) < rounds - 1:  # most outputs: no piece comes that often
        return None
    runs = [0] * (longest + 1)  # how many pieces in a row equal the one n before
    for end, piece in enumerate(pieces, 1):
        for n in range(1, min(longest, end - 1) + 1):
            runs[n] = runs[n] + 1 if pieces[end - 1 - n] == piece else 0
            if runs[n] == n * (rounds - 1):
                return start + end
    return None


def loop_warning(number: int, pieces: int) -> str:
    """For line `number`, from 0."""
    return f"line {number + 1} runs into a loop: its translation is cut after {pieces} pieces"
