"""From the answers to the numbers: every metric and every probe, base against tuned."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from medqa.compare import metrics, stats
from medqa.compare.generate import SIDES
from medqa.compare.probes import ProbeSet

Row = Mapping[str, Any]

# Which way is better; None where neither is (a longer answer is not a better one).
BETTER = {
    "perplexity": "lower",
    **dict.fromkeys(metrics.NAMES, "higher"),
    "length": None,
    "loop": "lower",
    "unfinished": "lower",
}
OWN_DEFINITIONS = {
    "perplexity": "exp of the mean nats a token of the reference answer, its end token included, "
    "over all tokens of all rows; the question is given, not counted",
    "length": "characters of an answer without white space; all answers",
    "unfinished": "answers that have no end token within max_new_tokens; all answers",
}


def definitions() -> dict[str, str]:
    """Returns what each metric is, exactly."""
    return OWN_DEFINITIONS | dict(metrics.DEFINITIONS)


def metric_table(answers: Sequence[Row]) -> list[dict[str, Any]]:
    """Returns base against tuned for every metric that has rows, in the order of `BETTER`.

    Perplexity, BLEU and their kin are of the test rows; length, loop and unfinished of all answers.
    """
    found = {}
    with_loss = [row for row in answers if row.get("nll_tokens")]
    if with_loss:
        found["perplexity"] = stats.paired_perplexity(
            [row["base_nll"] for row in with_loss],
            [row["tuned_nll"] for row in with_loss],
            [row["nll_tokens"] for row in with_loss],
        )
    scored = [row for row in answers if "base_scores" in row]
    for name in metrics.NAMES if scored else ():
        found[name] = stats.paired(
            [row["base_scores"][name] for row in scored],
            [row["tuned_scores"][name] for row in scored],
        )
    said = [row for row in answers if "base" in row]
    of_any: dict[str, Callable[[Row, str], float]] = {
        "length": lambda row, side: len(metrics.characters(row[side])),
        "loop": lambda row, side: metrics.loops(row[side]),
        "unfinished": lambda row, side: not row[f"{side}_finished"],
    }
    if not all("base_finished" in row for row in said):  # files of predictions do not say it
        del of_any["unfinished"]
    for name, measure in of_any.items() if said else ():
        found[name] = stats.paired(
            [float(measure(row, "base")) for row in said],
            [float(measure(row, "tuned")) for row in said],
            higher_is_better=BETTER[name] != "lower",
        )
    return [{"name": name, "better": BETTER[name], **asdict(one)} for name, one in found.items()]


def probe_table(sets: Iterable[ProbeSet], answers: Sequence[Row]) -> dict[str, Any]:
    """Returns for every set the title and what was passed, in total and by category."""
    table = {}
    for one in sets:
        rows = [row for row in answers if row["set"] == one.name]
        categories = dict.fromkeys(row["category"] for row in rows)
        table[one.name] = {
            "title": dict(one.title),
            "names": dict(one.categories),
            "total": _passed(rows),
            "categories": {
                name: _passed([row for row in rows if row["category"] == name])
                for name in categories
            },
        }
    return table


def _passed(rows: Sequence[Row]) -> dict[str, Any]:
    passed = ([bool(row[f"{side}_passed"]) for row in rows] for side in SIDES)
    return asdict(stats.passfail(*passed))
