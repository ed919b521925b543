"""Warnings of a kind are shown a few times and then counted, as who never reads standard error is stopped by them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from seq2seq.remarks import KINDS, MOST, Remarks


@pytest.mark.parametrize(
    "tell",
    [
        lambda n: f"line {n} has text that the model does not know: '{chr(0x4E00 + n)}'",
        lambda n: f"line {n} has text that the model does not know: '{chr(0x4E00 + n)} and so on without an end",
        lambda n: f"line {n}: require = '{chr(0x4E00 + n)}' cannot be written; it is translated without",
        lambda n: f'line {n}: require = "it\'s {chr(0x4E00 + n)}" cannot be written; it is translated without',
    ],
)
def test_what_is_quoted_makes_no_other_kind(tell: Callable[[int], str], capsys: pytest.CaptureFixture[str]) -> None:
    remarks = Remarks()
    for number in range(100):
        remarks(tell(number))
    remarks.close()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == MOST + 1 and lines[-1].startswith("seq2seq: 80 more (100 in all) were like this: line 20")


def test_an_apostrophe_quotes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    remarks = Remarks()
    for number in range(MOST + 1):
        remarks("the model's positions end")
        remarks(f"the model's {'ab'[number % 2]} positions end")
    remarks.close()
    told = capsys.readouterr().err
    assert told.count("the model's a positions end") == 11 and "1 more (21 in all)" in told


def test_there_are_not_any_number_of_kinds(capsys: pytest.CaptureFixture[str]) -> None:
    remarks = Remarks()
    for number in range(KINDS + 100):
        remarks("".join(chr(97 + int(digit)) for digit in str(number)))
    assert len(remarks._seen) == KINDS + 1
    assert len(capsys.readouterr().err.splitlines()) == KINDS + MOST
