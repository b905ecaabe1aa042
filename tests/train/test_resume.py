"""Killed at any moment, a training ends as if nothing had happened: equal to the last bit.

Why to the last bit, on one machine with one number of threads: a checkpoint holds the weights, the
optimiser's and the scheduler's state and the random numbers' (LoRA dropout), the order of the rows
follows from the seed and the epoch, packing from that order, and batches that were seen are skipped
without being computed. On a GPU some kernels add up in no fixed order, so there two undisturbed
runs differ already.
"""

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from medqa.train import checkpoint
from tests.project import Project

pytestmark = pytest.mark.slow

STEPS, EVERY = 60, 5
RECIPE = f"""\
model_name_or_path: models/tiny
stage: sft
do_train: true
finetuning_type: lora
lora_rank: 8
lora_dropout: 0.1
lora_target: all
dataset: sample_train
eval_dataset: sample_val
dataset_dir: data
template: chatglm3
cutoff_len: 64
packing: true
neat_packing: true
output_dir: saves/killed
logging_steps: 1
save_steps: {EVERY}
eval_strategy: steps
eval_steps: {EVERY}
save_total_limit: 2
load_best_model_at_end: true
plot_loss: true
report_to: tensorboard
per_device_train_batch_size: 1
per_device_eval_batch_size: 8
gradient_accumulation_steps: 2
learning_rate: 3.0e-3
max_steps: {STEPS}
lr_scheduler_type: cosine
bf16: false
disable_gradient_checkpointing: true
optim: adamw_torch
seed: 42
"""
# The loss falls, so with the highest for the best the first is: stopped after two more.
STOPPED = ("greater_is_better=true", "early_stopping_steps=2", "save_total_limit=9")


class Training:
    """One recipe in a project folder, started as a user starts it."""

    def __init__(self, project: Project, output: str, *overrides: str) -> None:
        self.target = project.root / output
        self.project = project
        self.overrides = (f"output_dir={output}", *overrides)

    def start(self) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "scripts/train.py", "configs/kills.yaml", *self.overrides],
            cwd=self.project.root,
            env=os.environ | {"MEDQA_ROOT": str(self.project.root), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self) -> tuple[int, str]:
        """Runs it to its end; returns the exit code and all it said."""
        process = self.start()
        said, errors = process.communicate(timeout=300)
        return process.returncode, said + errors

    def finish(self) -> str:
        code, said = self.run()
        assert code == 0, said
        return said

    def record(self) -> dict[str, Any]:
        return self.json("medqa_run.json")

    def json(self, name: str) -> dict[str, Any]:
        return dict(json.loads((self.target / name).read_text(encoding="utf-8")))

    def losses(self) -> list[tuple[int, float]]:
        """Every loss and evaluation loss in the log that curves are drawn from."""
        lines = (self.target / "trainer_log.jsonl").read_text(encoding="utf-8").splitlines()
        entries = [json.loads(line) for line in lines]
        return [
            (e["current_steps"], e[key])
            for e in entries
            for key in ("loss", "eval_loss")
            if key in e
        ]

    def weights(self, folder: str = ".") -> bytes:
        return (self.target / folder / "adapter_model.safetensors").read_bytes()

    def undo_the_end(self, source: "Training", *without: str) -> None:
        """Makes this the state in which a kill before the final save would have left `source`."""
        shutil.copytree(source.target, self.target)
        record = self.record() | {"outputs": {}}
        (self.target / "medqa_started.json").write_text(json.dumps(record), encoding="utf-8")
        for name in ("medqa_run.json", "adapter_model.safetensors", "all_results.json"):
            (self.target / name).unlink()
        for name in without:
            shutil.rmtree(self.target / name)


@pytest.fixture(scope="module")
def project(demo_project: Project, demo: str) -> Project:
    (demo_project.root / "configs/kills.yaml").write_text(RECIPE, encoding="utf-8")
    return demo_project


@pytest.fixture(scope="module")
def undisturbed(project: Project) -> Training:
    training = Training(project, "saves/undisturbed")
    training.finish()
    return training


def kill(*processes: psutil.Process) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def kill_when(started: "subprocess.Popen[str]", moment: Callable[[], bool]) -> bool:
    """Kills the script and the trainer (kill -9) as soon as `moment` has come.

    To look for children takes longer than a file of a checkpoint takes to be written: those that
    are known go first, then what a script that stands still has started since.
    """
    script = psutil.Process(started.pid)
    known: list[psutil.Process] = []
    give_up, look = time.monotonic() + 200, 0.0
    while not (come := moment()) and started.poll() is None and time.monotonic() < give_up:
        if time.monotonic() > look:
            known, look = script.children(recursive=True), time.monotonic() + 1
        time.sleep(0.0005)
    if started.poll() is None:
        script.suspend()
        kill(*known)
        children = script.children(recursive=True)
        kill(script, *children)
        psutil.wait_procs(children, timeout=20)
    started.communicate()
    return come


