"""Data sets as LLaMA-Factory's registry has them, and the rows in their files as they stand."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medqa.config import nearest
from medqa.errors import DataError
from medqa.paths import dataset_info, project_root, resolve, shown
from medqa.train.findings import Findings
from medqa.train.forms import Reader, reader
from medqa.train.settings import names

_NAMED = 6  # of the registry's names
_TYPES = (".jsonl", ".json", ".parquet", ".csv", ".txt", ".arrow")


@dataclass(frozen=True)
class Registered:
    """An entry of the registry whose files are on this disk."""

    name: str
    files: tuple[Path, ...]
    entry: Mapping[str, Any]

    @property
    def ranking(self) -> bool:
        """Its rows hold a chosen and a rejected answer."""
        return bool(self.entry.get("ranking"))

    def reader(self, stage: str) -> Reader:
        """Returns the function that reads a row for training of `stage`."""
        return reader(self.entry, stage)


def place(values: Mapping[str, Any]) -> Path:
    """Returns the registry's file."""
    return resolve(values.get("dataset_dir") or "data") / dataset_info().name


def registry(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the entries of the registry that `values` points to; none where there is no file.

    Raises:
        DataError: It is not a JSON object.
    """
    file = place(values)
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise DataError(f"{shown(file)} is not JSON ({error}); restore it") from None
    if not isinstance(entries, dict):
        raise DataError(f"{shown(file)} holds a {type(entries).__name__}, no data sets; restore it")
    return entries


def find(
    wanted: object, values: Mapping[str, Any], entries: Mapping[str, Any], found: Findings
) -> list[Registered]:
    """Returns those of the data sets `wanted` that are registered and there; tells of the others.

    Args:
        wanted: Names, as a YAML has them.
        values: The recipe.
        entries: The registry.
        found: Where problems go.
    """
    registered_in = place(values)
    folder = registered_in.parent
    result = []
    for name in names(wanted):
        entry = entries.get(name)
        if not isinstance(entry, dict):
            others = ", ".join(list(entries)[:_NAMED]) + (", …" if len(entries) > _NAMED else "")
            known = f" (found: {others or 'no data set'}{nearest(name, entries)})"
            where = shown(registered_in)
            found.problem("data", f"{name!r} is not in {where}{known}", remake(name))
        elif "file_name" not in entry:
            found.warning(
                "data",
                f"{name!r} is fetched from a hub or made by a script: its rows are not looked at",
                "register a local file to have them checked",
            )
        elif not (files := _files(folder / str(entry["file_name"]))):
            where = shown(folder / str(entry["file_name"]))
            found.problem("data", f"{name!r} is registered, but {where} is gone", remake(name))
        elif odd := next((file for file in files if file.suffix not in _TYPES), None):
            found.problem(
                "data",
                f"{name!r}: {shown(odd)} is of no kind that LLaMA-Factory reads",
                f"one of {', '.join(_TYPES)}",
            )
        else:
            result.append(Registered(name, files, entry))
    return result


def remake(name: str, *, again: bool = False) -> str:
    """Returns the command that makes data set `name`; `again` if it is there and wrong."""
    stem = next(
        (name.removesuffix(end) for end in ("_train", "_val", "_test") if end in name), name
    )
    file = project_root() / "configs" / "data" / f"{stem}.yaml"
    known = shown(file) if file.is_file() else "configs/data/<name>.yaml"
    return f"run: python scripts/convert.py {known}" + (" --overwrite" if again else "")


def _files(there: Path) -> tuple[Path, ...]:
    if there.is_dir():
        return tuple(sorted(there.iterdir()))
    return (there,) if there.is_file() else ()


def lines(file: Path) -> Iterator[tuple[int, bytes | Mapping[str, Any]]]:
    """Yields number and content of every row of a file, JSON lines unparsed, blank ones left out.

    Raises:
        DataError: The file as a whole cannot be read.
    """
    try:
        if file.suffix == ".jsonl" or (file.suffix == ".json" and not _is_array(file)):
            with file.open("rb") as opened:
                for number, line in enumerate(opened, 1):
                    if not line.isspace():
                        yield number, line
        elif file.suffix == ".json":
            yield from enumerate(json.loads(file.read_bytes()), 1)
        elif file.suffix == ".txt":
            for number, text in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
                yield number, {"text": text}
        else:
            yield from enumerate(_table(file), 1)
    except (OSError, ValueError) as error:
        raise DataError(f"{shown(file)} cannot be read ({error})") from None


def _is_array(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(100).lstrip().startswith(b"[")


def _table(file: Path) -> Iterator[Mapping[str, Any]]:
    import polars as pl

    try:
        if file.suffix == ".csv":
            table = pl.read_csv(file)
        elif file.suffix == ".parquet":
            table = pl.read_parquet(file)
        else:
            table = pl.read_ipc_stream(file)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise ValueError(str(error)) from None
    yield from table.iter_rows(named=True)
