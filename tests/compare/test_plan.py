"""What is asked, and when an answer is right."""

from pathlib import Path
from typing import Any

import pytest

from medqa.compare import plan
from medqa.compare.plan import Probe
from medqa.errors import DataError, MissingInputError

from .conftest import lines

FILE = "data/sample/probes.jsonl"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEDQA_ROOT", str(tmp_path))
    return tmp_path


def row(kind: str, expect: str, question: str = "？") -> dict[str, str]:
    return {"kind": kind, "question": question, "expect": expect}


def probes(folder: Path, *rows: Any) -> list[Probe]:
    lines(folder / FILE, list(rows))
    return plan.read_probes(FILE)


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("它是抗生素。", True),
        ("抗生素", True),
        ("它是抗 生\n素。", True),
        ("", False),
        ("它是药。", False),
        ("它是止痛药。", False),
        ("它是抗生素，也是止痛药。", False),  # names a value of another probe of the kind
        ("它是抗生素，治感冒。", True),  # a value of another kind is no matter
    ],
)
def test_passes(folder: Path, answer: str, right: bool) -> None:
    first, *_ = probes(folder, row("class", "抗生素"), row("class", "止痛药"), row("use", "感冒"))
    assert first.passes(answer) is right


@pytest.mark.parametrize(
    ("expect", "answer"),
    [
        ("120", "请拨打１２０。"),
        ("（慎用）", "(慎用)"),
        ("B12", "维生素Ｂ１２"),
        ("１０mg", "每次 10 mg"),
        ("维生素 C", "维生素　C"),
    ],
)
def test_full_width_forms_and_spaces(folder: Path, expect: str, answer: str) -> None:
    assert probes(folder, row("a", expect))[0].passes(answer)


def test_a_value_that_is_part_of_another(folder: Path) -> None:
    short, long = probes(folder, row("use", "心绞痛"), row("use", "不稳定型心绞痛"))
    assert short.others == {"不稳定型心绞痛"}
    assert long.others == set()
    assert short.passes("治心绞痛")
    assert not short.passes("治不稳定型心绞痛"), "names the other"
    assert long.passes("治不稳定型心绞痛")
    assert not long.passes("治心绞痛")


def test_one_value_asked_in_several_ways_is_no_mistake(folder: Path) -> None:
    found = probes(folder, row("use", "感冒", "一？"), row("use", "感冒", "二？"))
    assert [p.question for p in found] == ["一？", "二？"]
    assert all(p.passes("治感冒") and not p.others for p in found)
    width = probes(folder, row("dose", "10mg"), row("dose", "１０ｍｇ"))
    assert all(p.passes("10mg") for p in width), "the same value, written in two ways"


@pytest.mark.parametrize(
    "bad",
    [
        b"{",
        b"",
        b"3",
        b"[]",
        b"null",
        b'{"kind": "a", "question": "b"}',
        b'{"kind": "a", "question": "b", "expect": 3}',
        b'{"kind": "a", "question": "b", "expect": null}',
        '{"kind": "感冒"}'.encode("gb18030"),
        b"\xff\xfe\x00",
    ],
    ids=repr,
)
def test_a_bad_line_is_named(folder: Path, bad: bytes) -> None:
    lines(folder / FILE, [row("a", "b")])
    with (folder / FILE).open("ab") as out:
        out.write(bad + b"\n")
    with pytest.raises(DataError, match=r"^data/sample/probes.jsonl line 2: expected an object wi"):
        plan.read_probes(FILE)


def test_a_probe_that_any_answer_would_pass(folder: Path) -> None:
    with pytest.raises(DataError, match="line 2: 'expect' is empty"):
        probes(folder, row("a", "b"), row("a", " 　"))


def test_no_probes(folder: Path) -> None:
    with pytest.raises(DataError, match=r"probes.jsonl has no probes"):
        probes(folder)


@pytest.mark.parametrize(
    ("path", "command"),
    [
        (FILE, "run: python scripts/make_sample.py"),
        ("data/processed/huatuo/test.jsonl", "scripts/convert.py configs/data/huatuo.yaml"),
        ("mine/probes.jsonl", "mine/probes.jsonl does not exist"),
    ],
)
def test_an_absent_file_says_what_makes_it(path: str, command: str) -> None:
    for read in (plan.read_probes, lambda p: plan.read_pairs(p, 1)):
        with pytest.raises(MissingInputError) as error:
            read(path)
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
