"""One line that identifies a model's weights, however they are cut into files."""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from medqa.errors import MissingInputError
from medqa.paths import shown

if TYPE_CHECKING:
    import torch


def weights_fingerprint(folder: Path) -> str:
    """Returns the fingerprint of the native safetensors in `folder`.

    It is the SHA-256 of the sorted lines ``name dtype shape hash-of-the-bytes``, one per tensor.
    So it does not depend on shards, their order, or the format they were imported from; it does
    depend on the dtype. The hash is XXH3 of 128 bits, ten times as fast as SHA-256: this line
    tells models apart, it does not guard against someone who forges one (the SHA-256 of the
    source files in the import record does). One tensor is in memory at a time.

    Raises:
        MissingInputError: There are no safetensors in `folder`.
    """
    lines = []
    for name, file in sorted(weight_map(folder).items()):
        tensor = read(file, name)
        shape = "x".join(map(str, tensor.shape))
        lines.append(f"{name} {tensor.dtype} {shape} {_hash(tensor)}\n")
    return "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()


def weight_map(folder: Path) -> dict[str, Path]:
    """Returns tensor name to the file that holds it, for a native checkpoint.

    Raises:
        MissingInputError: There are no safetensors in `folder`.
    """
    index, single = folder / "model.safetensors.index.json", folder / "model.safetensors"
    if index.is_file():
        named = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        return {name: folder / file for name, file in named.items()}
    if not single.is_file():
        raise MissingInputError(f"{shown(folder)} has no model.safetensors and no index of shards")
    from safetensors import safe_open

    with safe_open(single, framework="pt") as file:
        return dict.fromkeys(file.keys(), single)


def read(file: Path, name: str) -> "torch.Tensor":
    """Returns one tensor, memory-mapped; the mapping ends when the tensor is dropped."""
    from safetensors import safe_open

    with safe_open(file, framework="pt") as opened:
        tensor: torch.Tensor = opened.get_tensor(name)
    return tensor


def _hash(tensor: "torch.Tensor") -> str:
    import torch
    import xxhash

    # numpy has no bfloat16: the bytes as they are.
    return xxhash.xxh3_128_hexdigest(tensor.contiguous().view(torch.uint8).numpy().data)
