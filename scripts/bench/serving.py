"""Answers a second beside LLaMA-Factory's API, and what a server holds under load.

    python scripts/bench/serving.py                   # both servers, 32 clients; about 10 minutes
    python scripts/bench/serving.py --questions 64    # sooner
    python scripts/bench/serving.py --load 180        # the tiny model, 32 streaming clients

    beside  a random model of about 100 million parameters in float32, made in a folder that is
            removed afterwards, with the tiny model's tokenizer; 32 clients ask fixed questions,
            greedily, answers cut at 64 tokens: plain `llamafactory-cli api` first, then
            scripts/serve.py. One server at a time, each on a free port of 127.0.0.1, each warmed
            up by one answer. Every one of our answers is compared with what transformers'
            `generate` says to the question alone.
    load    scripts/serve.py on the demo's base and adapter; clients ask at once again when
            answered, and wait as told when refused with 503. Memory is the server's resident
            set, after the first sixth of the time and at the end.

Exits with 1 when a promise of scripts/bench/README.md does not hold.
"""

import asyncio
import itertools
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from medqa import cli
from medqa.errors import CheckFailedError, MissingInputError
from medqa.paths import project_root, resolve

CLIENTS = 32
LONGEST = 64
QUESTIONS = 96
TOKENIZER = "models/tiny"
TINY = ("models/tiny", "saves/tiny/lora/sft")
PROBES = ("data/sample/probes_medical.jsonl", "data/sample/probes_general.jsonl")
SHAPE = {  # 96 million parameters with the tiny vocabulary
    "hidden_size": 768,
    "intermediate_size": 2688,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "head_dim": 64,
}
PATIENCE = 300.0  # seconds for a server to be ready, or to answer

# The promises.
TIMES_FASTER = 4.0
MEMORY_GROWTH = 1.05


class Heard(NamedTuple):
    """What a client heard: text, tokens, seconds to the first token and to the last."""

    text: str
    tokens: int
    first: float
    whole: float


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    options = cli.parser(__doc__)
    options.add_argument("--load", type=float, metavar="SECONDS", help="the load test instead")
    options.add_argument("--questions", type=int, default=QUESTIONS, metavar="N")
    given = options.parse_args(argv)
    for name in (TOKENIZER, *TINY, *PROBES):
        if not resolve(name).exists():
            raise MissingInputError(f"{name} is not there; run: make demo")
    if given.load:
        load(given.load)
    else:
        beside(given.questions)


def beside(count: int) -> None:
    """Measures both servers on the same questions; raises CheckFailedError."""
    asked = questions(count)
    with tempfile.TemporaryDirectory(prefix="medqa-bench-") as folder:
        made = Path(folder) / "model"
        parameters = write_model(made)
        print(f"{parameters / 1e6:.0f} M parameters, float32; {count} questions, {CLIENTS} clients")
        print(f"answers of {LONGEST} tokens at most; {surroundings()}", flush=True)
        alone = one_by_one(made, asked)
        rates = {}
        for name, server in (("llamafactory-cli api", theirs), ("scripts/serve.py", ours)):
            with server(made) as address:
                heard, seconds = asyncio.run(answered(address, asked))
            rates[name] = count / seconds
            same = sum(one.text.strip() == text for one, text in zip(heard, alone, strict=True))
            told = f"{rates[name]:6.2f} answers/s   {same} of {count} as one by one"
            print(f"{name:20}{told}", flush=True)
    ratio = rates["scripts/serve.py"] / rates["llamafactory-cli api"]
    print(f"ratio {ratio:.1f}")
    if ratio < TIMES_FASTER:
        raise CheckFailedError(f"{ratio:.1f} times as fast, promised {TIMES_FASTER:g}")
    if same < count:
        raise CheckFailedError(f"{count - same} answers differ from those given one by one")


def load(seconds: float) -> None:
    """Asks the tiny model for so long; raises CheckFailedError."""
    asked = questions(10_000)
    print(f"{CLIENTS} streaming clients for {seconds:g} s on the tiny model; {surroundings()}")
    with serving(TINY[0], TINY[1], max_new_tokens=LONGEST) as (address, process):
        seen = asyncio.run(hammered(address, asked, seconds, process.pid))
    heard, refused, errors, warm, end = seen
    firsts = sorted(one.first for one in heard)
    rate, tokens = len(heard) / seconds, sum(one.tokens for one in heard) / seconds
    print(f"answers {len(heard)}, {rate:.1f} a second, {tokens:.0f} tokens a second")
    print(f"errors {sum(errors.values())} {dict(errors)}, announced 503s {refused}")
    p50, p99 = statistics.median(firsts), firsts[int(len(firsts) * 0.99)]
    print(f"first token: p50 {p50 * 1e3:.0f} ms, p99 {p99 * 1e3:.0f} ms")
    print(f"memory: {warm} MiB after warm-up, {end} MiB at the end, {end / warm - 1:+.1%}")
    if errors:
        raise CheckFailedError(f"{sum(errors.values())} errors besides announced 503s")
    if end > MEMORY_GROWTH * warm:
        raise CheckFailedError(f"memory grew from {warm} to {end} MiB")


