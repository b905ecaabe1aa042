import polars as pl
import pytest

from medqa.data import near
from tests.data.planted import templates


def near_pairs(texts: list[str]) -> dict[tuple[str, str], float]:
    questions = near.Questions(pl.Series(texts))
    found = near.pairs(questions)
    texts = questions.wholes.texts.tolist()
    return {
        (texts[a], texts[b]): strength
        for a, b, strength in zip(
            found.left.tolist(), found.right.tolist(), found.strength.tolist(), strict=True
        )
    }


def test_a_copy_is_near_and_another_question_is_not() -> None:
    copy, question, other = (
        "饮酒以后能服用希地那非片",
        "饮酒以后能服用西地那非片",
        "孩子咳嗽三天要不要拍片",
    )
    found = near_pairs([question, copy, other])
    assert set(found) == {(copy, question)}
    assert found[copy, question] == pytest.approx(11 / 12)


def test_template_questions_about_different_diseases_are_not_near() -> None:
    names = [chr(0x7000 + n) + chr(0x8000 + n) for n in range(500)]
    assert near_pairs([f"{name}的辅助治疗有些什么" for name in names]) == {}


def test_template_questions_about_one_disease_are_near() -> None:
    names = [chr(0x7000 + n) + chr(0x8000 + n) for n in range(500)]
    texts = [f"{name}的{form}有些什么" for name in names for form in ("辅助治疗", "手术治疗")]
    assert len(near_pairs(texts)) == len(names)


def test_questions_know_their_records() -> None:
    questions = near.Questions(pl.Series(["请问胃癌", "肝癌", "胃癌呢", "肝癌"]))
    assert questions.wholes.texts.tolist() == ["肝癌", "胃癌"]
    assert questions.of.tolist() == [1, 0, 1, 0]


def test_shared_is_exact_where_it_reaches_the_least_and_nought_elsewhere() -> None:
    import numpy as np

    kind = near.Kind([text.rstrip("？") for text in templates(200, seed=3)])
    one, other = np.divmod(np.arange(200 * 200), 200)
    exact = near.common(kind.texts[one], kind.texts[other])
    found = kind.shared(one, other, np.full(len(one), 10))
    assert (found == np.where(exact >= 10, exact, 0)).all()


def test_common_counts_a_subsequence() -> None:
    import numpy as np

    left, right = (
        np.array(["胃癌吃药", "", "甲乙"], object),
        np.array(["胃x癌药", "a", "乙甲"], object),
    )
    assert near.common(left, right).tolist() == [3, 0, 1]


def test_a_quarter_changed_is_not_near() -> None:
    assert near_pairs(["孩子发烧咳嗽三天", "孩子发烧头痛三天"]) == {}
