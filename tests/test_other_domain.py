"""The example of another domain: what convert makes of it, by its YAML alone."""

import csv
import json
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from medqa.data import pipeline

pytestmark = pytest.mark.slow  # it makes a report too

CONFIG = "configs/data/example_other_domain.yaml"


class Made:
    """The converted example, in a project of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.train, self.val, self.test, self.rejects = map(
            self.lines, ("train", "val", "test", "rejects")
        )
        kept = self.train + self.val + self.test
        self.pairs = [row for row in kept if row["source"] == "finance"]

    def lines(self, part: str) -> list[dict[str, Any]]:
        text = (self.folder / f"{part}.jsonl").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.split("\n") if line]

    def answer(self, question: str) -> str:
        (answer,) = [row["output"] for row in self.pairs if row["instruction"] == question]
        return answer


@pytest.fixture(scope="module")
def raw(root: Path) -> list[list[str]]:
    with (root / "data/example/finance.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


@pytest.fixture(scope="module")
def made(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("other")
    for name in ("example", "sample"):
        shutil.copytree(root / "data" / name, folder / "data" / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDQA_ROOT", str(folder))
        pipeline.convert(root / CONFIG)
    return Made(folder / "data/processed/finance")


def test_nothing_is_lost(raw: list[list[str]], made: Made) -> None:
    out = [row for row in made.rejects if row["source"] == "finance"]
    assert len(made.pairs) + len(out) == len(raw) - 1
    assert Counter(row["reason"] for row in out) == {
        "malformed_csv": 1,
        "duplicate": 1,
        "url_answer": 1,
        "empty_answer": 1,
        "truncated_answer": 1,
    }


def test_own_columns_and_departments(raw: list[list[str]], made: Made) -> None:
    kinds = {row["department"] for row in made.pairs}
    assert kinds == {row[0] for row in raw[1:]}
    assert len(kinds) == 10
    assert 0.05 <= len(made.test) / len(made.pairs) <= 0.15
    clusters = {part: {r["cluster"] for r in getattr(made, part)} for part in ("train", "test")}
    assert not clusters["train"] & clusters["test"]
    assert {row["source"] for row in made.test} == {"finance"}
    assert {row["source"] for row in made.train} == {"finance", "general"}


def test_rules_made_for_medicine_are_off(made: Made) -> None:
    """The row about a dog stays, and would go if the rule were on."""
    from medqa.data.clean import Cleaner
    from medqa.data.rules import Rules

    question = "我家狗狗生病做手术，宠物保险能报销吗？"
    answer = made.answer(question)
    assert "宠物" in answer
    assert Cleaner(Rules().on, privacy=True).objection(question, answer) == "off_topic"


def test_the_dirt_is_gone_and_the_numbers_are_right(made: Made) -> None:
    assert made.answer("什么叫复利？").startswith("复利是")
    assert "用72除以" in made.answer("用72法则怎样估算本金翻倍的时间？")
    assert made.answer("银行倒闭了存款能赔多少钱？").startswith("在中国，同一存款人")
    (masked,) = [row["instruction"] for row in made.pairs if "[电话]" in row["instruction"]]
    assert masked.startswith("除权除息以后股价为什么会下降？")
    text = json.dumps(made.pairs, ensure_ascii=False)
    assert not re.search(r"&nbsp|<br|您好|希望我的回答|。。|1380013|[０-９]", text)
    asked_twice = [row["output"] for row in made.pairs if "什么是基金净值" in row["instruction"]]
    assert asked_twice == ["基金单位净值等于基金净资产除以基金总份额。"]
    assert "共11025元" in made.answer("一万元按年利率5%复利存两年，到期多少钱？")
    assert round(10_000 * 1.05**2) == 11_025 and 72 / 6 == 12


def test_every_line_of_the_yaml_is_explained(root: Path) -> None:
    text = (root / CONFIG).read_text(encoding="utf-8")
    assert list(yaml.safe_load(text)["rules"]) == ["off_topic", "section_labels"]
    assert re.findall(r"^### (\d)\.", text, re.MULTILINE) == list("123456")
