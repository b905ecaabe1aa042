"""LLaMA-Factory's trainer as a process of its own: started, watched, ended, understood."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from medqa.errors import StepError
from medqa.paths import project_root, shown
from medqa.progress import progress
from medqa.train import checkpoint, steps

LOG = "train.log"
SECONDS_TO_END = 40.0
"""torchrun gives its workers 30 seconds."""

_POLL = 0.5
_ERROR = re.compile(r"^(?:\[rank\d+\]: ?)?[\w.]*(?:Error|Exception|Interrupt|Exit)\b.*")
# What a launcher says of its workers, whose own words are above.
_SECOND_HAND = ("CalledProcessError", "ChildFailedError")
_DISK_FULL = re.compile(
    # What the C library, Rust (safetensors) and PyTorch say; PyTorch does not say why.
    r"No space left on device|StorageFull|Disk quota exceeded|PytorchStreamWriter failed"
    r"|inline_container\.cc:\d+\] \. unexpected pos|basic_ios::clear: iostream error"
)
_NOTHING = 1 << 20  # bytes; a disk with less is full


def run(config: Path, overrides: Sequence[str], target: Path, done: int) -> None:
    """Starts LLaMA-Factory's own launcher, which also spreads over several cards, and watches it.

    Ctrl-C, SIGTERM and SIGHUP end it too, with all it has started. It outlives a ``kill -9`` of
    this process.

    Args:
        config: The recipe.
        overrides: ``key=value`` replacements.
        target: The output folder.
        done: The step from which it goes on.

    Raises:
        StepError: It ended with another exit code than 0.
    """
    command = [sys.executable, "-m", "medqa.train.worker", str(config.resolve()), *overrides]
    binaries = Path(sys.executable).parent
    environment = os.environ | {"PATH": f"{binaries}{os.pathsep}{os.environ.get('PATH', '')}"}
    log = target / LOG
    sys.stderr.write(f"training; LLaMA-Factory's own words: {shown(log)}\n")
    with log.open("ab") as out, _signals_end_this():
        said_before = out.tell()
        process = subprocess.Popen(
            command,
            cwd=project_root(),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            close_fds=False,  # the lock is inherited
            process_group=0,  # signals reach it through us, and then the whole group
        )
        try:
            _watch(process, target, done)
        except BaseException:
            _end(process)
            raise
    if process.returncode:
        with log.open("rb") as words:
            words.seek(said_before)
            said = words.read().decode(errors="replace")
        raise StepError(_why(process.returncode, said, config, target))


def full_disk(target: Path) -> str:
    """Returns one line on a training that could not write: what is kept, and the cure."""
    said = (
        f"the disk of {shown(target)} is full: expected room to write, found "
        f"{_free(target) / 1e6:,.0f} MB free"
    )
    kept = checkpoint.newest_whole(target)
    if kept is None:
        return f"{said}; free some, then run the same command again"
    size = sum(file.stat().st_size for file in kept.folder.rglob("*") if file.is_file()) / 1e6
    return (
        f"{said}; free {size:,.0f} MB or more (a checkpoint), then run the same command again: it "
        f"goes on from {shown(kept.folder)}, which is whole"
    )


def _free(target: Path) -> int:
    """Returns the free bytes of the disk on which `target` is, or would be."""
    there = next(folder for folder in (target, *target.parents) if folder.exists())
    return shutil.disk_usage(there).free


@contextmanager
def _signals_end_this() -> Iterator[None]:
    """Turns signals that would end this process at once into an exit that ends the trainer first.

    Whoever ignores one (nohup) goes on ignoring it.
    """

    def leave(number: int, _: FrameType | None) -> None:
        name = signal.Signals(number).name
        sys.stderr.write(f"ended by {name}; run the same command again to go on\n")
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield  # Python takes signals in the main thread alone
        return
    taken = [
        number
        for number in (signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is signal.SIG_DFL
    ]
    for number in taken:
        signal.signal(number, leave)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Ends the trainer and all that is in its group (torchrun), and waits for that."""
    give_up = time.monotonic() + SECONDS_TO_END
    try:
        os.killpg(process.pid, signal.SIGTERM)
        while time.monotonic() < give_up:
            process.poll()
            os.killpg(process.pid, 0)
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:  # none of them is left
        pass
    process.wait()


def _watch(process: "subprocess.Popen[bytes]", target: Path, done: int) -> None:
    """Shows the steps that LLaMA-Factory's trainer logs until `process` ends."""
    log = target / steps.LOG
    before = len(steps.logged(log))
    while process.poll() is None and len(steps.logged(log)) == before:
        time.sleep(_POLL)
    lines = steps.logged(log)[before:]
    total = lines[-1]["total_steps"] - done if lines else 0
    label = f"train {shown(target)}" + (f", from step {done}" if done else "")
    with progress(label, max(total, 0) or None, "steps") as advance:
        at, ended = done, not lines
        while not ended:
            ended = process.poll() is not None  # asked first: what it logged last is read below
            now = steps.logged(log)[-1]["current_steps"]
            advance(now - at)
            at = now
            if not ended:
                time.sleep(_POLL)
    process.wait()


def _why(code: int, said: str, config: Path, target: Path) -> str:
    """Returns one line on a trainer that failed: its last words, the cure where one is known."""
    log = f"(the whole log: {shown(target / LOG)})"
    if _DISK_FULL.search(said) or _free(target) < _NOTHING:
        return f"{full_disk(target)} {log}"
    if "torch.OutOfMemoryError" in said:
        cure = f"python scripts/budget.py {shown(config)}"
        return f"the GPU's memory ran out; run: {cure}, which says what fits {log}"
    if code < 0:
        name = signal.Signals(-code).name
        cause = ": the machine's memory may have run out" if name == "SIGKILL" else ""
        return (
            f"LLaMA-Factory was ended by {name}{cause}; run the same command again to go on {log}"
        )
    return f"LLaMA-Factory ended with exit code {code}: {_last_words(said)} {log}"


def _last_words(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if re.search(r"\w", line)]
    errors = [
        line
        for line in lines
        if _ERROR.match(line) and not any(name in line for name in _SECOND_HAND)
    ]
    return (errors or lines or ["it said nothing"])[-1]
