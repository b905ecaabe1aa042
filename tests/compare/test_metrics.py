"""Metrics of one answer: by hand, on real pairs, and against a second implementation of each."""

import json
import math
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from medqa.compare.metrics import DEFINITIONS, NAMES, characters, loops, row_scores

REFERENCE_METRICS = NAMES[:8]
Scores = dict[str, float]


def real_answers(shared: Path) -> list[str]:
    path = shared / "huatuo/huatuo26M-testdatasets.part1.jsonl"
    return [json.loads(line)["answers"] for line in path.read_text(encoding="utf-8").splitlines()]


def first_sentence(text: str) -> str:
    return re.split(r"(?<=[。！？!?])", characters(text), maxsplit=1)[0]


def again_and_again(text: str) -> str:
    sentence = first_sentence(text)
    return sentence * max(5, math.ceil(60 / len(sentence)))


def predictions(references: list[str]) -> dict[str, list[str]]:
    """Answers whose order of merit is known."""
    order = np.random.default_rng(0).permutation(len(references))
    others = dict(zip(order, np.roll(order, 1), strict=True))  # nobody gets their own
    return {
        "reference": references,
        "first sentence": [first_sentence(text) for text in references],
        "shuffled": [references[others[row]] for row in range(len(references))],
        "repeated": [again_and_again(text) for text in references],
        "empty": [""] * len(references),
    }


def second_bleu() -> Callable[[str, str], Scores]:
    from sacrebleu.metrics import BLEU

    bleus = {
        f"bleu_{n}": BLEU(
            tokenize="none", smooth_method="exp", effective_order=True, max_ngram_order=n
        )
        for n in (1, 2, 3, 4)
    }

    def scores(wanted: str, given: str) -> Scores:
        spaced = " ".join(given), [" ".join(wanted)]
        return {name: bleu.sentence_score(*spaced).score / 100 for name, bleu in bleus.items()}

    return scores


class Spaces:
    """Tokens that are already apart, for rouge-score."""

    def tokenize(self, text: str) -> list[str]:
        return text.split()


def second_rouge(kinds: tuple[str, ...]) -> Callable[[str, str], Scores]:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(list(kinds), tokenizer=Spaces())

    def scores(wanted: str, given: str) -> Scores:
        found = scorer.score(" ".join(wanted), " ".join(given))
        return {f"rouge_{kind[5:].lower()}": found[kind].fmeasure for kind in kinds}

    return scores


def second_rest(wanted: str, given: str) -> Scores:
    """GLEU, ROUGE-L and Distinct from their formulas."""

    def grams(text: str, orders: range) -> list[tuple[str, ...]]:
        return [gram for n in orders for gram in zip(*(text[i:] for i in range(n)), strict=False)]

    left, right = Counter(grams(wanted, range(1, 5))), Counter(grams(given, range(1, 5)))
    hits = sum(min(count, right[gram]) for gram, count in left.items())
    row = np.zeros(len(given) + 1, dtype=int)
    codes = np.array([ord(char) for char in given], dtype=int)
    for char in wanted:
        row[1:] = np.maximum.accumulate(np.maximum(row[1:], row[:-1] + (codes == ord(char))))
    precision, recall = row[-1] / max(len(given), 1), row[-1] / max(len(wanted), 1)
    return {
        "gleu": min(hits / max(left.total(), 1), hits / max(right.total(), 1)),
        "rouge_l": 2 * precision * recall / (precision + recall) if row[-1] else 0.0,
        **{
            f"distinct_{n}": len(set(found)) / len(found) if found else 0.0
            for n in (1, 2)
            for found in [grams(given, range(n, n + 1))]
        },
    }


def table(references: list[str]) -> dict[str, Scores]:
    """Means of each metric for each kind of prediction, rows x metrics, after all checks on rows.

    Raises:
        AssertionError: A row differs from the second implementation by 1e-6 or more.
    """
    bleu, rouge = second_bleu(), second_rouge(("rouge1", "rouge2"))
    means = {}
    for kind, answers in predictions(references).items():
        rows = []
        for reference, answer in zip(references, answers, strict=True):
            scores = row_scores(reference, answer)
            pair = characters(reference), characters(answer)
            second = {**bleu(*pair), **rouge(*pair), **second_rest(*pair)}
            assert scores == pytest.approx(second, rel=0, abs=1e-6), (kind, reference, answer)
            if kind == "reference":
                assert all(scores[name] == pytest.approx(1.0) for name in REFERENCE_METRICS)
            rows.append(list(scores.values()))
        means[kind] = dict(zip(NAMES, np.mean(rows, axis=0).tolist(), strict=True))
        means[kind]["loop"] = sum(map(loops, answers)) / len(answers)
    return means


def printed(means: dict[str, Scores]) -> str:
    names = [*NAMES, "loop"]
    head = f"{'':15}" + "".join(f"{name:>12}" for name in names)
    rows = [
        f"{kind:15}" + "".join(f"{100 * scores[name]:12.2f}" for name in names)
        for kind, scores in means.items()
    ]
    return "\n".join([head, *rows])


