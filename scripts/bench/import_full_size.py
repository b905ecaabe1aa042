"""Imports a synthetic checkpoint of ChatGLM3-6B's size, beside plain copies of the same files.

python scripts/bench/import_full_size.py FOLDER [--tokenizer PATH] [--layers 28]

    FOLDER  an empty place with 40 GB free; what is made there is deleted at the end

Writes 7 shards of random fp16 (12.5 GB with 28 layers), then in one run: cp -r and fsync, the
import with all its checks, cp -r and fsync again; each reads from a cold page cache. Prints the
ratio of the import to the mean of the copies, and the import's peak memory twice: all resident
pages (VmHWM, which also counts pages of memory-mapped files that the system can drop at any time)
and the private ones alone (RssAnon), which it cannot.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from medqa import cli

if TYPE_CHECKING:
    import torch

SHARDS = 7
CONFIG = {
    "model_type": "chatglm",
    "add_qkv_bias": True,
    "multi_query_attention": True,
    "multi_query_group_num": 2,
    "hidden_size": 4096,
    "ffn_hidden_size": 13696,
    "kv_channels": 128,
    "num_attention_heads": 32,
    "padded_vocab_size": 65024,
    "seq_length": 8192,
    "layernorm_epsilon": 1e-5,
    "torch_dtype": "float16",
}


def write_source(folder: Path, layers: int, tokenizer: Path | None) -> None:
    """Writes config, tokenizer and shards of about equal size, in the order of the layers."""
    from safetensors.torch import save_file

    from medqa.model.chatglm3 import layout
    from medqa.model.original import OriginalConfig

    folder.mkdir(parents=True)
    config = CONFIG | {"num_layers": layers}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    model = tokenizer.read_bytes() if tokenizer else trained_tokenizer()
    (folder / "tokenizer.model").write_bytes(model)
    shapes = {
        w.original: w.shape for w in layout(OriginalConfig.model_validate(config), tied=False)
    }
    names = list(shapes)
    weight_map: dict[str, str] = {}
    for number in range(SHARDS):
        part = names[len(names) * number // SHARDS : len(names) * (number + 1) // SHARDS]
        file = f"model-{number + 1:05d}-of-{SHARDS:05d}.safetensors"
        tensors = {name: random_tensor(name, shapes[name]) for name in part}
        save_file(tensors, folder / file)
        weight_map |= dict.fromkeys(part, file)
    index = json.dumps({"metadata": {}, "weight_map": weight_map})
    (folder / "model.safetensors.index.json").write_text(index, encoding="utf-8")


def random_tensor(name: str, shape: tuple[int, ...]) -> "torch.Tensor":
    """Returns normal fp16 values of width 0.02, seeded by the tensor's name."""
    import zlib

    import torch

    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    count = torch.Size(shape).numel()
    block = torch.randn(min(count, 2**22), generator=generator).mul_(0.02).half()
    return block.repeat(-(-count // len(block)))[:count].reshape(shape).contiguous()


def trained_tokenizer() -> bytes:
    """Returns a small SentencePiece model, for a machine without the real one."""
    import io

    from sentencepiece import SentencePieceTrainer

    model = io.BytesIO()
    SentencePieceTrainer.Train(
        sentence_iterator=iter([__doc__ or "", "饮酒以后可以服用西地那非吗"] * 10),
        model_writer=model,
        model_type="bpe",
        vocab_size=400,
        character_coverage=1.0,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        split_digits=True,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return model.getvalue()


@contextmanager
def timed(source: Path, made: Path) -> Iterator[list[float]]:
    """Yields a list that takes the seconds of the block; starts cold, removes `made`."""
    for file in source.iterdir():
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    seconds: list[float] = []
    started = time.monotonic()
    yield seconds
    seconds.append(time.monotonic() - started)
    shutil.rmtree(made)


def copy(source: Path, target: Path) -> float:
    """Returns the seconds of cp -r and fsync."""
    with timed(source, target) as seconds:
        subprocess.run(["cp", "-r", source, target], check=True)
        for file in target.iterdir():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
    return seconds[0]


def import_it(source: Path, target: Path) -> tuple[float, dict[str, int]]:
    """Returns the seconds of the import and its peaks in bytes, sampled 20 times a second.

    Not the ru_maxrss of a child: that starts with what this process held when it was forked.
    """
    peak = {"VmHWM": 0, "RssAnon": 0}
    command = [sys.executable, "scripts/import_model.py", str(source), str(target)]
    with timed(source, target) as seconds:
        running = subprocess.Popen(command)
        status = Path(f"/proc/{running.pid}/status")
        while running.poll() is None:
            for line in status.read_text(encoding="utf-8").splitlines():
                name, _, rest = line.partition(":")
                if name in peak:
                    peak[name] = max(peak[name], int(rest.split()[0]) * 1024)
            time.sleep(0.05)
        if running.returncode:
            sys.exit(running.returncode)
    return seconds[0], peak


def main(argv: Sequence[str] | None = None) -> None:
    """Makes the checkpoint, measures, prints, deletes."""
    parser = cli.parser(__doc__)
    parser.add_argument("folder", metavar="FOLDER", type=Path)
    parser.add_argument("--tokenizer", type=Path, help="a tokenizer.model (default: trains one)")
    parser.add_argument("--layers", type=int, default=28)
    given = parser.parse_args(argv)
    work = given.folder / "import_full_size"
    source, target = work / "source", work / "target"
    try:
        write_source(source, given.layers, given.tokenizer)
        size = sum(file.stat().st_size for file in source.iterdir())
        print(f"source: {size / 1e9:.2f} GB in {SHARDS} shards", flush=True)
        before = copy(source, target)
        print(f"cp -r with fsync: {before:.1f} s", flush=True)
        seconds, peak = import_it(source, target)
        after = copy(source, target)
        print(f"cp -r with fsync: {after:.1f} s")
        print(f"import with its checks: {seconds:.1f} s, {2 * seconds / (before + after):.2f}x")
        resident, private = (peak[name] / 1e9 for name in ("VmHWM", "RssAnon"))
        print(f"peak memory: {resident:.2f} GB resident, {private:.2f} GB private")
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    cli.run(main)
