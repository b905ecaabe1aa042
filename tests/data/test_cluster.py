import json
import random
from collections import defaultdict
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from xxhash import xxh3_64_intdigest

from medqa.data import cluster
from medqa.data.normal import canonical, normalise
from tests.data.planted import copies, templates


def keys(questions: list[str]) -> NDArray[np.uint64]:
    return np.array([xxh3_64_intdigest(normalise(q).encode()) for q in questions], np.uint64)


def clustered(questions: list[str], largest: int = 10**9) -> cluster.Clustering:
    texts = pl.Series([canonical(question) for question in questions])
    return cluster.assign(texts, [keys(questions)], [], largest=largest)


def recall(questions: list[str], count: int, largest: float = 1.0) -> dict[str, float]:
    """Returns the share of planted copies, by kind, in the cluster of their original."""
    planted = copies(questions, count, seed=7)
    rows = [*questions, *(copy for _, _, copy in planted)]
    found = clustered(rows, largest=int(largest * len(rows)))
    assert np.unique(found.labels, return_counts=True)[1].max() <= largest * len(rows)
    label = dict(zip(rows, found.labels.tolist(), strict=True))
    together = defaultdict(list)
    for kind, question, copy in planted:
        together[kind].append(label[question] == label[copy])
    print(found.facts)
    return {kind: sum(yes) / len(yes) for kind, yes in together.items()}


def real(shared: Path) -> list[str]:
    lines = (shared / "huatuo" / "huatuo26M-testdatasets.part1.jsonl").read_text("utf-8")
    return [json.loads(line)["questions"] for line in lines.splitlines()]


@pytest.mark.parametrize("largest", [1.0, 0.01])
def test_copies_of_template_questions_share_a_cluster(largest: float) -> None:
    found = recall(templates(5000, seed=1), count=150, largest=largest)
    assert min(found.values()) >= 0.95, found


def test_copies_of_real_questions_share_a_cluster(shared: Path) -> None:
    found = recall(real(shared), count=300, largest=0.05)
    assert min(found.values()) >= 0.95, found


def test_real_questions_do_not_chain(shared: Path) -> None:
    found = clustered(real(shared))
    assert found.facts["largest"] <= 60
    assert found.facts["clusters"] > 2000


@pytest.mark.slow
def test_a_hundred_thousand_template_questions() -> None:
    # Most of them are one component, which `largest` takes apart; the copies must stay.
    shares = recall(templates(100_000, seed=2), count=500, largest=0.01)
    assert min(shares.values()) >= 0.95, shares


def test_labels_do_not_depend_on_the_order_of_the_rows() -> None:
    questions = templates(4000, seed=4)
    answers = np.array([n % 700 for n in range(len(questions))], np.uint64)
    order = list(range(len(questions)))
    random.Random(1).shuffle(order)

    def assigned(places: list[int]) -> cluster.Clustering:
        chosen = [questions[place] for place in places]
        texts = pl.Series([canonical(question) for question in chosen])
        return cluster.assign(texts, [keys(chosen)], [answers[places]], largest=40)

    straight, shuffled = assigned(list(range(len(questions)))), assigned(order)
    assert straight.facts == shuffled.facts
    assert straight.facts["soft_ties_cut"] and straight.facts["near_pairs_cut"]
    assert (straight.labels[order] == shuffled.labels).all()


ROWS = ["胃癌吃什么", "孩子咳嗽三天", "腰椎间盘突出怎么治", "青霉素过敏怎么办", "孩子咳嗽三天呢"]
KEYS = np.array([50, 40, 30, 20, 10], np.uint64)


def tied(
    firm: list[int], soft: list[int], largest: int = 100, rows: list[str] = ROWS
) -> cluster.Clustering:
    extra = [np.array(firm, np.uint64)] if firm else []
    ties = [np.array(soft, np.uint64)] if soft else []
    return cluster.assign(pl.Series(rows), [KEYS, *extra], ties, largest=largest)


