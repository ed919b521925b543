"""How to translate lines, and what comes of it: the face that every engine has. Imports neither torch nor the model."""

from __future__ import annotations

import itertools
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Literal, TypeVar

from seq2seq.config import DecodingConfig
from seq2seq.errors import OptionError, SearchOptionError, UserError
from seq2seq.text.tokenizer import UNK, Tokenizer
from seq2seq.text.visible import quoted

STREAM_LINES = 2048  # lines that are read, sorted by length and translated together
STREAM_CHARACTERS = 8_000_000  # and no more than so many characters, by a line
MOST_OUTPUTS = 1000  # beams, or translations, a line
LONGEST_LEAST = 10_000  # pieces that a translation may be asked to have at least
PAUSE = 0.02  # seconds: where the next line takes longer to come, what is there is translated
LONGEST_WAIT = 0.2  # seconds: so long lines are waited for that come one by one

SURROGATES = re.compile("[\ud800-\udfff]")  # halves of pairs: what Python makes of bytes that are not UTF-8, too

Ready = Callable[[float], bool]  # whether the next line comes within these seconds

Normalization = Literal["wu", "power"]
Item = TypeVar("Item")
Found = TypeVar("Found")


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to search. `None` takes the run's own `[decoding]` value.

    length_normalization: what log-probabilities are divided by, "wu" ((5 + |y|) / 6)^length_penalty (the paper's) or
    "power" |y|^length_penalty. n_best: hypotheses a line, at most beam_size; with sampling, independent draws.

    sample: draw instead of searching, as a function of (seed, line number); temperature, top_k (0: all), top_p and seed
    belong to sampling.

    min_length, max_length: pieces of an output, without end-of-sentence; at the maximum it is cut. prefix: every output
    begins with it. ban, require: phrases that no output has, and that every one has, as whole words. no_repeat_ngram:
    no n pieces in a row come twice; 0 is off. diverse: so many different translations a line, each kept away from those
    before it by diversity_penalty; 0 is off. alignments: of words, from attention.
    """

    beam_size: int | None = None
    length_penalty: float | None = None
    n_best: int = 1
    sample: bool = False
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 1
    length_normalization: Normalization | None = None
    min_length: int = 0
    max_length: int | None = None
    prefix: str = ""
    ban: tuple[str, ...] = ()
    require: tuple[str, ...] = ()
    no_repeat_ngram: int = 0
    diverse: int = 0
    diversity_penalty: float = 0.5
    alignments: bool = False


@dataclass(frozen=True)
class Translation:
    """One hypothesis as text. pieces: as SentencePiece writes them, `▁` for a space, without end-of-sentence.

    satisfied: the text has what was asked for: prefix, minimum length, required phrases, no banned one, no repeated
    n-gram.
    repetition: it ran into a loop, and its text is cut after six rounds; pieces and scores are of all that was found.
    alignment: (word of the source line, word of the text) pairs, counted from 0, where they were asked for.
    """

    text: str
    score: float
    log_probability: float
    pieces: tuple[str, ...]
    piece_log_probabilities: tuple[float, ...]
    ended: bool
    satisfied: bool = True
    repetition: bool = False
    alignment: tuple[tuple[int, int], ...] | None = None


@dataclass(frozen=True)
class TranslationResult:
    """The hypotheses for one line, best first. An empty line has one, which is empty.

    complete: the line was translated whole, not cut for being too long.
    """

    source: str
    hypotheses: tuple[Translation, ...]
    complete: bool = True

    @property
    def text(self) -> str:
        """The best translation."""
        return self.hypotheses[0].text


@dataclass(frozen=True)
class Score:
    """What the model thinks of a given translation.

    log_probability: of all pieces and end-of-sentence; score: over the length penalty. pieces: of the target, as
    SentencePiece writes them; piece_log_probabilities: one a piece, then end-of-sentence's. complete: nothing was cut.
    Where both sides are empty there is nothing to say, and all are 0 or empty.
    """

    source: str
    target: str
    log_probability: float
    score: float
    pieces: tuple[str, ...]
    piece_log_probabilities: tuple[float, ...]
    complete: bool = True


def unknown_remark(tokenizer: Tokenizer, number: int, line: str, ids: Sequence[int]) -> str | None:
    """What to say of a line, `number` from 1, whose pieces are not all known to the model."""
    if UNK not in ids:
        return None
    if tokenizer.says_nothing(ids):
        return f"line {number} has nothing in it that the model knows; its translation is a guess"
    unknown = " ".join(tokenizer.unknown_text(line, ids))
    return f"line {number} has text that the model does not know, and that is lost: {quoted(unknown)}"


def check_lines(lines: object) -> None:
    """Raises OptionError for one text where many are expected: its characters would be taken for lines."""
    if isinstance(lines, (str, bytes)):
        raise OptionError(f"{lines!r:.60} is one text: give a list of lines, such as [text]")
    if not hasattr(lines, "__iter__"):
        raise OptionError(f"{lines!r:.60} is no list of lines, such as [text]")


def check_list(lines: object) -> None:
    """Raises OptionError for what is no list of lines."""
    check_lines(lines)
    if not hasattr(lines, "__len__"):
        raise OptionError(f"lines are {lines!r:.60}: give a list; `stream` takes them one by one")


def text_of(value: object, what: str) -> str:
    """The value, which has to be text; halves of surrogate pairs, which no text has, become U+FFFD.

    Raises OptionError, naming it.
    """
    if not isinstance(value, str):
        raise OptionError(f"{what} is {value!r:.60}, not text")
    return value if _is_text(value) else SURROGATES.sub("\N{REPLACEMENT CHARACTER}", value)


def _is_text(value: str) -> bool:
    return value.isascii() or SURROGATES.search(value) is None


def check_options(options: Options, config: DecodingConfig) -> Options:
    """The options with the defaults of the run filled in. Raises OptionError for one that is out of range."""
    _check_types(options)
    _check_sampling(options)
    _check_constraints(options)
    beam_size = config.beam_size if options.beam_size is None else options.beam_size
    alpha = config.length_penalty if options.length_penalty is None else options.length_penalty
    normalization = options.length_normalization or config.length_normalization
    if not 1 <= options.n_best <= MOST_OUTPUTS:
        raise SearchOptionError(f"{{n_best}} must be from 1 to {MOST_OUTPUTS}", n_best=options.n_best)
    if not 1 <= beam_size <= MOST_OUTPUTS:
        raise SearchOptionError(f"{{beam_size}} must be from 1 to {MOST_OUTPUTS}", beam_size=beam_size)
    if not options.sample and options.n_best > beam_size:
        raise SearchOptionError(
            "{n_best} is more than {beam_size}: raise {beam_size.name}", n_best=options.n_best, beam_size=beam_size
        )
    if not 0 <= alpha <= 10:
        raise SearchOptionError("{length_penalty} must be from 0 to 10", length_penalty=alpha)
    if normalization not in ("wu", "power"):
        raise SearchOptionError("{length_normalization}: choose wu or power", length_normalization=normalization)
    return replace(options, beam_size=beam_size, length_penalty=alpha, length_normalization=normalization)


def _check_types(options: Options) -> None:
    """Python takes whatever it is given, and would say so far from here, or not at all."""
    if not isinstance(options, Options):
        raise OptionError(f"options are {options!r:.60}: give Options(beam_size=...)")
    expected = (
        ("a whole number", Integral, ("n_best", "top_k", "seed", "min_length", "no_repeat_ngram", "diverse")),
        ("a number", Real, ("temperature", "top_p", "diversity_penalty")),
        ("True or False", bool, ("sample", "alignments")),
        ("text", str, ("prefix",)),
        ("a whole number or None", (Integral, type(None)), ("beam_size", "max_length")),
        ("a number or None", (Real, type(None)), ("length_penalty",)),
    )
    for what, kind, names in expected:
        for name in names:
            value = getattr(options, name)
            if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
                raise SearchOptionError(f"{{{name}}}: has to be {what}", **{name: value})
    for name in ("ban", "require"):
        phrases = getattr(options, name)
        if not isinstance(phrases, (tuple, list)) or not all(isinstance(phrase, str) for phrase in phrases):
            raise SearchOptionError(f"{{{name}}}: has to be phrases, in a list or tuple", **{name: phrases})
    for name, texts in (("prefix", (options.prefix,)), ("ban", options.ban), ("require", options.require)):
        if not all(map(_is_text, texts)):
            raise SearchOptionError(f"{{{name}.name}} has bytes that are not UTF-8, or no text", **{name: texts})


def _check_sampling(options: Options) -> None:
    """What belongs to sampling, and what does not."""
    if not 0 < options.temperature < math.inf:
        raise SearchOptionError("{temperature} must be above 0", temperature=options.temperature)
    if options.top_k < 0:
        raise SearchOptionError("{top_k} must be 0 (all pieces) or more", top_k=options.top_k)
    if not 0 < options.top_p <= 1:
        raise SearchOptionError("{top_p} must be above 0 and at most 1", top_p=options.top_p)
    if not 0 <= options.seed < 2**63:
        raise SearchOptionError("{seed} must be from 0 to 2^63 - 1", seed=options.seed)
    if not options.sample:
        for name in ("temperature", "top_k", "top_p", "seed"):
            if (value := getattr(options, name)) != getattr(Options, name):
                raise SearchOptionError(
                    f"{{{name}}} changes what is drawn, and nothing is: add {{sample.name}}",
                    **{name: value, "sample": True},
                )
        return
    for name in ("beam_size", "require", "diverse"):
        if (value := getattr(options, name)) != getattr(Options, name):
            option = f"{{{name}.name}}" if isinstance(value, tuple) else f"{{{name}}}"
            raise SearchOptionError(
                f"{option} belongs to a search, and {{sample.name}} draws: choose one of them",
                **{name: value, "sample": True},
            )


def _check_constraints(options: Options) -> None:
    """Lengths, phrases and alternatives."""
    if not 0 <= options.min_length <= LONGEST_LEAST:
        raise SearchOptionError(f"{{min_length}} must be from 0 to {LONGEST_LEAST}", min_length=options.min_length)
    if options.max_length is not None and options.max_length < max(1, options.min_length):
        least = "{min_length}" if options.min_length > 1 else "1"
        raise SearchOptionError(
            "{max_length} must be at least " + least, max_length=options.max_length, min_length=options.min_length
        )
    if options.no_repeat_ngram < 0:
        raise SearchOptionError("{no_repeat_ngram} must be 0 (off) or more", no_repeat_ngram=options.no_repeat_ngram)
    for name, phrases in (("ban", options.ban), ("require", options.require)):
        if any(not phrase.strip() for phrase in phrases):
            raise SearchOptionError(f"{{{name}.name}}: a phrase is empty", **{name: phrases})
    if options.diverse < 0 or options.diverse == 1:
        raise SearchOptionError("{diverse} must be 2 or more (0: off)", diverse=options.diverse)
    if options.diverse > MOST_OUTPUTS:
        raise SearchOptionError(f"{{diverse}} must be at most {MOST_OUTPUTS}", diverse=options.diverse)
    if options.diverse and options.n_best != 1:
        raise SearchOptionError(
            "{n_best} and {diverse} both say how many translations a line has: choose one of them",
            n_best=options.n_best, diverse=options.diverse,
        )  # fmt: skip
    if not 0 <= options.diversity_penalty < math.inf:
        raise SearchOptionError("{diversity_penalty} must be 0 or more", diversity_penalty=options.diversity_penalty)


def in_windows(
    items: Iterable[Item],
    work: Callable[[list[Item], int], Iterable[Found]],
    ready: Ready | None = None,
    first: int = 0,
) -> Iterator[Found]:
    """Works on lines, or pairs of them, as they come, a few thousand at a time: work(items, number of the first).

    What was read before an item that cannot be read is worked on first, and so is what came before a pause, which
    `ready` tells of; without it there are none. first: the number of the first that is worked on.
    """
    numbered = iter(items)
    start = first
    next(itertools.islice(numbered, first, first), None)
    failure: UserError | None = None
    while failure is None:
        window: list[Item] = []
        try:
            window.extend(_next_window(numbered, ready))
        except UserError as error:
            failure = error
        if not window:
            break
        yield from work(window, start)
        start += len(window)
    if failure is not None:
        raise failure


def _next_window(items: Iterator[Item], ready: Ready | None) -> Iterator[Item]:
    """The next STREAM_LINES items, fewer where they are long: a window of lines of a megabyte would be gigabytes."""
    characters = 0
    until: float | None = None
    for item in itertools.islice(items, STREAM_LINES):
        yield item
        characters += _characters(item)
        if characters > STREAM_CHARACTERS:
            return
        if ready is not None:
            now = time.monotonic()
            until = now + LONGEST_WAIT if until is None else until
            if not ready(max(0.0, min(PAUSE, until - now))):
                return


def _characters(item: object) -> int:
    return sum(map(_characters, item)) if isinstance(item, (tuple, list)) else len(str(item))
