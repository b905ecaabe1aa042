"""The steps that LLaMA-Factory's trainer has logged, one line of JSON each."""

import json
from pathlib import Path
from typing import Any

from medqa.files import atomic_file

LOG = "trainer_log.jsonl"


def logged(log: Path) -> list[dict[str, Any]]:
    """Returns the lines of a trainer log; one that is half-written is left out."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    return [entry for line in lines if (entry := _parsed(line))]


def cut(log: Path, step: int) -> None:
    """Keeps the lines of a trainer log up to `step`: what comes after is done again."""
    if not log.exists():
        return
    lines = [line for line in logged(log) if line["current_steps"] <= step]
    with atomic_file(log) as out:
        out.write("".join(json.dumps(line) + "\n" for line in lines).encode())


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) and "current_steps" in entry else None
