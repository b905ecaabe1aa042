"""Text: light normalisation of what is kept, and the key by which two texts are compared.

Cleaning in depth adds functions to `RULES`; each takes and returns one text.
"""

import html
import re
import unicodedata
from collections.abc import Callable

_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});|&nbsp")
_LINE_BREAK = re.compile(r"\r\n?|[\v\f\u2028\u2029]")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f]+")
_ZERO_WIDTH = re.compile(r"[\u00ad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]+")
_BLANKS = re.compile(r"[^\S\n]+")
_BLANK_LINES = re.compile(r" ?\n[ \n]*")


def unescape_html(text: str) -> str:
    """Turns ``&lt;`` into ``<``; also ``&amp;lt;``, which scraped pages hold.

    Only entities that end in a semicolon (and ``&nbsp``): HTML's own rule would also turn
    ``&ampoule`` into ``&oule``.
    """
    while "&" in text:
        plain = _ENTITY.sub(_character, text)
        if plain == text:
            break
        text = plain
    return text


def unify_line_breaks(text: str) -> str:
    """Makes every kind of line break ``\\n``."""
    return _LINE_BREAK.sub("\n", text)


def remove_invisible(text: str) -> str:
    """Removes control characters and zero-width ones.

    A control character between two digits becomes a blank: ``5`` NUL ``10`` must not read 510.
    """
    text = _ZERO_WIDTH.sub("", text)
    return _CONTROL.sub(_blank_between_digits, text)


def collapse_whitespace(text: str) -> str:
    """Makes each run of blanks (also U+3000) one space, drops empty lines, strips the ends."""
    return _BLANK_LINES.sub("\n", _BLANKS.sub(" ", text)).strip()


# In this order: an entity may stand for a line break or a zero-width character.
RULES: tuple[Callable[[str], str], ...] = (
    unescape_html,
    unify_line_breaks,
    remove_invisible,
    collapse_whitespace,
)


def clean(text: str) -> str:
    """Returns `text` after all `RULES`. Digits, units and punctuation stay as they are."""
    for rule in RULES:
        text = rule(text)
    return text


def normalise(text: str) -> str:
    """Returns the key by which texts are compared: equal keys mean the same words and numbers.

    NFKC and case are folded, punctuation and whitespace go. What carries a dose or a finding
    stays: everything between two digits (``1.5``, ``3-5``, ``1、5``), ``%`` after a digit, ``/``
    between Latin letters, ``-`` except as a hyphen or dash between words, and all mathematical
    signs (``+``, ``<``, ``±``). Characters that NFKC would turn into plain digits stay too: 10⁵ is
    not 105.
    """
    folded = unicodedata.normalize("NFC", text.translate(_FOLDED))
    return _RUN.sub(_carried, _BETWEEN_WORDS.sub("", folded))


class _Folded(dict[int, str]):
    """A table for `str.translate` that works out each character when it is first met."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        plain = unicodedata.normalize("NFKD", char)
        category = unicodedata.category(char)
        if category != "Nd" and any(c.isdigit() for c in plain):
            plain = char
        plain = _SAME.get(plain, plain).casefold()
        if plain.isspace() or (unicodedata.category(plain[0])[0] == "P" and plain not in _SIGNS):
            plain = " "
        elif category in {"Cc", "Cf"}:
            plain = ""
        self[code] = plain
        return plain


# Punctuation that may carry meaning, decided by its neighbours; all other becomes a blank.
_SIGNS = frozenset(".,:*%‰/-")
_SAME = dict.fromkeys("\u2010\u2012\u2013\u2014\u2015\u2212", "-") | {
    "、": ",",
    "...": " ",
    "`": " ",
}
_FOLDED = _Folded()
_BETWEEN_WORDS = re.compile(r"(?<=[a-z\u3400-\u9fff])[ ,:.~*]+(?=[a-z\u3400-\u9fff])")
_RUN = re.compile(r"[ ,:.~*%‰/-]+")


def _carried(found: re.Match[str]) -> str:
    """Returns what of a run of signs and blanks belongs to the key."""
    run, text = found[0], found.string
    left, right = text[found.start() - 1 : found.start()], text[found.end() : found.end() + 1]
    if left.isdigit() and right.isdigit():
        return run
    kept = run[0] if left.isdigit() and run[0] in "%‰" else ""
    if run.strip(" ,:.~*") == "-" and not (run == "-" and left.isalpha() and right.isalpha()):
        kept += "-"
    if run == "/" and (left + right).isascii() and (left + right).isalnum() and left and right:
        kept += "/"
    if run[-1] == "." and right.isdigit():
        kept += "."
    return kept


def _character(entity: re.Match[str]) -> str:
    return html.unescape(entity[0])


def _blank_between_digits(found: re.Match[str]) -> str:
    around = (
        found.string[found.start() - 1 : found.start()],
        found.string[found.end() : found.end() + 1],
    )
    return " " if all(c.isdigit() for c in around) else ""
