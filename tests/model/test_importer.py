"""The import step as users run it, and everything that can be wrong with a source or a target."""

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from medqa.errors import (
    CheckFailedError,
    CheckpointError,
    ConfigError,
    MedqaError,
    MissingInputError,
    TargetError,
)
from medqa.model import importer
from medqa.model.importer import import_model
from medqa.model.original import local_folder

from .original_chatglm import BASE, random_weights, write_checkpoint

QKV = "transformer.encoder.layers.1.self_attention.query_key_value.weight"


def script(root, *arguments):
    command = [sys.executable, "scripts/import_model.py", *map(str, arguments)]
    return subprocess.run(command, cwd=root, capture_output=True, encoding="utf-8", check=False)


def edit(folder, **values):
    file = folder / "config.json"
    config = json.loads(file.read_text(encoding="utf-8")) | values
    file.write_text(json.dumps({k: v for k, v in config.items() if v != "absent"}), "utf-8")


@pytest.fixture
def source(tmp_path, small_tokenizer):
    write_checkpoint(tmp_path / "source", small_tokenizer)
    return tmp_path / "source"


@pytest.fixture
def sharded(tmp_path, small_tokenizer):
    write_checkpoint(tmp_path / "sharded", small_tokenizer, shards=3)
    return tmp_path / "sharded"


def refused(source, target, error, pattern):
    """The import fails with one line that matches, and leaves nothing."""
    before = sorted(p.name for p in target.parent.iterdir())
    with pytest.raises(MedqaError) as caught:
        import_model(source, target, dtype="keep", origin="test")
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)
    assert re.search(pattern, str(caught.value)), str(caught.value)
    assert sorted(p.name for p in target.parent.iterdir()) == before


def test_the_original_codes_figures_are_met(root, golden, tmp_path):
    done = script(root, golden, tmp_path / "target")
    assert done.returncode == 0, done.stderr
    figures = re.search(
        r"golden: max logit difference (\S+) \(float32\), greedy 12 of 12 equal, "
        r"loss difference (\S+)",
        done.stdout,
    )
    assert float(figures[1]) <= 1e-5
    assert float(figures[2]) <= 1e-5
    assert "all finite" in done.stdout

    again = time.monotonic()
    done = script(root, golden, tmp_path / "target")
    assert time.monotonic() - again < 5
    assert done.stdout == f"up to date: {tmp_path / 'target'}\n"


def test_the_record_says_what_was_read_written_and_checked(golden, tmp_path):
    import_model(golden, tmp_path / "target", dtype="keep", origin="zai-org/x")
    record = json.loads((tmp_path / "target" / "medqa_import.json").read_text(encoding="utf-8"))
    assert record["step"] == "import"
    assert record["origin"] == "zai-org/x"
    assert record["config"]["family"] == "chatglm3"
    names = {"config.json", "golden.npz", "model.safetensors", "tokenizer.model"}
    assert record["inputs"].keys() == record["stamps"].keys() == names | {"tokenizer_config.json"}
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in record["inputs"].values())
    assert [line.split(":")[0] for line in record["checks"]] == ["tokenizer", "forward", "golden"]
    written = {p.name for p in (tmp_path / "target").iterdir()} - {"medqa_import.json"}
    assert record["outputs"].keys() == written


@pytest.mark.parametrize("key", ["logits", "greedy", "loss"])
def test_a_figure_that_is_not_met_leaves_nothing(golden, tmp_path, key):
    shutil.copytree(golden, tmp_path / "source")
    with np.load(golden / "golden.npz") as file:
        figures = dict(file)
    figures[key] = figures[key] + (1 if key == "greedy" else 1e-4)
    np.savez(tmp_path / "source" / "golden.npz", **figures)
    refused(tmp_path / "source", tmp_path / "target", CheckFailedError, "golden: .* expected")


def test_padded_positions_do_not_count(golden, tmp_path):
    shutil.copytree(golden, tmp_path / "source")
    with np.load(golden / "golden.npz") as file:
        figures = dict(file)
    assert (figures["attention_mask"] == 0).any()
    figures["logits"][figures["attention_mask"] == 0] = 99
    np.savez(tmp_path / "source" / "golden.npz", **figures)
    import_model(tmp_path / "source", tmp_path / "target", dtype="keep", origin="test")


def test_rounded_weights_are_compared_and_not_judged(golden, tmp_path):
    done = import_model(golden, tmp_path / "target", dtype="bfloat16", origin="test")
    assert "not judged" in " ".join(done.lines)


def test_figures_that_cannot_be_read(golden, tmp_path):
    shutil.copytree(golden, tmp_path / "source")
    (tmp_path / "source" / "golden.npz").write_bytes(b"PK\x03\x04 broken")
    refused(tmp_path / "source", tmp_path / "target", CheckpointError, r"golden\.npz cannot be")


