"""A comparison in the terminal: verdict, answers side by side, and the tables."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medqa.compare import labels
from medqa.compare.report import HTML
from medqa.paths import shown


def summary(found: Mapping[str, Any], answers: list[dict[str, Any]], folder: Path) -> str:
    """Returns what a reader wants to know first, the verdict last, where the eye is."""
    parts = []
    if any(row["set"] == "questions" for row in answers):
        parts.append(side_by_side(answers))
    parts += [rendered(table) for table in _tables(found)]
    training = found["training"]
    if training:
        pace = training.get("seconds_per_step")  # unknown where a killed run was only finished
        told = f", {pace:.3f} s a step" if pace is not None else ""
        parts.append(f"training   {training['steps']} steps{told}")
    parts += [f"report     {shown(folder / HTML)}", found["verdict"]["en"]]
    return "\n".join(parts)


def side_by_side(answers: list[dict[str, Any]]) -> str:
    """Returns a table of the freely asked questions with both answers."""
    from rich.table import Table

    table = Table(show_lines=True, title="before and after")
    for name in ("question", "base", "tuned"):
        table.add_column(name, ratio=1, overflow="fold")
    for row in answers:
        if row["set"] == "questions":
            table.add_row(*(_escaped(row[key]) for key in ("question", "base", "tuned")))
    return rendered(table)


def _tables(found: Mapping[str, Any]) -> list[Any]:
    tables = []
    if found["metrics"]:
        table = _table("metrics", "metric", "rows", "base", "tuned", "change [95 %]", "p")
        for metric in found["metrics"]:
            table.add_row(
                labels.METRICS[metric["name"]].en,
                str(metric["rows"]),
                labels.value(metric, "base"),
                labels.value(metric, "tuned"),
                labels.change(metric),
                labels.probability(metric["p_value"]),
            )
        tables.append(table)
    if found["probes"]:
        table = _table("probes answered rightly", "probes", "asked", "base", "tuned", "lost", "p")
        for probes in found["probes"].values():
            _probe_row(table, probes["title"]["en"], probes["total"])
            for category, counts in probes["categories"].items():
                _probe_row(table, f"  {category}", counts)
        tables.append(table)
    if found["judge"]:
        judge = found["judge"]
        table = _table("the judge says", "asked", "wins", "ties", "losses", "p")
        counts = (str(judge[key]) for key in ("asked", "wins", "ties", "losses"))
        table.add_row(*counts, labels.probability(judge["p_value"]))
        tables.append(table)
    if found["gate"]:
        table = _table("gate", "condition", "required", "measured", "")
        for check in found["gate"]:
            holds = "holds" if check["passed"] else "FAILS"
            table.add_row(check["name"], check["required"], check["measured"], holds)
        tables.append(table)
    return tables


def _table(title: str, *columns: str) -> Any:
    from rich.table import Table

    table = Table(title=title)
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number and title != "gate" else "left")
    return table


def _probe_row(table: Any, name: str, counts: Mapping[str, Any]) -> None:
    table.add_row(
        _escaped(name),
        str(counts["rows"]),
        labels.shares(counts, "base"),
        labels.shares(counts, "tuned"),
        str(counts["lost"]),
        labels.probability(counts["p_value"]),
    )


def rendered(table: Any) -> str:
    """Returns a rich table as text: as wide as the terminal, 100 columns in a log."""
    from rich.console import Console

    terminal, text = Console(), io.StringIO()
    Console(file=text, width=terminal.width if terminal.is_terminal else 100).print(table)
    return text.getvalue().rstrip()


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)
