"""Raw files to a LLaMA-Factory data set: read, mend, divide, write, report, register."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from medqa import provenance
from medqa.config import load
from medqa.data import card, registry, report, shards, sources
from medqa.data.division import Division, divide
from medqa.data.ledger import Ledger
from medqa.data.recipe import WORKING, Recipe
from medqa.data.rows import Kind
from medqa.data.shards import Shards
from medqa.errors import DataError
from medqa.files import atomic_folder
from medqa.paths import processed, shown
from medqa.progress import progress

if TYPE_CHECKING:
    import polars as pl

RECORD = "manifest.json"
REJECTS = "rejects.jsonl"
STAGES = 4  # divide, write, report, check
COPY_BYTES = 16 << 20
# Modules that decide no row.
LOOKS = {"card", "chat", "examples", "figures", "preview", "report", "sample"}


def convert(config: str | Path, overrides: Sequence[str] = (), *, overwrite: bool = False) -> str:
    """Converts what a data YAML names.

    Args:
        config: The YAML.
        overrides: ``key=value`` replacements.
        overwrite: Replace a result that was made from other inputs.

    Returns:
        What was done: a table of counts, or one line when the result was up to date.

    Raises:
        ConfigError: Everything that is wrong with the YAML.
        MissingInputError: Raw files are absent.
        DataError: A raw file as a whole is unusable, or no training pair is left.
        TargetError: The result or a registry entry exists and was made from something else.
        CheckFailedError: A row got lost, which would be our own mistake.
    """
    recipe = load(config, overrides, Recipe)
    target = processed(recipe.name)
    work = target.with_name(f".{target.name}.work")
    files = {part: f"{part}.{recipe.output}" for part in recipe.parts}
    entries = {f"{recipe.name}_{part}": target / name for part, name in files.items()}
    read = [*recipe.all_sources, *recipe.decontaminate]
    sources.require(read)
    inputs = provenance.digest(*(file for source in read for file in source.files))
    # The code belongs to it: another rule gives another result.
    code = provenance.code(Path(__file__).parent, without=LOOKS)
    settings = recipe.model_dump(exclude=set(WORKING)) | {"code": code}
    if provenance.is_current(target / RECORD, step="convert", inputs=inputs, config=settings):
        shutil.rmtree(work, ignore_errors=True)  # of a run that was killed at its very end
        restored = registry.register(entries, kind=recipe.kind, overwrite=overwrite)
        note = " (entered in data/dataset_info.json again)" if restored else ""
        return f"up to date: {shown(target)}{note}"
    if not overwrite:
        registry.require_free(entries)
    with atomic_folder(target, overwrite=overwrite) as folder:
        facts, text = _write(recipe, folder, work, files)
        provenance.write(
            folder / RECORD,
            step="convert",
            inputs=inputs,
            config=settings,
            outputs=[folder / name for name in (*files.values(), REJECTS, "report.html")],
            seed=recipe.seed,
            **facts,
        )
        card.write(folder, recipe=recipe, manifest=provenance.read(folder / RECORD) or {})
    shutil.rmtree(work, ignore_errors=True)
    registry.register(entries, kind=recipe.kind, overwrite=overwrite)
    return f"{text}\nwritten: {shown(target)} (data sets {', '.join(entries)}; see report.html)"


def _write(
    recipe: Recipe, folder: Path, work: Path, files: Mapping[str, str]
) -> tuple[dict[str, Any], str]:
    """Writes everything but the record into `folder`; returns the facts for it, and the table."""
    done = shards.run(
        recipe.all_sources,
        recipe.settings,
        work,
        workers=recipe.workers or shards.cores(),
        runner=recipe.runner,
        label=f"convert {recipe.name}",
    )
    ledger = Ledger(done.books["sources"], recipe.parts, recipe.unit)
    with progress(f"divide {recipe.name}", STAGES, "stages") as advance:
        table = _table(done.tables)
        if table.is_empty():
            raise _nothing_left(recipe, ledger)
        division = divide(recipe, table)
        del table
        advance(1)
        written = _write_splits(recipe, division, ledger, folder, files)
        written["rejects"] = _write_rejects(division, done, ledger, folder / REJECTS)
        advance(1)
        kept = division.table.filter(division.table["split"].is_not_null())
        report.write(
            folder,
            recipe=recipe,
            rows=kept,
            books=done.books | {"ledger": ledger.facts()},
            clusters=division.clusters,
            leakage=division.leakage,
            evaluation=division.evaluation,
        )
        advance(1)
        ledger.check(written)
        advance(1)
    facts = ledger.facts() | {
        "rules": {name: rule["count"] for name, rule in done.books["rules"].items()},
        "clusters": division.clusters,
        "leakage": division.leakage,
        "notes": done.books["notes"],
    }
    notes = [f"WARNING: {note}" for note in done.books["notes"]]
    return facts, "\n".join([*notes, ledger.table()])


def _table(tables: Sequence[Path]) -> "pl.DataFrame":
    import polars as pl

    return pl.concat([pl.scan_parquet(file, glob=False) for file in tables]).collect()


def _write_splits(
    recipe: Recipe, division: Division, ledger: Ledger, folder: Path, files: Mapping[str, str]
) -> dict[str, int]:
    """Writes the splits, all values plain strings; returns the rows of each.

    All are in seeded order: the first n rows of a file are a fair sample of it, which is what
    ``max_samples`` of LLaMA-Factory takes.
    """
    import polars as pl

    written = {}
    for part, name in files.items():
        rows = division.table.filter(pl.col("split") == part)
        for source, count in rows.group_by("source").len().iter_rows():
            ledger.keep(source, part, count)
        tracing: list[Any] = [_ids(), "source", "department", _hexadecimal(rows["cluster"])]
        made = rows.select(*_trained_on(recipe.kind), *tracing)
        write: Callable[[Path], None] = (
            made.write_parquet if recipe.output == "parquet" else made.write_ndjson
        )
        write(folder / name)
        written[part] = _count(folder / name)
    if not written["train"]:
        raise _nothing_left(recipe, ledger)
    if recipe.replay:
        ledger.replayed(recipe.replay.share, division.replay or 0, division.own)
    return written


def _trained_on(kind: Kind) -> "list[pl.Expr]":
    """Returns the columns that LLaMA-Factory reads, as `registry.LAYOUTS` names them."""
    import polars as pl

    answer = pl.col("answer")
    if kind == "text":
        return [answer.alias("text")]
    asked = [pl.col("question").alias("instruction"), pl.lit("").alias("input")]
    if kind == "preference":
        return [*asked, answer.alias("chosen"), pl.col("rejected")]
    return [*asked, answer.alias("output")]


def _nothing_left(recipe: Recipe, ledger: Ledger) -> DataError:
    return DataError(f"{recipe.name}: no training {recipe.unit} is left; {ledger.losses()}")


def _write_rejects(division: Division, done: Shards, ledger: Ledger, file: Path) -> int:
    """Writes what the shards refused, then what the division left out; returns the rows."""
    import polars as pl

    left_out = division.table.filter(pl.col("split").is_null())
    for source, reason, count in left_out.group_by("source", "reason").len().iter_rows():
        ledger.reject(source, reason, count)
    columns = left_out.select(_ids(), "source", "reason", pl.col("question").alias("raw"), "match")
    with file.open("wb") as out:
        for part in done.rejects:
            with part.open("rb") as lines:
                shutil.copyfileobj(lines, out, COPY_BYTES)
        for row in columns.iter_rows(named=True):
            if row["match"] is None:
                del row["match"]
            out.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
    return _count(file)


def _ids() -> "pl.Expr":
    """The id by which a pair is traced to its raw row, as `rows.pair_id` makes it."""
    import polars as pl

    first = pl.format("{}:{}", "source", "row")
    return (
        pl.when(pl.col("part") == 0)
        .then(first)
        .otherwise(pl.format("{}#{}", first, "part"))
        .alias("id")
    )


def _hexadecimal(clusters: "pl.Series") -> "pl.Series":
    import polars as pl

    names = [f"{cluster:016x}" for cluster in clusters.to_list()]
    return pl.Series("cluster", names, dtype=pl.String)


def _count(file: Path) -> int:
    """Returns the rows that a written file holds, read back from it."""
    import polars as pl

    if file.suffix == ".parquet":
        return int(pl.scan_parquet(file, glob=False).select(pl.len()).collect().item())
    count = 0
    with file.open("rb") as lines:
        while block := lines.read(COPY_BYTES):
            count += block.count(b"\n")
    return count
