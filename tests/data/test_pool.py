import multiprocessing
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from medqa.data import pool
from medqa.errors import ConfigError, StepError


def touch(file: Path) -> None:
    file.write_text(str(os.getpid()), encoding="utf-8")


def fail(file: Path) -> None:
    if file.name == "1":
        raise StepError("one line")
    time.sleep(60)


def die(file: Path) -> None:
    if file.name == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def files(folder: Path) -> list[Path]:
    return [folder / str(number) for number in range(5)]


def test_every_item_is_done_once_in_other_processes(tmp_path: Path) -> None:
    with pool.local(2) as each:
        assert sorted(each(touch, files(tmp_path))) == files(tmp_path)
        assert list(each(touch, [tmp_path / "alone"])) == [tmp_path / "alone"]
    others = {file.read_text(encoding="utf-8") for file in files(tmp_path)}
    assert str(os.getpid()) not in others and len(others) <= 2
    assert (tmp_path / "alone").read_text(encoding="utf-8") == str(os.getpid())
    assert not multiprocessing.active_children()


def note(folder: Path) -> None:
    (folder / str(os.getpid())).touch()


def test_each_process_begins_with_what_prepares_it(tmp_path: Path) -> None:
    with pool.local(2, partial(note, tmp_path)):
        pass  # they start although there is no item
    assert len(list(tmp_path.iterdir())) == 2


STARTED = """
import multiprocessing, os, sys, tempfile, threading, time
from functools import partial
from medqa.data import pool

folder, threads = os.path.realpath(sys.argv[1]), int(sys.argv[2])
done = threading.Event()
for _ in range(threads):
    threading.Thread(target=done.wait).start()
held = os.open(folder, os.O_RDONLY)  # as a lock is
with pool.local(2, partial(tempfile.mkdtemp, dir=folder)) as each:
    workers = multiprocessing.active_children()
    list(each(os.mkdir, [f"{folder}/{number}" for number in range(5)]))
    while len(os.listdir(folder)) < 5 + 2:  # both workers are prepared
        time.sleep(0.01)
    files = [f"/proc/{w.pid}/fd/{n}" for w in workers for n in os.listdir(f"/proc/{w.pid}/fd")]
    print({type(w).__name__ for w in workers}, folder in map(os.path.realpath, files))
done.set()
"""


@pytest.mark.parametrize(("threads", "kind"), [(0, "ForkProcess"), (1, "SpawnProcess")])
def test_a_process_with_threads_is_not_copied(tmp_path: Path, threads: int, kind: str) -> None:
    command = [sys.executable, "-c", STARTED, str(tmp_path), str(threads)]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    assert told.strip() == f"{{'{kind}'}} False"  # and none holds its parent's files


def test_one_worker_is_this_process(tmp_path: Path) -> None:
    with pool.local(1) as each:
        assert list(each(touch, files(tmp_path))) == files(tmp_path)
    assert (tmp_path / "0").read_text(encoding="utf-8") == str(os.getpid())


@pytest.mark.parametrize(
    ("function", "message"), [(fail, "one line"), (die, "a worker process was killed")]
)
def test_an_error_and_a_killed_worker_end_it_at_once(
    tmp_path: Path, function: object, message: str
) -> None:
    started = time.monotonic()
    with pytest.raises(StepError, match=message), pool.local(2) as each:
        list(each(function, files(tmp_path)))  # type: ignore[arg-type]
    assert time.monotonic() - started < 30
    assert not multiprocessing.active_children()


def test_ray_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'medqa\[ray\]'"), pool.ray(2):
        pass
