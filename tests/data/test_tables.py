from pathlib import Path
from typing import Any

import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medqa.data import formats
from medqa.data.formats import BATCH_ROWS, Stretch
from medqa.data.rows import HUATUO, LINE_TOO_LONG, MALFORMED_CSV, NOT_UTF8, Keys, Row
from medqa.errors import DataError

COLUMNS = (Keys("Q", "A"),)


def whole(file: Path, schemas: Any = COLUMNS) -> Stretch:
    return Stretch("s", schemas, file.suffix, file, str(file), file.stat().st_size)


def read(stretch: Stretch) -> list[Row]:
    return [row for part in formats.divide(stretch, 1) for row in formats.read(part)]


def csv(folder: Path, content: str | bytes, schemas: Any = COLUMNS) -> list[Row]:
    file = folder / "x.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read(whole(file, schemas))


def brief(rows: list[Row]) -> list[tuple[int, Any]]:
    return [(row.number, row.problem or row.value) for row in rows]


def test_csv_quotes_line_breaks_and_line_numbers(tmp_path: Path) -> None:
    text = '\ufeffQ,A\r\n"问, ""一""","答\n二"\r\n\r\n007,1e5\r\n'
    assert brief(csv(tmp_path, text)) == [
        (2, {"Q": '问, "一"', "A": "答\n二"}),
        (5, {"Q": "007", "A": "1e5"}),
    ]


def test_a_broken_csv_row_costs_only_its_first_line(tmp_path: Path) -> None:
    text = b'Q,A\n1,a\n"2,b\n3,c\n4,"d"\n5\n6,f,g\n7,\xff\n8,"h\n9,i\n10,\x00\n'
    assert brief(csv(tmp_path, text)) == [
        (2, {"Q": "1", "A": "a"}),
        (3, MALFORMED_CSV),
        (4, {"Q": "3", "A": "c"}),
        (5, {"Q": "4", "A": "d"}),
        (6, MALFORMED_CSV),
        (7, MALFORMED_CSV),
        (8, NOT_UTF8),
        (9, MALFORMED_CSV),
        (10, {"Q": "9", "A": "i"}),
        (11, {"Q": "10", "A": "\x00"}),
    ]


def test_a_csv_field_beyond_the_readers_limit_costs_only_its_row(tmp_path: Path) -> None:
    text = f"Q,A\n1,{'长' * 130_000}\n2,{'长' * 140_000}\n3,c\n"
    rows = csv(tmp_path, text)
    assert [row.problem for row in rows] == [None, MALFORMED_CSV, None]
    assert rows[2].value == {"Q": "3", "A": "c"}


def test_a_too_long_csv_line_costs_itself_and_the_row_it_breaks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "LONGEST_LINE", 100)
    monkeypatch.setattr(formats, "BLOCK_BYTES", 16)
    long = "长" * 200
    assert brief(csv(tmp_path, f'Q,A\n1,a\n{long}\n2,b\n3,"c\n{long}\n4,d\n')) == [
        (2, {"Q": "1", "A": "a"}),
        (3, LINE_TOO_LONG),
        (4, {"Q": "2", "A": "b"}),
        (5, MALFORMED_CSV),
        (6, LINE_TOO_LONG),
        (7, {"Q": "4", "A": "d"}),
    ]


@pytest.mark.parametrize("count", [3, BATCH_ROWS * 2 + 1])
def test_parquet_keeps_order_and_nested_lists(tmp_path: Path, count: int) -> None:
    file = tmp_path / "x.parquet"
    table = {
        "questions": [[[f"问{n}", "又问"]] for n in range(count)],
        "answers": [[f"答{n}"] for n in range(count)],
        "other": list(range(count)),
    }
    polars.DataFrame(table).write_parquet(file)
    rows = read(whole(file, HUATUO))
    assert [row.number for row in rows] == list(range(1, count + 1))
    last = count - 1
    assert rows[-1].value == {"questions": [[f"问{last}", "又问"]], "answers": [f"答{last}"]}
    assert rows[-1].excerpt == f'{{"questions":[["问{last}","又问"]],"answers":["答{last}"]}}'


def test_csv_and_parquet_in_lites_schema_need_no_columns(tmp_path: Path) -> None:
    (row,) = csv(tmp_path, "question,answer,label\n问,答,内科\n", HUATUO)
    assert row.value == {"question": "问", "answer": "答", "label": "内科"}
    polars.DataFrame([row.value]).write_parquet(tmp_path / "x.parquet")
    (same,) = read(whole(tmp_path / "x.parquet", HUATUO))
    assert same.value == row.value


def test_parquet_strings_that_are_not_utf8_cost_their_row(tmp_path: Path) -> None:
    answers = pa.array(["答".encode(), "答".encode("gb18030"), "案".encode()], pa.binary())
    file = tmp_path / "x.parquet"
    pq.write_table(pa.table({"Q": ["一", "二", "三"], "A": answers.view(pa.string())}), file)
    assert brief(read(whole(file))) == [
        (1, {"Q": "一", "A": "答"}),
        (2, NOT_UTF8),
        (3, {"Q": "三", "A": "案"}),
    ]


def test_a_damaged_parquet_file(tmp_path: Path) -> None:
    file = tmp_path / "x.parquet"
    polars.DataFrame({"Q": ["问"] * 9000, "A": [f"答{n}" for n in range(9000)]}).write_parquet(file)
    content = bytearray(file.read_bytes())
    content[20:2000] = bytes(1980)
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"is no readable Parquet file: .*; fetch it again"):
        read(whole(file))
