"""Export: what is checked before, what is written, and that a wrong merge never gets out."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from medqa.errors import (
    CheckFailedError,
    CheckpointError,
    ConfigError,
    MissingInputError,
    StepError,
    TargetError,
)
from medqa.export import merge

CONFIG = "configs/tiny/export.yaml"


def launch(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "scripts/export.py", CONFIG, *arguments],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.slow
def test_export(project: Path, root: Path) -> None:
    from medqa.model.fingerprint import weights_fingerprint

    result = launch(root)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert len(lines) == 3, "LLaMA-Factory's chatter is kept out"
    assert lines[1].startswith("parity: merged against adapter ")
    base, made = project / "models/tiny", project / "models/tiny-med"
    for name in (
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "generation_config.json",
    ):
        assert (made / name).read_bytes() == (base / name).read_bytes()
    assert len(json.loads((made / "generation_config.json").read_text())["eos_token_id"]) == 3
    config = json.loads((made / "config.json").read_text(encoding="utf-8"))
    assert config["dtype"] == "float32"
    assert "auto_map" not in config
    assert str(project) not in json.dumps(config)
    assert (made / "Modelfile").read_text(encoding="utf-8").endswith("PARAMETER num_ctx 512\n")
    assert (made / "model.safetensors").is_file()
    record = json.loads((made / "medqa_export.json").read_text(encoding="utf-8"))
    assert record["fingerprint"] == weights_fingerprint(made)
    assert record["fingerprint"] != weights_fingerprint(base)
    assert record["parity"]["difference"] < 1e-5 < 1e-2 < record["parity"]["effect"]
    assert str(project) not in json.dumps(record)
    assert sorted(p.name for p in made.parent.iterdir()) == ["tiny", "tiny-med"]

    started = time.monotonic()
    result = launch(root)
    assert result.stdout == "up to date: models/tiny-med\n"
    assert time.monotonic() - started < 5  # it takes half a second on an idle machine

    adapter = project / "saves/tiny/lora/sft/adapter_model.safetensors"
    adapter.write_bytes(adapter.read_bytes() + b" ")
    result = launch(root)
    assert result.returncode == 2
    assert "--overwrite" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_an_adapter_left_out_is_noticed(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def leave_out(job: merge.Job, staging: Path) -> None:
        shutil.copytree(job.base, staging, dirs_exist_ok=True)

    monkeypatch.setattr(merge, "_merge", leave_out)
    with pytest.raises(CheckFailedError, match="does not answer as the base with its adapter"):
        merge.export(CONFIG, [])
    assert [p.name for p in (project / "models").iterdir()] == ["tiny"]


@pytest.mark.filterwarnings("ignore")  # importing LLaMA-Factory warns
def test_a_damaged_adapter_is_one_line(project: Path) -> None:
    weights = project / "saves/tiny/lora/sft/adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(StepError, match="could not merge saves/tiny/lora/sft into models/tiny"):
        merge.export(CONFIG, [])
    assert [p.name for p in (project / "models").iterdir()] == ["tiny"]


def test_code_in_the_result_is_noticed(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def add_code(job: merge.Job, staging: Path) -> None:
        shutil.copytree(job.base, staging, dirs_exist_ok=True)
        (staging / "modeling_chatglm.py").touch()

    monkeypatch.setattr(merge, "_merge", add_code)
    with pytest.raises(CheckFailedError, match="carries code of its own"):
        merge.export(CONFIG, [])
    assert not (project / "models/tiny-med").exists()


def test_every_problem_of_the_config_is_named_at_once(project: Path) -> None:
    overrides = [
        "template=glm4",
        "trust_remote_code=true",
        "export_dir=",
        "adapter_name_or_path=a,b",
        "export_hub_model_id=me/model",
    ]
    with pytest.raises(ConfigError) as caught:
        merge.export(CONFIG, overrides)
    assert [p.partition(":")[0] for p in caught.value.problems] == [
        "missing key 'export_dir'",
        "template",
        "trust_remote_code",
        "export_hub_model_id",
        "adapter_name_or_path",
    ]


@pytest.mark.parametrize("target", ["models/tiny", "models", "saves/tiny", "."])
def test_a_target_that_holds_an_input_is_refused(project: Path, target: str) -> None:
    with pytest.raises(ConfigError, match="it would replace"):
        merge.export(CONFIG, [f"export_dir={target}"], overwrite=True)


def test_no_base(project: Path) -> None:
    shutil.rmtree(project / "models/tiny")
    with pytest.raises(MissingInputError, match=r"models/tiny is not there; run: make demo"):
        merge.export(CONFIG, [])
    with pytest.raises(MissingInputError, match=r"run: make model"):
        merge.export("configs/chatglm3-6b/export.yaml", [])


def test_an_original_base_is_refused(project: Path, root: Path) -> None:
    shutil.rmtree(project / "models/tiny")
    shutil.copytree(root / "tests/fixtures/golden", project / "models/tiny")
    with pytest.raises(CheckpointError, match=r"run: python scripts/import_model\.py models/tiny"):
        merge.export(CONFIG, [])


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_no_adapter(project: Path, name: str) -> None:
    (project / "saves/tiny/lora/sft" / name).unlink()
    with pytest.raises(MissingInputError, match=rf"holds no {name}; run: make train RECIPE=tiny"):
        merge.export(CONFIG, [])


def test_a_training_that_was_cut_off(project: Path) -> None:
    (project / "saves/tiny/lora/sft/all_results.json").unlink()
    with pytest.raises(MissingInputError, match="has not finished"):
        merge.export(CONFIG, [])


def test_an_adapter_that_is_no_weights(project: Path) -> None:
    """What prefix tuning leaves."""
    file = project / "saves/tiny/lora/sft/adapter_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(config | {"peft_type": "PREFIX_TUNING"}), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"of the kind PREFIX_TUNING, .*scripts/compare\.py"):
        merge.export(CONFIG, [])


def test_an_adapter_trained_without_us_is_taken_with_a_warning(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "saves/tiny/lora/sft/medqa_run.json").unlink()
    (project / "models/tiny-med").mkdir()
    (project / "models/tiny-med/mine").touch()
    with pytest.raises(TargetError):  # so far it came
        merge.export(CONFIG, [])
    assert "was trained without scripts/train.py" in capsys.readouterr().err


def test_an_adapter_of_another_base(project: Path) -> None:
    file = project / "models/tiny/medqa_import.json"
    record = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(record | {"fingerprint": "sha256:0000"}), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"was trained on sha256:\w+, .*is sha256:0000"):
        merge.export(CONFIG, [])


def test_a_moved_base_is_still_the_base(project: Path) -> None:
    (project / "models/tiny").rename(project / "models/renamed")
    (project / "models/tiny-med").mkdir()
    (project / "models/tiny-med/mine").touch()
    with pytest.raises(TargetError):  # so far it came: base and adapter belong together
        merge.export(CONFIG, ["model_name_or_path=models/renamed"])
