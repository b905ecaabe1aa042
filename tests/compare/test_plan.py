"""Which keys go together, and what is read."""

from pathlib import Path
from typing import Any

import pytest

from medqa.compare import plan
from medqa.compare.plan import ComparePlan, Predictions
from medqa.config import validate
from medqa.errors import ConfigError, DataError, MissingInputError

from .conftest import lines

ADAPTER = {"model_name_or_path": "m", "adapter_name_or_path": "a"}
MODELS = {"model_name_or_path": "m", "tuned_model_name_or_path": "t"}
SERVER = {"base_url": "http://127.0.0.1:1/v1", "model": "x"}
ENDPOINTS = {"endpoints": {"base": SERVER, "tuned": SERVER}}
PREDICTIONS = {"predictions": {"base": "b.jsonl", "tuned": "t.jsonl"}}
REST = {"test_file": "t.jsonl", "output_dir": "o"}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEDQA_ROOT", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("path", "command"),
    [
        ("data/processed/huatuo/test.jsonl", "scripts/convert.py configs/data/huatuo.yaml"),
        ("mine/test.jsonl", "mine/test.jsonl does not exist"),
    ],
)
def test_an_absent_file_says_what_makes_it(path: str, command: str) -> None:
    with pytest.raises(MissingInputError) as error:
        plan.read_pairs(path, 1)
    assert command in str(error.value)
    assert "configs/data/mine.yaml" not in str(error.value)


def test_pairs(folder: Path) -> None:
    rows = [
        {"instruction": "一", "input": "", "output": "1"},
        {"instruction": "二", "input": "加", "output": "2\u2028"},
        {"instruction": "三", "output": "3", "id": "x"},
    ]
    lines(folder / "t.jsonl", rows)
    pairs = [("一", "1"), ("二\n加", "2\u2028"), ("三", "3")]
    assert plan.read_pairs("t.jsonl", 2) == pairs[:2]
    assert plan.read_pairs("t.jsonl", 9) == pairs


def test_only_the_rows_that_are_needed_are_read(folder: Path) -> None:
    (folder / "t.jsonl").write_text('{"instruction": "a", "output": "b"}\n{', encoding="utf-8")
    assert plan.read_pairs("t.jsonl", 1) == [("a", "b")]
    with pytest.raises(DataError, match="line 2"):
        plan.read_pairs("t.jsonl", 2)


def test_no_pairs(folder: Path) -> None:
    lines(folder / "t.jsonl", [])
    with pytest.raises(DataError, match=r"t\.jsonl has no rows"):
        plan.read_pairs("t.jsonl", 1)


def checked(values: dict[str, Any]) -> ComparePlan:
    return validate(values, ComparePlan, "compare.yaml")


@pytest.mark.parametrize(
    ("who", "way"),
    [
        (ADAPTER | REST, "adapter"),
        (MODELS | REST, "models"),
        (ENDPOINTS | REST, "endpoints"),
        (PREDICTIONS | {"output_dir": "o"}, "predictions"),
    ],
)
def test_four_ways_to_say_who_answers(who: dict[str, Any], way: str) -> None:
    assert checked(who).way == way


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (REST, "expected one of adapter_name_or_path, tuned_model_name_or_path, endpoints and pre"),
        (ADAPTER | MODELS | REST, "found adapter_name_or_path and tuned_model_name_or_path"),
        (REST | {"adapter_name_or_path": "a"}, "wants the base beside it, model_name_or_path"),
        (ENDPOINTS | REST | {"model_name_or_path": "m"}, "is not read beside endpoints"),
        (PREDICTIONS | REST, "take out probes, questions and test_file"),
        (ADAPTER | {"output_dir": "o"}, "missing key 'test_file'"),
        (
            ADAPTER | REST | {"test_rows": 5, "answer_rows": 6},
            "answer_rows 6 is more than test_row",
        ),
    ],
)
def test_keys_that_do_not_go_together(values: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as error:
        checked(values)
    assert says in str(error.value)
    assert str(error.value).startswith("compare.yaml: ")
    assert "{" not in str(error.value), "the file is not repeated"


@pytest.mark.parametrize(
    ("who", "gate", "says"),
    [
        (
            ADAPTER,
            {"keep": {"generl": 1}},
            "'generl' is no set of 'probes'; did you mean 'general'",
        ),
        (ADAPTER, {"least": {"x": 0.5}}, "gate.least: 'x' is no set of 'probes'"),
        (ENDPOINTS, {"perplexity_p": 0.05}, "no perplexity is measured on endpoints"),
        (ADAPTER, {"judge_p": 0.05}, "there is no 'judge'"),
    ],
)
def test_a_gate_that_asks_for_what_is_not_measured(
    who: dict[str, Any], gate: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError) as error:
        checked(who | REST | {"probes": {"general": "g.yaml"}, "gate": gate})
    assert says in str(error.value)


def test_a_gate_over_categories_wants_probes() -> None:
    with pytest.raises(ConfigError, match=r"gate\.category_loss: there are no 'probes'"):
        checked(ADAPTER | REST | {"gate": {"category_loss": 0}})


def prediction(prompt: str, predict: str, label: str = "l") -> dict[str, str]:
    return {"prompt": prompt, "predict": predict, "label": label}


def read_two(folder: Path, base: list[Any], tuned: list[Any]) -> list[tuple[str, str, str, str]]:
    lines(folder / "b.jsonl", base)
    lines(folder / "t.jsonl", tuned)
    return plan.read_predictions(Predictions(**PREDICTIONS["predictions"]))


def test_predictions(folder: Path) -> None:
    base = [prediction("一", "旧", "答"), prediction("二", "")]
    tuned = [prediction("一", "新", "答"), prediction("二", "有")]
    assert read_two(folder, base, tuned) == [("一", "答", "旧", "新"), ("二", "l", "", "有")]


@pytest.mark.parametrize(
    ("base", "tuned", "says"),
    [
        (
            [prediction("同", "a"), prediction("高血压能停药吗？", "a")],
            [prediction("同", "b"), prediction("高血脂能停药吗？", "b")],
            "line 2: the two files do not answer the same questions: prompt is '高血压能停药吗？' "
            "in b.jsonl and '高血脂能停药吗？' in t.jsonl",
        ),
        ([prediction("问", "a", "甲")], [prediction("问", "a", "乙")], "line 1: .*label is '甲'"),
        (
            [prediction("长" * 50 + "甲", "a")],
            [prediction("长" * 50 + "甲乙", "a")],
            "prompt is '…长{14}甲' in b.jsonl and '…长{14}甲乙' in",
        ),
        ([prediction("问", "a")] * 2, [prediction("问", "a")], "b.jsonl has 2 rows and t.jsonl 1"),
        ([], [], "b.jsonl has no rows"),
        ([{"prompt": "问"}], [], "expected an object with the strings prompt, predict, label"),
    ],
)
def test_files_that_do_not_answer_the_same(
    folder: Path, base: list[Any], tuned: list[Any], says: str
) -> None:
    with pytest.raises(DataError, match=says):
        read_two(folder, base, tuned)
