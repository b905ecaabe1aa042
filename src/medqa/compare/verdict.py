"""The verdict in one sentence: better, worse, mixed, or not distinguishable; and by what."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from medqa.compare.gate import Check
from medqa.compare.stats import ALPHA

Outcome = Literal["better", "worse", "mixed", "unclear"]


class Evidence(NamedTuple):
    """One measure that speaks for or against the tuned model.

    Attributes:
        zh: What was measured and both values, in Chinese.
        en: The same in English.
        sign: 1 the tuned one is better, -1 worse, 0 not distinguishable at `ALPHA`.
    """

    zh: str
    en: str
    sign: int


def verdict(found: Mapping[str, Any], gate: Sequence[Check]) -> dict[str, Any]:
    """Returns ``outcome``, ``zh`` and ``en``: what the measures say, and what the gate.

    Only the perplexity, the probes and the judge speak: likeness to the reference's words
    (BLEU and its kin) does not know a right answer from a wrong one.
    """
    all_of = list(_evidence(found))
    outcome = _outcome([one.sign for one in all_of])
    failed = [check for check in gate if not check.passed]
    heads = {
        "better": ("训练后的模型更好", "The tuned model is better"),
        "worse": ("训练后的模型更差", "The tuned model is worse"),
        "mixed": ("有得有失", "Better in one thing, worse in another"),
        "unclear": ("与基础模型没有可区分的差别", "Not distinguishable from the base"),
    }
    zh, en = heads[outcome]
    if all_of:
        zh += "：" + "；".join(one.zh + _mark(one, "zh") for one in all_of)
        en += ": " + "; ".join(one.en + _mark(one, "en") for one in all_of)
    if failed:
        zh += f"。门槛未通过：{'、'.join(check.zh for check in failed)}。"
        en += f". The gate fails: {', '.join(check.name for check in failed)}."
    elif gate:
        zh += f"。{len(gate)} 项门槛全部通过。"
        en += f". All {len(gate)} conditions of the gate hold."
    else:
        zh, en = zh + "。", en + "."
    return {"outcome": outcome, "zh": zh, "en": en}


def _outcome(signs: Sequence[int]) -> Outcome:
    if 1 in signs and -1 in signs:
        return "mixed"
    if 1 in signs:
        return "better"
    return "worse" if -1 in signs else "unclear"


def _mark(one: Evidence, language: Literal["zh", "en"]) -> str:
    if one.sign:
        return ""
    return "（不可区分）" if language == "zh" else " (not distinguishable)"


def _evidence(found: Mapping[str, Any]) -> Iterator[Evidence]:
    for metric in found["metrics"]:
        if metric["name"] == "perplexity":
            change = f"{metric['base']:.2f} → {metric['tuned']:.2f}"
            better = metric["tuned"] < metric["base"]
            yield Evidence(
                f"测试集困惑度 {change}",
                f"test perplexity {change}",
                _sign(metric["p_value"], better=better),
            )
    for one in found["probes"].values():
        total = one["total"]
        change = f"{total['base'] / total['rows']:.1%} → {total['tuned'] / total['rows']:.1%}"
        yield Evidence(
            f"{one['title']['zh']} {change}",
            f"{one['title']['en']} {change}",
            _sign(total["p_value"], better=total["tuned"] > total["base"]),
        )
    judge = found["judge"]
    if judge:
        change = f"{judge['wins']} : {judge['losses']}"
        yield Evidence(
            f"评审胜负 {change}",
            f"judged {change}",
            _sign(judge["p_value"], better=judge["wins"] > judge["losses"]),
        )


def _sign(p_value: float, *, better: bool) -> int:
    if p_value >= ALPHA:
        return 0
    return 1 if better else -1
