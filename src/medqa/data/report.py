"""What a conversion did, as one HTML file: for the researcher who has to answer for the data.

Every number is counted from the rows that were written or taken from the books of the conversion;
what is estimated on a sample says so beside it. No text is shown that `examples.safe` has not seen.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medqa.data import examples, figures, kinds, words
from medqa.data.rows import Kind
from medqa.files import atomic_file

if TYPE_CHECKING:
    import polars as pl

    from medqa.data.recipe import Recipe

HTML = "report.html"
TERMS = 12
MATCHES = 10

# Reason or rule to what a reader calls it; others are shown by their name and description.
REASONS = {
    "malformed_json": "不是合法 JSON",
    "not_utf8": "不是 UTF-8 文本",
    "line_too_long": "单行过长",
    "file_cut_short": "文件被截断",
    "malformed_csv": "不是合法 CSV",
    "wrong_type": "类型不对（应为字符串）",
    "missing_key": "缺少问题或答案字段",
    "unpaired": "问题与答案数目对不上",
    "empty_question": "问题为空",
    "empty_answer": "答案为空",
    "url_answer": "答案只是链接",
    "truncated_answer": "答案被截断",
    "echo_answer": "答案只是重复问题",
    "empty_form": "问题只是未填写的表格",
    "off_topic": "与领域无关（如兽医）",
    "advertisement": "医院或电话广告",
    "question_too_short": "问题过短",
    "question_too_long": "问题过长",
    "answer_too_short": "答案过短",
    "answer_too_long": "答案过长",
    "equal_answers": "两个答案相同（归一化后）",
    "empty_text": "文本为空",
    "control_token": "含有模型的控制符",
    "text_too_short": "文本过短",
    "text_too_long": "文本过长",
    "duplicate": "问答完全重复（归一化后相等）",
    "near_evaluation": "与评测集问题过近",
    "in_test": "回放数据的问题在测试集中",
    "not_sampled": "未被抽样（本身无问题）",
}
# What a row of each kind is called, in Chinese, in short and in English, and what answers are.
WORDS: Mapping[Kind, Mapping[str, str]] = {
    "pairs": {
        "zh": "问答对",
        "one": "对",
        "en": "pair",
        "answers": "答案",
        "answers_en": "answers",
    },
    "preference": {
        "zh": "偏好对",
        "one": "对",
        "en": "pair",
        "answers": "较好的答案",
        "answers_en": "chosen answers",
    },
    "text": {"zh": "文本", "one": "条", "en": "text", "answers": "文本", "answers_en": "texts"},
}
SAID_OF: Mapping[Kind, Mapping[str, str]] = {
    "preference": {"duplicate": "问题与两个答案完全重复（归一化后相等）"},
    "text": {"duplicate": "文本完全重复（归一化后相等）"},
}
LEAKAGE = {
    "equal": ("问题归一化后相同", "same question after normalising"),
    "similar_90": ("问题相似度 ≥ 0.9", "question at least 0.9 similar"),
    "similar_80": ("问题相似度 ≥ 0.8", "question at least 0.8 similar"),
    "same_answer": ("长答案相同", "same long answer"),
}
HEADLINE = 2  # of them, the one that the page begins with
PRIVACY = {
    "phone": "电话",
    "qq": "QQ 号",
    "wechat": "微信号",
    "email": "邮箱",
    "id_card": "身份证号",
    "bank_card": "银行卡号",
    "name": "姓名",
}


def write(
    folder: Path,
    *,
    recipe: "Recipe",
    rows: "pl.DataFrame",
    books: Mapping[str, Any],
    clusters: Mapping[str, Any],
    leakage: Mapping[str, Mapping[str, float]],
    evaluation: "pl.DataFrame | None",
) -> None:
    """Writes ``report.html``, which asks for nothing from outside.

    Args:
        folder: Where to.
        recipe: The data YAML.
        rows: Every pair that was kept: the columns of the records table, ``cluster`` (UInt64) and
            ``split`` (train, val or test).
        books: ``sources``, ``rules`` and ``notes`` as `shards.run` counts them, and ``ledger``,
            the facts of the ledger, which know what was left out later.
        clusters: Facts of the clustering.
        leakage: What `leakage.measure` found for a row-``random`` split and for ``ours``.
        evaluation: Training pairs left out for being near an evaluation question (columns
            ``training``, ``from``, ``question``, ``source``, ``similarity``), or None where no
            evaluation file was named.
    """
    import polars as pl
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("medqa.data", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"n": _number, "share": _share, "shown": examples.shown, "every": _every}
    html = environment.get_template("report.html.j2").render(
        recipe=recipe,
        say=WORDS[recipe.kind],
        opening_chars=kinds.OPENING_CHARS,
        yaml=_yaml(recipe),
        versions=_versions(),
        parts=[p for p in ("train", "val", "test") if p != "val" or recipe.val_share],
        ledger=books["ledger"],
        passed=sum(counts["kept"] for counts in books["sources"].values()),
        reasons={**REASONS, **SAID_OF.get(recipe.kind, {})},
        notes=books["notes"],
        question_chars=figures.histogram(rows["question"].str.len_chars()),
        answer_chars=figures.histogram(rows["answer"].str.len_chars()),
        rejected_chars=figures.histogram(rows["rejected"].str.len_chars())
        if recipe.kind == "preference"
        else None,
        tokens=figures.tokens(recipe, rows.filter(pl.col("split") == "train")),
        departments=figures.departments(rows),
        terms=words.top_terms(rows, TERMS),
        terms_sample=words.TERM_QUESTIONS,
        rules=_rules(recipe, books),
        privacy=_privacy(books["rules"]),
        clusters=figures.clusters(rows) | {"facts": dict(clusters)},
        leakage=_leakage(leakage),
        evaluation=_evaluation(evaluation),
        evaluation_sources=[source.path for source in recipe.decontaminate],
    )
    with atomic_file(folder / HTML) as out:
        out.write(html.encode())


def _rules(recipe: "Recipe", books: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns every cleaning rule in its order, with what it did."""
    from medqa.data.clean import DESCRIPTIONS

    refused = books["ledger"]["counts"]["reasons"]
    found = []
    for name, on in recipe.rules.model_dump().items():
        done = books["rules"].get(name, {"count": 0, "examples": []})
        shown = [examples.compared(before, after) for before, after in done["examples"]]
        found.append(
            {
                "name": name,
                "on": on,
                "does": DESCRIPTIONS.get(name, ""),
                "changed": done["count"],
                "refused": refused.get(name, 0),
                "examples": [example for example in shown if example],
            }
        )
    return found


