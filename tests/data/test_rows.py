from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medqa.data import rows, words
from medqa.data.clean import Cleaner, Mended, Steps
from medqa.data.rows import HUATUO, Keys, Limits, Record, Rejection, Row, Settings

OFF = ()
SETTINGS = Settings(
    limits=Limits(min_question=2, max_question=10, min_answer=2, max_answer=20),
    rules=("html_entities", "whitespace", "url_answer"),
    privacy=False,
    segment_questions=False,
    seed=42,
)


def convert(
    value: Any, schemas: tuple[Keys, ...] = HUATUO, settings: Settings = SETTINGS
) -> list[Record | Rejection]:
    cleaner = Cleaner(settings.rules, settings.privacy)
    return rows.convert(Row("s", 7, value), schemas, settings, cleaner)


def pairs(value: Any) -> list[tuple[str, str]]:
    found = convert(value)
    assert all(isinstance(f, Record) for f in found)
    return [(f.question, f.answer) for f in found if isinstance(f, Record)]


def reasons(value: Any, schemas: tuple[Keys, ...] = HUATUO) -> list[str]:
    found = convert(value, schemas)
    assert all(isinstance(f, Rejection) for f in found)
    return [f.reason for f in found if isinstance(f, Rejection)]


@pytest.mark.parametrize(
    ("questions", "answers", "expected"),
    [
        ("感冒？", "多喝水", [("感冒？", "多喝水")]),
        (["感冒？"], ["多喝水"], [("感冒？", "多喝水")]),
        ([["感冒？"]], [["多喝水"]], [("感冒？", "多喝水")]),
        ([["感冒？", "伤风？"]], ["多喝水"], [("感冒？", "多喝水"), ("伤风？", "多喝水")]),
        (["感冒？", "伤风？"], "多喝水", [("感冒？", "多喝水"), ("伤风？", "多喝水")]),
        (["感冒？", "痛风？"], ["喝水", "忌酒"], [("感冒？", "喝水"), ("痛风？", "忌酒")]),
        (["感冒？"], ["喝水", "休息"], [("感冒？", "喝水"), ("感冒？", "休息")]),
        (
            [["感冒？", "伤风？"], ["痛风？"]],
            ["喝水", "忌酒"],
            [("感冒？", "喝水"), ("伤风？", "喝水"), ("痛风？", "忌酒")],
        ),
    ],
)
def test_every_shape_of_questions_and_answers(
    questions: Any, answers: Any, expected: list[tuple[str, str]]
) -> None:
    assert pairs({"questions": questions, "answers": answers}) == expected
    # The same lists under Lite's names.
    assert pairs({"question": questions, "answer": answers}) == expected


def test_lite_row_brings_its_department_and_ids_count_the_pairs() -> None:
    lite = {"id": 1, "question": "感冒？", "answer": "喝水", "score": 5, "label": " 内科 "}
    (record,) = convert(lite)
    assert isinstance(record, Record)
    assert (record.id, record.source, record.department) == ("s:7", "s", "内科")
    found = convert({"questions": [["感冒？", "伤", "伤风？"]], "answers": ["喝水"]})
    assert [f.id for f in found] == ["s:7", "s:7#1", "s:7#2"]
    assert [isinstance(f, Record) for f in found] == [True, False, True]
    (unlabelled,) = convert({**lite, "label": None})
    assert isinstance(unlabelled, Record) and unlabelled.department == ""


