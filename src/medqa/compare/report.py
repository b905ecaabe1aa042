"""A comparison on disk: every answer as JSON lines, and all of it as one HTML file."""

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medqa.compare import labels
from medqa.compare.difference import marked
from medqa.files import atomic_file

ANSWERS = "answers.jsonl"
HTML = "report.html"
WORST = 10

Row = Mapping[str, Any]


def write_answers(path: Path, answers: list[dict[str, Any]]) -> None:
    """Writes one JSON line a question."""
    with atomic_file(path) as out:
        for row in answers:
            out.write((json.dumps(row, ensure_ascii=False) + "\n").encode())


def read_answers(path: Path) -> list[dict[str, Any]]:
    """Reads what `write_answers` wrote."""
    with path.open("rb") as lines:  # str.splitlines would also split at U+2028 in an answer
        return [json.loads(line) for line in lines]


def regressions(answers: list[dict[str, Any]], count: int = WORST) -> list[dict[str, Any]]:
    """Returns the questions that got worse, the worst first.

    A probe that was answered rightly before and wrongly now comes before any test question: there
    it is known that the answer is wrong. Test questions follow by how much ROUGE-L they lost.
    """
    lost = [row for row in answers if row.get("base_passed") and not row["tuned_passed"]]
    scored = [row for row in answers if "base_scores" in row and _gain(row) < 0]
    return [*lost, *sorted(scored, key=_gain)][:count]


def write_html(
    path: Path,
    found: Mapping[str, Any],
    answers: list[dict[str, Any]],
    curve: Path,
    record: Mapping[str, Any],
) -> None:
    """Writes the report as one file that asks for nothing from outside.

    Args:
        path: Where to.
        found: The measured values, as ``report.json`` has them.
        answers: Every question with both answers.
        curve: The training's loss curve; left out when the file is not there.
        record: What was compared and how: ``inputs``, ``config`` and ``versions``.
    """
    from jinja2 import Environment, PackageLoader, select_autoescape

    environment = Environment(
        loader=PackageLoader("medqa.compare", "."), autoescape=select_autoescape(default=True)
    )
    environment.globals |= {"labels": labels, "marked": marked}
    probed = [row for row in answers if "base_passed" in row]
    html = environment.get_template("report.html.j2").render(
        found,
        asked=[row for row in answers if row["set"] == "questions"],
        probed=probed,
        counts={kind: sum(state(row) == kind for row in probed) for kind in STATES},
        state=state,
        states=STATES,
        worst=regressions(answers),
        curve=base64.b64encode(curve.read_bytes()).decode() if curve.is_file() else None,
        record=record,
    )
    with atomic_file(path) as out:
        out.write(html.encode())


STATES = {
    "lost": ("忘掉的", "right before, wrong after"),
    "wrong": ("仍然答错的", "wrong before and after"),
    "gained": ("学会的", "wrong before, right after"),
    "kept": ("一直答对的", "right before and after"),
}


def state(row: Row) -> str:
    """Returns which of `STATES` a probe's two answers are in."""
    if row["base_passed"]:
        return "kept" if row["tuned_passed"] else "lost"
    return "gained" if row["tuned_passed"] else "wrong"


def _gain(row: Row) -> float:
    return float(row["tuned_scores"]["rouge_l"] - row["base_scores"]["rouge_l"])
