"""Files of examinations as they are published, read row by row.

- ``cmmlu``: a zip with ``test/<subject>.csv``, columns ``,Question,A,B,C,D,Answer``.
- ``ceval``: a zip with ``val/<subject>_val.csv``, columns ``id,question,A,B,C,D,answer`` (the
  answers of its test are not public).
- ``cmb``: a JSON array of objects with ``exam_type, exam_class, exam_subject, question,
  question_type, option, answer``, the last of one or several letters. The test file's answers are
  in a file of their own, which is looked for beside it.
- ``cmexam``: CSV, or a JSON array or lines: ``Question, Options, Answer`` and perhaps annotations
  such as ``Medical Discipline``; one or several letters.
"""

import csv
import io
import json
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from medqa.compare.exams_plan import Exam, Layout, download_folder
from medqa.config import nearest
from medqa.errors import DataError
from medqa.paths import shown

UNLABELLED = "unlabelled"  # the subject of a row that names none
CMB_ANSWERS = "CMB-test-choice-answer.json"
_OPTION = re.compile(r"^\s*([A-H])\s*[.．、:：\s]\s*(.*)$")
_SUBJECT_FILES: Mapping[Layout, tuple[str, str, str]] = {
    "cmmlu": (r"(?:^|/)test/([\w-]+)\.csv$", "Question", "Answer"),
    "ceval": (r"(?:^|/)val/([\w-]+)_val\.csv$", "question", "answer"),
}
"""Layout to its files' names, and the columns of question and answer."""

Fields = Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """One row of a file.

    Attributes:
        where: File and number, from 1.
        subject: What it belongs to; None when a row is too broken to tell.
        fields: ``question``, ``options`` (pairs of letter and text), ``answer``, and perhaps
            ``kind`` and ``exam``, none of them checked; None when the row is broken.
    """

    where: str
    subject: str | None
    fields: Fields | None


def rows(exam: Exam, source: Path, files: list[Path]) -> Iterator[Row]:
    """Yields the rows of a set; those of subjects that are not asked for may be among them.

    Args:
        exam: The set.
        source: Its `path`, which exists.
        files: Gets every file that is read.

    Raises:
        DataError: A file is not laid out so, or a subject is in none.
    """
    yield from _READERS[exam.layout](exam, source, files)


def cure(exam: Exam, source: Path) -> str:
    """Returns what to do when the files of a set are not there."""
    folder = download_folder(exam.layout)
    if folder in source.parents:
        there = sorted(file for file in folder.rglob("*.*") if file.is_file())
        held = [shown(file) for file in there if not file.name.startswith("medqa_")]
        if not held:
            return f"run: python scripts/download.py exams {exam.layout}"
        return f"found {', '.join(held)}: name one of these in 'path', or lay the file there"
    return "name the published files in 'path' of the evaluate YAML"


def _subject_files(exam: Exam, source: Path, files: list[Path]) -> Iterator[Row]:
    """Yields the rows of a set with a CSV file a subject."""
    pattern, question, answer = _SUBJECT_FILES[exam.layout]
    held = _folder(source) if source.is_dir() else _archive(source)
    named = {m[1]: name for name in sorted(held) if (m := re.search(pattern, name))}
    if not named:
        raise DataError(f"{shown(source)} holds no file like {pattern}; {cure(exam, source)}")
    for subject in exam.subjects or named:
        if subject not in named:
            raise DataError(f"{shown(source)} has no subject {subject!r}{nearest(subject, named)}")
        name = named[subject]
        files.append(source / name if source.is_dir() else source)
        for number, row in _csv(name, held[name](), (question, *"ABCD", answer)):
            fields = row and {
                "question": row[question],
                "options": [(letter, row[letter]) for letter in "ABCD"],
                "answer": row[answer],
                "kind": "单项选择题",
            }
            yield Row(f"{name}:{number}", subject, fields)