def _privacy(rules: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = []
    for kind, zh in PRIVACY.items():
        done = rules.get(f"privacy:{kind}", {"count": 0, "examples": []})
        shown = [examples.masked(after, kind) for _, after in done["examples"]]
        found.append(
            {"kind": kind, "zh": zh, "count": done["count"], "examples": [s for s in shown if s]}
        )
    return found


def _leakage(leakage: Mapping[str, Mapping[str, float]]) -> dict[str, Any] | None:
    """Returns a row for each measure that both splits have; None when nothing was measured."""
    random, ours = leakage.get("random", {}), leakage.get("ours", {})
    measures = [
        {"zh": zh, "en": en, "random": random[key], "ours": ours[key]}
        for key, (zh, en) in LEAKAGE.items()
        if key in random and key in ours
    ]
    if not measures or not ours["sampled"]:
        return None
    return {"measures": measures, "headline": measures[HEADLINE], "sample": ours["sampled"]}


def _evaluation(matches: "pl.DataFrame | None") -> dict[str, Any] | None:
    if matches is None:
        return None
    first = matches.sort("similarity", descending=True, maintain_order=True).head(MATCHES)
    return {"count": len(matches), "first": first.to_dicts()}


def _yaml(recipe: "Recipe") -> str:
    import yaml

    values = recipe.model_dump(exclude_defaults=True)
    return yaml.safe_dump(values, allow_unicode=True, sort_keys=False, width=88)


def _versions() -> dict[str, str]:
    """Returns the versions of what decides a conversion."""
    import platform
    from importlib.metadata import version

    packages = ("medqa", "polars", "rapidfuzz", "phonenumbers", "python-stdnum", "jieba")
    return {"python": platform.python_version()} | {name: version(name) for name in packages}


def _every(bars: int) -> int:
    """Returns how many bars share a label: a power of two, for at most five labels and the last."""
    every = 1
    while bars > 5 * every:
        every *= 2
    return every


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}"


def _share(part: float, whole: float = 1.0) -> str:
    """Returns a percentage that never rounds something to nothing."""
    share = part / whole if whole else 0.0
    if 0 < share < 0.001:
        return "< 0.1 %"
    return f"{share:.1%}".replace("%", " %")