def check_order(means: dict[str, Scores]) -> None:
    print("\n" + printed(means))
    for name in REFERENCE_METRICS:
        value = {kind: scores[name] for kind, scores in means.items()}
        assert value["reference"] == pytest.approx(1.0)
        assert 0.9 > value["first sentence"] > value["shuffled"] > value["empty"] == 0.0, name
        assert value["reference"] > value["repeated"] > 0, name
    for name, most in (("distinct_1", 0.25), ("distinct_2", 0.3)):
        assert means["empty"][name] == 0.0
        assert means["repeated"][name] < most < 0.65 < means["reference"][name], name
        # The same texts in another order have the same Distinct.
        assert means["shuffled"][name] == pytest.approx(means["reference"][name])
    assert means["repeated"]["loop"] == 1.0
    assert means["first sentence"]["loop"] == means["empty"]["loop"] == 0.0
    assert means["reference"]["loop"] <= 0.001


def test_constructed_answers_come_out_in_order(shared: Path) -> None:
    check_order(table(real_answers(shared)[::20]))


@pytest.mark.slow
def test_constructed_answers_come_out_in_order_on_all_3000_pairs(shared: Path) -> None:
    references = real_answers(shared)
    assert len(references) == 3000
    check_order(table(references))


def test_rouge_l_is_that_of_rouge_score(shared: Path) -> None:
    references = [text for text in real_answers(shared)[::20] if len(text) < 400]
    rouge = second_rouge(("rouge1", "rouge2", "rougeL"))
    for reference, answer in zip(references, references[1:] + references[:1], strict=True):
        second = rouge(characters(reference), characters(answer))
        scores = row_scores(reference, answer)
        assert {name: scores[name] for name in second} == pytest.approx(second, rel=0, abs=1e-6)


def test_bleu_4_is_that_of_llamafactory_where_nothing_is_folded(shared: Path) -> None:
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    texts = [text for text in map(characters, real_answers(shared)[::20]) if len(text) > 3]
    for reference, answer in zip(texts, texts[1:] + texts[:1], strict=True):
        theirs = sentence_bleu(
            [list(reference)], list(answer), smoothing_function=SmoothingFunction().method3
        )
        assert row_scores(reference, answer)["bleu_4"] == pytest.approx(theirs, abs=1e-12)


def test_values_by_hand() -> None:
    # 5 of 5 characters, 3 of 4 pairs (今天 能喝 喝酒), 1 of 3 triples, no four; 5 of 6 characters.
    scores = row_scores("今天不能喝酒", "今天能喝酒")
    penalty = math.exp(1 - 6 / 5)
    triples, fours = 1 / 3, 1 / (2 * 2)
    assert scores == pytest.approx(
        {
            "bleu_1": penalty,
            "bleu_2": penalty * math.sqrt(3 / 4),
            "bleu_3": penalty * (3 / 4 * triples) ** (1 / 3),
            "bleu_4": penalty * (3 / 4 * triples * fours) ** (1 / 4),
            "gleu": (5 + 3 + 1 + 0) / (6 + 5 + 4 + 3),
            "rouge_1": 2 * 5 / (6 + 5),
            "rouge_2": 2 * 3 / (5 + 4),
            "rouge_l": 2 * 5 / (6 + 5),
            "distinct_1": 1.0,
            "distinct_2": 1.0,
        }
    )
    assert row_scores("甲乙甲丙", "甲乙甲乙")["distinct_1"] == 2 / 4
    assert row_scores("甲乙甲丙", "甲乙甲乙")["distinct_2"] == 2 / 3
    assert row_scores("甲乙丙丁", "丁丙乙甲")["rouge_l"] == 2 * 1 / 8


def test_names_and_definitions() -> None:
    assert tuple(row_scores("甲乙", "甲")) == NAMES
    assert set(DEFINITIONS) == {*NAMES, "loop"}
    assert "1- to 4-grams" in DEFINITIONS["bleu_4"]
    assert all(sentence.endswith(".") for sentence in DEFINITIONS.values())


def test_what_cannot_be_scored_is_zero() -> None:
    nothing = dict.fromkeys(NAMES, 0.0)
    assert (
        row_scores("多喝水。", "")
        == row_scores("", "")
        == row_scores("多喝水。", " \n　")
        == nothing
    )
    assert row_scores("", "甲甲") == {**nothing, "distinct_1": 0.5, "distinct_2": 1.0}
    assert row_scores("多喝水。", "好") == {**nothing, "distinct_1": 1.0}


@pytest.mark.parametrize("text", ["是", "可以", "不可以"])
def test_a_perfect_short_answer_is_perfect(text: str) -> None:
    # A single character has no 2-gram in common with anything.
    names = set(REFERENCE_METRICS) - ({"rouge_2"} if len(text) == 1 else set())
    assert {row_scores(text, text)[name] for name in names} == {1.0}


