"""Export: what is checked before, what is written, and that a wrong merge never gets out."""

import json
import os
import re
import shutil
import subprocess
import sys
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
from medqa.export import battery, card, merge
from medqa.export.job import Job
from medqa.export.record import RECORD
from tests.export.conftest import launch

CONFIG = "configs/tiny/export.yaml"


@pytest.mark.slow
def test_export(first: tuple[Path, str]) -> None:
    from medqa.model.fingerprint import weights_fingerprint

    project, printed = first
    lines = printed.splitlines()
    assert [line.partition(" ")[0] for line in lines] == [
        "merging",
        "weights:",
        "parity:",
        "answers:",
        "models/tiny-med:",
    ], "LLaMA-Factory's chatter is kept out"
    assert lines[3] == "answers: 16 of 16 greedy answers equal, token by token"
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
    assert (made / "Modelfile").read_text(encoding="utf-8").endswith("PARAMETER num_ctx 512\n")
    assert (made / "model.safetensors").is_file()
    record = json.loads((made / "medqa_export.json").read_text(encoding="utf-8"))
    assert record["fingerprint"] == weights_fingerprint(made)
    assert record["fingerprint"] != weights_fingerprint(base)
    assert record["parity"]["difference"] < 1e-5 < 1e-2 < record["parity"]["effect"]
    assert record["answers"]["equal"] == record["answers"]["prompts"] == 16
    assert record["weights"]["rounded"] == 0 < record["weights"]["changed"]
    assert set(record["digests"]) == {p.name for p in made.iterdir()} - {"README.md", RECORD}
    for text in (config, record, (made / "README.md").read_text(encoding="utf-8")):
        assert str(project) not in json.dumps(text)
    assert sorted(p.name for p in made.parent.iterdir()) == ["tiny", "tiny-med"]


# Plain transformers, in a process that does not know us.
ASKED = """
import json, sys
answers = []
for ids in json.load(sys.stdin):
    made = model.generate(input_ids=torch.tensor([ids]), max_new_tokens=24, do_sample=False)
    answers.append(made[0, len(ids) :].tolist())
assert not any(name.partition(".")[0] == "medqa" for name in sys.modules)
print(json.dumps(answers))
"""


