"""Signs: points for characters, words and pairs of them, a second pair of eyes beside the rules.

Rules know the words that somebody thought of. A person in fear finds others (汗水长流, 遭不住), and
of such sentences the rules alone find about four in five. The points are a logistic regression
(Cox 1958) on the signs of a folded question, fitted by ``scripts/bench/guard.py --fit`` to the
sentences of tests/serve/guard/dev.yaml and to real questions; a table, no network, and as short a
calculation as a sum.
"""

import json
import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from medqa.errors import ConfigError
from medqa.paths import shown

LONGEST = 300  # characters; what is longer was not fitted, and is left to the rules


@dataclass(frozen=True)
class Signs:
    """The table.

    Attributes:
        base: Points of an empty text, below zero.
        points: A sign to its points.
        above: The sum from which on a question is taken for an emergency.
    """

    base: float
    points: dict[str, float]
    above: float

    @classmethod
    def load(cls, file: Path, above: float) -> "Signs":
        """Reads a table.

        Raises:
            ConfigError: There is none, or it holds anything but numbers.
        """
        try:
            table = json.loads(file.read_text(encoding="utf-8"))
            points = {str(sign): float(value) for sign, value in table["points"].items()}
            return cls(float(table["base"]), points, above)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(
                shown(file),
                [f"no table of signs ({error}); run: python scripts/bench/guard.py --fit FILE"],
            ) from None

    def score(self, text: str) -> float:
        """Returns the sum of points of a folded text."""
        return self.base + sum(self.points.get(sign, 0.0) for sign in signs_of(text))

    def hold(self, text: str) -> bool:
        """Says whether a folded text has the signs of an emergency."""
        return len(text) <= LONGEST and self.score(text) > self.above


def signs_of(text: str) -> set[str]:
    """Returns the signs of a folded text: its pieces and pairs of neighbours.

    A piece is a Chinese character, a Latin word, a mark, any number (``#``), or any blot (``□``).
    """
    pieces = [_NUMBER.sub("#", piece) for piece in _PIECE.findall(text)]
    return {*pieces, *map(" ".join, pairwise(pieces))}


_PIECE = re.compile(r"[a-z']+|[0-9]+(?:\.[0-9]+)?|□(?=[^□]|$)|[^\sa-z0-9□]")
_NUMBER = re.compile(r"^[0-9].*")
