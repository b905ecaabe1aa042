from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from medqa.data import bulk
from medqa.data.clean import Cleaner
from medqa.data.formats import json_row
from medqa.data.rows import HUATUO, Limits, Row, Settings, convert
from medqa.data.rules import Rules

LIMITS = Limits(2, 300, 2, 1200)
ON = Settings(LIMITS, Rules().on, privacy=True, segment_questions=False, seed=42)
SOME = Settings(LIMITS, Rules().on[::2], privacy=False, segment_questions=False, seed=42)
SAMPLE = Path(__file__).parents[2] / "data" / "sample"

PIECES = """
    高血压 怎么办 多喝水 按时服药 您好 你好， 谢谢医生 病情分析： 意见建议 祝早日康复 欢迎 咨询
    王医生 患者张三 狗狗 不吃 点击在线咨询 电话13812345678 微信 QQ 一日3次 1.5mg 3-5天 5% 5/3 12:30
    ０．５ ＡＢ Vitamin & &lt; <br> ， 。 、 ： : , . ? ！！ …… ( （ ） [ “
    ～～ https://a.cn www.b.cn
"""
STRANGE = ["\u200b", "\u3000", "\0", "\ufffd", "\U0001f600", " ", "\n"]
TEXT = st.lists(st.sampled_from(PIECES.split() + STRANGE) | st.text(max_size=3), max_size=8).map(
    "".join
)
VALUE = TEXT | st.lists(TEXT | st.lists(TEXT, max_size=2), max_size=2) | st.sampled_from([None, 5])
ROWS = st.lists(
    st.builds(lambda q, a: {"questions": q, "answers": a}, VALUE, VALUE)
    | st.builds(lambda q, a, d: {"question": q, "answer": a, "label": d}, TEXT, TEXT, TEXT)
    | st.sampled_from([None, [], {}, {"questions": "感冒？"}]),
    max_size=6,
)


def same(rows: list[Row], settings: Settings) -> None:
    cleaner = Cleaner(settings.rules, settings.privacy)
    one_by_one = [convert(row, HUATUO, settings, cleaner) for row in rows]
    assert bulk.convert_all(rows, HUATUO, settings, cleaner) == one_by_one


@pytest.mark.parametrize("settings", [ON, SOME], ids=["all rules", "some"])
@given(values=ROWS)
@example(values=[{"questions": "感冒？" * 9000, "answers": "水" * 40_000}])
def test_many_rows_give_what_each_gives(settings: Settings, values: list[Any]) -> None:
    same([Row("s", n, value, b"raw") for n, value in enumerate(values, 1)], settings)


@pytest.mark.parametrize("settings", [ON, SOME], ids=["all rules", "some"])
def test_real_rows_give_the_same_together(settings: Settings) -> None:
    files = [*SAMPLE.glob("*huatuo*.jsonl"), *SAMPLE.glob("Huatuo*.jsonl")]
    lines = [line for file in sorted(files) for line in file.read_bytes().splitlines()]
    assert len(lines) > 500
    same([row for n, line in enumerate(lines) if (row := json_row("s", n, line))], settings)


@pytest.mark.slow
def test_all_real_rows_give_the_same_together(shared: Path) -> None:
    lines = next((shared / "huatuo").glob("*.part1.jsonl")).read_bytes().splitlines()
    assert len(lines) == 3000
    same([row for n, line in enumerate(lines) if (row := json_row("s", n, line))], ON)
