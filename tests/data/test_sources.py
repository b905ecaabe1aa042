import gzip
import json
from pathlib import Path

import pytest
import zstandard

from medqa.config import validate
from medqa.data import sources
from medqa.data.rows import HUATUO, Keys
from medqa.data.sources import Columns, Source
from medqa.errors import ConfigError, DataError, MissingInputError


def write(folder: Path, name: str, content: bytes | str) -> Source:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return Source(path=str(file), source="s")


def lines(*questions: str) -> bytes:
    return b"".join(
        json.dumps({"questions": q, "answers": "答"}).encode() + b"\n" for q in questions
    )


@pytest.mark.parametrize("name", ["a.jsonl", "a.json.gz", "a.csv.zst", "a.parquet", "a", "a/"])
def test_known_formats_and_folders(name: str) -> None:
    assert Source(path=f"data/raw/{name}", source="s").path.endswith(name)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"path": "a.txt"}, r"must end in \.jsonl, \.json, \.csv, \.parquet \(each also with"),
        ({"path": "a.jsonl.bz2"}, "must end in"),
        ({"path": "a.tar.gz"}, "must end in"),
        ({"weight": 0}, "weight: input should be greater than 0"),
        ({"weight": float("inf")}, "weight: "),
        ({"hub": "no-owner"}, "hub: "),
        ({"source": "a b"}, "source: "),
    ],
)
def test_what_a_source_may_not_be(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate({"path": "a.jsonl", "source": "s", **values}, Source, "x.yaml")


def test_defaults() -> None:
    source = Source(path="a.jsonl", source="s")
    assert (source.weight, source.hub, source.schemas) == (1.0, None, HUATUO)
    named = Source(path="a", source="s", columns=Columns(question="Q", answer="A"))
    assert named.schemas == (Keys("Q", "A"),)


def test_a_folder_is_its_files_in_order_of_name(tmp_path: Path) -> None:
    (tmp_path / "sub.jsonl").mkdir()
    for name in ("b.csv", "a.jsonl.gz", "notes.txt", ".a.jsonl", "sub.jsonl/c.jsonl"):
        (tmp_path / name).write_text("x", encoding="utf-8")
    source = Source(path=str(tmp_path), source="s")
    assert [file.name for file in source.files] == ["a.jsonl.gz", "b.csv"]


def test_absent_files_are_named_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDQA_ROOT", str(tmp_path))
    absent = [Source(path=f"data/raw/{name}.jsonl", source=name) for name in "ab"]
    with pytest.raises(MissingInputError, match=r"raw/a\.jsonl, data/raw/b\.jsonl; run: make data"):
        sources.require(absent)
    with pytest.raises(MissingInputError, match="check the path"):
        sources.require([Source(path="own/a.jsonl", source="a")])
    with pytest.raises(MissingInputError, match=r"no file own/a\.jsonl; run: make data"):
        sources.require([Source(path="own/a.jsonl", source="a", hub="owner/name")])


def test_a_file_must_be_a_file_and_hold_something(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is empty"):
        sources.require([write(tmp_path, "x.jsonl", "")])
    (tmp_path / "y.jsonl").mkdir()
    with pytest.raises(DataError, match="is a folder and must hold files that end in"):
        sources.require([Source(path=str(tmp_path / "y.jsonl"), source="s")])
    sources.require([write(tmp_path, "folder/x.jsonl", "\n"), write(tmp_path, "z.json", "[]")])


def test_a_folder_is_read_through_and_its_rows_are_numbered_through(tmp_path: Path) -> None:
    write(tmp_path, "a.jsonl", lines("一", "二"))
    write(tmp_path, "b.jsonl.gz", gzip.compress(b"\n" + lines("三")))
    write(tmp_path, "c.jsonl.zst", zstandard.compress(lines("四")))
    write(tmp_path, "d.csv", "questions,answers\n五,答\n")
    write(tmp_path, "e.json", '[{"questions": "六", "answers": "答"}]')
    rows = list(sources.read(Source(path=str(tmp_path), source="s")))
    assert [(row.number, row.value["questions"]) for row in rows] == [
        (1, "一"),
        (2, "二"),
        (4, "三"),
        (5, "四"),
        (7, "五"),
        (8, "六"),
    ]


@pytest.mark.parametrize(
    ("name", "content"), [("x.jsonl", "\n \n"), ("x.json", "[]"), ("x.csv", "questions,answers\n")]
)
def test_a_file_without_rows(tmp_path: Path, name: str, content: str) -> None:
    with pytest.raises(DataError, match=rf"{name} holds no row"):
        list(sources.read(write(tmp_path, name, content)))


def test_texts_in_a_folder_are_for_text(tmp_path: Path) -> None:
    for name in ("b.csv", "notes.txt"):
        (tmp_path / name).write_text("x", encoding="utf-8")
    for kind, found in (("pairs", ["b.csv"]), ("text", ["b.csv", "notes.txt"])):
        source = Source(kind=kind, path=str(tmp_path), source="s")  # type: ignore[arg-type]
        assert [file.name for file in source.files] == found


def test_what_to_do_about_what_is_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDQA_ROOT", str(tmp_path))
    own = Source(kind="preference", path="data/raw/preference/", source="a")
    with pytest.raises(MissingInputError, match="put rows of your own into data/raw/preference"):
        sources.require([own])
    made = Source(path="data/processed/huatuo/test.jsonl", source="b")
    with pytest.raises(MissingInputError, match=r"run: python .*convert\.py .*/huatuo\.yaml"):
        sources.require([made])


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_lines_of_text(tmp_path: Path, suffix: str) -> None:
    content = "\ufeff一\n\n  \n二\r\n".encode() + b"\xd6\xd0\n" + "三".encode()
    packed = gzip.compress(content) if suffix else content
    (tmp_path / f"a.txt{suffix}").write_bytes(packed)
    source = Source(kind="text", path=str(tmp_path / f"a.txt{suffix}"), source="s")
    rows = [(row.number, row.value, row.problem) for row in sources.read(source)]
    assert rows == [
        (1, {"text": "一"}, None),
        (4, {"text": "二\r"}, None),
        (5, None, "not_utf8"),
        (6, {"text": "三"}, None),
    ]
