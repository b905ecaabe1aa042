"""Memory, speed and MFU of the recipes on the GPU at hand, under the cap of a smaller one.

    scripts/bench/gpu.sh [--minutes 25] [--cap 24] [--steps 15] [--only PATTERN] [--again]
    scripts/bench/gpu.sh --tiny                       the same code on a CPU, with configs/tiny

It builds a random ChatGLM3-6B on the device (bfloat16, 12.5 GB, kept in FOLDER/model), and rows of
a text that nobody reads with the lengths of 1,000 real Huatuo rows (huatuo_lengths.json). Then one
process for each cell trains a shipped recipe through LLaMA-Factory for --steps steps of two
micro-batches, with the lengths, batch sizes and switches that the cell's name says; evaluates it;
and beside them LLaMA-Factory with its defaults (8 rows, padded, 2,048 tokens) and as its example
(examples/train_lora: 1 row at a time) on the same rows. The last ones answer as compare does.

    allocated, reserved  the most that PyTorch held in training, GiB
    device               what the card had in use at its end, the CUDA context included
    predicted, off       medqa.model.budget for `allocated`, and by how much that was off
    evaluation           allocated, at its highest in the evaluation
    real tokens/s        without padding, warm-up left out
    MFU                  real tokens/s x model FLOPs a token / the card's peak for dense bfloat16.
                         4N with a frozen base, 6N where all is trained, for freeze 2N and 4 more
                         for each weight that is trained; N counts every weight but the
                         embedding's. Attention is not counted.
    with the rest        the same with padding, 2N more where activations are recomputed, and 2N for
                         the reference of dpo

Each result is kept in FOLDER/cells, so a run that was stopped, or ran out of --minutes, goes on; a
cell is measured again when it, the device or the recipe changed, or with --again. Exits with 1 when
a promise of scripts/bench/README.md does not hold.
"""

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from medqa import cli
from medqa.errors import CheckFailedError, MissingInputError, StepError
from medqa.files import sha256
from medqa.paths import resolve

HERE = Path(__file__).parent
LENGTHS = HERE / "huatuo_lengths.json"
GIB = 1 << 30
ACCUMULATED = 2  # micro-batches a step: gradients of the first are there when the second runs
WARM_UP = 3  # steps: kernels are compiled and chosen, and memory finds its places
ROWS, VALIDATION = 4000, 64

# The promises.
TIMES_FASTER, MFU = 3.0, 0.45
LOSS_OFF = {"float32": 1e-5, "bfloat16": 1e-2}
BUDGET_OFF = 0.10

SIZES = {  # ChatGLM3-6B's
    "vocab_size": 65024,
    "hidden_size": 4096,
    "intermediate_size": 13696,
    "num_hidden_layers": 28,
    "num_attention_heads": 32,
    "num_key_value_heads": 2,
    "head_dim": 128,
    "max_position_embeddings": 8192,
}
TINY = SIZES | {
    "vocab_size": 1024,
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "head_dim": 32,
}
# Dense bfloat16 with float32 accumulation, TFLOPS, by the makers' data sheets. A card whose name
# is not among them is measured against its own product of large matrices, and the table says so.
PEAK = {
    "RTX 3090": 71,
    "RTX 4090": 165,
    "RTX 5090": 210,
    "A10G": 70,
    "A10": 125,
    "A30": 165,
    "A40": 150,
    "A100": 312,
    "A800": 312,
    "L4": 121,
    "L40S": 362,
    "L40": 181,
    "H20": 148,
    "H100 PCIe": 756,
    "H100": 989,
    "H800": 989,
    "H200": 989,
}
# What of a recipe says how often to look and to keep: a cell does neither before its end.
LEFT_OUT = {
    "early_stopping_steps",
    "eval_steps",
    "eval_strategy",
    "load_best_model_at_end",
    "metric_for_best_model",
    "num_train_epochs",
    "plot_loss",
    "save_steps",
    "save_total_limit",
}
ROWS_OF = {"sft": "rows", "dpo": "preference", "pt": "corpus"}
DEFAULTS = {  # what LLaMA-Factory must be told; the rest is as it comes
    "stage": "sft",
    "do_train": True,
    "finetuning_type": "lora",
    "template": "chatglm3",
    "bf16": True,
}
EXAMPLE = DEFAULTS | {  # examples/train_lora/*_lora_sft.yaml
    "cutoff_len": 2048,
    "lora_rank": 8,
    "lora_target": "all",
    "preprocessing_num_workers": 16,
    "dataloader_num_workers": 4,
    "per_device_train_batch_size": 1,
}
OURS, THEIRS = "lora_sft", "LLaMA-Factory, its defaults"


