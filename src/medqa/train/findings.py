"""What a look at a recipe found: what is right, what is doubtful, what is wrong and its cure."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        level: ``problem`` stops a training, ``warning`` is said, ``ok`` is only listed.
        about: What was looked at, in a word: ``model``, ``data``, ``card`` …
        text: What was seen, and what was expected where it differs.
        cure: What to run or to set; empty where nothing has to be done.
    """

    level: Level
    about: str
    text: str
    cure: str = ""

    def __str__(self) -> str:
        """Returns it as one line."""
        line = f"{self.about}: {self.text}" + (f"; {self.cure}" if self.cure else "")
        return " ".join(line.split())


class Findings:
    """Findings in the order in which they were made."""

    def __init__(self) -> None:
        self._all: list[Finding] = []

    def __iter__(self) -> Iterator[Finding]:
        """Yields them in their order."""
        return iter(self._all)

    def ok(self, about: str, text: str) -> None:
        """Notes that something is as it should be."""
        self._all.append(Finding("ok", about, text))

    def warning(self, about: str, text: str, cure: str) -> None:
        """Notes something doubtful."""
        self._all.append(Finding("warning", about, text, cure))

    def problem(self, about: str, text: str, cure: str) -> None:
        """Notes something wrong."""
        self._all.append(Finding("problem", about, text, cure))

    def failed(self, *about: str) -> bool:
        """Says whether there is a problem with any of `about`."""
        return any(found.level == "problem" and found.about in about for found in self._all)

    def told(self, level: Level) -> list[str]:
        """Returns the findings of one level as lines."""
        return [str(found) for found in self._all if found.level == level]