@pytest.mark.slow
def test_a_fresh_process_answers_as_base_and_adapter(exported: Path) -> None:
    """The lines of the model card, and then the whole battery."""
    import torch
    from peft import PeftModel
    from transformers import AutoTokenizer, GlmForCausalLM

    project = exported.parents[1]
    base, adapter = project / "models/tiny", project / "saves/tiny/lora/sft"
    model = PeftModel.from_pretrained(GlmForCausalLM.from_pretrained(base), adapter)
    tokenizer = AutoTokenizer.from_pretrained(base)
    prompts = battery.encoded(base)

    def answer(ids: list[int], most: int) -> list[int]:
        made = model.generate(input_ids=torch.tensor([ids]), max_new_tokens=most, do_sample=False)
        return made[0, len(ids) :].tolist()

    expected = [answer(ids, 24) for ids in prompts]
    with model.disable_adapter():
        assert [answer(ids, 24) for ids in prompts] != expected
    assert battery.CHATS[0] == [{"role": "user", "content": card.QUESTION}]
    said = tokenizer.decode(answer(prompts[0], 256), skip_special_tokens=True).strip()

    text = (exported / "README.md").read_text(encoding="utf-8")
    (lines,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    result = subprocess.run(
        [sys.executable, "-c", f"import torch\n{lines}\n{ASKED}"],
        cwd=exported,
        env={k: v for k, v in os.environ.items() if k != "MEDQA_ROOT"},
        input=json.dumps(prompts),
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    *shown, answers = result.stdout.splitlines()
    assert "\n".join(shown).strip() == said
    assert json.loads(answers) == expected


def test_what_is_up_to_date_is_looked_through(
    exported: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {f.name: f.stat().st_mtime_ns for f in exported.iterdir()}
    merge.export(CONFIG, [])
    assert capsys.readouterr().out == "up to date: models/tiny-med\n"
    assert {f.name: f.stat().st_mtime_ns for f in exported.iterdir()} == before

    weights = exported / "model.safetensors"
    times = weights.stat().st_atime_ns, weights.stat().st_mtime_ns
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1  # one bit, and nothing that `ls` shows
    weights.write_bytes(data)
    os.utime(weights, ns=times)
    with pytest.raises(CheckpointError, match=r"model\.safetensors has been changed; "):
        merge.export(CONFIG, [])

    class MergedAgain(Exception): ...

    def merged_again(job: Job, staging: Path) -> None:
        raise MergedAgain

    monkeypatch.setattr(merge, "_merge", merged_again)
    with pytest.raises(MergedAgain):
        merge.export(CONFIG, [], overwrite=True)


def test_an_older_adapters_result_is_not_replaced_unasked(exported: Path, root: Path) -> None:
    adapter = exported.parents[1] / "saves/tiny/lora/sft/adapter_model.safetensors"
    adapter.write_bytes(adapter.read_bytes() + b" ")
    result = launch(root, exported.parents[1])
    assert result.returncode == 2
    assert "--overwrite" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def merge_by_hand(job: Job, staging: Path) -> None:
    from peft import PeftModel
    from transformers import GlmForCausalLM

    model = PeftModel.from_pretrained(GlmForCausalLM.from_pretrained(job.base), job.adapter)
    model.merge_and_unload().save_pretrained(staging)


@pytest.mark.parametrize("name", ["model.layers.0.mlp.down_proj.weight", "model.norm.weight"])
def test_one_wrong_value_is_noticed(
    project: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Too little for any answer to change."""
    from safetensors.torch import load_file, save_file

    def tamper(job: Job, staging: Path) -> None:
        merge_by_hand(job, staging)
        tensors = load_file(staging / "model.safetensors")
        tensors[name].view(-1)[7] += 1e-4
        save_file(tensors, staging / "model.safetensors", {"format": "pt"})

    monkeypatch.setattr(merge, "_merge", tamper)
    with pytest.raises(CheckFailedError, match=rf"merged model: {name} is not"):
        merge.export(CONFIG, [])
    assert [p.name for p in (project / "models").iterdir()] == ["tiny"]


def test_a_base_that_was_changed_after_its_import(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = project / "models/tiny/model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-2] ^= 1
    weights.write_bytes(data)
    monkeypatch.setattr(merge, "_merge", merge_by_hand)
    with pytest.raises(CheckpointError, match="models/tiny are not those of its record"):
        merge.export(CONFIG, [])
    assert [p.name for p in (project / "models").iterdir()] == ["tiny"]


def test_an_edited_card_survives_a_new_export(
    exported: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = exported / "README.md"
    file.write_text("mine", encoding="utf-8")
    (exported / "model.safetensors").unlink()
    monkeypatch.setattr(merge, "_merge", merge_by_hand)
    monkeypatch.setattr(battery, "CHATS", battery.CHATS[:2])
    merge.export(CONFIG, [], overwrite=True)
    assert file.read_text(encoding="utf-8").startswith("---\nlanguage:")
    assert (exported / "edited_README.md").read_text(encoding="utf-8") == "mine"
    assert "edited by hand is now edited_README.md" in capsys.readouterr().out


def test_the_models_licence_goes_along(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = project / "models/tiny/medqa_import.json"
    record = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(record | {"origin": "models/original"}), encoding="utf-8")
    (project / "models/original").mkdir()
    (project / "models/original/MODEL_LICENSE").write_text("The Licence", encoding="utf-8")
    monkeypatch.setattr(merge, "_merge", merge_by_hand)
    monkeypatch.setattr(battery, "CHATS", battery.CHATS[:2])
    made = merge.export(CONFIG, [])
    assert (made / "MODEL_LICENSE").read_text(encoding="utf-8") == "The Licence"


def test_an_adapter_left_out_is_noticed(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def leave_out(job: Job, staging: Path) -> None:
        shutil.copytree(job.base, staging, dirs_exist_ok=True)

    monkeypatch.setattr(merge, "_merge", leave_out)
    with pytest.raises(CheckFailedError, match="is not base \\+ adapter"):
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
    def add_code(job: Job, staging: Path) -> None:
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


def test_an_adapter_of_another_kind(project: Path) -> None:
    file = project / "saves/tiny/lora/sft/adapter_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(config | {"peft_type": "IA3"}), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"of the kind IA3, expected LORA"):
        merge.export(CONFIG, [])


def test_an_adapter_without_a_record_that_names_another_base(project: Path) -> None:
    (project / "saves/tiny/lora/sft/medqa_run.json").unlink()
    shutil.copytree(project / "models/tiny", project / "models/other")
    file = project / "models/other/medqa_import.json"
    record = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(record | {"fingerprint": "sha256:0000"}), encoding="utf-8")
    with pytest.raises(CheckpointError, match="says that it was trained on models/tiny, and"):
        merge.export(CONFIG, ["model_name_or_path=models/other"])


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
