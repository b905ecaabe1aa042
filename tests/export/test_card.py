"""The model card: what it says, when it is written anew, and when it is left alone."""

import json
from pathlib import Path
from typing import Any

import pytest

from medqa import provenance
from medqa.export import card, merge
from medqa.files import sha256

CONFIG = "configs/tiny/export.yaml"


def text(exported: Path) -> str:
    return (exported / "README.md").read_text(encoding="utf-8")


def record(exported: Path) -> dict[str, Any]:
    return json.loads((exported / "medqa_export.json").read_text(encoding="utf-8"))


def report(exported: Path, name: str, finished: str, **inputs: str) -> None:
    """What compare writes, on the adapter unless `inputs` says otherwise."""
    folder = exported.parents[1] / "outputs/compare" / name
    folder.mkdir(parents=True, exist_ok=True)
    measured = {"name": "perplexity", "better": "lower", "rows": 61, "base": 32.0, "tuned": 1.5}
    found = {
        "step": "compare",
        "inputs": inputs or record(exported)["inputs"],
        "verdict": {"outcome": "worse", "zh": f"更差：{name}", "en": f"Worse: {name}"},
        "metrics": [measured | {"low": -38.0, "high": -22.9}],
        "probes": {
            "medical": {
                "title": {"zh": "医学事实", "en": "medical facts"},
                "total": {"rows": 160, "base": 3, "tuned": 2, "lost": 1},
            }
        },
        "gate": [
            {
                "zh": "不变差",
                "en": "not worse | ever",
                "required": "lower",
                "measured": "no",
                "passed": False,
            }
        ],
        "finished": finished,
    }
    (folder / "report.json").write_text(json.dumps(found), encoding="utf-8")


def test_the_hub_reads_it(exported: Path) -> None:
    from huggingface_hub import ModelCard

    data = ModelCard.load(exported / "README.md").data.to_dict()
    assert data["language"] == ["zh"]
    assert data["license"] == "other"
    assert data["license_link"].endswith("zai-org/chatglm3-6b/blob/main/MODEL_LICENSE")
    assert data["library_name"] == "transformers"
    assert data["pipeline_tag"] == "text-generation"
    assert "base_model" not in data, "not known, not claimed"
    assert {"medical", "glm"} <= set(data["tags"])


def test_it_says_what_a_reader_must_know(exported: Path) -> None:
    said, kept = text(exported), record(exported)
    for needed in (
        "# tiny-med\n",
        "不是医疗建议",
        "Not medical advice",
        "拨打 120",
        "call 120",
        "用途 / Intended use",
        "局限 / Limits",
        "尚未比较",
        "Not compared yet: run `make compare`",
        "lora_rank: 4",
        "16 of 16 greedy answers equal",
        kept["fingerprint"],
        kept["inputs"]["models/tiny"],
        kept["inputs"]["saves/tiny/lora/sft/adapter_model.safetensors"],
    ):
        assert needed in said, needed
    assert "output_dir" not in said, "no place on somebody's machine"
    assert str(exported.parents[1]) not in said


