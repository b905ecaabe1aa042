"""Words: what stays of a question, and what the report shows of a department."""

import subprocess
import sys

import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from medqa.data import words
from medqa.data.words import segment, top_terms


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("饮酒以后可以服用西地那非吗", "饮酒 以后 可以 服用 西地那非"),
        ("请问，感冒了的话应该吃什么药呢？", "请问 感冒 应该 吃 药"),
        ("每日3次，每次0.5g，血压120/80mmHg", "每日 3次 每次 0.5g 血压 120/80mmHg"),
        ("孕妇可以吃维生素B12和 5 mg/kg 的药吗", "孕妇 可以 吃 维生素 B12 5mg/kg 药"),
        ("一天两片，吃了3到5天", "一天 两片 吃 3到5天"),
        ("体温38.5℃，HBsAg(+)", "体温 38.5℃ HBsAg (+)"),
        ("请拨打[电话]咨询", "请 拨打 [电话] 咨询".removeprefix("请 ")),
    ],
)
def test_words_without_stop_words(text: str, expected: str) -> None:
    assert segment(text) == expected


@pytest.mark.parametrize("word", ["不能", "可以", "不可以", "没有", "不", "无", "别", "不要", "能"])
def test_what_forbids_and_permits_stays(word: str) -> None:
    """Without it two questions with opposite answers would be one."""
    assert word in segment(f"孕妇{word}吃阿莫西林吗").replace(" ", "")


def test_opposites_stay_apart() -> None:
    assert segment("孕妇能吃吗") != segment("孕妇不能吃吗")
    assert segment("饭前吃") != segment("饭后吃")
    assert segment("吃5mg") != segment("吃50mg")


@pytest.mark.parametrize("text", ["的", "吗？", "？？！", "怎么", "a", "", "  "])
def test_never_empty_unless_the_text_is(text: str) -> None:
    assert segment(text) == text


def test_every_word_we_keep_is_on_the_list() -> None:
    from stopwordsiso import stopwords

    listed = stopwords("zh")
    assert sorted(words.KEPT - listed) == []
    assert len(listed - words.KEPT) > 650


@given(
    st.lists(
        st.sampled_from(
            ["0.5g", "50mg", "5 mg/kg", "120/80mmHg", "38.5℃", "3次", "2-3天", "10万单位",
             "1.2mmol/L", "感冒", "的", "，", "。", "吃", "不", "B12", "一日三次", "\n", "每次"]
        ),
        min_size=1,
    )
)  # fmt: skip
@example(["5 mg/kg", "3次"])
def test_no_dose_is_lost(parts: list[str]) -> None:
    """Every amount is there, in its order, and its unit still stands behind its number."""
    made = segment("，".join(parts))
    place = 0
    for part in parts:
        if part[0].isdigit():
            amount = part.replace(" ", "")
            assert amount in made[place:], (amount, made)
            place = made.index(amount, place) + len(amount)


@given(
    st.text(
        alphabet=st.sampled_from([*"0123456789.,/%-~:mgkIU ＡＢ５，。的不吃血压三十片"]),
        max_size=30,
    )
)
def test_no_digit_is_lost(text: str) -> None:
    digits = [c for c in text if c.isdigit()]
    assert [c for c in segment(text) if c.isdigit()] == digits


def rows(**departments: list[str]) -> pl.DataFrame:
    pairs = [
        (d if d != "none" else "", q) for d, questions in departments.items() for q in questions
    ]
    table = pl.DataFrame(pairs, schema=["department", "question"], orient="row")
    return table.with_columns(rank=pl.col("question").hash(1))


def test_terms_tell_departments_apart() -> None:
    table = rows(
        heart=["高血压怎么治疗", "高血压吃什么药", "心绞痛怎么治疗"],
        skin=["湿疹怎么治疗", "湿疹吃什么药", "皮肤瘙痒怎么治疗", "湿疹"],
    )
    found = top_terms(table, 1)
    assert found == {"skin": [("湿疹", 3)], "heart": [("高血压", 2)]}
    assert list(found) == ["skin", "heart"]  # the biggest first


def test_terms_of_one_department_are_counted() -> None:
    found = top_terms(rows(none=["感冒发烧", "感冒", "感冒了的话"]), 2)
    assert found == {"": [("感冒", 3), ("发烧", 1)]}


def test_a_term_counts_questions_and_is_a_word() -> None:
    found = top_terms(rows(none=["感冒，感冒，感冒2024年吃药", "吃5mg"]), 9)
    assert found == {"": [("吃药", 1), ("感冒", 1)]}


def test_terms_come_from_a_sample_by_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of the rows does not matter, and only the first by rank are looked at."""
    monkeypatch.setattr(words, "TERM_QUESTIONS", 2)
    table = pl.DataFrame(
        {"department": [""] * 3, "question": ["感冒", "发烧", "咳嗽"], "rank": [3, 1, 2]}
    )
    assert set(top_terms(table, 5)[""]) == {("发烧", 1), ("咳嗽", 1)}
    assert top_terms(table, 5) == top_terms(table.reverse(), 5)


def test_no_output_no_warning_and_nothing_written(tmp_path) -> None:
    """jieba prints to stderr and caches in the temporary folder when left to itself."""
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-c",
            "from medqa.data import words; words.segment('感冒')",
        ],
        capture_output=True,
        env={"TMPDIR": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert list(tmp_path.iterdir()) == []


def test_importing_loads_nothing() -> None:
    code = "import sys; from medqa.data import words; print({'jieba', 'polars'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout.strip() == b"set()"
