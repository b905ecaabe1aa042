"""The names of a tokenizer's control tokens, sought in texts."""

import json
import re
from collections.abc import Iterable
from pathlib import Path

from medqa.train.forms import Row

_BLOCK = 1 << 22  # bytes


def control_tokens(folder: Path) -> list[str]:
    """Returns the control tokens of the tokenizer in `folder`: ``<|user|>``, ``[gMASK]`` …"""
    try:
        tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        return [t["content"] for t in tokenizer.get("added_tokens", []) if t.get("special")]
    except (OSError, ValueError):
        return []


class Controls:
    """Finds control tokens.

    Args:
        tokens: Their names.
    """

    def __init__(self, tokens: Iterable[str]) -> None:
        self.tokens = sorted(tokens, key=len, reverse=True)
        parts = [
            # "sop" and "eop" are control tokens as whole words only: not within "people".
            rf"(?<!\w){token}(?!\w)" if token.isalpha() else re.escape(token)
            for token in self.tokens
        ]
        self._pattern = re.compile("|".join(parts) or "(?!)")
        # The first byte of each tells most lines apart at once; an escaped one tells nothing.
        self._hints = {(t if t.isalpha() else t[:1]).encode() for t in self.tokens}
        self._hints |= {rb"\u00"} if self._hints else set()

    def hints(self, file: Path) -> list[bytes]:
        """Returns those hints that stand in `file`; a line without any holds no control token."""
        if file.suffix in {".parquet", ".arrow"}:
            return sorted(self._hints)
        absent, end = set(self._hints), b""
        with file.open("rb") as opened:
            while absent and (block := opened.read(_BLOCK)):
                absent = {h for h in absent if h not in block and h not in end + block[:9]}
                end = block[-max(map(len, self._hints)) :]
        return sorted(self._hints - absent)

    def find(self, row: Row) -> str | None:
        """Returns the first that stands in the texts of `row`."""
        for text in (row.question, *row.answers, *row.others):
            if seen := self._pattern.search(text):
                return seen[0]
        return None
