"""The native model's ``config.json`` and ``generation_config.json``."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medqa.model.original import OriginalConfig

ROPE_BASE = 10000.0


def write_config(
    config: OriginalConfig,
    folder: Path,
    *,
    dtype: str,
    stop_ids: Sequence[int],
    tied: bool,
    interpolated: bool,
) -> None:
    """Writes ``config.json`` and ``generation_config.json``; neither names any code to load.

    Args:
        config: The original config.
        folder: The folder to write into.
        dtype: The dtype that loaders use by default.
        stop_ids: The ids at which an answer ends; the first is ``</s>``.
        tied: The output layer is the embedding.
        interpolated: ``rope_ratio`` divides the positions (ChatGLM2-6B-32k) instead of
            multiplying the rotary base (ChatGLM3-6B-32k).
    """
    from transformers import GenerationConfig, GlmConfig

    rope = _rope(config.rope_ratio, interpolated=interpolated)
    GlmConfig(
        architectures=["GlmForCausalLM"],
        vocab_size=config.padded_vocab_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.ffn_hidden_size,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_attention_heads,
        num_key_value_heads=config.groups,
        head_dim=config.kv_channels,
        attention_bias=config.add_qkv_bias,
        rms_norm_eps=config.layernorm_epsilon,
        max_position_embeddings=config.seq_length,
        rope_parameters=rope,
        tie_word_embeddings=tied,
        pad_token_id=0,
        eos_token_id=list(stop_ids),
        dtype=dtype,
    ).save_pretrained(folder)
    file = folder / "config.json"
    values = json.loads(file.read_text(encoding="utf-8"))
    # Tools built on transformers 4 look for it here and would otherwise assume 10000.
    values["rope_theta"] = rope["rope_theta"]
    file.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    generation: Any = GenerationConfig(eos_token_id=list(stop_ids), pad_token_id=0)  # type: ignore[no-untyped-call]
    generation.save_pretrained(folder)


def _rope(ratio: float, *, interpolated: bool) -> dict[str, Any]:
    rope = {"rope_type": "default", "rope_theta": ROPE_BASE, "partial_rotary_factor": 0.5}
    if interpolated and ratio != 1:
        return rope | {"rope_type": "linear", "factor": ratio}
    return rope | {"rope_theta": ROPE_BASE * ratio}
