"""Which text has spaces between its words."""

from __future__ import annotations

import unicodedata

import pytest

from seq2seq.text.scripts import has_spaces, unspaced_script

CHINESE = ["一个男人骑着马穿过田野。", "两只狗在草地上奔跑,互相追逐。"]
JAPANESE = ["男の人が馬に乗って野原を走っている。", "二匹の犬が草の上で遊んでいる。"]
THAI = ["ชายคนหนึ่งกำลังขี่ม้าข้ามทุ่งหญ้า", "สุนัขสองตัววิ่งเล่นบนสนามหญ้า"]


@pytest.mark.parametrize(
    ("lines", "script"),
    [
        (CHINESE, "han"),
        (JAPANESE, "kana"),
        (THAI, "other"),
        ([*CHINESE, "A man in a red shirt"], "han"),
        (["".join(CHINESE) + "ハ"], "han"),  # a letter of another script is not its own
        ([" ".join(line) for line in CHINESE], None),  # taken apart already
        (["Ein Mann reitet über ein Feld."], None),
        (["Donaudampfschifffahrtsgesellschaft"], None),
        (["한 남자가 말을 타고 들판을 지나간다."], None),
        ([unicodedata.normalize("NFD", "한 남자가 말을 타고 들판을 지나간다.")], None),
        (["我不知道。", "他在哪里?", "好的 我知道了"], "han"),
        (["二〇〇〇年的时候", "時々行きます"], "kana"),
        (["Ein Mann sagt 你好 und reitet weiter über das Feld."], None),
        (["...", "123"], None),
        ([], None),
    ],
)
def test_the_script_of_text_without_spaces_is_found(lines: list[str], script: str | None) -> None:
    assert unspaced_script(lines) == script


@pytest.mark.parametrize(
    ("character", "spaces"),
    [("a", True), ("я", True), ("猫", False), ("ฉ", False), ("에", True), ("々", False), ("๒", True)],
)
def test_scripts_with_and_without_spaces(character: str, spaces: bool) -> None:
    assert has_spaces(character) == spaces
