import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from medqa.data import clean, courtesies, drop, mend, privacy
from medqa.data.clean import DESCRIPTIONS, Cleaner
from medqa.data.rules import Rules
from medqa.data.triggers import WOKEN_BY, Triggers, joined

MEDICAL = st.text(alphabet="0123456789.,%-+/<>~:×±μ℃高血压每次片一日、。（）mgkgL \t\u3000")
HALF = str.maketrans("０１２３４５６７８９", "0123456789")

ALL = Cleaner(Rules().on, privacy=False)
NONE = Cleaner((), privacy=False)

UNITS = [
    "mg",
    "ml",
    "μg",
    "℃",
    "%",
    "IU",
    "mmol/L",
    "次/日",
    "mmHg",
    "片",
    "粒",
    "g/L",
    "×10^9/L",
    "",
]
DIGITS = st.integers(0, 9999).map(str)
NUMBERS = st.one_of(
    DIGITS,
    st.builds("{}.{}".format, DIGITS, DIGITS),
    st.builds("{}{}{}".format, DIGITS, st.sampled_from(["-", "~", "～", "—", "－"]), DIGITS),
    st.builds("{}{}{}".format, DIGITS, st.sampled_from([":", "/", "：", ",", "，", "、"]), DIGITS),
    st.builds(".{}".format, DIGITS),
    DIGITS.map(lambda n: n.translate(str.maketrans("0123456789", "０１２３４５６７８９"))),
    DIGITS.map(lambda n: "".join(f"&#{ord(c)};" for c in n)),
)
DOSES = st.builds("{}{}".format, NUMBERS, st.sampled_from(UNITS))
NOISE = st.sampled_from(
    [
        "您好，",
        "你好",
        "你好建议",
        "亲，",
        "很高兴为您解答。",
        "病情分析：",
        "意见建议",
        "意见建议：",
        "指导意见",
        "【问题分析】",
        "祝早日康复",
        "，祝您健康！",
        "希望我的回答对您有帮助，",
        "谢谢",
        "欢迎再来咨询，",
        "以上是对“头晕”这个问题的建议，",
        "如果满意请采纳",
        "<br>",
        "<b>",
        "</b>",
        "<p>",
        "&nbsp;",
        "&lt;",
        "&gt;",
        "&amp;",
        "\x00",
        "\u200b",
        "\ufeff",
        "\n",
        " ",
        "，",
        "。",
        "。。",
        "！！",
        "...",
        ".",
        ",",
        ":",
        ";",
        "(",
        ")",
        "（",
        "）",
        "、",
        "，。",
        "…",
        "“",
        "”",
        "|#|",
        '\\"',
        "~~",
        "每次",
        "一日",
        "多喝水",
        "阿莫西林",
        "血压",
        "体温",
        "Vitamin",
        "A",
        "想得到怎样的帮助：",
        "治疗情况：",
        "答：",
        "1、",
        "最后",
        "--",
        "**",
        "··",
        "~",
        "．",
        "）",
        "】",
        "/",
        "undefined",
        "建议。",
        "岁",
        "患者年龄：",
        "主要症状：",
        "1，休息",
        ".2，饭后",
        "求助",
        "急。",
    ]
)
TEXTS = st.lists(st.one_of(NOISE, DOSES), min_size=1, max_size=14).map("".join)


def together(triggers: Triggers, text: str) -> int:
    """Looks at `text` between others."""
    return triggers.of_all(joined(["祝好", text, "% 1"]))[1]


def plain_numbers(text: str) -> list[str]:
    """Each run of digits as a reader sees it: entities and width undone, zero width gone."""
    text = re.sub(r"&#(\d+);", lambda m: chr(int(m[1])), text)
    return re.findall(r"[0-9]+", re.sub(r"[\u200b\ufeff]", "", text).translate(HALF))


def test_the_fields_are_the_rules() -> None:
    menders = [*clean.CHARACTERS, *clean.QUESTION_COURTESIES, *clean.ANSWER_COURTESIES]
    names = {rule.__name__ for rule in [*menders, *clean.OBJECTIONS]}
    assert set(Rules.model_fields) == names == set(DESCRIPTIONS)
    for module in (mend, courtesies):
        own = {
            n for n, v in vars(module).items() if getattr(v, "__module__", "") == module.__name__
        }
        assert {name for name in own if name[0] != "_"} - {"unless_empty", "unquoted"} <= names


