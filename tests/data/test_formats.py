import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medqa.data import formats
from medqa.data.formats import Stretch
from medqa.data.rows import (
    FILE_CUT_SHORT,
    HUATUO,
    LINE_TOO_LONG,
    MALFORMED_JSON,
    NOT_UTF8,
    Keys,
    Row,
)
from medqa.errors import DataError

COLUMNS = (Keys("Q", "A"),)


def stretch(folder: Path, name: str, content: bytes | str, schemas: Any = COLUMNS) -> Stretch:
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return Stretch("s", schemas, file.suffix, file, str(file), file.stat().st_size)


def read(whole: Stretch, size: int = 1 << 30) -> list[Row]:
    return [row for part in formats.divide(whole, size) for row in formats.read(part)]


def brief(rows: list[Row]) -> list[tuple[int, Any]]:
    return [(row.number, row.problem or row.value) for row in rows]


LINES = [
    b'\xef\xbb\xbf{"a": "\xe9\xab\x98"}\r',
    b"",
    b'{"a": "cut of',
    b'{"a": "\xff\xfe"}',
    b'{"a": "\x00"}',
    b'{"a": "\\ud800"}',
    b"not json",
    b"[1]",
    b'{"a": NaN}',
    '{"a": "高血压"}'.encode("gb18030"),
    b" \t\r",
    b"[" * 100_000 + b"]" * 100_000,
    b'{"a": "last, without line break"}',
]


def test_json_lines_keeps_what_stands_beside_broken_lines(tmp_path: Path) -> None:
    rows = read(stretch(tmp_path, "x.jsonl", b"\n".join(LINES)))
    assert brief(rows) == [
        (1, {"a": "高"}),
        (3, MALFORMED_JSON),
        (4, NOT_UTF8),
        (5, MALFORMED_JSON),
        (6, MALFORMED_JSON),
        (7, MALFORMED_JSON),
        (8, [1]),
        (9, MALFORMED_JSON),
        (10, NOT_UTF8),
        (12, MALFORMED_JSON),
        (13, {"a": "last, without line break"}),
    ]
    assert rows[2].excerpt == '{"a": "��"}'
    assert all(row.source == "s" for row in rows)


@pytest.mark.parametrize("size", [1, 40, 200, 100_000])
@pytest.mark.parametrize("block", [7, 64, 1 << 18])
def test_divided_files_hold_the_same_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, block: int
) -> None:
    whole = replace(stretch(tmp_path, "x.jsonl", b"\n".join(LINES)), cut=True, first=5)
    expected = read(whole)
    assert expected[-1].problem == FILE_CUT_SHORT
    assert expected[-1].number == 5 + len(LINES)
    monkeypatch.setattr(formats, "BLOCK_BYTES", block)
    parts = formats.divide(whole, size)
    assert [row for part in parts for row in formats.read(part)] == expected
    assert sum(part.rows for part in parts) == len(LINES)
    assert len(parts) > 1 or size > 1000 or block > 1000


@given(
    st.lists(st.binary(max_size=12), max_size=12),
    st.integers(1, 30),
    st.integers(1, 30),
)
def test_any_bytes_are_read_like_pythons_lines(
    tmp_path_factory: pytest.TempPathFactory, parts: list[bytes], size: int, block: int
) -> None:
    text = b"{ \n" + b"\n".join(parts)
    whole = stretch(tmp_path_factory.mktemp("jsonl"), "x.jsonl", text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(formats, "BLOCK_BYTES", block)
        rows = read(whole, size)
    lines = enumerate(text.split(b"\n"), start=1)
    assert [(row.number, row.text) for row in rows] == [
        (number, line) for number, line in lines if line and not line.isspace()
    ]


@pytest.mark.parametrize("longest", [50, 100])
@pytest.mark.parametrize("block", [7, 64, 1 << 18])
def test_a_too_long_line_costs_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, longest: int, block: int
) -> None:
    lines = [
        b"1",
        b'"' + b"a" * 500 + b'"',
        b"2",
        b'"' + b"b" * 47 + b'"',
        b'"' + b"c" * 600 + b'"',
    ]
    monkeypatch.setattr(formats, "LONGEST_LINE", longest)
    monkeypatch.setattr(formats, "BLOCK_BYTES", block)
    for end in (b"", b"\n"):
        rows = read(stretch(tmp_path, "x.jsonl", b"\n".join(lines) + end))
        if block < 1000:
            assert brief(rows) == [
                (1, 1),
                (2, LINE_TOO_LONG),
                (3, 2),
                (4, "b" * 47),
                (5, LINE_TOO_LONG),
            ]
            assert rows[1].excerpt.startswith('"aaaaa')
        else:  # what lies in one block is at hand anyway
            assert [row.number for row in rows] == [1, 2, 3, 4, 5]


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
    rows = read(stretch(tmp_path_factory.mktemp("jsonl"), "x.jsonl", text))
    assert [row.value for row in rows] == values


