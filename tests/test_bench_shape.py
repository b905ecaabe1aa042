"""The corpus of the data bench has the shape of Huatuo-26M, and is the same every time."""

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from statistics import mean
from typing import Any

import pytest

COUNT = 100_000
# Rows, bytes, and average lengths in characters, as the data cards and the real files have them.
REAL = {
    "huatuo_consultation_qa/train_datasets.jsonl": (32_706_346, 4_536_646_679, None, None),
    "huatuo_knowledge_graph_qa/train_datasets.jsonl": (796_444, 148_347_165, 16, 36),
    "huatuo_encyclopedia_qa/train_datasets.jsonl": (362_420, 604_103_775, 14, 540),
    "Huatuo26M-Lite/format_data.jsonl": (177_703, 138_220_325, 80, 144),
}
CONSULTATION, GRAPH, ENCYCLOPEDIA, LITE = REAL
each = pytest.mark.parametrize("name", REAL)


@dataclass(frozen=True)
class Pair:
    questions: list[str]
    answer: str


def flat(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else [text for item in value for text in flat(item)]


def make(root: Path, folder: Path, rows: int, *arguments: str) -> Path:
    command = [sys.executable, "scripts/bench/huatuo_shape.py", str(folder), "--rows", str(rows)]
    subprocess.run([*command, *arguments], cwd=root, check=True, stdout=subprocess.PIPE)
    return folder


@pytest.fixture(scope="module")
def corpus(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(root, tmp_path_factory.mktemp("shape"), COUNT)


@pytest.fixture(scope="module")
def pairs(corpus: Path) -> dict[str, list[Pair]]:
    found: dict[str, list[Pair]] = {}
    for name in REAL:
        with (corpus / name).open(encoding="utf-8") as lines:
            rows = [json.loads(line) for line in lines]
        question, answer = ("question", "answer") if name == LITE else ("questions", "answers")
        found[name] = [Pair(flat(row[question]), *flat(row[answer])) for row in rows]
    return found


def test_the_sets_have_their_proportions(pairs: dict[str, list[Pair]]) -> None:
    assert sum(map(len, pairs.values())) == COUNT
    whole = sum(rows for rows, *_ in REAL.values())
    for name, (rows, *_) in REAL.items():
        assert abs(len(pairs[name]) - COUNT * rows / whole) <= 2


@each
def test_rows_have_their_size(name: str, corpus: Path, pairs: dict[str, list[Pair]]) -> None:
    rows, size, asked, answered = REAL[name]
    made = (corpus / name).stat().st_size / len(pairs[name])
    assert made == pytest.approx(size / rows, rel=0.1)
    if asked:
        questions = [text for pair in pairs[name] for text in pair.questions]
        assert mean(map(len, questions)) == pytest.approx(asked, rel=0.1)
        assert mean(len(pair.answer) for pair in pairs[name]) == pytest.approx(answered, rel=0.1)


def test_raw_rows_have_the_schemas(corpus: Path) -> None:
    rows = {}
    for name in REAL:
        with (corpus / name).open(encoding="utf-8") as lines:
            rows[name] = json.loads(next(lines))
    for name in (CONSULTATION, GRAPH, ENCYCLOPEDIA):
        assert list(rows[name]) == ["questions", "answers"]
        assert [type(text) for text in rows[name]["answers"]] == [str]
        question = rows[name]["questions"][0]
        assert isinstance(question, list if name == ENCYCLOPEDIA else str)
    keys = ["id", "question", "answer", "score", "label", "related_diseases"]
    assert list(rows[LITE]) == keys


@each
def test_links_are_the_consultations_answers_and_no_others(
    name: str, pairs: dict[str, list[Pair]]
) -> None:
    links = sum(re.match(r"https://\S+$", pair.answer) is not None for pair in pairs[name])
    assert links == (len(pairs[name]) if name == CONSULTATION else 0)


def repeated(questions: list[str]) -> float:
    return 1 - len(set(questions)) / len(questions)


def test_questions_repeat(pairs: dict[str, list[Pair]]) -> None:
    shares = {name: repeated([pair.questions[0] for pair in pairs[name]]) for name in REAL}
    assert shares[ENCYCLOPEDIA] == pytest.approx(0.37, abs=0.03)
    assert shares[LITE] == pytest.approx(0.009, abs=0.009)
    assert shares[GRAPH] < 0.001
    assert all(re.fullmatch("[^的]+的[^的]+有些什么？", pair.questions[0]) for pair in pairs[GRAPH])
    assert mean(len(pair.questions) for pair in pairs[ENCYCLOPEDIA]) == pytest.approx(1.1, abs=0.03)


@pytest.mark.parametrize(
    ("pattern", "share", "tolerance"),
    [
        ("^[你您]好", 0.29, 0.04),
        ("^[\u4e00-\u9fff]{4}[：:]", 0.24, 0.04),
        ("(祝|希望)[^。！]+[。！]?$", 0.10, 0.03),
        ("[^。！？]$", 0.28, 0.06),
        ("[，：]$", 0.0235, 0.015),
        ("[\u4e00-\u9fff],", 0.145, 0.05),
        ("电话1[3-9][0-9]{9}", 0.01, 0.01),
        ("[１２３]", 0.01, 0.01),
        ("<br/>|<p>|&nbsp;|&lt;", 0.01, 0.01),
    ],
)
def test_answers_have_the_dirt(
    pattern: str, share: float, tolerance: float, pairs: dict[str, list[Pair]]
) -> None:
    answers = [pair.answer for name in (ENCYCLOPEDIA, LITE) for pair in pairs[name]]
    found = mean(re.search(pattern, answer) is not None for answer in answers)
    assert found == pytest.approx(share, abs=tolerance)
    assert found > 0


def test_near_duplicates_are_planted(pairs: dict[str, list[Pair]]) -> None:
    questions = {pair.questions[0] for pair in pairs[ENCYCLOPEDIA]}
    courteous = [text for text in questions if text.startswith("请问一下")]
    bare = {text.rstrip("？") for text in questions}
    assert len(courteous) > 10
    assert all(text.removeprefix("请问一下").removesuffix("呢？") in bare for text in courteous)


def test_a_seed_gives_the_same_bytes_and_another_gives_others(root: Path, tmp_path: Path) -> None:
    folders = [
        make(root, tmp_path / name, 2000, "--seed", seed)
        for name, seed in (("one", "1"), ("again", "1"), ("two", "2"))
    ]
    one, again, two = (
        [sha256((folder / name).read_bytes()).hexdigest() for name in REAL] for folder in folders
    )
    assert one == again
    assert not set(one) & set(two)