def questions(count: int) -> list[str]:
    """Returns so many of the probes' questions, in a fixed order, repeated where they run out."""
    found = []
    for name in PROBES:
        lines = resolve(name).read_text(encoding="utf-8").splitlines()
        found += [str(json.loads(line)["question"]) for line in lines]
    random.Random(0).shuffle(found)
    return list(itertools.islice(itertools.cycle(found), count))


def write_model(folder: Path) -> int:
    """Writes a random native model with the tiny model's tokenizer; returns its size."""
    import torch
    from transformers import AutoTokenizer, GlmConfig, GlmForCausalLM

    tokenizer: Any = AutoTokenizer.from_pretrained(resolve(TOKENIZER))
    stops = tokenizer.convert_tokens_to_ids(["</s>", "<|user|>", "<|observation|>"])
    torch.manual_seed(0)
    config = GlmConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=2048,
        attention_bias=True,
        pad_token_id=0,
        eos_token_id=stops,
        **SHAPE,  # type: ignore[arg-type]
    )
    model: Any = GlmForCausalLM(config)  # type: ignore[no-untyped-call]
    model.generation_config.eos_token_id = stops
    model.generation_config.pad_token_id = 0
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return sum(weight.numel() for weight in model.parameters())


def one_by_one(folder: Path, asked: Sequence[str]) -> list[str]:
    """Returns what `generate` says to each question alone, greedily."""
    import torch
    from transformers import AutoTokenizer, GlmForCausalLM

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = GlmForCausalLM.from_pretrained(folder)
    said: dict[str, str] = {}
    for question in dict.fromkeys(asked):
        chat = [{"role": "user", "content": question}]
        ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt")
        with torch.inference_mode():
            out = model.generate(**ids, max_new_tokens=LONGEST, do_sample=False)
        new = out[0, ids["input_ids"].shape[1] :]
        said[question] = tokenizer.decode(new, skip_special_tokens=True).rstrip("\ufffd").strip()
    return [said[question] for question in asked]


@contextmanager
def theirs(model: Path) -> Iterator[str]:
    """Runs LLaMA-Factory's API on `model`."""
    port = free_port()
    values = {
        "model_name_or_path": str(model),
        "template": "chatglm3",
        "split_special_tokens": True,
        "infer_backend": "huggingface",
        "infer_dtype": "float32",
        "do_sample": False,
        "max_new_tokens": LONGEST,
    }
    config = model.parent / "theirs.yaml"
    config.write_text(json.dumps(values), encoding="utf-8")
    command = [str(Path(sys.executable).with_name("llamafactory-cli")), "api", str(config)]
    environment = {"API_HOST": "127.0.0.1", "API_PORT": str(port), "DISABLE_VERSION_CHECK": "1"}
    with running(command, environment, model.parent / "theirs.log", port, "/v1/models"):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def ours(model: Path) -> Iterator[str]:
    """Runs scripts/serve.py on `model`."""
    with serving(str(model), None, max_new_tokens=LONGEST) as (address, _):
        yield address


