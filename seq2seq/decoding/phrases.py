"""Banned phrases: whatever pieces they would be written with, they do not come out as whole words.

A piece is ruled out where the text would come to end with a banned phrase, or would have one with no letter or digit
on either side of it. So "cat" rules out "▁cat", "▁ca" + "t", and "cat" after "(", but neither "▁cats" nor "▁concat". A
longer word whose pieces begin with the whole phrase ("▁cat" + "ches") is ruled out with it: when its first piece comes
nobody knows yet whether the word goes on. In return there is always a way out, and no phrase is left at the end.
In scripts that put no spaces between words a phrase is ruled out wherever it stands, in Hangul wherever a word begins
with it, as particles may follow.

Everything is compared in bytes, since pieces may be single bytes; upper and lower case differ; spaces are one space.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence

import torch
from torch import Tensor

from seq2seq.text.scripts import has_spaces, takes_particles
from seq2seq.text.tokenizer import EOS, Tokenizer

SPACE = b" "
LONGEST_CHARACTER = 4  # bytes in UTF-8


class Banned:
    """Rules out pieces that would complete a phrase (a `constraints.Constraint`)."""

    def __init__(self, phrases: Sequence[str], pieces: Sequence[bytes]) -> None:
        """pieces: the text that each id of the vocabulary stands for, spaces included."""
        self.phrases = sorted({SPACE.join(phrase.encode().split()) for phrase in phrases} - {b""})
        self.pieces = [re.sub(b" +", SPACE, piece) for piece in pieces]
        self.longest = max(map(len, self.phrases), default=0)
        self.begun: dict[bytes, set[bytes]] = {}  # a beginning of phrases -> what remains of them
        for phrase in self.phrases:
            for count in range(len(phrase)):
                self.begun.setdefault(phrase[:count], set()).add(phrase[count:])
        # A phrase inside of a piece, behind its first character, is there whatever comes before.
        self.always = [i for i, piece in enumerate(self.pieces) if any(self._inside(piece, p) for p in self.phrases)]
        self._completing: dict[tuple[bytes, bool], list[int]] = {}

    @staticmethod
    def _inside(piece: bytes, phrase: bytes) -> bool:
        if phrase not in piece:
            return False
        places = range(1, len(piece) - len(phrase) + 1)
        return any(
            piece.startswith(phrase, at)
            and _begins_apart(piece[:at], phrase)
            and _ends_apart(phrase, piece[at + len(phrase) :])
            for at in places
        )

    def _ids(self, begun: bytes, in_word: bool) -> list[int]:
        """Pieces that complete a phrase whose beginning is there; in_word: behind a letter of a script with spaces."""
        if (begun, in_word) not in self._completing:
            remaining = [rest for rest in self.begun[begun] if not (in_word and _begins_in_word(begun + rest))]
            found = []
            for i, piece in enumerate(self.pieces):
                written = piece.lstrip(SPACE) if begun.endswith(SPACE) else piece
                if any(
                    written.startswith(rest) and _ends_apart(begun + rest, written[len(rest) :]) for rest in remaining
                ):
                    found.append(i)
            self._completing[begun, in_word] = found
        return self._completing[begun, in_word]

    def ruled_out(self, history: Sequence[int]) -> list[int]:
        """What may not follow these pieces."""
        tail = b""
        for piece in reversed(history):
            tail = self.pieces[piece] + tail
            if len(tail) > self.longest + LONGEST_CHARACTER:
                break
        tail = re.sub(b" +", SPACE, SPACE + tail)  # the beginning of a sentence is a boundary, as a space is
        found = list(self.always)
        for count in range(min(self.longest, len(tail)) + 1):
            begun = tail[len(tail) - count :]
            if begun in self.begun:
                found += self._ids(begun, _ends_in_word(tail[: len(tail) - count]))
        return found

    def mask(self, values: Tensor, histories: Tensor, sentences: Tensor) -> None:
        """values [R, V], in place; histories [R, t]."""
        for row, history in enumerate(histories.tolist()):
            if out := self.ruled_out(history):
                values[row, torch.tensor(out, device=values.device)] = -math.inf

    def found_in(self, text: str) -> bool:
        """Whether a text has a banned phrase as whole words."""
        line = SPACE.join(text.encode("utf-8", "replace").split())
        return any(
            _begins_apart(line[:at], phrase) and _ends_apart(phrase, line[at + len(phrase) :])
            for phrase in self.phrases
            for at in range(len(line) - len(phrase) + 1)
            if line.startswith(phrase, at)
        )


def _begins_apart(before: bytes, phrase: bytes) -> bool:
    """Whether a word begins with a phrase behind other text: but for two letters or digits of scripts with spaces."""
    return not (_ends_in_word(before) and _begins_in_word(phrase))


def _ends_apart(phrase: bytes, after: bytes) -> bool:
    """Whether a word may end with a phrase: no letter, digit or mark goes on with it.

    Letters of scripts without spaces are words of their own: where one ends, only the whole sentence tells. In Hangul a
    particle may follow. But a mark makes another character of the last one.
    """
    first, last = _character(after[:LONGEST_CHARACTER], 0), _character(phrase[-LONGEST_CHARACTER:], -1)
    if _is_mark(first):
        return False
    return not (_is_word(last) and _is_word(first)) or takes_particles(last)


def _ends_in_word(text: bytes) -> bool:
    return _is_word(_character(text[-LONGEST_CHARACTER:], -1))


def _begins_in_word(text: bytes) -> bool:
    return _is_word(_character(text[:LONGEST_CHARACTER], 0))


def _character(text: bytes, which: int) -> str:
    characters = text.decode("utf-8", "replace")  # half of a character comes out as a sign, which is no letter
    return characters[which] if characters else ""


def _is_word(character: str) -> bool:
    """Whether it is a letter, a digit or a mark of a script with spaces."""
    letter = character.isalnum() or character == "_" or _is_mark(character)
    return letter and has_spaces(character)


def _is_mark(character: str) -> bool:
    """Accents, and vowels in many scripts; but not the variation selectors of emoji."""
    return (
        bool(character)
        and unicodedata.category(character) in ("Mn", "Mc")
        and "VARIATION SELECTOR" not in unicodedata.name(character, "")
    )


FIRST_LEAD_BYTE = 0xC2  # of characters of several bytes; as a piece, it may begin any of them


def begins_within_a_word(piece: bytes) -> bool:
    """Whether a piece goes on with the word before it: it begins with a letter or digit of a script with spaces."""
    if len(piece) == 1 and piece[0] >= FIRST_LEAD_BYTE:
        return True
    return _begins_in_word(piece) and not takes_particles(_character(piece, 0))


def ends_with_a_word(phrase: str) -> bool:
    """Whether a phrase ends with a letter or digit of a script with spaces."""
    text = phrase.rstrip()
    return _ends_in_word(text.encode("utf-8", "replace")) and not takes_particles(text[-1])


def piece_texts(tokenizer: Tokenizer) -> list[bytes]:
    """What each piece of the target vocabulary is written as, with its spaces; nothing for special pieces."""
    processor = tokenizer.target
    texts = []
    for i, piece in enumerate(tokenizer.target_pieces(range(tokenizer.target_vocab_size))):
        if processor.is_byte(i):
            texts.append(bytes([int(piece[3:5], 16)]))
        elif i <= EOS or processor.is_control(i):
            texts.append(b"")
        else:
            texts.append(piece.replace("▁", " ").encode())
    return texts