@dataclass(frozen=True)
class Cell:
    """One line of the table: a recipe, and what is changed in it."""

    name: str
    recipe: str = ""
    change: dict[str, Any] = field(default_factory=dict)
    kind: str = "train"


def cells(folder: Path, lengths: Sequence[int], fa2: bool) -> list[Cell]:
    """Returns what to measure, the most telling first, since time may run out."""
    recipes = [file.stem for file in sorted(folder.glob("*.yaml")) if _trains_on_one_card(file)]
    short, usual, _ = lengths
    first = [
        Cell("Liger's loss", kind="liger"),
        Cell(OURS, OURS),
        Cell(THEIRS, change=DEFAULTS),
        Cell("LLaMA-Factory, its example", change=EXAMPLE),
        Cell("compare", kind="answer"),
    ]
    grid = [
        _varied(OURS, length, batch, checkpointing=checkpointing)
        for checkpointing, length, batch in itertools.product((False, True), lengths, (1, 2, 4, 8))
        # What needs more than 24 GiB for certain is left out, and so is what nobody would choose.
        if (short if checkpointing else 0) < length * batch <= usual * (8 if checkpointing else 2)
    ]
    plain = [
        _varied(OURS, length, batch, checkpointing=on, enable_liger_kernel=False)
        for on, length, batch in ((False, short, 1), (False, usual, 1), (True, usual, 4))
    ]
    attention = [_varied(OURS, usual, 1, checkpointing=False, flash_attn="fa2")] if fa2 else []
    others = [Cell(name, name) for name in recipes if name != OURS]
    longer = [
        Cell(f"{name} {length}", name, {"cutoff_len": length})
        for name in recipes
        for length in lengths
        if name != OURS
    ]
    return [*first, *others, *grid, *plain, *attention, *longer]


def _varied(recipe: str, length: int, batch: int, *, checkpointing: bool, **more: Any) -> Cell:
    words = [f"{length} x {batch}", "checkpointing" if checkpointing else "no checkpointing"]
    words += [f"{key}={value}" for key, value in more.items()]
    change = {
        "cutoff_len": length,
        "per_device_train_batch_size": batch,
        "disable_gradient_checkpointing": not checkpointing,
    }
    return Cell(f"{recipe}, {', '.join(words)}", recipe, change | more)


def _trains_on_one_card(file: Path) -> bool:
    from medqa.config import read_yaml

    values = read_yaml(file)
    return bool(values.get("do_train")) and "deepspeed" not in values


