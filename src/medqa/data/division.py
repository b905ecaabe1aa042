"""The records of all shards, divided: equal pairs once, whole clusters to one split, a fair sample.

Works on one Polars table of a row per pair, with the columns that `medqa.data.shards` writes. Every
pair that goes in comes out once, with its split or the reason against it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from medqa.data import rows, sources
from medqa.data.recipe import Recipe

if TYPE_CHECKING:
    import polars as pl

# Clusters above this share of all rows are taken apart, so that the split can meet its ratio and
# none is above a hundredth of its own source; the floor is for small sets, where a handful of
# paraphrases is more than that.
LARGEST_SHARE = 0.005
LARGEST_AT_LEAST = 50
LEAKAGE_SAMPLE = 500


@dataclass
class Division:
    """The divided records and what was measured on the way.

    Attributes:
        table: The records table with ``cluster`` (UInt64), ``split`` (train, val or test; null for
            those left out), ``reason`` (null for those kept) and ``match`` (the evaluation question
            that a pair is too near to, else null), in seeded order.
        clusters: Facts of the clustering.
        leakage: Of a row-random split and of ours.
        replay: Rows of general data in training, or None.
        own: Training rows that are not replay.
        evaluation: Matches with evaluation files, or None where none was named.
    """

    table: "pl.DataFrame"
    clusters: dict[str, Any]
    leakage: dict[str, dict[str, Any]] = field(default_factory=dict)
    replay: int | None = None
    own: int = 0
    evaluation: "pl.DataFrame | None" = None


def divide(recipe: Recipe, table: "pl.DataFrame") -> Division:
    """Divides the records of `table`, which come in the order of their sources."""
    import polars as pl

    found: dict[str, Any] = {}
    table = table.with_columns(
        _clusters(recipe, table, found),
        reason=pl.when(pl.struct(pl.selectors.ends_with("_key")).is_first_distinct())
        .then(None)
        .otherwise(pl.lit(rows.DUPLICATE)),
        match=pl.lit(None, dtype=pl.String),
    )
    # Equal ranks are equal pairs, of which all but one are rejects; their place settles those.
    table = table.with_row_index("place").sort("rank", "place").drop("place")
    division = Division(table, found)
    replayed = [source.source for source in recipe.replay.sources] if recipe.replay else []
    general = table["source"].is_in(replayed)
    split = _splits(recipe, table, general)
    asked_in_test = pl.col("reason").is_null() & general & (split != "train")
    division.table = table.with_columns(
        split, reason=pl.when(asked_in_test).then(pl.lit(rows.IN_TEST)).otherwise("reason")
    )
    _decontaminate(recipe, division)
    division.leakage = _leakage(recipe, division.table.filter(~general))
    _sample(recipe, division, general)
    division.table = division.table.with_columns(
        split=pl.when(pl.col("reason").is_null()).then("split")
    )
    return division


def _clusters(recipe: Recipe, table: "pl.DataFrame", facts: dict[str, Any]) -> "pl.Series":
    """Returns the cluster of each record; also of duplicates, whose paraphrases count."""
    import polars as pl

    from medqa.data import cluster, leakage

    question = table["question_key"].to_numpy()
    raw_row = table.select(pl.struct("source", "row").rank("dense")).to_series()
    answers = [name for name in ("answer", "rejected") if name in table.columns]
    shared = table.select(
        pl.when(pl.col(name).str.len_chars() >= leakage.LONG_ANSWER)
        .then(f"{name}_key")
        .otherwise(pl.lit(0, dtype=pl.UInt64))
        .alias(name)
        for name in answers
    )
    largest = max(int(LARGEST_SHARE * len(table)), LARGEST_AT_LEAST)
    firm = [question, raw_row.cast(pl.UInt64).to_numpy()]
    soft = [shared[name].to_numpy() for name in answers]
    found = cluster.assign(table["canonical"], firm, soft, largest=largest)
    facts.update(found.facts)
    return pl.Series("cluster", found.labels, dtype=pl.UInt64)


def _strata(table: "pl.DataFrame") -> "pl.Series":
    """Returns each record's source and department, by name: a number would move with the others."""
    import polars as pl

    return table.select(pl.concat_str("source", "department", separator="\t")).to_series()


