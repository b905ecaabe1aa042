"""Writing so that a kill at any instant leaves either the old file or the new one."""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from medqa.errors import TargetError
from medqa.paths import shown


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Opens a temporary neighbour of `path`; fsync and rename on success, removed on an error.

    Raises:
        TargetError: Another process is writing the same file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    with temporary.open("ab") as out:
        _lock(out.fileno(), temporary, path)
        out.truncate(0)
        try:
            yield out
            out.flush()
            os.fsync(out.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    _fsync(path.parent)


@contextmanager
def atomic_folder(target: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yields a new empty folder beside `target` that takes its name when the block ends well.

    A folder left by a killed run is removed first, so nothing of it is ever trusted.

    Raises:
        TargetError: `target` is not empty and `overwrite` is false, or another process is at it.
    """
    if target.exists() and not overwrite:
        require_empty(target)
    staging = target.with_name(f".{target.name}.partial")
    staging.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(staging, os.O_RDONLY)
    try:
        _lock(descriptor, staging, target)
        clear(staging)
        try:
            yield staging
            for file in staging.rglob("*"):
                if file.is_file():
                    _fsync(file)
            _take_place(staging, target)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
    finally:
        os.close(descriptor)
    _fsync(target.parent)


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Keeps other processes out of `folder` while the block runs.

    Raises:
        TargetError: Another process is at it.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        _lock(descriptor, folder, folder)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def locked_file(path: Path) -> Iterator[BinaryIO]:
    """Opens `path` for reading and appending, made when absent, and keeps other processes out.

    Raises:
        TargetError: Another process is at it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        _lock(file.fileno(), path, path)
        yield file


def require_empty(target: Path) -> None:
    """Raises TargetError if `target` is a file or a folder that holds anything."""
    if target.is_dir() and not any(target.iterdir()):
        return
    if target.exists():
        raise TargetError(
            f"{shown(target)} exists and is not empty; choose another place, "
            "or add --overwrite to replace it"
        )


def sha256(path: Path) -> str:
    """Returns the SHA-256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _take_place(staging: Path, target: Path) -> None:
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    staging.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def clear(folder: Path) -> None:
    """Removes everything in `folder`, and not the folder."""
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _lock(descriptor: int, temporary: Path, path: Path) -> None:
    """Takes the lock, which the system frees when the holder dies, however it dies."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Another process may have renamed it to its final name between open and lock.
        held = os.fstat(descriptor).st_ino == temporary.stat().st_ino
    except OSError:
        held = False
    if not held:
        raise TargetError(
            f"another process is writing {shown(path)}; wait for it, then run this again"
        )


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
