import json
from pathlib import Path
from typing import Any

import polars
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medqa.data import sources
from medqa.data.rows import MALFORMED_CSV, MALFORMED_JSON, Row
from medqa.data.sources import Columns, Source
from medqa.errors import DataError, MissingInputError

COLUMNS = Columns(question="Q", answer="A")


def write(folder: Path, name: str, content: bytes | str) -> Source:
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return Source(path=str(file), source="s")


def read(source: Source, columns: Columns | None = None) -> list[Row]:
    return list(sources.read(source.model_copy(update={"columns": columns})))


def brief(rows: list[Row]) -> list[tuple[int, Any]]:
    return [(row.number, row.problem or row.value) for row in rows]


def test_json_lines_keeps_what_stands_beside_broken_lines(tmp_path: Path) -> None:
    lines = [
        b'\xef\xbb\xbf{"a": "\xe9\xab\x98"}\r',
        b"",
        b'{"a": "cut of',
        b'{"a": "\xff\xfe"}',
        b'{"a": "\x00"}',
        b'{"a": "\\ud800"}',
        b"not json",
        b"[1]",
        b'{"a": NaN}',
        b'{"a": "last, without line break"}',
    ]
    rows = read(write(tmp_path, "x.jsonl", b"\n".join(lines)))
    assert brief(rows) == [
        (1, {"a": "高"}),
        (3, MALFORMED_JSON),
        (4, MALFORMED_JSON),
        (5, MALFORMED_JSON),
        (6, MALFORMED_JSON),
        (7, MALFORMED_JSON),
        (8, [1]),
        (9, MALFORMED_JSON),
        (10, {"a": "last, without line break"}),
    ]
    assert rows[2].raw == '{"a": "��"}'
    assert all(row.source == "s" for row in rows)


def test_raw_text_is_shortened(tmp_path: Path) -> None:
    (row,) = read(write(tmp_path, "x.jsonl", '{"a": "' + "高" * 2000))
    assert len(row.raw) == sources.SHOWN_CHARS


@given(
    st.lists(
        st.dictionaries(st.text(max_size=5), st.text(max_size=9), min_size=1),
        min_size=1,
        max_size=5,
    )
)
def test_json_lines_gives_back_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, values: list[dict[str, str]]
) -> None:
    text = "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values)
    source = write(tmp_path_factory.mktemp("jsonl"), "x.jsonl", text)
    assert [row.value for row in read(source)] == values


