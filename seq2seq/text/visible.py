"""Text in messages: what cannot be seen, or not alone, is written as its code point."""

from __future__ import annotations

import unicodedata


def quoted(text: str, most: int = 60) -> str:
    """As Python writes it, in quotes; of a mark that stands on nothing the code point. Cut to `most` characters."""
    shown: list[str] = []
    for character in repr(text):
        alone = unicodedata.category(character)[0] == "M" and (not shown or not shown[-1][-1].isalnum())
        shown.append(f"\\u{ord(character):04x}" if alone else character)
    return "".join(shown)[:most]
