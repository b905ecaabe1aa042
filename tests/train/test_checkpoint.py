"""Which checkpoint is whole: every file torn in every way, and the layouts that are whole."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from medqa.train import checkpoint
from tests.train.checkpoints import write_checkpoint

NEEDED = (
    "adapter_model.safetensors",
    "optimizer.pt",
    "scheduler.pt",
    "rng_state.pth",
    "trainer_state.json",
)


def cut(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def cut_by_one(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def zeros(file: Path) -> None:
    """The length is written, the content is not: a power cut."""
    file.write_bytes(bytes(file.stat().st_size))


@pytest.mark.parametrize("damage", [Path.unlink, cut, cut_by_one, empty, zeros])
@pytest.mark.parametrize("name", NEEDED)
def test_every_file_is_needed_whole(
    tmp_path: Path, name: str, damage: Callable[[Path], None]
) -> None:
    folder = write_checkpoint(tmp_path, 10)
    assert checkpoint.fault(folder) == ""
    damage(folder / name)
    assert checkpoint.fault(folder)
    assert checkpoint.newest_whole(tmp_path) is None


def test_a_changed_byte_within_is_seen(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, 10)
    file = folder / "optimizer.pt"
    content = file.read_bytes()
    file.write_bytes(content.replace(b"\x00\x00\x80\x3f", b"\x00\x00\x00\x00", 1))
    assert checkpoint.fault(folder) == "optimizer.pt is not whole"


def test_any_other_json_or_archive_must_be_whole_too(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, 10)
    cut(folder / "adapter_config.json")
    assert checkpoint.fault(folder) == "adapter_config.json is not whole"
    shutil.rmtree(folder)
    write_checkpoint(tmp_path, 10)
    torch.save({}, folder / "training_args.bin")
    assert checkpoint.fault(folder) == ""
    cut(folder / "training_args.bin")
    assert checkpoint.fault(folder) == "training_args.bin is not whole"


def test_the_newest_whole_one_is_taken(tmp_path: Path) -> None:
    for step in (5, 10, 15, 100):
        write_checkpoint(tmp_path, step)
    (tmp_path / "checkpoint-best").mkdir()
    (tmp_path / "checkpoint-200").write_text("a file", encoding="utf-8")
    (tmp_path / "checkpoint-100/scheduler.pt").unlink()
    (tmp_path / "checkpoint-15/trainer_state.json").unlink()
    found = checkpoint.newest_whole(tmp_path)
    assert found == checkpoint.Checkpoint(tmp_path / "checkpoint-10", 10, ended=False, best=None)


def test_a_folder_of_another_name_is_not_trusted(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, 10)
    folder.rename(tmp_path / "checkpoint-11")
    assert checkpoint.newest_whole(tmp_path) is None


def test_the_best_one_must_be_whole_too(tmp_path: Path) -> None:
    best = {"best_model_checkpoint": "saves/m/checkpoint-10", "best_global_step": 10}
    write_checkpoint(tmp_path, 5)
    write_checkpoint(tmp_path, 10, **best)
    write_checkpoint(tmp_path, 15, **best)
    found = checkpoint.newest_whole(tmp_path)
    assert found is not None
    assert (found.step, found.best) == (15, 10)
    empty(tmp_path / "checkpoint-10/adapter_model.safetensors")
    found = checkpoint.newest_whole(tmp_path)
    assert found is not None
    assert (found.step, found.best) == (5, None)


def control(*, stop: bool) -> dict[str, object]:
    return {"stateful_callbacks": {"TrainerControl": {"args": {"should_training_stop": stop}}}}


@pytest.mark.parametrize(
    ("state", "ended"),
    [
        ({}, False),
        ({"max_steps": 10}, True),
        ({"max_steps": 0}, False),
        (control(stop=True), True),
        (control(stop=False), False),
    ],
)
def test_one_at_which_the_trainer_stopped_is_known(
    tmp_path: Path, state: dict[str, object], ended: bool
) -> None:
    write_checkpoint(tmp_path, 10, **state)
    found = checkpoint.newest_whole(tmp_path)
    assert found is not None
    assert found.ended == ended


def test_of_several_processes_all_random_states_are_needed(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, 10, ranks=3)
    assert checkpoint.fault(folder) == ""
    (folder / "rng_state_1.pth").unlink()
    assert checkpoint.fault(folder) == "the random numbers' state of another process is not there"
    (folder / "rng_state_2.pth").unlink()
    assert checkpoint.fault(folder) == "the random numbers' state of another process is not there"


def test_shards_must_all_be_there(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, 10)
    (folder / "adapter_model.safetensors").unlink()
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    for name in names:
        save_file({name[:11]: np.zeros(4, np.float32)}, folder / name)
    index = {"weight_map": {name[:11]: name for name in names}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    assert checkpoint.fault(folder) == ""
    assert checkpoint.weights(folder) == [folder / name for name in names]
    (folder / names[0]).unlink()
    assert checkpoint.fault(folder) == "model.safetensors.index.json is not whole"
    assert checkpoint.weights(folder) == []


def test_layouts_of_deepspeed_and_fsdp_are_whole(tmp_path: Path) -> None:
    def without(step: int, *names: str) -> Path:
        folder = write_checkpoint(tmp_path, step, ranks=2)
        for name in names:
            (folder / name).unlink()
        return folder

    zero = without(10, "optimizer.pt", "scheduler.pt")
    shards = zero / "global_step10"
    shards.mkdir()
    torch.save({}, shards / "zero_pp_rank_0_mp_rank_00_optim_states.pt")
    (zero / "latest").write_text("global_step10", encoding="utf-8")
    assert checkpoint.fault(zero) == ""
    cut(shards / "zero_pp_rank_0_mp_rank_00_optim_states.pt")
    assert "optim_states.pt is not whole" in checkpoint.fault(zero)

    fsdp = without(15, "adapter_model.safetensors", "optimizer.pt")
    for name in ("pytorch_model_fsdp_0", "optimizer_0"):
        (fsdp / name).mkdir()
        (fsdp / name / "__0_0.distcp").write_bytes(b"no archive as a whole")
        (fsdp / name / ".metadata").write_bytes(b"a pickle, not opened")
    assert checkpoint.fault(fsdp) == ""
    shutil.rmtree(fsdp / "optimizer_0")
    assert checkpoint.fault(fsdp) == "the optimiser's state is not there"


def test_weights_are_none_when_one_is_torn(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, 10)
    assert checkpoint.weights(folder) == [folder / "adapter_model.safetensors"]
    cut(folder / "adapter_model.safetensors")
    assert checkpoint.weights(folder) == []
    assert checkpoint.weights(tmp_path / "absent") == []


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    """A checkpoint may come from elsewhere: looking at it runs nothing in it."""
    folder = write_checkpoint(tmp_path, 10)
    opened = tmp_path / "opened"

    class Trap:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (opened,)

    torch.save({"trap": Trap()}, folder / "optimizer.pt")
    assert checkpoint.fault(folder) == ""
    assert not opened.exists()
