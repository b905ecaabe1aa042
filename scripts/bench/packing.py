"""Packed against padded training on the same rows: real tokens a second, side by side on a CPU.

    python scripts/bench/packing.py DATA [--tokenizer PATH] [--rows 80]

    DATA   JSON lines with instruction, input and output, or as Huatuo has them, questions and
           answers. All are shuffled into batches of 8, and of these so many are taken as make
           --rows, every n-th by its longest row: few rows that need the padding of all
    PATH   ChatGLM3's tokenizer.model, or a folder with a tokenizer.json (models/chatglm3-6b)

Three ways to train a LoRA adapter on the same rows of the same random GLM take turns, batch by
batch, in one process, so that whatever else the machine does hits all alike:

    defaults   LLaMA-Factory's: batches of 8 rows in random order, padded to the longest of the 8
               and to a multiple of 8, cut at 2,048 tokens; gradient checkpointing on
    padded     the same without checkpointing
    packed     ours: neat packs of 1,024 tokens, one at a time; no checkpointing

LLaMA-Factory encodes and collates all three. A batch is timed from the forward pass to the step of
the optimiser; real tokens are those other than padding. The GLM is one layer of half of
ChatGLM3-6B's width, float32; token ids are folded into 4,096, so that the output layer has the
share of the work that it has there. Attention over a whole pack, masked or not, adds 8 % to the
layer's products, 4 % in ChatGLM3-6B, and on a CPU more than that in time: packing gains less here
than by the count of tokens.

Exits with 1 when a promise of scripts/bench/README.md does not hold.
"""

import json
import random
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medqa import cli
from medqa.errors import CheckFailedError, DataError, MissingInputError

if TYPE_CHECKING:
    from collections.abc import Callable

SEED = 0
BATCH = 8  # LLaMA-Factory's default, transformers' own
VOCABULARY = 4096
SIZES = {
    "hidden_size": 2048,
    "intermediate_size": 6848,
    "num_hidden_layers": 1,
    "num_attention_heads": 16,
    "num_key_value_heads": 2,
    "head_dim": 128,
}
PACKED = {"cutoff_len": 1024, "packing": True, "neat_packing": True}
WAYS: dict[str, tuple[dict[str, Any], int, bool]] = {  # its data, its batch, checkpointing
    "defaults": ({}, BATCH, True),
    "padded": ({}, BATCH, False),
    "packed": (PACKED, 1, False),
}

# The promise.
TIMES_FASTER = {"defaults": 2.0}


@dataclass
class Way:
    """One way to train: its batches, and what they took so far."""

    checkpointing: bool
    batches: list[dict[str, Any]]
    done: int = 0
    seconds: float = 0.0
    real: int = 0
    computed: int = 0

    @property
    def speed(self) -> float:
        """Real tokens a second."""
        return self.real / self.seconds


def real_tokens(batch: Mapping[str, Any]) -> int:
    """Returns how many tokens of a batch are no padding, whose id stands in no text."""
    return int((batch["input_ids"] != 0).sum())