@contextmanager
def serving(
    model: str, adapter: str | None, *, max_new_tokens: int
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Runs scripts/serve.py; yields its address and its process."""
    port = free_port()
    values = {
        "model_name_or_path": model,
        "adapter_name_or_path": adapter or "null",
        "port": port,
        "guard": "null",
        "max_new_tokens": max_new_tokens,
        "concurrency": CLIENTS,
        "request_timeout": PATIENCE,
    }
    script, config = project_root() / "scripts/serve.py", "configs/tiny/serve.yaml"
    command = [sys.executable, str(script), config, *(f"{k}={v}" for k, v in values.items())]
    with (
        tempfile.TemporaryDirectory() as folder,
        running(command, {}, Path(folder) / "ours.log", port, "/ready") as process,
    ):
        yield f"http://127.0.0.1:{port}", process


@contextmanager
def running(
    command: Sequence[str], environment: Mapping[str, str], log: Path, port: int, ready: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a server until the block ends, from when it says that it is ready."""
    import httpx

    with log.open("wb") as out:
        process = subprocess.Popen(
            command, env=os.environ | environment, stdout=out, stderr=out, cwd=project_root()
        )
    try:
        begun = time.monotonic()
        while True:
            try:
                if httpx.get(f"http://127.0.0.1:{port}{ready}", timeout=5).status_code == 200:
                    break
            except httpx.TransportError:
                pass
            if process.poll() is not None or time.monotonic() - begun > PATIENCE:
                said = log.read_text(encoding="utf-8", errors="replace")[-2000:]
                raise CheckFailedError(f"{command[1]} did not start: {said}")
            time.sleep(0.5)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()


async def answered(address: str, asked: Sequence[str]) -> tuple[list[Heard], float]:
    """Asks everything with CLIENTS clients; returns answers in order and the seconds for all."""
    async with client(address) as (http, model):
        await hear(http, model, asked[0])
        left = iter(enumerate(asked))
        found: dict[int, Heard] = {}

        async def one() -> None:
            for n, question in left:
                found[n] = await hear(http, model, question)

        begun = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(CLIENTS)))
        seconds = time.perf_counter() - begun
    return [found[n] for n in range(len(asked))], seconds


async def hammered(
    address: str, asked: Sequence[str], seconds: float, pid: int
) -> tuple[list[Heard], int, Counter[str], int, int]:
    """Asks for so long; returns answers, announced 503s, errors, and memory (MiB) twice."""
    import httpx

    heard: list[Heard] = []
    refused, errors = 0, Counter[str]()
    async with client(address) as (http, model):
        await hear(http, model, asked[0])
        left, end = itertools.cycle(asked), time.monotonic() + seconds
        sides = [model, f"{model}-base"]

        async def one(n: int) -> None:
            nonlocal refused
            while time.monotonic() < end:
                try:
                    heard.append(await hear(http, sides[n % 2], next(left)))
                except httpx.HTTPStatusError as error:
                    wait = error.response.headers.get("Retry-After")
                    if error.response.status_code != 503 or wait is None:
                        errors[str(error.response.status_code)] += 1
                        wait = 1
                    else:
                        refused += 1
                    await asyncio.sleep(float(wait))
                except (httpx.TransportError, ValueError) as error:
                    errors[type(error).__name__] += 1

        async def after(wait: float) -> int:
            await asyncio.sleep(wait)
            return resident(pid)

        warm = asyncio.create_task(after(seconds / 6))
        await asyncio.gather(*(one(n) for n in range(CLIENTS)))
        return heard, refused, errors, await warm, resident(pid)


@asynccontextmanager
async def client(address: str) -> AsyncIterator[tuple[Any, str]]:
    """Yields an HTTP client and the name of the first model."""
    import httpx

    limits = httpx.Limits(max_connections=CLIENTS)
    async with httpx.AsyncClient(base_url=address, timeout=PATIENCE, limits=limits) as http:
        yield http, (await http.get("/v1/models")).json()["data"][0]["id"]


async def hear(http: Any, model: str, question: str) -> Heard:
    """Asks one question and listens to the stream."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": question}],
        "temperature": 0,
        "max_tokens": LONGEST,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    begun, first, text, tokens, done = time.perf_counter(), 0.0, "", 0, False
    async with http.stream("POST", "/v1/chat/completions", json=body) as response:
        if response.status_code != 200:
            await response.aread()
            response.raise_for_status()
        async for line in response.aiter_lines():
            if not line.startswith("data: "):
                continue
            if line == "data: [DONE]":
                done = True
                break
            chunk = json.loads(line[6:])
            if "error" in chunk:
                raise ValueError(chunk["error"]["message"])
            tokens = (chunk.get("usage") or {}).get("completion_tokens") or tokens
            said = "".join(c["delta"].get("content") or "" for c in chunk["choices"])
            if said and not first:
                first = time.perf_counter() - begun
            text += said
    if not done:
        raise ValueError("the stream ended early")
    return Heard(text, tokens, first, time.perf_counter() - begun)


def resident(pid: int) -> int:
    """Returns the resident set of a process in MiB."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) // 1024


def free_port() -> int:
    """Returns a port that was free just now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def surroundings() -> str:
    """Says what else the machine does."""
    threads = os.environ.get("OMP_NUM_THREADS", "unset")
    return f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, OMP_NUM_THREADS {threads}"


if __name__ == "__main__":
    cli.run(main)
