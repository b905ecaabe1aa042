import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medqa.data import normal
from medqa.data.clean import AFTER, HARD
from medqa.data.normal import canonical, keys_of, normalise
from medqa.data.triggers import joined

MEDICAL = st.text(
    alphabet="0123456789.,%-+/<>~:×±μ℃高血压每次片一日、。（）mgkgL \t\u3000㐀é\u0301"
)


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


@given(st.one_of(MEDICAL, st.text(), st.text(alphabet="高血压吃1.5-ab,。 ")))
def test_the_key_run_by_run_is_the_key_of_the_whole(text: str) -> None:
    assert normalise(text) == normal._folded(text)


def test_traditional_characters_keep_a_key_of_their_own() -> None:
    assert normalise("頭痛吃什麼藥") != normalise("头痛吃什么药")
    assert normalise("頭痛") == unicodedata.normalize("NFKC", "頭痛")


@pytest.mark.parametrize(
    "variant",
    [
        "高血压患者吃什么药好",
        "你好，高血压患者吃什么药好？",
        "医生您好！请问高血压患者吃什么药好呢？谢谢医生",
        "想问一下，高血压患者到底吃什么药好啊",
        "我想咨询一下高血压患者的话吃什么药好？急急急",
        "请问一下医生高血压患者究竟吃什么药好？求专家解答，万分感谢！",
    ],
)
def test_canonical_is_the_same_for_courtesies_and_fillers(variant: str) -> None:
    assert canonical(variant) == "高血压患者吃什么药好"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("吗啡的用量", "啡的用量"),
        ("高血压吃什么药", "低血压吃什么药"),
        ("孕妇能喝咖啡吗", "产妇能喝咖啡吗"),
        ("阿莫西林5mg", "阿莫西林50mg"),
    ],
)
def test_canonical_keeps_what_is_asked(one: str, other: str) -> None:
    assert canonical(one) != canonical(other)


@pytest.mark.parametrize("text", ["你好", "谢谢！", "请问呢？", "吗", "急急急"])
def test_canonical_of_courtesies_alone_is_their_key(text: str) -> None:
    assert canonical(text) == normalise(text) != ""


@given(st.text(alphabet="你好谢请问吗呢医生，。 高血压"))
def test_canonical_is_empty_only_where_the_key_is(text: str) -> None:
    assert bool(canonical(text)) == bool(normalise(text))


@given(
    st.lists(
        MEDICAL | st.text(alphabet="12aZ高.%/-， ）\0\U0001f600") | st.text(),
        min_size=1,
        max_size=5,
    )
)
def test_keys_of_many_texts_are_those_of_each(texts: list[str]) -> None:
    together = joined(texts)
    hard = [bits & HARD for bits in AFTER.of_all(together)]
    assert keys_of(texts, together, hard) == [normalise(text).encode() for text in texts]
