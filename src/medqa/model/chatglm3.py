"""ChatGLM3's network as transformers' native GLM: the same tensors under other names.

Source of the correspondence: ``modeling_chatglm.py`` of ChatGLM3-6B and
``transformers/models/glm/modeling_glm.py``; both rotate interleaved pairs of the first half of
each head, so no weight has to be permuted.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medqa.errors import CheckFailedError, CheckpointError
from medqa.model.original import OriginalConfig
from medqa.model.shards import Stored, load

if TYPE_CHECKING:
    import torch

INDEX = "model.safetensors.index.json"
# A written shard holds at most this much (or one tensor): it bounds the memory of an import.
MAX_SHARD_BYTES = 2_000_000_000
BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
OUTPUT = "transformer.output_layer.weight"
# Buffers that some checkpoints carry; the native model computes them.
IGNORED = frozenset({"transformer.rotary_pos_emb.inv_freq"})


@dataclass(frozen=True)
class Weight:
    """An original tensor and the native ones it becomes, as their rows from top to bottom."""

    original: str
    shape: tuple[int, ...]
    parts: Mapping[str, int]


def layout(config: OriginalConfig, *, tied: bool) -> list[Weight]:
    """Returns every tensor that a checkpoint of this config must have.

    Args:
        config: The original config.
        tied: The output layer is the embedding and has no tensor of its own.
    """
    hidden, vocab = config.hidden_size, config.padded_vocab_size
    weights = [
        _same("transformer.embedding.word_embeddings", "model.embed_tokens", vocab, hidden),
        _same("transformer.encoder.final_layernorm", "model.norm", hidden),
    ]
    for n in range(config.num_layers):
        weights += _layer(config, f"transformer.encoder.layers.{n}", f"model.layers.{n}")
    if not tied:
        weights.append(_same("transformer.output_layer", "lm_head", vocab, hidden))
    return weights


def _layer(config: OriginalConfig, old: str, new: str) -> list[Weight]:
    hidden, inner = config.hidden_size, config.ffn_hidden_size
    width = config.num_attention_heads * config.kv_channels
    rows = {"q": width, "k": config.groups * config.kv_channels}
    rows["v"] = rows["k"]
    fused = sum(rows.values())

    def qkv(kind: str, *shape: int) -> Weight:
        parts = {f"{new}.self_attn.{p}_proj.{kind}": n for p, n in rows.items()}
        return Weight(f"{old}.self_attention.query_key_value.{kind}", shape, parts)

    return [
        _same(f"{old}.input_layernorm", f"{new}.input_layernorm", hidden),
        qkv("weight", fused, hidden),
        *([qkv("bias", fused)] if config.add_qkv_bias else []),
        _same(f"{old}.self_attention.dense", f"{new}.self_attn.o_proj", hidden, width),
        _same(f"{old}.post_attention_layernorm", f"{new}.post_attention_layernorm", hidden),
        _same(f"{old}.mlp.dense_h_to_4h", f"{new}.mlp.gate_up_proj", 2 * inner, hidden),
        _same(f"{old}.mlp.dense_4h_to_h", f"{new}.mlp.down_proj", hidden, inner),
    ]


def _same(old: str, new: str, *shape: int) -> Weight:
    return Weight(f"{old}.weight", shape, {f"{new}.weight": shape[0]})


def is_tied(config: OriginalConfig, stored: Mapping[str, Stored]) -> bool:
    """Says whether the output layer is the embedding.

    The original code never ties: an output layer that is there counts, whatever the config says.
    """
    return config.tie_word_embeddings and OUTPUT not in stored


def require_fit(weights: Sequence[Weight], stored: Mapping[str, Stored]) -> None:
    """Raises CheckpointError unless `stored` is exactly `weights`: names, shapes, float types."""
    expected = {w.original: w.shape for w in weights}
    present = {name: s for name, s in stored.items() if name not in IGNORED}
    if missing := [name for name in expected if name not in present]:
        raise CheckpointError(f"the checkpoint lacks {_some(missing)}; is a shard missing?")
    if extra := sorted(present.keys() - expected):
        raise CheckpointError(
            f"the checkpoint has {_some(extra)}, which ChatGLM3 has not; is it another model, "
            "a quantised one, or one with a prefix encoder?"
        )
    for name, shape in expected.items():
        if present[name].shape != shape:
            raise CheckpointError(
                f"tensor {name} has shape {list(present[name].shape)}, but config.json asks for "
                f"{list(shape)}"
            )
        if present[name].dtype not in BYTES:
            raise CheckpointError(
                f"tensor {name} has dtype {present[name].dtype}, expected one of {', '.join(BYTES)}"
                "; import the full-precision model"
            )


def _some(names: Sequence[str]) -> str:
    tail = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{len(names)} tensor{'s' * (len(names) > 1)}: {', '.join(names[:3])}{tail}"


def size(weights: Sequence[Weight], stored: Mapping[str, Stored], dtype: str) -> int:
    """Returns the bytes of all weights once written as `dtype` (or ``keep``)."""
    return sum(_size(w, stored, dtype) for w in weights)


def write_weights(
    weights: Sequence[Weight],
    stored: Mapping[str, Stored],
    folder: Path,
    dtype: str,
    begin: Callable[[Path], None],
    advance: Callable[[int], None],
) -> None:
    """Writes native safetensors, shard by shard, with an index when there are several.

    A written shard never holds tensors of two source shards and never more than
    ``MAX_SHARD_BYTES``. Without a change of dtype the tensors go from the memory-mapped source
    straight to the file, so what is in memory is pages of one source shard.

    Args:
        weights: The tensors to write.
        stored: Where each original tensor is.
        folder: The folder to write into.
        dtype: ``keep``, ``float32``, ``float16`` or ``bfloat16``.
        begin: Called with a source shard before tensors are read from it.
        advance: Called with the bytes written since the last call.
    """
    from safetensors.torch import save_file

    groups = list(_groups(weights, stored, dtype))
    weight_map: dict[str, str] = {}
    for number, group in enumerate(groups, 1):
        name = "model.safetensors"
        if len(groups) > 1:
            name = f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        shard = stored[group[0].original].shard
        begin(shard)
        native = _native(group, shard, dtype)
        save_file(native, folder / name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(native, name)
        del native
        advance(size(group, stored, dtype))
    if len(groups) > 1:
        total = {"total_size": size(weights, stored, dtype)}
        index = {"metadata": total, "weight_map": dict(sorted(weight_map.items()))}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def _groups(
    weights: Sequence[Weight], stored: Mapping[str, Stored], dtype: str
) -> Iterator[list[Weight]]:
    by_shard: dict[Path, list[Weight]] = {}
    for weight in weights:
        by_shard.setdefault(stored[weight.original].shard, []).append(weight)
    for shard in sorted(by_shard):
        group: list[Weight] = []
        for weight in by_shard[shard]:
            if group and size([*group, weight], stored, dtype) > MAX_SHARD_BYTES:
                yield group
                group = []
            group.append(weight)
        yield group


def _native(group: Sequence[Weight], shard: Path, dtype: str) -> "dict[str, torch.Tensor]":
    import torch

    originals = load(shard, [w.original for w in group])
    native: dict[str, torch.Tensor] = {}
    for weight in group:
        tensor = _cast(weight.original, originals.pop(weight.original), dtype)
        rows: Any = list(weight.parts.values())
        native |= dict(zip(weight.parts, torch.split(tensor, rows), strict=True))
    return native


def _cast(name: str, tensor: "torch.Tensor", dtype: str) -> "torch.Tensor":
    import torch

    tensor = tensor.contiguous()
    if dtype == "keep":
        return tensor
    cast = tensor.to(getattr(torch, dtype))
    if dtype == "float16" and tensor.dtype != cast.dtype and not cast.isfinite().all():
        raise CheckFailedError(f"tensor {name} overflows float16; use --dtype bfloat16")
    return cast


def _size(weight: Weight, stored: Mapping[str, Stored], dtype: str) -> int:
    kind = stored[weight.original].dtype if dtype == "keep" else dtype
    return math.prod(weight.shape) * BYTES[kind]