class Bench:
    """The folder in which everything is, and the clock."""

    def __init__(self, given: Any) -> None:
        self.given = given
        self.folder: Path = given.folder.resolve()
        self.recipes = resolve("configs/tiny" if given.tiny else "configs/chatglm3-6b")
        self.lengths = (64, 128, 256) if given.tiny else (512, 1024, 2048)
        self.ends = time.monotonic() + 60 * given.minutes
        self.durations: list[float] = []

    def run(self, name: str, spec: Mapping[str, Any], *, seconds: float) -> dict[str, Any]:
        """Measures in a process of its own, unless that was done before.

        Returns:
            The result; ``status`` is ok, out of memory, no GPU, failed or too slow.
        """
        stem = re.sub(r"[^\w.]+", "_", name).strip("_")
        result = self.folder / "cells" / f"{stem}.json"
        wanted, log = result.with_suffix(".spec"), result.with_suffix(".log")
        text = json.dumps(spec, indent=1, sort_keys=True)
        if not self.given.again and result.exists() and _read(wanted) == text:
            return dict(json.loads(result.read_text("utf-8")))
        result.parent.mkdir(parents=True, exist_ok=True)
        result.unlink(missing_ok=True)
        wanted.write_text(text, encoding="utf-8")
        started = time.monotonic()
        command = [sys.executable, str(HERE / "gpu_cell.py"), str(wanted), str(result)]
        offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
        # One card: with more in sight the trainer would spread a batch over all.
        card = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
        seen = {"CUDA_VISIBLE_DEVICES": "" if self.given.tiny else card}
        with log.open("wb") as out:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=os.environ | offline | seen,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
            try:
                code = process.wait(timeout=max(seconds, 1))
            except BaseException as error:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                if not isinstance(error, subprocess.TimeoutExpired):
                    raise
                return {"status": f"too slow: beyond {seconds:.0f} s"}
        self.durations.append(time.monotonic() - started)
        if code or not result.exists():
            words = [line for line in (_read(log) or "").splitlines() if line.strip()]
            return {"status": f"failed: {words[-1][:200] if words else f'exit code {code}'}"}
        return dict(json.loads(result.read_text("utf-8")))

    def required(self, name: str, spec: Mapping[str, Any]) -> dict[str, Any]:
        """Runs what all else needs.

        Raises:
            StepError: It did not end well.
        """
        found = self.run(name, spec, seconds=600)
        if found["status"] != "ok":
            log = self.folder / "cells"
            raise StepError(f"{name} was expected to end well, found {found} (logs: {log})")
        return found

    def all(self) -> Iterator[tuple[Cell, dict[str, Any], dict[str, Any]]]:
        """Yields the cells with what was asked and what was found, while there is time."""
        device = self.required("device", {"kind": "device"})
        if device["name"] == "cpu" and not self.given.tiny:
            raise MissingInputError("expected a CUDA device, found none; run with --tiny")
        yield Cell("device", kind="device"), {}, device
        self._make(device)
        for cell in cells(self.recipes, self.lengths, device["fa2"]):
            if self.given.only and not re.search(self.given.only, cell.name):
                continue
            spec = self._spec(cell, device)
            left = self.ends - time.monotonic()
            if left < (max(self.durations[-3:]) if self.durations else 0):
                yield cell, spec, {"status": "no time left"}
                continue
            yield cell, spec, self.run(cell.name, spec, seconds=min(left, self.given.cell_seconds))

    def _make(self, device: Mapping[str, Any]) -> None:
        """Makes the model and the rows, unless they are there."""
        tokenizer = self.given.tokenizer.resolve()
        spec = {
            "kind": "build",
            "sizes": TINY if self.given.tiny else SIZES,
            "dtype": "float32" if self.given.tiny else "bfloat16",
            "target": str(self.folder / "model"),
            "tokenizer": str(tokenizer),
        }
        if not (self.folder / "model/config.json").exists():
            (self.folder / "cells/build.json").unlink(missing_ok=True)
        self.required("build", spec)
        _write_rows(self.folder, tokenizer)

    def _spec(self, cell: Cell, device: Mapping[str, Any]) -> dict[str, Any]:
        spec: dict[str, Any] = {
            "kind": cell.kind,
            "device": device["name"],
            "cap": 0 if self.given.tiny else round(self.given.cap * GIB),
            "made from": [sha256(self.given.tokenizer / "tokenizer.json"), sha256(LENGTHS)],
        }
        if cell.kind == "answer":
            return spec | self._answer()
        if cell.kind == "train":
            spec |= {"warm_up": min(WARM_UP, self.given.steps - 1)}
            spec |= {"recipe": str(self.recipes / f"{cell.recipe}.yaml") if cell.recipe else ""}
            spec |= {"values": self._values(cell)}
        return spec

    def _values(self, cell: Cell) -> dict[str, Any]:
        """Returns a recipe as the cell changes it."""
        from medqa.config import load_llamafactory

        values: dict[str, Any] = {}
        if cell.recipe:
            values = load_llamafactory(self.recipes / f"{cell.recipe}.yaml", [], "train")
        values = {key: value for key, value in values.items() if key not in LEFT_OUT}
        values |= cell.change
        rows = ROWS_OF[values["stage"]]
        if "adapter_name_or_path" in values:
            values["adapter_name_or_path"] = str(self.folder / "begun" / cell.recipe)
        if self.given.tiny:
            values |= {"use_cpu": True, "bf16": False}
        return values | {
            "model_name_or_path": str(self.folder / "model"),
            "dataset": f"{rows}_train",
            "eval_dataset": f"{rows}_val",
            "dataset_dir": str(self.folder / "data"),
            "cache_dir": str(self.folder / "cache"),
            "output_dir": str(self.folder / "saves" / re.sub(r"\W+", "_", cell.name)),
            "overwrite_output_dir": True,
            "gradient_accumulation_steps": ACCUMULATED,
            "max_steps": self.given.steps,
            "do_eval": True,
            "save_strategy": "no",
            "logging_steps": 1,
            "report_to": "none",
        }

    def _answer(self) -> dict[str, Any]:
        from medqa.config import read_yaml

        values = read_yaml(self.recipes / "compare.yaml")
        longest = 8 if self.given.tiny else values["max_new_tokens"]
        return {
            "model": str(self.folder / "model"),
            "adapter": str(self.folder / "saves" / OURS),
            "rows": str(self.folder / "data/rows_train.jsonl"),
            "count": 2 * values["batch_size"],
            "batch_size": values["batch_size"],
            "cutoff_len": values["cutoff_len"],
            "max_new_tokens": longest,
        }


