"""ChatGLM's original network once more, in numpy and float64, and checkpoints in its layout.

Written from the description of the architecture (fused query/key/value, interleaved rotary on the
first half of each head, SwiGLU with the gate first), independently of medqa and of transformers.
`test_reference.py` holds it against the figures of the original code, so that it can judge shapes
for which there are no figures.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import torch

BASE = {
    "architectures": ["ChatGLMForConditionalGeneration"],
    "auto_map": {"AutoModel": "modeling_chatglm.ChatGLMForConditionalGeneration"},
    "model_type": "chatglm",
    "add_bias_linear": False,
    "add_qkv_bias": True,
    "hidden_size": 32,
    "ffn_hidden_size": 48,
    "kv_channels": 8,
    "layernorm_epsilon": 1e-05,
    "multi_query_attention": True,
    "multi_query_group_num": 2,
    "num_attention_heads": 4,
    "num_layers": 2,
    "padded_vocab_size": 512,
    "post_layer_norm": True,
    "quantization_bit": 0,
    "rmsnorm": True,
    "seq_length": 128,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
}


def groups(config):
    if config["multi_query_attention"]:
        return config["multi_query_group_num"]
    return config["num_attention_heads"]


def random_weights(config, seed=0):
    """Every tensor of the original layout, float32, large enough that each one matters."""
    hidden, inner, vocab = (
        config["hidden_size"],
        config["ffn_hidden_size"],
        config["padded_vocab_size"],
    )
    width = config["num_attention_heads"] * config["kv_channels"]
    fused = width + 2 * groups(config) * config["kv_channels"]
    shapes = {
        "transformer.embedding.word_embeddings.weight": (vocab, hidden),
        "transformer.encoder.final_layernorm.weight": (hidden,),
        "transformer.output_layer.weight": (vocab, hidden),
    }
    for n in range(config["num_layers"]):
        at = f"transformer.encoder.layers.{n}."
        shapes |= {
            at + "input_layernorm.weight": (hidden,),
            at + "post_attention_layernorm.weight": (hidden,),
            at + "self_attention.query_key_value.weight": (fused, hidden),
            at + "self_attention.dense.weight": (hidden, width),
            at + "mlp.dense_h_to_4h.weight": (2 * inner, hidden),
            at + "mlp.dense_4h_to_h.weight": (hidden, inner),
        }
        if config["add_qkv_bias"]:
            shapes[at + "self_attention.query_key_value.bias"] = (fused,)
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in shapes.items():
        scale = 1.0 if len(shape) == 1 or "embedding" in name else shape[-1] ** -0.5
        weights[name] = torch.randn(shape, generator=generator) * scale
    return weights


def write_checkpoint(folder, tokenizer, config=None, weights=None, *, kind="safetensors", shards=1):
    """Writes a checkpoint as the hub has it; returns its config and weights."""
    from safetensors.torch import save_file

    config = BASE | (config or {})
    weights = random_weights(config) if weights is None else weights
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    shutil.copy(tokenizer, folder / "tokenizer.model")
    inv_freq = torch.ones(config["kv_channels"] // 4)
    stored = weights | {"transformer.rotary_pos_emb.inv_freq": inv_freq}
    stem, suffix, save = {
        "safetensors": ("model", "safetensors", save_file),
        "bin": ("pytorch_model", "bin", torch.save),
    }[kind]
    if shards == 1:
        save(stored, folder / f"{stem}.{suffix}")
        return config, weights
    weight_map = {}
    names = list(stored)
    for n in range(shards):
        file = f"{stem}-{n + 1:05d}-of-{shards:05d}.{suffix}"
        part = {name: stored[name] for name in names[n::shards]}
        save(part, folder / file)
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps(index), encoding="utf-8")
    return config, weights


def logits(config, weights, ids, *, positions=None, mask=None, interpolation=1.0):
    """Returns the logits (rows, T, vocab) in float64.

    ``rope_ratio`` multiplies the rotary base, `interpolation` divides the positions.
    """
    w = {name: t.double().numpy() for name, t in weights.items()}
    ids = np.asarray(ids)
    rows, length = ids.shape
    positions = np.broadcast_to(np.arange(length), ids.shape) if positions is None else positions
    mask = np.ones_like(ids) if mask is None else np.asarray(mask)
    heads, size = config["num_attention_heads"], config["kv_channels"]
    half = size // 2
    base = 10000.0 * config.get("rope_ratio", 1.0)
    theta = base ** -(np.arange(0, half, 2) / half)
    angle = np.asarray(positions)[:, :, None] / interpolation * theta
    cos, sin = np.cos(angle)[:, :, None], np.sin(angle)[:, :, None]
    seen = (np.tril(np.ones((length, length))) * mask[:, None, :])[:, None].astype(bool)

    def norm(x, weight):
        mean = (x**2).mean(-1, keepdims=True)
        return x / np.sqrt(mean + config["layernorm_epsilon"]) * weight

    def rotate(x):
        first, second = x[..., 0:half:2], x[..., 1:half:2]
        out = x.copy()
        out[..., 0:half:2] = first * cos - second * sin
        out[..., 1:half:2] = second * cos + first * sin
        return out

    x = w["transformer.embedding.word_embeddings.weight"][ids]
    for n in range(config["num_layers"]):
        at = f"transformer.encoder.layers.{n}."
        fused = norm(x, w[at + "input_layernorm.weight"])
        fused = fused @ w[at + "self_attention.query_key_value.weight"].T
        fused = fused + w.get(at + "self_attention.query_key_value.bias", 0.0)
        ends = np.cumsum([heads * size, groups(config) * size])
        q, k, v = (part.reshape(rows, length, -1, size) for part in np.split(fused, ends, axis=-1))
        q, k = rotate(q), rotate(k)
        k, v = (np.repeat(part, heads // groups(config), axis=2) for part in (k, v))
        scores = np.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(size)
        scores = np.where(seen, scores, -1e30)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        scores /= scores.sum(-1, keepdims=True)
        mixed = np.einsum("bhqk,bkhd->bqhd", scores, v).reshape(rows, length, -1)
        x = x + mixed @ w[at + "self_attention.dense.weight"].T
        inner = norm(x, w[at + "post_attention_layernorm.weight"])
        gate, up = np.split(inner @ w[at + "mlp.dense_h_to_4h.weight"].T, 2, axis=-1)
        x = x + (gate / (1 + np.exp(-gate)) * up) @ w[at + "mlp.dense_4h_to_h.weight"].T
    x = norm(x, w["transformer.encoder.final_layernorm.weight"])
    head = w.get(
        "transformer.output_layer.weight", w["transformer.embedding.word_embeddings.weight"]
    )
    return x @ head.T


def native_logits(folder: Path, ids):
    """The logits of an imported model, loaded as anyone would load it, in float32."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        return model(torch.as_tensor(np.asarray(ids))).logits.numpy()
