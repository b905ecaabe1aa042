"""Progress of long work: a bar on a terminal, plain lines in a log."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def progress(label: str, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
    """Yields ``advance(n)``, to be called with the units done since the last call.

    Args:
        label: What is being done, for example ``convert huatuo``.
        total: How many units there are; None when unknown.
        unit: The plural noun of a unit, for example ``rows``.
    """
    shown = _bar if sys.stderr.isatty() else _lines
    with shown(label, total, unit) as advance:
        yield advance


@contextmanager
def _bar(label: str, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    rate = TextColumn("{task.fields[rate]}")
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        rate,
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=total, rate="")
        started, done = time.monotonic(), 0

        def advance(n: int) -> None:
            nonlocal done
            done += n
            per_second = done / max(time.monotonic() - started, 1e-9)
            bar.update(task, advance=n, rate=f"{per_second:,.0f}/s")

        yield advance


@contextmanager
def _lines(label: str, total: int | None, unit: str) -> Iterator[Callable[[int], None]]:
    started = last = time.monotonic()
    done = 0

    def say(now: float) -> None:
        per_second = done / max(now - started, 1e-9)
        line = f"{label}: {done:,}" + (f" of {total:,}" if total else "") + f" {unit}"
        line += f", {per_second:,.1f}/s"
        if total and per_second and done < total:
            line += f", {(total - done) / per_second:,.0f} s left"
        sys.stderr.write(line + "\n")
        sys.stderr.flush()

    def advance(n: int) -> None:
        nonlocal done, last
        done += n
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES:
            last = now
            say(now)

    yield advance
    say(time.monotonic())
