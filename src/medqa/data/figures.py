"""What the report says about the kept rows in numbers: lengths, tokens, departments, clusters."""

from typing import TYPE_CHECKING, Any, NamedTuple

from medqa.data import chat
from medqa.paths import resolve

if TYPE_CHECKING:
    import polars as pl

    from medqa.data.recipe import Recipe

TOKEN_ROWS = 10_000  # training pairs whose tokens are counted: at most 5 s; shares hold to ±1 %
BINS = 32
DEPARTMENTS = 24
CLUSTER_QUESTIONS = 8
CLUSTER_SIZES = (1, 2, 3, 5, 10, 20, 50, 100)  # upper ends of the rows of the size table
CUTOFFS = (256, 512, 1024, 2048)


class Bar(NamedTuple):
    """One bar of a histogram: values from `left` up to but not with `right`."""

    left: int
    right: int
    rows: int


class Histogram(NamedTuple):
    """Bars of equal width, the last one open to the right, and what they come to."""

    bars: list[Bar]
    rows: int
    median: int
    p95: int
    longest: int
    mark: int | None


def histogram(values: "pl.Series", mark: int | None = None) -> Histogram | None:
    """Returns bars up to the 99th percentile, and the rest in the last; None without values."""
    import polars as pl

    if values.is_empty():
        return None
    values = values.cast(pl.Int64)
    top = max(_quantile(values, 0.99), mark or 0, 1)
    width = _round_up(top / BINS)
    if mark and mark % BINS == 0:  # so that the mark stands between two bars
        top = min(top, 3 * mark)
        width = mark // BINS * (1 if top <= 2 * mark else 2)
    last = -(-top // width)
    counts = dict(
        pl.DataFrame({"bin": (values // width).clip(upper_bound=last)})
        .group_by("bin")
        .len()
        .iter_rows()
    )
    bars = [Bar(b * width, (b + 1) * width, counts.get(b, 0)) for b in range(last + 1)]
    return Histogram(
        bars=bars,
        rows=len(values),
        median=_quantile(values, 0.5),
        p95=_quantile(values, 0.95),
        longest=_quantile(values, 1),
        mark=mark,
    )


def _quantile(values: "pl.Series", share: float) -> int:
    return int(values.quantile(share, "nearest") or 0)


def _round_up(value: float) -> int:
    """Returns the next of 1, 2, 5, 10, 20, 25, 50, 100 … that is not below `value`."""
    scale = 1
    while True:
        for step in (1, 2, 5) if scale == 1 else (1, 2, 2.5, 5):
            if step * scale >= value:
                return int(step * scale)
        scale *= 10


def tokens(recipe: "Recipe", train: "pl.DataFrame") -> dict[str, Any]:
    """Counts the tokens of a fair sample of training pairs; says why where it cannot."""
    import polars as pl

    given = recipe.tokenizer
    if given is None:
        return {"absent": None}
    if not (resolve(given) / chat.TOKENIZER).is_file():
        return {"absent": chat.how_to_get(given)}
    sample = train.bottom_k(TOKEN_ROWS, by="rank")
    counting, answer = chat.Chat(resolve(given)), sample["answer"].to_list()
    if recipe.kind == "text":
        counts = [count + 1 for count in counting.counts(answer)]
        whole = pl.Series(counts)
        return {
            "folder": given,
            "rows": len(sample),
            "all": len(sample) == len(train),
            "whole": histogram(whole),
            "answer": None,
            "mean": whole.mean() or 0.0,
            "per_character": sum(counts) / max(sum(map(len, answer)), 1),
            "total": round(sum(counts) / max(len(counts), 1) * len(train)),
        }
    prompts, answers = counting.lengths(sample["question"].to_list(), answer)
    characters = (sample["question"].str.len_chars() + sample["answer"].str.len_chars()).sum()
    per_character = sum(prompts + answers) / max(characters, 1)
    if recipe.kind == "preference":  # the longer decides what is cut
        _, worse = counting.lengths([], sample["rejected"].to_list())
        answers = list(map(max, answers, worse))
    whole = pl.Series(prompts) + pl.Series(answers) + 1
    cutoffs = sorted({*CUTOFFS, *([recipe.cutoff_len] if recipe.cutoff_len else [])})
    return {
        "folder": given,
        "rows": len(sample),
        "all": len(sample) == len(train),
        "whole": histogram(whole, recipe.cutoff_len),
        "answer": histogram(pl.Series(answers)),
        "mean": whole.mean() or 0.0,
        "per_character": per_character,
        "cut": {limit: int((whole > limit).sum()) for limit in cutoffs},
    }


def departments(rows: "pl.DataFrame") -> dict[str, Any]:
    """Returns pairs by department and split, biggest first."""
    import polars as pl

    split = pl.col("split")
    counted = (
        rows.group_by("department")
        .agg(pl.len().alias("rows"), *((split == p).sum().alias(p) for p in ("train", "test")))
        .sort("rows", "department", descending=[True, False])
    )
    known = counted.filter(pl.col("department") != "")
    unknown = counted.filter(pl.col("department") == "")
    return {
        "shown": known.head(DEPARTMENTS).to_dicts() + unknown.to_dicts(),
        "others": max(len(known) - DEPARTMENTS, 0),
        "most": known["rows"].max(),
        "known": known["rows"].sum(),
        "rows": len(rows),
    }


def clusters(rows: "pl.DataFrame") -> dict[str, Any]:
    """Returns how big the clusters are, whether one crosses the split, and the biggest."""
    import polars as pl

    sizes = rows.group_by("cluster").agg(
        pl.len().alias("size"), (pl.col("split").n_unique() > 1).alias("crosses")
    )
    table, below = [], 0
    for upper in (*CLUSTER_SIZES, None):
        inside = sizes["size"].filter(
            (sizes["size"] > below) & (sizes["size"] <= (upper or len(rows)))
        )
        if not inside.is_empty():
            name = f"> {below}" if upper is None else _span(below + 1, upper)
            table.append({"name": name, "clusters": len(inside), "rows": inside.sum()})
        below = upper or below
    largest = sizes.sort("size", "cluster", descending=[True, False]).row(0, named=True)
    members = rows.lazy().filter(pl.col("cluster") == largest["cluster"]).sort("rank").collect()
    return {
        "count": len(sizes),
        "sizes": table,
        "crossing": int(sizes["crosses"].sum()),
        "largest": largest["size"],
        "split": members["split"][0],
        "questions": members["question"].unique(maintain_order=True).head(CLUSTER_QUESTIONS),
        "distinct": members["question"].n_unique(),
    }


def _span(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}–{last}"
