"""What options ask of outputs, from text to pieces: prefixes, phrases, lengths; and whether an output has it all."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property

import torch

from seq2seq.decoding.constraints import Apart, Constraint, Constraints, MinLength, NoRepeat, prefixes
from seq2seq.decoding.options import Options
from seq2seq.decoding.phrases import Banned, begins_within_a_word, ends_with_a_word, piece_texts
from seq2seq.decoding.required import Required
from seq2seq.errors import SearchOptionError
from seq2seq.text.tokenizer import EOS, PAD, UNK, Tokenizer

MOST_KEPT = 1000  # sets of required phrases


class Demands:
    """The constraints of checked options."""

    def __init__(self, options: Options, tokenizer: Tokenizer, device: torch.device) -> None:
        """Raises OptionError for phrases that the vocabulary cannot write."""
        self.options, self.tokenizer, self.device = options, tokenizer, device
        self.banned = (
            Banned([form for phrase in options.ban for form in _forms(phrase)], self.texts) if options.ban else None
        )
        masks: list[Constraint] = []
        if options.min_length:
            masks.append(MinLength(options.min_length))
        if options.no_repeat_ngram:
            masks.append(NoRepeat(options.no_repeat_ngram))
        if self.banned is not None:
            masks.append(self.banned)
        self.masks = tuple(masks)
        self._more: dict[tuple[str, ...], Demands] = {}  # these and more phrases, of some lines
        self.required: Required | None = None
        self._wanted: dict[str, tuple[int, ...]] = {}  # the pieces of each required phrase
        if options.require:
            self._require()

    @property
    def any(self) -> bool:
        """Whether there are some apart from prefixes."""
        return bool(self.masks or self.required)

    def requiring(self, phrase: str) -> Demands:
        """These, and another required phrase. Raises OptionError where it cannot be."""
        if not phrase.strip():
            raise SearchOptionError("{require.name}: a phrase is empty", "leave it out", require=(phrase,))
        if phrase in self.options.require:
            return self
        wanted = (*self.options.require, phrase)
        if wanted not in self._more:
            if len(self._more) >= MOST_KEPT:
                self._more.clear()
            _ = self.continuing, self.going_on  # once, for all of them
            more = copy(self)  # which shares them, and what is kept
            more.options = replace(self.options, require=wanted)
            more._require()
            self._more[wanted] = more
        return self._more[wanted]

    def _require(self) -> None:
        phrases = [self._pieces(" ".join(phrase.split())) for phrase in self.options.require]
        for phrase, pieces in zip(self.options.require, phrases, strict=True):
            if UNK in pieces or not pieces:
                raise SearchOptionError(
                    "{require}: the model's vocabulary cannot write it", "leave it out", require=phrase
                )
        self._wanted = dict(zip(self.options.require, map(tuple, phrases), strict=True))
        self._check_possible(phrases)
        closed = [ends_with_a_word(phrase) for phrase in self.options.require]
        self.required = Required(phrases, self.continuing, closed, self.going_on)

    def _pieces(self, text: str) -> list[int]:
        """Of a text, or of a canonically equivalent one that the vocabulary writes with fewer."""
        found = self.tokenizer.encode_target(_forms(text))
        return min((pieces for pieces in found if UNK not in pieces), key=len, default=found[0])

    def idle(self) -> list[str]:
        """Banned phrases that never come out in any case: the vocabulary cannot write them."""
        return [phrase for phrase in self.options.ban if phrase.strip() and UNK in self._pieces(phrase)]

    @cached_property
    def texts(self) -> list[bytes]:
        """What each piece of the target vocabulary is written as."""
        return piece_texts(self.tokenizer)

    @cached_property
    def going_on(self) -> frozenset[int]:
        """The same pieces as `continuing`."""
        return frozenset(self.continuing.nonzero().squeeze(1).tolist())

    @cached_property
    def continuing(self) -> torch.Tensor:
        """[V], pieces that would go on with a word before them."""
        return torch.tensor([begins_within_a_word(text) for text in self.texts]).to(self.device)

    def _check_possible(self, phrases: Sequence[Sequence[int]]) -> None:
        """Raises OptionError for required phrases that other options rule out."""
        options = self.options
        for phrase, pieces in zip(options.require, phrases, strict=True):
            if self.banned is not None and self.banned.found_in(phrase):
                raise SearchOptionError(
                    "{require} has words in it that {ban.name} rules out", "leave one of them out",
                    require=phrase, ban=options.ban,
                )  # fmt: skip
            if options.max_length is not None and len(pieces) > options.max_length:
                raise SearchOptionError(
                    f"{{require}} has {len(pieces)} pieces, more than {{max_length}}", "raise {max_length.name}",
                    require=phrase, max_length=options.max_length,
                )  # fmt: skip

    def prefix_pieces(self, prefix: str) -> list[int]:
        """The pieces of a forced beginning. Raises OptionError where the vocabulary cannot write it."""
        pieces = self._pieces(prefix)
        if UNK in pieces:
            raise SearchOptionError("{prefix}: the model's vocabulary cannot write it", "change it", prefix=prefix)
        if self.options.max_length is not None and len(pieces) > self.options.max_length:
            raise SearchOptionError(
                f"{{prefix}} has {len(pieces)} pieces, more than {{max_length}}", "raise {max_length.name}",
                prefix=prefix, max_length=self.options.max_length,
            )  # fmt: skip
        return pieces

    def constraints(
        self,
        forced: Sequence[Sequence[int]],
        new_word: Sequence[bool],
        others: Sequence[Sequence[Sequence[int]]] | None = None,
    ) -> Constraints | None:
        """For a batch, or None where nothing is asked for.

        forced: the pieces of each sentence's prefix; new_word: whether a new word begins after it. others: outputs of
        each sentence that another one is to differ from.
        """
        masks = self.masks
        if others is not None:
            masks = (*masks, self._apart(others))
        prefix = None
        if any(forced):
            prefix = prefixes(forced, new_word, self._word_starts())
        if not masks and prefix is None and self.required is None:
            return None
        return Constraints(masks, prefix, self.required)

    def _apart(self, others: Sequence[Sequence[Sequence[int]]]) -> Apart:
        most = max(len(outputs) for outputs in others)
        longest = max((len(one) for outputs in others for one in outputs), default=0)
        # A sentence with fewer outputs than another is filled up with one that nothing is ever like.
        padded = torch.full((len(others), most, longest + 1), -1, dtype=torch.int64)
        for row, outputs in zip(padded, others, strict=True):
            row[len(outputs) :, 0] = PAD
            for line, one in zip(row, outputs, strict=False):
                line[: len(one)] = torch.tensor(one, dtype=torch.int64)
        return Apart(padded.to(self.device), self.options.diversity_penalty)

    def _word_starts(self) -> torch.Tensor:
        """[V]: pieces that begin with a space, and end-of-sentence."""
        pieces = self.tokenizer.target_pieces(range(self.tokenizer.target_vocab_size))
        starts = torch.tensor([piece.startswith("▁") for piece in pieces])
        starts[EOS] = True
        return starts.to(self.device)

    def asked_for(self, pieces: Sequence[int], prefix: Sequence[int]) -> int:
        """How many pieces of an output it takes for its prefix and the required phrases that it has."""
        return max(len(prefix), self.required.end(pieces) if self.required is not None else 0)

    def unmet(self, pieces: Sequence[int], text: str) -> str | None:
        """What an output does not do that was asked for, if anything; to be said of it.

        A prefix is always there, and may stand in the way of the rest.
        """
        options = self.options
        if len(pieces) < options.min_length:
            return f"has {len(pieces)} pieces and not the {options.min_length} that are the least"
        if self.required is not None:
            met = {tuple(self.required.phrases[number]) for number in self.required.met(pieces)}
            for phrase, wanted in self._wanted.items():
                if wanted not in met:
                    return f"lacks what was required: {phrase!r:.60}"
        if self.banned is not None and self.banned.found_in(text):
            return "has what was banned, as its prefix or a required phrase has it"
        n = options.no_repeat_ngram
        grams = [tuple(pieces[i : i + n]) for i in range(len(pieces) - n + 1)] if n else []
        return None if len(grams) == len(set(grams)) else f"repeats {n} pieces in a row"

    def narrow_beam(self) -> str | None:
        """What is to be said where the beam has not a place for each piece of the required phrases, and one more."""
        needed, beam = (self.required.total + 1 if self.required is not None else 0), self.options.beam_size or 0
        if needed <= beam:
            return None
        pieces = "1 piece" if needed == 2 else f"{needed - 1} pieces"
        return (
            f"the required phrases have {pieces}, too many for a beam of {beam}: what stands beside them suffers; a "
            f"beam of {needed} or more serves well"
        )


def _forms(text: str) -> list[str]:
    """A text as it is, composed and decomposed: they look the same."""
    return list(dict.fromkeys([text, *(unicodedata.normalize(form, text) for form in ("NFC", "NFD"))]))
