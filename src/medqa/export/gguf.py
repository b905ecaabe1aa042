"""An exported model as one GGUF file, which llama.cpp, Ollama and their like run without Python.

llama.cpp has the network under the name ``chatglm`` (its ``src/models/chatglm.cpp``): q, k and v in
one matrix, the first half of each head rotated in interleaved pairs, gate and up in one matrix, as
in the original. Its own converter takes a native GLM's tensors, and not its tokenizer or the base
of its rotation (``conversion/chatglm.py``).
"""

import importlib.metadata
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from medqa import provenance
from medqa.errors import CheckFailedError, CheckpointError, ConfigError
from medqa.export.derived import accompany
from medqa.export.gguf_vocab import RENAMED, Vocabulary, vocabulary
from medqa.export.modelfile import modelfile
from medqa.files import atomic_folder, require_empty, sha256
from medqa.model.fingerprint import read, weight_map
from medqa.paths import shown
from medqa.progress import progress

if TYPE_CHECKING:
    import gguf
    import numpy as np

Kind = Literal["f32", "f16", "bf16", "q8_0"]
RECORD = "medqa_gguf.json"

ROUNDING: Mapping[Kind, float] = {"f32": 0.0, "f16": 1e-3, "bf16": 4e-3, "q8_0": 2.3e-2}
"""The most that a tensor may lose, root mean square, as a share of its own: half a step of each
format; of q8_0 a step is a 127th of the largest of 32 weights, at worst the only one."""

_WARNING = {
    "zh": "这些程序把问题中的 <|user|> 等字样当作控制符：面向他人提供服务时须先过滤。",
    "en": "These programs take <|user|> and its like in a question for control tokens: whoever "
    "serves others must take them out before.",
}


_ROWS = 1024
"""Rows of a matrix that are compared together; the largest in float32 are 56 MB."""


@dataclass(frozen=True)
class Entry:
    """A tensor of the file and the native ones of which it is made, one below the other."""

    name: str
    sources: tuple[str, ...]


def convert(source: Path, target: Path, kind: Kind, *, overwrite: bool = False) -> Path:
    """Writes a GGUF file, a Modelfile for it and the record, tensor by tensor.

    Args:
        source: A native checkpoint: what `merge.export` wrote.
        target: The folder to write; the file in it is named after it.
        kind: How matrices are stored; vectors stay float32.
        overwrite: Replace what was made from other inputs.

    Returns:
        The file.

    Raises:
        ConfigError: The package gguf is not installed.
        CheckpointError: `source` is not what llama.cpp's graph computes.
        TargetError: `target` holds something made from other inputs.
        CheckFailedError: What was written does not read as what was to be written.
    """
    try:
        import gguf  # noqa: F401
    except ImportError:
        raise ConfigError(
            "gguf", ["the package gguf is not installed; run: pip install '.[gguf]'"]
        ) from None
    file = target / f"{target.name}.gguf"
    inputs, settings = provenance.model_digest(source), {"kind": kind}
    record = target / RECORD
    if provenance.is_current(record, step="gguf", inputs=inputs, config=settings):
        sys.stdout.write(f"up to date: {shown(target)}\n")
        return file
    if not overwrite:
        require_empty(target)
    config = _config(source)
    vocab = vocabulary(source, config["vocab_size"])
    entries = list(_entries(config, weight_map(source)))
    with atomic_folder(target, overwrite=overwrite) as staging:
        made = staging / file.name
        lost = _write(source, made, kind, entries, config, vocab)
        text = _modelfile(file.name, int(config["max_position_embeddings"]))
        (staging / "Modelfile").write_text(text, encoding="utf-8")
        accompany(
            source,
            staging,
            zh=f"GGUF 格式（{kind}），供 llama.cpp、Ollama 使用。{_WARNING['zh']}",
            en=f"The model as GGUF ({kind}), for llama.cpp and Ollama. {_WARNING['en']}",
        )
        files = sorted(path for path in staging.iterdir() if path.is_file())
        provenance.write(
            staging / RECORD,
            step="gguf",
            inputs=inputs,
            config=settings,
            outputs=files,
            sha256={path.name: sha256(path) for path in files},
            lost=lost,
            gguf=importlib.metadata.version("gguf"),
        )
    size = file.stat().st_size
    sys.stdout.write(f"{shown(file)}: {size / 1e9:.2f} GB, {kind}, weights lose {lost:.2g}\n")
    return file


