"""The data step beside the floor, beside datasets.map, as it grows, and on the full Huatuo-26M.

    python scripts/bench/data.py                 # rows, convert and cluster, one after the other
    python scripts/bench/data.py --only rows
    python scripts/bench/data.py --full --folder /big/disk

Everything is measured on the corpus of huatuo_shape.py, by 2 processes, on files that the page
cache holds; runs that are compared take turns, and the median is printed.

    rows     from the raw files to cleaned, checked, hashed records on disk, beside: every line
             parsed with orjson and forgotten (the floor); and datasets.load_dataset and .map with
             num_proc=2 and no cache, calling the same function on each row. The starting of the
             processes is part of all three, the importing of libraries by the caller of none.
             25 turns, datasets in every fifth: the floor alone may differ by two fifths.
    convert  the whole step, all that `scripts/convert.py` does, for three sizes
    cluster  medqa.data.cluster alone, 860,000 questions
    --full   34 million rows, 5.4 GB, converted once; asks for 20 GB of disk

Memory is the sum over all processes, shared pages counted once, sampled 10 times a second. Exits
with 1 when a promise of scripts/bench/README.md does not hold.
"""

import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import huatuo_shape as shape
from apart import Measured, measured

from medqa import cli
from medqa.errors import CheckFailedError, DataError

if TYPE_CHECKING:
    import pyarrow as pa

    from medqa.data.clean import Cleaner
    from medqa.data.recipe import Recipe

PARTS = ("rows", "convert", "cluster")
WORKERS = 2
TURNS = 25
EVERY = 5  # datasets takes ten times as long, and is not near its promise
BLOCK = 8 << 20
FULL_DISK = 20e9
QUESTIONS = 860_000
EVALUATION = 6_000  # rows that training is kept clear of, as huatuo26M-testdatasets has
LEAST_ROWS = 1_000

# The promises.
TIMES_FLOOR = 2.5
TIMES_FASTER = 3.0
LINEAR = 1.25  # what 8 times the rows may cost, over 8
CLUSTER_SECONDS = 60
FULL_SECONDS, FULL_BYTES = 15 * 60, 6e9


def timed(
    work: Callable[..., tuple[float, Any]], *arguments: object, weigh: bool = False
) -> Measured:
    """Runs `work`, which returns its own seconds and its result, in a process of its own.

    With `weigh` its memory is looked at too, which costs it a tenth of its time.

    Raises:
        CheckFailedError: The process ended without a result; it has said why.
    """
    found = measured(work, *arguments, weigh=weigh)
    seconds, result = found.result
    return found._replace(result=result, seconds=seconds)


@contextmanager
def corpus(parent: Path | None, rows: Mapping[str, int]) -> Iterator[Path]:
    """Yields a project folder with a corpus and the YAML bench.yaml that reads it."""
    import yaml

    from medqa.paths import ROOT_VARIABLE, project_root

    recipe = project_root() / "configs/data/huatuo.yaml"
    values = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory(prefix="medqa-bench-", dir=parent) as name:
        root = Path(name)
        files = shape.write(root / "data/raw", rows)
        asked = shape.write(root / "data/evaluation", {"lite": EVALUATION}, seed=43)

        def named(found: Mapping[str, Path], end: str = "") -> list[dict[str, str]]:
            places = {tag + end: file.relative_to(root) for tag, file in found.items()}
            return [{"path": place.as_posix(), "source": tag} for tag, place in places.items()]

        values |= {
            "name": "bench",
            "sources": named(files),
            "decontaminate": named(asked, "_test"),
            "max_rows": None,
            "tokenizer": None,
            "workers": WORKERS,
        }
        text = yaml.safe_dump(values, allow_unicode=True)
        (root / "bench.yaml").write_text(text, encoding="utf-8")
        before = os.environ.get(ROOT_VARIABLE)
        os.environ[ROOT_VARIABLE] = name
        try:
            yield root
        finally:
            del os.environ[ROOT_VARIABLE]
            if before:
                os.environ[ROOT_VARIABLE] = before


def recipe(root: Path) -> "Recipe":
    """Returns the settings of a corpus."""
    from medqa.config import load
    from medqa.data.recipe import Recipe

    return load(root / "bench.yaml", [], Recipe)


