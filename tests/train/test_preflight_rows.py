"""What is read from data sets of every form that LLaMA-Factory knows, and what is wrong with it."""

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from medqa.errors import DataError
from medqa.train import controls, registered, rows
from medqa.train.findings import Findings
from medqa.train.forms import Row
from medqa.train.registered import Registered

CONTROLS = controls.Controls(["<|user|>", "[gMASK]", "sop", "eop", "</s>"])
PAIR = {"prompt": "instruction", "query": "input", "response": "output"}
TURNS = {"messages": "conversations"}
CHOICE = {"messages": "conversations", "chosen": "chosen", "rejected": "rejected"}


def turns(*said: tuple[str, str]) -> list[dict[str, str]]:
    return [{"from": who, "value": what} for who, what in said]


def written(folder: Path, *lines: Any, name: str = "a.jsonl", **entry: Any) -> Registered:
    """Returns a data set with a file of these rows; a text is a line as it stands."""
    text = [x if isinstance(x, str) else json.dumps(x, ensure_ascii=False) for x in lines]
    (folder / name).write_text("\n".join(text) + "\n", encoding="utf-8")
    return Registered("a", (folder / name,), entry)


def scan(data: Registered, stage: str = "sft", **held: str) -> rows.Scan:
    return rows.scan(data, stage, rows.Held({rows.key(q): s for q, s in held.items()}), CONTROLS)


@pytest.mark.parametrize(
    ("stage", "entry", "row", "expected"),
    [
        ("sft", {}, {"instruction": "问", "output": "答"}, Row("问", ("答",))),
        ("sft", {}, {"instruction": "问", "input": "再", "output": "答"}, Row("问\n再", ("答",))),
        ("sft", {}, {"instruction": "", "input": "再", "output": "答"}, Row("再", ("答",))),
        ("sft", {}, {"instruction": "问"}, "output is missing"),
        ("sft", {}, {"instruction": "问", "output": 1}, "output is a int"),
        ("sft", {}, {"instruction": "问", "output": ["答"]}, "output is a list"),
        ("sft", {}, {"instruction": "问", "output": "\n"}, "output is empty"),
        ("sft", {}, {"instruction": 5, "output": "答"}, "instruction is a int, no text"),
        ("sft", {}, {"instruction": "问", "input": 5, "output": "答"}, "input is a int, no text"),
        ("sft", {}, {"output": "答"}, "instruction and input is empty"),
        (
            "sft",
            {"columns": {"prompt": "q", "response": "a"}},
            {"q": "问", "a": "答"},
            Row("问", ("答",)),
        ),
        ("sft", {"columns": {"prompt": "q", "response": "a"}}, {"a": "答"}, "q is empty"),
        (
            "sft",
            {"columns": {**PAIR, "system": "s", "history": "h"}},
            {"instruction": "问", "output": "答", "s": "你", "h": [["一", "二"]]},
            Row("问", ("答",), ("你", "一", "二")),
        ),
        ("pt", {"columns": {"prompt": "text"}}, {"text": "文"}, Row("文", ())),
        ("pt", {"columns": {"prompt": "text"}}, {"text": ""}, "text is empty"),
        (
            "dpo",
            {"ranking": True, "columns": {"prompt": "q", "chosen": "c", "rejected": "r"}},
            {"q": "问", "c": "好", "r": "坏"},
            Row("问", ("好", "坏")),
        ),
        (
            "dpo",
            {"ranking": True, "columns": {"prompt": "q", "chosen": "c", "rejected": "r"}},
            {"q": "问", "c": "好", "r": "好"},
            "c and r are the same",
        ),
        (
            "dpo",
            {"ranking": True, "columns": {"prompt": "q", "chosen": "c", "rejected": "r"}},
            {"q": "问", "c": "好", "r": None},
            "r is missing",
        ),
        (
            "kto",
            {"columns": {**PAIR, "kto_tag": "good"}},
            {"instruction": "问", "output": "答", "good": True},
            Row("问", ("答",)),
        ),
        (
            "kto",
            {"columns": {**PAIR, "kto_tag": "good"}},
            {"instruction": "问", "output": "答", "good": "yes"},
            "good is neither true nor false",
        ),
        (
            "sft",
            {"formatting": "sharegpt", "columns": TURNS},
            {"conversations": turns(("system", "你"), ("human", "问"), ("gpt", "答"))},
            Row("问", ("答",), ("你",)),
        ),
        (
            "sft",
            {
                "formatting": "openai",
                "columns": {"messages": "m"},
                "tags": {
                    "role_tag": "role",
                    "content_tag": "content",
                    "user_tag": "user",
                    "assistant_tag": "assistant",
                },
            },
            {
                "m": [
                    {"role": r, "content": c}
                    for r, c in (
                        ("user", "问"),
                        ("assistant", "答"),
                        ("user", "再"),
                        ("assistant", "又"),
                    )
                ]
            },
            Row("问", ("又",), ("答", "再")),
        ),
        (
            "sft",
            {"formatting": "sharegpt", "columns": TURNS},
            {"conversations": turns(("human", "问"))},
            "conversations does not end with an answer",
        ),
        (
            "sft",
            {"formatting": "sharegpt", "columns": TURNS},
            {"conversations": turns(("gpt", "答"), ("human", "问"))},
            "message 1 of conversations is of 'gpt', out of turn",
        ),
        (
            "sft",
            {"formatting": "sharegpt", "columns": TURNS},
            {"conversations": "问"},
            "conversations is no list of messages",
        ),
        (
            "sft",
            {"formatting": "sharegpt", "columns": TURNS},
            {"conversations": [{"from": "human", "value": 1}]},
            "a message of conversations has no text under 'value'",
        ),
        (
            "dpo",
            {"formatting": "sharegpt", "ranking": True, "columns": CHOICE},
            {
                "conversations": turns(("human", "问")),
                "chosen": {"from": "gpt", "value": "好"},
                "rejected": {"from": "gpt", "value": "坏"},
            },
            Row("问", ("好", "坏")),
        ),
        (
            "dpo",
            {"formatting": "sharegpt", "ranking": True, "columns": CHOICE},
            {"conversations": turns(("human", "问")), "chosen": "好", "rejected": None},
            "chosen is missing",
        ),
    ],
)
def test_a_row_of_every_form(
    stage: str, entry: dict[str, Any], row: dict[str, Any], expected: Row | str
) -> None:
    assert Registered("a", (), entry).reader(stage)(row) == expected


