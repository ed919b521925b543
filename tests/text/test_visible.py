"""What cannot be seen in a message is written as its code point."""

from __future__ import annotations

import pytest

from seq2seq.text.visible import quoted


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("abc", "'abc'"),
        ("\u0308", r"'\u0308'"),
        ("a \u0308", r"'a \u0308'"),
        ("a\u0308\u0301", "'a\u0308\u0301'"),  # marks on a letter are seen
        ("में", "'में'"),
        ("กี่", "'กี่'"),
        ("\U00011001", r"'\U00011001'"),
        ("\u00a0\u200b", r"'\xa0\u200b'"),
        ("x" * 80, "'" + "x" * 55 + " ..."),
    ],
)
def test_text_is_shown_so_that_it_can_be_read(text: str, shown: str) -> None:
    assert quoted(text) == shown
    assert len(quoted(text)) <= 60
