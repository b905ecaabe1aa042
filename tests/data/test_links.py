from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from medqa.data import formats, links, worker
from medqa.data.formats import Stretch
from medqa.data.links import Sieve
from medqa.data.rows import HUATUO, Keys, Limits, Settings
from medqa.data.rules import Rules
from medqa.data.worker import Shard

SETTINGS = Settings(
    Limits(2, 100, 2, 1000), Rules().on, privacy=True, segment_questions=False, seed=1
)


def results(folder: Path, text: bytes, sieve: bool) -> tuple[list[bytes], dict[str, Any], int]:
    """Returns table, rejects and books, and the rows that went the short way."""
    file = folder / "x.jsonl"
    file.write_bytes(text)
    whole = Stretch("tag-1.a", HUATUO, ".jsonl", file, "x.jsonl", len(text))
    (part,) = formats.divide(whole, 1 << 30)
    shard = Shard(part, SETTINGS, folder / str(sieve))
    taken = 0

    class Counting(Sieve):
        def sift(self, *args: Any) -> Any:
            nonlocal taken
            before = self.taken
            found = super().sift(*args)
            taken += self.taken - before
            return found

        @staticmethod
        def fits(schemas: Any) -> bool:
            return sieve and Sieve.fits(schemas)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "Sieve", Counting)
        patch.setattr(links, "_SMALLEST", 1)  # nothing is too little to be taken in one
        worker.work(shard)
    books = orjson.loads(shard.books.read_bytes())
    return [shard.table.read_bytes(), shard.rejects.read_bytes()], books, taken


def same(folder: Path, text: bytes) -> int:
    """Holds the short way against the long one; returns how many rows went the short way."""
    short, long = results(folder, text, True), results(folder, text, False)
    assert short[0][1] == long[0][1]
    assert short[:2] == long[:2]
    assert long[2] == 0
    assert short[1]["rows"] == sum(1 for line in text.split(b"\n") if line and not line.isspace())
    return short[2]


def row(question: str, answer: str, spaced: bool = False) -> bytes:
    colon, comma = (": ", ", ") if spaced else (":", ",")
    return f'{{"questions"{colon}["{question}"]{comma}"answers"{colon}["{answer}"]}}'.encode()


QUESTION = st.text(
    st.sampled_from('高血压吃什么药?？1 "\\\n\r\t\x00\x1f\x7f\x85\u2028{}[]:,é😀'), max_size=8
)
ANSWER = st.sampled_from(
    ["https://a.cn/1.html", "http://a.cn?x=%20&y='1'", "https://", "http://a b", "http://中.cn"]
    + ["HTTPS://a.cn", "www.a.cn", "多喝水，注意休息", "https://a.cn 多喝水", '"', "\\", ""]
    + ["https://a.cn/" + "x" * n for n in (90, 97, 98, 120, 500)]
)
BROKEN = st.sampled_from(
    [
        *(
            b"",
            b" ",
            b"\t",
            b"\r",
            b"\x0b",
            b"\xef\xbb\xbf",
            b"\xff",
            b"\x00",
            b"[",
            b"{}",
            b"null",
        ),
        b'{"questions":["',
        b'"],"answers":["https://a.cn"]}',
        b'"]}',
        b'{"questions":["a"]}',
        b'{"questions":["a"],"answers":["https://a.cn"],"answers":["b"]}',
        b'{"questions":["a"],"answers":["https://a.cn"]} ',
        b'{"questions":[],"answers":["http://a"]}',
        b'{"questions":[["a"]],"answers":["http://a"]}',
        b'{"questions":["\xe9\xab"],"answers":["https://a.cn"]}',
        b'{"questions":["\xed\xa0\x80"],"answers":["https://a.cn"]}',
    ]
)
LINE = st.one_of(
    st.just(row("高血压吃什么药", "https://a.cn/1.html")),
    st.just(row("高血压吃什么药", "https://a.cn/1.html", spaced=True)),
    st.builds(row, QUESTION, ANSWER, st.booleans()),
    st.builds(lambda q, a: orjson.dumps({"questions": [q], "answers": [a]}), QUESTION, ANSWER),
    st.builds(lambda n: row("高" * n, "https://a.cn"), st.integers(0, 250)),
    BROKEN,
)
TEXT = st.builds(
    lambda lines, mark, end: mark + b"{\n" + b"".join(line + end_ for line, end_ in lines) + end,
    st.lists(
        st.tuples(LINE, st.sampled_from([b"\n", b"\n", b"\n", b"\r\n", b" \n", b""])), max_size=30
    ),
    st.sampled_from([b"", b"\xef\xbb\xbf"]),
    st.sampled_from([b"", b"\n", row("尾", "https://a.cn")]),
)


