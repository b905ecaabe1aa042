"""How near an answer is to the reference, and whether it repeats itself; one number per row.

Every metric is a fraction from 0 to 1 of one answer, and a table shows means over rows: numbers
per row can be paired, so that a difference gets an interval and a p-value
(:mod:`medqa.compare.stats`).

**Tokens** are the characters of the NFKC form without white space, with nothing else taken out:
full- and half-width punctuation are one, because which of them a model writes says nothing of the
answer. The Huatuo-26M paper does not say what its table 7 counts; characters fit it best. Its
ROUGE-L is 0.64 of its ROUGE-1 in both rows of ChatGLM3-6B; for answers to other patients that is
0.61 over characters and 0.77 over jieba words. Its Distinct-1 and -2 are .75 and .93, which can
only be means over answers; the references have .69 and .91 over characters, .74 and .96 over words.
NFKC moves none of these means by more than 0.6 points. Its smoothing and its kind of ROUGE remain
unknown: set a row of ours beside that table, and do not subtract.

Where libraries differ, ours is:

- **BLEU**: ``nltk.sentence_bleu`` with ``method3``, as LLaMA-Factory's predict step has it (which
  takes the characters as they are, white space too), but for an answer of fewer than n characters,
  which nltk gives an n-gram it does not have, so that a perfect short answer scores below 1: here
  BLEU-n then stops at the longest n-gram there is, as sacrebleu does with ``effective_order`` and
  ``smooth_method="exp"``.
- **ROUGE**: counts repeated tokens, as Lin's own and the rouge-score package do. rouge-chinese,
  which LLaMA-Factory uses, compares sets: an answer that says one word a hundred times loses
  nothing there. The longest common subsequence is rapidfuzz's, the F-measure has equal weights.
- **GLEU**: ``nltk.sentence_gleu``.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping

NAMES: tuple[str, ...] = (
    "bleu_1",
    "bleu_2",
    "bleu_3",
    "bleu_4",
    "gleu",
    "rouge_1",
    "rouge_2",
    "rouge_l",
    "distinct_1",
    "distinct_2",
)

_ROWS = "characters (NFKC, no white space), mean over answers"
_BLEU = (
    "Geometric mean of the clipped precisions of {}-grams, an order without a match smoothed by "
    f"1/2, 1/4, …, times the brevity penalty (nltk's method3, sacrebleu's exp); {_ROWS}."
)
DEFINITIONS: Mapping[str, str] = {
    **{f"bleu_{n}": _BLEU.format("1" if n == 1 else f"1- to {n}") for n in (1, 2, 3, 4)},
    "gleu": f"Smaller of precision and recall of all 1- to 4-grams together; {_ROWS}.",
    "rouge_1": f"F-measure of the characters in common, repeated ones counted; {_ROWS}.",
    "rouge_2": f"F-measure of the 2-grams in common, repeated ones counted; {_ROWS}.",
    "rouge_l": f"F-measure of the longest common subsequence of answer and reference; {_ROWS}.",
    "distinct_1": f"Share of different ones among all characters of an answer; {_ROWS}.",
    "distinct_2": f"Share of different ones among all 2-grams of an answer; {_ROWS}.",
    "loop": (
        "Share of answers that end in saying the same at least three times running (20 "
        "characters or more, numbers aside), or in which, or in whose last 200 characters, "
        "more than half of the 8-grams have stood before."
    ),
}

# The least that a repeated end must fill: below, it may be 哈哈哈 or a row of full stops.
LOOP_CHARACTERS = 20
LOOP_COPIES = 3
WINDOW = 8
END = 200
# A loop that counts (1. 多喝水。2. 多喝水。) is one.
NUMBER = re.compile(r"[0-9一二三四五六七八九十百]+")


def characters(text: str) -> str:
    """Returns what all metrics count: the characters of the NFKC form without white space."""
    return "".join(unicodedata.normalize("NFKC", text).split())


def row_scores(reference: str, answer: str) -> dict[str, float]:
    """Returns every metric of :data:`NAMES` for one answer, each from 0 to 1.

    An empty answer has 0 everywhere; without a reference all but Distinct are 0.
    """
    from rapidfuzz.distance import LCSseq

    wanted, given = characters(reference), characters(answer)
    common = LCSseq.similarity(wanted, given)
    return {
        **_bleu(wanted, given),
        "rouge_1": _rouge(wanted, given, 1),
        "rouge_2": _rouge(wanted, given, 2),
        "rouge_l": _f_measure(common, len(wanted), len(given)),
        "distinct_1": _distinct(given, 1),
        "distinct_2": _distinct(given, 2),
    }


def loops(answer: str) -> bool:
    """Says whether the answer got caught in repeating itself.

    It does when one of these holds for its characters:

    - Its end has a period: with p the period, the last ``max(3 p, 20)`` characters or more are
      each equal to the one p before. So three copies are a loop, wherever the last is cut off, and
      two are not. Numbers count as equal here, so that a list that goes on with one item is a loop.
    - In it, or in its last 200 characters, more than half of the 8-grams have stood before. This
      finds loops with small changes, and those that ended after all; what is said twice is not one.
    """
    text = characters(answer)
    for period, more in enumerate(_agreements(NUMBER.sub("0", text)[::-1])):
        if period and period + more >= max(LOOP_COPIES * period, LOOP_CHARACTERS):
            return True
    parts = (text, text[-END:]) if len(text) >= LOOP_CHARACTERS else ()
    return any(1 - _distinct(part, WINDOW) > 0.5 for part in parts)


def _ngrams(text: str, n: int) -> list[str]:
    return [text[at : at + n] for at in range(len(text) - n + 1)]


def _bleu(wanted: str, given: str) -> dict[str, float]:
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
    from nltk.translate.gleu_score import sentence_gleu

    names = NAMES[:5]
    if not given:
        return dict.fromkeys(names, 0.0)
    weights = [(1 / order,) * order for order in (min(n, len(given)) for n in (1, 2, 3, 4))]
    smoothing = SmoothingFunction().method3
    bleu = sentence_bleu([wanted], given, weights=weights, smoothing_function=smoothing)
    scores = (*bleu, sentence_gleu([wanted], given))
    return dict(zip(names, map(float, scores), strict=True))


def _rouge(wanted: str, given: str, n: int) -> float:
    left, right = Counter(_ngrams(wanted, n)), Counter(_ngrams(given, n))
    return _f_measure((left & right).total(), left.total(), right.total())


def _f_measure(common: int, wanted: int, given: int) -> float:
    return 2 * common / (wanted + given) if common else 0.0


def _distinct(text: str, n: int) -> float:
    found = _ngrams(text, n)
    return len(set(found)) / len(found) if found else 0.0


def _agreements(text: str) -> list[int]:
    """Returns for each place how many characters from there on are those of the beginning (Z)."""
    found = [0] * len(text)
    left = right = 0
    for at in range(1, len(text)):
        length = min(right - at, found[at - left]) if at < right else 0
        while at + length < len(text) and text[length] == text[at + length]:
            length += 1
        found[at] = length
        if at + length > right:
            left, right = at, at + length
    return found
