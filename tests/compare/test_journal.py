"""What was added is there after a kill at any instant; what was torn, or is another's, is not."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from medqa.compare.generate import Answer
from medqa.compare.journal import open_journal
from medqa.errors import TargetError

from .conftest import PLAN

BATCHES = [
    [(3, Answer("a", 1, True)), (0, Answer("b\u2028\n\ud800😀", 2, False))],
    [(1, Answer("", 3, True))],
]
KEPT = {3: ["a", 1, True], 0: ["b\u2028\n\ud800😀", 2, False], 1: ["", 3, True]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outputs" / ".tiny.journal"


@pytest.fixture
def written(path: Path) -> bytes:
    with open_journal(path, "k") as journal:
        for batch in BATCHES:
            journal.add("base answers", batch)
    return path.read_bytes()


def kept(path: Path, key: str = "k") -> dict[int | str, object]:
    with open_journal(path, key) as journal:
        return dict(journal.kept("base answers"))


def test_it_keeps(path: Path, written: bytes) -> None:
    assert kept(path) == KEPT
    assert path.read_bytes() == written


def test_the_same_while_it_is_written_and_when_read_again(path: Path) -> None:
    with open_journal(path, "k") as journal:
        live = journal.kept("base answers")
        journal.add("tuned losses", [(7, (0.1 + 0.2, 5))])
        assert live == {}
        for batch in BATCHES:
            journal.add("base answers", batch)
        assert live == KEPT
        journal.add("judge", [("digest", {"outcome": "win", "order": [1, 2]})])
    with open_journal(path, "k") as journal:
        assert journal.kept("tuned losses") == {7: [0.1 + 0.2, 5]}
        assert journal.kept("judge") == {"digest": {"outcome": "win", "order": [1, 2]}}
        assert journal.kept("unheard of") == {}


def test_it_is_on_disk_before_add_returns(path: Path) -> None:
    with open_journal(path, "k") as journal:
        for n in range(3):
            journal.add("base answers", [(n, n)])
            assert path.read_bytes().count(b"\n") == n + 2


def test_torn_anywhere(path: Path, written: bytes) -> None:
    """A kill while the last line is written; what is added after it must be readable too."""
    first, second = written.index(b"\n") + 1, written.index(b"\n", written.index(b"\n") + 1) + 1
    for end in range(len(written)):
        path.write_bytes(written[:end])
        expected = {} if end < second else {n: KEPT[n] for n in (3, 0)}
        assert kept(path) == expected, end
        with open_journal(path, "k") as journal:
            journal.add("base answers", [(9, 9)])
        assert kept(path) == expected | {9: 9}, end
    assert first < second < len(written)


@pytest.mark.parametrize(
    "line",
    [b"\x00\x00\x00\n", b"{}\n", b"[]\n", b"\xff\n", b'{"part": "base answers", "rows": 3}\n'],
)
def test_what_follows_a_bad_line_is_dropped(path: Path, written: bytes, line: bytes) -> None:
    head, one, two = written.splitlines(keepends=True)
    path.write_bytes(head + one + line + two)
    assert kept(path) == {n: KEPT[n] for n in (3, 0)}
    assert path.read_bytes() == head + one


@pytest.mark.parametrize("other", ["K", "k2", "", 'k"'])
def test_another_key_starts_anew(path: Path, written: bytes, other: str) -> None:
    assert kept(path, other) == {}
    assert json.loads(path.read_bytes())["key"] == other
    assert kept(path) == {}, "and the first key's answers are gone"


def test_what_is_no_journal_is_replaced(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"\x00binary, no line end")
    assert kept(path) == {}
    assert kept(path) == {}


def test_a_second_process_is_kept_out(path: Path, written: bytes) -> None:
    with open_journal(path, "k") as journal:
        with (
            pytest.raises(TargetError, match="another process is writing"),
            open_journal(path, "another key"),
        ):
            pass
        journal.add("base answers", [(4, 4)])
    assert kept(path) == KEPT | {4: 4}


def test_removed(path: Path, written: bytes) -> None:
    with open_journal(path, "k") as journal:
        journal.remove()
        journal.remove()
        assert not path.exists()
    assert kept(path) == {}


ASK = """
import os, signal, sys
from pathlib import Path
from medqa.compare import generate
from medqa.compare.journal import open_journal

generate.GROUP = 2  # the kill comes in the middle of a group, and after one
path, kills = Path(sys.argv[1]), int(sys.argv[2])
questions = [f"{n}号病人{'咳嗽' * (n % 7)}怎么办？" for n in range(24)]
pair = generate.Pair(sys.argv[3], sys.argv[4])
generate._stops = lambda model: set(range(0, 1024, 9))
with open_journal(path, "key") as journal:
    for side in generate.SIDES:
        kept = journal.kept(side)
        for batch in pair.answers(side, questions, max_new_tokens=16, batch_size=4, kept=kept):
            journal.add(side, batch)
            kills -= 1
            if not kills:
                os.kill(os.getpid(), signal.SIGKILL)
        assert sorted(kept) == list(range(24))
"""


@pytest.mark.slow
def test_killed_and_begun_again_it_says_the_same(project: Path, root: Path) -> None:
    def ask(name: str, kills: int) -> int:
        words = [str(project / name), str(kills), PLAN["model_name_or_path"]]
        # bitsandbytes, which PEFT imports where it is installed, has a warning of its own.
        known = "ignore:`torch.jit.script:DeprecationWarning"
        python = [sys.executable, "-W", "error", "-W", known]
        done = subprocess.run(
            [*python, "-c", ASK, *words, PLAN["adapter_name_or_path"]],
            cwd=root,
            env=os.environ | {"MEDQA_ROOT": str(project)},
            stderr=subprocess.PIPE,
        )
        assert done.returncode in (0, -signal.SIGKILL), done.stderr.decode()
        return done.returncode

    assert ask("whole", 0) == 0
    batches = (project / "whole").read_bytes().count(b"\n") - 1
    for kills, part in ((3, "base"), (batches - 6, "tuned")):
        assert ask("killed", kills) == -signal.SIGKILL
        assert json.loads((project / "killed").read_bytes().splitlines()[-1])["part"] == part
    assert ask("killed", 0) == 0
    with (
        open_journal(project / "whole", "key") as whole,
        open_journal(project / "killed", "key") as killed,
    ):
        for side in ("base", "tuned"):
            assert killed.kept(side) == whole.kept(side)
            assert len({tuple(answer) for answer in whole.kept(side).values()}) > 12
