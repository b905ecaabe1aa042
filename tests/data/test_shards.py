import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from medqa.data import formats, shards
from medqa.data.rows import FILE_CUT_SHORT, LINE_TOO_LONG, NOT_UTF8, Limits, Settings
from medqa.data.rules import Rules
from medqa.data.shards import Shards
from medqa.data.sources import Source
from medqa.errors import CheckFailedError, ConfigError, DataError, StepError, TargetError

SETTINGS = Settings(
    Limits(2, 100, 2, 1000), Rules().on, privacy=True, segment_questions=False, seed=1
)
COLUMNS = {
    "source": polars.String,
    "row": polars.UInt32,
    "part": polars.UInt32,
    "question": polars.String,
    "answer": polars.String,
    "department": polars.String,
    "question_key": polars.UInt64,
    "answer_key": polars.UInt64,
    "canonical": polars.String,
    "rank": polars.UInt64,
}


def line(number: int) -> bytes:
    answer = f"每日{number % 7}次，每次{number}毫克，饭后服用。"
    if number % 3:
        answer = f"https://a.cn/question/{number}.html"
    return (
        json.dumps({"questions": [f"第{number}种药怎么吃？"], "answers": [answer]}).encode() + b"\n"
    )


def write(folder: Path, name: str, content: bytes, tag: str = "s") -> Source:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return Source(path=str(file), source=tag)


def run(folder: Path, *sources: Source, workers: int = 1, **more: Any) -> Shards:
    settings = more.pop("settings", SETTINGS)
    return shards.run(sources, settings, folder / "work", workers=workers, label="test", **more)


def rejects(done: Shards) -> list[dict[str, Any]]:
    lines = b"".join(file.read_bytes() for file in done.rejects).splitlines()
    return [json.loads(text) for text in lines]


def table(done: Shards) -> polars.DataFrame:
    return polars.concat([polars.read_parquet(file) for file in done.tables])


def content(folder: Path) -> dict[str, bytes]:
    files = [file for file in (folder / "work").iterdir() if file.name != shards.PLAN]
    return {file.name: file.read_bytes() for file in files}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(shards, "SHARD_BYTES", 20_000)
    monkeypatch.setattr(formats, "BLOCK_BYTES", 4_096)
    yield


def test_tables_rejects_and_books(tmp_path: Path, small: None) -> None:
    text = b"".join(map(line, range(1, 1001)))
    done = run(tmp_path, write(tmp_path, "x.jsonl", text))
    assert len(done.tables) == len(done.rejects) > 3
    kept, refused = table(done), rejects(done)
    assert dict(kept.schema) == COLUMNS
    assert kept["row"].to_list() == list(range(3, 1001, 3))
    assert kept["question"][0] == "第3种药怎么吃？"
    assert [r["id"] for r in refused] == [f"s:{n}" for n in range(1, 1001) if n % 3]
    assert set(refused[0]) == {"id", "source", "reason", "raw"}
    assert done.books["sources"] == {
        "s": {"rows": 1000, "pairs": 1000, "kept": 333, "reasons": {"url_answer": 667}}
    }
    assert done.books["notes"] == []
    file = {"file": str(tmp_path / "x.jsonl"), "source": "s", "first": 1, "rows": 1000}
    assert done.books["files"] == [file]


def test_several_workers_give_the_same_bytes(tmp_path: Path, small: None) -> None:
    source = write(tmp_path, "x.jsonl", b"".join(map(line, range(1000))))
    for workers in (1, 2):
        run(tmp_path / str(workers), source, workers=workers)
    assert content(tmp_path / "1") == content(tmp_path / "2")


