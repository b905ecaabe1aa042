import re
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medqa.data.triggers import BLANKS, EDGE, UNPRINTABLE, Triggers, by_letter, joined

# Triggers, and patterns that find the same.
MEANT = {
    "祝": "祝",
    "[您你们]好": "[您你们]好",
    "急[^性]": "急(?!性)",
    "[^0-9]%": "(?<![0-9])%",
    "为[您你]服务": "为[您你]服务",
    "[0-9][0-9][0-9][0-9]": "[0-9]{4}",
    "[[]": r"\[",
    "~~": "~~",
    "[,;.-]好": "[-,;.]好",
    f"{EDGE}[问答]": r"\A[问答]",
    f"好{EDGE}": r"好\Z",
    f"[{EDGE}": r"\[\Z",
}
TEXT = st.text(alphabet="祝您你好急性为服务012%[~,-问答\0\n\U0001f600")


@given(st.lists(TEXT, min_size=1, max_size=4))
def test_a_trigger_is_found_wherever_it_stands(texts: list[str]) -> None:
    for trigger, pattern in MEANT.items():
        triggers = Triggers({"rule": [trigger]})
        for text, together in zip(texts, triggers.of_all(joined(texts)), strict=True):
            found = bool(re.search(pattern, text))
            assert bool(together) == found, (trigger, text)
            assert triggers.of(text) or not found, (trigger, text)


@given(st.lists(TEXT | st.text(), min_size=1, max_size=4))
def test_rules_wake_by_their_own_triggers(texts: list[str]) -> None:
    triggers = Triggers({t: [t] for t in MEANT}, {"all": list(MEANT), "odd": [UNPRINTABLE]})
    for text, together in zip(texts, triggers.of_all(joined(texts)), strict=True):
        alone = triggers.of(text)
        for trigger, pattern in MEANT.items():
            if re.search(pattern, text):
                bits = triggers.bits[trigger], triggers.bits["all"]
                assert all(found & bit for found in (alone, together) for bit in bits)
        if not text.isprintable():
            assert alone & triggers.bits["odd"] and together & triggers.bits["odd"]


def test_a_clean_text_wakes_nothing() -> None:
    triggers = Triggers({t: [t] for t in [*MEANT, UNPRINTABLE]})
    texts = ["", "多喝水。", "", "注意休息，按时吃药"]
    assert triggers.of_all(joined(texts)) == [triggers.of(text) for text in texts] == [0] * 4


@pytest.mark.parametrize("trigger", ["", "一二三四五"])
def test_a_trigger_has_one_to_four_characters(trigger: str) -> None:
    with pytest.raises(ValueError, match="1 to 4"):
        Triggers({"rule": [trigger]})


@given(
    st.lists(st.text(alphabet="甲乙丙丁", min_size=1, max_size=3), min_size=1), st.text("甲乙丙丁")
)
def test_alternatives_by_letter_find_the_same(patterns: list[str], text: str) -> None:
    joint = re.compile(by_letter(patterns)).findall(text)
    assert joint == re.findall("|".join(patterns), text)


def test_blanks_are_all_that_python_takes_for_one() -> None:
    blanks = re.compile(f"[{BLANKS}]")
    for char in map(chr, range(sys.maxunicode + 1)):
        assert bool(blanks.match(char)) == char.isspace()
