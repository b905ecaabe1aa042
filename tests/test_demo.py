"""The whole path as a user runs it: ``make demo``, then the same steps on other data."""

import re
import sys
from pathlib import Path

import pytest

from tests.project import Project

pytestmark = pytest.mark.slow


@pytest.fixture
def project(demo_project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("MEDQA_ROOT", str(demo_project.root))
    return demo_project


def test_it_learns_medicine_and_forgets_little(project: Project, demo: str) -> None:
    report = project.json("outputs/compare/tiny/report.json")
    medical, general = (report["probes"][name]["total"] for name in ("medical", "general"))
    assert medical["rows"] >= 100
    assert medical["base"] <= 0.10 * medical["rows"]
    assert medical["tuned"] >= 0.80 * medical["rows"]
    assert general["base"] >= 0.95 * general["rows"]
    assert general["tuned"] >= 0.90 * general["rows"]
    perplexity = report["metrics"][0]
    assert perplexity["name"] == "perplexity"
    assert perplexity["tuned"] < 0.2 * perplexity["base"]
    assert report["verdict"]["outcome"] == "better"
    assert report["verdict"]["en"] in demo
    for side in ("base", "tuned"):
        assert f"{medical[side] / medical['rows']:.1%}" in demo
        assert f"{perplexity[side]:.2f}" in demo
    assert "outputs/compare/tiny/report.html" in demo
    assert "s a step" in demo


def test_no_probe_was_trained_on(project: Project, demo: str) -> None:
    trained = {row["instruction"] for row in project.lines("data/processed/sample/train.jsonl")}
    for name in ("medical", "general"):
        asked = {row["question"] for row in project.lines(f"data/sample/probes_{name}.jsonl")}
        assert not trained & asked


def test_the_report_shows_every_answer_to_the_default_questions(
    project: Project, demo: str
) -> None:
    answers = project.lines("outputs/compare/tiny/answers.jsonl")
    shown = [row for row in answers if row["set"] == "questions"]
    assert shown[0]["question"] == "饮酒以后可以服用西地那非吗"
    html = (project.root / "outputs/compare/tiny/report.html").read_text(encoding="utf-8")
    assert all(row["question"] in html and row["tuned"] in html for row in shown)
    assert "data:image/png;base64," in html


def test_a_second_demo_makes_nothing_again(project: Project, demo: str) -> None:
    def made() -> dict[Path, int]:
        folders = ("models", "saves", "outputs", "data/processed")
        files = [f for name in folders for f in (project.root / name).rglob("*") if f.is_file()]
        return {file: file.stat().st_mtime_ns for file in files}

    before = made()
    assert len(before) > 20
    printed = project.make("demo")
    assert made() == before
    assert printed.count("up to date") == 6


def test_the_merged_model_answers_as_the_adapter(project: Project, demo: str) -> None:
    from transformers import AutoTokenizer, GlmForCausalLM

    model = GlmForCausalLM.from_pretrained(project.root / "models/tiny-med")
    tokenizer = AutoTokenizer.from_pretrained(project.root / "models/tiny-med")
    rows = [r for r in project.lines("outputs/compare/tiny/answers.jsonl")][:20]
    for row in rows:
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": row["question"]}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )
        output = model.generate(**prompt, max_new_tokens=48, do_sample=False)
        said = tokenizer.decode(output[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)
        assert said.strip() == row["tuned"]


def test_the_model_card_has_the_figures_of_the_comparison(project: Project, demo: str) -> None:
    card = (project.root / "models/tiny-med/README.md").read_text(encoding="utf-8")
    verdict = project.json("outputs/compare/tiny/report.json")["verdict"]
    assert verdict["en"] in card
    assert verdict["zh"] in card
    assert "| **合计 / all** |" in card, "the data set's counts"
    assert "learning_rate: 0.003" in card


def test_without_replay_it_forgets(project: Project, demo: str) -> None:
    """What the README says, by the README's commands."""
    readme = (project.root / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"^python scripts/(\w+)\.py (.*noreplay.*)$", readme, re.MULTILINE)
    assert [name for name, _ in commands] == ["convert", "train", "compare"]
    for name, words in commands:
        printed = project.script(name, *words.split(), check=name != "compare")
    assert "error: the gate fails: " in printed
    assert "keep.general (required: " in printed
    probes = project.json("outputs/compare/noreplay/report.json")["probes"]
    medical, general = probes["medical"]["total"], probes["general"]["total"]
    assert medical["tuned"] >= 0.8 * medical["rows"]
    assert general["tuned"] <= 0.5 * general["rows"]


def test_a_killed_demo_trusts_nothing_half_made(project: Project, demo: str) -> None:
    """The records are written last: without them each step is done again."""
    (project.root / "models/tiny/medqa_import.json").unlink()
    weights = project.root / "models/tiny/model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    refused = project.script("import_model", "models/tiny-original", "models/tiny", check=False)
    assert "--overwrite" in refused
    project.script("import_model", "models/tiny-original", "models/tiny", "--overwrite")
    assert weights.read_bytes() == whole


def test_llamafactory_trains_the_recipe_without_us(project: Project, demo: str) -> None:
    command = Path(sys.executable).with_name("llamafactory-cli")
    arguments = ("max_steps=3", "output_dir=saves/tiny/lora/plain", "report_to=none")
    project.run(str(command), "train", "configs/tiny/lora_sft.yaml", *arguments)
    assert (project.root / "saves/tiny/lora/plain/adapter_model.safetensors").is_file()


def test_real_rows_go_all_the_way(project: Project, demo: str, shared: Path) -> None:
    huatuo = shared / "huatuo"
    files = [huatuo / "huatuo26M-testdatasets.part1.jsonl", *(huatuo / "samples").glob("*.jsonl")]
    sources = "".join(f"  - {{path: {f}, source: s{n}}}\n" for n, f in enumerate(files))
    limits = "".join(
        f"{end}_{part}_chars: {value}\n"
        for part in ("question", "answer")
        for end, value in (("min", 2), ("max", 300))
    )
    recipe = project.root / "configs/data/real.yaml"
    recipe.write_text(
        f"name: real\nsources:\n{sources}{limits}test_share: 0.1\nseed: 1\n", encoding="utf-8"
    )
    project.script("convert", "configs/data/real.yaml")

    raw = sum(len(file.read_bytes().splitlines()) for file in files)
    kept = {
        name: {
            row["id"].split("#")[0] for row in project.lines(f"data/processed/real/{name}.jsonl")
        }
        for name in ("train", "test", "rejects")
    }
    assert len(set().union(*kept.values())) == raw
    assert len(kept["train"]) > 2000

    project.make(
        "train",
        "RECIPE=tiny",
        "ARGS=dataset=real_train output_dir=saves/tiny/lora/real max_steps=60 cutoff_len=512",
    )
    adapter = "adapter_name_or_path=saves/tiny/lora/real"
    project.make("export", "RECIPE=tiny", f"ARGS={adapter} export_dir=models/tiny-real")
    project.make(
        "compare",
        "RECIPE=tiny",
        f"ARGS={adapter} test_file=data/processed/real/test.jsonl test_rows=40 cutoff_len=512 "
        "answer_rows=10 probes={} gate={} output_dir=outputs/compare/real",
    )
    perplexity = project.json("outputs/compare/real/report.json")["metrics"][0]
    assert perplexity["tuned"] < perplexity["base"]


def test_another_domain_goes_the_same_way_by_its_yaml_alone(project: Project, demo: str) -> None:
    """The commands at the head of the YAML, word by word, and the export between them."""
    config = "configs/data/example_other_domain.yaml"
    text = (project.root / config).read_text(encoding="utf-8")
    commands = re.findall(r"^#\s+python scripts/(\w+)\.py (.+)$", text, re.MULTILINE)
    assert [name for name, _ in commands] == ["convert", "train", "compare"]
    convert, train, compare = commands
    project.script(convert[0], *convert[1].split())
    project.script(train[0], *train[1].split())
    adapter = "adapter_name_or_path=saves/tiny/lora/finance"
    assert adapter in compare[1]
    project.script("export", "configs/tiny/export.yaml", adapter, "export_dir=models/tiny-finance")
    project.script(compare[0], *compare[1].split())
    perplexity = project.json("outputs/compare/finance/report.json")["metrics"][0]
    assert perplexity["tuned"] < 0.5 * perplexity["base"]
    preview = project.script("preview_data", config)
    assert preview.count("<|assistant|>") == 10
