"""ChatGLM's own checkpoint layout: its config, its shards, and reading tensors out of them.

The layout is the one of ``modeling_chatglm.py`` in ChatGLM2-6B and ChatGLM3-6B; weights are
safetensors or ``torch.save`` files, in one file or in shards named by an index.
"""

import json
import pickle
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, PositiveFloat, PositiveInt

from medqa.config import validate
from medqa.errors import CheckpointError, MissingInputError
from medqa.paths import shown

if TYPE_CHECKING:
    import torch

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
class Stored:
    """A tensor as its file's header describes it; `dtype` is torch's name, ``float16``."""

    shard: Path
    shape: tuple[int, ...]
    dtype: str


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
    values = _read_json(file)
    _require_chatglm(file, values)
    known = {k: v for k, v in values.items() if v is not None}
    config = validate(known, OriginalConfig, shown(file))
    _require_representable(file, config)
    return config


def describe(shards: Iterable[Path]) -> dict[str, Stored]:
    """Reads the headers of all shards.

    Raises:
        CheckpointError: A file is truncated or damaged, or a tensor stands in two of them.
    """
    found: dict[str, Stored] = {}
    for shard in shards:
        for name, stored in _header(shard).items():
            if name in found:
                raise CheckpointError(
                    f"tensor {name} stands in {found[name].shard.name} and in {shard.name}; "
                    "expected each once"
                )
            found[name] = stored
    return found


def load(shard: Path, names: Iterable[str]) -> "dict[str, torch.Tensor]":
    """Returns the named tensors of one shard, memory-mapped where the file allows it.

    The file is opened anew on each call: once the tensors are dropped its pages leave the
    process, so a 12 GB file costs no more memory than what is asked for at a time.
    """
    with _readable(shard):
        if shard.suffix == ".safetensors":
            from safetensors import safe_open

            with safe_open(shard, framework="pt") as file:
                return {name: file.get_tensor(name) for name in names}
        state = _unpickle(shard)
        return {name: state[name] for name in names}


def _header(shard: Path) -> dict[str, Stored]:
    with _readable(shard):
        if shard.suffix == ".safetensors":
            return _safetensors_header(shard)
        return {
            name: Stored(shard, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
            for name, tensor in _unpickle(shard).items()
        }


def _safetensors_header(shard: Path) -> dict[str, Stored]:
    from safetensors import safe_open

    found = {}
    with safe_open(shard, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 (not a dict)
            part = file.get_slice(name)
            kind = part.get_dtype()
            dtype = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}.get(kind, kind)
            found[name] = Stored(shard, tuple(part.get_shape()), dtype)
    return found


def _unpickle(shard: Path) -> "dict[str, torch.Tensor]":
    """Reads a ``torch.save`` file with ``weights_only``: no code in it can run."""
    import torch

    with shard.open("rb") as file:
        # Files from before torch 1.6 are no zip archives and cannot be memory-mapped.
        mapped = file.read(2) == b"PK"
    state = torch.load(shard, map_location="cpu", weights_only=True, mmap=mapped)
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise CheckpointError(f"{shown(shard)} holds more than named tensors; expected only those")
    return state


@contextmanager
def _readable(shard: Path) -> Iterator[None]:
    """Turns what the libraries raise on a bad file into one line that names the file."""
    from safetensors import SafetensorError

    try:
        yield
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"{shown(shard)} is damaged or holds more than tensors; refused, "
            "because loading it could run code; download it again or use safetensors"
        ) from None
    except (SafetensorError, RuntimeError, EOFError, OSError) as error:
        if is_lfs_pointer(shard):
            raise CheckpointError(
                f"{shown(shard)} is a Git LFS pointer, not the weights; run: git lfs pull"
            ) from None
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{shown(shard)} is truncated or damaged ({shard.stat().st_size:,} bytes: {reason}); "
            "download it again"
        ) from None


def is_lfs_pointer(file: Path) -> bool:
    """Says whether `file` is what git leaves in place of a large file it has not fetched."""
    with file.open("rb") as opened:
        return opened.read(42).startswith(b"version https://git-lfs.github.com/spec/")


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
    weight_map = _read_json(index).get("weight_map")
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


def _read_json(file: Path) -> dict[str, Any]:
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