def test_each_rule_has_a_line_of_its_own_and_stands_in_the_docstring() -> None:
    assert all(DESCRIPTIONS.values()) and len(set(DESCRIPTIONS.values())) == len(DESCRIPTIONS)
    assert all(f"    {name}: " in str(Rules.__doc__) for name in Rules.model_fields)


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(ValidationError):
        Rules.model_validate({"greeting": False})


@pytest.mark.parametrize(
    ("dirty", "expected"),
    [
        ("  高血压 \t 吃什么药？　", "高血压 吃什么药？"),
        ("第一行\r\n\r\n  第二行\r第三行", "第一行\n第二行\n第三行"),
        ("血压&lt;90，&amp;nbsp;见&#x300A;说明&#12299;", "血压<90，见《说明》"),
        ("每次5\x0010毫克", "每次5 10毫克"),
        ("每次5<b>\u200b10</b>毫克", "每次5 10毫克"),
        ("每次5</b>\u200b<!-- --><!-- --><b>10毫克", "每次5 10毫克"),
        ("０．５ｍｇ，一日３次。。", "0.5mg，一日3次。"),
        (
            "问题分析：你好:你是由于身体出现了局部的腰部损伤,一般术后泡脚是可以的，不用担心。意见建议：注意休息",
            "你是由于身体出现了局部的腰部损伤，一般术后泡脚是可以的，不用担心。注意休息",
        ),
        ("您好。，您的这种情况很可能是由于着凉,祝你健康！。", "您的这种情况很可能是由于着凉。"),
        ("指导意见：<br>白癜风一般比较难治愈的", "白癜风一般比较难治愈的"),
    ],
)
def test_answers_are_mended(dirty: str, expected: str) -> None:
    assert ALL.answer(dirty)[0] == expected


def test_changes_name_the_rule_and_what_it_did() -> None:
    text, changes = ALL.answer("病情分析：你好,多喝水")
    assert text == "多喝水"
    assert changes == [
        ("han_punctuation", "病情分析：你好,多喝水", "病情分析：你好，多喝水"),
        ("section_labels", "病情分析：你好，多喝水", "你好，多喝水"),
        ("greetings", "你好，多喝水", "多喝水"),
    ]
    assert ALL.answer("多喝水。") == ("多喝水。", [])


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("html_entities", "A&quot;B"),
        ("html_tags", "多<br>喝水"),
        ("invisible", "头\u200b疼"),
        ("half_width", "维生素Ｅ"),
        ("whitespace", "多  喝水"),
        ("han_punctuation", "多喝水,休息"),
        ("repeated_punctuation", "多喝水！！！"),
        ("section_labels", "病情分析：多喝水"),
        ("greetings", "你好，多喝水"),
        ("closing_wishes", "多喝水，祝早日康复"),
        ("stray_punctuation", "。多喝水"),
        ("question_courtesies", "怎么办？谢谢医生"),
    ],
)
def test_each_mending_rule_can_be_switched_off(rule: str, text: str) -> None:
    off = Cleaner(Rules.model_validate({rule: False}).on, privacy=False)
    only = Cleaner([rule], privacy=False)
    method = "question" if rule == "question_courtesies" else "answer"
    assert getattr(off, method)(text) == (text, [])
    mended, changes = getattr(only, method)(text)
    assert mended != text and [name for name, _, _ in changes] == [rule]
    assert getattr(NONE, method)(text) == (text, [])


@pytest.mark.parametrize(
    ("rule", "question", "answer"),
    [
        ("url_answer", "头疼", "http://a.cn/1"),
        ("truncated_answer", "头疼", "多喝水，"),
        ("echo_answer", "头疼吃什么药", "头疼吃什么药？"),
        ("empty_form", "患者性别：患者年龄：", "多喝水"),
        ("off_topic", "狗狗拉稀怎么办", "看兽医"),
        ("advertisement", "头疼", "详情咨询[电话]"),
    ],
)
def test_each_objection_can_be_switched_off(rule: str, question: str, answer: str) -> None:
    assert ALL.objection(question, answer) == rule
    off = Cleaner(Rules.model_validate({rule: False}).on, privacy=False)
    assert off.objection(question, answer) is None