def test_json_array(tmp_path: Path) -> None:
    source = write(tmp_path, "x.json", '[{"Q": "问", "A": "答"}, 5]')
    assert brief(read(source)) == [(1, {"Q": "问", "A": "答"}), (2, 5)]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.json", '{"a": 1}\n{"a": 2}\n', r"is it JSON lines\? then it must end in \.jsonl"),
        ("x.json", '{"a": 1}', "must be an array of objects, found one dict"),
        ("x.json", "[1,", "is not valid JSON"),
        ("x.json", "[]", "holds no row"),
        ("x.jsonl", "\n \n", "holds no row"),
        ("x.csv", "Q,A\n", "holds no row"),
        ("x.csv", "q,a\n1,2\n", r"no column 'Q', 'A' \(found: 'q', 'a'\)"),
        ("x.csv", "Question,A\n1,2\n", "no column 'Q'"),
        ("x.csv", "问题,答案\n".encode("gb18030"), "must be UTF-8; run: iconv -f GB18030"),
        ("x.parquet", "PAR1 and no more", "is no readable Parquet file"),
    ],
)
def test_a_file_that_is_unusable_as_a_whole(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read(write(tmp_path, name, content), COLUMNS)
    assert str(tmp_path) in str(caught.value)


def test_a_table_in_no_known_schema_says_what_to_add(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"add to its source: columns: \{question: NAME"):
        read(write(tmp_path, "x.csv", "Q,A\n1,2\n"))
    with pytest.raises(DataError, match="'Questions'; did you mean 'questions'"):
        columns = Columns(question="Questions", answer="answers")
        read(write(tmp_path, "y.csv", "questions,answers\n1,2\n"), columns)


def test_csv_quotes_line_breaks_and_line_numbers(tmp_path: Path) -> None:
    text = '\ufeffQ,A\r\n"问, ""一""","答\n二"\r\n\r\n007,1e5\r\n'
    assert brief(read(write(tmp_path, "x.csv", text), COLUMNS)) == [
        (2, {"Q": '问, "一"', "A": "答\n二"}),
        (5, {"Q": "007", "A": "1e5"}),
    ]


def test_a_broken_csv_row_costs_only_its_first_line(tmp_path: Path) -> None:
    text = b'Q,A\n1,a\n"2,b\n3,c\n4,"d"\n5\n6,f,g\n7,\xff\n8,"h\n9,i\n'
    assert brief(read(write(tmp_path, "x.csv", text), COLUMNS)) == [
        (2, {"Q": "1", "A": "a"}),
        (3, MALFORMED_CSV),
        (4, {"Q": "3", "A": "c"}),
        (5, {"Q": "4", "A": "d"}),
        (6, MALFORMED_CSV),
        (7, MALFORMED_CSV),
        (8, MALFORMED_CSV),
        (9, MALFORMED_CSV),
        (10, {"Q": "9", "A": "i"}),
    ]


def test_a_csv_field_beyond_the_readers_limit_costs_only_its_row(tmp_path: Path) -> None:
    text = f"Q,A\n1,{'长' * 130_000}\n2,{'长' * 140_000}\n3,c\n"
    rows = read(write(tmp_path, "x.csv", text), COLUMNS)
    assert [row.problem for row in rows] == [None, MALFORMED_CSV, None]
    assert rows[2].value == {"Q": "3", "A": "c"}


@pytest.mark.parametrize("count", [3, sources.BATCH_ROWS * 2 + 1])
def test_parquet_keeps_order_and_nested_lists(tmp_path: Path, count: int) -> None:
    file = tmp_path / "x.parquet"
    table = {
        "questions": [[[f"问{n}", "又问"]] for n in range(count)],
        "answers": [[f"答{n}"] for n in range(count)],
        "other": list(range(count)),
    }
    polars.DataFrame(table).write_parquet(file)
    rows = read(Source(path=str(file), source="s"))
    assert [row.number for row in rows] == list(range(1, count + 1))
    last = count - 1
    assert rows[-1].value == {"questions": [[f"问{last}", "又问"]], "answers": [f"答{last}"]}


def test_csv_and_parquet_in_lites_schema_need_no_columns(tmp_path: Path) -> None:
    (row,) = read(write(tmp_path, "x.csv", "question,answer,label\n问,答,内科\n"))
    assert row.value == {"question": "问", "answer": "答", "label": "内科"}
    polars.DataFrame([row.value]).write_parquet(tmp_path / "x.parquet")
    (same,) = read(Source(path=str(tmp_path / "x.parquet"), source="s"))
    assert same.value == row.value


def test_absent_files_are_named_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDQA_ROOT", str(tmp_path))
    absent = [Source(path=f"data/raw/{name}.jsonl", source=name) for name in "ab"]
    with pytest.raises(MissingInputError, match=r"raw/a\.jsonl, data/raw/b\.jsonl; run: make data"):
        sources.require(absent)
    with pytest.raises(MissingInputError, match="check the path"):
        sources.require([Source(path="own/a.jsonl", source="a")])


def test_a_file_must_be_a_file_and_hold_something(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is empty"):
        sources.require([write(tmp_path, "x.jsonl", "")])
    (tmp_path / "y.jsonl").mkdir()
    with pytest.raises(DataError, match="must be a file"):
        sources.require([Source(path=str(tmp_path / "y.jsonl"), source="s")])