def test_wrong_rows_are_counted_and_the_first_ones_named(tmp_path: Path) -> None:
    good = {"instruction": "问", "output": "答"}
    lines = [good, "", "{", "[1]", {"instruction": "问"}, {"instruction": "", "output": "答"}, good]
    seen = scan(written(tmp_path, *lines))
    assert (seen.rows, seen.wrong, len(seen.sample)) == (6, 4, 2)
    first, second, third = seen.wrong_examples
    assert first.startswith("line 3: not JSON") and second == "line 4: a list, no row"
    assert third == "line 5: output is missing"


@pytest.mark.parametrize("kind", ["json", "array.json", "csv", "parquet", "arrow"])
def test_every_kind_of_file(tmp_path: Path, kind: str) -> None:
    given = [{"instruction": f"问{n}", "output": "答</s>"} for n in range(3)]
    file = tmp_path / f"a.{kind}"
    if kind == "csv":
        pl.DataFrame(given).write_csv(file)
    elif kind == "parquet":
        pl.DataFrame(given).write_parquet(file)
    elif kind == "arrow":
        pl.DataFrame(given).write_ipc_stream(file)
    else:
        text = "\n".join(map(json.dumps, given)) if kind == "json" else json.dumps(given, indent=1)
        file.write_text(text, encoding="utf-8")
    seen = scan(Registered("a", (file,), {}))
    assert (seen.rows, seen.wrong, seen.sample) == (3, 0, given)
    assert [token for _, token in seen.special] == ["</s>"] * 3


def test_a_text_file_is_a_document_a_line(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("一。\n二。\n", encoding="utf-8")
    data = Registered("a", (tmp_path / "a.txt",), {"columns": {"prompt": "text"}})
    assert scan(data, "pt").sample == [{"text": "一。"}, {"text": "二。"}]


@pytest.mark.parametrize("name", ["a.parquet", "a.json"])
def test_a_file_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"[\xff\xfe")
    with pytest.raises(DataError, match=rf"{name} cannot be read"):
        scan(Registered("a", (tmp_path / name,), {}))