def test_link_answers_stay_as_they_are() -> None:
    link = "http://a.cn/q?a=1&lt;=2,,b=13812345678 \n http://a.cn//"
    cleaner = Cleaner(Rules().on, privacy=True)
    assert cleaner.answer(f"  {link}\n") == (link, [])
    assert cleaner.objection("头疼", link) == "url_answer"


def test_personal_data_is_shown_in_no_change() -> None:
    text, changes = Cleaner(Rules().on, privacy=True).answer(
        "你好,请拨打１３８１２３４５６７８咨询.祝您健康"
    )
    assert "[电话]" in text and "1381234" not in text
    assert "privacy:phone" in [name for name, _, _ in changes]
    assert not any("1381234" in part or "１３８" in part for change in changes for part in change)
    assert ("half_width", "", "") in changes


@given(TEXTS)
def test_no_number_is_changed(text: str) -> None:
    mended = ALL.answer(text)[0]
    assume(any(c.isalnum() for c in mended))
    assert plain_numbers(mended) == plain_numbers(text)


@given(TEXTS, TEXTS, st.lists(NOISE | DOSES, max_size=4).map("".join))
def test_no_number_is_lost_between_a_question_and_its_answer(
    question: str, answer: str, quoted: str
) -> None:
    asked, said = ALL.question(question)[0], ALL.answer(answer)[0]
    closed = f"{said}以上是对“{quoted}{asked[:40]}”这个问题的建议。"
    text, changes = ALL.pair(asked, closed)
    assert (text == closed) == (not changes)
    assert text == closed or text.rstrip("。") == said.rstrip("。，； ")
    assert {*plain_numbers(closed)} <= {*plain_numbers(text), *plain_numbers(asked)}
    assert ALL.pair(asked, text) == (text, [])


@given(st.lists(st.tuples(NOISE, DIGITS, st.sampled_from(UNITS)), min_size=1, max_size=8))
def test_every_number_keeps_its_unit(parts: list[tuple[str, str, str]]) -> None:
    assume(all(not noise.endswith(tuple("0123456789.")) for noise, _, _ in parts))
    mended = ALL.answer("多喝水".join(noise + number + unit for noise, number, unit in parts))[0]
    place = 0
    for _, number, unit in parts:
        place = mended.find(number + unit, place)
        assert place >= 0, mended
        place += len(number + unit)


@given(TEXTS)
def test_mending_twice_is_mending_once(text: str) -> None:
    for mended in (ALL.answer, ALL.question):
        once = mended(text)[0]
        assert mended(once) == (once, [])


@given(st.text())
def test_any_text_is_mended_once_and_holds_nothing_invisible(text: str) -> None:
    once = ALL.answer(text)[0]
    assert ALL.answer(once)[0] == once
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\ufeff]", once)


@given(MEDICAL)
def test_figures_that_stood_apart_stay_apart(text: str) -> None:
    assert plain_numbers(ALL.answer(text)[0]) == plain_numbers(text)


# All that the patterns of the rules speak of, and what may stand between.
SPOKEN = sorted(
    {
        word
        for module in (courtesies, drop)
        for value in vars(module).values()
        if isinstance(value, re.Pattern)
        for word in re.findall("[\u4e00-\u9fff]{1,6}", value.pattern)
    }
)
BETWEEN = [
    *'：:，。！、？ \n“（【"1.吃~～\\|#％Ａ&<>;\ufffd\u3000\x00\U0001f600',
    "[电话]",
    "13812345678",
]
WORDS = st.lists(st.sampled_from(SPOKEN) | st.sampled_from(BETWEEN) | NOISE | DOSES, max_size=6)


def nothing_is_missed(text: str, before: int, after: int) -> None:
    """Holds every rule to what `before` and `after` say it has to do with `text`: nothing."""
    for mender in (*clean.CHARACTERS, *clean.QUESTION_COURTESIES, *clean.ANSWER_COURTESIES):
        if not before & clean.BEFORE.bits[mender.__name__]:
            assert mender(text) == text, mender
    if not before & clean.BEFORE.bits["url_answer"]:
        assert not drop.url_answer("", text.strip())
    if not before & clean.BEFORE.bits["privacy"]:
        assert privacy.mask(text) == (text, [])
    for objector in (drop.url_answer, drop.truncated_answer, drop.advertisement):
        if not after & clean.AFTER.bits[objector.__name__]:
            assert not objector("", text), objector
    for objector in (drop.empty_form, drop.off_topic):
        if not after & clean.AFTER.bits[objector.__name__]:
            assert not objector(text, "兽医"), objector


