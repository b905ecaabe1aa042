"""What the command prints: everything, and nothing that a model said as markup."""

from pathlib import Path

import pytest

from medqa.compare import terminal

from .facts import ANSWERS, FOUND, free, probed


def test_side_by_side() -> None:
    shown = terminal.side_by_side(
        [free("[red]问[/red]", "[/b]", "[link=x]"), probed("甲", True, True)]
    )
    for literal in ("[red]问[/red]", "[/b]", "[link=x]"):
        assert literal in shown, "an answer is no markup"
    assert "甲" not in shown, "probes are counted, not listed"
    assert "\x1b" not in shown
    long = terminal.side_by_side([free("问", "旧" * 300, "新" * 300)])
    assert (long.count("旧"), long.count("新")) == (300, 300), "nothing is cut off"


def test_summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDQA_ROOT", str(tmp_path))
    shown = terminal.summary(FOUND, ANSWERS, tmp_path / "outputs/tiny")
    lines = shown.splitlines()
    row = {line.split("│")[1].strip(): line for line in lines if line.startswith("│")}
    assert [cell.strip() for cell in row["medical facts"].split("│")[2:-1]] == [
        "4",
        "50.0%",
        "75.0%",
        "1",
        "1.000",
    ]
    assert [cell.strip() for cell in row["perplexity"].split("│")[2:-1]] == [
        "7",
        "28.12",
        "1.50",
        "-26.62 [-26.63, -26.61]",
        "< 0.001",
    ]
    assert "FAILS" in row["loop_rate"]
    assert "training   20 steps, 0.250 s a step" in lines
    assert lines[-2:] == ["report     outputs/tiny/report.html", "The tuned model is better."]
    assert "judge" not in shown


def test_only_what_was_measured(tmp_path: Path) -> None:
    judge = {"asked": 10, "wins": 7, "ties": 2, "losses": 1, "p_value": 0.07}
    bare = FOUND | {"gate": [], "metrics": [], "probes": {}, "training": {}, "judge": judge}
    shown = terminal.summary(bare, [], tmp_path)
    assert "the judge says" in shown
    assert "0.070" in shown
    for absent in ("training ", "probes", "before and after", "gate"):
        assert absent not in shown
