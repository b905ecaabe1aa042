"""What a comparison looks like: in the terminal, as JSON lines, as one HTML file."""

import base64
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medqa.files import atomic_file
from medqa.paths import shown

ANSWERS = "answers.jsonl"
HTML = "report.html"
TITLES = {"medical": "medical facts", "general": "general facts"}
TITLES_ZH = {"medical": "医学事实", "general": "常识"}


def side_by_side(answers: list[dict[str, Any]]) -> str:
    """Returns a table of the freely asked questions with both answers."""
    from rich.table import Table

    table = Table(show_lines=True, title="before and after")
    for name in ("question", "base", "tuned"):
        table.add_column(name, ratio=1, overflow="fold")
    for row in answers:
        if row["set"] == "questions":
            table.add_row(*(_escaped(row[key]) for key in ("question", "base", "tuned")))
    return _rendered(table)


def summary(found: Mapping[str, Any], answers: list[dict[str, Any]], folder: Path) -> str:
    """Returns the side-by-side table, the measured table, and where to look."""
    from rich.table import Table

    table = Table(title="what the training changed")
    table.add_column("measure")
    for name in ("base", "tuned"):
        table.add_column(name, justify="right")
    for measure in measures(found):
        table.add_row(measure["en"], measure["base"], measure["tuned"])
    lines = [side_by_side(answers), _rendered(table)]
    training = found["training"]
    if training:
        lines.append(
            f"training   {training['steps']} steps, {training['seconds_per_step']:.3f} s a step"
        )
    lines.append(f"report     {shown(folder / HTML)}")
    adapter = found.get("config", {}).get("adapter_name_or_path")
    if adapter:
        lines.append(f"loss curve {adapter}/training_loss.png")
    return "\n".join(lines)


def measures(found: Mapping[str, Any]) -> list[dict[str, str]]:
    """Returns the measured rows: a label in two languages and both values as text."""
    rows = []
    for name, counts in found["facts"].items():
        asked = counts["asked"]
        rows.append(
            {
                "en": f"{TITLES.get(name, name)}, {asked} held-out phrasings, right",
                "zh": f"{TITLES_ZH.get(name, name)}（{asked} 个未训练过的问法）答对",
                "base": f"{counts['base'] / asked:.1%}",
                "tuned": f"{counts['tuned'] / asked:.1%}",
            }
        )
    loss = found["test_loss"]
    rows.append(
        {
            "en": f"test loss, {loss['rows']} held-out rows (nats a token)",
            "zh": f"测试集损失（{loss['rows']} 条）",
            "base": f"{loss['base']:.3f}",
            "tuned": f"{loss['tuned']:.3f}",
        }
    )
    return rows


def write_answers(path: Path, answers: list[dict[str, Any]]) -> None:
    """Writes one JSON line a question."""
    with atomic_file(path) as out:
        for row in answers:
            out.write((json.dumps(row, ensure_ascii=False) + "\n").encode())


def write_html(
    path: Path,
    found: Mapping[str, Any],
    answers: list[dict[str, Any]],
    curve: Path,
    inputs: Mapping[str, str],
) -> None:
    """Writes the report as one file that asks for nothing from outside.

    Args:
        path: Where to.
        found: The measured values.
        answers: Every question with both answers.
        curve: The training's loss curve; left out when the file is not there.
        inputs: What was compared, with digests.
    """
    from jinja2 import Environment, PackageLoader, select_autoescape

    image = base64.b64encode(curve.read_bytes()).decode() if curve.is_file() else None
    page = Environment(
        loader=PackageLoader("medqa.compare", "."), autoescape=select_autoescape(default=True)
    ).get_template("report.html.j2")
    judged = [row for row in answers if row["set"] != "questions"]
    html = page.render(
        measures=measures(found),
        training=found["training"],
        asked=[row for row in answers if row["set"] == "questions"],
        forgotten=[row for row in judged if row["base_right"] and not row["tuned_right"]],
        wrong=[row for row in judged if not row["tuned_right"] and not row["base_right"]],
        learned=[row for row in judged if row["tuned_right"] and not row["base_right"]],
        curve=image,
        inputs=inputs,
    )
    with atomic_file(path) as out:
        out.write(html.encode())


def _rendered(table: Any) -> str:
    """Returns a rich table as text: as wide as the terminal, 100 columns in a log."""
    from rich.console import Console

    terminal, text = Console(), io.StringIO()
    Console(file=text, width=terminal.width if terminal.is_terminal else 100).print(table)
    return text.getvalue().rstrip()


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)
