"""ChatGLM's own checkpoint layout: its config, and which files hold its weights.

The layout is the one of ``modeling_chatglm.py`` in ChatGLM2-6B and ChatGLM3-6B; weights are
safetensors or ``torch.save`` files, in one file or in shards named by an index.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, PositiveFloat, PositiveInt

from medqa.config import validate
from medqa.errors import CheckpointError, MissingInputError
from medqa.paths import shown

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")


class OriginalConfig(BaseModel):
    """What decides the network in an original ``config.json``; flags default as they do there."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    num_layers: PositiveInt
    hidden_size: PositiveInt
    ffn_hidden_size: PositiveInt
    num_attention_heads: PositiveInt
    kv_channels: PositiveInt
    padded_vocab_size: PositiveInt
    seq_length: PositiveInt
    layernorm_epsilon: PositiveFloat = 1e-5
    rope_ratio: PositiveFloat = 1.0
    multi_query_attention: bool = False
    multi_query_group_num: PositiveInt = 1
    add_qkv_bias: bool = False
    add_bias_linear: bool = False
    rmsnorm: bool = True
    post_layer_norm: bool = True
    apply_residual_connection_post_layernorm: bool = False
    quantization_bit: int = 0
    tie_word_embeddings: bool = False

    @property
    def groups(self) -> int:
        """Key/value heads: as many as query heads without multi-query attention."""
        return (
            self.multi_query_group_num if self.multi_query_attention else self.num_attention_heads
        )


@dataclass(frozen=True)
class Original:
    """A checkpoint folder: its config, its index (if any) and its weight files."""

    folder: Path
    config: OriginalConfig
    index: Path | None
    shards: tuple[Path, ...]

    @property
    def files(self) -> tuple[Path, ...]:
        """Everything in the folder that decides the result of an import."""
        names = ("config.json", "tokenizer.model", "tokenizer_config.json", "golden.npz")
        code = ("tokenization_chatglm.py",)
        others = [p for n in (*names, *code) if (p := self.folder / n).is_file()]
        return (*others, *([self.index] if self.index else []), *self.shards)


def local_folder(source: str) -> Path | None:
    """Returns `source` as a folder, or None where it can only be a hub id such as ``org/name``.

    Raises:
        MissingInputError: It is neither; ``models/x`` beside an existing ``models`` is a folder
            that is not there yet, not a hub id.
    """
    folder = Path(source)
    if source and folder.is_dir():
        return folder
    hub_id = re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", source)
    if hub_id and not folder.parent.is_dir():
        return None
    raise MissingInputError(
        f"{source} is no folder; expected the folder of an original ChatGLM3 checkpoint, or a hub "
        "id such as zai-org/chatglm3-6b"
    )


def open_original(folder: Path) -> Original:
    """Reads config and index of a checkpoint; opens no weight file, imports no torch.

    Raises:
        MissingInputError: No config.json, no weights, no tokenizer.model, or a shard is missing.
        CheckpointError: Another kind of model, or one that native GLM cannot represent.
    """
    config = read_config(folder)
    tokenizer = folder / "tokenizer.model"
    if not tokenizer.is_file():
        raise MissingInputError(
            f"{shown(folder)} has no tokenizer.model (ChatGLM's SentencePiece model); "
            "copy it from the model's hub page"
        )
    index, shards = _weight_files(folder)
    return Original(folder, config, index, shards)


def read_config(folder: Path) -> OriginalConfig:
    """Returns the config of a ``chatglm`` checkpoint that native GLM can represent."""
    file = folder / "config.json"
    if not file.is_file():
        raise MissingInputError(
            f"{shown(folder)} has no config.json; expected a ChatGLM3 folder as the hub gives it"
        )
    values = read_json(file)
    _require_chatglm(file, values)
    known = {k: v for k, v in values.items() if v is not None}
    config = validate(known, OriginalConfig, shown(file))
    _require_representable(file, config)
    return config


def _weight_files(folder: Path) -> tuple[Path | None, tuple[Path, ...]]:
    for name in WEIGHT_FILES:
        index, single = folder / f"{name}.index.json", folder / name
        if index.is_file():
            return index, _shards(index)
        if single.is_file():
            return None, (single,)
    loose = sorted(p.name for p in folder.glob("*-of-*") if p.suffix in {".safetensors", ".bin"})
    seen = f"only {loose[0]} … without its index.json" if loose else "neither"
    raise MissingInputError(
        f"{shown(folder)} has no weights: expected {' or '.join(WEIGHT_FILES)} or an index of "
        f"shards, found {seen}; download the model again"
    )


def _shards(index: Path) -> tuple[Path, ...]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{shown(index)} has no weight_map; download it again")
    names = sorted(set(map(str, weight_map.values())))
    if strange := [n for n in names if Path(n).name != n]:
        raise CheckpointError(f"{shown(index)} names {strange[0]!r}, not a file beside it")
    if missing := [n for n in names if not (index.parent / n).is_file()]:
        raise MissingInputError(
            f"{index.name} names {len(names)} shards, {len(missing)} of them missing: "
            f"{', '.join(missing[:3])}; download the model again"
        )
    return tuple(index.parent / n for n in names)


def read_json(file: Path) -> dict[str, Any]:
    """Returns the JSON object in `file`, or raises CheckpointError."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{shown(file)} is not JSON ({error}); download it again") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{shown(file)} holds no JSON object; download it again")
    return values


def _require_chatglm(file: Path, values: dict[str, Any]) -> None:
    kind = values.get("model_type")
    if kind == "glm":
        raise CheckpointError(
            f"{shown(file)} is a native GLM model already: nothing to import, use it as it is"
        )
    if kind != "chatglm":
        raise CheckpointError(
            f"{shown(file)} has model_type {kind!r}, expected 'chatglm' (ChatGLM3-6B, -base, -32k, "
            "ChatGLM2-6B, CodeGeeX2); for example: zai-org/chatglm3-6b"
        )
    if "padded_vocab_size" not in values:
        raise CheckpointError(
            f"{shown(file)} has no padded_vocab_size: this is the first ChatGLM-6B, another "
            "network; use zai-org/chatglm3-6b"
        )


def _require_representable(file: Path, config: OriginalConfig) -> None:
    """Refuses what ``GlmForCausalLM`` has no place for, instead of computing something else."""
    problems = {
        f"quantization_bit {config.quantization_bit} (import the full-precision model and "
        "quantise when training)": config.quantization_bit != 0,
        "add_bias_linear true": config.add_bias_linear,
        "rmsnorm false": not config.rmsnorm,
        "post_layer_norm false": not config.post_layer_norm,
        "apply_residual_connection_post_layernorm true": (
            config.apply_residual_connection_post_layernorm
        ),
        f"{config.num_attention_heads} heads, not a multiple of {config.groups} groups": (
            config.num_attention_heads % config.groups != 0
        ),
        f"kv_channels {config.kv_channels}, not a multiple of 4": config.kv_channels % 4 != 0,
    }
    if found := [text for text, wrong in problems.items() if wrong]:
        raise CheckpointError(
            f"{shown(file)} asks for what native GLM cannot represent: {'; '.join(found)}"
        )
