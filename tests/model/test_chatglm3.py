"""Weights and config: imports of shapes for which no figures exist, against the reference."""

import json

import numpy as np
import pytest
import torch

from medqa.model import chatglm3
from medqa.model.importer import import_model

from .original_chatglm import (
    BASE,
    logits,
    native_logits,
    random_weights,
    write_checkpoint,
)

IDS = [[5, 300, 17, 17, 499, 260, 33, 401, 8, 77]]

SHAPES = {
    "one layer": {"num_layers": 1},
    "28 layers": {"num_layers": 28},
    "heads wider than hidden": {"kv_channels": 24, "hidden_size": 40},
    "one group": {"multi_query_group_num": 1},
    "as many groups as heads": {"multi_query_attention": False, "num_attention_heads": 3},
    "six heads, three groups": {"num_attention_heads": 6, "multi_query_group_num": 3},
    "32k": {"rope_ratio": 50, "seq_length": 32768},
    "no bias": {"add_qkv_bias": False},
    "another epsilon": {"layernorm_epsilon": 0.1},
}


def imported(source, target, dtype="keep", origin="test"):
    return import_model(source, target, dtype=dtype, origin=origin)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_every_shape_computes_what_the_original_computes(tmp_path, small_tokenizer, shape):
    config, weights = write_checkpoint(tmp_path / "source", small_tokenizer, shape)
    imported(tmp_path / "source", tmp_path / "target")
    difference = np.abs(native_logits(tmp_path / "target", IDS) - logits(config, weights, IDS))
    assert difference.max() < 2e-5


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
@pytest.mark.parametrize("shards", [1, 3])
def test_every_file_layout_gives_the_same_model(tmp_path, small_tokenizer, kind, shards):
    config, weights = write_checkpoint(
        tmp_path / "source", small_tokenizer, kind=kind, shards=shards
    )
    imported(tmp_path / "source", tmp_path / "target")
    files = sorted(p.name for p in (tmp_path / "target").glob("*.safetensors"))
    assert files == (
        ["model.safetensors"]
        if shards == 1
        else [f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3)]
    )
    difference = np.abs(native_logits(tmp_path / "target", IDS) - logits(config, weights, IDS))
    assert difference.max() < 2e-5


def test_a_bin_from_before_torch_1_6(tmp_path, small_tokenizer):
    config, weights = write_checkpoint(tmp_path / "source", small_tokenizer, kind="bin")
    file = tmp_path / "source" / "pytorch_model.bin"
    torch.save(weights, file, _use_new_zipfile_serialization=False)
    imported(tmp_path / "source", tmp_path / "target")
    difference = np.abs(native_logits(tmp_path / "target", IDS) - logits(config, weights, IDS))
    assert difference.max() < 2e-5


def test_shards_are_split_where_they_would_grow_too_large(tmp_path, small_tokenizer, monkeypatch):
    config, weights = write_checkpoint(tmp_path / "source", small_tokenizer)
    monkeypatch.setattr(chatglm3, "MAX_SHARD_BYTES", 70_000)
    imported(tmp_path / "source", tmp_path / "target")
    sizes = [p.stat().st_size for p in (tmp_path / "target").glob("*.safetensors")]
    assert len(sizes) > 2
    assert max(sizes) < 75_000
    difference = np.abs(native_logits(tmp_path / "target", IDS) - logits(config, weights, IDS))
    assert difference.max() < 2e-5


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16])
def test_half_precision_is_kept_to_the_bit(tmp_path, small_tokenizer, stored):
    halves = {name: t.to(stored) for name, t in random_weights(BASE).items()}
    config, weights = write_checkpoint(tmp_path / "source", small_tokenizer, weights=halves)
    imported(tmp_path / "source", tmp_path / "target")
    kept = json.loads((tmp_path / "target" / "config.json").read_text(encoding="utf-8"))
    assert kept["dtype"] == str(stored).removeprefix("torch.")
    difference = np.abs(native_logits(tmp_path / "target", IDS) - logits(config, weights, IDS))
    assert difference.max() < 2e-5


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_a_chosen_dtype_rounds_each_weight_once(tmp_path, small_tokenizer, dtype):
    config, weights = write_checkpoint(tmp_path / "source", small_tokenizer)
    imported(tmp_path / "source", tmp_path / "target", dtype)
    kept = json.loads((tmp_path / "target" / "config.json").read_text(encoding="utf-8"))
    assert kept["dtype"] == dtype
    rounded = {name: t.to(getattr(torch, dtype)) for name, t in weights.items()}
    difference = np.abs(native_logits(tmp_path / "target", IDS) - logits(config, rounded, IDS))
    assert difference.max() < 2e-5


