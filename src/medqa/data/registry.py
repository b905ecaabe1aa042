"""LLaMA-Factory's ``data/dataset_info.json``: our entries in, all others as they were.

LLaMA-Factory opens the file without naming an encoding, so it is written in ASCII; and once
``columns`` is given it takes no default for the rest, so all that it needs are named
(``llamafactory/data/parser.py``, 0.9.5). Preferences are ``ranking`` rows, for its stages ``dpo``
and ``rm``; text, for ``pt``, is a prompt without a response.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from medqa.data.rows import Kind
from medqa.errors import DataError, TargetError
from medqa.files import atomic_file
from medqa.paths import dataset_info, shown

_ASKED = {"prompt": "instruction", "query": "input"}
LAYOUTS: Mapping[Kind, Mapping[str, Any]] = {
    "pairs": {"columns": {**_ASKED, "response": "output"}},
    "preference": {
        "ranking": True,
        "columns": {**_ASKED, "chosen": "chosen", "rejected": "rejected"},
    },
    "text": {"columns": {"prompt": "text"}},
}


def read() -> dict[str, Any]:
    """Returns the registry; empty when there is none yet.

    Raises:
        DataError: The file is not a JSON object. It is left as it is.
    """
    file = dataset_info()
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise _broken(file, str(error)) from None
    if not isinstance(entries, dict):
        raise _broken(file, f"holds a {type(entries).__name__}")
    return entries


def register(files: Mapping[str, Path], *, kind: Kind = "pairs", overwrite: bool = False) -> bool:
    """Enters data sets under their names, waiting for other processes that do the same.

    A file without rows gets no entry, and loses the one it had: LLaMA-Factory fails on it.

    Args:
        files: Name to its file in the data folder.
        kind: What their rows are.
        overwrite: Replace an entry of the same name that points to another file.

    Returns:
        Whether anything had to be changed.

    Raises:
        DataError: The registry is not a JSON object. It is left as it is.
        TargetError: A name is taken by another file.
    """
    with _locked(dataset_info().parent):
        entries = read()
        wanted = _merged(entries, files, kind, overwrite)
        for name, file in files.items():
            if not file.stat().st_size:
                del wanted[name]
        if wanted == entries:
            return False
        with atomic_file(dataset_info()) as out:
            out.write((json.dumps(wanted, ensure_ascii=True, indent=2) + "\n").encode("ascii"))
    return True


def require_free(files: Mapping[str, Path]) -> None:
    """Raises TargetError if a name in `files` is registered for another file, before any work."""
    _merged(read(), files, "pairs", overwrite=False)


def _merged(
    entries: Mapping[str, Any], files: Mapping[str, Path], kind: Kind, overwrite: bool
) -> dict[str, Any]:
    wanted = dict(entries)
    for name, file in files.items():
        file_name = file.relative_to(dataset_info().parent).as_posix()
        present = entries.get(name, {})
        taken = present.get("file_name") if isinstance(present, dict) else present
        if name in entries and taken != file_name and not overwrite:
            raise TargetError(
                f"{shown(dataset_info())} already has an entry {name!r} for {taken or 'no file'}; "
                "choose another name, or add --overwrite to replace it"
            )
        wanted[name] = {"file_name": file_name, **LAYOUTS[kind]}
    return wanted


def _broken(file: Path, seen: str) -> DataError:
    return DataError(
        f"{shown(file)} must be a JSON object of data sets, found: {seen}; mend it, or delete it "
        "and convert each data set again"
    )


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Holds the folder's lock; the system frees it when the holder dies, however it dies."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
