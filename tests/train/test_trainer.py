"""The trainer's process: a stand-in takes its place, started, watched and ended in the same way."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from medqa.errors import StepError
from medqa.train import trainer
from tests.train.checkpoints import write_checkpoint

# Runs `trainer.run` with a shell script in the place of LLaMA-Factory.
START = """
import sys
from pathlib import Path
from medqa import cli
from medqa.train import trainer
sys.executable = sys.argv[1]
cli.run(lambda _: trainer.run(Path("configs/r.yaml"), [], Path(sys.argv[2]), 0))
"""


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEDQA_ROOT", str(tmp_path))
    result = tmp_path / "saves/m"
    result.mkdir(parents=True)
    return result


def stand_in(target: Path, script: str) -> Path:
    """Returns a program that is called as ``python -m medqa.train.worker CONFIG ...``."""
    program = target.parent / "python"
    program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    program.chmod(0o755)
    return program


def run(target: Path, script: str, monkeypatch: pytest.MonkeyPatch, done: int = 0) -> None:
    monkeypatch.setattr(trainer.sys, "executable", str(stand_in(target, script)))
    monkeypatch.setattr(trainer, "_POLL", 0.01)
    trainer.run(target.parents[1] / "configs/r.yaml", ["a=1", "b=2"], target, done)


def error(target: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> str:
    with pytest.raises(StepError) as caught:
        run(target, script, monkeypatch)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_it_is_called_in_the_project_with_the_overrides(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(target, 'echo "$PWD: $@"; cat', monkeypatch)
    root = target.parents[1]
    said = (target / "train.log").read_text(encoding="utf-8")
    assert said == f"{root}: -m medqa.train.worker {root}/configs/r.yaml a=1 b=2\n"


def test_its_steps_are_shown_from_where_it_goes_on(
    target: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = target / "trainer_log.jsonl"
    log.write_text('{"current_steps": 10, "total_steps": 30}\n', encoding="utf-8")
    lines = "".join(
        f'echo \'{{"current_steps": {step}, "total_steps": 30}}\' >> {log}; sleep 0.1; '
        for step in (15, 25, 30)
    )
    run(target, lines, monkeypatch, done=10)
    assert "train saves/m, from step 10: 20 of 20 steps" in capsys.readouterr().err


def test_half_a_line_of_its_log_is_no_line(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(target, f"printf '{{\"current_st\\n{{\"cur' > {target}/trainer_log.jsonl", monkeypatch)


def test_it_fails_in_the_words_of_this_run_alone(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (target / "train.log").write_text("KeyError: 'an earlier run'\n", encoding="utf-8")
    said = error(target, "echo; echo ' the last words '; exit 3", monkeypatch)
    assert said == (
        "LLaMA-Factory ended with exit code 3: the last words (the whole log: saves/m/train.log)"
    )
    assert "it said nothing" in error(target, "exit 1", monkeypatch)


def test_the_words_are_the_workers_not_the_launchers(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = """cat <<'END'
[rank1]: Traceback (most recent call last):
[rank1]: ValueError: expected a number
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
subprocess.CalledProcessError: Command '['torchrun']' returned non-zero exit status 1.
  and a line after it
END
exit 1"""
    assert "exit code 1: [rank1]: ValueError: expected a number (" in error(
        target, words, monkeypatch
    )


def test_a_rule_is_no_word(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torchrun frames what it says of a worker that was killed."""
    words = "echo 'traceback : Signal 9 (SIGKILL) received by PID 7'; echo =====; exit 1"
    assert "exit code 1: traceback : Signal 9 (SIGKILL) received by PID 7 (" in error(
        target, words, monkeypatch
    )


