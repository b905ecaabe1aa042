"""The card: metadata that the hub reads, and counts that are the manifest's."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from medqa.data import card
from medqa.data.recipe import Recipe
from medqa.data.sources import Source

RECIPE: dict[str, Any] = {
    "name": "demo",
    "sources": [{"path": "data/raw/Huatuo26M-Lite/format_data.jsonl", "source": "lite"}],
    "min_question_chars": 2,
    "max_question_chars": 300,
    "min_answer_chars": 2,
    "max_answer_chars": 1200,
    "test_share": 0.1,
    "seed": 42,
}
COUNTS = {"rows": 12_345, "pairs": 12_345, "train": 9, "test": 1, "rejects": 12_335}
MEASURES = {"equal": 0.2, "similar_90": 0.3, "similar_80": 0.371, "same_answer": 0.1}


def recipe(**changes: Any) -> Recipe:
    return Recipe.model_validate(RECIPE | changes)


def manifest(**changes: Any) -> dict[str, Any]:
    counts = COUNTS | changes.pop("counts", {})
    return {
        "counts": counts | {"reasons": {"duplicate": 12_335}},
        "sources": {"lite": counts | {"reasons": {"duplicate": 12_335}}},
        "rules": {"html_tags": 1_234, "greetings": 0, "privacy:phone": 42, "privacy:qq": 0},
        "leakage": {"random": MEASURES, "ours": dict.fromkeys(MEASURES, 0.004)},
        "inputs": {"data/raw/Huatuo26M-Lite/format_data.jsonl": "84b849f0"},
        "versions": {"python": "3.11.7", "peft": "absent"},
        "notes": ["a.gz: cut | short"],
    } | changes


def written(folder: Path, *, made: Recipe | None = None, **changes: Any) -> tuple[Any, str]:
    """Returns the metadata and the text below it."""
    card.write(folder, recipe=made or recipe(), manifest=manifest(**changes))
    text = (folder / card.CARD).read_text(encoding="utf-8")
    start, header, body = text.split("---\n", 2)
    assert start == ""
    return yaml.safe_load(header), body


def test_the_metadata_is_the_hubs(tmp_path: Path) -> None:
    header, _ = written(tmp_path)
    assert header == {
        "pretty_name": "demo",
        "language": ["zh"],
        "license": "apache-2.0",
        "task_categories": ["question-answering", "text-generation"],
        "size_categories": ["n<1K"],
        "source_datasets": ["FreedomIntelligence/Huatuo26M-Lite"],
        "tags": ["medical", "question-answering", "medqa"],
        "configs": [
            {
                "config_name": "default",
                "data_files": [
                    {"split": "train", "path": "train.jsonl"},
                    {"split": "test", "path": "test.jsonl"},
                ],
            }
        ],
    }


def test_hubs_own_reader_accepts_it(tmp_path: Path) -> None:
    from huggingface_hub import DatasetCard

    written(tmp_path)
    found = DatasetCard.load(tmp_path / card.CARD)
    assert found.data.license == "apache-2.0"
    assert found.data.size_categories == ["n<1K"]
    assert found.text.lstrip().startswith("# demo")


@pytest.mark.parametrize("output", ["jsonl", "parquet"])
def test_datasets_loads_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    """All splits and nothing else: no rejects, no manifest."""
    import datasets
    import polars as pl

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    folder = tmp_path / "demo"
    folder.mkdir()
    made = recipe(output=output, val_share=0.1)
    written(folder, made=made, counts={"train": 2, "val": 1, "test": 1})
    for part, count in (("train", 2), ("val", 1), ("test", 1)):
        table = pl.DataFrame({"instruction": [f"{part}问"] * count, "output": ["答"] * count})
        file = folder / f"{part}.{output}"
        table.write_parquet(file) if output == "parquet" else table.write_ndjson(file)
    (folder / "rejects.jsonl").write_text('{"raw": "x"}\n', encoding="utf-8")
    (folder / "manifest.json").write_text(json.dumps({"a": 1}), encoding="utf-8")
    found = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    assert {split: rows["instruction"][:] for split, rows in found.items()} == {
        "train": ["train问", "train问"],
        "validation": ["val问"],
        "test": ["test问"],
    }


def test_an_empty_split_is_not_named(tmp_path: Path) -> None:
    """datasets fails on a file without rows."""
    header, body = written(tmp_path, counts={"test": 0})
    files = header["configs"][0]["data_files"]
    assert [file["split"] for file in files] == ["train"]
    assert "| test |" in body


@pytest.mark.parametrize(
    ("rows", "expected"),
    [(999, "n<1K"), (1_000, "1K<n<10K"), (99_999, "10K<n<100K"), (100_000, "100K<n<1M"),
     (1_300_000, "1M<n<10M")],
)  # fmt: skip
def test_the_size_class(rows: int, expected: str) -> None:
    found = card.metadata(recipe(), manifest(counts={"train": rows - 1, "test": 1}))
    assert found["size_categories"] == [expected]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ({"path": "data/raw/Huatuo26M-Lite/format_data.jsonl"}, "apache-2.0"),
        ({"path": "data/raw/huatuo_encyclopedia_qa/train_datasets.jsonl"}, "apache-2.0"),
        ({"path": "data/sample/general.jsonl"}, "apache-2.0"),
        ({"path": "data/raw/mine.jsonl"}, None),
        ({"path": "elsewhere/Huatuo26M-Lite/x.jsonl"}, None),
        ({"path": "data/raw/x.jsonl", "hub": "FreedomIntelligence/Huatuo26M-Lite"}, "apache-2.0"),
        ({"path": "data/raw/Huatuo26M-Lite/x.jsonl", "hub": "someone/Huatuo26M-Lite"}, None),
    ],
)
def test_no_licence_is_claimed_that_is_not_known(
    source: dict[str, str], expected: str | None
) -> None:
    assert card.licence(Source.model_validate({"source": "a"} | source)) == expected


def test_another_domain_is_not_called_medical() -> None:
    own = {"path": "data/raw/finance.jsonl", "source": "own"}
    found = card.metadata(recipe(sources=[own]), manifest())
    assert "medical" not in found["tags"]
    assert "source_datasets" not in found


def test_a_source_of_unknown_licence_makes_the_whole_unknown(tmp_path: Path) -> None:
    own = {"path": "data/raw/own.jsonl", "source": "own", "hub": "me/own"}
    made = recipe(sources=[*RECIPE["sources"], own])
    header, _ = written(tmp_path, made=made)
    assert (header["license"], header["license_name"]) == ("other", "unknown")
    assert header["source_datasets"] == ["FreedomIntelligence/Huatuo26M-Lite", "me/own"]


def test_the_text_tells_what_the_manifest_counts(tmp_path: Path) -> None:
    _, body = written(tmp_path, made=recipe(rules={"half_width": False}))
    assert "| lite | 12,345 | 12,345 | 9 | 1 | 12,335 | apache-2.0 |" in body
    assert "| **all / 合计** | 12,345 | 12,345 | 9 | 1 | 12,335 | |" in body
    assert "| duplicate | 12,335 |" in body
    assert "| html_tags | 1,234 |" in body and "greetings |" not in body
    assert "Switched off / 关闭: half_width." in body
    assert "占位符: phone 42." in body
    assert "| 37.1 % | 0.4 % |" in body
    assert "Seed 42; python 3.11.7.\n" in body
    assert "| `84b849f0` |" in body
    assert "a.gz: cut \\| short" in body
    assert "**Not medical advice**" in body and "**不是医疗建议" in body
    assert "--exclude rejects.jsonl" in body
    assert "test has\n10 % of the pairs" in body


def test_the_yaml_in_it_makes_the_set_again(tmp_path: Path) -> None:
    _, body = written(tmp_path)
    settings = body.split("```yaml\n")[1].split("```")[0]
    assert Recipe.model_validate(yaml.safe_load(settings)) == recipe()


def test_masking_that_is_off_is_a_warning(tmp_path: Path) -> None:
    _, body = written(tmp_path, made=recipe(privacy=False))
    assert "personal data NOT replaced" in body
    assert "do not publish it" in body


def test_tables_stand_apart_from_text(tmp_path: Path) -> None:
    """A table right below a line of text is no table in Markdown."""
    decontaminated = recipe(
        val_share=0.1, decontaminate=[{"path": "data/raw/exam.jsonl", "source": "exam"}]
    )
    for changes in ({}, {"made": decontaminated, "counts": {"val": 2}},
                    {"leakage": {}, "rules": {}, "notes": []}):  # fmt: skip
        _, body = written(tmp_path, **changes)
        lines = body.split("\n")
        for before, line in itertools.pairwise(lines):
            if line.startswith("|"):
                assert before == "" or before.startswith("|"), (before, line)
            if before.startswith("|"):
                assert line == "" or line.startswith("|"), (before, line)
        assert "\n\n\n" not in body
