"""JSON lines with known keys: what a comparison reads its questions and predictions from."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medqa.errors import DataError, MissingInputError
from medqa.paths import resolve, shown


def rows(file: Path, keys: tuple[str, ...]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields the number of each line, from 1 on, and its object.

    Raises:
        MissingInputError: There is no such file; says what makes it.
        DataError: A line is no object, or one of `keys` is not there as a string.
    """
    require(file)
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
            except ValueError:  # also what is not UTF-8
                row = None
            if not isinstance(row, dict) or not all(isinstance(row.get(k), str) for k in keys):
                raise DataError(
                    f"{shown(file)} line {number}: expected an object with the strings "
                    f"{', '.join(keys)}, found {line.decode(errors='replace').strip()[:80]!r}"
                )
            yield number, row


def require(file: Path) -> None:
    """Raises MissingInputError if `file` is not there, with the command that makes it."""
    if file.is_file():
        return
    if file.parent == resolve("data/sample"):
        cure = "run: python scripts/make_sample.py"
    elif file.parent.parent == resolve("data/processed"):
        cure = f"run: python scripts/convert.py configs/data/{file.parent.name}.yaml"
    else:
        cure = "run: ls configs/probes data/sample data/processed/*, and name one in the YAML"
    raise MissingInputError(f"{shown(file)} does not exist; {cure}")
