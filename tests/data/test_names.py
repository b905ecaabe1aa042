"""Names of people; the labelled texts of test_privacy.py hold most of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medqa.data.names import TRIGGERS, may_hold_names, names
from medqa.data.triggers import Triggers

WAKING = Triggers({"names": TRIGGERS})
TITLES = ["医生", "医师", "大夫", "老师", "主任", "教授", "护士", "护士长", "女士", "先生"]
LEADS = ["患者", "患儿", "姓名：", "我叫", "病人", "联系人", "户名"]
PEOPLE = ["张", "李建国", "欧阳", "高", "王小明", "某", "李某"]
WORDS = [*TITLES, *LEADS, *PEOPLE, *"：:是为，。男岁的副", "您好", "请问", "感谢", "血压"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("感谢张医生", ["张"]),
        ("患者李建国，男，60岁", ["李建国"]),
        ("联系人：王小明，", ["王小明"]),
        ("在医生指导下服药", []),
        ("部分患者还会头痛", []),
    ],
)
def test_names(text: str, found: list[str]) -> None:
    assert [text[start:end] for start, end, _ in names(text)] == found
    assert may_hold_names(text)


@pytest.mark.parametrize(
    "text", [f"感谢张建国{title}，" for title in TITLES] + [f"{lead}李建国，男" for lead in LEADS]
)
def test_every_word_beside_a_name_is_a_trigger(text: str) -> None:
    assert list(names(text))
    assert WAKING.of(text)


@given(st.lists(st.sampled_from(WORDS), max_size=8).map("".join))
def test_a_text_without_a_trigger_holds_no_name(text: str) -> None:
    if not WAKING.of(text):
        assert not list(names(text))
