"""What a reader sees, and that a page opens alone and runs nothing that a model said."""

import base64
import html.parser
import json
import re
from pathlib import Path
from typing import Any

import pytest

from medqa.compare import report

EVIL = "<script>alert(1)</script><img src=x onerror=alert(1)>"
FOUND: dict[str, Any] = {
    "facts": {
        "medical": {"asked": 4, "base": 0, "tuned": 3},
        "extra": {"asked": 1, "base": 1, "tuned": 1},
    },
    "test_loss": {"base": 3.14159, "tuned": 1.5, "rows": 7},
    "training": {"steps": 20, "seconds_per_step": 0.25, "train_loss": 1.2},
}
INPUTS = {"models/tiny": "f00d", f"data/{EVIL}": EVIL}


def free(question: str, base: str = "旧", tuned: str = "新") -> dict[str, Any]:
    return {"set": "questions", "question": question, "base": base, "tuned": tuned}


def judged(question: str, base_right: bool, tuned_right: bool) -> dict[str, Any]:
    return {
        **free(question),
        "set": "medical",
        "expect": f"期望{EVIL}",
        "base_right": base_right,
        "tuned_right": tuned_right,
    }


ANSWERS = [
    free(f"自由问题{EVIL}", base=EVIL, tuned=f"x{EVIL}"),
    judged("甲问", True, True),
    judged("乙问", True, False),
    judged("丙问", False, True),
    judged(f"丁问{EVIL}", False, False),
]


class Page(html.parser.HTMLParser):
    """The tags of a page with their attributes, and the text under each heading."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.parts: list[str] = [""]
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "h2":
            self.parts.append("")

    def handle_data(self, data: str) -> None:
        self.parts[-1] += data

    def under(self, title: str) -> str:
        return next(part for part in self.parts if part.startswith(title))


@pytest.fixture
def text(tmp_path: Path) -> str:
    curve = tmp_path / "training_loss.png"
    curve.write_bytes(b"\x89PNG picture")
    report.write_html(tmp_path / "r.html", FOUND, ANSWERS, curve, INPUTS)
    return (tmp_path / "r.html").read_text(encoding="utf-8")


def test_nothing_that_a_model_said_is_run(text: str) -> None:
    page = Page(text)
    assert EVIL not in text
    assert not [tag for tag, _ in page.tags if tag in ("script", "iframe", "object", "embed")]
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
    assert "".join(page.parts).count(EVIL) == 3 + 4 + 2, "every text is there, as text"


def test_nothing_is_asked_for_from_outside(text: str) -> None:
    for _, attrs in Page(text).tags:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            value = attrs.get(name) or ""
            assert not value or value.startswith("data:"), (name, value)
    assert not re.search(r"url\(|@import|https?://|<link|<base", text)


def test_the_curve(text: str, tmp_path: Path) -> None:
    picture = base64.b64encode(b"\x89PNG picture").decode()
    assert ("img", {"alt": "loss curve", "src": f"data:image/png;base64,{picture}"}) in Page(
        text
    ).tags
    report.write_html(tmp_path / "r.html", FOUND, ANSWERS, tmp_path / "absent.png", INPUTS)
    without = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "img" not in {tag for tag, _ in Page(without).tags}
    assert "损失曲线" not in without


def test_every_answer_is_under_its_heading(text: str) -> None:
    page = Page(text)
    assert "自由问题" in page.under("并排回答")
    for title, question in (("忘掉的", "乙问"), ("学会的", "丙问"), ("仍然答错的", "丁问")):
        assert question in page.under(title)
        assert re.search(r": 1\b", page.under(title))
        assert not any(q in page.under(title) for q in {"乙问", "丙问", "丁问"} - {question})
    assert "f00d" in page.under("来源")
    assert "20 steps of 0.250 s" in page.under("结果")


def test_a_page_without_probes_training_or_answers(tmp_path: Path) -> None:
    found = {"facts": {}, "test_loss": {"base": 1.0, "tuned": 1.0, "rows": 1}, "training": {}}
    report.write_html(tmp_path / "r.html", found, [free("问", base="")], tmp_path / "x.png", {})
    page = Page((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert "（空）" in page.under("并排回答")
    assert "没有。None." in page.under("忘掉的")


def test_measures() -> None:
    medical, extra, loss = report.measures(FOUND)
    assert medical["en"] == "medical facts, 4 held-out phrasings, right"
    assert medical["zh"].startswith("医学事实")
    assert (medical["base"], medical["tuned"]) == ("0.0%", "75.0%")
    assert extra["en"].startswith("extra, 1 held-out")
    assert (loss["base"], loss["tuned"]) == ("3.142", "1.500")


def test_side_by_side() -> None:
    shown = report.side_by_side(
        [free("[red]问[/red]", "[/b]", "[link=x]"), judged("甲", True, True)]
    )
    for literal in ("[red]问[/red]", "[/b]", "[link=x]"):
        assert literal in shown, "an answer is no markup"
    assert "甲" not in shown, "probes are counted, not listed"
    assert "\x1b" not in shown
    long = report.side_by_side([free("问", "旧" * 300, "新" * 300)])
    assert (long.count("旧"), long.count("新")) == (300, 300), "nothing is cut off"


def test_summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDQA_ROOT", str(tmp_path))
    settings = {"config": {"adapter_name_or_path": "saves/tiny"}}
    shown = report.summary(FOUND | settings, ANSWERS, tmp_path / "outputs/tiny")
    assert "medical facts" in shown
    assert "75.0%" in shown
    assert "training   20 steps, 0.250 s a step" in shown
    assert "report     outputs/tiny/report.html" in shown
    assert "loss curve saves/tiny/training_loss.png" in shown
    bare = report.summary(FOUND | {"training": {}}, ANSWERS, tmp_path)
    assert "training   " not in bare


def test_answers(tmp_path: Path) -> None:
    rows = [free("药\u2028", "a\nb"), free("x")]
    report.write_answers(tmp_path / "a.jsonl", rows)
    written = (tmp_path / "a.jsonl").read_bytes()
    assert written.count(b"\n") == 2
    assert "药".encode() in written
    assert [json.loads(line) for line in written.split(b"\n")[:2]] == rows
