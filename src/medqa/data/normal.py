"""Keys of texts: what two texts must have in common to be the same, or to be near one another.

`normalise` decides about duplicates and never joins what differs in a dose; `canonical` serves
clusters only, and takes courtesies and filler words away as well.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING

from medqa.data.triggers import EDGE, Joined

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def normalise(text: str) -> str:
    """Returns the key by which texts are compared: equal keys mean the same words and numbers.

    NFKC and case are folded, punctuation and whitespace go. What carries a dose or a finding
    stays: everything between two digits (``1.5``, ``3-5``, ``1、5``), ``%`` after a digit, ``/``
    between Latin letters, ``-`` except as a hyphen or dash between words, and all mathematical
    signs (``+``, ``<``, ``±``). Characters that NFKC would turn into plain digits stay too: 10⁵ is
    not 105.
    """
    if _SIMPLE.fullmatch(text):
        return _without_marks(text)
    parts = _NOT_HAN.split(text)
    if len(parts) == 1:
        return text
    # What becomes of a run depends on nothing but the run, since only Han characters or the
    # ends of the text can stand beside it: the few runs that fill most texts are worked out once.
    runs = parts[1::2]
    if len(runs) == 1 and not parts[0] and not parts[2]:
        return _folded(text)
    parts[1::2] = map(_MIDDLE.__getitem__, runs)
    if not parts[0]:
        parts[1] = _START[runs[0]]
    if not parts[-1]:
        parts[-2] = _END[runs[-1]]
    return "".join(parts)


def canonical(text: str) -> str:
    """Returns `normalise` of `text` without greetings, thanks and filler words.

    For clustering only; where nothing else is left it is `normalise` itself, so it is empty only
    where that is.
    """
    return canonical_of(normalise(text))


def canonical_of(key: str) -> str:
    """Returns `canonical` of a text whose `normalise` is `key`."""
    bare = key
    if bare[:1] in _OPENING_FIRST and (found := _OPENING.match(bare)):
        bare = bare[found.end() :]
    if _FILLER_HINT.search(bare):
        bare = _FILLERS.sub("", bare)
    if bare[-1:] in _CLOSING_ENDS:
        bare = _CLOSING.sub("", bare)
    return bare or key


def keys_of(texts: Sequence[str], together: Joined, hard: Iterable[int]) -> list[bytes]:
    """Returns `normalise` of each text, in UTF-8.

    Args:
        texts: At least one.
        together: The same, joined.
        hard: For each whether it holds one of `HARD`, which takes longer.
    """
    # The first edge parts nothing; the others part the texts again.
    small = _small().take(together.places[1:], mode="clip")
    folded = small.compress(small != _GONE).tobytes().decode("utf-16-le", "surrogatepass")
    keys = folded.encode("utf-8", "surrogatepass").split(EDGE.encode())
    for place, found in enumerate(hard):
        if found:
            keys[place] = normalise(texts[place]).encode()
    return keys[: len(texts)]


_GONE = 0xFFFF  # is no character, and as such one of `HARD`


@cache
def _small() -> "NDArray[np.uint16]":
    """Character to its small letter, or to `_GONE` where it is a mark; of a text without `HARD`."""
    import numpy as np

    small = np.arange(1 << 16).astype("<u2")
    small[ord("A") : ord("Z") + 1] += ord("a") - ord("A")
    small[list(map(ord, _MARKS))] = _GONE
    return small


def _without_marks(text: str) -> str:
    """Returns the key of a text that `_SIMPLE` knows: every mark goes, every sign stays."""
    for mark in _MARKS:
        if mark in text:
            text = text.replace(mark, "")
    return text.lower() if _CAPITAL.search(text) else text


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


class _Runs(dict[str, str]):
    """What becomes of a run of other than Han characters between `left` and `right`."""

    def __init__(self, left: str, right: str) -> None:
        super().__init__()
        self._left, self._right = left, right

    def __missing__(self, run: str) -> str:
        folded = _folded(self._left + run + self._right)
        found = folded[len(self._left) : len(folded) - len(self._right)]
        if len(run) <= 4 and len(self) < 50_000:  # numbers and names would fill the memory
            self[run] = found
        return found


# Punctuation that may carry meaning, decided by its neighbours; all other becomes a blank.
_SIGNS = frozenset(".,:*%‰/-")
_SAME = dict.fromkeys("\u2010\u2012\u2013\u2014\u2015\u2212", "-") | {
    "、": ",",
    "...": " ",
    "`": " ",
}
_FOLDED = _Folded()

# Most texts: Han characters, ASCII words and marks, where no mark stands between two digits (it
# would stay), and every sign stands where it stays: ``.`` and ``-`` between digits, ``%`` behind
# one and before no sign, ``/`` between ASCII letters or digits. So all that goes are the marks.
_MARKS = "，。；、？！：（）“”《》【】,;:?!() "
_SIMPLE = re.compile(
    rf"(?:[\u4e00-\u9fff{_MARKS}]++"
    r"|[0-9A-Za-z]++(?:(?<=[0-9])(?:%(?![.%/-])|[.-](?=[0-9]))|/(?=[0-9A-Za-z]))?+"
    rf"(?:(?<![0-9%])|(?![{_MARKS}]++[0-9])))*+"
)
_CAPITAL = re.compile("[A-Z]")
# Triggers: a text that `_SIMPLE` does not know holds one of them; so may a few that it knows.
_OTHER = f"[^\u4e00-\u9fff{_MARKS}0-9A-Za-z%./-]"
HARD = (
    _OTHER,
    *("[^0-9]%", "%[.%/-]"),
    *("[^0-9][.-]", "[.-][^0-9]"),
    *("[^0-9A-Za-z]/", "/[^0-9A-Za-z]"),
    f"[0-9%][{_MARKS}][{_MARKS}0-9]",
)
_NOT_HAN = re.compile(r"([^\u4e00-\u9fff]+)")
_MIDDLE, _START, _END = _Runs("一", "一"), _Runs("", "一"), _Runs("一", "")
_BETWEEN_WORDS = re.compile(r"(?<=[a-z\u3400-\u9fff])[ ,:.~*]+(?=[a-z\u3400-\u9fff])")
_RUN = re.compile(r"[ ,:.~*%‰/-]+")

_OPENING = re.compile(
    r"^(?:(?:医生|大夫|专家|老师|教授|主任|朋友|各位|大家|亲)*(?:您好|你好|大家好|早上好|下午好|"
    r"晚上好)"
    r"(?:医生|大夫|专家|老师|教授|主任)*|(?:医生|大夫|专家)(?=请问|我|想))+"
)
_OPENING_FIRST = frozenset("医大专老教主朋各亲您你早上下晚")
# Each alternative begins with a letter, for the speed of the search.
_FILLER_HINT = re.compile(
    "问|请(?=教)|想(?=咨|请|了解|知道)|咨(?=询)|麻(?=烦)|呢|啊|呀|吧|嘛|吗|的(?=话)|到(?=底)|究(?=竟)|您(?=好)"
    "|你(?=好)|那(?=个)|其(?=实)"
)
_FILLERS = re.compile(
    r"(?:请问|请教|想问|想咨询|想请教|想了解|想知道|咨询|问)(?:一下|下)(?:医生|大夫|专家)?"
    r"|(?:请问|请教|想问问|想问|想咨询|想请教|想知道)(?:医生|大夫|专家)?"
    r"|我(?=请问|请教|想问|想咨询|想请教|想知道)|麻烦(?=请|问|帮)|[呢啊呀吧嘛]|吗(?!啡)|的话|"
    r"到底|究竟|您好|你好(?![像转])|那个|其实"
)
_CLOSING_ENDS = frozenset("谢您你生夫家位了啦答点教助下解急等")
_CLOSING = re.compile(
    r"(?:(?:非常|万分|十分|多谢|先)*(?:感谢|谢谢)(?:您|你|医生|大夫|专家|各位|大家|了|啦)*"
    r"|(?:求|请|望|麻烦)(?:医生|大夫|专家)?(?:帮忙)?(?:解答|回答|指点|指教|帮助)(?:一下)?|求解|"
    r"急{2,}|在线等)+$"
)


def _folded(text: str) -> str:
    """Returns the key of any text, one character after the other."""
    folded = unicodedata.normalize("NFC", text.translate(_FOLDED))
    return _RUN.sub(_carried, _BETWEEN_WORDS.sub("", folded))


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
