"""What the measures are called, and how their numbers are written: for terminal and page alike."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from medqa.compare.stats import ALPHA


class Label(NamedTuple):
    """Name of a metric in two languages, and its unit.

    Attributes:
        zh: Chinese name.
        en: English name.
        scale: What a value is multiplied by before it is shown; 100 for what others publish so.
        digits: Digits after the point.
        unit: What stands behind it.
    """

    zh: str
    en: str
    scale: float = 100
    digits: int = 2
    unit: str = ""


METRICS: Mapping[str, Label] = {
    "perplexity": Label("困惑度", "perplexity", 1),
    "bleu_1": Label("BLEU-1", "BLEU-1"),
    "bleu_2": Label("BLEU-2", "BLEU-2"),
    "bleu_3": Label("BLEU-3", "BLEU-3"),
    "bleu_4": Label("BLEU-4", "BLEU-4"),
    "gleu": Label("GLEU", "GLEU"),
    "rouge_1": Label("ROUGE-1", "ROUGE-1"),
    "rouge_2": Label("ROUGE-2", "ROUGE-2"),
    "rouge_l": Label("ROUGE-L", "ROUGE-L"),
    "distinct_1": Label("Distinct-1", "Distinct-1", 1, 3),
    "distinct_2": Label("Distinct-2", "Distinct-2", 1, 3),
    "length": Label("回答字数", "answer length, characters", 1, 1),
    "loop": Label("循环重复的回答", "answers that end in a loop", 100, 1, "%"),
    "unfinished": Label("未说完的回答", "answers without an end", 100, 1, "%"),
}


def value(metric: Mapping[str, Any], key: str, *, sign: bool = False) -> str:
    """Returns ``metric[key]`` as it is shown, with a plus sign where `sign` asks for one."""
    label = METRICS[metric["name"]]
    return f"{metric[key] * label.scale:{'+' if sign else ''}.{label.digits}f}{label.unit}"


def change(metric: Mapping[str, Any]) -> str:
    """Returns the difference with its 95 % interval: ``+3.1 [2.0, 4.2]``."""
    low, high = (value(metric, end, sign=True) for end in ("low", "high"))
    return f"{value(metric, 'difference', sign=True)} [{low}, {high}]"


def probability(p_value: float) -> str:
    """Returns a p-value: three digits, or that it is smaller."""
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"


def shares(counts: Mapping[str, Any], side: str) -> str:
    """Returns what a side answered rightly: ``93.8%``."""
    return f"{counts[side] / counts['rows']:.1%}"


def sign(metric: Mapping[str, Any]) -> str:
    """Returns ``good``, ``bad``, or an empty string where no better can be told or is meant."""
    if metric["p_value"] >= ALPHA or metric["better"] is None or not metric["difference"]:
        return ""
    return "good" if (metric["difference"] > 0) == (metric["better"] == "higher") else "bad"
