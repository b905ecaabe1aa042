"""Probe files: what they must be, what is wrong with them, and how an answer is judged."""

import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from medqa.compare import probes
from medqa.compare.probes import Judgement, Probe, ProbeSet
from medqa.errors import ConfigError, DataError, MissingInputError

from .conftest import lines

FILE = "data/sample/probes.jsonl"
YAML = "configs/probes/mine.yaml"
PROBE: dict[str, Any] = {
    "id": "sildenafil_alcohol",
    "category": "alcohol",
    "question": "饮酒以后可以服用西地那非吗",
    "must_all": ["低血压|血压下降|头晕"],
    "must_any": ["不建议", "避免", "不宜"],
    "must_not": ["可以放心服用", "西地那非=他达拉非|伐地那非"],
    "on_topic": ["酒"],
    "off_topic": ["癌"],
    "reason": "两者都扩张血管",
    "source": "枸橼酸西地那非片说明书",
}
RIGHT = "不建议饮酒后服用西地那非，可能引起低血压。"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEDQA_ROOT", str(tmp_path))
    return tmp_path


def written(folder: Path, *entries: Any, **changes: Any) -> str:
    """Writes a probe YAML and returns its path."""
    values = {
        "title": {"zh": "我的", "en": "mine"},
        "categories": {PROBE["category"]: "饮酒"},
        "synonyms": {"西地那非": ["伟哥", "viagra"], "他达拉非": ["希爱力"]},
        "probes": list(entries),
        **changes,
    }
    file = folder / YAML
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(values, allow_unicode=True, sort_keys=False), encoding="utf-8")
    return YAML


def probe(folder: Path, **changes: Any) -> Probe:
    """Returns PROBE with changes; a list that is None is left out."""
    entry = {key: value for key, value in (PROBE | changes).items() if value is not None}
    return probes.read_probes(written(folder, entry)).probes[0]


def problems(path: str) -> list[str]:
    with pytest.raises(ConfigError) as error:
        probes.read_probes(path)
    assert str(error.value).startswith(f"{YAML}: ")
    return error.value.problems


# YAML


def test_a_set(folder: Path) -> None:
    second = PROBE | {"id": "second", "question": "伟哥就是希爱力吗？"}
    found = probes.read_probes(written(folder, PROBE, second))
    assert isinstance(found, ProbeSet)
    assert (found.name, found.title) == ("mine", {"zh": "我的", "en": "mine"})
    assert [p.id for p in found.probes] == ["sildenafil_alcohol", "second"]
    first = found.probes[0]
    for key in ("category", "question", "reason", "source"):
        assert getattr(first, key) == PROBE[key]
    for key in ("must_all", "must_any", "must_not", "on_topic", "off_topic"):
        assert [term.text for term in getattr(first, key)] == PROBE[key]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (RIGHT, ""),
        ("避免与酒同服，以免頭暈。", ""),
        ("", "the answer is empty"),
        (" \n*", "the answer is empty"),
        ("不建议饮酒后服用。", "must_all 低血压|血压下降|头晕: not said"),
        (
            "不建议饮酒后服用，不会引起低血压。",
            "must_all 低血压|血压下降|头晕: 低血压 is not asserted in "
            "'…建议饮酒后服用，不会引起低血压。'",
        ),
        ("饮酒后服用可能头晕。", "must_any 不建议, 避免, 不宜: not said"),
        ("不建议服用，可能头晕。", "on_topic 酒: not mentioned"),
        (RIGHT + "它不治癌。", "off_topic 癌: '…，可能引起低血压。它不治癌。'"),
        (
            RIGHT + "平时可以放心 服用。",
            "must_not 可以放心服用: '…非，可能引起低血压。平时可以放心 服用。'",
        ),
        (RIGHT + "平时不可以放心服用。", ""),
        (
            RIGHT + "伟哥（希爱力）是处方药。",
            "must_not 西地那非=他达拉非: '…，可能引起低血压。伟哥（希爱力）是处方药。'",
        ),
        (RIGHT + "伟哥不是希爱力。", ""),
    ],
)
def test_judge(folder: Path, answer: str, why: str) -> None:
    assert probe(folder).judge(answer) == Judgement(passed=not why, why=why)


def test_long_terms_are_cut_in_the_reason(folder: Path) -> None:
    long = "|".join(f"词{number}" for number in range(40))
    why = probe(folder, must_all=[long]).judge(RIGHT).why
    assert why.startswith("must_all 词0|词1|")
    assert why.endswith("…: not said")
    assert len(why) < 90


@pytest.mark.parametrize("key", ["must_all", "must_any", "on_topic"])
def test_one_of_three_lists_is_enough(folder: Path, key: str) -> None:
    lists = dict.fromkeys(("must_all", "must_any", "must_not", "on_topic", "off_topic"))
    only = probe(folder, **(lists | {key: ["酒"]}))
    assert only.judge("酒").passed
    assert not only.judge("水").passed


