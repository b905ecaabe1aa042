"""Where shards are worked on: in this process, in others of this machine, or on a Ray cluster."""

import gc
import multiprocessing
import os
import signal
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from medqa.environment import defaults
from medqa.errors import ConfigError, StepError

MEMORY_BYTES = 31 << 20  # what a worker may keep for its next rows is twice that

Item = TypeVar("Item")


class Each(Protocol):
    """Calls a function with each item and yields the item when that is done, in any order."""

    def __call__(self, function: Callable[[Item], object], items: Sequence[Item]) -> Iterator[Item]:
        """See the class."""


@contextmanager
def local(workers: int, prepare: Callable[[], object] | None = None) -> Iterator[Each]:
    """Yields an `Each` that uses processes of this machine; one item or worker needs none.

    Args:
        workers: Processes.
        prepare: Each process begins with this. With it they start at once, without it when there
            are items.

    Raises:
        StepError: A worker was killed.
    """
    if workers == 1:
        yield _here
        return
    before = set(multiprocessing.active_children())
    forked = prepare is not None and _may_fork() and _shared()
    context = multiprocessing.get_context("fork" if forked else "spawn")
    executor = ProcessPoolExecutor(workers, context, _begin, (prepare, forked))
    with _held_back():
        for _ in range(workers if prepare else 0):
            executor.submit(_nothing)  # it starts a process for each task that finds none idle

    def each(function: Callable[[Item], object], items: Sequence[Item]) -> Iterator[Item]:
        if len(items) < 2:
            yield from _here(function, items)
            return
        try:
            with _held_back():
                futures: dict[Future[object], Item] = {
                    executor.submit(function, item): item for item in items
                }
            for future in as_completed(futures):
                future.result()
                yield futures.pop(future)
        except BrokenProcessPool:
            raise StepError(
                "a worker process was killed, perhaps for want of memory; what is finished is "
                "kept: run the same command again, with workers=1 if memory is short"
            ) from None

    try:
        yield each
        executor.shutdown()
    except BaseException:
        executor.shutdown(wait=False, cancel_futures=True)
        ours = set(multiprocessing.active_children()) - before
        for process in ours:
            process.kill()
        until = time.monotonic() + 5
        while ours & set(multiprocessing.active_children()) and time.monotonic() < until:
            time.sleep(0.01)  # the executor's own thread takes part in the joining
        raise


@contextmanager
def ray(workers: int) -> Iterator[Each]:
    """Yields an `Each` that uses the Ray cluster of ``RAY_ADDRESS``, or a local one.

    The raw files and the folder that is written to must be the same on every machine of it.

    Raises:
        ConfigError: Ray is not installed.
        StepError: The cluster is too small, or a worker of it died.
    """
    try:
        import ray as cluster
        from ray.util.multiprocessing import Pool
    except ImportError:
        raise ConfigError(
            "runner: ray", ["Ray is not installed; run: pip install 'medqa[ray]'"]
        ) from None
    mine = not cluster.is_initialized()
    try:
        try:
            pool = Pool(workers)
        except (ValueError, ConnectionError) as error:
            raise StepError(f"runner: ray: {error}; run with fewer workers") from None

        def each(function: Callable[[Item], object], items: Sequence[Item]) -> Iterator[Item]:
            try:
                yield from pool.imap_unordered(_Call(function), items)
            except cluster.exceptions.RayError as error:
                raise StepError(
                    f"a Ray worker died ({type(error).__name__}); what is finished is kept: run "
                    "the same command again"
                ) from None

        try:
            yield each
        finally:
            pool.terminate()
            pool.join()
    finally:
        if mine:
            cluster.shutdown()


class _Call(Generic[Item]):
    """A function that gives back what it was called with."""

    def __init__(self, function: Callable[[Item], object]) -> None:
        self._function = function

    def __call__(self, item: Item) -> Item:
        self._function(item)
        return item


def _here(function: Callable[[Item], object], items: Sequence[Item]) -> Iterator[Item]:
    for item in items:
        function(item)
        yield item


@contextmanager
def _held_back() -> Iterator[None]:
    """Holds Ctrl-C back, also in processes that start here, until they can answer it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _nothing() -> None:
    pass


def _may_fork() -> bool:
    """Says whether a copy of this process is safe: one thread, in which no lock is held.

    A copy has the rules' patterns compiled, which takes a new process a fifth of a second. It is
    asked when workers start at once, before the libraries are loaded that have threads.
    """
    try:
        return len(list(Path("/proc/self/task").iterdir())) == 1
    except OSError:  # not Linux
        return False


def _shared() -> bool:
    """Loads numpy, once for all copies of this process, and says whether they are safe still."""
    with defaults(OPENBLAS_NUM_THREADS="1"):  # numpy's own threads begin by spinning
        import_module("numpy")
    return _may_fork()


def _begin(prepare: Callable[[], object] | None, forked: bool) -> None:
    """Prepares a worker: Ctrl-C is its parent's to answer, and it does not outlive its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if forked:
        _close_files()
    gc.set_threshold(100_000)  # rows are many and hold no cycles
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    _keep_memory()
    threading.Thread(target=_follow_parent, daemon=True).start()
    if prepare:
        prepare()


def _keep_memory() -> None:
    """Has the allocator keep what a block of rows took for the next block.

    Else it gives that back, and the kernel hands it out again page by page, each one zeroed: a
    tenth of all the time. glibc keeps twice as much as the largest block that it was ever given
    back, up to 32 MiB (mallopt(3), "dynamic mmap threshold"); others do nothing here.
    """
    bytes(MEMORY_BYTES)


def _close_files() -> None:
    """Closes the copies of the parent's files, or its locks would outlast it by a moment."""
    for found in list(Path("/proc/self/fd").iterdir()):
        with suppress(OSError):  # the folder that lists them is closed again
            descriptor = int(found.name)
            mode = os.fstat(descriptor).st_mode
            if descriptor > 2 and (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                os.close(descriptor)


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
