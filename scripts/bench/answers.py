"""Answers a second beside LLaMA-Factory's own prediction, and memory beside the base alone.

    python scripts/bench/answers.py                  # both; asks for the demo's models
    python scripts/bench/answers.py --only speed
    python scripts/bench/answers.py --only memory --folder /big/disk

    speed   the tuned tiny model answers the same 200 questions of data/sample, greedily, once as
            `llamafactory-cli train` with predict_with_generate does it and once as compare does
            it; with LLaMA-Factory's default batch of 8, with ours, and with all in one. Each run
            is a process of its own, they take turns, and the median of three is printed:
            generation alone (theirs: the calls of `generate`; ours: everything from question to
            text, and the adding of the adapter), what LLaMA-Factory reports of itself (with its
            metrics), and the whole process. "ours is" divides by ours with our batch. The last
            line of each length counts the questions that all runs answer with the same text.
    memory  the most memory that a whole comparison holds (answers of both, perplexities, metrics,
            report), beside a process that loads the base with transformers and answers one
            question; for the tiny model and for a random one of 450 MB, made in FOLDER.

Memory is VmHWM: all resident pages, those of files too. Exits with 1 when a promise of
scripts/bench/README.md does not hold.
"""

import json
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from apart import Measured, measured

from medqa import cli
from medqa.errors import CheckFailedError, MissingInputError
from medqa.paths import resolve

PARTS = ("speed", "memory")
MODEL, ADAPTER = "models/tiny", "saves/tiny/lora/sft"
PROBES = ("data/sample/probes_medical.jsonl", "data/sample/probes_general.jsonl")
TEST = "data/processed/sample/test.jsonl"
QUESTIONS = 200
LENGTHS = (48, 128)
DEFAULT_BATCH, OUR_BATCH = 8, 32  # LLaMA-Factory's, and that of configs/tiny/compare.yaml
REPEATS = 3
LARGE = {  # 115 million parameters in float32
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 10,
    "num_attention_heads": 8,
    "head_dim": 128,
}

# The promises.
TIMES_FASTER = 2.0
TIMES_MEMORY = 1.1


class Prediction(NamedTuple):
    """The texts, seconds of generation, and answers a second as LLaMA-Factory reports them."""

    texts: list[str]
    seconds: float
    reported: float | None = None


def theirs(folder: Path, batch: int, longest: int) -> Prediction:
    """Predicts as ``llamafactory-cli train`` does; the data set ``questions`` is in `folder`."""
    from llamafactory.train.tuner import run_exp
    from transformers import GenerationMixin

    seconds, generate = 0.0, GenerationMixin.generate

    def timed(*given: Any, **options: Any) -> Any:
        nonlocal seconds
        started = time.perf_counter()
        found = generate(*given, **options)
        seconds += time.perf_counter() - started
        return found

    GenerationMixin.generate = timed  # type: ignore[method-assign]
    out = folder / "predicted"
    run_exp(
        {
            "model_name_or_path": str(resolve(MODEL)),
            "adapter_name_or_path": str(resolve(ADAPTER)),
            "stage": "sft",
            "do_predict": True,
            "predict_with_generate": True,
            "finetuning_type": "lora",
            "template": "chatglm3",
            "split_special_tokens": True,
            "eval_dataset": "questions",
            "dataset_dir": str(folder),
            "output_dir": str(out),
            "per_device_eval_batch_size": batch,
            "max_new_tokens": longest,
            "do_sample": False,
            "report_to": "none",
        }
    )
    lines = (out / "generated_predictions.jsonl").read_text(encoding="utf-8").split("\n")
    facts = json.loads((out / "predict_results.json").read_text(encoding="utf-8"))
    return Prediction(
        [json.loads(line)["predict"].strip() for line in lines if line],
        seconds,
        facts["predict_samples_per_second"],
    )


def ours(folder: Path, batch: int, longest: int) -> Prediction:
    """Answers as compare does."""
    from medqa.compare.generate import Pair

    questions = [row["instruction"] for row in read(folder / "questions.jsonl")]
    pair = Pair(MODEL, ADAPTER)
    started, texts = time.perf_counter(), [""] * len(questions)
    for some in pair.answers("tuned", questions, max_new_tokens=longest, batch_size=batch):
        for n, answer in some:
            texts[n] = answer.text
    return Prediction(texts, time.perf_counter() - started)


