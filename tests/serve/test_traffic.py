"""Seats, the queue, deadlines and the end."""

import asyncio

import pytest

from medqa.serve.refusal import Refusal
from medqa.serve.traffic import Traffic


def traffic(concurrency: int = 1, queue: int = 1, timeout: float = 60.0) -> Traffic:
    found = Traffic(concurrency=concurrency, queue=queue, timeout=timeout)
    found.ready = True
    return found


async def sit(road: Traffic, leave: asyncio.Event, order: list[str], name: str) -> None:
    async with road.request(), road.seat():
        order.append(name)
        await leave.wait()


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def test_seats_are_taken_in_the_order_of_coming() -> None:
    async def main() -> None:
        road, leave, order = traffic(concurrency=2, queue=3), asyncio.Event(), []
        sitting = [asyncio.create_task(sit(road, leave, order, name)) for name in "abcde"]
        await settled()
        assert (order, road.running, road.waiting) == (["a", "b"], 2, 3)
        with pytest.raises(Refusal) as caught:
            await sit(road, leave, order, "f")
        assert (caught.value.status, caught.value.code) == (503, "queue_full")
        assert int(caught.value.headers["Retry-After"]) >= 1
        leave.set()
        await asyncio.gather(*sitting)
        assert (order, road.running, road.waiting) == (list("abcde"), 0, 0)

    asyncio.run(main())


def test_whoever_leaves_the_queue_leaves_its_place() -> None:
    async def main() -> None:
        road, leave, order = traffic(), asyncio.Event(), []
        first, second = (asyncio.create_task(sit(road, leave, order, n)) for n in "ab")
        await settled()
        second.cancel()
        await settled()
        assert road.waiting == 0
        third = asyncio.create_task(sit(road, leave, order, "c"))
        await settled()
        assert road.waiting == 1
        leave.set()
        await asyncio.gather(first, third)
        assert order == ["a", "c"]

    asyncio.run(main())


def test_without_a_queue_the_seats_can_still_be_taken() -> None:
    async def main() -> None:
        road, leave = traffic(queue=0), asyncio.Event()
        first = asyncio.create_task(sit(road, leave, [], "a"))
        await settled()
        assert road.running == 1
        with pytest.raises(Refusal, match="1 answers are being computed and 0 wait"):
            await sit(road, leave, [], "b")
        leave.set()
        await first

    asyncio.run(main())


def test_the_deadline_counts_the_time_in_the_queue() -> None:
    async def main() -> None:
        road, leave = traffic(timeout=0.05), asyncio.Event()
        both = [asyncio.create_task(sit(road, leave, [], n)) for n in "ab"]
        for failed in await asyncio.gather(*both, return_exceptions=True):
            assert isinstance(failed, Refusal)
            assert failed.status == 504
        assert (road.running, road.waiting, road.under_way) == (0, 0, 0)

    asyncio.run(main())


def test_a_timeout_of_something_else_is_not_taken_for_ours() -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with traffic().request():
                raise TimeoutError

    asyncio.run(main())


def test_nothing_is_taken_on_before_the_model_is_there() -> None:
    async def main() -> None:
        road = Traffic(concurrency=1, queue=1, timeout=1)
        with pytest.raises(Refusal) as caught:
            await sit(road, asyncio.Event(), [], "a")
        assert (caught.value.status, caught.value.code) == (503, "loading")

    asyncio.run(main())


def test_the_end_waits_for_what_is_under_way_and_takes_nothing_on() -> None:
    async def main() -> None:
        road, leave, order = traffic(queue=2), asyncio.Event(), []
        both = [asyncio.create_task(sit(road, leave, order, n)) for n in "ab"]
        await settled()
        end = asyncio.create_task(road.drain(60))
        await settled()
        with pytest.raises(Refusal) as caught:
            await sit(road, leave, order, "c")
        assert (caught.value.status, caught.value.code) == (503, "shutting_down")
        assert not end.done()
        leave.set()
        await asyncio.gather(end, *both)
        assert order == ["a", "b"]

    asyncio.run(main())


def test_the_end_does_not_wait_for_ever() -> None:
    async def main() -> None:
        road = traffic()
        both = [asyncio.create_task(sit(road, asyncio.Event(), [], n)) for n in "ab"]
        await settled()
        await road.drain(0.01)
        for failed in await asyncio.gather(*both, return_exceptions=True):
            assert isinstance(failed, Refusal)
            assert (failed.status, failed.code) == (503, "shutting_down")
        await road.drain(0.01)  # there is nothing left

    asyncio.run(main())


def test_the_end_does_not_wait_for_what_does_not_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medqa.serve.traffic._LAST_WORDS", 0.01)

    async def stubborn(road: Traffic, leave: asyncio.Event) -> None:
        async with road.request():
            try:
                await asyncio.sleep(60)
            finally:
                await leave.wait()

    async def main() -> None:
        road, leave = traffic(), asyncio.Event()
        one = asyncio.create_task(stubborn(road, leave))
        await settled()
        await road.drain(0.01)
        assert road.under_way == 1
        leave.set()
        with pytest.raises(Refusal):
            await one

    asyncio.run(main())
