"""What `launch` decides before and after LLaMA-Factory runs; the running itself is in test_demo."""

import errno
import fcntl
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from medqa import provenance
from medqa.errors import (
    DataError,
    MissingInputError,
    PreflightError,
    StepError,
    TargetError,
)
from medqa.train import inquiry, launch, preflight, trainer
from tests.train.checkpoints import write_checkpoint

RECIPE = """\
model_name_or_path: models/m
stage: sft
do_train: true
finetuning_type: lora
dataset: qa_train
template: chatglm3
output_dir: saves/m
"""

LOOKS = preflight.require


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a model, a data set and a recipe, at which no preflight looks."""
    monkeypatch.setenv("MEDQA_ROOT", str(tmp_path))
    monkeypatch.setattr(preflight, "require", lambda *_, **__: [])
    for folder in ("configs", "data", "models/m"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "configs/r.yaml").write_text(RECIPE, encoding="utf-8")
    (tmp_path / "models/m/config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "data/train.jsonl").write_text('{"instruction": "q"}\n', encoding="utf-8")
    entries = {"qa_train": {"file_name": "train.jsonl"}}
    (tmp_path / "data/dataset_info.json").write_text(json.dumps(entries), encoding="utf-8")
    return tmp_path


class Trainer:
    """Stands in for LLaMA-Factory: leaves what it leaves, and records how it was called."""

    def __init__(self) -> None:
        self.found: list[list[str]] = []
        self.overrides: list[list[str]] = []
        self.done: list[int] = []
        self.state: dict[str, Any] = {
            "global_step": 20,
            "log_history": [{"step": 10, "loss": 2.0}, {"step": 20, "loss": 1.0}, {"x": 1}],
        }
        self.results = {"train_runtime": 10.0, "train_loss": 1.5}
        self.before: Callable[[Path], None] = lambda target: None

    def run(self, config: Path, overrides: list[str], target: Path, done: int) -> None:
        self.found.append(sorted(p.name for p in target.iterdir()))
        self.overrides.append(list(overrides))
        self.done.append(done)
        self.before(target)
        write_adapter(target)
        (target / "all_results.json").write_text(json.dumps(self.results), encoding="utf-8")
        (target / "trainer_state.json").write_text(json.dumps(self.state), encoding="utf-8")


def write_adapter(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"lora_A": np.zeros(4, np.float32)}, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}', encoding="utf-8")
    return folder


@pytest.fixture
def trained(project: Path, monkeypatch: pytest.MonkeyPatch) -> Trainer:
    result = Trainer()
    monkeypatch.setattr(trainer, "run", result.run)
    return result


def record(project: Path) -> dict[str, Any]:
    return dict(json.loads((project / "saves/m/medqa_run.json").read_text(encoding="utf-8")))


def test_a_run_is_recorded_and_not_done_twice(project: Path, trained: Trainer) -> None:
    assert "20 steps, loss 1.000, 0.50 s a step" in launch.train("configs/r.yaml")
    assert record(project)["steps"] == 20
    assert set(record(project)["inputs"]) == {"models/m", "data/train.jsonl"}
    assert launch.train("configs/r.yaml").startswith("up to date")
    assert len(trained.found) == 1


def test_what_is_not_learned_from_does_not_decide(project: Path, trained: Trainer) -> None:
    launch.train("configs/r.yaml")
    assert launch.train("configs/r.yaml", ["logging_steps=1"]).startswith("up to date")


@pytest.mark.parametrize("change", ["setting", "data", "model"])
def test_a_run_of_other_inputs_is_kept(project: Path, trained: Trainer, change: str) -> None:
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
    assert trained.found[1] == ["medqa_started.json"]


def test_a_killed_run_goes_on_from_its_last_whole_checkpoint(
    project: Path, trained: Trainer
) -> None:
    def kill(target: Path) -> None:
        write_checkpoint(target, 10)
        (write_checkpoint(target, 15) / "trainer_state.json").write_text("{", encoding="utf-8")
        (target / "checkpoint-20").mkdir()
        (target / "adapter_model.safetensors").write_bytes(b"hal")
        raise StepError("killed")

    trained.before = kill
    with pytest.raises(StepError):
        launch.train("configs/r.yaml", ["seed=7"])
    trained.before = lambda target: None
    launch.train("configs/r.yaml", ["seed=7"])
    assert trained.found == [["medqa_started.json"], ["checkpoint-10", "medqa_started.json"]]
    assert trained.done == [0, 10]
    assert trained.overrides == [
        ["seed=7"],
        [
            "seed=7",
            'resume_from_checkpoint="saves/m/checkpoint-10"',
            "restore_callback_states_from_checkpoint=true",
        ],
    ]
    assert record(project)["resumed_from"] == 10
    # 10 seconds for the ten steps that were left, not for all twenty.
    assert record(project)["seconds_per_step"] == 1.0


def test_a_run_killed_after_its_last_step_is_only_ended(project: Path, trained: Trainer) -> None:
    """Trained on, it would do one step more, or go on although it had stopped early."""

    def kill(target: Path) -> None:
        write_checkpoint(target, 20)
        raise StepError("killed")

    trained.before = kill
    with pytest.raises(StepError):
        launch.train("configs/r.yaml")
    trained.before = lambda target: None
    trained.results = {"train_runtime": 0.01, "train_loss": 0.0}
    said = launch.train("configs/r.yaml")
    assert trained.overrides[1][-2:] == ["max_steps=-1", "num_train_epochs=0.0"]
    assert said == "saves/m: 20 steps, loss 1.000; log in saves/m/train.log"
    assert (record(project)["resumed_from"], record(project)["steps"]) == (20, 20)
    assert "seconds_per_step" not in record(project), "no step was done, so none was timed"


def test_the_best_step_is_recorded_with_its_loss(project: Path, trained: Trainer) -> None:
    trained.state["log_history"] += [
        {"step": 5, "eval_loss": 1.75},
        {"step": 20, "eval_loss": 1.875},
    ]
    trained.state["best_model_checkpoint"] = "saves/m/checkpoint-5"
    said = launch.train("configs/r.yaml", ["load_best_model_at_end=true"])
    assert "loss 1.000, evaluation loss 1.750 (step 5, the best, is kept), 0.50 s" in said
    assert (record(project)["best_step"], record(project)["eval_loss"]) == (5, 1.75)


def test_without_the_best_the_last_one_is_recorded(project: Path, trained: Trainer) -> None:
    trained.state["log_history"] += [{"step": 20, "eval_loss": 1.875}]
    trained.state["best_model_checkpoint"] = "saves/m/checkpoint-5"  # tracked, and not loaded
    assert "evaluation loss 1.875, 0.50 s" in launch.train("configs/r.yaml")
    assert "best_step" not in record(project)


def test_a_loss_that_was_never_logged_is_that_of_the_whole_run(
    project: Path, trained: Trainer
) -> None:
    trained.state["log_history"] = []
    assert "20 steps, loss 1.500," in launch.train("configs/r.yaml")
    (project / "saves/m/medqa_run.json").unlink()
    facts = launch._measured(
        {"train_runtime": 5.0, "train_loss": 0.75}, trained.state, 10, best=None
    )
    # The trainer has divided the sum over the ten steps since it resumed by all twenty.
    assert facts == {"steps": 20, "train_loss": 1.5, "seconds_per_step": 0.5}


def test_weights_of_a_whole_model_are_an_output_too(project: Path, trained: Trainer) -> None:
    def full(target: Path) -> None:
        for n in (1, 2):
            save_file({"w": np.zeros(n, np.float32)}, target / f"model-{n}-of-2.safetensors")

    trained.before = full
    launch.train("configs/r.yaml", ["finetuning_type=full"])
    assert {"model-1-of-2.safetensors", "model-2-of-2.safetensors"} < set(
        record(project)["outputs"]
    )
    assert launch.train("configs/r.yaml", ["finetuning_type=full"]).startswith("up to date")
    (project / "saves/m/model-2-of-2.safetensors").unlink()
    with pytest.raises(TargetError):
        launch.train("configs/r.yaml", ["finetuning_type=full"])


def test_a_trainer_that_leaves_no_whole_weights_has_failed(project: Path, trained: Trainer) -> None:
    trained.before = lambda target: (target / "model.safetensors").write_bytes(b"hal") and None
    with pytest.raises(StepError, match="left no trained weights in saves/m"):
        launch.train("configs/r.yaml")
    assert not (project / "saves/m/medqa_run.json").exists()


def test_an_adapter_to_build_on_is_an_input(project: Path, trained: Trainer) -> None:
    first, second = (write_adapter(project / "saves" / name) for name in ("a", "b"))
    adapters = "adapter_name_or_path=saves/a, saves/b"
    launch.train("configs/r.yaml", [adapters])
    digests = provenance.digest(*first.iterdir(), *second.iterdir())
    assert len(digests) == 4
    assert digests.items() < record(project)["inputs"].items()
    assert launch.train("configs/r.yaml", [adapters]).startswith("up to date")
    save_file({"lora_A": np.ones(4, np.float32)}, second / "adapter_model.safetensors")
    with pytest.raises(TargetError, match="of other settings, model or data"):
        launch.train("configs/r.yaml", [adapters])


def test_a_missing_adapter_names_the_command_that_writes_it(project: Path) -> None:
    def needing(adapter: str) -> str:
        with pytest.raises(MissingInputError) as caught:
            launch.train("configs/r.yaml", [f"adapter_name_or_path={adapter}"])
        return str(caught.value)

    (project / "configs/sft.yaml").write_text("output_dir: saves/sft\n", encoding="utf-8")
    (project / "configs/broken.yaml").write_text("[", encoding="utf-8")
    assert needing("saves/sft") == (
        "adapter saves/sft does not exist or is not whole; "
        "run: python scripts/train.py configs/sft.yaml"
    )
    assert needing("saves/prefix/begin").endswith(
        "run: python scripts/begin_prefix.py configs/r.yaml"
    )
    assert "the recipe that has it as output_dir" in needing("saves/none")
    write_adapter(project / "saves/sft")
    (project / "saves/sft/adapter_model.safetensors").write_bytes(b"hal")
    assert "saves/sft does not exist or is not whole" in needing("saves/sft")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_is_full_before_the_trainer_starts(
    project: Path, trained: Trainer, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def write(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(provenance, "write", write)
    with pytest.raises(StepError, match=r"the disk of saves/m is full.*run the same command again"):
        launch.train("configs/r.yaml")
    assert trained.found == []


def test_a_run_that_ended_unrecorded_is_recorded_as_it_is(project: Path, trained: Trainer) -> None:
    """Its parent was killed, the trainer came to its end: training again would add a step."""
    launch.train("configs/r.yaml")
    (project / "saves/m/medqa_run.json").rename(project / "saves/m/medqa_started.json")
    assert "20 steps" in launch.train("configs/r.yaml")
    assert len(trained.found) == 1


def test_a_killed_run_is_not_resumed_with_other_settings(project: Path, trained: Trainer) -> None:
    target = project / "saves/m"
    target.mkdir(parents=True)
    (target / "checkpoint-5").mkdir()
    with pytest.raises(TargetError, match="an unfinished run of other settings"):
        launch.train("configs/r.yaml")


def test_two_trainings_do_not_share_a_folder(project: Path, trained: Trainer) -> None:
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


def test_a_data_set_on_the_hub_is_no_file(project: Path) -> None:
    entries = {"qa_train": {"hf_hub_url": "someone/rows"}}
    (project / "data/dataset_info.json").write_text(json.dumps(entries), encoding="utf-8")
    with pytest.raises(DataError, match=r"data set qa_train names no file.*convert"):
        launch.train("configs/r.yaml")


def test_missing_keys_are_all_named(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "require", LOOKS)
    (project / "configs/r.yaml").write_text("stage: sft\n", encoding="utf-8")
    with pytest.raises(PreflightError) as caught:
        launch.train("configs/r.yaml")
    assert sum("missing key" in problem for problem in caught.value.problems) == 4


def test_a_preflight_that_fails_leaves_the_folder_empty(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "require", LOOKS)
    monkeypatch.setattr(inquiry, "ask", lambda request: inquiry.Answer())
    with pytest.raises(PreflightError, match="cutoff_len"):
        launch.train("configs/r.yaml", ["cutoff_len=0"])
    assert not list((project / "saves/m").iterdir())


@pytest.mark.slow
def test_a_failing_trainer_is_reported_in_its_own_words(project: Path) -> None:
    # A real start of LLaMA-Factory, which finds that this model is none.
    with pytest.raises(StepError, match=r"exit code 1: .+\(the whole log: saves/m/train\.log\)"):
        launch.train("configs/r.yaml")
    assert not (project / "saves/m/medqa_run.json").exists()