@pytest.mark.parametrize("looked", [Triggers.of, together], ids=["alone", "together"])
@given(text=WORDS.map("".join) | TEXTS | st.text())
def test_a_rule_that_nothing_wakes_finds_nothing(
    looked: Callable[[Triggers, str], int], text: str
) -> None:
    nothing_is_missed(text, looked(clean.BEFORE, text), looked(clean.AFTER, text))


def test_every_word_of_the_rules_wakes_its_own() -> None:
    forms = [
        "{}",
        "{}：",
        "{}我",
        "{}，多喝水",
        "多喝水。{}",
        "多喝水，{}。",
        "希望{}",
        "{}款",
        "患儿{}吐",
    ]
    hopes = [
        "希望对你有用",
        "希望能帮到您",
        "希望你早日康复",
        "希望让您满意",
        "签约治疗",
        "无效退款",
    ]
    texts = [form.format(word) for form in forms for word in SPOKEN] + hopes
    both = joined(texts)
    looked = zip(texts, clean.BEFORE.of_all(both), clean.AFTER.of_all(both), strict=True)
    for text, before, after in looked:
        nothing_is_missed(text, before, after)
        nothing_is_missed(text, clean.BEFORE.of(text), clean.AFTER.of(text))


def test_every_rule_for_one_text_declares_what_wakes_it() -> None:
    rules = {rule.__name__ for rule in clean._ALL} - {"echo_answer"}  # which compares two
    declared = {*clean.BEFORE.bits, *clean.AFTER.bits} - {"privacy", "hard key"}
    assert rules == set(WOKEN_BY) == declared


# Each holds one trigger and no other of its rule.
WAKING = {
    "section_labels": [
        "问：头疼",
        "头疼。医生回复：多喝水",
        "头疼。专家建议:多喝水",
        "病情分析头疼",
        "头疼。指导意见您好多喝水",
        "头疼。意见建议你好多喝水",
        "头疼。健康指导多喝水",
        "头疼想得到怎样的帮助",
        "头疼【医生建议】多喝水",
        "头疼，曾经治",
        "头疼|#|多喝水",
        "头疼，曾经治疗情况：无",
        "头疼，发病时间及原因：无",
        "头疼，治疗情况：无",
        "头疼，化验、检查结果：无",
        "头疼，医生询问。",
        "头疼，生活护理。",
        "请依照发病时间、主要症状表现来填写此部分头疼",
        "分析，头疼",
        "答非所问、敷衍、无意义回复，将会被通头疼的报！",
        "头疼。建议。多喝水",
        "头疼。治疗方案。多喝水",
        "头疼怎么办？想",
        "头疼怎么办？想得",
        "全部症状；头疼",
        "岁我头疼",
    ],
    "greetings": [
        "亲，头疼",
        "患者大家好，头疼",
        "患者早上好，头疼",
        "网友嗨，头好疼",
        "网友哈喽，头好疼",
        "宝妈，头疼",
        "看了您的问题，头疼",
        "我是您的健康顾问，头疼",
        "患者新年好，头疼",
    ],
    "html_tags": ["<b>头疼</b>"],
    "half_width": ["头疼２次", "β－HCG"],
    "repeated_punctuation": [
        "头疼！！多喝水",
        "头疼! !多喝水",
        "头疼~~多喝水",
        "头疼~～多喝水",
        "头疼～。多喝水",
        "头疼。～多喝水",
        "头疼~",
        "2--3次",
        "**头疼",
        "头疼··多喝水",
        "头疼``多喝水",
    ],
    "question_courtesies": [
        "头疼，谢谢",
        "头疼，求助",
        "头疼，很着急",
        "头疼，请解答",
        "头疼，望解答",
        "头疼，盼复",
        "头疼，麻烦解答",
        "头疼，期待解答",
        "头疼，在线等",
        "头疼，拜托了",
        "头疼，想帮忙看看",
        "头疼，帮助分析",
        "头疼，医生在线解答",
        "头疼，好人一生平安",
        "头疼，不胜感激",
        "头疼，我等待解答",
        "头疼，我静候解答",
        "头疼，给点建议吧",
        "头疼，提些意见吧",
    ],
    "closing_wishes": [
        "多喝水。祝健康。",
        "多喝水。希望能帮到您。",
        "多喝水。谢谢。",
        "多喝水。感谢您。",
        "多喝水。多谢。",
        "多喝水。欢迎再次光临。",
        "多喝水。如果有了满意的回答。",
        "多喝水。如果我的回答有帮助。",
        "多喝水。期待您再次光临。",
        "多喝水。请采纳。",
        "多喝水。请评价。",
        "多喝水。请点评。",
        "多喝水。请给个好评。",
        "多喝水。以上是对“头疼”这个问题的建议。",
        "多喝水。很高兴能帮您解答。",
        "多喝水。我会尽我所能帮助您。",
        "多喝水。我们将竭诚为您服务。",
        "多喝水。我会及时为您解答。",
        "多喝水。您的问题解答完毕。",
        "多喝水。还有什么问题需要咨询吗。",
        *(f"多喝水。有疑问可以{w}。" for w in ("咨询", "提问", "追问", "联系", "留言", "沟通")),
        "多喝水。有疑问可以问我。",
        "多喝水。以上供参考。",
        "多喝水。以上供你参考。",
        "多喝水。保佑你！",
    ],
    "stray_punctuation": [
        "，头疼",
        '\\"头疼',
        "头疼\n，多喝水",
        "头疼，undefined",
        *(f"头疼。{m}" for m in "“‘（【《([/／—-》】"),
        *(f"头疼{m}多喝水" for m in ("（）", "()", "【】", "《》", "“”", "‘’", "（ ）", "( )")),
    ],
}


