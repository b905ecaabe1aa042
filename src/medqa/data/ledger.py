"""The books of a conversion: writes its files, counts both ways, and adds up."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import orjson

from medqa.data.rows import NOT_SAMPLED, URL_ANSWER, Record, Rejection, Row
from medqa.data.split import Clusters
from medqa.errors import CheckFailedError

PARTS = ("train", "test", "rejects")


class Ledger:
    """Every row that enters must leave as pairs in train, test or rejects; `check` sees to it.

    Close it after the writing, then call `check`.
    """

    def __init__(self, folder: Path) -> None:
        self._files = {part: (folder / f"{part}.jsonl").open("wb") for part in PARTS}
        self._rows: Counter[str] = Counter()
        self._pairs: Counter[str] = Counter()
        self._left: Counter[tuple[str, str]] = Counter()  # (source, part)
        self._reasons: Counter[tuple[str, str]] = Counter()  # (source, reason)
        # One byte for each row number: 1 from its entry until the first of its pairs leaves.
        self._owed: dict[str, bytearray] = {}
        self._replay: dict[str, float] | None = None

    def close(self) -> None:
        """Closes the files."""
        for file in self._files.values():
            file.close()

    def enter(self, row: Row, outcomes: Sequence[Record | Rejection]) -> None:
        """Books a raw row and the pairs that came of it."""
        self._rows[row.source] += 1
        self._pairs[row.source] += len(outcomes)
        owed = self._owed.setdefault(row.source, bytearray())
        owed.extend(bytes(row.number + 1 - len(owed)))
        owed[row.number] = 1

    def keep(self, part: str, records: Iterable[Record], clusters: Clusters) -> None:
        """Writes pairs as alpaca rows, all values plain strings."""
        for record in records:
            values = {
                "instruction": record.question,
                "input": "",
                "output": record.answer,
                "id": record.id,
                "source": record.source,
                "department": record.department,
                "cluster": f"{clusters.of(record.question_key):016x}",
            }
            self._leave(part, record, values)

    def reject(self, rejection: Rejection) -> None:
        """Writes a pair that is left out, with its reason."""
        values = {
            "id": rejection.id,
            "source": rejection.source,
            "reason": rejection.reason,
            "raw": rejection.raw,
        }
        self._reasons[rejection.source, rejection.reason] += 1
        self._leave("rejects", rejection, values)

    def replayed(self, asked: float, general: int, own: int) -> None:
        """Books how much general data went into training."""
        reached = general / max(general + own, 1)
        self._replay = {"share_asked": asked, "share": round(reached, 4), "rows": general}

    def check(self) -> None:
        """Raises CheckFailedError unless all rows and pairs that entered have left, once each."""
        for source, entered in self._pairs.items():
            left = sum(self._left[source, part] for part in PARTS)
            lost = self._owed[source].count(1)
            if left != entered or lost:
                raise CheckFailedError(
                    f"{source}: {entered} pairs of {self._rows[source]} rows went in, {left} came "
                    f"out and {lost} rows are in no file; this is a defect of medqa, report it"
                )

    def facts(self) -> dict[str, Any]:
        """Returns the counts for the manifest."""
        by_source = {
            source: {
                "rows": self._rows[source],
                "pairs": self._pairs[source],
                **{part: self._left[source, part] for part in PARTS},
                "reasons": self._reasons_of(source),
            }
            for source in self._rows
        }
        total: dict[str, Any] = {
            key: sum(counts[key] for counts in by_source.values())
            for key in ("rows", "pairs", *PARTS)
        }
        reasons: Counter[str] = Counter()
        for (_, reason), count in self._reasons.items():
            reasons[reason] += count
        total["reasons"] = dict(reasons.most_common())
        return {"counts": total, "sources": by_source, "replay": self._replay}

    def losses(self) -> str:
        """Returns what each source lost for which reason, in one line."""
        return "; ".join(
            f"{source}: {self._rows[source]} rows, "
            + (_listed(self._reasons_of(source)) or "all kept")
            for source in self._rows
        )

    def table(self) -> str:
        """Returns the counts as text, led by warnings about what nobody may overlook."""
        facts = self.facts()
        lines = [("source", "rows", "pairs", *PARTS, "reasons")]
        lines += [
            (
                name,
                *(f"{counts[key]:,}" for key in ("rows", "pairs", *PARTS)),
                _listed(counts["reasons"]),
            )
            for name, counts in [*facts["sources"].items(), ("total", facts["counts"])]
        ]
        widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
        text = [
            "  ".join(
                [
                    line[0].ljust(widths[0]),
                    *(
                        cell.rjust(width)
                        for cell, width in zip(line[1:-1], widths[1:-1], strict=True)
                    ),
                    line[-1],
                ]
            ).rstrip()
            for line in lines
        ]
        return "\n".join([*self._warnings(), *text])

    def _warnings(self) -> list[str]:
        found = []
        for (source, reason), count in self._reasons.items():
            if reason != NOT_SAMPLED and 2 * count > self._pairs[source]:
                meaning = "their answers are links, not text" if reason == URL_ANSWER else reason
                found.append(
                    f"WARNING: {count:,} of {self._pairs[source]:,} pairs of {source!r} are left "
                    f"out ({reason}{': ' + meaning if meaning != reason else ''})"
                )
        if not sum(self._left[source, "test"] for source in self._rows):
            found.append("WARNING: the test split is empty: all questions belong together")
        if self._replay and self._replay["share"] < self._replay["share_asked"] - 0.005:
            found.append(
                f"WARNING: replay is {self._replay['share']:.1%} of training, not the "
                f"{self._replay['share_asked']:.1%} asked for: its sources hold no more"
            )
        return found

    def _reasons_of(self, source: str) -> dict[str, int]:
        mine = Counter({r: n for (s, r), n in self._reasons.items() if s == source})
        return dict(mine.most_common())

    def _leave(self, part: str, pair: Record | Rejection, values: dict[str, str]) -> None:
        self._files[part].write(orjson.dumps(values, option=orjson.OPT_APPEND_NEWLINE))
        self._left[pair.source, part] += 1
        self._owed[pair.source][pair.row] = 0


def _listed(reasons: dict[str, int]) -> str:
    return ", ".join(f"{reason} {count:,}" for reason, count in reasons.items())
