"""What a reader sees, and that a page opens alone and runs nothing that a model said."""

import base64
import html.parser
import json
import re
from pathlib import Path

import pytest

from medqa.compare import report

from .facts import ANSWERS, EVIL, FOUND, RECORD, free, probed, scored


class Page(html.parser.HTMLParser):
    """The tags of a page with their attributes, and the text under each heading."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.parts: list[str] = [""]
        self.marks: list[str] = []
        self._marking = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._marking = tag == "mark"
        if tag == "h2":
            self.parts.append("")

    def handle_data(self, data: str) -> None:
        self.parts[-1] += data
        if self._marking:
            self.marks.append(data)
            self._marking = False

    def under(self, title: str) -> str:
        return next(part for part in self.parts if part.startswith(title))


@pytest.fixture
def text(tmp_path: Path) -> str:
    curve = tmp_path / "training_loss.png"
    curve.write_bytes(b"\x89PNG picture")
    report.write_html(tmp_path / "r.html", FOUND, ANSWERS, curve, RECORD)
    return (tmp_path / "r.html").read_text(encoding="utf-8")


def test_nothing_that_a_model_said_is_run(text: str) -> None:
    page = Page(text)
    assert EVIL not in text
    assert not [tag for tag, _ in page.tags if tag in ("script", "iframe", "object", "embed")]
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
    everything = "".join(page.parts)
    # The free question and its answers; expectations of the probes shown; why one failed; inputs.
    assert everything.count(EVIL) >= 3 + 4 + 2 + 2, "every text is there, as text"


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
    report.write_html(tmp_path / "r.html", FOUND, ANSWERS, tmp_path / "absent.png", RECORD)
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
    assert "c0ffee" in page.under("来源")
    assert "20 steps of 0.250 s" in "".join(page.parts)


def test_the_verdict_the_gate_and_the_numbers(text: str) -> None:
    page = Page(text)
    assert "训练后的模型更好。" in page.parts[0], "the verdict comes before all else"
    assert "✗ 未通过" in page.under("门槛")
    assert "14.3%" in page.under("门槛")
    metrics = page.under("指标")
    assert "28.12" in metrics
    assert "-26.62 [-26.63, -26.61]" in metrics
    assert "< 0.001" in metrics
    assert "+2.66 [+1.66, +3.66]" in metrics, "BLEU is shown times 100, as others publish it"
    assert metrics.count("not distinguishable") == 1
    assert "mean over rows" in metrics


def test_one_square_for_each_probe(text: str) -> None:
    squares = [a["class"] for tag, a in Page(text).tags if tag == "i" and a.get("title")]
    assert squares == ["kept", "lost", "gained", "wrong"]
    assert "类别 class" in Page(text).under("可核对的问题")


def test_the_worst_first_with_the_difference_marked(text: str) -> None:
    page = Page(text)
    worst = page.under("变差最多的")
    places = [worst.index(question) for question in ("乙问", "己问", "戊问")]
    assert places == sorted(places)
    assert "庚问" not in worst
    assert page.marks == ["旧", "新", "不", "不"]


def test_ten_regressions_at_most() -> None:
    rows = [probed(f"忘{n}", True, False) for n in range(3)]
    rows += [scored(f"差{n}", 0.5, 0.5 - n / 100) for n in range(20)]
    worst = [row["question"] for row in report.regressions(rows)]
    assert worst == ["忘0", "忘1", "忘2", *(f"差{n}" for n in range(19, 12, -1))]
    assert report.regressions([scored("同", 0.5, 0.5)]) == []


def test_a_page_without_anything(tmp_path: Path) -> None:
    found = FOUND | {"gate": [], "metrics": [], "probes": {}, "training": {}}
    report.write_html(tmp_path / "r.html", found, [free("问", base="")], tmp_path / "x", RECORD)
    page = Page((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert "（空 empty）" in page.under("并排回答")
    assert not any(part.startswith(("门槛", "指标", "忘掉的")) for part in page.parts)


def test_answers(tmp_path: Path) -> None:
    rows = [free("药\u2028", "a\nb"), free("x")]
    report.write_answers(tmp_path / "a.jsonl", rows)
    written = (tmp_path / "a.jsonl").read_bytes()
    assert written.count(b"\n") == 2
    assert "药".encode() in written
    assert [json.loads(line) for line in written.split(b"\n")[:2]] == rows
    assert report.read_answers(tmp_path / "a.jsonl") == rows