# Each of the following runs in a process of its own and returns its seconds and a result.


def floor(root: Path) -> tuple[float, int]:
    """Parses every line with orjson and forgets it; returns the number of lines."""
    from multiprocessing import get_context

    files = [source.file for source in recipe(root).sources]
    jobs = [(f, start) for f in files for start in range(0, f.stat().st_size, BLOCK)]
    started = time.perf_counter()
    with get_context("spawn").Pool(WORKERS) as pool:
        lines = sum(pool.imap_unordered(parse, jobs))
    return time.perf_counter() - started, lines


def parse(job: tuple[Path, int]) -> int:
    """Returns the number of lines that begin in a block of a file, all parsed."""
    import orjson

    path, start = job
    with path.open("rb") as file:
        if start:
            file.seek(start - 1)
            file.readline()
        size = start + BLOCK - file.tell()
        lines = file.readlines(size) if size > 0 else []
    for line in lines:
        orjson.loads(line)
    return len(lines)


def ours(root: Path) -> tuple[float, int]:
    """Runs the row stage; returns the number of records kept."""
    from medqa.data import shards

    given, work = recipe(root), root / "work"
    started = time.perf_counter()
    done = shards.run(
        given.sources, given.settings, work, workers=WORKERS, runner="local", label="bench"
    )
    seconds = time.perf_counter() - started
    shutil.rmtree(work)
    return seconds, sum(source["kept"] for source in done.books["sources"].values())


def datasets_map(root: Path) -> tuple[float, tuple[int, float]]:
    """Does the same with datasets; returns the number kept and the seconds of map alone.

    One data set for each file, since their schemas differ; in batches of Arrow tables, since a row
    may give several records, and since that is its fastest way in and out.
    """
    import datasets

    datasets.disable_progress_bars()
    datasets.disable_caching()
    given, kept, mapping = recipe(root), 0, 0.0
    with tempfile.TemporaryDirectory(dir=root) as folder:
        started = time.perf_counter()
        for source in given.sources:
            table = datasets.load_dataset(
                "json", data_files=str(source.file), split="train", cache_dir=folder
            )
            begun = time.perf_counter()
            made = table.with_format("arrow").map(
                clean_batch,
                batched=True,
                with_indices=True,
                num_proc=WORKERS,
                remove_columns=table.column_names,
                fn_kwargs={"root": root, "source": source.source},
            )
            mapping += time.perf_counter() - begun
            kept += made.data["reason"].null_count
        return time.perf_counter() - started, (kept, mapping)


def clean_batch(batch: "pa.Table", numbers: list[int], root: Path, source: str) -> "pa.Table":
    """Calls the function that `ours` calls on each row of a batch."""
    import pyarrow as pa

    from medqa.data.rows import HUATUO, Row, convert

    given, with_rules = cleaner(root)
    settings = given.settings
    found = [
        outcome._asdict()
        for number, value in zip(numbers, batch.to_pylist(), strict=True)
        for outcome in convert(Row(source, number + 1, value), HUATUO, settings, with_rules)
    ]
    text, number, key = pa.string(), pa.uint32(), pa.uint64()
    kinds = {"source": text, "row": number, "part": number, "question": text, "answer": text}
    kinds |= {"department": text, "question_key": key, "answer_key": key, "canonical": text}
    return pa.Table.from_pylist(found, pa.schema(kinds | {"rank": key, "reason": text}))


@cache
def cleaner(root: Path) -> tuple["Recipe", "Cleaner"]:
    """Returns the settings and the cleaner; made once in a process."""
    from medqa.data.clean import Cleaner

    given = recipe(root)
    return given, Cleaner(given.rules.on, given.privacy)


def convert(root: Path) -> tuple[float, str]:
    """Runs the whole step; returns what it prints."""
    from medqa.data import pipeline

    started = time.perf_counter()
    text = pipeline.convert(root / "bench.yaml")
    return time.perf_counter() - started, text