@pytest.mark.parametrize(
    ("text", "token"),
    [
        ("说<|user|>吧", "<|user|>"),
        ("a[gMASK]b", "[gMASK]"),
        ("按 sop 办", "sop"),
        ("people", None),
        ("按sop办", None),
        ("血压<140", None),
        ("[电话]", None),
        ("<|nobody|>", None),
    ],
)
@pytest.mark.parametrize("place", ["instruction", "output"])
@pytest.mark.parametrize("escaped", [False, True])
def test_names_of_control_tokens(
    tmp_path: Path, text: str, token: str | None, place: str, escaped: bool
) -> None:
    row = {"instruction": "问", "output": "答"} | {place: text}
    line = json.dumps(row, ensure_ascii=escaped)
    if escaped:
        line = line.replace("<", "\\u003c").replace("[", "\\u005b")
    assert [t for _, t in scan(written(tmp_path, line)).special] == ([token] if token else [])


def test_a_hint_across_two_blocks_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = written(tmp_path, {"instruction": "按 sop 办", "output": "答"})
    at = data.files[0].read_bytes().index(b"sop")
    monkeypatch.setattr(controls, "_BLOCK", at + 2)
    assert scan(data).special == [(1, "sop")]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("高血压 怎么办？", "高血压怎么办", True),
        ("ＶＣ有什么用？", "vc有什么用", True),
        ("吃1.5片可以吗", "吃15片可以吗", False),
        ("吃1．5片可以吗", "吃1.5片可以吗", True),
        ("高血压吃什么药", "低血压吃什么药", False),
        ("（1）期", "1期", True),
    ],
)
def test_questions_that_are_the_same(tmp_path: Path, one: str, other: str, same: bool) -> None:
    assert (rows.key(one) == rows.key(other)) == same
    seen = scan(written(tmp_path, {"instruction": one, "output": "答"}), **{other: "test"})
    assert [split for _, _, split in seen.asked] == (["test"] if same else [])


def test_a_document_that_asks_a_test_question(tmp_path: Path) -> None:
    data = written(tmp_path, {"text": "开头\n高血压怎么办？\n结尾"}, columns={"prompt": "text"})
    assert len(scan(data, "pt", 高血压怎么办="test").asked) == 1
    assert not scan(data, "pt", 高血压="test").asked


def test_the_sample_is_even_and_bounded(tmp_path: Path) -> None:
    lines = [{"instruction": str(n), "output": "答"} for n in range(5000)]
    sample = [int(row["instruction"]) for row in scan(written(tmp_path, *lines)).sample]
    assert rows.SAMPLE <= len(sample) < 2 * rows.SAMPLE
    assert {b - a for a, b in pairwise(sample)} == {16}
    assert sample[0] == 0 and sample[-1] > 4900


def test_answers_that_are_cut_off(tmp_path: Path) -> None:
    ends = ["好。", "有：", "有，", "有、 ", "a,", "a:"]
    lines = [{"instruction": "问", "output": end} for end in ends]
    assert scan(written(tmp_path, *lines)).unfinished == 5


class TestFind:
    @pytest.fixture(autouse=True)
    def _project(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MEDQA_ROOT", str(tmp_path))
        (tmp_path / "data/some").mkdir(parents=True)
        for name in ("some/a.jsonl", "some/b.jsonl", "c.xlsx"):
            (tmp_path / "data" / name).write_text("{}\n", encoding="utf-8")

    @pytest.mark.parametrize(
        ("entry", "level", "text"),
        [
            ({"file_name": "some"}, None, ""),
            ({"file_name": "some/a.jsonl"}, None, ""),
            ({"file_name": "none.jsonl"}, "problem", r"registered, but data/none\.jsonl is gone"),
            ({"file_name": "c.xlsx"}, "problem", "of no kind that LLaMA-Factory reads"),
            ({"hf_hub_url": "a/b"}, "warning", "fetched from a hub"),
        ],
    )
    def test_an_entry(self, entry: dict[str, Any], level: str | None, text: str) -> None:
        found = Findings()
        sets = registered.find("x", {}, {"x": entry}, found)
        files = [len(one.files) for one in sets]
        assert files == ([] if level else [2 if entry["file_name"] == "some" else 1])
        assert [one.level for one in found] == ([level] if level else [])
        assert all(re.search(text, one.text) for one in found)

    @pytest.mark.parametrize("content", ["{", "[]", "1"])
    def test_a_broken_registry(self, tmp_path: Path, content: str) -> None:
        (tmp_path / "data/dataset_info.json").write_text(content, encoding="utf-8")
        with pytest.raises(DataError, match=r"data/dataset_info\.json .*; restore it"):
            registered.registry({})

    def test_no_registry(self) -> None:
        assert registered.registry({}) == {}
