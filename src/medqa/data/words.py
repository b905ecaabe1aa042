"""Chinese words: the source paper's question preprocessing, and the report's top terms.

Words come from jieba, stop words from the package stopwordsiso (its list ``zh``, 794 words). Both
load on first use, in about a second. jieba's own start-up is passed over: it prints, and it reads
and writes a marshal file in the system's temporary folder, where anybody may have put another.
"""

import math
import re
import warnings
from collections import Counter
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars

# On the stop list, and yet what a medical question turns on. What forbids and permits:
KEPT_MODALS = "不 无 非 别 否则 不是 不得 不如 不比 与否 能 能否 可 可以 要 该 会 得 除了 除外 除非"
# what counts and measures:
KEPT_AMOUNTS = "一 二 三 四 五 六 七 八 九 零 几 一个 个 每 第 年 月 日 时 点 秒 多少 以上 开外"
# and what compares and orders (饭前, 饭后; 比正常高; 3到5天).
KEPT_ORDER = "上 下 大 小 多 更 最 比 后 前后 到 至 离 同时"
KEPT = frozenset(f"{KEPT_MODALS} {KEPT_AMOUNTS} {KEPT_ORDER}".split())

TERM_QUESTIONS = 400  # of a department; jieba cuts about 160,000 characters a second

# Cut out before jieba sees the text, which would part 120/80, 0.5g, 5 mg/kg, 3到5天 and HBsAg(+):
# runs of Latin letters, digits and the signs of numbers that hold a digit, with a unit behind; the
# sign of a test's result; the placeholders of `privacy`.
_SIGNS = r"A-Za-zＡ-Ｚａ-ｚα-ωΑ-Ωµ\d.．,:/／+~～×*^%％‰℃°≤≥<>\-–—"
_LATIN_UNITS = "mg|kg|ug|μg|µg|mcg|ng|g|ml|dl|l|mmol|umol|μmol|mmhg|kpa|cm|mm|iu|u|kcal|h|min"
_UNITS = (
    "毫米汞柱|毫克|微克|千克|公斤|克|斤|毫升|微升|升|毫米|厘米|公分|米|毫摩尔|摩尔|国际单位|单位"
    "|千卡|大卡|小时|分钟|秒钟|秒|点钟|点|个月|个|天|日|周岁|周|月|年|岁|次|片|粒|颗|丸|袋|包|支|瓶"
    "|盒|滴|针|剂|贴|倍|度|成|型|级|期|胎"
)
_NUMBER = rf"[{_SIGNS}]*\d[{_SIGNS}]*"
_FIRM = re.compile(
    rf"\[[A-Z一-鿿]{{2,3}}\]|[(（][+＋\-－±]+[)）]"
    rf"|第?{_NUMBER}(?:[到至]{_NUMBER})?"
    rf"(?:\ ?[百千万亿]+)?"
    rf"(?:\ ?(?:{_UNITS}|(?:{_LATIN_UNITS})(?![A-Za-z]))(?:/(?:{_UNITS}|[A-Za-z]+))*)?",
    re.IGNORECASE,
)
_LOOSE_ENDS = ".,:~～*^-–—/"


def segment(text: str) -> str:
    """Returns the words of `text` joined by one blank, without stop words and punctuation.

    Negations and modals (不, 无, 别, 能, 可以 …), numbers with their units, and words of order and
    comparison stay although the list has them: without them 不能吃 and 能吃 would be one question.

    Args:
        text: A cleaned question.

    Returns:
        Its words, or `text` itself where no word would be left.
    """
    words: list[str] = []
    end = 0
    for match in _FIRM.finditer(text):
        words += _cut(text[end : match.start()])
        word = match[0].replace(" ", "")
        words.append(word if word[0] in "[(（" else word.strip(_LOOSE_ENDS))
        end = match.end()
    words += _cut(text[end:])
    return " ".join(words) or text


def top_terms(rows: "polars.DataFrame", per_department: int) -> dict[str, list[tuple[str, int]]]:
    """Finds the words that tell a department's questions from those of the others.

    A word is ranked by its count times the logarithm of how much more frequent it is there than
    in all questions looked at (its part of the Kullback-Leibler divergence); with one department
    by its count.

    Args:
        rows: The columns ``question``, ``department`` and ``rank``; the first `TERM_QUESTIONS` of
            each department by rank are looked at, so the result is a seeded sample's.
        per_department: How many words at most.

    Returns:
        Department, biggest first, to its words of two characters and more, each with the number
        of questions looked at that hold it.
    """
    import polars as pl

    sample = (
        rows.lazy()
        .select("department", "question", "rank")
        .sort("rank")
        .group_by("department", maintain_order=True)
        .agg(pl.col("question").head(TERM_QUESTIONS), pl.len().alias("rows"))
        .sort("rows", "department", descending=[True, False])
        .collect()
    )
    counted: dict[str, Counter[str]] = {}
    for department, questions in zip(sample["department"], sample["question"], strict=True):
        counted[department] = Counter(
            word for q in questions for word in {w for w in _cut(q) if _is_term(w)}
        )
    everywhere: Counter[str] = sum(counted.values(), Counter())
    total = everywhere.total()

    def weight(word: str, here: Counter[str], size: int) -> float:
        if len(counted) == 1:
            return here[word]
        return here[word] * math.log(here[word] / size * total / everywhere[word])

    found = {}
    for department, here in counted.items():
        size = here.total()
        weights = {word: weight(word, here, size) for word in here}
        ranked = sorted(here, key=lambda word: (-weights[word], word))
        found[department] = [(word, here[word]) for word in ranked[:per_department]]
    return found


def _is_term(word: str) -> bool:
    return len(word) > 1 and word.isalpha()


def _cut(text: str) -> list[str]:
    """Returns the words of a text without numbers that are no stop words."""
    if not text or text.isspace():
        return []
    cutter, stop = _cutter(), _stop_words()
    return [word for word in cutter.cut(text) if word not in stop and any(map(str.isalnum, word))]


@cache
def _stop_words() -> frozenset[str]:
    from stopwordsiso import stopwords

    return frozenset(stopwords("zh")) - KEPT


@cache
def _cutter() -> Any:
    with warnings.catch_warnings():  # pkg_resources, and escape sequences of Python 2
        warnings.simplefilter("ignore")
        import jieba
    cutter = jieba.Tokenizer()
    with cutter.get_dict_file() as words:
        cutter.FREQ, cutter.total = cutter.gen_pfdict(words)
    cutter.initialized = True
    return cutter