def write_project(folder: Path, data: Path, tokenizer: Path, rows: int) -> None:
    """Writes the chosen rows as a data set, and a model folder that is nothing but a tokenizer."""
    import shutil

    from medqa.model import tokenizer as tokenizers

    model = folder / "model"
    model.mkdir()
    if tokenizer.is_dir():
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(tokenizer / name, model / name)
    else:
        pieces = tokenizers.sentencepiece(tokenizer)
        tokenizers.write_tokenizer(pieces, tokenizers.CHATGLM3, model, 8192)
    (model / "config.json").write_text('{"model_type": "glm"}', encoding="utf-8")
    with data.open(encoding="utf-8") as lines:
        pairs = [_pair(json.loads(line), data) for line in lines if line.strip()]
    random.Random(SEED).shuffle(pairs)
    batches = [pairs[n : n + BATCH] for n in range(0, len(pairs) - BATCH + 1, BATCH)]
    batches.sort(key=lambda batch: max(sum(map(len, pair)) for pair in batch))
    every = max(len(batches) * BATCH // rows, 1)
    chosen = [pair for batch in batches[every // 2 :: every][: rows // BATCH] for pair in batch]
    with (folder / "rows.jsonl").open("w", encoding="utf-8") as out:
        for question, answer in chosen:
            row = {"instruction": question, "input": "", "output": answer}
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
    entries = {"rows": {"file_name": "rows.jsonl"}}
    (folder / "dataset_info.json").write_text(json.dumps(entries), encoding="ascii")


def _pair(row: Mapping[str, Any], data: Path) -> tuple[str, str]:
    question = row.get("instruction", row.get("questions"))
    answer = row.get("output", row.get("answers"))
    if not isinstance(question, str) or not isinstance(answer, str):
        raise DataError(
            f"{data}: expected rows with instruction and output, or questions and answers, as "
            f"texts; found the keys {', '.join(row)}"
        )
    return "\n".join(part for part in (question, row.get("input")) if part), answer


def encoder(folder: Path) -> "Callable[[Mapping[str, Any], int], list[dict[str, Any]]]":
    """Returns the function that makes batches of the rows in `folder`, as LLaMA-Factory does."""
    import torch
    from llamafactory.data import (
        SFTDataCollatorWith4DAttentionMask,
        get_dataset,
        get_template_and_fix_tokenizer,
    )
    from llamafactory.hparams import get_train_args
    from llamafactory.model import load_tokenizer

    common = {
        "model_name_or_path": str(folder / "model"),
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "lora",
        "template": "chatglm3",
        "dataset": "rows",
        "dataset_dir": str(folder),
        "cache_dir": str(folder / "cache"),
        "output_dir": str(folder / "out"),
        "report_to": "none",
        "use_cpu": True,
    }

    def encode(change: Mapping[str, Any], size: int) -> list[dict[str, Any]]:
        model, data, training, _, _ = get_train_args({**common, **change})
        module = load_tokenizer(model)
        template = get_template_and_fix_tokenizer(module["tokenizer"], data)
        rows = get_dataset(template, model, data, training, stage="sft", **module)["train_dataset"]
        collate = SFTDataCollatorWith4DAttentionMask(
            template=template,
            tokenizer=module["tokenizer"],
            pad_to_multiple_of=8,
            block_diag_attn=data.neat_packing,
            neat_packing=data.neat_packing,
            attn_implementation="sdpa",
            compute_dtype=torch.float32,
        )
        batches = []
        for start in range(0, len(rows), size):
            some = [dict(rows[n]) for n in range(start, min(start + size, len(rows)))]
            batches.append({name: _folded(name, value) for name, value in collate(some).items()})
        return batches

    return encode


def _folded(name: str, value: Any) -> Any:
    """Returns ids and labels within the vocabulary; padding and what is not asked for stay."""
    if name not in ("input_ids", "labels"):
        return value
    return value.where(value <= 0, 1 + value % (VOCABULARY - 1))


def trainer() -> "Callable[[Mapping[str, Any], bool], float]":
    """Returns the function that trains on a batch, and gives the seconds that it took."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import GlmConfig, GlmForCausalLM

    torch.manual_seed(SEED)
    types: Any = GlmConfig
    make: Any = GlmForCausalLM
    config = types(**SIZES, vocab_size=VOCABULARY, attention_bias=True, pad_token_id=0)
    lora = LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM")
    model: Any = get_peft_model(make(config), lora).train()
    model.enable_input_require_grads()  # as LLaMA-Factory does, for checkpointing
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1e-4)

    def train(batch: Mapping[str, Any], checkpointing: bool) -> float:
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": True})
        else:
            model.gradient_checkpointing_disable()
        started = time.perf_counter()
        model(**batch, use_cache=False).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        return time.perf_counter() - started

    return train


def measure(ways: Sequence[Way], train: "Callable[[Mapping[str, Any], bool], float]") -> None:
    """Trains all ways to their end; the one that has done the least share goes next."""
    for way in ways:
        train(way.batches[0], way.checkpointing)  # what is loaded and chosen at first is not timed
    while left := [way for way in ways if way.done < len(way.batches)]:
        way = min(left, key=lambda way: way.done / len(way.batches))
        batch = way.batches[way.done]
        way.seconds += train(batch, way.checkpointing)
        way.real += real_tokens(batch)
        way.computed += batch["input_ids"].numel()
        way.done += 1


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps LLaMA-Factory's words, of which there are many, to itself."""
    import logging
    import os
    import warnings

    os.environ |= {"LLAMAFACTORY_VERBOSITY": "ERROR", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    os.environ |= {"TRANSFORMERS_VERBOSITY": "error"}
    logging.disable(logging.WARNING)
    with warnings.catch_warnings(), redirect_stdout(StringIO()):
        warnings.simplefilter("ignore")
        yield


def main(argv: Sequence[str] | None = None) -> None:
    """Measures and prints.

    Raises:
        CheckFailedError: A promise does not hold.
        DataError: DATA has other rows.
        MissingInputError: DATA or the tokenizer is not there.
    """
    parser = cli.parser(__doc__)
    parser.add_argument("data", type=Path, help="JSON lines")
    parser.add_argument("--tokenizer", type=Path, default=Path("models/chatglm3-6b"))
    parser.add_argument("--rows", type=int, default=80, help="how many (default 80)")
    given = parser.parse_args(argv)
    for needed, cure in ((given.data, "name another"), (given.tokenizer, "run: make model")):
        if not needed.exists():
            raise MissingInputError(f"{needed} does not exist; {cure}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_project(folder, given.data, given.tokenizer, given.rows)
        with quiet():
            encode = encoder(folder)
            ways = {
                way: Way(checkpointing, encode(change, size))
                for way, (change, size, checkpointing) in WAYS.items()
            }
    with quiet():
        measure(list(ways.values()), trainer())
    print("| way | batches | real tokens | padding | real tokens/s | packed is |")
    print("|---|---:|---:|---:|---:|---:|")
    times = {name: ways["packed"].speed / way.speed for name, way in ways.items()}
    for name, way in ways.items():
        cells = [f"{way.done}", f"{way.real:,}", f"{1 - way.real / way.computed:.1%}"]
        cells += [f"{way.speed:,.0f}", f"{times[name]:.2f}x"]
        print(f"| {name} | {' | '.join(cells)} |")
    for name, least in TIMES_FASTER.items():
        if times[name] < least:
            raise CheckFailedError(f"expected {least} times {name}, found {times[name]:.2f}")


if __name__ == "__main__":
    cli.run(main)
