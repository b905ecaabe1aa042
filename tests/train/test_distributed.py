"""Several processes train as one does: torchrun, FSDP, ZeRO, several machines, Ray.

Two processes with one batch each see at every step what one process with two accumulated batches
sees: accelerate deals the batches out in turn. Every loss and every weight then comes out equal but
for the order in which float32 sums are taken (measured: 0 with DDP, 3e-7 in a loss and 4e-5 in a
weight with the others), so the tolerances are those of the rounding, not of training.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from unittest import mock

import numpy as np
import psutil
import pytest
import yaml

STEPS = 4
RECIPE = f"""\
model_name_or_path: models/m
flash_attn: sdpa
split_special_tokens: true
stage: sft
do_train: true
finetuning_type: lora
lora_rank: 8
lora_target: all
dataset: qa
dataset_dir: data
template: chatglm3
cutoff_len: 128
packing: true
neat_packing: true
logging_steps: 1
save_steps: 1000
report_to: none
per_device_train_batch_size: 1
gradient_accumulation_steps: 1
learning_rate: 1.0e-3
max_steps: {STEPS}
disable_gradient_checkpointing: true
optim: adamw_torch
seed: 42
"""
FULL = ("finetuning_type=full", "learning_rate=1e-4")
TWO = {"FORCE_TORCHRUN": "1", "NPROC_PER_NODE": "2"}
LOSS, WEIGHT = 2e-6, 2e-4  # absolute; losses are near 6, a step moves a weight by up to 1e-3
LEFT_OUT = "Liger's kernels are Triton's and need a GPU"  # what the Liger remedy says on a CPU


@pytest.fixture(scope="module")
def project(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, data and a recipe; packs have from 60 to 120 trained tokens."""
    from medqa.model.importer import import_model

    folder = tmp_path_factory.mktemp("project")
    import_model(
        root / "tests/fixtures/golden", folder / "models/m", dtype="float32", origin="golden"
    )
    rows = [
        {"instruction": "问" * (1 + 5 * i % 7), "input": "", "output": "答" * (1 + 11 * i % 17)}
        for i in range(64)
    ]
    entries = {"qa": {"file_name": "qa.json"}}
    for name, content in (("qa.json", rows), ("dataset_info.json", entries)):
        file = folder / "data" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(content), encoding="utf-8")
    (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def one(project: Path) -> Path:
    return trained(project, "one", "gradient_accumulation_steps=2")


@pytest.fixture(scope="module")
def one_full(project: Path) -> Path:
    return trained(project, "one_full", "gradient_accumulation_steps=2", *FULL)


def worker(output: Path, *overrides: str) -> list[str]:
    words = ("medqa.train.worker", "recipe.yaml", f"output_dir={output}")
    return [sys.executable, "-m", *words, *overrides]


def environment(**more: str) -> dict[str, str]:
    # As it is without the tests that ran before: an export in this process asks for silence.
    loud = {"LLAMAFACTORY_VERBOSITY": "INFO", "TRANSFORMERS_VERBOSITY": "warning"}
    return os.environ | loud | {"OMP_NUM_THREADS": "1"} | more


def run(project: Path, log: str, command: list[str], **more: str) -> str:
    done = subprocess.run(
        command,
        cwd=project,
        env=environment(**more),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, f"{log}: {done.stdout[-5000:]}"
    return done.stdout


def trained(project: Path, name: str, *overrides: str, **more: str) -> Path:
    output = project / "saves" / name
    run(project, name, worker(output, *overrides), **more)
    return output


def losses(output: Path) -> list[float]:
    lines = (output / "trainer_log.jsonl").read_text(encoding="utf-8").splitlines()
    return [entry["loss"] for entry in map(json.loads, lines) if "loss" in entry]


def assert_alike(output: Path, reference: Path) -> None:
    from safetensors.numpy import load_file

    assert len(losses(reference)) == STEPS
    assert losses(output) == pytest.approx(losses(reference), abs=LOSS, rel=0)
    (file,) = reference.glob("*.safetensors")
    expected, found = load_file(file), load_file(output / file.name)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        np.testing.assert_allclose(found[name], tensor, rtol=0, atol=WEIGHT, err_msg=name)


@pytest.mark.slow
def test_two_processes_train_as_one_with_the_remedies_in_both(project: Path, one: Path) -> None:
    output = project / "saves/two processes"  # LLaMA-Factory would tear this name apart
    said = run(project, "two", worker(output, "enable_liger_kernel=true"), **TWO)
    assert "world size: 2" in said
    assert said.count(LEFT_OUT) == 2
    assert_alike(output, one)


@pytest.mark.slow
def test_the_tokens_are_counted_over_all_processes(project: Path, one: Path) -> None:
    """Each would else weigh its own tokens alike, however few they are; packs differ in that."""
    output = trained(project, "apart", "average_tokens_across_devices=false", **TWO)
    apart = np.abs(np.array(losses(output)) - np.array(losses(one)))
    assert apart.max() > 100 * LOSS


@pytest.mark.slow
def test_two_machines_train_as_one(project: Path, one: Path) -> None:
    """Two launches that find each other at an address: here both on this machine."""
    output = project / "saves/machines"
    more = {"FORCE_TORCHRUN": "1", "NPROC_PER_NODE": "1", "NNODES": "2"}
    more |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    other = subprocess.Popen(
        worker(output),
        cwd=project,
        env=environment(**more, NODE_RANK="1"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        said = run(project, "machines", worker(output), **more, NODE_RANK="0")
        assert other.wait(60) == 0
    finally:
        other.kill()
    assert "world size: 2" in said
    assert_alike(output, one)


@pytest.mark.slow
def test_fsdp_trains_as_one_process(root: Path, project: Path, one_full: Path) -> None:
    """As accelerate starts it from our file, except that it then believes CPUs to be GPUs."""
    arguments = ["--num_processes", "2", "-m", "medqa.train.worker", "recipe.yaml"]
    said = accelerates_environment(root, arguments)
    output = project / "saves/fsdp"
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port"]
    words = (str(free_port()), "-m", "tests.train.fsdp_on_cpu", "recipe.yaml")
    overrides = (f"output_dir={output}", "save_steps=2", *FULL)
    command = [sys.executable, *torchrun, *words, *overrides]
    run(project, "fsdp", command, **said, PYTHONPATH=str(root))
    # Not DDP, to which accelerate falls back without a word.
    assert (output / "checkpoint-2/pytorch_model_fsdp.bin").is_file()
    assert_alike(output, one_full)


@pytest.mark.slow
@pytest.mark.parametrize("stage", [2, 3])
def test_zero_trains_as_one_process(
    root: Path, project: Path, one: Path, one_full: Path, stage: int
) -> None:
    pytest.importorskip("deepspeed", reason="DeepSpeed is not installed: pip install deepspeed")
    overrides = FULL if stage == 3 else ()
    config = root / f"configs/deepspeed/zero{stage}.json"
    output = project / f"saves/zero{stage}"
    command = worker(output, f"deepspeed={config}", "save_steps=2", *overrides)
    run(project, output.name, command, **TWO)
    states = list((output / "checkpoint-2/global_step2").glob("*zero_pp_rank_*_optim_states.pt"))
    assert len(states) == 2
    assert_alike(output, one_full if overrides else one)


@pytest.mark.slow
def test_ray_trains_on_two_nodes_with_the_remedies_in_both(project: Path, one: Path) -> None:
    """Each node has one CPU, so that each gets one of the two workers."""
    output = project / "saves/ray"
    command = worker(output, "ray_num_workers=2", "enable_liger_kernel=true")
    with ray_cluster(nodes=2, cpus=1) as address:
        # Ray folds equal lines of several workers into one; RAY_DEDUP_LOGS shows each.
        more = {"USE_RAY": "1", "RAY_ADDRESS": address, "RAY_DEDUP_LOGS": "0"}
        said = run(project, "ray", command, **more)
    assert said.count("world size: 2") == 2
    assert said.count(LEFT_OUT) == 2
    assert_alike(output, one)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL"])
def test_no_process_outlives_the_launcher(project: Path, tmp_path: Path, name: str) -> None:
    output = tmp_path / "run"
    process = subprocess.Popen(
        worker(output, "max_steps=100000", "num_train_epochs=10000"),
        cwd=project,
        env=environment(**TWO),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        process_group=0,
    )
    family = [psutil.Process(process.pid)]
    try:
        wait_until(lambda: (output / "trainer_log.jsonl").is_file() and losses(output), 300)
        family += family[0].children(recursive=True)
        assert len(family) >= 3  # torchrun and its two workers
        process.send_signal(signal.Signals[name])
        process.wait(120)
        assert not psutil.wait_procs(family, timeout=60)[1]
    finally:
        for one_of_them in family:
            with suppress(psutil.NoSuchProcess):
                one_of_them.kill()


def test_accelerate_takes_every_key_of_our_file(root: Path) -> None:
    from transformers import GlmForCausalLM

    arguments = ["-m", "medqa.train.worker", "recipe.yaml", "deepspeed=null"]
    said = accelerates_environment(root, arguments)
    assert said["ACCELERATE_USE_FSDP"] == "true"
    assert said["FSDP_VERSION"] == "2"
    # accelerate says nothing of a name that the model does not have, and shards nothing.
    assert {said["FSDP_TRANSFORMER_CLS_TO_WRAP"]} == set(GlmForCausalLM._no_split_modules)
    settings = yaml.safe_load((root / "configs/accelerate/fsdp.yaml").read_text(encoding="utf-8"))
    for key, value in settings["fsdp_config"].items():
        if key == "fsdp_transformer_layer_cls_to_wrap":
            key = "fsdp_transformer_cls_to_wrap"
        assert said[key.upper()] == (str(value).lower() if isinstance(value, bool) else str(value))


@pytest.mark.parametrize("stage", [2, 3])
def test_deepspeed_takes_every_key_of_our_files(root: Path, stage: int) -> None:
    pytest.importorskip("deepspeed", reason="DeepSpeed is not installed: pip install deepspeed")
    from deepspeed.runtime import constants
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    config = json.loads((root / f"configs/deepspeed/zero{stage}.json").read_text(encoding="utf-8"))
    zero = config.pop("zero_optimization")
    assert zero["stage"] == stage
    # "auto" is transformers' word: it puts a number there.
    DeepSpeedZeroConfig(**{key: value for key, value in zero.items() if value != "auto"})
    fields = DeepSpeedZeroConfig.model_fields
    assert zero.keys() <= fields.keys() | {field.alias for field in fields.values()}
    known = {value for value in vars(constants).values() if isinstance(value, str)}
    assert config.keys() <= known


def accelerates_environment(root: Path, arguments: list[str]) -> dict[str, str]:
    """Returns what ``accelerate launch`` tells the processes that it starts from our file."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_multi_gpu_env

    file = str(root / "configs/accelerate/fsdp.yaml")
    with mock.patch.dict(os.environ):
        args = launch_command_parser().parse_args(["--config_file", file, *arguments])
        args, _, _ = _validate_launch_command(args)
        found = prepare_multi_gpu_env(args)
    return {key: value for key, value in found.items() if os.environ.get(key) != value}


@contextmanager
def ray_cluster(nodes: int, cpus: int) -> Iterator[str]:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": cpus})
    try:
        for _ in range(nodes - 1):
            cluster.add_node(num_cpus=cpus)
        yield cluster.address
    finally:
        cluster.shutdown()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(done: Callable[[], object], seconds: float) -> None:
    give_up = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < give_up
        time.sleep(0.2)
