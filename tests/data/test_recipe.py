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


TEXT = {
    "kind": "text",
    "min_text_chars": 5,
    "max_text_chars": 50,
    **dict.fromkeys(
        ["min_question_chars", "max_question_chars", "min_answer_chars", "max_answer_chars"]
    ),
}
NAMED: dict[str, dict[str, str]] = {
    "pairs": {"question": "q", "answer": "a"},
    "preference": {"question": "q", "chosen": "c", "rejected": "r"},
    "text": {"text": "t"},
}


@pytest.mark.parametrize("kind", NAMED)
def test_a_kind_takes_its_own_columns(project: Project, kind: str) -> None:
    more = TEXT if kind == "text" else {"kind": kind}
    for of, columns in NAMED.items():
        source = project.source("a.jsonl", columns=columns)
        if of == kind or (kind, of) == ("text", "pairs"):
            recipe = load(project.config(**more, sources=[source]), (), Recipe)
            assert recipe.sources[0].kind == kind
            assert "kind" not in recipe.model_dump(exclude_defaults=True)["sources"][0]
        else:
            (found,) = problems(project, **more, sources=[source])
            assert found.startswith(f"sources.0.columns: kind {kind} asks for ")


def test_input_goes_with_preferences_alone(project: Project) -> None:
    pairs = project.source("a.jsonl", columns={**NAMED["pairs"], "input": "i"})
    assert "takes department beside" in problems(project, sources=[pairs])[0]
    preference = project.source("a.jsonl", columns={**NAMED["preference"], "input": "i"})
    recipe = load(project.config(kind="preference", sources=[preference]), (), Recipe)
    (keys,) = recipe.sources[0].schemas
    assert (keys.needed, keys.optional) == (["q", "c", "r"], ["i"])


def test_problems_of_kinds_come_together(project: Project) -> None:
    found = problems(
        project,
        **TEXT | {"min_text_chars": 60, "max_answer_chars": 10, "segment_questions": True},
        sources=[
            project.source("a.jsonl", columns=NAMED["preference"]),
            project.source("b.txt", columns=NAMED["text"]),
        ],
        decontaminate=[project.source("c.txt")],
    )
    text = "\n".join(found)
    for part in (
        "max_answer_chars: kind text has min_text_chars and max_text_chars instead, found 10",
        "max_text_chars: must not be less than min_text_chars, found 50",
        "segment_questions: a text is not cut into words",
        "sources.0.columns: kind text asks for text or question, answer and takes department",
        "sources.1.columns: a .txt file has none",
        "decontaminate.0.path: must end in .jsonl, .json, .csv, .parquet",
    ):
        assert part in text
    assert len(found) == 6


def test_bounds_that_a_kind_needs(project: Project) -> None:
    assert problems(project, **TEXT | {"max_text_chars": None}) == ["missing key 'max_text_chars'"]
    assert problems(project, max_answer_chars=None) == ["missing key 'max_answer_chars'"]
    (found,) = problems(project, kind="preference", max_text_chars=5)
    assert (
        found
        == "max_text_chars: kind preference has bounds of question and answer instead, found 5"
    )


def test_the_kind_is_said_once_and_known(project: Project) -> None:
    assert "kind: input should be 'pairs'" in problems(project, kind="pair")[0]
    source = project.source("a.jsonl", kind="preference")
    assert "kind stands once, at the top" in problems(project, sources=[source])[0]
    replay = {"share": 0.5, "sources": [source]}
    assert "kind stands once" in problems(project, replay=replay)[0]
    assert load(project.config("b.jsonl", kind="preference", replay=replay), (), Recipe).replay


def test_a_text_file_is_for_text(project: Project) -> None:
    (found,) = problems(project, sources=[project.source("a.txt")])
    assert "a folder of such files; .txt is read where the data YAML says kind: text" in found
    for name in ("a.txt", "a.txt.gz"):
        recipe = load(project.config(**TEXT, sources=[project.source(name)]), (), Recipe)
        assert recipe.sources[0].path.endswith(name)


@pytest.mark.parametrize("name", ["preference", "corpus", "sample_preference", "sample_corpus"])
def test_yamls_of_the_kinds(root: Any, name: str) -> None:
    """Also with the marks taken off what they offer in comments."""
    file = root / "configs" / "data" / f"{name}.yaml"
    recipe = load(file, (), Recipe)
    assert (recipe.name, recipe.kind) == (name, "text" if "corpus" in name else "preference")
    lines = file.read_text(encoding="utf-8").split("\n")
    begin = next((i for i, line in enumerate(lines) if line == "# replay:"), len(lines))
    keys = [line.removeprefix("# ") if i >= begin else line for i, line in enumerate(lines)]
    keys = [
        line.replace("  # - path", "  - path").replace("  #   source", "    source")
        for line in keys
    ]
    offered = Recipe.model_validate(yaml.safe_load("\n".join(keys)))
    if name == "corpus":
        assert [s.source for s in offered.all_sources] == ["encyclopedia", "books", "general"]