def test_json_array(tmp_path: Path) -> None:
    whole = stretch(tmp_path, "x.json", '[{"Q": "问", "A": "答"}, 5]')
    assert brief(read(whole)) == [(1, {"Q": "问", "A": "答"}), (2, 5)]
    (part,) = formats.divide(whole, 1)
    assert part.rows >= 2


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.json", '{"a": 1}\n{"a": 2}\n', r"is it JSON lines\? then it must end in \.jsonl"),
        ("x.json", '{"a": 1}', "must be an array of objects, found one dict"),
        ("x.json", "[1,", "is not valid JSON"),
        ("x.json", '[{"a": 1}] and more', "is not valid JSON: unexpected content after document"),
        ("x.json", "[" * 5000 + "]" * 5000, "is not valid JSON: "),
        ("x.json", '["高"]'.encode("gb18030"), "run: iconv -f GB18030 -t UTF-8 OLD.json"),
        ("x.csv", "q,a\n1,2\n", r"no column 'Q', 'A' \(found: 'q', 'a'\)"),
        ("x.csv", "Question,A\n1,2\n", "no column 'Q'"),
        ("x.csv", "问题,答案\n".encode("gb18030"), "must be UTF-8; run: iconv -f GB18030"),
        ("x.csv", "Q,A\n1,2\n".encode("utf-16"), "run: iconv -f UTF-16 -t UTF-8 OLD.csv > NEW"),
        ("x.jsonl", '{"Q": "问"}\n'.encode("utf-16"), "must be UTF-8 and looks like UTF-16"),
        ("x.jsonl", '{"Q": "问"}\n'.encode("utf-16-le"), "must be UTF-8 and looks like UTF-16"),
        ("x.jsonl", '{"Q": "问"}\n'.encode("utf-16-be"), "must be UTF-8 and looks like UTF-16"),
        ("x.parquet", "PAR1 and no more", "is no readable Parquet file"),
    ],
)
def test_a_file_that_is_unusable_as_a_whole(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read(stretch(tmp_path, name, content))
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_table_in_no_known_schema_says_what_to_add(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"add to its source: columns: \{question: NAME"):
        read(stretch(tmp_path, "x.csv", "Q,A\n1,2\n", HUATUO))
    with pytest.raises(DataError, match="'Questions'; did you mean 'questions'"):
        read(
            stretch(tmp_path, "y.csv", "questions,answers\n1,2\n", (Keys("Questions", "answers"),))
        )


def test_a_file_that_is_gone_or_shorter_than_it_was(tmp_path: Path) -> None:
    whole = stretch(tmp_path, "x.jsonl", b"1\n" * 100)
    (part,) = formats.divide(whole, 1 << 20)
    whole.file.write_bytes(b"1\n")
    with pytest.raises(DataError, match="changed while it was read"):
        list(formats.read(part))
    whole.file.unlink()
    with pytest.raises(DataError, match=r"cannot read .*: No such file"):
        list(formats.read(part))
    with pytest.raises(DataError, match=r"cannot read .*: No such file"):
        formats.divide(whole, 1)


def test_stretches_of_links_are_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "BLOCK_BYTES", 1_000)
    counts, weights = [], []
    for answer in (b"https://a.cn/1", b"drink water ok"):
        file = tmp_path / "x.jsonl"
        file.write_bytes(b'{"questions":["why?"],"answers":["%b"]}\n' % answer * 10_000)
        size = file.stat().st_size
        parts = formats.divide(Stretch("s", HUATUO, ".jsonl", file, "x.jsonl", size), 5_000)
        counts.append(len(parts))
        weights.append(sum(part.weight for part in parts))
        assert sum(part.rows for part in parts) == 10_000
    assert counts[1] / counts[0] == pytest.approx(formats.LINK_SIZE, rel=0.1)
    assert weights[1] / weights[0] == pytest.approx(formats.LINK_SIZE, rel=0.1)