@pytest.mark.parametrize(
    ("rule", "text"), [(rule, text) for rule, texts in WAKING.items() for text in texts]
)
def test_each_trigger_wakes_its_rule(rule: str, text: str) -> None:
    mended = ALL.question if rule == "question_courtesies" else ALL.answer
    assert rule in [name for name, _, _ in mended(text)[1]]


def rows(shared: Path) -> Iterator[tuple[str, str]]:
    for file in sorted((shared / "huatuo").rglob("*.jsonl")):
        for line in file.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            texts = [
                row.get("questions", row.get("question")),
                row.get("answers", row.get("answer")),
            ]
            for place, text in enumerate(texts):
                while isinstance(text, list):
                    text = text[0]
                texts[place] = text
            yield texts[0], texts[1]


def test_real_rows(shared: Path) -> None:
    """Numbers, idempotence, few rows dropped, and no dirt that a rule names in what is kept."""
    reasons: dict[str | None, int] = {}
    dirt = re.compile(
        r"^[，。、；：！？]|[您你]好[，！。：]|(?:病情分析|意见建议|指导意见|问题分析)[：:]|<br|&quot;|祝[您你](?:早日|健康|身体)|[。，！？][。，！]"
    )
    dirty = 0
    for question, answer in rows(shared):
        asked, said = ALL.question(question)[0], ALL.answer(answer)[0]
        assert ALL.question(asked) == (asked, []) and ALL.answer(said) == (said, [])
        if not drop.url_answer("", said):
            assert plain_numbers(said) == plain_numbers(answer.replace("&65533;", ""))
        reason = ALL.objection(asked, said)
        reasons[reason] = reasons.get(reason, 0) + 1
        dirty += reason is None and bool(dirt.search(said))
    total = sum(reasons.values())
    assert total >= 3020
    assert reasons[None] > 0.97 * total
    assert reasons["url_answer"] == 5
    assert dirty <= 3


@pytest.mark.parametrize(
    "part", ["，", "谢谢", "急", "祝您", "你好，", "意见建议", "<!--", "希望", "狗"]
)
def test_a_long_row_of_anything_is_mended_in_time(part: str) -> None:
    text = part * 5000 + "头疼>"
    start = time.process_time()
    asked, said = ALL.question(text)[0], ALL.answer(text)[0]
    ALL.objection(asked, said)
    assert time.process_time() - start < 3