def alone(model: Path) -> int:
    """Loads a model with transformers and answers one question; returns the peak, in bytes."""
    from transformers import AutoTokenizer, GlmForCausalLM

    base: Any = GlmForCausalLM.from_pretrained(model, dtype="auto")
    words = [{"role": "user", "content": "饮酒以后可以服用西地那非吗"}]
    prompt: Any = AutoTokenizer.from_pretrained(model).apply_chat_template(
        words, add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    base.generate(**prompt, max_new_tokens=LENGTHS[0], do_sample=False)
    return peak()


def whole(config: Path) -> int:
    """Makes a whole comparison; returns the peak, in bytes."""
    from medqa.compare import run

    run.compare(config)
    return peak()


def peak() -> int:
    """Returns the most memory that this process has held so far, in bytes."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise CheckFailedError("expected a line VmHWM in /proc/self/status, found none")


def make_large(folder: Path) -> tuple[Path, Path]:
    """Writes a random model of some 450 MB with the tiny one's tokenizer, and an adapter for it."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import GlmConfig, GlmForCausalLM

    base, adapter = folder / "model", folder / "adapter"
    shutil.copytree(resolve(MODEL), base, ignore=shutil.ignore_patterns("*.safetensors", "medqa*"))
    torch.manual_seed(0)
    config: Any = GlmConfig.from_pretrained(base)
    config.update(LARGE)
    build: Any = GlmForCausalLM
    model = build(config)
    model.generation_config.eos_token_id = [2]
    model.save_pretrained(base)
    lora = LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM")
    tuned = get_peft_model(model, lora)
    for name, weight in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.02)
    tuned.save_pretrained(adapter, save_embedding_layers=False)
    return base, adapter


def read(file: Path) -> list[dict[str, Any]]:
    """Returns the rows of a JSON lines file."""
    with file.open("rb") as lines:
        return [json.loads(line) for line in lines]


@contextmanager
def workplace(parent: Path | None) -> Iterator[Path]:
    """Yields a folder with 200 questions of the sample, in seeded disorder, as a data set."""
    with tempfile.TemporaryDirectory(dir=parent) as name:
        folder = Path(name)
        rows = [(row["question"], row["expect"]) for file in PROBES for row in read(resolve(file))]
        rows += [(row["instruction"], row["output"]) for row in read(resolve(TEST))]
        random.Random(0).shuffle(rows)
        with (folder / "questions.jsonl").open("w", encoding="utf-8") as out:
            for question, answer in rows[:QUESTIONS]:
                row = {"instruction": question, "input": "", "output": answer}
                out.write(json.dumps(row, ensure_ascii=False) + "\n")
        columns = {"prompt": "instruction", "query": "input", "response": "output"}
        entry = {"file_name": "questions.jsonl", "columns": columns}
        text = json.dumps({"questions": entry})
        (folder / "dataset_info.json").write_text(text, encoding="ascii")
        yield folder


class Contender(NamedTuple):
    """Who answers, how many at a time, and how."""

    name: str
    batch: int
    work: Callable[[Path, int, int], Prediction]


OURS = Contender("ours", OUR_BATCH, ours)
DEFAULT = Contender("LLaMA-Factory, its default", DEFAULT_BATCH, theirs)
OTHERS = (
    DEFAULT,
    Contender("LLaMA-Factory, our batch", OUR_BATCH, theirs),
    Contender("LLaMA-Factory, all at once", QUESTIONS, theirs),
    Contender("ours, all at once", QUESTIONS, ours),
)