@pytest.mark.timeout(1800)  # twelve starts of LLaMA-Factory
def test_ten_kills_and_the_same_adapter(undisturbed: Training) -> None:
    killed = Training(undisturbed.project, "saves/killed")
    target, chance = killed.target, random.Random(7)

    def saved(step: int, file: str) -> Callable[[], bool]:
        return lambda: (target / f"checkpoint-{step}" / file).exists()

    def logged(step: int) -> Callable[[], bool]:
        log = target / "trainer_log.jsonl"
        return lambda: log.exists() and f'"current_steps": {step},' in log.read_text()

    def deleting(step: int) -> Callable[[], bool]:
        """The oldest of three checkpoints is being deleted."""
        files = ("optimizer.pt", "scheduler.pt", "trainer_state.json", "adapter_model.safetensors")

        def moment() -> bool:
            old = target / f"checkpoint-{step}"
            whole = saved(step + 2 * EVERY, "trainer_state.json")()
            return whole and not all((old / file).exists() for file in files)

        return moment

    waited = time.monotonic() + chance.uniform(1.5, 4.0)
    moments = [
        lambda: time.monotonic() > waited,  # while it is importing
        logged(chance.choice((6, 7, 8, 9))),  # between two checkpoints
        saved(10, ""),  # the weights are being written
        saved(20, "optimizer.pt"),
        saved(25, "rng_state.pth"),
        deleting(20),
        logged(chance.randint(31, 39)),
        saved(40, "trainer_state.json"),
        logged(chance.randint(46, 54)),
        lambda: (target / "adapter_model.safetensors").exists(),  # the final weights
    ]
    torn = 0
    for moment in moments:
        assert kill_when(killed.start(), moment), "it came to its end before the moment had come"
        torn += any(checkpoint.fault(folder) for folder in checkpoint.folders(target))
    assert torn >= 2, "the kills were to hit the writing of checkpoints"
    assert not (target / "medqa_run.json").exists()

    killed.finish()
    assert killed.weights() == undisturbed.weights()
    assert killed.weights(f"checkpoint-{STEPS}") == undisturbed.weights(f"checkpoint-{STEPS}")
    assert killed.losses() == undisturbed.losses()
    for fact in ("steps", "train_loss", "eval_loss", "best_step"):
        assert killed.record()[fact] == undisturbed.record()[fact]
    assert killed.finish().startswith("up to date")


def test_a_trainer_outlives_its_killed_script_and_keeps_others_out(project: Project) -> None:
    training = Training(project, "saves/orphan", "max_steps=500")
    started = training.start()
    script = psutil.Process(started.pid)
    while not (training.target / "checkpoint-5/trainer_state.json").exists():
        assert started.poll() is None
        time.sleep(0.01)
    (trainer,) = script.children()
    kill(script)
    started.communicate()
    code, said = training.run()
    assert (code, "another training is writing saves/orphan" in said) == (2, True)
    assert trainer.is_running()
    kill(trainer)
    trainer.wait(timeout=20)


def test_patience_survives_a_kill_and_what_had_stopped_is_not_trained_on(project: Project) -> None:
    whole = Training(project, "saves/stopped", *STOPPED)
    assert "evaluation loss" in whole.finish()
    assert (whole.record()["steps"], whole.record()["best_step"]) == (3 * EVERY, EVERY)

    before = Training(project, "saves/stopped-before", *STOPPED)
    before.undo_the_end(whole, f"checkpoint-{3 * EVERY}")
    before.finish()
    assert before.record()["resumed_from"] == 2 * EVERY

    after = Training(project, "saves/stopped-after", *STOPPED)
    after.undo_the_end(whole)
    after.finish()
    assert after.record()["resumed_from"] == 3 * EVERY

    for training in (before, after):
        assert training.weights() == whole.weights() == whole.weights(f"checkpoint-{EVERY}")
        assert training.json("trainer_state.json")["global_step"] == 3 * EVERY
        for fact in ("steps", "train_loss", "eval_loss", "best_step"):
            assert training.record()[fact] == whole.record()[fact]


def test_a_full_disk_costs_no_whole_checkpoint(project: Project) -> None:
    """What is written to /dev/full fails as on a full disk."""
    training = Training(project, "saves/full", f"max_steps={2 * EVERY}")
    started = training.start()
    first, second = (training.target / f"checkpoint-{n * EVERY}" for n in (1, 2))
    while not first.exists():
        assert started.poll() is None
        time.sleep(0.01)
    second.mkdir()
    (second / "optimizer.pt").symlink_to("/dev/full")
    said = started.communicate(timeout=200)[1]
    assert started.returncode == 1
    error = said.splitlines()[-1]
    assert error.startswith("error: the disk of saves/full is full: ")
    assert "then run the same command again: it goes on from saves/full/checkpoint-5" in error
    assert checkpoint.fault(first) == ""

    training.finish()
    assert training.record()["resumed_from"] == EVERY
    assert not (second / "optimizer.pt").is_symlink()
    assert checkpoint.fault(second) == ""


def test_ctrl_c_ends_the_trainer_too(project: Project) -> None:
    training = Training(project, "saves/interrupted", "max_steps=500")
    started = training.start()
    while not (training.target / "checkpoint-5").exists():
        assert started.poll() is None
        time.sleep(0.01)
    (trainer,) = psutil.Process(started.pid).children()
    started.send_signal(2)
    said = started.communicate(timeout=60)[1]
    assert started.returncode == 130
    assert said.splitlines()[-1] == "interrupted; run the same command again to go on"
    assert not trainer.is_running()
