from typing import Any

import pytest
import yaml

from medqa.config import load
from medqa.data.recipe import Recipe
from medqa.errors import ConfigError

from .conftest import Project


def problems(project: Project, **changes: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(project.config("a.jsonl", **changes), (), Recipe)
    return caught.value.problems


def test_all_problems_at_once_with_the_nearest_names(project: Project) -> None:
    found = problems(
        project,
        sead=1,
        name="数据",
        test_share=1.0,
        max_question_chars=1,
        max_rows=0,
        sources=[{"path": "a.txt", "source": "a b", "colums": {}}],
        replay={"share": 0, "source": []},
    )
    text = "\n".join(found)
    for part in (
        "unknown key 'sead'; did you mean 'seed'?",
        "name: ",
        "test_share: ",
        "max_question_chars: must not be less than min_question_chars, found 1",
        "max_rows: ",
        "sources.0.path: must end in .jsonl, .json, .csv, .parquet",
        "sources.0.source: ",
        "unknown key 'sources.0.colums'; did you mean 'columns'?",
        "replay.share: ",
        "unknown key 'replay.source'; did you mean 'sources'?",
        "missing key 'replay.sources'",
    ):
        assert part in text
    assert len(found) == 11


@pytest.mark.parametrize("share", [0, 1, -0.1, "nan", None])
def test_share_must_leave_something_on_both_sides(project: Project, share: Any) -> None:
    assert "test_share" in problems(project, test_share=share)[0]


def test_tags_trace_rows_so_they_differ(project: Project) -> None:
    same = project.source("a.jsonl")
    assert "a is there twice" in problems(project, sources=[same, same])[0]
    assert "a is there twice" in problems(project, replay={"share": 0.5, "sources": [same]})[0]


def test_huatuo_yaml(root: Any) -> None:
    recipe = load(root / "configs" / "data" / "huatuo.yaml", (), Recipe)
    assert [source.path for source in recipe.sources] == [
        "data/raw/Huatuo26M-Lite/format_data.jsonl",
        "data/raw/huatuo_encyclopedia_qa/train_datasets.jsonl",
    ]
    assert (recipe.name, recipe.test_share) == ("huatuo", 0.1)


def test_what_huatuo_yaml_offers_in_comments_is_valid(root: Any) -> None:
    """Takes the marks off its commented keys, as its reader would."""
    lines = (root / "configs" / "data" / "huatuo.yaml").read_text(encoding="utf-8").split("\n")
    begin = next(i for i, line in enumerate(lines) if line.startswith("# replay:"))
    keys = [line.removeprefix("# ") if i >= begin else line for i, line in enumerate(lines)]
    keys = [
        line.replace("  # - path", "  - path").replace("  #   source", "    source")
        for line in keys
    ]
    values = yaml.safe_load("\n".join(keys))
    recipe = Recipe.model_validate(values)
    assert [source.source for source in recipe.all_sources] == [
        "lite",
        "encyclopedia",
        "knowledge_graph",
        "general",
    ]