def test_an_output_layer_counts_even_where_the_config_says_tied(tmp_path, small_tokenizer):
    tied = {"tie_word_embeddings": True}
    config, weights = write_checkpoint(tmp_path / "source", small_tokenizer, tied)
    imported(tmp_path / "source", tmp_path / "target")
    difference = np.abs(native_logits(tmp_path / "target", IDS) - logits(config, weights, IDS))
    assert difference.max() < 2e-5


def test_a_tied_model_has_no_output_layer_of_its_own(tmp_path, small_tokenizer):
    weights = random_weights(BASE)
    del weights["transformer.output_layer.weight"]
    config, weights = write_checkpoint(
        tmp_path / "source", small_tokenizer, {"tie_word_embeddings": True}, weights
    )
    imported(tmp_path / "source", tmp_path / "target")
    difference = np.abs(native_logits(tmp_path / "target", IDS) - logits(config, weights, IDS))
    assert difference.max() < 1e-4  # the embedding as output layer makes logits ten times as large


def test_chatglm2_32k_divides_positions_where_chatglm3_32k_raises_the_base(
    tmp_path, small_tokenizer
):
    longer = {"rope_ratio": 16, "_name_or_path": "THUDM/chatglm2-6b-32k"}
    config, weights = write_checkpoint(tmp_path / "source", small_tokenizer, longer)
    imported(tmp_path / "source", tmp_path / "target")
    seen = native_logits(tmp_path / "target", IDS)
    plain = config | {"rope_ratio": 1}
    assert np.abs(seen - logits(plain, weights, IDS, interpolation=16)).max() < 2e-5
    assert np.abs(seen - logits(config, weights, IDS)).max() > 1e-3


def test_the_config_says_what_tools_ask_for_and_names_no_code(tmp_path, small_tokenizer):
    write_checkpoint(tmp_path / "source", small_tokenizer, {"rope_ratio": 50, "seq_length": 777})
    imported(tmp_path / "source", tmp_path / "target")
    config = json.loads((tmp_path / "target" / "config.json").read_text(encoding="utf-8"))
    expected = {
        "architectures": ["GlmForCausalLM"],
        "model_type": "glm",
        "head_dim": 8,
        "partial_rotary_factor": 0.5,
        "rope_theta": 500000.0,
        "attention_bias": True,
        "pad_token_id": 0,
        "eos_token_id": [2, 486, 488],
        "max_position_embeddings": 777,
        "tie_word_embeddings": False,
        "vocab_size": 512,
    }
    assert expected.items() <= config.items()
    assert config["rope_parameters"]["rope_theta"] == 500000.0
    generation = json.loads(
        (tmp_path / "target" / "generation_config.json").read_text(encoding="utf-8")
    )
    assert generation["eos_token_id"] == [2, 486, 488]
    assert generation["pad_token_id"] == 0
    for file in (tmp_path / "target").glob("*.json"):
        assert "auto_map" not in file.read_text(encoding="utf-8")
    assert not list((tmp_path / "target").glob("*.py"))


def test_the_streamed_check_computes_what_the_loaded_model_computes(tmp_path, small_tokenizer):
    from transformers import GlmConfig, GlmForCausalLM

    from medqa.model.check import _streamed_logits
    from medqa.model.fingerprint import weight_map

    write_checkpoint(tmp_path / "source", small_tokenizer, {"num_layers": 5}, shards=3)
    imported(tmp_path / "source", tmp_path / "target")
    with torch.device("meta"):
        empty = GlmForCausalLM(GlmConfig.from_pretrained(tmp_path / "target"))
    with torch.inference_mode():
        seen = _streamed_logits(empty, weight_map(tmp_path / "target"), torch.tensor(IDS))
    assert np.abs(seen.numpy() - native_logits(tmp_path / "target", IDS)).max() < 1e-5


def test_written_files_are_as_readable_as_any(tmp_path, small_tokenizer):
    write_checkpoint(tmp_path / "source", small_tokenizer)
    imported(tmp_path / "source", tmp_path / "target")
    modes = {p.stat().st_mode for p in (tmp_path / "target").iterdir()}
    assert len(modes) == 1
