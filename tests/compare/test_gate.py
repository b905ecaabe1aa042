"""Each condition of the gate: where it just holds, and where it just does not."""

from typing import Any

import pytest

from medqa.compare.gate import checks
from medqa.compare.plan import Gate


def found(**changes: Any) -> dict[str, Any]:
    """The facts of a comparison in which everything went well."""
    metrics = [
        {"name": "perplexity", "base": 28.0, "tuned": 1.5, "p_value": 0.0001},
        {"name": "loop", "base": 0.0, "tuned": 0.0, "p_value": 1.0},
        {"name": "unfinished", "base": 0.0, "tuned": 0.01, "p_value": 1.0},
    ]
    capital = {"rows": 50, "base": 50, "tuned": 49, "p_value": 1.0}
    author = {"rows": 50, "base": 40, "tuned": 41, "p_value": 1.0}
    probes = {
        "general": {
            "title": {"zh": "常识", "en": "general facts"},
            "total": {"rows": 100, "base": 90, "tuned": 90, "p_value": 1.0},
            "categories": {"capital": capital, "author": author},
        }
    }
    judge = {"wins": 60, "ties": 20, "losses": 20, "p_value": 0.00001}
    return {"metrics": metrics, "probes": probes, "judge": judge} | changes


def metric(name: str, **values: float) -> dict[str, Any]:
    facts = found()
    metrics = [m | values if m["name"] == name else m for m in facts["metrics"]]
    return facts | {"metrics": metrics}


def total(**values: int) -> dict[str, Any]:
    facts = found()
    facts["probes"]["general"]["total"] |= values
    return facts


def category(**values: int) -> dict[str, Any]:
    facts = found()
    facts["probes"]["general"]["categories"]["capital"] |= values
    return facts


def verdicts(gate: Gate, facts: dict[str, Any]) -> dict[str, bool]:
    return {check.name: check.passed for check in checks(gate, facts)}


def test_a_gate_that_asks_for_nothing_checks_nothing() -> None:
    assert checks(Gate(), found()) == []


@pytest.mark.parametrize(
    ("gate", "name", "holds", "fails"),
    [
        (
            Gate(perplexity_p=0.05),
            "perplexity_p",
            metric("perplexity", p_value=0.049),
            metric("perplexity", p_value=0.05),
        ),
        (
            Gate(perplexity_p=0.05),
            "perplexity_p",
            metric("perplexity", tuned=27.9),
            metric("perplexity", tuned=28.1),
        ),
        (Gate(category_loss=0.02), "category_loss", found(), category(tuned=48)),
        (Gate(category_loss=0.0), "category_loss", category(tuned=50), found()),
        (Gate(keep={"general": 0.9}), "keep.general", total(tuned=81), total(tuned=80)),
        (Gate(least={"general": 0.8}), "least.general", total(tuned=80), total(tuned=79)),
        (
            Gate(loop_rate=0.01),
            "loop_rate",
            metric("loop", tuned=0.009),
            metric("loop", tuned=0.01),
        ),
        (
            Gate(unfinished_rate=0.05),
            "unfinished_rate",
            metric("unfinished", tuned=0.049),
            metric("unfinished", tuned=0.05),
        ),
        (
            Gate(judge_p=0.05),
            "judge_p",
            found(),
            found(judge={"wins": 20, "ties": 20, "losses": 60, "p_value": 0.00001}),
        ),
        (
            Gate(judge_p=0.05),
            "judge_p",
            found(),
            found(judge={"wins": 30, "ties": 20, "losses": 25, "p_value": 0.6}),
        ),
    ],
)
def test_where_it_holds_and_where_not(
    gate: Gate, name: str, holds: dict[str, Any], fails: dict[str, Any]
) -> None:
    assert verdicts(gate, holds) == {name: True}
    assert verdicts(gate, fails) == {name: False}


def test_a_base_that_knew_nothing_cannot_be_forgotten() -> None:
    assert verdicts(Gate(keep={"general": 0.95}), total(base=0, tuned=0)) == {"keep.general": True}


def test_the_category_that_got_worse_is_named() -> None:
    (check,) = checks(Gate(category_loss=0.0), found())
    assert check.measured == "general/capital 50 → 49"
