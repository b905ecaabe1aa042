"""What `launch` decides before and after LLaMA-Factory runs; the running itself is in test_demo."""

import fcntl
import json
import os
from pathlib import Path

import pytest

from medqa.errors import ConfigError, DataError, MissingInputError, StepError, TargetError
from medqa.train import launch

RECIPE = """\
model_name_or_path: models/m
stage: sft
do_train: true
finetuning_type: lora
dataset: qa_train
template: chatglm3
output_dir: saves/m
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a model, a data set and a recipe."""
    monkeypatch.setenv("MEDQA_ROOT", str(tmp_path))
    for folder in ("configs", "data", "models/m"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "configs/r.yaml").write_text(RECIPE, encoding="utf-8")
    (tmp_path / "models/m/config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "data/train.jsonl").write_text('{"instruction": "q"}\n', encoding="utf-8")
    entries = {"qa_train": {"file_name": "train.jsonl"}}
    (tmp_path / "data/dataset_info.json").write_text(json.dumps(entries), encoding="utf-8")
    return tmp_path


@pytest.fixture
def trained(project: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Stands in for LLaMA-Factory: leaves what it leaves, and records how it was called."""
    calls: list[list[str]] = []

    def run(config: Path, overrides: list[str], target: Path) -> None:
        calls.append(sorted(p.name for p in target.iterdir()))
        (target / "adapter_model.safetensors").write_bytes(b"weights")
        (target / "adapter_config.json").write_text("{}", encoding="utf-8")
        results = {"train_runtime": 10.0, "train_loss": 1.5}
        (target / "all_results.json").write_text(json.dumps(results), encoding="utf-8")
        state = {"global_step": 20, "log_history": [{"loss": 2.0}, {"loss": 1.0}, {"x": 1}]}
        (target / "trainer_state.json").write_text(json.dumps(state), encoding="utf-8")

    monkeypatch.setattr(launch, "_run", run)
    return calls


def test_a_run_is_recorded_and_not_done_twice(project: Path, trained: list[list[str]]) -> None:
    assert "20 steps, loss 1.000, 0.50 s a step" in launch.train("configs/r.yaml")
    record = json.loads((project / "saves/m/medqa_run.json").read_text(encoding="utf-8"))
    assert record["steps"] == 20
    assert set(record["inputs"]) == {"models/m", "data/train.jsonl"}
    assert launch.train("configs/r.yaml").startswith("up to date")
    assert len(trained) == 1


def test_what_is_not_learned_from_does_not_decide(project: Path, trained: list[list[str]]) -> None:
    launch.train("configs/r.yaml")
    assert launch.train("configs/r.yaml", ["logging_steps=1"]).startswith("up to date")


@pytest.mark.parametrize("change", ["setting", "data", "model"])
def test_a_run_of_other_inputs_is_kept(
    project: Path, trained: list[list[str]], change: str
) -> None:
    launch.train("configs/r.yaml")
    overrides = ["learning_rate=1e-3"] if change == "setting" else []
    if change == "data":
        (project / "data/train.jsonl").write_text("{}\n", encoding="utf-8")
    if change == "model":
        (project / "models/m/config.json").write_text("{ }", encoding="utf-8")
    with pytest.raises(TargetError, match=r"a finished run of other settings.*--overwrite"):
        launch.train("configs/r.yaml", overrides)
    assert (project / "saves/m/medqa_run.json").is_file()
    launch.train("configs/r.yaml", overrides, overwrite=True)
    # Nothing of the old run was there when the new one started.
    assert trained[1] == ["medqa_started.json"]


def test_a_killed_run_goes_on_from_its_last_whole_checkpoint(
    project: Path, trained: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in = launch._run

    def killed(config: Path, overrides: list[str], target: Path) -> None:
        for step, state in (
            (10, '{"global_step": 10, "max_steps": 20}'),
            (15, '{"global_st'),
            (20, '{"global_step": 20, "max_steps": 20}'),
        ):
            folder = target / f"checkpoint-{step}"
            folder.mkdir()
            (folder / "trainer_state.json").write_text(state, encoding="utf-8")
        (target / "checkpoint-30").mkdir()
        (target / "adapter_model.safetensors").write_bytes(b"hal")
        raise StepError("killed")

    monkeypatch.setattr(launch, "_run", killed)
    with pytest.raises(StepError):
        launch.train("configs/r.yaml")
    monkeypatch.setattr(launch, "_run", stand_in)
    launch.train("configs/r.yaml")
    assert trained == [["checkpoint-10", "medqa_started.json"]]
    record = json.loads((project / "saves/m/medqa_run.json").read_text(encoding="utf-8"))
    assert record["resumed_from"] == 10
    # 10 seconds for the ten steps that were left, not for all twenty.
    assert record["seconds_per_step"] == 1.0


def test_a_run_that_ended_unrecorded_is_recorded_as_it_is(
    project: Path, trained: list[list[str]]
) -> None:
    """Its parent was killed, the trainer came to its end: training again would add a step."""
    launch.train("configs/r.yaml")
    (project / "saves/m/medqa_run.json").rename(project / "saves/m/medqa_started.json")
    assert "20 steps" in launch.train("configs/r.yaml")
    assert len(trained) == 1


def test_a_killed_run_is_not_resumed_with_other_settings(
    project: Path, trained: list[list[str]]
) -> None:
    target = project / "saves/m"
    target.mkdir(parents=True)
    (target / "checkpoint-5").mkdir()
    with pytest.raises(TargetError, match="an unfinished run of other settings"):
        launch.train("configs/r.yaml")


def test_two_trainings_do_not_share_a_folder(project: Path, trained: list[list[str]]) -> None:
    (project / "saves/m").mkdir(parents=True)
    held = os.open(project / "saves/m", os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    with pytest.raises(TargetError, match="another training is writing saves/m"):
        launch.train("configs/r.yaml")
    os.close(held)


def test_missing_inputs_name_the_step_before(project: Path) -> None:
    with pytest.raises(MissingInputError, match=r"models/none does not exist.*import_model"):
        launch.train("configs/r.yaml", ["model_name_or_path=models/none"])
    with pytest.raises(MissingInputError, match="run: make model"):
        launch.train("configs/r.yaml", ["model_name_or_path=models/chatglm3-6b"])
    with pytest.raises(MissingInputError, match=r"'qa_tain'; did you mean 'qa_train'\?.*convert"):
        launch.train("configs/r.yaml", ["dataset=qa_tain"])
    (project / "data/train.jsonl").unlink()
    with pytest.raises(MissingInputError, match=r"data/train\.jsonl is gone"):
        launch.train("configs/r.yaml")
    (project / "data/dataset_info.json").unlink()
    with pytest.raises(MissingInputError, match="found: no data set"):
        launch.train("configs/r.yaml")


def test_a_broken_registry_is_named(project: Path) -> None:
    (project / "data/dataset_info.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match=r"data/dataset_info\.json is not JSON"):
        launch.train("configs/r.yaml")


def test_missing_keys_are_all_named(project: Path) -> None:
    (project / "configs/r.yaml").write_text("stage: sft\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        launch.train("configs/r.yaml")
    assert len(caught.value.problems) == 4


@pytest.mark.slow
def test_a_failing_trainer_is_reported_in_its_own_words(project: Path) -> None:
    # A real start of LLaMA-Factory, which finds that this model is none.
    with pytest.raises(StepError, match=r"exit code 1: .+\(the whole log: saves/m/train\.log\)"):
        launch.train("configs/r.yaml")
    assert not (project / "saves/m/medqa_run.json").exists()
