"""What must hold before a tuned model may be used, and whether it does."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from medqa.compare.plan import Gate


class Check(NamedTuple):
    """One condition of the gate.

    Attributes:
        name: As the YAML has it, for example ``keep.general``.
        zh: What it asks for, in Chinese.
        en: The same in English.
        required: The least that passes.
        measured: What was found.
        passed: Whether it holds.
    """

    name: str
    zh: str
    en: str
    required: str
    measured: str
    passed: bool


def checks(gate: Gate, found: Mapping[str, Any]) -> list[Check]:
    """Returns every condition of `gate` with what `found`, the facts of a report, says to it."""
    metrics = {metric["name"]: metric for metric in found["metrics"]}
    return [
        *_perplexity(gate, metrics),
        *_categories(gate, found["probes"]),
        *_sets(gate, found["probes"]),
        *_rates(gate, metrics),
        *_judge(gate, found["judge"]),
    ]


def _perplexity(gate: Gate, metrics: Mapping[str, Any]) -> Iterator[Check]:
    if gate.perplexity_p is None:
        return
    one = metrics["perplexity"]
    yield Check(
        "perplexity_p",
        "测试集答案的困惑度更低",
        "lower perplexity of the test answers",
        f"lower, p < {gate.perplexity_p:g}",
        f"{one['base']:.2f} → {one['tuned']:.2f}, p = {one['p_value']:.2g}",
        one["tuned"] < one["base"] and one["p_value"] < gate.perplexity_p,
    )


def _categories(gate: Gate, probes: Mapping[str, Any]) -> Iterator[Check]:
    if gate.category_loss is None:
        return
    worse = []
    for name, one in probes.items():
        for category, counts in one["categories"].items():
            net = counts["base"] - counts["tuned"]
            if net > gate.category_loss * counts["rows"]:
                worse.append(f"{name}/{category} {counts['base']} → {counts['tuned']}")
    yield Check(
        "category_loss",
        "没有任何一类问题变差",
        "no category of probes worse",
        f"each loses at most {gate.category_loss:.1%}",
        ", ".join(worse) or "none does",
        not worse,
    )


def _sets(gate: Gate, probes: Mapping[str, Any]) -> Iterator[Check]:
    for name, share in gate.keep.items():
        total = probes[name]["total"]
        yield Check(
            f"keep.{name}",
            f"没有忘记：{probes[name]['title']['zh']}",
            f"not forgotten: {probes[name]['title']['en']}",
            f"at least {share:.1%} of the base's {total['base']} right answers",
            f"{total['base']} → {total['tuned']} right",
            total["tuned"] >= share * total["base"],
        )
    for name, share in gate.least.items():
        total = probes[name]["total"]
        yield Check(
            f"least.{name}",
            f"答对得够多：{probes[name]['title']['zh']}",
            f"right often enough: {probes[name]['title']['en']}",
            f"at least {share:.1%}",
            f"{total['tuned'] / total['rows']:.1%} of {total['rows']}",
            total["tuned"] >= share * total["rows"],
        )


def _rates(gate: Gate, metrics: Mapping[str, Any]) -> Iterator[Check]:
    labels = {
        "loop": ("几乎没有循环重复的回答", "hardly any answer ends in a loop"),
        "unfinished": ("几乎没有未说完的回答", "hardly any answer lacks its end"),
    }
    for name, (zh, en) in labels.items():
        limit = getattr(gate, f"{name}_rate")
        if limit is None:
            continue
        found = metrics[name]["tuned"]
        yield Check(f"{name}_rate", zh, en, f"below {limit:.1%}", f"{found:.1%}", found < limit)


def _judge(gate: Gate, judge: Mapping[str, Any] | None) -> Iterator[Check]:
    if gate.judge_p is None or judge is None:
        return
    yield Check(
        "judge_p",
        "评审模型认为更好",
        "the judge prefers the tuned model",
        f"more wins than losses, p < {gate.judge_p:g}",
        f"{judge['wins']} wins, {judge['ties']} ties, {judge['losses']} losses, "
        f"p = {judge['p_value']:.2g}",
        judge["wins"] > judge["losses"] and judge["p_value"] < gate.judge_p,
    )
