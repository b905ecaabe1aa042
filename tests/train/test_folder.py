"""What is kept and what is removed when a killed training goes on."""

import errno
import fcntl
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from medqa import provenance
from medqa.errors import TargetError
from medqa.train import checkpoint, folder
from tests.train.checkpoints import write_checkpoint

INPUTS, SETTINGS = {"models/m": "fingerprint"}, {"seed": 1}


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The output folder of a training that was begun."""
    monkeypatch.setenv("MEDQA_ROOT", str(tmp_path))
    result = tmp_path / "saves/m"
    result.mkdir(parents=True)
    provenance.write(
        result / "medqa_started.json", step="train", inputs=INPUTS, config=SETTINGS, resumed_from=0
    )
    return result


def prepared(target: Path, *, overwrite: bool = False, **settings: Any) -> int | None:
    found = folder.prepare(target, INPUTS, SETTINGS | settings, overwrite=overwrite)
    return found.step if found else None


def names(target: Path) -> set[str]:
    return {path.name for path in target.iterdir()}


def trained(target: Path, **state: Any) -> None:
    """What LLaMA-Factory leaves last."""
    source = write_checkpoint(target, 20, **state)
    for name in ("adapter_model.safetensors", "adapter_config.json", "trainer_state.json"):
        (target / name).write_bytes((source / name).read_bytes())
    (target / "all_results.json").write_text('{"train_runtime": 1.0}', encoding="utf-8")


def test_what_a_kill_left_beyond_the_last_whole_checkpoint_goes(target: Path) -> None:
    for step in (5, 10, 15):
        write_checkpoint(target, step)
    (target / "checkpoint-15/optimizer.pt").write_bytes(b"PK")
    (target / "checkpoint-20").mkdir()
    for name in ("adapter_model.safetensors", "model-00001-of-00002.safetensors"):
        (target / name).write_bytes(b"hal")
    for name in ("adapter_config.json", "all_results.json", "model.safetensors.index.json"):
        (target / name).write_text("{}", encoding="utf-8")
    (target / "train.log").write_text("words", encoding="utf-8")
    (target / "mine.txt").write_text("a note", encoding="utf-8")
    assert prepared(target) == 10
    assert names(target) == {
        "checkpoint-5",
        "checkpoint-10",
        "medqa_started.json",
        "mine.txt",
        "train.log",
    }
    started = provenance.read(target / "medqa_started.json")
    assert started is not None
    assert started["resumed_from"] == 10


def test_without_a_whole_checkpoint_it_starts_again(target: Path) -> None:
    write_checkpoint(target, 5)
    (target / "checkpoint-5/rng_state.pth").unlink()
    assert prepared(target) is None
    assert names(target) == {"medqa_started.json"}


def test_the_log_goes_on_where_the_checkpoint_stands(target: Path) -> None:
    write_checkpoint(target, 5)
    log = target / "trainer_log.jsonl"
    lines = [json.dumps({"current_steps": step, "loss": 1.0}) for step in (4, 5, 6)]
    log.write_text("\n".join([*lines[:1], '{"current_st', *lines[1:]]) + '\n{"cur', "utf-8")
    assert prepared(target) == 5
    assert log.read_text(encoding="utf-8").splitlines() == lines[:2]


def test_the_trainer_will_delete_the_oldest_first(target: Path) -> None:
    """It sorts by time of change, and a killed deletion has changed the oldest last."""
    from transformers.trainer_utils import rotate_checkpoints

    for step in (5, 10):
        write_checkpoint(target, step)
    later = (target / "checkpoint-10").stat().st_mtime + 100
    os.utime(target / "checkpoint-5", (later, later))
    assert prepared(target) == 10
    write_checkpoint(target, 15)
    rotate_checkpoints(str(target), save_total_limit=2, use_mtime=True)
    assert {p.name for p in checkpoint.folders(target)} == {"checkpoint-10", "checkpoint-15"}


def test_the_best_checkpoint_is_found_after_a_move(target: Path) -> None:
    best = {"best_model_checkpoint": "saves/before/checkpoint-5", "best_global_step": 5}
    write_checkpoint(target, 5, **best)
    write_checkpoint(target, 10, **best)
    assert prepared(target) == 10
    state = provenance.read(target / "checkpoint-10/trainer_state.json")
    assert state is not None
    assert state["best_model_checkpoint"] == str(target / "checkpoint-5")
    assert state["best_global_step"] == 5


def test_a_state_that_is_right_is_left_as_it_is(target: Path) -> None:
    best = {"best_model_checkpoint": "saves/m/checkpoint-5", "best_global_step": 5}
    write_checkpoint(target, 5, **best)
    before = (target / "checkpoint-5/trainer_state.json").stat().st_mtime_ns
    assert prepared(target) == 5
    assert (target / "checkpoint-5/trainer_state.json").stat().st_mtime_ns == before


def test_one_that_had_ended_is_ended_and_not_trained_on(target: Path) -> None:
    write_checkpoint(target, 15)
    write_checkpoint(target, 20)
    found = folder.prepare(target, INPUTS, SETTINGS, overwrite=False)
    assert found is not None
    assert (found.step, found.ended) == (20, True)


@pytest.mark.parametrize("setting", ["pissa_convert", "streaming", "fsdp"])
def test_what_cannot_end_as_undisturbed_starts_again(target: Path, setting: str) -> None:
    write_checkpoint(target, 20)
    (target / "medqa_started.json").unlink()
    provenance.write(
        target / "medqa_started.json",
        step="train",
        inputs=INPUTS,
        config=SETTINGS | {setting: True},
    )
    assert prepared(target, **{setting: True}) is None
    assert names(target) == {"medqa_started.json"}


def test_a_complete_run_is_left_as_it_is(target: Path) -> None:
    trained(target)
    assert folder.is_complete(target)
    before = names(target)
    assert prepared(target) is None
    assert names(target) == before


@pytest.mark.parametrize(
    "name", ["adapter_model.safetensors", "all_results.json", "trainer_state.json"]
)
def test_a_run_whose_end_is_torn_is_not_complete(target: Path, name: str) -> None:
    trained(target)
    content = (target / name).read_bytes()
    (target / name).write_bytes(content[:-2])
    assert not folder.is_complete(target)
    assert prepared(target) == 20, "the checkpoint of the last step is whole"


def test_another_run_is_kept_unless_it_is_to_be_replaced(target: Path) -> None:
    write_checkpoint(target, 5)
    with pytest.raises(TargetError, match=r"saves/m holds an unfinished run.*--overwrite"):
        prepared(target, seed=2)
    assert (target / "checkpoint-5").is_dir()
    assert prepared(target, seed=2, overwrite=True) is None
    assert names(target) == {"medqa_started.json"}


def test_what_is_being_cleared_is_trusted_no_more(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed while it clears the folder: neither the old run nor the new one is there."""
    write_checkpoint(target, 5)
    monkeypatch.setattr(folder, "clear", lambda _: pytest.fail("killed"))
    with pytest.raises(pytest.fail.Exception):
        prepared(target, seed=2, overwrite=True)
    assert not folder.is_unfinished(target, INPUTS, SETTINGS)


def test_the_lock_outlives_its_taker_in_a_process_that_inherited_it(target: Path) -> None:
    with folder.locked(target):
        with pytest.raises(TargetError, match="another training is writing saves/m"):
            folder.locked(target).__enter__()
        heir = subprocess.Popen(["sleep", "60"], close_fds=False)
    with pytest.raises(TargetError, match="another training is writing saves/m"):
        folder.locked(target).__enter__()
    heir.kill()
    heir.wait()
    with folder.locked(target):
        pass


def test_a_disk_that_cannot_lock_is_no_other_training(
    target: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def flock(*_: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with folder.locked(target):
        pass
    assert "warning: saves/m cannot be locked (No locks available)" in capsys.readouterr().err