def _config(source: Path) -> dict[str, Any]:
    """Returns ``config.json`` of a checkpoint that llama.cpp's graph computes."""
    try:
        config: dict[str, Any] = json.loads((source / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise CheckpointError(f"{shown(source)} holds no config.json; run: make export") from None
    rope = config.get("rope_parameters") or {}
    expected = {
        "model_type": (config.get("model_type"), ("glm",)),
        "quantization_config": (config.get("quantization_config"), (None,)),
        "hidden_act": (config.get("hidden_act"), ("silu",)),
        "rope_type": (rope.get("rope_type"), ("default", "linear")),
    }
    wrong = [f"{key} {found!r}" for key, (found, known) in expected.items() if found not in known]
    if config["head_dim"] * config["num_attention_heads"] != config["hidden_size"]:
        wrong.append("heads that are not as wide as the model together")
    if wrong:
        raise CheckpointError(
            f"{shown(source)} has {', '.join(wrong)}: no GGUF file can be made of it; give the "
            "folder that make export wrote"
        )
    return config


def _entries(config: Mapping[str, Any], present: Mapping[str, Path]) -> Iterator[Entry]:
    """Yields the tensors in the order of the file; refuses a model that has others."""
    tied = bool(config["tie_word_embeddings"])
    names: list[tuple[str, tuple[str, ...]]] = [
        ("token_embd.weight", ("model.embed_tokens.weight",))
    ]
    for n in range(config["num_hidden_layers"]):
        old, new = f"model.layers.{n}", f"blk.{n}"
        qkv = [f"{old}.self_attn.{part}_proj" for part in "qkv"]
        kinds = ("weight", "bias") if config["attention_bias"] else ("weight",)
        names += [
            (f"{new}.attn_norm.weight", (f"{old}.input_layernorm.weight",)),
            *((f"{new}.attn_qkv.{kind}", tuple(f"{q}.{kind}" for q in qkv)) for kind in kinds),
            (f"{new}.attn_output.weight", (f"{old}.self_attn.o_proj.weight",)),
            (f"{new}.ffn_norm.weight", (f"{old}.post_attention_layernorm.weight",)),
            (f"{new}.ffn_up.weight", (f"{old}.mlp.gate_up_proj.weight",)),
            (f"{new}.ffn_down.weight", (f"{old}.mlp.down_proj.weight",)),
        ]
    names.append(("output_norm.weight", ("model.norm.weight",)))
    if not tied:
        names.append(("output.weight", ("lm_head.weight",)))
    wanted = {source for _, sources in names for source in sources}
    if odd := sorted(wanted ^ (present.keys() - ({"lm_head.weight"} if tied else set()))):
        raise CheckpointError(
            f"the weights are not those of config.json: {len(odd)} are missing or too many, first "
            f"{odd[0]}"
        )
    for name, sources in names:
        yield Entry(name, sources)


def _write(
    source: Path,
    file: Path,
    kind: Kind,
    entries: Sequence[Entry],
    config: Mapping[str, Any],
    vocab: Vocabulary,
) -> float:
    """Writes the file, reads it again, and returns the largest loss of a tensor by rounding."""
    import gguf
    import numpy as np

    stored = weight_map(source)
    writer = gguf.GGUFWriter(file, "chatglm")
    try:
        _describe(writer, source, kind, config, vocab)
        types = {}
        for entry in entries:
            shapes = [tuple(read(stored[name], name).shape) for name in entry.sources]
            shape = (sum(s[0] for s in shapes), *shapes[0][1:])
            types[entry.name] = _type(kind if len(shape) > 1 else "f32")
            writer.add_tensor_info(
                entry.name, shape, _float32(), _size(shape, types[entry.name]), types[entry.name]
            )
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        with progress(f"gguf {file.stem}", len(entries), "tensors") as advance:
            for entry in entries:
                with np.errstate(over="ignore"):  # what is too large for f16 is told below
                    array = gguf.quants.quantize(_array(stored, entry), types[entry.name])
                writer.write_tensor_data(array)
                advance(1)
    finally:
        writer.close()
    return _lost(file, stored, entries, kind)


def _describe(
    writer: "gguf.GGUFWriter",
    source: Path,
    kind: Kind,
    config: Mapping[str, Any],
    vocab: Vocabulary,
) -> None:
    """Writes what llama.cpp must know beside the weights (``docs/gguf.md`` of ggml)."""
    import gguf

    rope = config["rope_parameters"]
    file_type = {"f32": "ALL_F32"}.get(kind, f"MOSTLY_{kind.upper()}")
    writer.add_name(source.name)
    writer.add_file_type(gguf.LlamaFileType[file_type])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(int(config["head_dim"] * rope["partial_rotary_factor"]))
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(vocab.tokens)
    writer.add_token_scores(vocab.scores)
    writer.add_token_types(vocab.types)
    writer.add_unk_token_id(vocab.unknown)
    writer.add_pad_token_id(vocab.unknown)
    for add, stop in zip(
        (writer.add_eos_token_id, writer.add_eot_token_id, writer.add_eom_token_id),
        vocab.stops,
        strict=False,
    ):
        add(stop)
    writer.add_add_bos_token(False)  # the prefix is in the chat template
    writer.add_add_space_prefix(True)
    if vocab.template:
        writer.add_chat_template(vocab.template)


def _array(stored: Mapping[str, Path], entry: Entry) -> "np.ndarray[Any, Any]":
    """Returns the values of one tensor of the file in float32."""
    import torch

    parts = [read(stored[name], name) for name in entry.sources]
    array: np.ndarray[Any, Any] = torch.cat(parts).float().numpy()
    return array


def _lost(file: Path, stored: Mapping[str, Path], entries: Sequence[Entry], kind: Kind) -> float:
    """Compares the file with its source, tensor by tensor."""
    import gguf
    import numpy as np

    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(file).tensors}
    worst = 0.0
    for entry in entries:
        wanted, found = _array(stored, entry), tensors.pop(entry.name)
        squares = np.zeros(2)
        for at in range(0, len(wanted), _ROWS):
            part = wanted[at : at + _ROWS]
            values = gguf.quants.dequantize(found.data[at : at + _ROWS], found.tensor_type)
            squares += [np.square(values - part, dtype=np.float64).sum(), np.vdot(part, part)]
        lost = float(np.sqrt(squares[0] / (squares[1] or 1.0)))
        if not lost <= ROUNDING[kind]:  # NaN fails, too
            raise CheckFailedError(
                f"{entry.name} in {kind} is {lost:.2g} away from the model (at most "
                f"{ROUNDING[kind]:g}); nothing was written; take another gguf, for example bf16"
            )
        worst = max(worst, lost)
    if tensors:
        raise CheckFailedError(f"{file.name} holds {next(iter(tensors))}; nothing was written")
    return worst


def _modelfile(name: str, context: int) -> str:
    """Returns Ollama's Modelfile for the file `name`, with its names of control tokens."""
    text = modelfile(context).partition("\nFROM .\n")[2]
    text = f"# ChatGLM3's chat format for Ollama, written by medqa.\n\nFROM ./{name}\n{text}"
    for old, new in RENAMED.items():
        text = text.replace(f"[gMASK]{old}", f"[gMASK]{new}")
    return text


def _type(kind: Kind) -> "gguf.GGMLQuantizationType":
    import gguf

    return gguf.GGMLQuantizationType[kind.upper()]


def _size(shape: tuple[int, ...], kind: "gguf.GGMLQuantizationType") -> int:
    import gguf

    block = gguf.GGML_QUANT_SIZES[kind][0]
    if shape[-1] % block:
        raise CheckpointError(
            f"{kind.name.lower()} stores {block} weights together, and a row of this model has "
            f"{shape[-1]}; take f16 or bf16"
        )
    return math.prod(gguf.quants.quant_shape_to_byte_shape(shape, kind))


def _float32() -> "np.dtype[Any]":
    import numpy as np

    return np.dtype(np.float32)
