"""Text that has to fit somewhere: short enough, and of characters that can be seen."""

from __future__ import annotations

from rich.cells import cell_len, set_cell_size


def shortened(text: str, most: int) -> str:
    """The text in `most` columns at most, with … for the rest of it; wide characters count twice."""
    return text if cell_len(text) <= most else set_cell_size(text, most - 1).rstrip() + "…"


def printable(text: str) -> str:
    """The text with escapes for characters that cannot be seen, such as tabs."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
