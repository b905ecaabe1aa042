"""Weight files, safetensors or ``torch.save``: their headers, and reading tensors out of them."""

import pickle
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from medqa.errors import CheckpointError
from medqa.paths import shown

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Stored:
    """A tensor as its file's header describes it; `dtype` is torch's name, ``float16``."""

    shard: Path
    shape: tuple[int, ...]
    dtype: str


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
