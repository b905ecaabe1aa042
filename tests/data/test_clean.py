import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medqa.data.clean import clean, normalise

MEDICAL = st.text(alphabet="0123456789.,%-+/<>~:×±μ℃高血压每次片一日、。（）mgkgL \t\u3000")


@pytest.mark.parametrize(
    ("dirty", "expected"),
    [
        ("  高血压 \t 吃什么药？　", "高血压 吃什么药？"),
        ("第一行\r\n\r\n  第二行\r第三行", "第一行\n第二行\n第三行"),
        ("血压&lt;90，&amp;nbsp;见&#x300A;说明&#12299;", "血压<90， 见《说明》"),
        ("R&ampoule &unknown; A&B", "R&ampoule &unknown; A&B"),
        ("头\u200b疼\ufeff吗\x00", "头疼吗"),
        ("每次5\x0010毫克", "每次5 10毫克"),
        ("０．５ｍｇ，一日３次。。", "０．５ｍｇ，一日３次。。"),
    ],
)
def test_clean_is_light(dirty: str, expected: str) -> None:
    assert clean(dirty) == expected


@given(MEDICAL)
def test_clean_touches_nothing_but_blanks(text: str) -> None:
    assert "".join(clean(text).split()) == "".join(text.split())
    # Digits that stood apart stay apart, and none joins another.
    assert re.findall(r"[0-9]+", clean(text)) == re.findall(r"[0-9]+", text)


@given(st.text())
def test_clean_leaves_nothing_invisible(text: str) -> None:
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\ufeff]", clean(text))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("高血压，吃什么药？", "高血压 吃什么药"),
        ("Ｘ线检查", "x-线 检查"),
        ("每次１０mg／kg。", "每次10MG/kg"),
        ("他——说：“好”", "他说好"),
        ("5－10天", "5-10天"),
        ("你好~", "你好！"),
        ("3，5天", "3、5天"),
    ],
)
def test_equal_keys(one: str, other: str) -> None:
    assert normalise(one) == normalise(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("高血压吃什么药", "低血压吃什么药"),
        ("每次1.5片", "每次15片"),
        ("每次1、5片", "每次15片"),
        ("每次1 5片", "每次15片"),
        ("1. 5mg", "1.5mg"),
        ("3-5天", "35天"),
        ("3~5天", "35天"),
        ("1:1000", "11000"),
        ("1/2片", "12片"),
        ("½片", "12片"),
        ("10⁵/L", "105/L"),
        ("10^5", "105"),
        ("①5mg", "15mg"),
        (".5mg", "5mg"),
        ("5%", "5"),
        ("5%葡萄糖", "5葡萄糖"),
        ("体温-5℃", "体温5℃"),
        ("血压>140", "血压<140"),
        ("抗体(+)", "抗体(-)"),
        ("抗体（－）", "抗体"),
        ("mg/kg", "mgkg"),
        ("38°5′", "385"),
        ("1，000", "1000"),
    ],
)
def test_keys_keep_what_changes_the_meaning(one: str, other: str) -> None:
    assert normalise(one) != normalise(other)


@given(MEDICAL)
def test_key_keeps_every_digit_and_joins_none(text: str) -> None:
    numbers = re.findall(r"[0-9]+", text)
    key = normalise(text)
    assert re.findall(r"[0-9]", key) == list("".join(numbers))
    assert all(re.search(rf"(?<![0-9]){number}(?![0-9])", key) for number in numbers)


@given(st.text())
def test_key_ignores_the_ends_blanks(text: str) -> None:
    assert normalise(f"  {text}\n") == normalise(text)
    assert "\n" not in normalise(text)