def _cmb(exam: Exam, source: Path, files: list[Path]) -> Iterator[Row]:
    beside = source.with_name(CMB_ANSWERS)
    answers: dict[Any, Any] = {}
    if beside.is_file():
        answers = {row.get("id"): row.get("answer") for _, row in _json(beside) if row}
        files.append(beside)
    files.append(source)
    for number, row in _json(source):
        if row is None:
            yield Row(f"{source.name}:{number}", None, None)
            continue
        options, levels = row.get("option"), (row.get("exam_type"), row.get("exam_class"))
        fields = isinstance(options, dict) and {
            "question": row.get("question"),
            "options": [(letter, str(text or "")) for letter, text in options.items()],
            "answer": row.get("answer") or answers.get(row.get("id")),
            "kind": row.get("question_type"),
            "exam": "中".join(str(level) for level in levels if level),
        }
        yield Row(f"{source.name}:{number}", str(levels[1] or UNLABELLED), fields or None)


def _cmexam(exam: Exam, source: Path, files: list[Path]) -> Iterator[Row]:
    columns = ("Question", "Options", "Answer")
    files.append(source)
    table = source.suffix == ".csv"
    found = _csv(source.name, source.read_bytes(), columns) if table else _json(source)
    for number, row in found:
        if row is None:
            yield Row(f"{source.name}:{number}", None, None)
            continue
        fields = {
            "question": row.get("Question"),
            "options": _options(row.get("Options")),
            "answer": row.get("Answer"),
        }
        subject = str(row.get("Medical Discipline") or UNLABELLED)
        yield Row(f"{source.name}:{number}", subject, fields)


def _options(given: Any) -> list[tuple[str, str]] | None:
    """Returns letter and text of options in one text, a line each, or in a list of pairs."""
    if isinstance(given, list):
        pairs = [option for option in given if isinstance(option, dict)]
        return [(str(o.get("key") or ""), str(o.get("value") or "")) for o in pairs]
    if not isinstance(given, str):
        return None
    found: list[tuple[str, str]] = []
    for line in given.splitlines():
        if match := _OPTION.match(line):
            found.append((match[1], match[2]))
        elif found and line.strip():  # an option of two lines
            found[-1] = (found[-1][0], f"{found[-1][1]} {line.strip()}")
    return found


def _folder(source: Path) -> dict[str, Callable[[], bytes]]:
    """Returns name and reader of every CSV file in a folder."""
    return {file.relative_to(source).as_posix(): file.read_bytes for file in source.rglob("*.csv")}


def _archive(source: Path) -> dict[str, Callable[[], bytes]]:
    """Returns name and reader of every file in a zip; nothing is unpacked."""
    try:
        archive = zipfile.ZipFile(io.BytesIO(source.read_bytes()))
    except zipfile.BadZipFile as error:
        raise DataError(f"{shown(source)} is no whole zip: {error}; fetch it again") from None
    return {name: partial(archive.read, name) for name in archive.namelist()}


def _csv(
    name: str, content: bytes, columns: tuple[str, ...]
) -> Iterator[tuple[int, Fields | None]]:
    """Yields number and fields of each row; None for a row of too many or too few fields."""
    table = csv.DictReader(io.StringIO(_text(name, content), newline=""))
    missing = [column for column in columns if column not in (table.fieldnames or ())]
    if missing:
        raise DataError(
            f"{name}: expected the columns {', '.join(columns)}, found "
            f"{', '.join(table.fieldnames or ()) or 'none'}"
        )
    try:
        for number, row in enumerate(table, 1):
            whole = None not in row and None not in row.values()
            yield number, row if whole else None
    except csv.Error as error:
        raise DataError(f"{name} line {table.line_num}: {error}") from None


def _json(file: Path) -> Iterator[tuple[int, Fields | None]]:
    """Yields number and object of each element of an array, or of each line."""
    text = _text(file.name, file.read_bytes()).strip()
    if text.startswith("["):
        try:
            elements: list[Any] = json.loads(text)
        except ValueError as error:
            raise DataError(f"{shown(file)} is no JSON array: {error}; fetch it again") from None
    else:
        elements = [_line(line) for line in text.split("\n") if line.strip()]
    for number, row in enumerate(elements, 1):
        yield number, row if isinstance(row, dict) else None


def _line(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _text(name: str, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{name} is not UTF-8 text ({error.reason}); save it as UTF-8") from None


_READERS: dict[Layout, Callable[[Exam, Path, list[Path]], Iterator[Row]]] = {
    "cmmlu": _subject_files,
    "ceval": _subject_files,
    "cmb": _cmb,
    "cmexam": _cmexam,
}
