"""What a long run has already paid for: kept through a kill, and taken up by the next run."""

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from medqa.files import locked_file


class Journal:
    """Results by part and row, each added batch a line of a file that is only appended to.

    Made by `open_journal`; for one thread.
    """

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path = path
        self._file = file
        self._kept: dict[str, dict[int | str, Any]] = {}

    def kept(self, part: str) -> Mapping[int | str, Any]:
        """Returns row to JSON value (lists for tuples) of `part`; it grows with `add`."""
        return self._kept.setdefault(part, {})

    def add(self, part: str, batch: Iterable[tuple[int | str, Any]]) -> None:
        """Adds a batch whole or not at all; it then outlives this process.

        Args:
            part: What the rows are of, such as ``base answers``.
            batch: Row and value; a value is JSON or a dataclass, which is kept as a list.
        """
        line = json.dumps({"part": part, "rows": list(batch)}, default=dataclasses.astuple)
        self._file.write(line.encode() + b"\n")
        self._file.flush()
        self._take(json.loads(line))

    def remove(self) -> None:
        """Removes the file: its results now stand elsewhere."""
        self._path.unlink(missing_ok=True)

    def _take(self, line: Any) -> None:
        self._kept.setdefault(line["part"], {}).update(line["rows"])


@contextmanager
def open_journal(path: Path, key: str) -> Iterator[Journal]:
    """Opens the journal at `path`, empty unless it was begun with the same `key`.

    What a kill left half-written is dropped, with all that follows it.

    Args:
        path: The file; a neighbour of the result, since the result's folder appears at the end.
        key: Digest of all that the results depend on: inputs and settings.

    Raises:
        TargetError: Another process is at it.
    """
    head = json.dumps({"medqa_journal": 1, "key": key}).encode() + b"\n"
    with locked_file(path) as file:
        journal = Journal(path, file)
        file.seek(0)
        sound = file.readline()
        if sound != head:
            file.truncate(0)
            file.write(head)
            file.flush()
        else:
            end = len(head)
            for line in file:
                try:
                    if not line.endswith(b"\n"):
                        break
                    journal._take(json.loads(line))
                except (ValueError, TypeError, KeyError, AttributeError):
                    break
                end += len(line)
            file.truncate(end)
        yield journal