def test_the_size_of_a_shard_changes_no_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write(tmp_path, "x.jsonl", b"".join(map(line, range(300))))
    done = []
    for size in (1_000, 100_000):
        monkeypatch.setattr(shards, "SHARD_BYTES", size)
        result = run(tmp_path / str(size), source)
        done.append((table(result).rows(), rejects(result), result.books["sources"]))
    assert done[0] == done[1]


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst", "a.csv", "a.csv.gz", "a.parquet"])
def test_every_format_gives_the_same_records(tmp_path: Path, small: None, name: str) -> None:
    lines = [line(number) for number in range(3, 900, 3)]
    plain = table(run(tmp_path / "1", write(tmp_path, "a.jsonl", b"".join(lines))))
    frame = polars.DataFrame([json.loads(text) for text in lines])
    flat = frame.select(polars.all().list.first())
    if name.endswith(".parquet"):
        frame.write_parquet(tmp_path / name)
    else:
        csv = flat.write_csv().encode()
        pack = {"gz": gzip.compress, "zst": zstandard.compress}.get(name.split(".")[-1], bytes)
        (tmp_path / name).write_bytes(pack(csv if ".csv" in name else b"".join(lines)))
    found = table(run(tmp_path / "2", Source(path=str(tmp_path / name), source="s")))
    header = 1 if ".csv" in name else 0
    assert found.with_columns(polars.col("row") - header).equals(plain)


def test_a_folder_has_ids_of_its_own_for_every_row(tmp_path: Path) -> None:
    for name in "abc":
        write(tmp_path, f"in/{name}.jsonl", b"".join(map(line, range(5))))
    write(tmp_path, "in/b.csv", b"questions,answers\nx,y\n")
    done = run(tmp_path, Source(path=str(tmp_path / "in"), source="s"))
    ids = [f"s:{row}" for row in table(done)["row"]] + [reject["id"] for reject in rejects(done)]
    assert len(set(ids)) == len(ids) == 16
    assert [file["first"] for file in done.books["files"]] == [1, 6, 8, 13]