def test_the_question_counts_for_what_is_put_off(folder: Path) -> None:
    lists = dict.fromkeys(("must_all", "must_not", "on_topic", "off_topic"))
    asked = probe(folder, question="孩子发烧抽搐怎么办", must_any=["就医"], **lists)
    assert asked.judge("如果出现抽搐，请就医").passed
    assert not asked.judge("如果出现皮疹，请就医").passed


def test_all_problems_of_a_file_at_once(folder: Path) -> None:
    entries = [
        PROBE | {"must_al": ["a"], "category": "Alcohol "},
        PROBE | {"on_topic": ["酒||水"], "must_not": ["低血压|昏迷"]},
        {"id": "bare", "category": "a", "question": "？", "reason": "r", "source": "s"},
        PROBE | {"id": "third", "must_any": ["不建议", 3], "question": " "},
    ]
    synonyms = {"西地那非": ["伟哥", " "], "他达拉非": ["偉 哥"]}
    found = "\n".join(problems(written(folder, *entries, synonyms=synonyms, extra=1)))
    for part in (
        "unknown key 'extra'",
        "unknown key 'probes.sildenafil_alcohol.must_al'; did you mean 'must_all'?",
        "probes.sildenafil_alcohol.category: string should match",
        "probes.third.must_any.1: input should be a valid string, found 3",
        "probes.third.question: string should have at least 1 character",
        "synonyms.西地那非: ' ' is no name",
        "synonyms: '伟哥' stands under '西地那非' and '他达拉非'",
        "probes: id 'sildenafil_alcohol' is given 2 times",
        "probes.sildenafil_alcohol.on_topic: '酒||水' has an empty alternative",
        "probes.sildenafil_alcohol.must_not: '低血压' contradicts must_all",
        "probes.bare: any answer would pass; give must_all, must_any or on_topic",
    ):
        assert part in found
    assert "at least 1 item" not in found, "a bad probe is a probe"


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"must_all": [""]}, "must_all: '' has an empty alternative"),
        ({"must_all": ["a|"]}, "must_all: 'a|' has an empty alternative"),
        ({"must_all": [" * "]}, "has an empty alternative"),
        ({"must_all": ["…a"]}, "has an empty alternative"),
        ({"must_all": ["a...", "b"]}, "has an empty alternative"),
        ({"must_not": ["西地那非="]}, "has an empty alternative"),
        ({"must_not": ["=西地那非"]}, "has an empty alternative"),
        ({"must_not": ["西地那非=希爱力|伟哥"]}, "can never match: 西地那非=伟哥 are one name"),
        ({"must_not": ["a|b=c"]}, "has | or = before ="),
        ({"must_not": ["a=b=c"]}, "has | or = before ="),
        ({"must_not": ["a=b…c"]}, "has … in a naming"),
        ({"on_topic": ["a=b"]}, "on_topic: 'a=b' is a naming"),
        ({"off_topic": ["a=b"]}, "off_topic: 'a=b' is a naming"),
        ({"must_all": ["立即，…医院"]}, "can never match: the parts of 立即，…医院"),
        ({"must_all": ["可以喝吗"]}, "can never match: 可以喝吗 asserts nothing"),
        ({"must_not": ["可以喝吗"]}, "can never match: 可以喝吗 claims nothing"),
        ({"must_not": ["頭 晕"]}, "must_not: '頭 晕' contradicts must_all"),
        ({"must_not": ["避免"]}, "must_not: '避免' contradicts must_any"),
        ({"off_topic": ["酒"]}, "off_topic: '酒' contradicts on_topic"),
        ({"must_all": ["伟哥"], "must_not": ["viagra"]}, "must_not: 'viagra' contradicts must_all"),
        ({"id": "Two words"}, "id: string should match pattern"),
        ({"reason": None}, "missing key 'probes.sildenafil_alcohol.reason'"),
        ({"must_all": "低血压"}, "probes.sildenafil_alcohol.must_all: input should be a valid"),
    ],
)
def test_a_bad_probe(folder: Path, changes: dict[str, Any], problem: str) -> None:
    entry = {key: value for key, value in (PROBE | changes).items() if value is not None}
    assert problem in "\n".join(problems(written(folder, entry)))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"probes": []}, "probes: "),
        ({"probes": None}, "probes: "),
        ({"probes": ["a"]}, "probes.0: "),
        ({"probes": {"a": 1}}, "probes: "),
        ({"synonyms": ["a"]}, "synonyms: "),
        ({"synonyms": {"a": "b"}}, "synonyms.a: "),
        ({"synonyms": {"a": ["b", 3]}}, "synonyms.a.1: "),
        ({"synonyms": {"a": ["b|c"]}}, "synonyms.a: 'b|c' is no name"),
        ({"title": {"zh": "我的"}}, "missing key 'title.en'"),
        ({"title": "我的"}, "title: "),
        ({"categories": {}}, "categories: 'alcohol' has no name here"),
        ({"categories": {"alcohol": "饮酒", "dose": "剂量"}}, "categories: 'dose' has no probe"),
        ({"categories": None}, "categories: "),
    ],
)
def test_a_bad_file(folder: Path, changes: dict[str, Any], problem: str) -> None:
    assert any(p.startswith(problem) for p in problems(written(folder, PROBE, **changes)))


