from zlib import crc32

import polars as pl
import pytest

from medqa.data.leakage import LONG_ANSWER, measure


def frame(*rows: tuple[str, int, int]) -> pl.DataFrame:
    """Rows of question, answer key and answer length.

    Not keyed by `hash`, which is another in every run: so would be what is sampled.
    """
    return pl.DataFrame(
        {
            "question": [row[0] for row in rows],
            "question_key": pl.Series([crc32(row[0].encode()) for row in rows], dtype=pl.UInt64),
            "answer_key": pl.Series([row[1] for row in rows], dtype=pl.UInt64),
            "answer_chars": [row[2] for row in rows],
        },
        schema_overrides={"question": pl.String, "answer_chars": pl.UInt32},
    )


TRAIN = frame(
    ("饮酒以后可以服用西地那非吗？", 1, 200),
    ("孩子咳嗽三天了要不要拍片子", 2, 10),
    ("ＡＢＯ溶血怎么办", 3, 60),
)


def shares(*rows: tuple[str, int, int]) -> dict[str, float | int]:
    return measure(TRAIN, frame(*rows), sample=100, seed=1)


NONE = {"sampled": 1, "equal": 0.0, "similar_90": 0.0, "similar_80": 0.0, "same_answer": 0.0}


def test_an_equal_question_whatever_its_punctuation_and_width() -> None:
    expected = NONE | {"equal": 1.0, "similar_90": 1.0, "similar_80": 1.0}
    assert shares(("abo 溶血，怎么办！", 9, 9)) == expected


def test_similar_questions() -> None:
    # 13 characters: one other gives 12/13 = 0.92, two 0.85, three 0.77.
    assert shares(("饮酒以后可以服用他地那非吗", 9, 9)) == NONE | {
        "similar_90": 1.0,
        "similar_80": 1.0,
    }
    assert shares(("饮酒以后可以服用他达那非吗", 9, 9)) == NONE | {"similar_80": 1.0}
    assert shares(("饮酒以后可以服用他达拉非吗", 9, 9)) == NONE


def test_a_longer_and_a_shorter_question_at_the_limit() -> None:
    # 2 * 8 / (8 + 12) = 0.8: the lengths differ as much as they may.
    train = frame(("一二三四五六七八九十甲乙", 1, 1))
    assert measure(train, frame(("一二三四五六七八", 2, 2)), sample=9, seed=0)["similar_80"] == 1.0
    train = frame(("一二三四五六七八", 1, 1))
    test = frame(("一二三四五六七八九十甲乙", 2, 2))
    assert measure(train, test, sample=9, seed=0)["similar_80"] == 1.0


def test_an_answer_counts_when_it_is_long() -> None:
    assert shares(("别的问题", 1, 200)) == NONE | {"same_answer": 1.0}
    assert shares(("别的问题", 2, 10)) == NONE
    assert shares(("别的问题", 3, LONG_ANSWER)) == NONE | {"same_answer": 1.0}


def test_shares_are_of_the_sampled_rows() -> None:
    found = shares(("饮酒以后可以服用西地那非吗", 9, 9), *((f"无关{n}号", 9, 9) for n in range(3)))
    assert found["sampled"] == 4
    assert found["equal"] == 0.25


def test_it_is_exact() -> None:
    import random

    from rapidfuzz.distance import Indel

    from tests.data.planted import copies, templates

    questions = templates(600, seed=8)
    asked = [copy for _, _, copy in copies(questions[:300], 10, seed=2)]
    random.Random(0).shuffle(asked)
    fold = str.maketrans("", "", "？，。！、~ ?")
    known = [question.translate(fold) for question in questions]
    best = [
        round(max(Indel.normalized_similarity(text.translate(fold), other) for other in known), 9)
        for text in asked
    ]
    train, test = frame(*((q, 1, 1) for q in questions)), frame(*((q, 2, 2) for q in asked))
    found = measure(train, test, sample=len(asked), seed=0)
    assert found["similar_80"] == pytest.approx(sum(b >= 0.8 for b in best) / len(best))
    assert found["similar_90"] == pytest.approx(sum(b >= 0.9 for b in best) / len(best))
    assert found["equal"] == pytest.approx(sum(b == 1 for b in best) / len(best))


def test_the_sample_is_seeded_and_does_not_depend_on_the_order() -> None:
    rows = [(f"{'饮酒以后可以服用西地那非吗' if n % 3 else '无关'}{n}", 9, 9) for n in range(300)]
    found = measure(TRAIN, frame(*rows), sample=20, seed=1)
    assert found["sampled"] == 20
    assert measure(TRAIN, frame(*rows[::-1]), sample=20, seed=1) == found
    others = [measure(TRAIN, frame(*rows), sample=20, seed=seed) for seed in range(2, 12)]
    assert any(other["similar_80"] != found["similar_80"] for other in others)


@pytest.mark.parametrize("train", [TRAIN, TRAIN.clear()])
def test_no_test_rows_or_no_training(train: pl.DataFrame) -> None:
    assert measure(train, TRAIN.clear(), sample=5, seed=1) == NONE | {"sampled": 0}
    assert measure(TRAIN.clear(), TRAIN, sample=5, seed=1) == NONE | {"sampled": 3}
