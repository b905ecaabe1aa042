"""What is shown of a change: the place, safe, and nothing else."""

import pytest

from medqa.data import examples
from medqa.data.examples import Piece, compared, masked, safe, shown


def marked(pieces: list[Piece]) -> str:
    return "".join(f"[{p.text}]" if p.changed else p.text for p in pieces)


@pytest.mark.parametrize(
    ("before", "after", "left", "right"),
    [
        ("您好，感冒了多喝水", "感冒了多喝水", "[您好，]感冒了多喝水", "[]感冒了多喝水"),
        ("你好：你是感冒", "你是感冒", "[你好：]你是感冒", "你是感冒"),
        ("多喝水。。。", "多喝水。", "多喝水。[。。]", "多喝水。"),
        ("多喝水，祝健康", "多喝水", "多喝水[，祝健康]", "多喝水"),
        ("高高血压", "高血压", "高[高]血压", "高血压"),
        ("高血压,头痛", "高血压，头痛", "高血压[,]头痛", "高血压[，]头痛"),
        ("多\u200b喝\x00水", "多喝水", "多[⟨U+200B⟩]喝[⟨U+0000⟩]水", "多[]喝[]水"),
        ("多　喝  水", "多 喝 水", "多[□]喝[␣] 水", "多[␣]喝[] 水"),
        ("a<br>b", "a\nb", "a[<br>]b", "a[↵]b"),
    ],
)
def test_the_changed_places_are_marked(before: str, after: str, left: str, right: str) -> None:
    example = compared(before, after)
    assert example
    assert marked(example.before) == left
    assert marked(example.after).replace("[]", "") == right.replace("[]", "")


def test_long_texts_are_cut_to_the_place() -> None:
    example = compared("头" * 3000 + "，，" + "尾" * 3000, "头" * 3000 + "，" + "尾" * 3000)
    assert example
    assert marked(example.before) == "…" + "头" * 17 + "，[，]" + "尾" * 18 + "…"


def test_changes_far_apart_are_shown_without_false_ones() -> None:
    """What lies behind the part that is compared is no change."""
    same = "字" * 18
    example = compared(f"a,{'字' * 3000}b,", f"a，{'字' * 3000}b，")
    assert example
    assert marked(example.before) == f"a[,]{same}…"
    assert marked(example.after) == f"a[，]{same}…"


def test_the_limit_of_what_is_compared_makes_no_change() -> None:
    example = compared(f"a,,,{'字词' * 1500}b,", f"a，{'字词' * 1500}b，")
    assert example
    assert [piece.text for piece in example.before if piece.changed] == [",,,"]
    assert [piece.text for piece in example.after if piece.changed] == ["，"]


def test_the_end_of_a_text_that_was_cut_is_no_change() -> None:
    whole = f"头\u200b{'字词' * 400}尾"
    after = whole.replace("\u200b", "")
    example = compared(whole[:500], after[:500])
    assert example
    assert marked(example.before) == "头[⟨U+200B⟩]" + "字词" * 9 + "…"
    assert marked(example.after) == "头" + "字词" * 9 + "…"
    assert compared((whole[2:] + ",x")[:500], (whole[2:] + "，x")[:500]) is None


def test_a_long_change_and_many_changes_are_cut() -> None:
    example = compared("x" + "祝" * 500, "x")
    assert example and len(marked(example.before)) < 80
    example = compared("a,b,c,d,e,f", "a，b，c，d，e，f")
    assert example and marked(example.before) == "a[,]b[,]c[,]d…"


@pytest.mark.parametrize(
    "text",
    [
        "请拨打13800138000咨询",
        "电话&#49;3800138000",
        "电话１３８００１３８０００",
        "电话 138-0013-8000 转",
        "身份证11010519491231002X",
        "卡号6222 0212 3456 7890 123",
    ],
)
def test_no_personal_number_is_shown(text: str) -> None:
    """Also those that privacy cannot mask in their place: the text before a rule is the raw one."""
    for seen in (safe(text), shown(text)):
        assert not any(run in seen for run in ("3800", "８００", "0105", "0212", "8000"))
    example = compared(f"您好，{text}", text)
    for piece in (*example.before, *example.after) if example else ():
        assert not any(run in piece.text for run in ("3800", "８００", "0105", "0212", "8000"))


def test_what_can_be_masked_in_its_place_is() -> None:
    assert safe("请拨打13800138000咨询") == "请拨打[电话]咨询"


def test_of_a_text_with_hidden_personal_data_nothing_is_shown() -> None:
    assert safe("邮箱abc&#64;example.com，感冒多喝水") == "▮▮▮"
    assert compared("您好，邮箱abc&#64;example.com", "邮箱abc&#64;example.com") is None


def test_doses_are_shown() -> None:
    assert safe("血压120/80mmHg，每次500mg，10万单位") == "血压120/80mmHg，每次500mg，10万单位"


def test_the_placeholder_is_marked() -> None:
    pieces = masked("a" * 50 + "[电话]" + "b" * 50, "phone")
    assert pieces and marked(pieces) == "…" + "a" * 18 + "[[电话]]" + "b" * 18 + "…"
    assert masked("没有", "phone") is None
    assert masked("[电话]", "email") is None


def test_shown_is_one_short_line() -> None:
    assert shown("a\n\n b") == "a b"
    assert len(shown("字" * 500)) == examples.SHOWN_CHARS


def test_texts_that_only_differ_in_personal_data_are_not_shown() -> None:
    assert compared("13800138000", "13800138001") is None
    assert compared("", "") is None
