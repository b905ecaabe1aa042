"""The report of a small made-up conversion: every number, and nothing that must not be there."""

import html
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from medqa.data import report
from medqa.data.recipe import Recipe

RECIPE = {
    "name": "demo",
    "sources": [
        {"path": "data/raw/a.jsonl", "source": "a"},
        {"path": "data/raw/b.jsonl", "source": "b"},
    ],
    "min_question_chars": 2,
    "max_question_chars": 300,
    "min_answer_chars": 2,
    "max_answer_chars": 1200,
    "test_share": 0.2,
    "seed": 42,
}
ADVICE = "多喝水，电话13800138000"
CLUSTERS = {
    "near_pairs": 7_654,
    "clusters": 5,
    "largest": 3,
    "largest_before": 9_123,
    "records_taken_apart": 9_123,
    "near_pairs_cut": 33,
    "soft_ties_cut": 0,
    "sizes": [],
}


def leakage(**ours: float) -> dict[str, dict[str, float]]:
    random = {key: 0.371 for key in report.LEAKAGE} | {"sampled": 500}
    return {"random": random, "ours": dict.fromkeys(report.LEAKAGE, 0.0) | {"sampled": 500} | ours}


def rows(count: int = 5) -> pl.DataFrame:
    questions = [f"高血压<b>患者</b>第{n}问怎么办" for n in range(count)]
    return pl.DataFrame(
        {
            "source": ["a"] * count,
            "row": range(1, count + 1),
            "part": [0] * count,
            "question": questions,
            "answer": ["多休息，少吃盐。" * (n + 1) for n in range(count)],
            "department": ["内科" if n % 2 else "" for n in range(count)],
            "question_key": range(count),
            "answer_key": range(count),
            "canonical": questions,
            "rank": range(count),
            "cluster": [n // 2 for n in range(count)],
            "split": ["train"] * (count - 1) + ["test"] if count > 1 else ["train"],
        },
        schema_overrides={"cluster": pl.UInt64, "rank": pl.UInt64},
    )


def books(**changes: Any) -> dict[str, Any]:
    counts = {"rows": 12_345, "pairs": 12_346, "train": 4, "test": 1, "rejects": 12_341}
    reasons = {"url_answer": 12_300, "duplicate": 40, "odd_reason": 1}
    a = counts | {"pairs": 12_346, "reasons": reasons}
    b = dict.fromkeys(counts, 0) | {"reasons": {}}
    found = {
        "sources": {
            "a": {"rows": 12_345, "pairs": 12_346, "kept": 45, "reasons": {}},
            "b": {"rows": 0, "pairs": 0, "kept": 0, "reasons": {}},
        },
        "rules": {
            "html_tags": {
                "count": 1_234,
                "examples": [[f"<script>alert('x')</script>{ADVICE}", ADVICE]],
            },
            "privacy:phone": {"count": 42, "examples": [["", "请拨打[电话]咨询"]]},
        },
        "notes": ["data/raw/b.jsonl.gz: cut short after 1,234 rows"],
        "ledger": {"counts": counts | {"reasons": reasons}, "sources": {"a": a, "b": b},
                   "replay": None},
    }  # fmt: skip
    return found | changes


def page(folder: Path, **changes: Any) -> str:
    given: dict[str, Any] = {
        "recipe": Recipe.model_validate(RECIPE),
        "rows": rows(),
        "books": books(),
        "clusters": CLUSTERS,
        "leakage": leakage(),
        "evaluation": None,
    }
    report.write(folder, **(given | changes))
    return (folder / report.HTML).read_text(encoding="utf-8")


def text(source: str) -> str:
    """What a reader sees: no markup, no style, blanks as one."""
    source = re.sub(r"(?s)<style>.*?</style>|<title>[^<]*</title></rect>", " ", source)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", source)).split())


def recipe(**changes: Any) -> Recipe:
    return Recipe.model_validate(RECIPE | changes)


class Balance(HTMLParser):
    """Raises on an element that is not closed in its place."""

    VOID = frozenset({"meta", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        found = dict(attrs)
        self.ids += filter(None, [found.get("id")])
        self.links += filter(None, [found.get(key) for key in ("href", "src", "action", "data")])

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, (tag, self.getpos())


def test_it_is_well_formed_and_asks_for_nothing_from_outside(tmp_path: Path) -> None:
    source = page(tmp_path)
    seen = Balance()
    seen.feed(source)
    assert seen.open == []
    assert all(link.startswith("#") and link[1:] in seen.ids for link in seen.links)
    assert len(seen.links) == 10
    assert not re.search(r"https?:|url\(|@import|<script|<link|<iframe", source)
    assert source.startswith("<!doctype html>")


def test_the_counts_are_told(tmp_path: Path) -> None:
    seen = text(page(tmp_path))
    assert "原始行 raw rows 12,345" in seen
    assert "问答对 pairs in them 12,346" in seen
    assert "通过逐条检查 passed alone 45" in seen
    assert "进入数据集 in the data set 5" in seen
    assert "12,346 = 4 + 1 + 12,341" in seen
    assert "答案只是链接 url_answer 12,300 99.6 %" in seen
    assert "odd_reason odd_reason 1 < 0.1 %" in seen
    assert "cut short after 1,234 rows" in seen


def test_the_clusters_and_the_leakage_are_told(tmp_path: Path) -> None:
    seen = text(page(tmp_path, rows=rows(6), leakage=leakage(similar_80=0.006)))
    assert "跨越划分的簇 1 of 3 clusters cross" in seen  # the last holds a train and a test row
    assert "do not use this split" in seen
    assert "7,654 pairs of near questions" in seen and "9,123" in seen
    assert "37.1 % of the test questions would have a near copy" in seen
    assert "here it is 0.6 %" in seen
    assert "500 test questions" in seen


def test_clusters_that_keep_to_their_side_raise_no_alarm(tmp_path: Path) -> None:
    seen = text(page(tmp_path))
    assert "跨越划分的簇 0 of 3 clusters cross" in seen
    assert "do not use this split" not in seen


def test_markup_in_the_data_is_text(tmp_path: Path) -> None:
    source = page(tmp_path)
    assert "<script>" not in source and "<b>患者" not in source
    assert "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;</del>多喝水" in source
    assert "高血压&lt;b&gt;患者" in source


def test_nothing_personal_is_shown(tmp_path: Path) -> None:
    """The texts of a rule's examples are raw ones."""
    table = rows().with_columns(question=pl.lit("我的电话13800138000和邮箱abc@example.com"))
    matches = pl.DataFrame(
        {"training": ["打13800138000"], "from": ["a"], "question": ["打 13800138000"],
         "source": ["e"], "similarity": [0.987]}
    )  # fmt: skip
    source = page(tmp_path, rows=table, evaluation=matches)
    assert "13800138000" not in source and "abc@" not in source
    assert "打[电话]" in source
    assert "0.99" in source


def test_rules_tell_what_they_did(tmp_path: Path) -> None:
    changed = recipe(rules={"half_width": False})
    seen = text(page(tmp_path, recipe=changed))
    assert "html_tags 改动 1,234 texts changed HTML tags go" in seen
    assert "url_answer 剔除 12,300 pairs left out" in seen
    assert "关闭 switched off: half_width" in seen
    assert re.search(r"never needed: [\w, ]*closing_wishes", seen)
    assert "电话 phone 42 请拨打 [电话] 咨询" in seen


def test_masking_that_is_off_is_said(tmp_path: Path) -> None:
    assert "Masking is off in the YAML" in text(page(tmp_path, recipe=recipe(privacy=False)))


def test_no_token_number_without_a_tokenizer(tmp_path: Path) -> None:
    for given, expected in (
        ({}, "names no tokenizer"),
        ({"tokenizer": "models/chatglm3-6b", "cutoff_len": 1024}, "run: make model"),
    ):
        seen = text(page(tmp_path, recipe=recipe(**given)))
        assert expected in seen
        assert "would be cut" not in seen and "on average" not in seen


def test_tokens_are_told_with_a_tokenizer(root: Path, tmp_path: Path) -> None:
    from medqa.model.importer import import_model

    import_model(root / "tests/fixtures/golden", tmp_path / "t", dtype="keep", origin="test")
    seen = text(page(tmp_path, recipe=recipe(tokenizer=str(tmp_path / "t"), cutoff_len=20)))
    assert "all 4 training pairs" in seen
    assert "训练时会被截断 100.0 % would be cut at cutoff_len 20" in seen
    assert "cutoff_len 20 ◂ 256" in seen


def test_validation_replay_and_evaluation_are_told_when_there_are_any(tmp_path: Path) -> None:
    given = books()
    ledger = given["ledger"]
    ledger["replay"] = {"rows": 1_000, "share": 0.25, "share_asked": 0.3}
    for counts in (ledger["counts"], *ledger["sources"].values()):
        counts["val"] = 3
    changed = recipe(
        val_share=0.1, decontaminate=[{"path": "data/raw/exam.jsonl", "source": "exam"}]
    )
    matches = pl.DataFrame(
        {"training": [f"训练{n}" for n in range(1200)], "from": ["a"] * 1200,
         "question": ["评测"] * 1200, "source": ["exam"] * 1200,
         "similarity": [n / 1200 for n in range(1200)]}
    )  # fmt: skip
    seen = text(page(tmp_path, books=given, recipe=changed, evaluation=matches))
    assert "验证 3 val, 37.5 %" in seen
    assert "1,000（25.0 %，目标 asked 30.0 %）" in seen
    assert "data/raw/exam.jsonl 。剔除 left out: 1,200" in seen
    assert "训练1199" in seen and "训练1190" in seen and "训练1189" not in seen


def test_a_single_row_and_no_measure(tmp_path: Path) -> None:
    seen = text(page(tmp_path, rows=rows(1), leakage={}))
    assert "未测量" in seen
    nothing = leakage() | {"random": leakage()["ours"]}
    assert "These questions hardly repeat" in text(page(tmp_path, leakage=nothing))
    assert "没有一条数据注明科室" in seen


def test_the_result_can_be_made_again(tmp_path: Path) -> None:
    source = page(tmp_path)
    assert "seed 42" in text(source)
    yaml = html.unescape(re.search(r"<pre><code>(.*?)</code>", source, re.DOTALL)[1])  # type: ignore[index]
    import yaml as library

    assert Recipe.model_validate(library.safe_load(yaml)) == Recipe.model_validate(RECIPE)
    assert page(tmp_path) == source  # no date, nothing at random


def test_every_reason_is_known(root: Path) -> None:
    """A reason without a Chinese name would stand there bare."""
    from medqa.data import rows
    from medqa.data.rules import Rules

    reasons = {v for k, v in vars(rows).items() if k.isupper() and isinstance(v, str)}
    assert reasons - report.REASONS.keys() == set()
    assert report.REASONS.keys() - reasons <= Rules.model_fields.keys()


def test_every_type_is_known() -> None:
    from medqa.data.privacy import PLACEHOLDERS

    assert report.PRIVACY.keys() == PLACEHOLDERS.keys()


def test_every_measure_is_known() -> None:
    """The report reads by name what `leakage.measure` returns."""
    from medqa.data import leakage as module

    table = pl.DataFrame(
        {"question": ["高血压吃什么药"], "question_key": [1], "answer_key": [2],
         "answer_chars": [80]}
    )  # fmt: skip
    found = module.measure(table, table, sample=1, seed=1)
    assert report.LEAKAGE.keys() <= found.keys()
    assert found["sampled"] == 1


def test_what_chromium_makes_of_it_fits_a_phone(tmp_path: Path) -> None:
    """No part is wider than the screen; wide tables scroll by themselves."""
    import shutil

    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if not browser:
        pytest.skip("needs chromium on the PATH")
    source = page(tmp_path)
    probe = "<script>document.title=document.documentElement.scrollWidth</script>"
    (tmp_path / "probe.html").write_text(source + probe, encoding="utf-8")
    done = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=500,900",
         f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom",
         (tmp_path / "probe.html").as_uri()],
        capture_output=True, encoding="utf-8", timeout=60, check=True,
    )  # fmt: skip
    width = int(re.search(r"<title>(\d+)</title>", done.stdout)[1])  # type: ignore[index]
    assert width <= 500