@pytest.mark.parametrize("suffix", ["gz", "zst"])
def test_a_compressed_file_cut_short(tmp_path: Path, suffix: str) -> None:
    rows = [line(number) for number in range(50_000)]
    pack = {"gz": gzip.compress, "zst": zstandard.compress}[suffix]
    packed = pack(b"".join(rows))
    done = run(tmp_path, write(tmp_path, f"x.jsonl.{suffix}", packed[: len(packed) * 3 // 4]))
    counts, last = done.books["sources"]["s"], rejects(done)[-1]
    assert last["reason"] == FILE_CUT_SHORT and counts["reasons"][FILE_CUT_SHORT] == 1
    assert counts["rows"] == counts["kept"] + len(rejects(done)) > 20_000
    assert last["id"] == f"s:{counts['rows']}"
    (note,) = done.books["notes"]
    assert f"x.jsonl.{suffix} is cut short or damaged" in note and "\n" not in note
    again = run(tmp_path, Source(path=str(tmp_path / f"x.jsonl.{suffix}"), source="s"))
    assert again.books == done.books


def test_a_file_in_another_encoding_gets_one_note(tmp_path: Path) -> None:
    text = json.dumps({"questions": "感冒", "answers": "喝水"}, ensure_ascii=False) + "\n"
    good, bad = text.encode(), text.encode("gb18030")
    done = run(
        tmp_path,
        write(tmp_path, "some.jsonl", good * 3 + bad, "some"),
        write(tmp_path, "all.jsonl", bad * 4, "all"),
    )
    assert done.books["sources"]["some"]["reasons"] == {NOT_UTF8: 1}
    (note,) = done.books["notes"]
    assert "all.jsonl is not UTF-8 in 4 of 4 rows" in note and "run: iconv -f GB18030" in note


def test_examples_of_rules_show_nothing_personal(tmp_path: Path) -> None:
    answer = (
        "多喝水，注意休息。&nbsp;&nbsp;我的身份证是11010519491231002X，早晚各一次&lt;饭后&gt;服用。"
    )
    text = json.dumps({"questions": "发烧怎么办呢", "answers": answer}).encode() + b"\n"
    refused = json.dumps({"questions": "我是11010519491231002X"}).encode() + b"\n"
    done = run(tmp_path, write(tmp_path, "x.jsonl", text * 9 + refused))
    rules = done.books["rules"]
    assert rules["html_entities"]["count"] == rules["privacy:id_card"]["count"] == 9
    assert all(len(rule["examples"]) == 3 for rule in rules.values())
    assert "11010519491231002X" not in json.dumps(done.books) + str(rejects(done))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl", b"\n \n", "holds no row"),
        ("x.json", b"[]", "holds no row"),
        ("x.json", b'[{"questions": "a"}] more', "is not valid JSON"),
        ("x.csv", b"a,b\n1,2\n", "add to its source: columns"),
        ("x.parquet", b"PAR1", "is no readable Parquet file"),
        ("x.jsonl", "{}\n".encode("utf-16"), "looks like UTF-16"),
        ("x.jsonl.gz", b"no gzip", r"is no readable \.gz file"),
    ],
)
def test_an_unusable_file_is_one_line(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        run(tmp_path, write(tmp_path, name, content))
    assert "\n" not in str(caught.value)


def test_finished_shards_are_not_done_again_and_broken_ones_are(
    tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write(tmp_path, "x.jsonl", b"".join(map(line, range(1000))))
    done = run(tmp_path, source)
    expected = content(tmp_path)
    work, worked = tmp_path / "work", []
    done.tables[1].write_bytes(b"")
    done.rejects[2].unlink()
    (work / "00003.json").write_bytes(b"{")
    done.rejects[4].write_bytes(bytes(done.rejects[4].stat().st_size))  # as after a power cut
    (work / f"00000.jsonl.x{shards.PARTIAL}").write_bytes(b"of a killed worker")
    do = shards.worker.work
    monkeypatch.setattr(shards.worker, "work", lambda s: (worked.append(s.base.name), do(s)))
    assert run(tmp_path, source).books == done.books
    assert worked == ["00001", "00002", "00003", "00004"]
    assert content(tmp_path) == expected


@pytest.mark.parametrize("change", ["settings", "touched", "code", "tag"])
def test_another_plan_empties_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    source = write(tmp_path, "x.jsonl", line(3))
    run(tmp_path, source)
    stale = tmp_path / "work" / "stale"
    stale.touch()
    run(tmp_path, source)
    assert stale.exists()
    settings = SETTINGS
    if change == "settings":
        settings = Settings(SETTINGS.limits, Rules(whitespace=False).on, True, False, 1)
    elif change == "touched":
        os.utime(tmp_path / "x.jsonl", (1, 1))
    elif change == "tag":
        source = Source(path=source.path, source="other")
    else:
        monkeypatch.setattr(shards, "CODE", shards.CODE[:-1])
    run(tmp_path, source, settings=settings)
    assert not stale.exists()


def test_all_code_that_decides_the_result_belongs_to_the_plan() -> None:
    # How work is shared out decides nothing.
    asked = (
        "import medqa.data.shards, medqa.data.tables, medqa.data.words, sys; print(*sys.modules)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", asked], capture_output=True, text=True, check=True
    ).stdout.split()
    room = "medqa.data."
    modules = {name.removeprefix(room) for name in loaded if name.startswith(room)}
    assert modules - {"pool"} == set(shards.CODE)


def test_the_folder_is_for_one_process(tmp_path: Path) -> None:
    source = write(tmp_path, "x.jsonl", line(3))
    (tmp_path / "work").mkdir()
    with shards.locked_folder(tmp_path / "work"), pytest.raises(TargetError, match="another"):
        run(tmp_path, source)
    run(tmp_path, source)


def test_a_defect_of_ours_names_the_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def convert(*_: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(shards.worker, "convert_all", convert)
    with pytest.raises(CheckFailedError, match=r"x\.jsonl, rows 1 to 3: ZeroDivisionError"):
        run(tmp_path, write(tmp_path, "x.jsonl", line(1) + line(2) + line(4)))
    monkeypatch.setattr(shards.worker, "convert", convert)
    with pytest.raises(CheckFailedError, match=r"x\.jsonl, row 1: ZeroDivisionError"):
        run(tmp_path, write(tmp_path, "x.jsonl", line(3)))


CORRUPTION = st.lists(
    st.tuples(
        st.sampled_from(["flip", "cut", "insert", "double"]),
        st.integers(0, 10**6),
        st.binary(min_size=1, max_size=6)
        | st.sampled_from([b"\n", b"\r\n", b'"', b"\x00", b"\xd6\xd0"]),
    ),
    max_size=12,
)


@given(CORRUPTION)
def test_no_row_is_lost_whatever_is_damaged(
    tmp_path_factory: pytest.TempPathFactory, corruption: list[tuple[str, int, bytes]]
) -> None:
    text = bytearray(b"".join(map(line, range(60))))
    text += json.dumps({"questions": [["一个？", "又一个？"]], "answers": ["喝水休息"]}).encode()
    for kind, place, extra in corruption:
        place = 2 + place % (len(text) - 2)  # what the file begins with decides about UTF-16
        if kind == "flip":
            text[place : place + len(extra)] = extra
        elif kind == "cut":
            del text[place : place + len(extra) ** 2]
        elif kind == "insert":
            text[place:place] = extra
        else:
            text[place:place] = text[place // 2 : place]
    folder = tmp_path_factory.mktemp("shards")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "SHARD_BYTES", 1_500)
        patch.setattr(formats, "BLOCK_BYTES", 700)
        done = run(folder, write(folder, "x.jsonl", bytes(text)))
    lines = enumerate(bytes(text).split(b"\n"), start=1)
    expected = {number for number, line in lines if line and not line.isspace()}
    kept, refused = table(done), rejects(done)
    found = [f"{row}" for row in kept["row"]] + [r["id"].split(":")[1] for r in refused]
    assert {int(row.split("#")[0]) for row in found} == expected
    counts = done.books["sources"]["s"]
    assert counts["rows"] == len(expected)
    assert counts["pairs"] == len(kept) + len(refused) >= len(expected)
    assert counts["kept"] == len(kept) and sum(counts["reasons"].values()) == len(refused)


SCRIPT = """
import resource, signal, sys
from pathlib import Path
from medqa import cli
from medqa.data import shards
from medqa.data.rules import Rules
from medqa.data.rows import Limits, Settings
from medqa.data.sources import Source

def main(argv):
    limit = int(sys.argv[4])
    if limit:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    shards.SHARD_BYTES = 20_000
    settings = Settings(Limits(2, 100, 2, 1000), Rules().on, True, False, 1)
    source = Source(path=sys.argv[1], source="s")
    work = Path(sys.argv[2])
    shards.run([source], settings, work, workers=int(sys.argv[3]), label="test")

if __name__ == "__main__":
    cli.run(main)
"""


def script(folder: Path, source: Source, workers: int = 2, limit: int = 0) -> list[str]:
    file = folder / "script.py"
    file.write_text(SCRIPT, encoding="utf-8")
    return [sys.executable, str(file), source.path, str(folder / "work"), f"{workers}", f"{limit}"]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_is_one_line_and_nothing_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    source = write(tmp_path, "x.jsonl", b"".join(map(line, range(600))))
    command = script(tmp_path, source, workers, limit=12_000)
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    last = result.stderr.splitlines()[-1]
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert last.startswith("error: cannot write to ") and "File too large; free some space" in last
    assert not list((tmp_path / "work").glob("*.json[!l]"))
    subprocess.run(script(tmp_path, source), capture_output=True, check=True)
    monkeypatch.setattr(shards, "SHARD_BYTES", 20_000)
    run(tmp_path / "other", source)
    assert content(tmp_path) == content(tmp_path / "other")


def children(process: int) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text(encoding="utf-8").rsplit(")")[1].split()[1])
        except (OSError, IndexError):
            continue
        if parent == process:
            found += [int(folder.name), *children(int(folder.name))]
    return found


def gone(processes: list[int], within: float = 20) -> bool:
    until = time.monotonic() + within
    while time.monotonic() < until:
        if not any(Path(f"/proc/{process}").exists() for process in processes):
            return True
        time.sleep(0.1)
    return False


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc, Linux only")
def test_ctrl_c_ends_it_and_its_workers(tmp_path: Path) -> None:
    source = write(tmp_path, "x.jsonl", b"".join(map(line, range(900_000))))
    process = subprocess.Popen(
        script(tmp_path, source), stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    # A finished shard stays to be seen; one being written may come and go between two looks.
    while not list((tmp_path / "work").glob("[0-9]*.json")) and process.poll() is None:
        time.sleep(0.02)
    workers = children(process.pid)
    assert workers
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130 and "Traceback" not in errors
    assert gone(workers)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc, Linux only")
def test_kills_at_random_moments_leave_the_same_bytes(tmp_path: Path) -> None:
    source = write(tmp_path, "x.jsonl.gz", gzip.compress(b"".join(map(line, range(60_000))), 1))
    (tmp_path / "undisturbed").mkdir()
    started = time.monotonic()
    subprocess.run(script(tmp_path / "undisturbed", source), capture_output=True, check=True)
    whole = time.monotonic() - started
    chance, killed = random.Random(1), 0
    for _ in range(8):
        process = subprocess.Popen(script(tmp_path, source), stderr=subprocess.DEVNULL)
        time.sleep(chance.uniform(0.2, 1) * whole)
        killed += process.poll() is None
        workers = children(process.pid)
        process.kill()
        process.wait()
        assert gone(workers), "workers outlive their parent"
    assert killed
    subprocess.run(script(tmp_path, source), capture_output=True, check=True)
    assert content(tmp_path) == content(tmp_path / "undisturbed")


@pytest.mark.slow
def test_a_line_of_200_megabytes(tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    with file.open("wb") as out:
        out.write(line(3) + b'{"questions": "')
        for _ in range(200):
            out.write(b"a" * (1 << 20))
        out.write(b'"}\n' + line(6))
    source = Source(path=str(file), source="s")
    command = script(tmp_path, source, workers=1)
    # The peak memory of the whole process, interpreter and libraries included.
    probe = "import resource,sys,subprocess; subprocess.run(sys.argv[1:], check=True); "
    probe += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    result = subprocess.run(
        [sys.executable, "-c", probe, *command], capture_output=True, text=True, check=True
    )
    assert int(result.stdout) < 300 * 1024
    done = shards.run([source], SETTINGS, tmp_path / "again", workers=1, label="test")
    assert table(done)["row"].to_list() == [1, 3]
    (refused,) = rejects(done)
    assert refused["reason"] == LINE_TOO_LONG and len(refused["raw"]) == 500


@pytest.mark.slow
def test_ray_gives_the_same_bytes(tmp_path: Path, small: None) -> None:
    import ray

    source = write(tmp_path, "x.jsonl", b"".join(map(line, range(1000))))
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        run(tmp_path / "ray", source, workers=2, runner="ray")
        assert ray.is_initialized()  # it was not ours to stop
        with pytest.raises(StepError, match="there are only 2 CPUs"):
            run(tmp_path / "many", source, workers=3, runner="ray")
    finally:
        ray.shutdown()
    run(tmp_path / "local", source, workers=1)
    assert content(tmp_path / "ray") == content(tmp_path / "local")


def test_ray_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'medqa\[ray\]'"):
        run(tmp_path, write(tmp_path, "x.jsonl", line(3)), runner="ray")