def _read(file: Path) -> str | None:
    return file.read_text("utf-8", errors="replace") if file.exists() else None


def _write_rows(folder: Path, tokenizer: Path) -> None:
    """Writes the data sets: rows, preferences and texts whose lengths are Huatuo's."""
    from tokenizers import Tokenizer

    fast = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))

    def size(text: str) -> int:
        return len(fast.encode(text, add_special_tokens=False).ids)

    # A character of which each more is one token more.
    letter = next(c for c in "是药血a" if all(size(c * n) == size(c) + n - 1 for n in (2, 7, 40)))

    def text(tokens: int) -> str:
        return letter * max(tokens - size(letter) + 1, 1)

    pairs = itertools.cycle(json.loads(LENGTHS.read_text("utf-8"))["pairs"])
    columns = {
        "rows": {"prompt": "instruction", "query": "input", "response": "output"},
        "preference": {"prompt": "instruction", "chosen": "chosen", "rejected": "rejected"},
        "corpus": {"prompt": "text"},
    }
    entries = {}
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for split, count in (("train", ROWS), ("val", VALIDATION)):
        rows = [(text(q), text(a)) for q, a in itertools.islice(pairs, count)]
        others = [answer for _, answer in reversed(rows)]
        made = {
            "rows": [{"instruction": q, "input": "", "output": a} for q, a in rows],
            "preference": [
                {"instruction": q, "chosen": a, "rejected": other}
                for (q, a), other in zip(rows, others, strict=True)
            ],
            "corpus": [{"text": q + a} for q, a in rows],
        }
        for name, some in made.items():
            entry: dict[str, Any] = {"file_name": f"{name}_{split}.jsonl", "columns": columns[name]}
            entries[f"{name}_{split}"] = entry | ({"ranking": True} if name == "preference" else {})
            words = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in some)
            target = folder / "data" / entry["file_name"]
            if _read(target) != words:  # an equal file keeps its date, and so its cache
                target.write_text(words, encoding="utf-8")
    (folder / "data/dataset_info.json").write_text(json.dumps(entries), encoding="ascii")


@dataclass(frozen=True)
class Line:
    """A line of the table; None where there is nothing to say."""

    name: str
    status: str
    allocated: float | None = None
    reserved: float | None = None
    device: float | None = None
    predicted: float | None = None
    evaluation: float | None = None
    speed: float | None = None
    padding: float | None = None
    mfu: float | None = None
    whole: float | None = None
    loss: float | None = None