def _splits(recipe: Recipe, table: "pl.DataFrame", general: "pl.Series") -> "pl.Series":
    """Returns the split of each record by its cluster; general ones only follow the others."""
    import polars as pl

    from medqa.data import split

    shares = {"test": recipe.test_share}
    if recipe.val_share:
        shares["val"] = recipe.val_share
    kept = table["reason"].is_null() & ~general
    clusters, strata = table["cluster"].filter(kept), _strata(table).filter(kept)
    parts = split.assign(clusters.to_numpy(), strata.to_numpy(), shares, recipe.seed)
    names = pl.Series(["train", *shares])[parts.astype("uint32")]
    where = pl.DataFrame({"cluster": clusters, "split": names}).unique("cluster")
    joined = table.select("cluster").join(where, on="cluster", how="left", maintain_order="left")
    return joined["split"].fill_null("train")


def _decontaminate(recipe: Recipe, division: Division) -> None:
    """Leaves out of training and validation what is too near to an evaluation question."""
    if not recipe.decontaminate:
        return
    import polars as pl

    from medqa.data import decontaminate

    evaluation = pl.DataFrame(
        list(_evaluation(recipe)),
        schema={"canonical": pl.String, "question": pl.String, "source": pl.String},
        orient="row",
    )
    table = division.table.with_row_index("at")
    candidates = table.filter(pl.col("reason").is_null() & (pl.col("split") != "test"))
    found = decontaminate.matches(candidates["canonical"], evaluation)
    hits = found.select(
        candidates["at"].gather(found["index"]).alias("at"),
        pl.format("{}: {}", "source", "question").alias("near"),
    )
    table = table.join(hits, on="at", how="left", maintain_order="left").with_columns(
        reason=pl.when(pl.col("near").is_not_null())
        .then(pl.lit(rows.NEAR_EVALUATION))
        .otherwise("reason"),
        match=pl.col("near"),
    )
    division.table = table.drop("at", "near")
    asked = candidates.select("question", "source").rename({"source": "from"})
    division.evaluation = pl.concat(
        [
            asked[found["index"]].rename({"question": "training"}),
            found.select("question", "source", "similarity"),
        ],
        how="horizontal",
    )


def _evaluation(recipe: Recipe) -> Iterator[tuple[str, str, str]]:
    from medqa.data.clean import Cleaner
    from medqa.data.normal import canonical

    cleaner = Cleaner(recipe.rules.on, recipe.privacy)
    for source in recipe.decontaminate:
        for row in sources.read(source):
            for question in rows.questions(row, source.schemas):
                text, _ = cleaner.question(question)
                yield canonical(text), text, source.source


def _leakage(recipe: Recipe, own: "pl.DataFrame") -> dict[str, dict[str, Any]]:
    """Measures what of test stands in training, for a split row by row and for ours."""
    import polars as pl

    from medqa.data import leakage

    columns = own.filter(pl.col("reason").is_null()).select(
        "question",
        "question_key",
        "answer_key",
        "split",
        pl.col("answer").str.len_chars().alias("answer_chars"),
    )
    test = columns["split"] == "test"
    # The table is in seeded order, so its first rows are a random draw.
    drawn = pl.Series(range(len(columns)), dtype=pl.UInt32) < test.sum()
    divisions = {"random": (~drawn, drawn), "ours": (columns["split"] == "train", test)}
    return {
        name: leakage.measure(
            columns.filter(training),
            columns.filter(held_out),
            sample=LEAKAGE_SAMPLE,
            seed=recipe.seed,
        )
        for name, (training, held_out) in divisions.items()
    }


def _sample(recipe: Recipe, division: Division, general: "pl.Series") -> None:
    """Leaves out of training what ``max_rows`` and the replay share do not ask for."""
    import polars as pl

    from medqa.data import mix

    table = division.table
    weight = {source.source: source.weight for source in recipe.all_sources}
    strata = _strata(table)
    weights = table["source"].replace_strict(weight, return_dtype=pl.Float64)

    def first(which: "pl.Series", count: int | None) -> "pl.Series":
        if count is None or count >= which.sum():
            return which
        chosen = which.to_numpy(writable=True)
        names, densities, ranks = (
            column.filter(which).to_numpy() for column in (strata, weights, table["rank"])
        )
        chosen[chosen] = mix.subset(names, densities, ranks, count)
        return pl.Series(chosen)

    training = (table["split"] == "train") & table["reason"].is_null()
    taken = first(training & ~general, recipe.max_rows)
    division.own = int(taken.sum())
    if recipe.replay:
        wanted = mix.replay_count(recipe.replay.share, division.own)
        replay = first(training & general, wanted)
        division.replay = int(replay.sum())
        taken = taken | replay
    division.table = table.with_columns(
        reason=pl.when(training & ~taken).then(pl.lit(rows.NOT_SAMPLED)).otherwise("reason")
    )
