"""From rows to numbers: each metric over the rows that have it, and nothing else."""

from typing import Any

import pytest

from medqa.compare import labels, measures, metrics
from medqa.compare.probes import ProbeSet


def scored(base: float, tuned: float, **more: Any) -> dict[str, Any]:
    return {
        "set": "test",
        "base": "短",
        "tuned": "长长",
        "base_finished": True,
        "tuned_finished": False,
        "base_scores": dict.fromkeys(metrics.NAMES, base),
        "tuned_scores": dict.fromkeys(metrics.NAMES, tuned),
        "base_nll": 20.0,
        "tuned_nll": 10.0,
        "nll_tokens": 10,
        **more,
    }


def probed(name: str, category: str, base: bool, tuned: bool) -> dict[str, Any]:
    return {"set": name, "category": category, "base_passed": base, "tuned_passed": tuned}


def test_every_metric_has_a_name_a_direction_and_a_definition() -> None:
    table = measures.metric_table([scored(0.1, 0.2), scored(0.2, 0.1)])
    names = [metric["name"] for metric in table]
    assert names == list(measures.BETTER)
    assert set(names) == labels.METRICS.keys() == measures.definitions().keys()


def test_each_over_its_own_rows() -> None:
    measured_only = {"set": "test", "base_nll": 5.0, "tuned_nll": 5.0, "nll_tokens": 5}
    asked_only = {
        "set": "questions",
        "base": "吃药" * 40,
        "tuned": "",
        "base_finished": False,
        "tuned_finished": True,
    }
    table = {m["name"]: m for m in measures.metric_table([scored(0, 1), measured_only, asked_only])}
    assert table["perplexity"]["rows"] == 2
    assert table["perplexity"]["base"] == pytest.approx(2.718281828 ** (25 / 15))
    assert table["perplexity"]["wins"] == 1
    assert table["bleu_1"]["rows"] == 1
    assert (table["bleu_1"]["base"], table["bleu_1"]["tuned"]) == (0, 1)
    assert table["length"]["rows"] == 2
    assert (table["length"]["base"], table["length"]["tuned"]) == (40.5, 1.0)
    assert (table["loop"]["base"], table["loop"]["tuned"]) == (0.5, 0.0)
    assert table["loop"]["wins"] == 1, "fewer loops are a win"
    assert (table["unfinished"]["base"], table["unfinished"]["tuned"]) == (0.5, 0.5)


def test_only_what_the_rows_have() -> None:
    assert measures.metric_table([]) == []
    of_file = {"set": "test", "base": "一", "tuned": "二"}
    assert [m["name"] for m in measures.metric_table([of_file])] == ["length", "loop"]


def test_probes_in_total_and_by_category() -> None:
    rows = [
        probed("drugs", "alcohol", False, True),
        probed("drugs", "alcohol", True, False),
        probed("drugs", "dose", True, True),
        probed("general", "capital", True, True),
        scored(0, 1),
    ]
    sets = [
        ProbeSet(name, {"zh": "药", "en": "drugs"}, {"dose": "剂量"}, ())
        for name in ("drugs", "general")
    ]
    table = measures.probe_table(sets, rows)
    assert list(table["drugs"]["categories"]) == ["alcohol", "dose"]
    assert table["drugs"]["names"] == {"dose": "剂量"}
    total, alcohol = table["drugs"]["total"], table["drugs"]["categories"]["alcohol"]
    assert [total[k] for k in ("rows", "base", "tuned", "gained", "lost")] == [3, 2, 2, 1, 1]
    assert [alcohol[k] for k in ("rows", "base", "tuned", "gained", "lost")] == [2, 1, 1, 1, 1]
    assert table["general"]["total"]["rows"] == 1


@pytest.mark.parametrize(
    ("name", "better", "difference", "p", "sign"),
    [
        ("perplexity", "lower", -1.0, 0.01, "good"),
        ("perplexity", "lower", 1.0, 0.01, "bad"),
        ("bleu_4", "higher", 0.1, 0.01, "good"),
        ("bleu_4", "higher", 0.1, 0.05, ""),
        ("length", None, 10.0, 0.001, ""),
    ],
)
def test_good_or_bad_is_said_where_it_can_be(
    name: str, better: str | None, difference: float, p: float, sign: str
) -> None:
    metric = {"name": name, "better": better, "difference": difference, "p_value": p}
    assert labels.sign(metric) == sign
