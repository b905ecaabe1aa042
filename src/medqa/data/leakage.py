"""How much of a test set the training set gives away: an exact check, not by the clusters' means.

Neither MinHash nor the keys by which rows are tied is used for likeness: each sampled test
question is compared with every training question.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

# An answer of so many characters is not given twice by chance; a shorter one ("手术治疗") may be.
LONG_ANSWER = 50
LEVELS = (0.9, 0.8)

_CHUNK = 200_000
_ROUNDING = 1e-9
_SLACK = 0.01  # rapidfuzz drops what is exactly at its cutoff


def measure(
    train: "pl.DataFrame", test: "pl.DataFrame", *, sample: int, seed: int
) -> dict[str, float | int]:
    """Returns the shares of test rows that training gives away.

    Two questions are compared as written, after this folding: NFKC, lower case, and no
    punctuation, symbols, blanks or control characters. So ``1.5`` and ``15`` count as equal
    here, which can only make the leak look larger. Similarity is the longest common subsequence:
    twice its length by the sum of the lengths, the best over all training questions.

    Args:
        train: Columns ``question``, ``question_key``, ``answer_key``, ``answer_chars``.
        test: The same.
        sample: Test rows looked at, at most.
        seed: Of the sample.

    Returns:
        ``sampled`` (rows), and shares of them, 0 to 1: ``equal`` (question as folded),
        ``similar_90`` and ``similar_80`` (at least 0.9 and 0.8 similar, equal ones included), and
        ``same_answer`` (an answer of at least `LONG_ANSWER` characters that training has too).
        All are 0 when nothing was sampled.
    """
    import numpy as np
    import polars as pl

    order = test.select("question", "question_key", "answer_key")
    order = order.sort("question_key", "answer_key", "question").sample(
        min(sample, len(order)), seed=seed, shuffle=True
    )
    if order.is_empty() or train.is_empty():
        return {"sampled": len(order), "equal": 0.0, **_shares(np.zeros(0)), "same_answer": 0.0}
    best = _best(_folded(order["question"]), _folded(train["question"]).unique())
    answers = train.filter(pl.col("answer_chars") >= LONG_ANSWER)["answer_key"]
    given = order["answer_key"].is_in(answers.implode())
    return {
        "sampled": len(order),
        "equal": float((best == 1).mean()),
        **_shares(best),
        "same_answer": float(given.to_numpy().mean()),
    }


def _shares(best: "NDArray[np.float64]") -> dict[str, float | int]:
    """Returns the share of `best` at each of `LEVELS`."""
    import numpy as np

    if not len(best):
        best = np.zeros(1)
    return {f"similar_{n * 100:.0f}": float((best >= n - _ROUNDING).mean()) for n in LEVELS}


def _folded(questions: "pl.Series") -> "pl.Series":
    return (
        questions.str.normalize("NFKC")
        .str.to_lowercase()
        .str.replace_all(r"[\p{P}\p{S}\p{Z}\p{C}\s]+", "")
    )


def _best(asked: "pl.Series", known: "pl.Series") -> "NDArray[np.float64]":
    """Returns the similarity of each of `asked` to the one of `known` most like it.

    May be 0 when that is below the last of `LEVELS`. Only lengths between which such a similarity
    is possible are compared, which leaves the result exact.
    """
    import numpy as np
    from rapidfuzz.distance import Indel
    from rapidfuzz.process import cdist

    least = LEVELS[-1]
    lengths = known.str.len_chars()
    by_length = known[lengths.arg_sort()]
    sizes = lengths.sort().to_numpy()
    texts = by_length.to_numpy()
    queries = asked.to_list()
    order = sorted(range(len(queries)), key=lambda place: len(queries[place]))
    best = np.zeros(len(queries))
    for start in range(0, len(order), 32):
        group = order[start : start + 32]
        # 2 * shorter >= least * (shorter + longer), with room for rounding.
        shortest = int(len(queries[group[0]]) * least / (2 - least))
        longest = int(len(queries[group[-1]]) * (2 - least) / least) + 1
        first, last = np.searchsorted(sizes, (shortest, longest + 1))
        for low in range(first, last, _CHUNK):
            found = cdist(
                [queries[place] for place in group],
                texts[low : min(low + _CHUNK, last)],
                scorer=Indel.normalized_similarity,
                score_cutoff=least - _SLACK,
                dtype=np.float64,
                workers=-1,
            )
            best[group] = np.maximum(best[group], found.max(axis=1))
    return best
