"""Many at once, each as if alone; whoever leaves leaves nothing; a failure is one request's."""

import asyncio
import random
import threading
from collections.abc import Coroutine, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any, TypeVar

import pytest

from medqa.serve.engine import Engine, GenerationError, Piece, PromptTooLongError
from tests.adapters import ADAPTER, BASE

from .conftest import STOPS

pytestmark = pytest.mark.slow

LONGEST = 24
SIDES = ("base", "tuned")
Result = TypeVar("Result")


@pytest.fixture(scope="module")
def engine(in_pair: Path) -> Iterator[Engine]:
    engine = Engine(BASE, ADAPTER, seats=4)
    engine.start()
    yield engine
    engine.close()


@pytest.fixture(autouse=True)
def nothing_left(engine: Engine) -> Iterator[None]:
    yield
    assert engine.running == 0


@pytest.fixture(scope="module")
def alone(in_pair: Path, prompts: list[list[int]], tokenizer: Any) -> dict[str, list[Piece]]:
    """What transformers' own `generate` says to each prompt alone."""
    import torch
    from peft import PeftModel
    from transformers import GlmForCausalLM

    def said(model: Any, prompt: list[int]) -> Piece:
        ids = torch.tensor([prompt])
        options = {"max_new_tokens": LONGEST, "do_sample": False, "pad_token_id": 0}
        out = model.generate(ids, attention_mask=torch.ones_like(ids), **options)
        found = out[0, len(prompt) :].tolist()
        cut = found[-1] not in STOPS
        text = tokenizer.decode(found, skip_special_tokens=True)
        text = (text.rstrip("\ufffd") if cut else text).strip()
        return Piece(text, len(found), "length" if cut else "stop")

    model = GlmForCausalLM.from_pretrained(in_pair / BASE).eval()
    found = {"base": [said(model, prompt) for prompt in prompts]}
    model = PeftModel.from_pretrained(model, in_pair / ADAPTER).eval()
    found["tuned"] = [said(model.get_base_model(), prompt) for prompt in prompts]
    assert found["base"] != found["tuned"]
    assert {piece.finish_reason for piece in found["base"]} == {"stop", "length"}
    return found


def long(alone: dict[str, list[Piece]]) -> int:
    """Returns which of the base's answers is cut."""
    return next(n for n, one in enumerate(alone["base"]) if one.tokens == LONGEST)


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """Runs `work`; whatever hangs fails the test."""

    async def bounded() -> Result:
        return await asyncio.wait_for(work, 120)

    return asyncio.run(bounded())


async def ask(engine: Engine, side: str, prompt: list[int], **options: Any) -> Piece:
    """Returns a whole answer as one piece."""
    text, last = "", None
    async with aclosing(
        engine.answer(side, prompt, **({"max_new_tokens": LONGEST} | options))
    ) as pieces:
        async for last in pieces:
            text += last.text
    assert last
    return Piece(text, last.tokens, last.finish_reason)


def test_every_answer_is_the_one_alone(
    engine: Engine, prompts: list[list[int]], alone: dict[str, list[Piece]]
) -> None:
    rng = random.Random(0)
    asked = [(side, n) for side in SIDES for n in range(len(prompts))]
    rng.shuffle(asked)

    async def come(side: str, n: int) -> Piece:
        await asyncio.sleep(rng.random())
        return await ask(engine, side, prompts[n])

    async def everybody() -> list[Piece]:
        return await asyncio.gather(*(come(side, n) for side, n in asked))

    assert run(everybody()) == [alone[side][n] for side, n in asked]


def test_whoever_leaves_stops_their_answer(engine: Engine, prompts: list[list[int]]) -> None:
    async def leave(n: int) -> None:
        async with aclosing(engine.answer("tuned", prompts[1], max_new_tokens=400)) as pieces:
            async for _ in pieces:
                if n % 2:
                    await asyncio.sleep(3600)  # until cancelled
                break

    async def everybody() -> None:
        going = [asyncio.create_task(leave(n)) for n in range(100)]
        await asyncio.sleep(0.2)
        assert engine.running > 0
        for task in going:
            task.cancel()
        await asyncio.gather(*going, return_exceptions=True)
        assert engine.running == 0
        # Their seats are free again.
        assert (await ask(engine, "base", prompts[0])).tokens > 0

    scheduler = engine._scheduler
    assert scheduler
    stops, scheduler.stops = scheduler.stops, frozenset()
    try:
        run(everybody())
    finally:
        scheduler.stops = stops


