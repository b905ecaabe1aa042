"""How long the rows of a recipe's data are, and what becomes of them in batches and packs."""

import math
import random
from bisect import bisect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, TypeVar

from medqa.train.counting import SEED, Row, count, most
from medqa.train.settings import is_packed

MULTIPLE = 8  # LLaMA-Factory's workflows pad every batch to a multiple of it
# Its defaults (hparams/data_args.py, transformers' training arguments).
MAP_BATCH, TRAIN_BATCH = 1000, 8

Item = TypeVar("Item")


@dataclass(frozen=True)
class Lengths:
    """Token counts of a recipe's training data.

    Attributes:
        rows: Rows of all its training files.
        sampled: Rows that were encoded; what follows is an estimate unless equal to `rows`.
        tokens: Real tokens an epoch: after cutting, without padding. A preference row counts
            twice, with its chosen and its rejected answer.
        computed: Tokens an epoch that the model computes, padding included, packed or padded as
            the recipe says.
        mean: Mean length before cutting; so are the following four.
        p50: Half of the rows have at most so many tokens.
        p90: Nine rows of ten have.
        p99: 99 of 100 have.
        longest: Of the rows that were encoded.
        cut: Share of rows longer than cutoff_len, which LLaMA-Factory cuts.
        padding: Share of padding tokens at the recipe's batch size when nothing is packed.
        packs: Rows an epoch as the trainer sees them: packs, or the rows where none are packed.
    """

    rows: int
    sampled: int
    tokens: int
    computed: int
    mean: float
    p50: int
    p90: int
    p99: int
    longest: int
    cut: float
    padding: float
    packs: int


def lengths(values: Mapping[str, Any], *, sample: int = 2000) -> Lengths:
    """Counts the tokens of a recipe's training rows.

    Args:
        values: A LLaMA-Factory YAML (stage pt, sft, rm or dpo, template chatglm3).
        sample: At most so many rows are encoded, drawn by a fixed seed.

    Raises:
        ConfigError: Another template.
        MissingInputError: The tokenizer or a data set is not there yet.
        DataError: A row or an entry is not what LLaMA-Factory takes.
    """
    rows, total = count(values, sample)
    return _summary(values, rows, total)


def packed(numbers: Iterable[int], capacity: int) -> list[list[int]]:
    """Returns lengths as packs of at most `capacity`: LLaMA-Factory's ``greedy_knapsack``.

    It takes the longest that still fits, again and again (``data/processor/processor_utils.py``).
    """
    left, packs = sorted(numbers), []
    while left:
        room, pack = capacity, []
        while place := bisect(left, room):
            pack.append(left.pop(place - 1))
            room -= pack[-1]
        if not pack:
            raise ValueError(f"{left[0]} tokens do not fit into packs of {capacity}")
        packs.append(pack)
    return packs


def _summary(values: Mapping[str, Any], rows: Sequence[Row], total: int) -> Lengths:
    whole = sorted(row.whole for row in rows)
    real = sum(length for row in rows for length in row.cut)
    padded = _padded(values, rows)
    packs, computed, padding = len(rows), padded, 1 - real / padded
    if is_packed(values):
        packs = _count_packs(values, rows, exact=len(rows) == total)
        real = min(real, packs * most(values))  # the rest of a text stream is dropped
        computed = packs * _multiple(most(values) + (values.get("stage") != "pt"))
    per_row = total / len(rows)
    return Lengths(
        rows=total,
        sampled=len(rows),
        tokens=round(real * per_row),
        computed=round(computed * per_row),
        mean=sum(whole) / len(whole),
        p50=_quantile(whole, 0.50),
        p90=_quantile(whole, 0.90),
        p99=_quantile(whole, 0.99),
        longest=whole[-1],
        cut=sum(max(row.cut) < row.whole for row in rows) / len(rows),
        padding=padding,
        packs=round(packs * per_row),
    )


def _count_packs(values: Mapping[str, Any], rows: Sequence[Row], *, exact: bool) -> int:
    """Packs as ``datasets.map`` hands the rows over: process by process, batch by batch."""
    workers = int(values.get("preprocessing_num_workers") or 1) if exact else 1
    size, packs = int(values.get("preprocessing_batch_size") or MAP_BATCH), 0
    for share in _shares(rows, min(workers, len(rows))):
        for batch in _batches(share, size):
            numbers = [length for row in batch for length in row.cut]
            if values.get("stage") == "pt":  # one stream of text, its rest dropped
                packs += sum(numbers) // most(values)
            else:
                packs += len(packed(numbers, most(values)))
    return packs


def _shares(rows: Sequence[Row], count: int) -> Iterable[Sequence[Row]]:
    """Cuts `rows` into `count` contiguous shares, the first ones larger by one row."""
    size, rest = divmod(len(rows), count)
    ends = accumulate(size + (n < rest) for n in range(count))
    start = 0
    for end in ends:
        yield rows[start:end]
        start = end


def _batches(items: Sequence[Item], size: int) -> Iterable[Sequence[Item]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _padded(values: Mapping[str, Any], rows: Sequence[Row]) -> int:
    """Returns the tokens of an epoch when batches of rows in random order are padded."""
    size = int(values.get("per_device_train_batch_size", TRAIN_BATCH))
    order = random.Random(SEED).sample(rows, len(rows))
    batches = [[length for row in batch for length in row.cut] for batch in _batches(order, size)]
    return sum(_multiple(max(batch)) * len(batch) for batch in batches)


def _multiple(length: int) -> int:
    return math.ceil(length / MULTIPLE) * MULTIPLE


def _quantile(ordered: Sequence[int], share: float) -> int:
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)]
