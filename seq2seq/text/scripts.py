"""Which scripts put spaces between words."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

# Those that put none there, or none between a word and its particles, as Unicode's names of their characters begin.
WITHOUT_SPACES = (
    "CJK", "HIRAGANA", "KATAKANA", "HALFWIDTH KATAKANA", "BOPOMOFO", "YI ", "THAI", "LAO", "KHMER", "MYANMAR",
    "TIBETAN", "JAVANESE", "BALINESE", "HANGUL",
)  # fmt: skip
KANA = ("HIRAGANA", "KATAKANA", "HALFWIDTH KATAKANA")
SHORT_WORD = 6.0  # letters: words of such scripts have fewer on average, where spaces stand between them


def has_spaces(character: str) -> bool:
    """Whether words of a character's script stand between spaces."""
    return not unicodedata.name(character, "").startswith(WITHOUT_SPACES)


def unspaced_script(lines: Iterable[str]) -> str | None:
    """ "kana" (Japanese), "han" (Chinese) or "other" where text is mostly of scripts without spaces and has few.

    None for text of other scripts, and where spaces have been put between the words.
    """
    letters = words = 0
    found = {"kana": 0, "han": 0, "other": 0}
    for word in (word for line in lines for word in line.split()):
        without = [character for character in word if character.isalpha() and not has_spaces(character)]
        letters += sum(map(str.isalpha, word))
        words += bool(without)
        for name in map(unicodedata.name, without):
            found["kana" if name.startswith(KANA) else "han" if name.startswith("CJK") else "other"] += 1
    total = sum(found.values())
    if 2 * total <= letters or total < SHORT_WORD * words:
        return None
    if 2 * found["other"] > total:
        return "other"
    return "kana" if 20 * found["kana"] > found["han"] else "han"  # a word of Japanese may stand in Chinese text
