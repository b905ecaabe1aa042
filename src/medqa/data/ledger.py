"""The books of a conversion: counts what entered and what left, and adds up."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from medqa.data.rows import NOT_SAMPLED, URL_ANSWER
from medqa.errors import CheckFailedError


class Ledger:
    """Every pair that enters must leave through train, val, test or rejects; `check` sees to it.

    Args:
        entered: Source tag to its ``rows``, ``pairs``, ``kept`` and ``reasons`` in the work on
            single rows.
        parts: The splits, ``train`` first.
        unit: What to call a pair.
    """

    def __init__(
        self,
        entered: Mapping[str, Mapping[str, Any]],
        parts: Sequence[str],
        unit: str = "pair",
    ) -> None:
        self._units = f"{unit}s"
        self.parts = [*parts, "rejects"]
        self._entered = entered
        self._left: Counter[tuple[str, str]] = Counter()  # (source, part)
        self._reasons: Counter[tuple[str, str]] = Counter()  # (source, reason)
        self._replay: dict[str, float] | None = None
        for source, counts in entered.items():
            for reason, count in counts["reasons"].items():
                self.reject(source, reason, count)

    def keep(self, source: str, part: str, count: int) -> None:
        """Books pairs that go to a split."""
        self._left[source, part] += count

    def reject(self, source: str, reason: str, count: int) -> None:
        """Books pairs that are left out."""
        self._left[source, "rejects"] += count
        self._reasons[source, reason] += count

    def replayed(self, asked: float, general: int, own: int) -> None:
        """Books how much general data went into training."""
        reached = general / max(general + own, 1)
        self._replay = {"share_asked": asked, "share": round(reached, 4), "rows": general}

    def check(self, written: Mapping[str, int]) -> None:
        """Compares the books with what entered and with the rows that the files hold.

        Args:
            written: Part to the rows counted in its file.

        Raises:
            CheckFailedError: They differ.
        """
        for source, counts in self._entered.items():
            left = sum(self._left[source, part] for part in self.parts)
            if left != counts["pairs"] or counts["pairs"] < counts["rows"]:
                raise CheckFailedError(
                    f"{source}: {counts['pairs']} pairs of {counts['rows']} rows went in and "
                    f"{left} came out; this is a defect of medqa, report it"
                )
        booked = {p: sum(self._left[s, p] for s in self._entered) for p in self.parts}
        if booked != dict(written):
            raise CheckFailedError(
                f"the files hold {dict(written)} and the books say {booked}; "
                "this is a defect of medqa, report it"
            )

    def facts(self) -> dict[str, Any]:
        """Returns the counts for the manifest."""
        by_source = {
            source: {
                "rows": counts["rows"],
                "pairs": counts["pairs"],
                **{part: self._left[source, part] for part in self.parts},
                "reasons": self._reasons_of(source),
            }
            for source, counts in self._entered.items()
        }
        total: dict[str, Any] = {
            key: sum(counts[key] for counts in by_source.values())
            for key in ("rows", "pairs", *self.parts)
        }
        reasons: Counter[str] = Counter()
        for (_, reason), count in self._reasons.items():
            reasons[reason] += count
        total["reasons"] = dict(reasons.most_common())
        return {"counts": total, "sources": by_source, "replay": self._replay}

    def losses(self) -> str:
        """Returns what each source lost for which reason, in one line."""
        return "; ".join(
            f"{source}: {counts['rows']} rows, " + (_listed(self._reasons_of(source)) or "all kept")
            for source, counts in self._entered.items()
        )

    def table(self) -> str:
        """Returns the counts as text, led by warnings about what nobody may overlook."""
        facts = self.facts()
        columns = ("rows", "pairs", *self.parts)
        lines = [("source", "rows", self._units, *self.parts, "reasons")]
        lines += [
            (name, *(f"{counts[key]:,}" for key in columns), _listed(counts["reasons"]))
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
            pairs = self._entered[source]["pairs"]
            if reason != NOT_SAMPLED and 2 * count > pairs:
                meaning = "their answers are links, not text" if reason == URL_ANSWER else reason
                found.append(
                    f"WARNING: {count:,} of {pairs:,} {self._units} of {source!r} are left "
                    f"out ({reason}{': ' + meaning if meaning != reason else ''})"
                )
        if not sum(self._left[source, "test"] for source in self._entered):
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


def _listed(reasons: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} {count:,}" for reason, count in reasons.items())