def line(cell: Cell, spec: Mapping[str, Any], found: Mapping[str, Any], peak: float) -> Line:
    """Works out a line from what was measured; memory in GiB, `peak` in FLOP/s."""
    values, status = spec.get("values", {}), found["status"]
    predicted = _predicted(values) if values and spec["cap"] else None
    if cell.kind == "answer" and status == "ok":
        most = max(found["losses"], found["answers"], key=lambda peak: peak["allocated"])
        speed = found["tokens"] / found["seconds"]
        return Line(cell.name, status, **_memory(most), speed=speed)
    if cell.kind != "train" or "steps" not in found:
        memory = _memory(found["train"]) if "train" in found else {}
        return Line(cell.name, status, **memory, predicted=predicted)
    speed = found["real"] / found["seconds"]
    flops, again = _flops(values, found["trainable"])
    whole = found["computed"] / found["seconds"] * (flops + again)
    return Line(
        cell.name,
        status,
        **_memory(found["train"]),
        predicted=predicted,
        evaluation=found["evaluate"]["allocated"] / GIB if "evaluate" in found else None,
        speed=speed,
        padding=1 - found["real"] / found["computed"],
        mfu=speed * flops / peak if peak else None,
        whole=whole / peak if peak else None,
        loss=found["loss"][-1],
    )


def _memory(peak: Mapping[str, int]) -> dict[str, Any]:
    return {name: peak[name] / GIB for name in ("allocated", "reserved", "device")}


def _shape(values: Mapping[str, Any]) -> Any:
    from medqa.model.budget import Shape

    file = Path(values["model_name_or_path"]) / "config.json"
    return Shape.of(json.loads(file.read_text("utf-8")))


def _predicted(values: Mapping[str, Any]) -> float:
    from medqa.model.budget import peaks

    adapter = None
    if "adapter_name_or_path" in values:
        file = Path(values["adapter_name_or_path"]) / "adapter_config.json"
        adapter = json.loads(file.read_text("utf-8")) if file.exists() else None
    return float(peaks(values, _shape(values), adapter=adapter)["train"].tensors / GIB)


def _flops(values: Mapping[str, Any], trainable: int) -> tuple[float, float]:
    """Returns the model's FLOPs a token by the convention above, and what comes on top of them."""
    shape = _shape(values)
    multiplied = shape.parameters - shape.vocab * shape.hidden
    kinds = {"full": 6 * multiplied, "freeze": 2 * multiplied + 4 * trainable}
    forwards = int(not values.get("disable_gradient_checkpointing")) + (values["stage"] == "dpo")
    return kinds.get(values["finetuning_type"], 4 * multiplied), forwards * 2 * multiplied


HEAD = (
    "| cell | allocated | reserved | device | predicted | off | evaluation | real tokens/s "
    "| padding | MFU | with the rest | loss | |\n"
    "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|"
)


def shown(row: Line) -> str:
    """Returns a line of the Markdown table."""
    off = row.predicted / row.allocated - 1 if row.predicted and row.allocated else None
    ended = row.status == "ok"
    numbers = [
        _number(row.allocated, ".2f"),
        _number(row.reserved, ".2f"),
        _number(row.device, ".2f"),
        _number(row.predicted, ".2f"),
        _number(off if ended else None, "+.1%"),
        _number(row.evaluation, ".2f"),
        _number(row.speed, ",.0f"),
        _number(row.padding, ".1%"),
        _number(row.mfu, ".1%"),
        _number(row.whole, ".1%"),
        _number(row.loss, ".3f"),
    ]
    return f"| {row.name} | {' | '.join(numbers)} | {'' if ended else row.status} |"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def described(device: Mapping[str, Any], cap: float) -> tuple[float, str]:
    """Returns a card's peak in FLOP/s, and a line that says what was measured on."""
    name, measured = device["name"], device["matmul"] / 1e12
    if name == "cpu":
        return 0.0, "No GPU: memory is that of the whole process, and nothing is promised."
    known = max((card for card in PEAK if card in name), key=len, default=None)
    peak = PEAK[known] if known else measured
    source = "by its data sheet" if known else "as measured: its data sheet is not known here"
    return peak * 1e12, (
        f"{name}, kept within {cap:g} GiB; peak {peak:.0f} TFLOPS {source}; "
        f"matrices of 8192: {measured:.0f} TFLOPS."
    )


