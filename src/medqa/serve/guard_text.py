"""A question in the one spelling in which the guard's words are looked for.

Half and full width, case, simplified and traditional characters, zero-width and control
characters, quotation marks, and blanks or dots between single characters (胸 口 疼, 自.杀) make no
difference. ``,。;!?`` end a clause; a blank between Chinese words ends the reach of a denial only.
"""

import re
import unicodedata
from collections.abc import Iterable
from functools import cache
from typing import Any

LIMIT = 10_000  # characters read at either end of a question; what is between is not judged
BREAKS = ",。;!?"

_HAN = "一-鿿〇㐀-䶿"
_DOTS = r"\s.·•*\-_~^/\\|+=#…、"


def fold(text: str) -> str:
    """Returns `text` in the one spelling."""
    if len(text) > 2 * LIMIT:
        text = f"{text[:LIMIT]}。{text[-LIMIT:]}"
    text = unicodedata.normalize("NFKC", text)
    if len(text) > 2 * LIMIT:  # one character may be written as 18
        text = f"{text[:LIMIT]}。{text[-LIMIT:]}"
    text = _simplified(text.translate(_CHARACTERS).casefold())
    text = _SPELT_OUT.sub(lambda match: _DOT.sub("", match[0]), text)
    text = _AFTER_ONE.sub("", text)
    text = _BETWEEN.sub(" ", text)
    text = _BLANKS.sub(" ", text)
    text = _BESIDE_BREAK.sub(r"\1", text)
    text = _BESIDE_FIGURE.sub("", text)
    return _FULL_STOP.sub("。", text).strip()


def is_chinese(text: str) -> bool | None:
    """Says whether `text` holds a Chinese character; None if it holds no letter at all."""
    if _ANY_HAN.search(text):
        return True
    return False if any(character.isalpha() for character in text) else None


def one_of(words: Iterable[str]) -> str:
    """Returns a regular expression for any of the words, the longest that fits."""
    folded = sorted({fold(word) for word in words}, key=len, reverse=True)
    han = [re.escape(word) for word in folded if not word.isascii()]
    latin = [re.escape(word) for word in folded if word.isascii()]
    if latin:
        han.append(rf"(?<![a-z0-9])(?:{'|'.join(latin)})(?![a-z0-9])")
    return f"(?:{'|'.join(han) or '(?!)'})"


class _Characters(dict[int, int | str | None]):
    """What becomes of each character; filled as they come."""

    def __missing__(self, code: int) -> int | str | None:
        character = chr(code)
        category = unicodedata.category(character)
        kept: int | str | None = code
        if character.isspace():
            kept = " "
        elif character in '"“”「」『』《》<>`' or category in ("Cf", "Cc", "Mn", "Me", "Co", "Cn"):
            kept = None
        elif character in "’‘＇":
            kept = "'"
        elif character in "｡．":
            kept = "。"
        if len(self) < 100_000:
            self[code] = kept
        return kept


_CHARACTERS = _Characters()
_ANY_HAN = re.compile(f"[{_HAN}]")
_DOT = re.compile(f"[{_DOTS}]")
_SPELT_OUT = re.compile(f"(?<![{_HAN}])[{_HAN}](?:[{_DOTS}]{{1,3}}[{_HAN}](?![{_HAN}]))+")
_AFTER_ONE = re.compile(
    rf"(?<![{_HAN}0-9a-z][{_HAN}])(?<=[{_HAN}])[.·•*\-_~^/\\|+=#]{{1,2}}(?=[{_HAN}])"
)
_BETWEEN = re.compile(rf"(?<=[{_HAN}])[\s.·•*\-_~^/\\|+=#…]+(?=[{_HAN}])")
_BLANKS = re.compile(r"\s+")
_BESIDE_FIGURE = re.compile(rf"(?<=[{_HAN}]) (?=\d)|(?<=\d) (?=[{_HAN}])")
_BESIDE_BREAK = re.compile(rf" ?([{BREAKS}:]) ?(?=[^a-z]|$)")
_FULL_STOP = re.compile(r"\.(?=\s|$)")


def _simplified(text: str) -> str:
    return text if text.isascii() else str(_converter().convert(text))


@cache
def _converter() -> Any:
    from opencc import OpenCC

    return OpenCC("t2s")
