"""What the data YAML says of the raw files: which they are, how their columns are called."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from medqa.config import Strict
from medqa.data import formats, unpacking
from medqa.data.formats import Stretch
from medqa.data.kinds import SCHEMAS
from medqa.data.rows import Keys, Kind, Row
from medqa.errors import DataError, MissingInputError
from medqa.paths import resolve, shown

TEXT = ".txt"  # no format of rows with columns
# What `columns` names for rows of a kind; `department` may always be named, `input` where there
# is an instruction: with preferences.
LAYOUTS: Mapping[Kind, Sequence[tuple[str, ...]]] = {
    "pairs": [("question", "answer")],
    "preference": [("question", "chosen", "rejected")],
    "text": [("text",), ("question", "answer")],
}


def _formats(kind: Kind) -> list[str]:
    return [suffix for suffix in formats.READERS if kind == "text" or suffix != TEXT]


def known(kind: Kind) -> str:
    """Returns what the name of a file may end in, for a message."""
    packed = " or ".join(unpacking.SUFFIXES)
    return (
        f"{', '.join(_formats(kind))} (each also with {packed} behind), "
        "or be a folder of such files"
    )


def _format(file: Path, kind: Kind) -> str | None:
    """Returns ``.csv`` for ``x.csv`` and ``x.csv.gz``; None for an unknown format."""
    name = unpacking.plain_name(file.name)
    return next((suffix for suffix in _formats(kind) if name.endswith(suffix)), None)


class Columns(Strict):
    """Names of the columns of a file that is in no known schema.

    Attributes:
        question: Of the question; what goes with it says the kind of the data.
        answer: Of the answer.
        chosen: Of the better answer of a preference.
        rejected: Of the worse.
        input: Of what follows the question of a preference, where it is an instruction.
        text: Of running text.
        department: Of the department, if there is one.
    """

    question: str | None = None
    answer: str | None = None
    chosen: str | None = None
    rejected: str | None = None
    input: str | None = None
    text: str | None = None
    department: str | None = None

    @property
    def keys(self) -> Keys:
        """The same as the row stage knows them."""
        answer = self.answer or self.chosen or self.text
        return Keys(self.question, str(answer), self.department, self.rejected, self.input)


class Source(Strict):
    """One raw file, or a folder of them.

    Attributes:
        path: The file or folder, relative to the project root. Rows of a folder are numbered
            through, file after file in the order of their names.
        source: Tag that every row of it keeps.
        columns: Needed only where the file is in no known schema.
        weight: How often its rows are drawn when ``max_rows`` samples, next to those of others.
        hub: ``owner/name`` of the data set repository that the file comes from.
        kind: What its rows are; the data YAML says it once, for all of them.
    """

    kind: Annotated[Kind, Field(exclude=True)] = "pairs"
    path: str
    source: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    columns: Columns | None = None
    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    hub: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")] | None = None

    @field_validator("path")
    @classmethod
    def _known_format(cls, path: str, info: ValidationInfo) -> str:
        kind: Kind = info.data.get("kind", "text")
        ending = _format(Path(path), kind) or path.endswith("/") or not Path(path).suffix
        if ending or resolve(path).is_dir():
            return path
        cure = f"; {TEXT} is read where the data YAML says kind: text"
        cure = cure if _format(Path(path), "text") else ""
        raise PydanticCustomError("format", "must end in {known}", {"known": known(kind) + cure})

    @field_validator("columns")
    @classmethod
    def _columns_of_kind(cls, columns: Columns | None, info: ValidationInfo) -> Columns | None:
        kind: Kind | None = info.data.get("kind")
        if columns is None or kind is None:
            return columns
        if _format(Path(info.data.get("path", "")), "text") == TEXT:
            raise PydanticCustomError("columns", "a {txt} file has none", {"txt": TEXT})
        named = columns.model_dump(exclude_none=True).keys()
        optional = {"department", *(["input"] if kind == "preference" else [])}
        if not any(set(layout) <= named <= {*layout, *optional} for layout in LAYOUTS[kind]):
            wanted = " or ".join(", ".join(layout) for layout in LAYOUTS[kind])
            raise PydanticCustomError(
                "columns",
                "kind {kind} asks for {wanted} and takes {optional} beside",
                {"kind": kind, "wanted": wanted, "optional": ", ".join(sorted(optional))},
            )
        return columns

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
            if file.is_file() and _format(file, self.kind) and not file.name.startswith(".")
        )

    @property
    def schemas(self) -> tuple[Keys, ...]:
        """The key names that its rows may have."""
        return (self.columns.keys,) if self.columns else SCHEMAS[self.kind]

    def stretch(self, file: Path, original: Path) -> Stretch:
        """Returns all of `file`, which holds what `original`, one of `files`, does unpacked."""
        return Stretch(
            source=self.source,
            schemas=self.schemas,
            format=str(_format(original, self.kind)),
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
        cures = sorted({_cure(source) for source in absent})
        raise MissingInputError(
            f"no file {', '.join(shown(source.file) for source in absent)}; {'; '.join(cures)}"
        )
    for source in sources:
        if not source.files:
            raise DataError(
                f"{shown(source.file)} is a folder and must hold files that end in "
                f"{known(source.kind)}; found none"
            )
        for file in source.files:
            if not file.is_file():
                raise DataError(f"{shown(file)} must be a file or a folder, found something else")
            if not file.stat().st_size:
                raise DataError(f"{shown(file)} is empty; fetch or write it again")


def _cure(absent: Source) -> str:
    """Returns what to do about a file that is not there."""
    made = resolve("data/processed")
    if made in absent.file.parents:
        name = absent.file.relative_to(made).parts[0]
        return f"run: python scripts/convert.py configs/data/{name}.yaml"
    if absent.kind == "preference" and not absent.hub:
        return f"put rows of your own into {shown(absent.file)} (data/README.md says which)"
    if absent.hub or resolve("data/raw") in absent.file.parents:
        return "run: make data"
    return "check the path, which starts at the project root"


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