def bench_speed(folder: Path) -> list[str]:
    """Prints the table of speeds and returns the promises that do not hold."""
    print("| longest | who | batch | answers/s | ours is | as reported | process | ours is |")
    print("|---:|---|---:|---:|---:|---:|---:|---:|", flush=True)
    failed = []
    for longest in LENGTHS:
        runs: dict[Contender, list[Measured]] = {one: [] for one in (*OTHERS, OURS)}
        for _ in range(REPEATS):
            for one, found in runs.items():
                found.append(measured(one.work, folder, one.batch, longest))
        generation = {one: _median(m.result.seconds for m in ms) for one, ms in runs.items()}
        process = {one: _median(m.seconds for m in ms) for one, ms in runs.items()}
        for one, found in runs.items():
            reported = [m.result.reported for m in found if m.result.reported]
            cells = [
                str(longest),
                one.name,
                str(one.batch),
                f"{QUESTIONS / generation[one]:.0f}",
                f"{generation[one] / generation[OURS]:.2f}x",
                f"{_median(reported):.0f}" if reported else "",
                f"{process[one]:.1f} s",
                f"{process[one] / process[OURS]:.2f}x",
            ]
            print(f"| {' | '.join(cells)} |", flush=True)
        said = [m.result.texts for found in runs.values() for m in found]
        same = sum(len(set(texts)) == 1 for texts in zip(*said, strict=True))
        print(f"| | | | | | | {same} of {QUESTIONS} texts equal in all runs | |")
        times = generation[DEFAULT] / generation[OURS]
        if times < TIMES_FASTER:
            failed.append(f"{TIMES_FASTER} times the default at {longest}, found {times:.2f}")
    return failed


def _median(values: Iterable[float]) -> float:
    return statistics.median(values)


def bench_memory(folder: Path) -> list[str]:
    """Prints the table of memory and returns the promises that do not hold."""
    large = folder / "large"
    measured(make_large, large)
    print("\n| model | weights | base alone | compare | ratio |")
    print("|---|---:|---:|---:|---:|", flush=True)
    failed = []
    pairs = {
        "tiny": (resolve(MODEL), resolve(ADAPTER)),
        "random": (large / "model", large / "adapter"),
    }
    for name, (model, adapter) in pairs.items():
        weights = (model / "model.safetensors").stat().st_size
        config = folder / f"{name}.yaml"
        probes = folder / "probes.jsonl"
        probes.write_bytes(b"".join(resolve(PROBES[0]).read_bytes().splitlines(True)[:16]))
        said = plan(model, adapter, probes, folder / f"out_{name}")
        config.write_text(json.dumps(said), "utf-8")
        base = measured(alone, model).result
        both = measured(whole, config).result
        sizes = " | ".join(f"{size / 1e6:,.0f} MB" for size in (weights, base, both))
        print(f"| {name} | {sizes} | {both / base:.2f}x |", flush=True)
        if both > TIMES_MEMORY * base:
            failed.append(
                f"{TIMES_MEMORY} times the base's memory ({name}), found {both / base:.2f}"
            )
    return failed


def plan(model: Path, adapter: Path, probes: Path, out: Path) -> dict[str, Any]:
    """Returns a compare YAML as small as one that does everything can be."""
    return {
        "model_name_or_path": str(model),
        "adapter_name_or_path": str(adapter),
        "test_file": str(resolve(TEST)),
        "test_rows": 16,
        "answer_rows": 16,
        "cutoff_len": 256,
        "probes": {"medical": str(probes)},
        "questions": ["饮酒以后可以服用西地那非吗"],
        "max_new_tokens": LENGTHS[0],
        "batch_size": 8,
        "output_dir": str(out),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Measures and prints.

    Raises:
        CheckFailedError: A promise does not hold.
        MissingInputError: The demo has not been run.
    """
    parser = cli.parser(__doc__)
    parser.add_argument("--only", choices=PARTS, help="one part of the two")
    parser.add_argument("--folder", type=Path, help="where to work (default: the system's own)")
    given = parser.parse_args(argv)
    for needed in (f"{MODEL}/config.json", f"{ADAPTER}/adapter_model.safetensors", *PROBES, TEST):
        if not resolve(needed).is_file():
            raise MissingInputError(f"{needed} does not exist; run: make demo")
    failed = []
    with workplace(given.folder) as folder:
        if given.only in (None, "speed"):
            failed += bench_speed(folder)
        if given.only in (None, "memory"):
            failed += bench_memory(folder)
    if failed:
        raise CheckFailedError(f"expected {'; '.join(failed)}")


if __name__ == "__main__":
    cli.run(main)
