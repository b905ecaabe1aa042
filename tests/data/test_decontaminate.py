import json
import random
from pathlib import Path

import polars as pl

from medqa.data.decontaminate import matches
from medqa.data.normal import canonical
from tests.data.planted import copies, templates


def evaluation(questions: list[str], source: str = "exam") -> pl.DataFrame:
    return pl.DataFrame(
        {
            "canonical": [canonical(question) for question in questions],
            "question": questions,
            "source": [source] * len(questions),
        }
    )


def found(training: list[str], asked: pl.DataFrame) -> pl.DataFrame:
    return matches(pl.Series([canonical(question) for question in training]), asked)


def test_copies_in_training_are_found_and_nothing_else(shared: Path) -> None:
    lines = (shared / "huatuo" / "huatuo26M-testdatasets.part1.jsonl").read_text("utf-8")
    questions = sorted({json.loads(line)["questions"] for line in lines.splitlines()})
    random.Random(3).shuffle(questions)
    asked, others = questions[:500], questions[500:]
    kinds = (
        "greeting",
        "closing",
        "punctuation",
        "fillers",
        "substitute 1",
        "insert 1",
        "delete 1",
    )
    planted = [row for row in copies(asked, 100, seed=1) if row[0] in kinds]
    training = [*others, *asked[:50], *(copy for _, _, copy in planted)]
    hits = found(training, evaluation(asked))
    of = dict(hits.select("index", "question").iter_rows())
    assert set(range(len(others), len(others) + 50)) <= of.keys()
    first = len(others) + 50
    right = [of.get(first + n) == question for n, (_, question, _) in enumerate(planted)]
    assert sum(right) / len(right) >= 0.95
    # The test set does repeat itself a little.
    assert sum(index < len(others) for index in of) <= 0.02 * len(others)


def test_copies_of_template_questions_are_found_and_few_others() -> None:
    questions = templates(6000, seed=9)
    asked, others = questions[:100], questions[100:]
    hits = found([*others, *asked], evaluation(asked))
    assert set(range(len(others), len(questions))) <= set(hits["index"])
    assert len(hits) - 100 <= 0.01 * len(others)


def test_the_best_match_is_shown() -> None:
    training = [
        "饮酒以后可以服用西地那非吗",
        "孩子咳嗽三天要拍片吗",
        "请问饮酒以后可以服用西地那非片吗",
    ]
    asked = pl.concat(
        [
            evaluation(["饮酒以后可以服用西地那非片"], "a"),
            evaluation(["饮酒以后可以服用西地那非"], "b"),
        ]
    )
    hits = found(training, asked)
    assert hits.schema == {
        "index": pl.UInt32,
        "question": pl.String,
        "source": pl.String,
        "similarity": pl.Float64,
    }
    assert hits.rows() == [
        (0, "饮酒以后可以服用西地那非", "b", 1.0),
        (2, "饮酒以后可以服用西地那非片", "a", 1.0),
    ]


def test_a_near_one_shows_how_near() -> None:
    hits = found(["饮酒以后能服用希地那非片"], evaluation(["饮酒以后能服用西地那非片"]))
    assert hits["similarity"].to_list() == [11 / 12]


def test_the_most_similar_of_two_is_shown() -> None:
    asked = evaluation(
        ["一二三四五六七八九十甲乙丙丁戊己庚辛申子", "一二三四五六七八九十甲乙丙丁戊己庚辛壬子"]
    )
    hits = found(["一二三四五六七八九十甲乙丙丁戊己庚辛壬癸"], asked)
    assert hits["question"].to_list() == [asked["question"][1]]
    assert hits["similarity"].to_list() == [0.95]


def test_two_characters_changed_in_twelve_are_too_many() -> None:
    assert found(["饮酒以后能服用希第那非片"], evaluation(["饮酒以后能服用西地那非片"])).is_empty()


def test_another_disease_in_a_long_template_is_not_the_same_question() -> None:
    names = [
        "".join(chr(code + n) for code in (0x7000, 0x7400, 0x7800, 0x8000)) for n in range(500)
    ]
    texts = [f"{name}患者出院后饮食起居需要注意哪几个方面" for name in names]
    others = [texts[0][:3] + texts[1][3:], texts[2][:1] + texts[0][1:]]
    assert found([*others, *texts[3:]], evaluation(texts[:1])).is_empty()


def test_nothing_to_compare() -> None:
    none = evaluation([])
    assert matches(pl.Series([], dtype=pl.String), evaluation(["胃癌"])).is_empty()
    assert matches(pl.Series(["胃癌"]), none.cast(pl.String)).is_empty()