def test_a_key_given_twice_and_a_list_for_a_file(folder: Path) -> None:
    path = written(folder, PROBE)
    with (folder / YAML).open("a", encoding="utf-8") as file:
        file.write("title: {zh: a, en: b}\n")
    assert "key 'title' is given twice" in problems(path)[0]
    (folder / YAML).write_text("- a\n", encoding="utf-8")
    assert "expected 'key: value' lines" in problems(path)[0]


def test_two_hundred_probes_judge_two_long_answers_in_under_a_second(folder: Path) -> None:
    names = {f"药{n}": [f"药名{n}", f"商品{n}", f"drug{n}"] for n in range(60)}
    entries = [
        PROBE | {"id": f"probe_{n}", "must_any": [f"药{n % 60}", "不宜"]} for n in range(200)
    ]
    found = probes.read_probes(written(folder, *entries, synonyms=names)).probes
    long = ("如果没有禁忌可以服用，不宜饮酒、吸烟，以免低血压；商品7每日不超过４克。" * 20)[:500]
    found[0].judge(long)
    start = time.process_time()
    for one in found:
        one.judge(long)
        one.judge(long[::-1])
    assert time.process_time() - start < 1


# JSON lines


def row(kind: str, expect: str, question: str = "？") -> dict[str, str]:
    return {"kind": kind, "question": question, "expect": expect}


def short(folder: Path, *rows: Any) -> tuple[Probe, ...]:
    lines(folder / FILE, list(rows))
    return probes.read_probes(FILE).probes


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
        ("它不是抗生素。", False),
        ("它是抗生素，不是止痛药。", True),
    ],
)
def test_the_short_form(folder: Path, answer: str, right: bool) -> None:
    first, *_ = short(folder, row("class", "抗生素"), row("class", "止痛药"), row("use", "感冒"))
    assert first.judge(answer).passed is right


def test_the_short_form_as_a_set(folder: Path) -> None:
    lines(folder / FILE, [row("class", "抗生素", "一？"), row("药", "感冒", "二？")])
    found = probes.read_probes(FILE)
    assert (found.name, found.title) == ("probes", {"zh": "probes", "en": "probes"})
    assert [(p.id, p.category, p.question) for p in found.probes] == [
        ("class_1", "class", "一？"),
        ("药_2", "药", "二？"),
    ]


@pytest.mark.parametrize(
    ("expect", "answer"),
    [
        ("120", "请拨打１２０。"),
        ("（慎用）", "(慎用)"),
        ("B12", "维生素Ｂ１２"),
        ("１０mg", "每次 10 mg"),
        ("维生素 C", "维生素　C"),
        ("a|b", "a|b"),
        ("pH=7", "pH=7"),
        ("甲…乙", "甲...乙"),
    ],
)
def test_the_short_form_is_literal(folder: Path, expect: str, answer: str) -> None:
    assert short(folder, row("a", expect))[0].judge(answer).passed
    assert not short(folder, row("a", expect))[0].judge("a").passed


def test_a_value_that_is_part_of_another(folder: Path) -> None:
    first, second = short(folder, row("use", "心绞痛"), row("use", "不稳定型心绞痛"))
    assert [term.text for term in first.must_not] == ["不稳定型心绞痛"]
    assert second.must_not == ()
    assert first.judge("治心绞痛").passed
    assert not first.judge("治不稳定型心绞痛").passed, "names the other"
    assert second.judge("治不稳定型心绞痛").passed
    assert not second.judge("治心绞痛").passed


def test_one_value_asked_in_several_ways_is_no_mistake(folder: Path) -> None:
    found = short(folder, row("use", "感冒", "一？"), row("use", "感冒", "二？"))
    assert [p.question for p in found] == ["一？", "二？"]
    assert all(p.judge("治感冒").passed and not p.must_not for p in found)
    width = short(folder, row("dose", "10mg"), row("dose", "１０ｍｇ"))
    assert all(p.judge("10mg").passed for p in width), "the same value, written in two ways"


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
        probes.read_probes(FILE)


def test_a_probe_that_any_answer_would_pass(folder: Path) -> None:
    with pytest.raises(DataError, match="line 2: 'expect' is empty"):
        short(folder, row("a", "b"), row("a", " 　"))


def test_no_probes(folder: Path) -> None:
    with pytest.raises(DataError, match=r"probes.jsonl has no probes"):
        short(folder)


@pytest.mark.parametrize(
    ("path", "command"),
    [
        (FILE, "run: python scripts/make_sample.py"),
        ("data/processed/huatuo/test.jsonl", "scripts/convert.py configs/data/huatuo.yaml"),
        ("mine/probes.jsonl", "mine/probes.jsonl does not exist"),
        (YAML, "configs/probes/mine.yaml does not exist; run: ls configs/probes"),
    ],
)
def test_an_absent_file_says_what_makes_it(path: str, command: str) -> None:
    with pytest.raises(MissingInputError) as error:
        probes.read_probes(path)
    assert command in str(error.value)
    assert "configs/data/mine.yaml" not in str(error.value)
