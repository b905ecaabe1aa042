"""A piece of work in a process of its own: what it gives, how long it takes, what it holds.

A part of the benches, not one of them.
"""

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from medqa.errors import CheckFailedError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection


class Measured(NamedTuple):
    """What a piece of work gave, its seconds, and the most memory it held, in bytes."""

    result: Any
    seconds: float
    memory: int


def measured(work: Callable[..., Any], *arguments: object, weigh: bool = False) -> Measured:
    """Runs `work` in a new process, whose words are heard only when it fails.

    Args:
        work: A function of a module, which the process imports.
        arguments: Its arguments.
        weigh: Look 10 times a second how much memory the process and those under it hold.

    Returns:
        Its result; the seconds of the whole process, its start included.

    Raises:
        CheckFailedError: The process ended without a result; it has said why.
    """
    from multiprocessing import get_context

    started, context, memory = time.perf_counter(), get_context("spawn"), 0
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(sender, work, arguments))
    process.start()
    sender.close()
    try:
        while weigh and not receiver.poll(0.1):
            memory = max(memory, held(process.pid or 0))
        result = receiver.recv()
    except EOFError:
        raise CheckFailedError(f"{work.__name__} was expected to end well, but failed") from None
    finally:
        process.join()
    return Measured(result, time.perf_counter() - started, memory)


def _send(
    sender: "Connection[Any, Any]", work: Callable[..., Any], arguments: Sequence[object]
) -> None:
    with tempfile.TemporaryFile() as words:
        said = os.dup(2)
        for stream in (1, 2):
            os.dup2(words.fileno(), stream)
        try:
            sender.send(work(*arguments))
        except BaseException:
            words.seek(0)
            os.write(said, words.read()[-4000:])
            os.dup2(said, 2)  # for the traceback
            raise


def held(pid: int) -> int:
    """Returns the memory of a process and all under it, in bytes; pages of several count once."""
    process, total = Path(f"/proc/{pid}"), 0
    try:
        for line in (process / "smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith("Pss:"):
                total = int(line.split()[1]) * 1024
        threads = (process / "task").glob("*/children")
        children = [child for file in threads for child in file.read_text("ascii").split()]
    except OSError:  # it has ended
        return total
    return total + sum(held(int(child)) for child in children)
