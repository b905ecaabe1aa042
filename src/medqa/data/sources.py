"""What the data YAML says of the raw files: which they are, how their columns are called."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from medqa.config import Strict
from medqa.data import formats, unpacking
from medqa.data.formats import Stretch
from medqa.data.rows import HUATUO, Keys, Row
from medqa.errors import DataError, MissingInputError
from medqa.paths import resolve, shown

KNOWN = (
    f"{', '.join(formats.READERS)} (each also with {' or '.join(unpacking.SUFFIXES)} behind), "
    "or be a folder of such files"
)


def _known_format(path: str) -> str:
    known = _format(Path(path)) or path.endswith("/") or not Path(path).suffix
    if not known and not resolve(path).is_dir():
        raise PydanticCustomError("format", "must end in {known}", {"known": KNOWN})
    return path


def _format(file: Path) -> str | None:
    """Returns ``.csv`` for ``x.csv`` and ``x.csv.gz``; None for an unknown format."""
    name = unpacking.plain_name(file.name)
    return next((suffix for suffix in formats.READERS if name.endswith(suffix)), None)


class Columns(Strict):
    """Names of the columns of a file that is in no Huatuo schema."""

    question: str
    answer: str
    department: str | None = None


class Source(Strict):
    """One raw file, or a folder of them.

    Attributes:
        path: The file or folder, relative to the project root. Rows of a folder are numbered
            through, file after file in the order of their names.
        source: Tag that every row of it keeps.
        columns: Needed only where the file is in no Huatuo schema.
        weight: How often its rows are drawn when ``max_rows`` samples, next to those of others.
        hub: ``owner/name`` of the data set repository that the file comes from.
    """

    path: Annotated[str, AfterValidator(_known_format)]
    source: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    columns: Columns | None = None
    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    hub: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")] | None = None

    @property
    def file(self) -> Path:
        """The file or folder as an absolute path."""
        return resolve(self.path)

    @property
    def files(self) -> list[Path]:
        """The file, or those of the folder that are in a known format, in order."""
        if not self.file.is_dir():
            return [self.file]
        return sorted(
            file
            for file in self.file.iterdir()
            if file.is_file() and _format(file) and not file.name.startswith(".")
        )

    @property
    def schemas(self) -> tuple[Keys, ...]:
        """The key names that its rows may have."""
        return (Keys(**self.columns.model_dump()),) if self.columns else HUATUO

    def stretch(self, file: Path, original: Path) -> Stretch:
        """Returns all of `file`, which holds what `original`, one of `files`, does unpacked."""
        return Stretch(
            source=self.source,
            schemas=self.schemas,
            format=str(_format(original)),
            file=file,
            name=shown(original),
            end=file.stat().st_size,
        )


def require(sources: Iterable[Source]) -> None:
    """Checks that every file is there and not empty, before any work.

    Raises:
        MissingInputError: Files are absent; names all of them.
        DataError: A file is empty, or a folder holds none that we can read.
    """
    sources = list(sources)
    absent = [source for source in sources if not source.file.exists()]
    if absent:
        raw = any(s.hub or resolve("data/raw") in s.file.parents for s in absent)
        raise MissingInputError(
            f"no file {', '.join(shown(source.file) for source in absent)}; "
            + ("run: make data" if raw else "check the path, which starts at the project root")
        )
    for source in sources:
        if not source.files:
            raise DataError(
                f"{shown(source.file)} is a folder and must hold files that end in {KNOWN}; "
                "found none"
            )
        for file in source.files:
            if not file.is_file():
                raise DataError(f"{shown(file)} must be a file or a folder, found something else")
            if not file.stat().st_size:
                raise DataError(f"{shown(file)} is empty; fetch or write it again")


def read(source: Source) -> Iterator[Row]:
    """Yields every row of a source, in order; what a damaged file lacks is passed over.

    Raises:
        DataError: A file as a whole cannot be read: no permission, a column that is not there, a
            JSON array or Parquet table that is damaged, or no row at all.
    """
    first = 1
    for original in source.files:
        with unpacking.plain(original) as file:
            whole = replace(source.stretch(file, original), first=first)
            (stretch,) = formats.divide(whole, whole.end + 1)
            row = None
            for row in formats.read(stretch):
                yield row
            if row is None:
                raise formats.no_row(stretch.name)
            first += stretch.rows
