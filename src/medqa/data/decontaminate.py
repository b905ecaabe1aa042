"""Training questions that are too near to a question of an evaluation set."""

from typing import TYPE_CHECKING

from medqa.data import near

if TYPE_CHECKING:
    import polars as pl

# Stricter than what ties rows in the split, since what is found here leaves the training set:
# about two characters changed in twenty, or six of filler, and what the question is about nearly
# all there.
WHOLE_ALIKE = 0.9
CORE_HELD = 0.8


def matches(canonical: "pl.Series", evaluation: "pl.DataFrame") -> "pl.DataFrame":
    """Returns the training questions that are near an evaluation question.

    Near is: equal but for filler words, or wholes at least `WHOLE_ALIKE` alike of which each
    holds at least `CORE_HELD` of the characters of the other's core. In medicine such a question
    may be another one (高血压, 低血压 in a long question); leaving it out of training costs little.

    Args:
        canonical: (records,) training questions as `normal.canonical` gives them.
        evaluation: Columns ``canonical``, ``question`` and ``source``.

    Returns:
        One row for each such record, its most similar match: ``index`` (UInt32, place in
        `canonical`), ``question`` and ``source`` of the match, ``similarity`` (Float64, 0 to 1).
    """
    import numpy as np
    import polars as pl

    schema = {
        "index": pl.UInt32,
        "question": pl.String,
        "source": pl.String,
        "similarity": pl.Float64,
    }
    if canonical.is_empty() or evaluation.is_empty():
        return pl.DataFrame(schema=schema)
    both = pl.concat([canonical.cast(pl.String), evaluation["canonical"].cast(pl.String)])
    questions = near.Questions(both)
    ours, theirs = questions.of[: len(canonical)], questions.of[len(canonical) :]
    count = len(questions.wholes.texts)
    trained = np.bincount(ours, minlength=count) > 0
    asked = np.bincount(theirs, minlength=count) > 0
    # What both sets hold is marked: it is found as equal, and may be near other training ones.
    pairs = near.whole_candidates(questions, asked).view(np.int64)
    one, other = np.divmod(pairs, count)
    one, other = np.concatenate((one, other)), np.concatenate((other, one))
    wanted = trained[one] & asked[other]
    one, other = one[wanted], other[wanted]
    alike = questions.alike(one, other)
    kept = np.flatnonzero(alike >= WHOLE_ALIKE)
    kept = kept[questions.held(one[kept], other[kept]) >= CORE_HELD]
    equal = np.flatnonzero(trained & asked)
    found = pl.DataFrame(
        {
            "trained": np.concatenate((equal, one[kept])),
            "asked": np.concatenate((equal, other[kept])),
            "similarity": np.concatenate((np.ones(len(equal)), alike[kept])),
        }
    )
    found = found.sort("trained", "similarity", "asked", descending=[False, True, False])
    best = found.unique("trained", keep="first", maintain_order=True)
    shown = evaluation.select("question", "source", asked=pl.Series(theirs))
    shown = shown.sort("asked", "source", "question").unique("asked", keep="first")
    records = pl.DataFrame({"trained": ours}).with_row_index("index")
    hits = records.join(best, on="trained").join(shown, on="asked").sort("index")
    return hits.select(pl.col("index").cast(pl.UInt32), "question", "source", "similarity")
