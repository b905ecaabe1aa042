"""Old content or new, never anything between, whatever happens to the writer."""

import hashlib
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from medqa import files
from medqa.errors import TargetError

# Opens `target` for writing, writes half, says so, and waits to be killed.
FILE = """
    with atomic_file(target) as out:
        out.write(b"half")
        out.flush()
        print("half", flush=True)
        time.sleep(60)
"""
FOLDER = """
    with atomic_folder(target, overwrite=True) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "a.txt").write_text("half")
        print("half", flush=True)
        time.sleep(60)
"""
# Killed where the old folder has left and the new one has not come.
BETWEEN = """
    def stop(self, to):
        os.rename(self, to)
        print("half", flush=True)
        time.sleep(60)

    Path.rename = stop
    with atomic_folder(target, overwrite=True) as folder:
        (folder / "a.txt").write_text("half")
"""


def writer(body: str, target: Path) -> subprocess.Popen[bytes]:
    """Starts a process that is in the middle of writing `target` when this returns."""
    head = """
        import os, time
        from pathlib import Path
        from medqa.files import atomic_file, atomic_folder
    """
    code = textwrap.dedent(head) + f"target = Path({str(target)!r})\n" + textwrap.dedent(body)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"half\n"
    return process


def kill(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def fill(folder: Path, text: str) -> None:
    (folder / "a.txt").write_text(text, encoding="utf-8")


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def text_of(folder: Path) -> dict[str, str]:
    return {
        file.relative_to(folder).as_posix(): file.read_text(encoding="utf-8")
        for file in folder.rglob("*")
        if file.is_file()
    }


def test_file_is_written(tmp_path: Path) -> None:
    target = tmp_path / "new" / "a.bin"
    with files.atomic_file(target) as out:
        out.write(b"one")
        assert not target.exists()
    with files.atomic_file(target) as out:
        out.write(b"2")
        assert target.read_bytes() == b"one"
    assert target.read_bytes() == b"2"
    assert names(target.parent) == ["a.bin"]


def test_file_error_inside_leaves_the_old(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    for old in (None, b"old"):
        if old:
            target.write_bytes(old)
        with pytest.raises(RuntimeError, match="inside"), files.atomic_file(target) as out:
            out.write(b"new")
            raise RuntimeError("inside")
        assert names(tmp_path) == (["a.bin"] if old else [])
    assert target.read_bytes() == b"old"


def test_file_killed(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")
    kill(writer(FILE, target))
    assert target.read_bytes() == b"old"
    with files.atomic_file(target) as out:
        out.write(b"n")
    assert target.read_bytes() == b"n"
    assert names(tmp_path) == ["a.bin"]


def test_file_two_writers(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    first = writer(FILE, target)
    with (
        pytest.raises(TargetError, match=r"another process is writing .*a\.bin; wait for it"),
        files.atomic_file(target) as out,
    ):
        out.write(b"second")
    assert (tmp_path / ".a.bin.partial").read_bytes() == b"half"  # the first is not disturbed
    kill(first)
    assert not target.exists()


def test_folder_is_written(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "result"
    with files.atomic_folder(target) as folder:
        fill(folder, "one")
        (folder / "sub").mkdir()
        fill(folder / "sub", "two")
        assert not target.exists()
    assert text_of(target) == {"a.txt": "one", "sub/a.txt": "two"}
    assert names(target.parent) == ["result"]


def test_folder_takes_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "result").mkdir()
    with files.atomic_folder(tmp_path / "result") as folder:
        fill(folder, "one")
    assert text_of(tmp_path / "result") == {"a.txt": "one"}


def test_folder_overwrite(tmp_path: Path) -> None:
    target = tmp_path / "result"
    target.mkdir()
    fill(target, "old")
    (target / "stale.txt").touch()
    with (
        pytest.raises(TargetError, match=r"result exists and is not empty.*--overwrite"),
        files.atomic_folder(target),
    ):
        pytest.fail("nothing may be done before the refusal")
    with files.atomic_folder(target, overwrite=True) as folder:
        fill(folder, "new")
        assert text_of(target)["a.txt"] == "old"
    assert text_of(target) == {"a.txt": "new"}
    assert names(tmp_path) == ["result"]


def test_folder_is_not_written_over_a_file(tmp_path: Path) -> None:
    (tmp_path / "result").write_text("mine", encoding="utf-8")
    with pytest.raises(TargetError), files.atomic_folder(tmp_path / "result"):
        pytest.fail("nothing may be done before the refusal")
    assert (tmp_path / "result").read_text(encoding="utf-8") == "mine"


def test_folder_error_inside_leaves_the_old(tmp_path: Path) -> None:
    target = tmp_path / "result"
    for old in (False, True):
        if old:
            target.mkdir()
            fill(target, "old")
        with (
            pytest.raises(RuntimeError, match="inside"),
            files.atomic_folder(target, overwrite=True) as folder,
        ):
            fill(folder, "new")
            raise RuntimeError("inside")
        assert names(tmp_path) == (["result"] if old else [])
    assert text_of(target) == {"a.txt": "old"}


def test_folder_killed(tmp_path: Path) -> None:
    target = tmp_path / "result"
    target.mkdir()
    fill(target, "old")
    kill(writer(FOLDER, target))
    assert text_of(target) == {"a.txt": "old"}
    with files.atomic_folder(target, overwrite=True) as folder:
        assert not any(folder.iterdir()), "what the killed run wrote is gone"
        fill(folder, "new")
    assert text_of(target) == {"a.txt": "new"}
    assert names(tmp_path) == ["result"]


def test_folder_killed_between_the_renames(tmp_path: Path) -> None:
    target = tmp_path / "result"
    target.mkdir()
    fill(target, "old")
    kill(writer(BETWEEN, target))
    assert not target.exists(), "a rerun finds nothing to trust"
    with files.atomic_folder(target) as folder:
        fill(folder, "new")
    assert text_of(target) == {"a.txt": "new"}
    assert names(tmp_path) == ["result"]


def test_folder_killed_before_the_old_one_is_removed(tmp_path: Path) -> None:
    for name in (".result.old", "result"):
        (tmp_path / name).mkdir()
        fill(tmp_path / name, name)
    with files.atomic_folder(tmp_path / "result", overwrite=True) as folder:
        fill(folder, "new")
    assert text_of(tmp_path / "result") == {"a.txt": "new"}
    assert names(tmp_path) == ["result"]


def test_folder_two_writers(tmp_path: Path) -> None:
    target = tmp_path / "result"
    first = writer(FOLDER, target)
    with (
        pytest.raises(TargetError, match=r"another process is writing .*result; wait for it"),
        files.atomic_folder(target) as folder,
    ):
        fill(folder, "second")
    assert text_of(tmp_path / ".result.partial") == {"sub/a.txt": "half"}
    kill(first)
    assert not target.exists()


def test_a_link_inside_a_killed_folder_is_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    fill(outside, "mine")
    (tmp_path / ".result.partial").mkdir()
    (tmp_path / ".result.partial" / "link").symlink_to(outside)
    with files.atomic_folder(tmp_path / "result") as folder:
        fill(folder, "new")
    assert text_of(outside) == {"a.txt": "mine"}


def test_require_empty(tmp_path: Path) -> None:
    files.require_empty(tmp_path)
    files.require_empty(tmp_path / "absent")
    (tmp_path / "a").touch()
    for taken in (tmp_path, tmp_path / "a"):
        with pytest.raises(TargetError):
            files.require_empty(taken)


def test_sha256(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000
    (tmp_path / "a").write_bytes(content)
    assert files.sha256(tmp_path / "a") == hashlib.sha256(content).hexdigest()
