"""Text in messages: what cannot be seen, or not alone, is written as its code point."""

from __future__ import annotations

import unicodedata


def quoted(text: str, most: int = 60) -> str:
    """As Python writes it, in quotes; of a mark that stands on nothing the code point. Cut to `most` characters."""
    shown: list[str] = []
    stands = False  # whether there is a letter before, or one with marks
    for character in repr(text):
        mark = unicodedata.category(character)[0] == "M"
        alone = mark and not stands
        code = ord(character)
        shown.append((f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}") if alone else character)
        stands = character.isalnum() or (mark and stands)
    written = "".join(shown)
    return written if len(written) <= most else f"{written[: most - 4]} ..."
