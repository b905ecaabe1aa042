"""A bar for people, lines for logs."""

import os
import pty
import subprocess
import sys

import pytest

from medqa import progress

CODE = """
from medqa.progress import progress
with progress("convert huatuo", 1200, "rows") as advance:
    for _ in range(12):
        advance(100)
print("result")
"""


def test_a_log_gets_plain_lines() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert done.stdout == "result\n"
    assert done.stderr.startswith("convert huatuo: 1,200 of 1,200 rows, ")
    assert done.stderr.count("\n") == 1
    assert "\x1b" not in done.stderr
    assert "\r" not in done.stderr


def test_a_terminal_gets_a_bar() -> None:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    process = subprocess.Popen(
        [sys.executable, "-c", CODE], stdout=subprocess.PIPE, stderr=theirs, env=environment
    )
    os.close(theirs)
    seen = b""
    while True:
        try:
            part = os.read(ours, 4096)
        except OSError:  # Linux says so when the other side is closed
            break
        if not part:
            break
        seen += part
    os.close(ours)
    out, _ = process.communicate()
    assert process.returncode == 0
    assert out == b"result\n", "the bar does not mix with the result"
    text = seen.decode()
    assert "\x1b[" in text
    assert "convert huatuo" in text
    assert "1200/1200" in text
    assert "rows" in text
    assert "/s" in text


def test_lines_come_every_few_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter(range(0, 1000, 4))  # each look at the clock is 4 s after the last
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with progress.progress("train", 10, "steps") as advance:
        for _ in range(10):
            advance(1)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "train: 3 of 10 steps, 0.2/s, 28 s left",
        "train: 6 of 10 steps, 0.2/s, 16 s left",
        "train: 9 of 10 steps, 0.2/s, 4 s left",
        "train: 10 of 10 steps, 0.2/s",
    ]


def test_an_unknown_total(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.progress("read", None, "lines") as advance:
        advance(3)
    assert capsys.readouterr().err.startswith("read: 3 lines, ")


def test_an_error_passes(capsys: pytest.CaptureFixture[str]) -> None:
    with (
        pytest.raises(RuntimeError, match="inside"),
        progress.progress("read", 5, "lines") as advance,
    ):
        advance(3)
        raise RuntimeError("inside")
    assert capsys.readouterr().err == ""