def test_a_cluster_is_named_by_its_smallest_key() -> None:
    assert tied([], []).labels.tolist() == [50, 10, 30, 20, 10]


def test_firm_and_soft_ties_join() -> None:
    assert tied([1, 0, 1, 0, 0], []).labels.tolist() == [30, 10, 30, 20, 10]
    assert tied([], [0, 0, 9, 9, 0]).labels.tolist() == [50, 10, 20, 20, 10]
    assert tied([1, 0, 1, 0, 0], [0, 0, 0, 9, 9]).labels.tolist() == [30, 10, 30, 10, 10]


def test_no_key_is_no_tie() -> None:
    assert tied([0] * 5, [0] * 5).labels.tolist() == [50, 10, 30, 20, 10]


def test_soft_ties_are_cut_and_firm_ones_are_not() -> None:
    found = tied([1, 0, 1, 1, 0], [9, 9, 0, 0, 0], largest=3)
    assert found.labels.tolist() == [20, 10, 20, 20, 10]
    assert found.facts["soft_ties_cut"] == 1
    assert found.facts["largest_before"] == 5
    assert found.facts["records_taken_apart"] == 5
    assert tied([1] * 5, [], largest=2).labels.tolist() == [10] * 5


def test_the_weakest_pairs_are_cut_first() -> None:
    # A chain of changes: each is near the next, the first copy nearer than any.
    chain = ["一二三四五六七八九十甲乙", "一二三四五六七八九十甲丙", "一二三四五六七八九丁戊丙"]
    rows = [*chain, "一二三四五六七八九十甲乙乙", "己二三四五六七八九丁戊丙"]
    assert len(set(tied([], [], rows=rows).labels.tolist())) == 1
    found = tied([], [], largest=3, rows=rows)
    assert found.labels.tolist() == [20, 20, 10, 20, 10]
    assert found.facts["near_pairs_cut"] >= 1


def test_what_is_taken_apart_stays_with_what_is_most_like_it() -> None:
    # All are 0.95 alike and would be one; each and its copy 0.955, which is hardly more.
    stem = "".join(chr(0x7000 + n) for n in range(190))
    fresh = iter(range(0x8000, 0x9000))
    pairs = []
    for _ in range(12):
        kept = chr(next(fresh))
        pairs += [stem + kept + "".join(chr(next(fresh)) for _ in range(9)) for _ in range(2)]
    found = clustered(pairs, largest=3)
    assert found.facts["largest_before"] == 24
    assert found.labels[::2].tolist() == found.labels[1::2].tolist()
    assert found.facts["clusters"] == 12


def test_the_histogram_counts_all_records() -> None:
    facts = clustered(templates(3000, seed=5)).facts
    assert sum(row["records"] for row in facts["sizes"]) == 3000
    assert sum(row["clusters"] for row in facts["sizes"]) == facts["clusters"]
    assert max(row["to"] for row in facts["sizes"]) == facts["largest"]


def test_nothing() -> None:
    empty = cluster.assign(pl.Series([], dtype=pl.String), [np.empty(0, np.uint64)], [], largest=1)
    assert empty.labels.tolist() == []
    assert empty.facts["clusters"] == 0


def distinct_pairs() -> list[dict[str, str]]:
    lines = Path(__file__).with_name("distinct_pairs.jsonl").read_text("utf-8")
    return [json.loads(line) for line in lines.splitlines()]


def test_distinct_medical_questions_are_never_the_same() -> None:
    pairs = distinct_pairs()
    assert len(pairs) >= 200
    assert len({frozenset(pair.values()) for pair in pairs}) == len(pairs)
    merged = [pair for pair in pairs if normalise(pair["a"]) == normalise(pair["b"])]
    assert merged == []
    assert [pair for pair in pairs if canonical(pair["a"]) == canonical(pair["b"])] == []