def test_a_later_comparison_comes_in_without_merging_again(
    exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = (exported / "model.safetensors").stat().st_mtime_ns
    report(exported, "old", "2026-01-01T00:00:00+00:00")
    report(exported, "new", "2026-01-02T00:00:00+00:00")
    merge.export(CONFIG, [])
    assert capsys.readouterr().out.splitlines() == [
        "up to date: models/tiny-med",
        "models/tiny-med/README.md: written anew",
    ]
    said = text(exported)
    assert "Worse: new" in said
    assert "更差：new" in said
    assert "Worse: old" not in said
    assert "| perplexity | 61 | 32 | 1.5 | -38 to -22.9 | 越低越好 / lower is better |" in said
    assert "| 医学事实 / medical facts | 160 | 3 | 2 | 1 |" in said
    assert r"| 不变差 / not worse \| ever | lower | no | **未通过 / fails** |" in said
    assert (exported / "model.safetensors").stat().st_mtime_ns == weights
    merge.export(CONFIG, [])
    assert capsys.readouterr().out == "up to date: models/tiny-med\n"


def test_only_a_comparison_of_this_very_adapter_counts(exported: Path) -> None:
    base, config, weights = record(exported)["inputs"].items()
    report(exported, "other-adapter", "2026-01-03", **{base[0]: base[1], weights[0]: "0" * 64})
    report(exported, "other-base", "2026-01-03", **{base[0]: "sha256:0", weights[0]: weights[1]})
    report(exported, "same-config-only", "2026-01-03", **dict([base, config]))
    broken = exported.parents[1] / "outputs/compare/broken"
    broken.mkdir()
    (broken / "report.json").write_text("{", encoding="utf-8")
    assert card.comparison(record(exported)) is None
    merged = {"models/tiny-med": record(exported)["fingerprint"], base[0]: base[1]}
    report(exported, "merged", "2026-01-01", **merged)
    assert card.comparison(record(exported))["verdict"]["en"] == "Worse: merged"


def test_an_edited_card_is_left_alone(exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = exported / "README.md"
    edited = text(exported).replace("# tiny-med", "# My model")
    file.write_text(edited, encoding="utf-8")
    report(exported, "new", "2026-01-02T00:00:00+00:00")
    merge.export(CONFIG, [])
    assert text(exported) == edited
    assert "README.md: edited by hand, left as it is" in capsys.readouterr().out
    file.unlink()
    merge.export(CONFIG, [])
    assert "Worse: new" in text(exported)


def test_data_and_base_are_named_where_their_records_lie(exported: Path) -> None:
    from huggingface_hub import ModelCard

    project = exported.parents[1]
    data = project / "data/processed/mine"
    data.mkdir(parents=True)
    for name in ("train.jsonl", "val.jsonl"):
        (data / name).write_text(f"{name}\n", encoding="utf-8")
    counts = {"rows": 9, "train": 5, "val": 1, "test": 1, "rejects": 2}
    (data / "manifest.json").write_text(
        json.dumps({"counts": counts, "sources": {"lite": counts}, "config": {"privacy": False}}),
        encoding="utf-8",
    )
    (data / "README.md").write_text(
        "---\nlicense: apache-2.0\nsource_datasets:\n- someone/lite\n---\n# mine\n",
        encoding="utf-8",
    )
    run = project / "saves/tiny/lora/sft/medqa_run.json"
    kept = json.loads(run.read_text(encoding="utf-8"))
    files = {f"data/processed/mine/{n}": sha256(data / n) for n in ("train.jsonl", "val.jsonl")}
    kept |= {"inputs": kept["inputs"] | files, "train_loss": 0.32871, "best_step": 350}
    run.write_text(json.dumps(kept), encoding="utf-8")
    imported = project / "models/tiny/medqa_import.json"
    of_base = json.loads(imported.read_text(encoding="utf-8"))
    imported.write_text(json.dumps(of_base | {"origin": "models/original"}), encoding="utf-8")
    provenance.write(
        project / "models/original/medqa_download.json",
        step="download",
        inputs={},
        config={},
        hub="huggingface",
        repository="zai-org/chatglm3-6b",
    )
    assert card.renew(exported, shown_as="tiny-med") == "written"
    header = ModelCard.load(exported / "README.md").data.to_dict()
    assert header["base_model"] == "zai-org/chatglm3-6b"
    assert header["datasets"] == ["someone/lite"]
    said = text(exported)
    assert "| lite | 9 | 5 | 1 | 1 | 2 |" in said
    assert "personal data NOT replaced" in said
    assert "3 steps (step 350 is kept), training loss 0.3287." in said
    assert files["data/processed/mine/val.jsonl"] in said

    (data / "train.jsonl").write_text("other\n", encoding="utf-8")
    assert card.renew(exported, shown_as="tiny-med") == "written"
    said = text(exported)
    assert "| lite |" not in said
    assert "Changed or moved since the training" in said
    assert "datasets" not in ModelCard.load(exported / "README.md").data.to_dict()


def test_an_adapter_without_a_record(exported: Path) -> None:
    (exported.parents[1] / "saves/tiny/lora/sft/medqa_run.json").unlink()
    card.renew(exported, shown_as="tiny-med")
    assert "trained without `scripts/train.py`" in text(exported)
    assert "未知。 Unknown." in text(exported)
