"""The verdict says better or worse only where the difference is no chance."""

from typing import Any

import pytest

from medqa.compare.gate import Check
from medqa.compare.verdict import verdict

from .test_gate import found


def facts(perplexity: float, p_value: float, right: int, p_right: float) -> dict[str, Any]:
    """Base: perplexity 10, 50 of 100 right; nobody judged."""
    result = found(judge=None)
    result["metrics"] = [
        {"name": "perplexity", "base": 10.0, "tuned": perplexity, "p_value": p_value},
        {"name": "bleu_4", "base": 0.01, "tuned": 0.5, "p_value": 0.0001},
    ]
    result["probes"]["general"]["total"] = {
        "rows": 100,
        "base": 50,
        "tuned": right,
        "p_value": p_right,
    }
    return result


@pytest.mark.parametrize(
    ("measured", "outcome"),
    [
        (facts(5, 0.01, 50, 1), "better"),
        (facts(5, 0.01, 80, 0.001), "better"),
        (facts(15, 0.01, 50, 1), "worse"),
        (facts(5, 0.01, 20, 0.001), "mixed"),
        (facts(9, 0.05, 55, 0.4), "unclear"),  # BLEU alone makes nothing better
        (found(metrics=[], probes={}, judge=None), "unclear"),
    ],
)
def test_the_outcome(measured: dict[str, Any], outcome: str) -> None:
    assert verdict(measured, [])["outcome"] == outcome


def test_one_sentence_with_the_values_and_what_cannot_be_told_apart() -> None:
    said = verdict(facts(5, 0.01, 55, 0.4), [])
    assert said["en"] == (
        "The tuned model is better: test perplexity 10.00 → 5.00; "
        "general facts 50.0% → 55.0% (not distinguishable)."
    )
    assert said["zh"] == (
        "训练后的模型更好：测试集困惑度 10.00 → 5.00；常识 50.0% → 55.0%（不可区分）。"
    )


def test_the_judge_speaks_too() -> None:
    measured = facts(10, 1, 50, 1)
    measured["judge"] = {"wins": 2, "ties": 0, "losses": 30, "p_value": 0.001}
    assert verdict(measured, [])["outcome"] == "worse"


def test_a_gate_that_fails_is_part_of_the_verdict() -> None:
    checks = [
        Check("loop_rate", "几乎没有循环重复的回答", "few loops", "below 1%", "30%", False),
        Check("keep.general", "没有忘记", "kept", "95%", "100%", True),
    ]
    said = verdict(facts(5, 0.01, 50, 1), checks)
    assert said["en"].endswith("The gate fails: loop_rate.")
    assert said["zh"].endswith("门槛未通过：几乎没有循环重复的回答。")
    assert verdict(facts(5, 0.01, 50, 1), checks[1:])["en"].endswith(
        "All 1 conditions of the gate hold."
    )