def test_plain_columns_by_name() -> None:
    keys = Keys("Q", "A", "D")
    (record,) = convert({"Q": "利率？", "A": "百分之三", "D": 4}, (keys,))
    assert isinstance(record, Record)
    assert (record.question, record.answer, record.department) == ("利率？", "百分之三", "4")
    assert reasons({"question": "利率？", "answer": "百分之三"}, (keys,)) == [rows.MISSING_KEY]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("text", rows.WRONG_TYPE),
        (3, rows.WRONG_TYPE),
        (None, rows.WRONG_TYPE),
        ([], rows.WRONG_TYPE),
        ({}, rows.MISSING_KEY),
        ({"questions": "感冒？"}, rows.MISSING_KEY),
        ({"answer": "喝水"}, rows.MISSING_KEY),
        ({"questions": "感冒？", "answers": 5}, rows.WRONG_TYPE),
        ({"questions": {"q": "感冒？"}, "answers": "喝水"}, rows.WRONG_TYPE),
        ({"questions": [[["感冒？"]]], "answers": "喝水"}, rows.WRONG_TYPE),
        ({"questions": [], "answers": "喝水"}, rows.EMPTY_QUESTION),
        ({"questions": [[]], "answers": "喝水"}, rows.EMPTY_QUESTION),
        ({"questions": None, "answers": "喝水"}, rows.EMPTY_QUESTION),
        ({"questions": " \t\u3000", "answers": "喝水"}, rows.EMPTY_QUESTION),
        ({"questions": "？？？", "answers": "喝水"}, rows.EMPTY_QUESTION),
        ({"questions": "感冒？", "answers": []}, rows.EMPTY_ANSWER),
        ({"questions": "感冒？", "answers": "&nbsp;。"}, rows.EMPTY_ANSWER),
        ({"questions": ["感冒？", "痛风？", "水痘？"], "answers": ["喝", "忌"]}, rows.UNPAIRED),
        ({"questions": "痛", "answers": "喝水"}, rows.QUESTION_TOO_SHORT),
        ({"questions": "痛" * 11, "answers": "喝水"}, rows.QUESTION_TOO_LONG),
        ({"questions": "感冒？", "answers": "水"}, rows.ANSWER_TOO_SHORT),
        ({"questions": "感冒？", "answers": "水" * 21}, rows.ANSWER_TOO_LONG),
        ({"questions": "感冒？", "answers": "https://www.51zyzy.com/1.html"}, rows.URL_ANSWER),
        ({"questions": "感冒？", "answers": " <HTTP://a.cn/x?y=1>\nwww.b.cn"}, rows.URL_ANSWER),
        ({"questions": "感冒？", "answers": "//a.cn/x"}, rows.URL_ANSWER),
    ],
)
def test_reasons(value: Any, reason: str) -> None:
    assert reasons(value) == [reason]


@pytest.mark.parametrize("answer", ["见www.a.cn", "https://a.cn 多喝水", "1.5mg/kg/d"])
def test_text_with_a_link_or_a_slash_is_no_link(answer: str) -> None:
    assert pairs({"questions": "感冒？", "answers": answer}) == [("感冒？", answer)]


def test_a_link_is_refused_first_whatever_the_question_is() -> None:
    for question in ("", None, 5, "痛" * 500, "感冒？"):
        assert reasons({"questions": question, "answers": "https://a.cn"}) == [rows.URL_ANSWER]
    off = SETTINGS.limits, OFF, False, False, 42
    (kept,) = convert({"questions": "感冒？", "answers": "https://a.cn"}, settings=Settings(*off))
    assert isinstance(kept, Record)


def test_limits_are_inclusive_and_count_cleaned_text() -> None:
    assert pairs({"questions": "  痛　吗 ", "answers": "水" * 20})
    assert pairs({"questions": "痛" * 10, "answers": "喝水  "}) == [("痛" * 10, "喝水")]


def test_what_no_cleaning_can_shorten_enough_is_not_cleaned() -> None:
    class Watched(Cleaner):
        def answer(
            self, text: str, woken: int | None = None
        ) -> tuple[str, list[tuple[str, str, str]]]:
            assert len(text) <= rows.HOPELESS * 20
            return super().answer(text, woken)

    cleaner = Watched(SETTINGS.rules, False)
    for length in (21, rows.HOPELESS * 20, rows.HOPELESS * 20 + 1, 10**6):
        row = Row("s", 1, {"questions": "感冒？", "answers": "水" * length})
        (found,) = rows.convert(row, HUATUO, SETTINGS, cleaner)
        assert isinstance(found, Rejection) and found.reason == rows.ANSWER_TOO_LONG
    blanks = "喝水" + " " * (rows.HOPELESS * 20 - 4) + "休息"
    assert pairs({"questions": "感冒？", "answers": blanks}) == [("感冒？", "喝水 休息")]


def test_paraphrases_share_the_work_on_their_answer() -> None:
    class Counted(Cleaner):
        calls = 0

        def answer_steps(self, text: str, woken: int | None = None) -> Steps[Mended]:
            self.calls += 1
            return super().answer_steps(text, woken)

    cleaner = Counted(SETTINGS.rules, False)
    row = Row("s", 1, {"questions": [["感冒？", "伤风？", "着凉？"]], "answers": ["喝水"]})
    assert len(rows.convert(row, HUATUO, SETTINGS, cleaner)) == 3
    assert cleaner.calls == 1


