"""Which scripts put spaces between words."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

# Those that put none there, as Unicode's names of their characters begin.
WITHOUT_SPACES = (
    "CJK", "IDEOGRAPHIC", "HIRAGANA", "KATAKANA", "HALFWIDTH KATAKANA", "BOPOMOFO", "YI ", "THAI", "LAO", "KHMER",
    "MYANMAR", "TIBETAN", "TAI THAM", "TAI LE", "NEW TAI LUE", "JAVANESE", "BALINESE",
)  # fmt: skip
KANA = ("HIRAGANA", "KATAKANA", "HALFWIDTH KATAKANA")
HAN = ("CJK", "IDEOGRAPHIC")
# Letters that a word of such a script has on average where spaces stand between words: fewer than these.
SHORT_WORDS = {"han": 3.0, "kana": 3.0, "other": 6.0}


def has_spaces(character: str) -> bool:
    """Whether words of a character's script stand between spaces; digits of any are as those that we write."""
    return character.isdecimal() or not unicodedata.name(character, "").startswith(WITHOUT_SPACES)


def takes_particles(character: str) -> bool:
    """Whether words of a character's script stand between spaces together with their particles."""
    return unicodedata.name(character, "").startswith("HANGUL")


def unspaced_script(lines: Iterable[str]) -> str | None:
    """ "kana" (Japanese), "han" (Chinese) or "other" where text is mostly of scripts without spaces and has few.

    None for text of other scripts, and where spaces have been put between the words.
    """
    letters = words = 0
    found = dict.fromkeys(SHORT_WORDS, 0)
    for word in (word for line in lines for word in line.split()):
        without = [character for character in word if character.isalpha() and not has_spaces(character)]
        letters += sum(map(str.isalpha, word))
        words += bool(without)
        for name in map(unicodedata.name, without):
            found["kana" if name.startswith(KANA) else "han" if name.startswith(HAN) else "other"] += 1
    total = sum(found.values())
    script = "kana" if 20 * found["kana"] > found["han"] else "han"  # a word of Japanese may stand in Chinese text
    if 2 * found["other"] > total:
        script = "other"
    return None if 2 * total <= letters or total < SHORT_WORDS[script] * words else script