def test_up_to_date_follows_content_and_settings(source, tmp_path):
    target = tmp_path / "target"
    assert not import_model(source, target, dtype="keep", origin="test").current
    assert import_model(source, target, dtype="keep", origin="test").current
    # A copy has other times and the same content.
    os.utime(source / "model.safetensors", (1, 1))
    assert import_model(source, target, dtype="keep", origin="test").current
    with pytest.raises(TargetError, match="--overwrite"):
        import_model(source, target, dtype="bfloat16", origin="test")
    done = import_model(source, target, dtype="bfloat16", origin="test", overwrite=True)
    assert not done.current
    # Same size, another value.
    weights = load_file(source / "model.safetensors")
    weights[QKV][0, 0] += 1
    save_file(weights, source / "model.safetensors")
    with pytest.raises(TargetError, match="--overwrite"):
        import_model(source, target, dtype="bfloat16", origin="test")


def test_a_result_that_lost_a_file_is_not_up_to_date(source, tmp_path):
    import_model(source, tmp_path / "target", dtype="keep", origin="test")
    (tmp_path / "target" / "model.safetensors").unlink()
    with pytest.raises(TargetError):
        import_model(source, tmp_path / "target", dtype="keep", origin="test")


@pytest.mark.parametrize(
    ("values", "pattern"),
    [
        ({"model_type": "llama"}, r"model_type 'llama', expected 'chatglm'.*zai-org/chatglm3-6b"),
        ({"model_type": "glm"}, "native GLM model already"),
        ({"padded_vocab_size": "absent"}, "first ChatGLM-6B"),
        ({"quantization_bit": 4}, "quantization_bit 4"),
        ({"add_bias_linear": True}, "add_bias_linear true"),
        ({"rmsnorm": False, "post_layer_norm": False}, "rmsnorm false; post_layer_norm false"),
        ({"apply_residual_connection_post_layernorm": True}, "apply_residual_connection"),
        ({"multi_query_group_num": 3}, "4 heads, not a multiple of 3 groups"),
        ({"kv_channels": 6}, "kv_channels 6"),
    ],
)
def test_another_model_or_one_that_glm_cannot_be(source, tmp_path, values, pattern):
    edit(source, **values)
    refused(source, tmp_path / "target", CheckpointError, pattern)


def test_a_config_with_wrong_values_names_them_all(source, tmp_path):
    edit(source, num_layers=0, hidden_size="absent")
    refused(source, tmp_path / "target", ConfigError, "(?=.*num_layers)(?=.*'hidden_size')")


@pytest.mark.parametrize("name", ["config.json", "tokenizer.model", "model.safetensors"])
def test_a_missing_file(source, tmp_path, name):
    (source / name).unlink()
    refused(source, tmp_path / "target", MissingInputError, re.escape(name))


def test_a_missing_shard_and_a_missing_index(sharded, tmp_path):
    (sharded / "model-00002-of-00003.safetensors").unlink()
    refused(sharded, tmp_path / "t", MissingInputError, "3 shards, 1 of them missing: model-00002")
    (sharded / "model.safetensors.index.json").unlink()
    refused(sharded, tmp_path / "t", MissingInputError, r"without its index\.json")


def test_an_index_that_points_elsewhere(sharded, tmp_path):
    index = sharded / "model.safetensors.index.json"
    values = json.loads(index.read_text(encoding="utf-8"))
    values["weight_map"][QKV] = "../source/model.safetensors"
    index.write_text(json.dumps(values), encoding="utf-8")
    refused(sharded, tmp_path / "target", CheckpointError, "not a file beside it")


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
@pytest.mark.parametrize("left", [0, 7, 0.5, 0.999])
def test_a_truncated_file(tmp_path, small_tokenizer, kind, left):
    write_checkpoint(tmp_path / "source", small_tokenizer, kind=kind)
    (file,) = (tmp_path / "source").glob(f"*.{kind}")
    os.truncate(file, left if left > 1 else int(file.stat().st_size * left))
    refused(tmp_path / "source", tmp_path / "target", CheckpointError, "truncated or damaged|refus")


def test_a_git_lfs_pointer(source, tmp_path):
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"
    for name in ("tokenizer.model", "model.safetensors"):
        (source / name).write_text(pointer, encoding="utf-8")
        refused(source, tmp_path / "target", CheckpointError, f"{name} is .*git lfs pull")


class Planted:
    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.mkdir, (self.file,)


def test_a_bin_with_code_in_it_is_refused_and_not_run(tmp_path, small_tokenizer):
    write_checkpoint(tmp_path / "source", small_tokenizer, kind="bin")
    file = tmp_path / "source" / "pytorch_model.bin"
    torch.save({"x": Planted(str(tmp_path / "ran"))}, file)
    refused(tmp_path / "source", tmp_path / "target", CheckpointError, "could run code")
    file.write_bytes(pickle.dumps(Planted(str(tmp_path / "ran")), protocol=2))
    refused(tmp_path / "source", tmp_path / "target", CheckpointError, "could run code|damaged")
    assert not (tmp_path / "ran").exists()


