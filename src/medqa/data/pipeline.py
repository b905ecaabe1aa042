"""Raw files to a LLaMA-Factory data set: read, check, split, write, register."""

from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from medqa import provenance
from medqa.config import load
from medqa.data import registry, rows, sources, split
from medqa.data.clean import RULES
from medqa.data.ledger import Ledger
from medqa.data.recipe import Recipe, Replay
from medqa.data.rows import Record, Rejection
from medqa.errors import DataError
from medqa.files import atomic_folder
from medqa.paths import processed, shown
from medqa.progress import progress

RECORD = "manifest.json"
ROWS_PER_ADVANCE = 1000


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
    entries = {f"{recipe.name}_{part}": target / f"{part}.jsonl" for part in ("train", "test")}
    sources.require(recipe.all_sources)
    inputs = provenance.digest(*(source.file for source in recipe.all_sources))
    # The rules belong to it: a new one gives another result.
    settings = recipe.model_dump() | {"rules": [rule.__name__ for rule in RULES]}
    if provenance.is_current(target / RECORD, step="convert", inputs=inputs, config=settings):
        restored = registry.register(entries, overwrite=overwrite)
        note = " (entered in data/dataset_info.json again)" if restored else ""
        return f"up to date: {shown(target)}{note}"
    if not overwrite:
        registry.require_free(entries)
    with atomic_folder(target, overwrite=overwrite) as folder:
        ledger = _write(recipe, folder)
        provenance.write(
            folder / RECORD,
            step="convert",
            inputs=inputs,
            config=settings,
            outputs=[folder / f"{part}.jsonl" for part in ("train", "test", "rejects")],
            seed=recipe.seed,
            **ledger.facts(),
        )
    registry.register(entries, overwrite=overwrite)
    return f"{ledger.table()}\nwritten: {shown(target)} (data sets {' and '.join(entries)})"


def _write(recipe: Recipe, folder: Path) -> Ledger:
    """Writes train, test and rejects of `recipe` into `folder`.

    All are in seeded order: the first n rows of a file are a fair sample of it, which is what
    ``max_samples`` of LLaMA-Factory takes, and a smaller ``max_rows`` gives a part of a bigger.
    """
    clusters = split.Clusters()
    with closing(Ledger(folder)) as ledger:
        kept = _read(recipe, clusters, ledger)
        kept.sort(key=lambda record: split.rank(recipe.seed, record.pair_key))
        replayed = {source.source for source in recipe.replay.sources} if recipe.replay else set()
        own = [record for record in kept if record.source not in replayed]
        sizes = Counter(clusters.of(record.question_key) for record in own)
        held_out = split.choose(sizes, recipe.test_share, recipe.seed)
        test = [record for record in own if clusters.of(record.question_key) in held_out]
        train = [record for record in own if clusters.of(record.question_key) not in held_out]
        train = _first(recipe.max_rows, train, ledger)
        if recipe.replay:
            general = [record for record in kept if record.source in replayed]
            train += _replay(recipe.replay, general, len(train), held_out, clusters, ledger)
            train.sort(key=lambda record: split.rank(recipe.seed, record.pair_key))
        if not train:
            raise DataError(f"{recipe.name}: no training pair is left; {ledger.losses()}")
        ledger.keep("train", train, clusters)
        ledger.keep("test", test, clusters)
    ledger.check()
    return ledger


def _read(recipe: Recipe, clusters: split.Clusters, ledger: Ledger) -> list[Record]:
    """Returns every pair that passes, with no two equal; clusters all of them."""
    kept: list[Record] = []
    seen: set[int] = set()
    total = sum(source.file.stat().st_size for source in recipe.all_sources)
    with progress(f"convert {recipe.name}", total, "bytes") as advance:
        for source in recipe.all_sources:
            waiting = 0
            for number, row in enumerate(sources.read(source), start=1):
                outcomes = rows.convert(row, source.schemas, recipe.limits)
                ledger.enter(row, outcomes)
                # Also of a duplicate: it may be a paraphrase of another question in its row.
                clusters.join(o.question_key for o in outcomes if isinstance(o, Record))
                for outcome in outcomes:
                    if isinstance(outcome, Rejection):
                        ledger.reject(outcome)
                    elif outcome.pair_key in seen:
                        ledger.reject(outcome.rejected(rows.DUPLICATE, row.raw))
                    else:
                        seen.add(outcome.pair_key)
                        kept.append(outcome)
                waiting += row.size
                if number % ROWS_PER_ADVANCE == 0:
                    advance(waiting)
                    waiting = 0
            advance(waiting)
    return kept


def _first(count: int | None, records: list[Record], ledger: Ledger) -> list[Record]:
    """Returns the first `count` records, or all; the others are rejected as not sampled."""
    kept = records[:count]
    for record in records[len(kept) :]:
        ledger.reject(record.rejected(rows.NOT_SAMPLED))
    return kept


def _replay(
    replay: Replay,
    general: list[Record],
    own: int,
    held_out: set[int],
    clusters: split.Clusters,
    ledger: Ledger,
) -> list[Record]:
    """Returns the general pairs that join `own` medical ones, none of them asked in test."""
    usable = []
    for record in general:
        if clusters.of(record.question_key) in held_out:
            ledger.reject(record.rejected(rows.IN_TEST))
        else:
            usable.append(record)
    wanted = round(replay.share * own / (1 - replay.share))
    chosen = _first(wanted, usable, ledger)
    ledger.replayed(replay.share, len(chosen), own)
    return chosen