def test_out_of_memory_names_the_budget(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = "echo 'torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.'; exit 1"
    said = error(target, words, monkeypatch)
    assert "the GPU's memory ran out; run: python scripts/budget.py configs/r.yaml" in said


def test_a_killed_trainer_is_told_from_a_failed_one(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = error(target, "kill -9 $$", monkeypatch)
    assert said.startswith(
        "LLaMA-Factory was ended by SIGKILL: the machine's memory may have run out; "
        "run the same command again to go on"
    )


@pytest.mark.parametrize(
    "words",
    [
        "OSError: [Errno 28] No space left on device",
        "OSError: [Errno 122] Disk quota exceeded",
        "RuntimeError: [enforce fail at inline_container.cc:668] . unexpected pos 64 vs 0",
        "RuntimeError: [enforce fail at inline_container.cc:815] . PytorchStreamWriter failed "
        "writing file data/3: file write failed",
        "RuntimeError: basic_ios::clear: iostream error",
        "safetensors_rust.SafetensorError: Error while serializing: I/O error: No space left on "
        "device (os error 28)",
    ],
)
def test_a_full_disk_is_told_with_what_is_kept(
    target: Path, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    write_checkpoint(target, 5)
    (target / "checkpoint-10").mkdir()
    said = error(target, f"echo '{words}'; echo after; exit 1", monkeypatch)
    assert said.startswith("the disk of saves/m is full: expected room to write, found ")
    assert (
        "run the same command again: it goes on from saves/m/checkpoint-5, which is whole" in said
    )
    assert (target / "checkpoint-10").is_dir(), "only the next start removes what is torn"


def test_a_full_disk_is_known_without_words(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log lies on the same disk, and ends in the middle of a line."""
    monkeypatch.setattr(trainer, "_free", lambda _: 4096)
    said = error(target, "echo 'File \"/usr/lib/pyth'; exit 1", monkeypatch)
    assert said.startswith(
        "the disk of saves/m is full: expected room to write, found 0 MB free; free some, "
        "then run the same command again ("
    )


def test_the_disk_of_a_folder_that_is_not_there_yet(target: Path) -> None:
    assert trainer._free(target / "not/there") > 0


@pytest.mark.parametrize(
    ("number", "code", "words"),
    [
        (signal.SIGINT, 130, "interrupted; run the same command again to go on"),
        (signal.SIGTERM, 143, "ended by SIGTERM; run the same command again to go on"),
        (signal.SIGHUP, 129, "ended by SIGHUP; run the same command again to go on"),
    ],
)
def test_a_signal_ends_all_that_was_started(
    target: Path, number: signal.Signals, code: int, words: str, request: pytest.FixtureRequest
) -> None:
    """Also what the trainer started (torchrun), and a trainer that takes its time."""
    # Where the tests themselves are run by nohup, what they start would ignore it too.
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    request.addfinalizer(lambda: signal.signal(signal.SIGHUP, before))
    heir = target / "heir"
    script = f"""
    sleep 300 & echo $! > {heir}.new; mv {heir}.new {heir}
    trap 'sleep 0.5; exit 1' TERM
    while true; do sleep 0.1; done"""
    with begun(target, script) as started:
        wait_for(heir.exists)
        started.send_signal(number)
        said = started.communicate(timeout=60)[1]
        assert (started.returncode, said.splitlines()[-1]) == (code, words)
        child = int(heir.read_text(encoding="utf-8"))
        wait_for(lambda: not is_running(child))


def test_nohup_stays_in_force(target: Path) -> None:
    script = f"touch {target}/begun; while ! [ -e {target}/end ]; do sleep 0.05; done"
    with begun(target, script, "nohup") as started:
        wait_for((target / "begun").exists)
        started.send_signal(signal.SIGHUP)
        time.sleep(0.2)
        assert started.poll() is None
        (target / "end").touch()
        assert started.wait(timeout=60) == 0


@contextmanager
def begun(target: Path, script: str, *before: str) -> Iterator["subprocess.Popen[str]"]:
    """A process that runs `trainer.run` on a stand-in; nothing of it is left in the end."""
    arguments = [sys.executable, "-c", START, str(stand_in(target, script)), str(target)]
    with subprocess.Popen(
        [*before, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"MEDQA_ROOT": str(target.parents[1])},
    ) as started:
        left = [psutil.Process(started.pid)]
        try:
            yield started
        finally:
            with contextlib.suppress(psutil.NoSuchProcess):
                left += left[0].children(recursive=True)
            for process in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()


def wait_for(moment: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 60
    while not moment():
        assert time.monotonic() < give_up
        time.sleep(0.01)


def is_running(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2]
    except OSError:
        return False
    return state.split()[0] != "Z"