def test_tensors_that_do_not_fit_the_config(source, tmp_path):
    weights = random_weights(BASE)

    def save(changed):
        save_file(changed, source / "model.safetensors")

    save(weights | {QKV: weights[QKV][:-8].clone()})
    pattern = rf"tensor {QKV} has shape \[56, 32\], but config.json asks for \[64, 32\]"
    refused(source, tmp_path / "target", CheckpointError, pattern)
    save({name: t for name, t in weights.items() if name != QKV})
    refused(source, tmp_path / "target", CheckpointError, f"lacks 1 tensor: {QKV}")
    save(weights | {"transformer.prefix_encoder.embedding.weight": torch.ones(2, 2)})
    refused(source, tmp_path / "target", CheckpointError, "has 1 tensor: transformer.prefix")
    save(weights | {QKV: weights[QKV].to(torch.int8)})
    refused(source, tmp_path / "target", CheckpointError, f"{QKV} has dtype I8")


def test_a_tensor_in_two_shards(sharded, tmp_path):
    first, second = sorted(sharded.glob("*.safetensors"))[:2]
    save_file(load_file(first) | load_file(second), first)
    refused(sharded, tmp_path / "target", CheckpointError, "stands in model-00001.*expected each")


def test_weights_that_compute_nan_or_overflow(source, tmp_path):
    weights = random_weights(BASE)
    name = "transformer.encoder.layers.1.mlp.dense_4h_to_h.weight"
    save_file(weights | {name: weights[name] * float("nan")}, source / "model.safetensors")
    refused(source, tmp_path / "target", CheckFailedError, "layer 1 computes inf or NaN")
    save_file(weights | {name: weights[name] + 1e6}, source / "model.safetensors")
    with pytest.raises(CheckFailedError, match="overflows float16; use --dtype bfloat16"):
        import_model(source, tmp_path / "target", dtype="float16", origin="test")
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


def test_targets_that_are_taken_or_are_the_source(source, tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").write_text("keep me", encoding="utf-8")
    refused(source, tmp_path / "taken", TargetError, "not empty")
    assert (tmp_path / "taken" / "mine.txt").exists()
    for target in (source, source.parent):
        with pytest.raises(TargetError, match="is or holds the source"):
            import_model(source, target, dtype="keep", origin="test", overwrite=True)
    assert (source / "model.safetensors").exists()


def test_a_disk_without_room(source, tmp_path, monkeypatch):
    free = shutil._ntuple_diskusage(10, 9, 1)
    monkeypatch.setattr(importer.shutil, "disk_usage", lambda place: free)
    refused(source, tmp_path / "target", TargetError, "needs 0.0 GB, but .* has 0.0 GB free")


def test_a_killed_import_leaves_nothing_that_is_trusted(root, tmp_path, small_tokenizer):
    write_checkpoint(tmp_path / "source", small_tokenizer)
    command = [sys.executable, "scripts/import_model.py", tmp_path / "source", tmp_path / "target"]
    running = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    partial = tmp_path / ".target.partial"
    while not (partial / "model.safetensors").exists() and running.poll() is None:
        time.sleep(0.002)
    running.kill()
    running.communicate()
    assert partial.is_dir()
    assert not (tmp_path / "target").exists()
    done = import_model(tmp_path / "source", tmp_path / "target", dtype="keep", origin="test")
    assert not done.current
    assert not partial.exists()


def test_what_a_source_can_be(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "here").mkdir(parents=True)
    assert local_folder("models/here") is not None
    assert local_folder("zai-org/chatglm3-6b") is None
    for nothing in ("models/absent", "../x/y", "chatglm3-6b", "a/b/c", "", "/a/b"):
        with pytest.raises(MissingInputError, match="is no folder; expected"):
            local_folder(nothing)


def test_a_hub_id_is_downloaded_first(golden, tmp_path, monkeypatch, root):
    import importlib.util

    from medqa import hub

    asked = []
    monkeypatch.setattr(hub, "download_model", lambda *given: asked.append(given) or golden)
    spec = importlib.util.spec_from_file_location("import_model", root / "scripts/import_model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(["zai-org/chatglm3-6b", str(tmp_path / "target"), "--hub", "modelscope"])
    assert asked == [("zai-org/chatglm3-6b", "modelscope")]
    record = json.loads((tmp_path / "target" / "medqa_import.json").read_text(encoding="utf-8"))
    assert record["origin"] == "zai-org/chatglm3-6b"


def test_wrong_input_is_one_line_and_exit_code_2(root, tmp_path):
    done = script(root, tmp_path / "nothing", tmp_path / "target")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert not done.stdout