def test_form_is_no_content() -> None:
    scores = row_scores("每日３次，每次１０㎎。\n（饭后）", "每日3次, 每次10mg。(饭后)")
    assert all(scores[name] == pytest.approx(1.0) for name in REFERENCE_METRICS)
    assert characters(" Ａb\t１，\u3000㎎ ") == "Ab1,mg"


def test_a_word_said_often_earns_nothing_as_it_would_with_sets() -> None:
    from rouge_chinese import Rouge

    reference, answer = "多喝水", "多喝水" * 20
    sets = Rouge().get_scores(" ".join(answer), " ".join(reference))[0]["rouge-1"]["f"]
    assert sets == pytest.approx(1.0)
    assert row_scores(reference, answer)["rouge_1"] == pytest.approx(2 * 3 / 63)


PREFIX = "您好，饮酒以后不可以服用西地那非，否则血压可能下降得很厉害，出现头晕甚至昏倒。"
UNIT = (
    "建议患者到正规医院检查治疗，按时吃药饮食清淡少盐戒烟限酒"
    "保持好心情每周运动三次避免劳累受凉注意休息定期复查血压"
)

UNLIKE = "".join(chr(0x4E00 + n) for n in range(300))
NEAR_LOOP = "".join(
    f"建议多吃{food}，对身体有好处，可以补充营养。" for food in "鱼肉蛋奶菜果豆菇茶米面枣"
)


@pytest.mark.parametrize("period", range(1, 51))
def test_a_loop_of_any_period_wherever_it_is_cut(period: int) -> None:
    unit = UNIT[:period]
    assert len(unit) == period
    for prefix in ("", PREFIX, PREFIX * 2):
        for cut in {0, period // 2, period - 1}:
            tail = unit * max(3, math.ceil(20 / period)) + unit[:cut]
            assert loops(prefix + tail), (prefix, tail)


@pytest.mark.parametrize("period", range(1, 51))
def test_twice_is_no_loop(period: int) -> None:
    assert not loops(UNIT[:period] * 2)
    assert not loops(PREFIX + UNIT[:period] * 2 + "祝您健康")


@pytest.mark.parametrize(
    "answer",
    [
        "",
        " \n\n\n",
        PREFIX,
        UNIT,
        "谢谢！谢谢！谢谢！",
        "好" * 19,
        PREFIX + "……" * 3,
        "不可以，" * 4 + "真的不可以",
        "1.多喝水。2.多休息。3.不熬夜。4.少吃盐。5.戒烟。6.限酒。",
        "早上吃一片，中午吃一片，晚上吃一片，连吃七天。",
    ],
)
def test_no_loop(answer: str) -> None:
    assert not loops(answer)


@pytest.mark.parametrize(
    "answer",
    [
        "好" * 20,
        "多喝水。\n" * 7,
        PREFIX + "".join(f"{n}.多喝水，多休息。" for n in range(8, 14)),
        PREFIX + "".join(f"第{n}，多喝水，多休息。" for n in ("八", "九", "十", "十一", "十二")),
        # Ended after all, or with a change here and there.
        "建议多喝水，注意休息。" * 6 + "祝您健康。",
        NEAR_LOOP,
        UNLIKE + NEAR_LOOP,
        "建议多喝水，注意休息。" * 40 + UNLIKE,
    ],
)
def test_a_loop(answer: str) -> None:
    assert loops(answer)


def test_loops_are_those_of_the_definition_word_for_word() -> None:
    def plain(text: str) -> bool:
        for period in range(1, len(text)):
            least = max(3 * period, 20)
            if least <= len(text) and all(
                text[-at] == text[-at - period] for at in range(1, least - period + 1)
            ):
                return True
        for part in (text, text[-200:]):
            grams = [part[at : at + 8] for at in range(len(part) - 7)]
            if len(part) >= 20 and len(set(grams)) < len(grams) / 2:
                return True
        return False

    rng = np.random.default_rng(0)
    found = []
    for letters in (2, 3, 5):
        for _ in range(1500):
            text = "".join(rng.choice(list("甲乙丙丁戊")[:letters], rng.integers(1, 60)))
            text += text[-rng.integers(1, 15) :] * rng.integers(0, 5) + text[: rng.integers(0, 3)]
            assert loops(text) == plain(text), text
            found.append(loops(text))
    assert 0.1 < np.mean(found) < 0.9


def test_real_answers_that_loop_are_rows_of_full_stops(shared: Path) -> None:
    references = real_answers(shared)
    caught = [text for text in references if loops(text)]
    assert len(caught) == 2
    assert all(text.endswith("。" * 30) for text in caught)
    long = [text for text in references if len(text) >= 500]
    assert len(long) > 30
    assert not any(map(loops, long))
    # Their loops are found however long what stood before.
    assert all(loops(text + UNIT[:40] * 3 + UNIT[:13]) for text in long)