def test_changes_are_told() -> None:
    (record,) = convert({"questions": " 感冒？", "answers": "喝水"})
    assert isinstance(record, Record)
    assert record.changes == [("whitespace", " 感冒？", "感冒？")]


def test_privacy_is_a_switch() -> None:
    row = {"questions": "找谁看？", "answers": "电话13812345678"}
    settings = Settings(SETTINGS.limits, OFF, True, False, 42)
    assert pairs(row) == [("找谁看？", "电话13812345678")]
    (record,) = convert(row, settings=settings)
    assert isinstance(record, Record) and record.answer == "电话[电话]"


def test_segmented_questions_keep_their_unsegmented_form_for_comparison() -> None:
    settings = Settings(SETTINGS.limits, OFF, False, True, 42)
    row = {"questions": "感冒的人吃什么药", "answers": "喝水"}
    (plain,), (cut,) = convert(row), convert(row, settings=settings)
    assert isinstance(plain, Record) and isinstance(cut, Record)
    assert cut.question == words.segment(plain.question) != plain.question
    assert cut.canonical == plain.canonical


def test_a_department_is_one_line_of_text() -> None:
    for label, expected in [
        (" 内\n科\x00", "内 科"),
        (None, ""),
        (["内科"], ""),
        ({"a": 1}, ""),
        (3, "3"),
    ]:
        (record,) = convert({"question": "感冒？", "answer": "喝水", "label": label})
        assert isinstance(record, Record) and record.department == expected


def test_a_bad_paraphrase_costs_only_itself() -> None:
    found = convert({"questions": [["感冒？", 5, ""]], "answers": ["喝水"]})
    assert [getattr(f, "reason", "kept") for f in found] == [
        "kept",
        rows.WRONG_TYPE,
        rows.EMPTY_QUESTION,
    ]


def test_keys_say_what_is_equal() -> None:
    one, same, other = (
        convert({"questions": q, "answers": a})[0]
        for q, a in [("感冒?", "吃１片。"), ("感冒？", "吃1片"), ("感冒？", "吃2片")]
    )
    assert isinstance(one, Record) and isinstance(same, Record) and isinstance(other, Record)
    assert one.question_key == same.question_key == other.question_key
    assert one.answer_key == same.answer_key != other.answer_key
    assert one.rank == same.rank != other.rank


def test_the_seed_decides_the_rank() -> None:
    row = {"questions": "感冒？", "answers": "喝水"}
    (one,) = convert(row)
    (other,) = convert(row, settings=Settings(SETTINGS.limits, OFF, False, False, 43))
    assert isinstance(one, Record) and isinstance(other, Record)
    assert one.rank != other.rank and one.question_key == other.question_key


@pytest.mark.parametrize("depth", [300, 1000])
def test_deep_nesting_costs_one_row(depth: int) -> None:
    value: Any = "感冒？"
    for _ in range(depth):
        value = [value]
    (found,) = convert({"questions": value, "answers": "喝水"})
    assert isinstance(found, Rejection) and found.reason == rows.WRONG_TYPE
    assert found.raw == "(nested too deeply to be shown)"


def test_the_text_of_a_rejected_row_is_shortened() -> None:
    row = Row("s", 1, None, ("高" * 2000).encode(), rows.MALFORMED_JSON)
    assert row.excerpt == "高" * rows.SHOWN_CHARS
    assert Row("s", 1, None, b'{"a": "\xff\xfe"}').excerpt == '{"a": "��"}'
    assert Row("s", 1, {"a": "高"}).excerpt == '{"a":"高"}'
    assert Row("s", 1, {"a": "高"}, b'{"a": "\\u9ad8"}').excerpt == '{"a":"高"}'


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ({"questions": [["一", "二"], "三"], "answers": 5}, ["一", "二", "三"]),
        ({"question": "一"}, ["一"]),
        ({"questions": [None, 3, []]}, []),
        ({"other": "一"}, []),
        ("一", []),
    ],
)
def test_questions_of_an_evaluation_row(value: Any, found: list[str]) -> None:
    assert list(rows.questions(Row("s", 1, value), HUATUO)) == found


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["questions", "answers", "question", "answer", "label"]), inner
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_any_json_gives_at_least_one_outcome_with_ids_of_its_own(value: Any) -> None:
    found = convert(value)
    assert found
    assert len({f.id for f in found}) == len(found)