@given(TEXT)
@example(b"{\n" + row('"],"answers":["https://a.cn"]}\n{"questions":["', "https://a.cn") + b"\n")
@example(b"{\n" + row("a\nb", "https://a.cn") + b"\n")
@example(b"{\n" + row("a\\", "https://a.cn") + b"\n")
@example(row("a", "https://a.cn") + b'\n{"questions":[""""""]}\n')
@example(row("a", "https://a.cn") + b'\n{"questions":["a"],"answerz":["https://a.cn"]}\n')
@example(row("a", "https://a.cn") + b'\n{"questionz":["a"],"answers":["https://a.cn"]}\n')
@example(b'{"questions":["","answers":["http","]}\n')
@example(b'{"questions":["],"answers":["https://a.cn"",""]}\n')
@example(row("a", "https://a.cn\x7f") + b"\n")
@example(row("a", "http:/a.cn") + b"\n" + row("a", "http://a.cn") + b"\n")
@example(row("a", "http://a.cn/中") + b"\n" + row("a", "http://a.cn") + b"\n")
@example(row("a\tb", "http://a.cn") + b"\n" + row("a", "http://a.cn") + b"\n")
@example(row("a\\xb", "http://a.cn") + b"\n" + row("a", "http://a.cn") + b"\n")
def test_the_short_way_gives_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, text: bytes
) -> None:
    same(tmp_path_factory.mktemp("links"), text)


@pytest.mark.parametrize("spaced", [False, True])
@pytest.mark.parametrize("disturbed", [b"", b"\xff", b"a\\n", b"\t", b"\r"])
def test_long_files_go_the_short_way_even_with_disturbances(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spaced: bool, disturbed: bytes
) -> None:
    monkeypatch.setattr(formats, "BLOCK_BYTES", 5000)
    lines = [row(f"高血压{n}", f"https://a.cn/{n}.html", spaced) for n in range(2100)]
    lines[10::100] = [row("高血压吃什么药", "多喝水，注意休息", spaced)] * len(lines[10::100])
    lines[7::200] = [row("高血压", "https://a.cn").replace(b'["', b'["' + disturbed, 1)] * 11
    taken = same(tmp_path, b"\n".join(lines))
    expected = len(lines) - 21
    assert taken == (expected if disturbed == b"" else expected - 11)


def test_rows_at_the_border_of_what_is_shown_whole(tmp_path: Path) -> None:
    lines = [row("a" * q, "https://" + "b" * a) for q in (339, 340, 341) for a in (109, 110, 111)]
    assert same(tmp_path, b"\n".join([*lines, b""])) == 4
    assert len(row("a" * 340, "https://" + "b" * 110, spaced=True)) <= 500


def test_only_rows_of_that_name_are_taken() -> None:
    assert Sieve.fits(HUATUO)
    assert not Sieve.fits((Keys("question", "answer"),))
    assert not Sieve.fits((Keys("questions", "answer"),))


def test_rows_are_numbered_across_thousands() -> None:
    block = b"".join(row("a", f"https://a.cn/{n}") + b"\n" for n in range(2500))
    for first in (1, 998, 999_500, 33_999_999):
        written = b"".join(map(bytes, Sieve("s").sift(block, first)))
        rejects = [orjson.loads(line) for line in written.splitlines()]
        assert [reject["id"] for reject in rejects] == [f"s:{first + n}" for n in range(2500)]
        assert orjson.loads(rejects[-1]["raw"])["answers"] == ["https://a.cn/2499"]


def test_the_short_way_is_off_with_its_rule(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    file.write_bytes(row("高血压吃什么药", "https://a.cn/1.html") + b"\n")
    settings = Settings(SETTINGS.limits, Rules(url_answer=False).on, True, False, 1)
    whole = Stretch("s", HUATUO, ".jsonl", file, "x.jsonl", file.stat().st_size, rows=1)
    worker.work(shard := Shard(whole, settings, tmp_path / "0"))
    assert "url_answer" not in orjson.loads(shard.books.read_bytes())["reasons"]
    assert links.URL_ANSWER == "url_answer"
