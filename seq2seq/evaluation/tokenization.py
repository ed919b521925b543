"""sacreBLEU's tokenisations: which of them a language usually has, and whether one can be had here."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice

from seq2seq.config import ConfigError
from seq2seq.evaluation.downloads import download_timeout, one_line
from seq2seq.text.errors import DataError
from seq2seq.text.scripts import unspaced_script

# Codes of three letters, for the languages that sacreBLEU knows by two (ISO 639-2 and 639-3).
TWO_LETTERS = {"zho": "zh", "chi": "zh", "cmn": "zh", "jpn": "ja", "kor": "ko"}
BY_SPACES = ("13a", "intl", "none")  # take text apart at spaces and punctuation
SUITABLE = {  # by script, see `unspaced_script`
    "han": "choose zh",
    "kana": "choose ja-mecab, or char",
    "other": "choose char",
}
ENOUGH_LINES = 1000  # to know the script of a text


def check_tokenize(tokenize: str, subject: str = "") -> None:
    """Raises ConfigError (a ValueError), naming the choices, for a tokenisation that sacreBLEU does not have.

    subject: what the message begins with: the option or setting and its value.
    """
    from sacrebleu.metrics.bleu import BLEU

    if tokenize not in BLEU.TOKENIZERS:
        close = difflib.get_close_matches(tokenize, BLEU.TOKENIZERS, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        raise ConfigError(
            f"{_subject(tokenize, subject)}: not one of sacreBLEU's{hint}; choose from {', '.join(BLEU.TOKENIZERS)}"
        )


def try_tokenize(tokenize: str, subject: str = "") -> None:
    """Raises ConfigError or DataError for a tokenisation that cannot be had: its package or its model is missing."""
    from sacrebleu.metrics.bleu import BLEU

    with tokenizer_errors(tokenize, subject):
        BLEU(tokenize=tokenize, force=True)


@contextmanager
def tokenizer_errors(tokenize: str, subject: str = "") -> Iterator[None]:
    """Within it sacreBLEU fetches a tokeniser, in bounded time, and its errors are ConfigError or DataError."""
    check_tokenize(tokenize, subject)
    try:
        with download_timeout():
            yield
    except (OSError, SystemExit) as error:  # sacreBLEU ends the program where a download is not what it should be
        raise DataError(
            f"{_subject(tokenize, subject)}: needs a model that cannot be fetched ({one_line(error)}); check the "
            "network, or choose another tokenisation"
        ) from None
    except (ImportError, RuntimeError) as error:
        raise ConfigError(f"{_subject(tokenize, subject)}: cannot be used here: {one_line(error)}") from None


def _subject(tokenize: str, subject: str) -> str:
    return subject or f"tokenize = {tokenize!r}"


def usual_tokenize(target_language: str) -> str:
    """The tokenisation that sacreBLEU takes for a language (an ISO code such as "zh") where nobody names another."""
    from sacrebleu.metrics.bleu import BLEU

    language = target_language.lower().replace("_", "-").split("-")[0]
    return str(BLEU._TOKENIZER_MAP.get(TWO_LETTERS.get(language, language), "13a"))


def tokenize_remark(tokenize: str, target_language: str, references: Iterable[str] = ()) -> str | None:
    """What is to be said of 13a for a language that sacreBLEU tokenises in another way, or of text without spaces."""
    usual = usual_tokenize(target_language)
    if tokenize in BY_SPACES and (script := unspaced_script(islice(references, ENOUGH_LINES))) is not None:
        return (
            f"BLEU is tokenised by {tokenize}, for which text without spaces between words, as the references are, is "
            f"a few long words: it will be near 0 and tell nothing; {SUITABLE[script]}"
        )
    if tokenize == "13a" and usual != "13a":
        return (
            f"BLEU is tokenised by 13a; for {target_language} sacreBLEU takes {usual}, and published figures are not "
            "comparable with this one"
        )
    return None