def test_a_failing_forward_fails_its_own_and_the_next_is_served(
    engine: Engine,
    prompts: list[list[int]],
    alone: dict[str, list[Piece]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch

    scheduler = engine._scheduler
    assert scheduler
    forward = scheduler._sides.model.forward

    def failing(*args: Any, **inputs: Any) -> Any:
        if 511 in inputs["input_ids"]:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return forward(*args, **inputs)

    monkeypatch.setattr(scheduler._sides.model, "forward", failing)

    async def together() -> list[Any]:
        asked = [prompts[0], [5, 511, 6], prompts[1], prompts[2]]
        going = [asyncio.create_task(ask(engine, "tuned", prompt)) for prompt in asked]
        return await asyncio.gather(*going, return_exceptions=True)

    first, second, third, fourth = run(together())
    assert [first, third, fourth] == alone["tuned"][:3]
    assert isinstance(second, GenerationError)
    assert str(second) == "the memory is too small for 1 answers at once; lower concurrency"
    assert not second.__cause__.__traceback__  # which would hold the failed forward's memory


def test_a_failing_step_fails_who_is_seated(
    engine: Engine,
    prompts: list[list[int]],
    alone: dict[str, list[Piece]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scheduler = engine._scheduler
    assert scheduler
    forward, calls = scheduler._sides.model.forward, 0

    def failing(*args: Any, **inputs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise RuntimeError("expected scalar type Half\nbut found Float")
        return forward(*args, **inputs)

    monkeypatch.setattr(scheduler._sides.model, "forward", failing)
    with pytest.raises(GenerationError, match=r"^RuntimeError: expected scalar type Half$"):
        run(ask(engine, "base", prompts[long(alone)]))
    assert run(ask(engine, "base", prompts[1])) == alone["base"][1]


def test_no_room_for_a_seat_is_said_to_whoever_was_to_have_it(
    engine: Engine,
    prompts: list[list[int]],
    alone: dict[str, list[Piece]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch

    from medqa.serve.seats import Seats

    def failing(parts: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(Seats, "joined", failing)
        with pytest.raises(GenerationError, match="too small for 1 answers"):
            run(ask(engine, "base", prompts[long(alone)]))
    assert run(ask(engine, "base", prompts[1])) == alone["base"][1]


def test_a_draw_is_repeatable_and_greedy_neighbours_stay_greedy(
    engine: Engine, prompts: list[list[int]], alone: dict[str, list[Piece]]
) -> None:
    prompt = prompts[long(alone)]

    async def together() -> list[Piece]:
        draw = {"temperature": 1.0, "seed": 1}
        some = [{}, draw, {}, draw | {"top_p": 1e-6}, draw | {"seed": 2}]
        return await asyncio.gather(*(ask(engine, "base", prompt, **one) for one in some))

    greedy, drawn, same, narrow, other = run(together())
    assert greedy == same == narrow == alone["base"][long(alone)]
    assert drawn != greedy
    assert drawn != other
    assert run(ask(engine, "base", prompt, temperature=1.0, seed=1)) == drawn


def test_what_does_not_fit_is_refused(engine: Engine) -> None:
    reach = engine._started().reach
    engine.require_room([5] * (reach - 8), 8)
    with pytest.raises(PromptTooLongError, match=f"takes {reach} tokens, and up to 8 .*{reach}"):
        engine.require_room([5] * reach, 8)
    with pytest.raises(PromptTooLongError):
        run(ask(engine, "base", [5] * reach))


def test_small_memory_makes_wait(
    engine: Engine, prompts: list[list[int]], alone: dict[str, list[Piece]]
) -> None:
    scheduler = engine._scheduler
    assert scheduler
    budget, scheduler._budget = scheduler._budget, 2 * (40 + LONGEST)  # two of the longest

    async def everybody() -> list[Piece]:
        return await asyncio.gather(*(ask(engine, "base", prompt) for prompt in prompts))

    try:
        assert run(everybody()) == alone["base"]
    finally:
        scheduler._budget = budget


def test_what_the_model_asks_for_against_repetition(in_pair: Path, tmp_path: Path) -> None:
    import torch
    from transformers import GenerationConfig, GlmForCausalLM

    model = GlmForCausalLM.from_pretrained(in_pair / BASE).eval()
    model.generation_config = GenerationConfig(
        eos_token_id=2, pad_token_id=0, repetition_penalty=1.3, no_repeat_ngram_size=2
    )
    model.save_pretrained(tmp_path)
    for file in (in_pair / BASE).glob("*token*"):
        (tmp_path / file.name).symlink_to(file)
    engine = Engine(str(tmp_path))
    engine.start()
    try:
        ids = torch.tensor([engine.encode([{"role": "user", "content": "好"}])])
        options = {"max_new_tokens": LONGEST, "do_sample": False}
        out = model.generate(ids, attention_mask=torch.ones_like(ids), **options)
        told = engine._tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
        assert run(ask(engine, "tuned", ids[0].tolist())).text == told.rstrip("\ufffd").strip()
    finally:
        engine.close()


def test_close_ends_everything(in_pair: Path, prompts: list[list[int]]) -> None:
    threads = set(threading.enumerate())
    engine = Engine(BASE, seats=2)
    assert engine.sides == ("tuned",)
    engine.start()
    scheduler = engine._scheduler
    assert scheduler
    scheduler.stops = frozenset()

    async def closed_under_them() -> list[Any]:
        going = [
            asyncio.create_task(ask(engine, "tuned", prompts[n], max_new_tokens=400))
            for n in range(4)
        ]
        await asyncio.sleep(0.1)
        await asyncio.to_thread(engine.close)
        return await asyncio.gather(*going, return_exceptions=True)

    for found in run(closed_under_them()):
        assert isinstance(found, GenerationError)
        assert "shutting down" in str(found)
    assert engine.running == 0
    assert {one for one in threading.enumerate() if one.name == "medqa-engine"} <= threads
    with pytest.raises(GenerationError, match="not running"):
        run(ask(engine, "tuned", prompts[0]))
    engine.close()  # twice is no mistake


def test_a_loop_that_ended_stops_its_answers(engine: Engine, prompts: list[list[int]]) -> None:
    scheduler = engine._scheduler
    assert scheduler
    stops, scheduler.stops = scheduler.stops, frozenset()
    loop = asyncio.new_event_loop()
    pieces = engine.answer("base", prompts[0], max_new_tokens=400)
    loop.run_until_complete(anext(pieces))
    loop.close()
    del pieces
    try:
        for _ in range(600):
            if not engine.running:
                break
            threading.Event().wait(0.1)
    finally:
        scheduler.stops = stops
