import numpy as np
import pytest

from medqa.data.minhash import candidates, distinct, packed


def pairs(texts: list[str], **options: object) -> set[tuple[str, str]]:
    texts = sorted(texts)
    found = candidates(np.array(texts, dtype=object), **options)  # type: ignore[arg-type]
    return {(texts[n // len(texts)], texts[n % len(texts)]) for n in found.tolist()}


def test_similar_texts_are_candidates_and_others_are_not() -> None:
    texts = ["饮酒以后可以服用西地那非吗", "饮酒之后可以服用西地那非", "孩子咳嗽三天了要拍片么", ""]
    assert pairs(texts) == {("饮酒之后可以服用西地那非", "饮酒以后可以服用西地那非吗")}


@pytest.mark.parametrize("texts", [[], [""], ["", "胃癌"], ["痛"]])
def test_too_little_to_compare(texts: list[str]) -> None:
    assert pairs(texts) == set()


def test_texts_of_one_group_are_not_paired() -> None:
    texts = ["胃癌吃什么", "胃癌吃什么药", "胃癌吃什么菜"]
    groups = np.array([7, 7, 8])
    first, second, third = sorted(texts)
    assert pairs(texts) == {(first, second), (first, third), (second, third)}
    assert pairs(texts, groups=groups) == {(first, third), (second, third)}


def test_only_pairs_with_a_marked_text() -> None:
    texts = ["胃癌吃什么", "胃癌吃什么药", "胃癌吃什么菜"]
    first, second, third = sorted(texts)
    found = pairs(texts, marked=np.array([True, False, False]))
    assert found == {(first, second), (first, third)}


def test_what_is_frequent_is_not_compared() -> None:
    texts = [f"{chr(0x5000 + n)}{chr(0x6000 + n)}的辅助治疗有些什么" for n in range(300)]
    assert len(pairs(texts)) > 300
    assert pairs(texts, rare=0.02) == set()


def test_distinct_and_packed() -> None:
    assert distinct(np.array([3, 1, 3, 2, 1], np.uint64)).tolist() == [1, 2, 3]
    assert packed(np.array([1, 0, 2]), np.array([0, 1, 1]), 3).tolist() == [1, 5]