def clusters(root: Path) -> tuple[float, Mapping[str, Any]]:
    """Clusters the questions of all files; returns the facts."""
    import orjson
    import polars as pl
    from xxhash import xxh3_64_intdigest

    from medqa.data.cluster import assign
    from medqa.data.normal import canonical, normalise

    questions = []
    for source in recipe(root).sources:
        with source.file.open("rb") as lines:
            for line in lines:
                row = orjson.loads(line)
                question = row.get("questions", row.get("question"))
                while isinstance(question, list):
                    question = question[0]
                questions.append(question)
    texts = pl.Series([canonical(question) for question in questions])
    keys = pl.Series(
        [xxh3_64_intdigest(normalise(question).encode()) for question in questions], dtype=pl.UInt64
    ).to_numpy()
    started = time.perf_counter()
    found = assign(texts, [keys], [], largest=len(questions) // 100)
    return time.perf_counter() - started, found.facts


# Each of the following prints one part and returns the promises that do not hold.


def bench_rows(folder: Path | None, rows: int) -> list[str]:
    """The row stage beside the floor and beside datasets."""
    took: dict[str, list[float]] = {name: [] for name in ("floor", "ours", "load + map", "map")}
    kept: set[int] = set()
    with corpus(folder, shape.counts(rows)) as root:
        for turn in range(TURNS):
            took["floor"].append(timed(floor, root).seconds)
            mine = timed(ours, root)
            took["ours"].append(mine.seconds)
            kept.add(mine.result)
            if turn % EVERY == 0:
                theirs = timed(datasets_map, root)
                took["load + map"].append(theirs.seconds)
                took["map"].append(theirs.result[1])
                kept.add(theirs.result[0])
    if len(kept) > 1:
        raise CheckFailedError(f"expected the same records from both, found {kept}")
    middle = {name: statistics.median(seconds) for name, seconds in took.items()}
    print(f"\n| rows: {rows:,} | seconds | rows/s | to the floor | to ours |")
    print("|---|---:|---:|---:|---:|")
    for name, label in (
        ("floor", "floor: orjson parses every line, 2 processes"),
        ("ours", "ours: 2 workers, from raw files to records on disk"),
        ("map", "datasets.map(num_proc=2), the same function, loading not counted"),
        ("load + map", "datasets: load_dataset and map"),
    ):
        value = middle[name]
        ratios = f"{value / middle['floor']:.2f}x | {value / middle['ours']:.2f}x"
        print(f"| {label} | {value:.2f} | {rows / value:,.0f} | {ratios} |")
    failed = []
    slower = middle["ours"] / middle["floor"]
    if slower > TIMES_FLOOR:
        failed.append(f"at most {TIMES_FLOOR}x the floor, found {slower:.2f}x")
    faster = middle["load + map"] / middle["ours"]
    if faster < TIMES_FASTER:
        failed.append(f"{TIMES_FASTER:.0f}x as fast as datasets, found {faster:.2f}x")
    return failed


def bench_convert(folder: Path | None, rows: int) -> list[str]:
    """The whole step for an eighth, a half and all of `rows`."""
    print("\n| convert: rows | seconds | growth | peak memory | growth |")
    print("|---:|---:|---:|---:|---:|")
    before: tuple[int, Measured] | None = None
    costs: list[float] = []
    for size in (rows // 8, rows // 2, rows):
        with corpus(folder, shape.counts(size)) as root:
            found = timed(convert, root, weigh=True)
        growth = ("", "")
        if before:
            more = size / before[0]
            growth = (
                f"{found.seconds / before[1].seconds:.2f}x for {more:.0f}x",
                f"{found.memory / before[1].memory:.2f}x for {more:.0f}x",
            )
        before = (size, found)
        costs.append(found.seconds / size)
        gigabytes = f"{found.memory / 1e9:.2f} GB"
        print(f"| {size:,} | {found.seconds:.1f} | {growth[0]} | {gigabytes} | {growth[1]} |")
    if costs[-1] > LINEAR * costs[0]:
        return [f"{LINEAR}x the time for a row of the small set, found {costs[-1] / costs[0]:.2f}x"]
    return []


def bench_cluster(folder: Path | None, questions: int) -> list[str]:
    """Clustering alone: templates as in the real sets, and other questions."""
    templates = round(questions * shape.ROWS["knowledge_graph"] / QUESTIONS)
    half = (questions - templates) // 2
    rows = {
        "knowledge_graph": templates,
        "encyclopedia": half,
        "lite": questions - templates - half,
    }
    with corpus(folder, rows) as root:
        found = timed(clusters, root, weigh=True)
    print(
        f"\ncluster: {questions:,} questions in {found.seconds:.1f} s, {found.memory / 1e9:.2f} GB"
    )
    for name, value in found.result.items():
        print(f"  {name}: {value}")
    if found.seconds > CLUSTER_SECONDS:
        return [f"{QUESTIONS:,} questions in {CLUSTER_SECONDS} s, found {found.seconds:.1f} s"]
    return []


def bench_full(folder: Path | None, rows: int) -> list[str]:
    """The shape of all of Huatuo-26M, once."""
    place = folder or Path(tempfile.gettempdir())
    free = shutil.disk_usage(place).free
    needed = FULL_DISK * rows / sum(shape.ROWS.values())
    if free < needed:
        raise DataError(
            f"expected {needed / 1e9:.0f} GB free for the corpus and its result, found "
            f"{free / 1e9:.0f} GB in {place}; give --folder on a bigger disk"
        )
    started = time.perf_counter()
    with corpus(folder, shape.counts(rows)) as root:
        size = sum(file.stat().st_size for file in root.rglob("*.jsonl"))
        made = time.perf_counter() - started
        print(f"\nfull: {rows:,} rows, {size / 1e9:.2f} GB, written in {made:.0f} s", flush=True)
        found = timed(convert, root, weigh=True)
        manifest = json.loads(next(root.rglob("manifest.json")).read_text(encoding="utf-8"))
    print(found.result)
    counts, groups = manifest["counts"], manifest["clusters"]
    kept = counts["train"] + counts["test"]
    print(
        f"test share {counts['test'] / kept:.4f}; {groups['clusters']:,} clusters, the largest of "
        f"{groups['largest']:,} rows ({groups['largest'] / kept:.2%}; "
        f"{groups['largest_before']:,} before it was taken apart)"
    )
    for name, shares in manifest["leakage"].items():
        print(f"leakage, {name}: {shares}")
    print(
        f"converted in {found.seconds / 60:.1f} minutes ({rows / found.seconds:,.0f} rows/s) "
        f"by {WORKERS} workers, peak memory {found.memory / 1e9:.2f} GB"
    )
    failed = []
    if found.seconds > FULL_SECONDS:
        failed.append(f"{FULL_SECONDS / 60:.0f} minutes, found {found.seconds / 60:.1f}")
    if found.memory > FULL_BYTES:
        failed.append(f"{FULL_BYTES / 1e9:.0f} GB of memory, found {found.memory / 1e9:.2f} GB")
    return failed


def main(argv: Sequence[str] | None = None) -> None:
    """Measures and prints.

    Raises:
        CheckFailedError: A promise does not hold.
        DataError: There is no room for the full corpus.
    """
    parser = cli.parser(__doc__)
    parser.add_argument("--only", choices=PARTS, help="one part of the three")
    parser.add_argument("--full", action="store_true", help="instead: all of Huatuo-26M, once")
    parser.add_argument("--folder", type=Path, help="where to work (default: the system's own)")
    parser.add_argument("--rows", type=int, help="of the corpus, or questions to cluster")
    given = parser.parse_args(argv)
    if given.rows is not None and given.rows < LEAST_ROWS:
        parser.error(f"--rows must be at least {LEAST_ROWS}, found {given.rows}")
    if given.folder:
        given.folder.mkdir(parents=True, exist_ok=True)
    if given.full:
        failed = bench_full(given.folder, given.rows or sum(shape.ROWS.values()))
    else:
        failed = []
        if given.only in (None, "rows"):
            failed += bench_rows(given.folder, given.rows or 2_000_000)
        if given.only in (None, "convert"):
            failed += bench_convert(given.folder, given.rows or 2_000_000)
        if given.only in (None, "cluster"):
            failed += bench_cluster(given.folder, given.rows or QUESTIONS)
    if failed:
        raise CheckFailedError(f"expected {'; '.join(failed)}")


if __name__ == "__main__":
    cli.run(main)
