"""A native GLM written in ChatGLM's original layout: what import undoes."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from transformers import GlmForCausalLM


def write_original(model: "GlmForCausalLM", folder: Path) -> list[Path]:
    """Writes config, weights under their original names and tokenizer config into `folder`.

    Returns:
        The three files.
    """
    from safetensors.torch import save_file

    tensors = original_tensors(dict(model.state_dict()))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config: Any = model.config
    settings = {
        "model_type": "chatglm",
        "architectures": ["ChatGLMModel"],
        "num_layers": config.num_hidden_layers,
        "padded_vocab_size": config.vocab_size,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "ffn_hidden_size": config.intermediate_size,
        "kv_channels": config.head_dim,
        "num_attention_heads": config.num_attention_heads,
        "multi_query_attention": True,
        "multi_query_group_num": config.num_key_value_heads,
        "seq_length": config.max_position_embeddings,
        "layernorm_epsilon": config.rms_norm_eps,
        "rmsnorm": True,
        "post_layer_norm": True,
        "apply_residual_connection_post_layernorm": False,
        "add_bias_linear": False,
        "add_qkv_bias": True,
        "original_rope": True,
        "tie_word_embeddings": False,
        "eos_token_id": config.eos_token_id,
        "pad_token_id": config.pad_token_id,
        "torch_dtype": "float32",
    }
    names = {"tokenizer_class": "ChatGLMTokenizer", "name_or_path": "medqa/chatglm3-tiny"}
    _json(folder / "config.json", settings)
    _json(folder / "tokenizer_config.json", names)
    return [folder / n for n in ("config.json", "model.safetensors", "tokenizer_config.json")]


def original_tensors(native: dict[str, "torch.Tensor"]) -> dict[str, "torch.Tensor"]:
    """Renames native GLM weights to ChatGLM's and fuses q, k and v: what import undoes."""
    import torch

    tops = {
        "model.embed_tokens.weight": "transformer.embedding.word_embeddings.weight",
        "model.norm.weight": "transformer.encoder.final_layernorm.weight",
        "lm_head.weight": "transformer.output_layer.weight",
    }
    inner = {
        "self_attn.o_proj": "self_attention.dense",
        "mlp.gate_up_proj": "mlp.dense_h_to_4h",
        "mlp.down_proj": "mlp.dense_4h_to_h",
    }
    original = {}
    for name, tensor in native.items():
        if name in tops:
            original[tops[name]] = tensor
            continue
        layer, _, rest = name.removeprefix("model.layers.").partition(".")
        place = f"transformer.encoder.layers.{layer}."
        module, _, kind = rest.rpartition(".")
        if module == "self_attn.q_proj":
            parts = [native[name.replace("q_proj", f"{p}_proj")] for p in "qkv"]
            original[f"{place}self_attention.query_key_value.{kind}"] = torch.cat(parts)
        elif module not in ("self_attn.k_proj", "self_attn.v_proj"):
            original[f"{place}{inner.get(module, module)}.{kind}"] = tensor
    return original


def _json(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
