"""What examinations came to: shares with intervals, the difference in pairs, as a table."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from medqa.compare import labels, stats
from medqa.compare.exams_papers import Paper
from medqa.compare.exams_plan import ExamTask
from medqa.compare.generate import SIDES
from medqa.compare.terminal import rendered
from medqa.paths import shown

Row = Mapping[str, Any]
KINDS = {"single": "one right answer", "several": "several right answers"}


def results(
    tasks: Mapping[str, ExamTask], papers: Mapping[str, Paper], rows: Sequence[Row]
) -> dict[str, dict[str, Any]]:
    """Returns for each set what was read, left out and asked, and how both sides did.

    ``total``, each of ``subjects``, and ``single`` and ``several`` (right answers of a question,
    where a set has both) hold the counts of `scored`.
    """
    found = {}
    for name, paper in papers.items():
        mine = [row for row in rows if row["set"] == name]
        kinds = {
            "single": [row for row in mine if len(row["answer"]) == 1],
            "several": [row for row in mine if len(row["answer"]) > 1],
        }
        found[name] = {
            "task": tasks[name].task,
            "output_type": tasks[name].output_type,
            "read": paper.read,
            "asked": len(mine),
            "left_out": paper.left_out,
            "total": scored(mine),
            **({kind: scored(some) for kind, some in kinds.items()} if all(kinds.values()) else {}),
            "subjects": {
                subject: scored([row for row in mine if row["subject"] == subject])
                for subject in dict.fromkeys(row["subject"] for row in mine)
            },
        }
    return found


def scored(rows: Sequence[Row]) -> dict[str, Any]:
    """Returns a `stats.PassFail` as a mapping, and for each side:

    ``<side>_interval``, Wilson's 95 % interval of its share of right answers; ``<side>_unparsed``,
    answers in which no choice could be read, which count as wrong; ``<side>_tied``, questions
    whose likeliest answers are equally likely, so that the first was taken.
    """
    counts = asdict(stats.passfail(*([row[f"{side}_right"] for row in rows] for side in SIDES)))
    for side in SIDES:
        counts[f"{side}_interval"] = stats.share(counts[side], len(rows))
        counts[f"{side}_unparsed"] = sum(row[f"{side}_choice"] is None for row in rows)
        counts[f"{side}_tied"] = sum(map(_tied, (row.get(f"{side}_scores", []) for row in rows)))
    return counts


def summary(found: Mapping[str, Any], folder: Path) -> str:
    """Returns the table for the terminal, what was not asked or not parsed, and where to look."""
    from rich.table import Table

    table = Table(title="examinations: right answers in %, with 95 % intervals")
    table.add_column("set", overflow="fold")
    for column in ("asked", "base", "tuned", "change", "p"):
        table.add_column(column, justify="right", no_wrap=True)
    notes: list[str] = []
    for name, exam in found["exams"].items():
        table.add_row(*_cells(name, exam["total"]))
        if len(exam["subjects"]) > 1:
            for subject, counts in exam["subjects"].items():
                table.add_row(*_cells(f"  {subject}", counts))
        for kind in KINDS:
            if kind in exam:
                table.add_row(*_cells(f"  {KINDS[kind]}", exam[kind]))
        table.add_section()
        notes += _notes(name, exam)
    return "\n".join(
        [
            rendered(table),
            "p: McNemar's exact test; those of single subjects are many, expect 1 in 20 below 0.05",
            *notes,
            f"answers    {shown(folder / 'answers.jsonl')}",
        ]
    )


def _cells(name: str, counts: Mapping[str, Any]) -> Iterable[str]:
    from rich.markup import escape

    yield escape(name)
    yield str(counts["rows"])
    for side in SIDES:
        share = f"{100 * counts[side] / counts['rows']:.1f}"
        yield escape(f"{share} {_interval(*counts[f'{side}_interval'])}")
    change = 100 * (counts["tuned"] - counts["base"]) / counts["rows"]
    yield escape(f"{change:+.1f} {_interval(counts['low'], counts['high'])}")
    yield labels.probability(counts["p_value"])


def _interval(low: float, high: float) -> str:
    return f"[{100 * low:.0f}, {100 * high:.0f}]"


def _notes(name: str, exam: Mapping[str, Any]) -> Iterable[str]:
    for reason, left in exam["left_out"].items():
        yield f"{name}: {left['rows']} of {exam['read']} rows not asked, {reason}: {left['first']}"
    total = exam["total"]
    if exam["output_type"] == "generate_until":
        parts = (f"{side} {total[f'{side}_unparsed'] / total['rows']:.1%}" for side in SIDES)
        yield f"{name}: no choice could be read in {', '.join(parts)} of the answers"
    if any(total[f"{side}_tied"] for side in SIDES):
        parts = (f"{side} {total[f'{side}_tied']}" for side in SIDES)
        yield f"{name}: the likeliest answers tied, and the first was taken: {', '.join(parts)}"


def _tied(scores: Sequence[float]) -> bool:
    return len(scores) > 1 and sorted(scores)[-1] == sorted(scores)[-2]