def broken(lines: Sequence[Line], found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Returns the promises that do not hold, of those that can be judged."""
    failed = [f"{row.name} to end well" for row in lines if row.status.startswith("failed")]
    ours, theirs = (_judged(lines, name) for name in (OURS, THEIRS))
    if ours and theirs and ours[0] < TIMES_FASTER * theirs[0]:
        failed.append(f"{TIMES_FASTER} times their defaults, found {ours[0] / theirs[0]:.2f}")
    if ours and ours[1] < MFU:
        failed.append(f"an MFU of {MFU:.0%}, found {ours[1]:.1%}")
    for row in lines:
        if row.status == "ok" and row.mfu is not None and row.predicted and row.allocated:
            off = row.predicted / row.allocated - 1
            packed = not row.name.startswith("LLaMA-Factory")  # their rows are shorter than cutoff
            if packed and abs(off) > BUDGET_OFF:
                failed.append(f"the budget within {BUDGET_OFF:.0%} ({row.name}), found {off:+.1%}")
    for dtype, (plain, fused) in found.get("Liger's loss", {}).get("losses", {}).items():
        if abs(fused - plain) > LOSS_OFF[dtype] * abs(plain):
            failed.append(f"equal losses with Liger in {dtype}, found {plain} and {fused}")
    return failed


def _judged(lines: Sequence[Line], name: str) -> tuple[float, float] | None:
    """Returns speed and MFU of a cell, if it was measured on a GPU."""
    for row in lines:
        if row.name == name and row.speed is not None and row.mfu is not None:
            return row.speed, row.mfu
    return None


def main(argv: Sequence[str] | None = None) -> None:
    """Measures and prints.

    Raises:
        CheckFailedError: A promise does not hold.
        MissingInputError: There is no GPU, or no tokenizer.
        StepError: The model could not be built.
    """
    parser = cli.parser(__doc__)
    parser.add_argument("--tiny", action="store_true", help="on a CPU, with a tiny model")
    parser.add_argument("--minutes", type=float, help="in all (default 25; with --tiny 2)")
    parser.add_argument("--cell-seconds", type=float, default=240, help="each (default 240)")
    parser.add_argument("--cap", type=float, default=24, help="GiB of the card (default 24)")
    parser.add_argument("--steps", type=int, help="of each cell (default 15; with --tiny 3)")
    parser.add_argument("--only", metavar="PATTERN", help="cells whose name matches")
    parser.add_argument("--again", action="store_true", help="measure anew what is there")
    parser.add_argument("--list", action="store_true", help="print the cells, and run none")
    parser.add_argument("--folder", type=Path, help="where to work (default outputs/bench/gpu)")
    parser.add_argument("--tokenizer", type=Path, help="a model folder to take it from")
    given = parser.parse_args(argv)
    given.steps = given.steps or (3 if given.tiny else 15)
    given.minutes = given.minutes or (2 if given.tiny else 25)
    given.folder = given.folder or resolve(f"outputs/bench/{'tiny' if given.tiny else 'gpu'}")
    candidates = [given.tokenizer, resolve("models/chatglm3-6b"), resolve("models/tiny")]
    given.tokenizer = next((f for f in candidates if f and (f / "tokenizer.json").exists()), None)
    if given.tokenizer is None:
        raise MissingInputError("expected a tokenizer in models/tiny, found none; run: make demo")
    bench = Bench(given)
    if given.list:
        print("\n".join(cell.name for cell in cells(bench.recipes, bench.lengths, fa2=True)))
        return
    shutil.rmtree(given.folder / "saves", ignore_errors=True) if given.again else None
    lines, found, peak = [], {}, 0.0
    for cell, spec, result in bench.all():
        found[cell.name] = result
        if cell.kind == "device":
            peak, head = described(result, given.cap)
            print(f"{head}\n\n{HEAD}", flush=True)
            continue
        lines.append(line(cell, spec, result, peak))
        print(shown(lines[-1]), flush=True)
    table = "\n".join([head, "", HEAD, *map(shown, lines), ""])
    (given.folder / "report.md").write_text(table, encoding="utf-8")
    facts = {"head": head, "lines": [asdict(row) for row in lines], "found": found}
    (given.folder / "report.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
    if failed := broken(lines, found):
        raise CheckFailedError(f"expected {'; '.join(failed)}")


if __name__ == "__main__":
    cli.run(main)
