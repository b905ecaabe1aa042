"""Which letters a written answer chooses.

Letters count only where the answer says that they are its choice: an answer that is nothing but
letters, one that opens with them (``B. 青霉素``), or a phrase (``答案是B``, ``故选AC``).
A letter in a word (``A型血``, ``AYS Drugs``, ``C反应蛋白``) is none. An answer without letters
that writes out the text of options chooses those. All else is not parsed, and is counted.
"""

import re
import unicodedata
from collections.abc import Sequence

# One letter, or several with a sign or two between them; no part of a word.
_LETTERS = r"(?P<letters>[A-H](?:[\s,、;/&和与及]{0,3}[A-H]){0,7})(?![A-Za-z0-9’+-])"
# What may stand behind: an end, a stop, a blank before Chinese. Not any character, or "A型血" and
# "C反应蛋白" would be choices.
_STOP = r"(?=\s*(?:$|[\n.。、:,;!()\]】》])|\s+[㐀-鿿(])"
_OPENING = re.compile(r"[\s(\[【《]*(?:选项?|答)?[:\s]*" + _LETTERS + _STOP)
_PHRASES = (
    re.compile(
        r"(?:(?:答案|选项)(?:应该|应|就)?[是为选]?"  # 答案是B, 正确选项应该为B
        r"|的[^,。;\n不]{0,10}[是为]"  # 错误的是B, 应选择的药物为B
        r"|(?<![不非勿别没])(?<![不非勿别没][能应要可该宜])选择?"  # 故选B; not 不选B, 不应选B
        r"|[Aa]nswer(?: is)?)"
        r"[】)\]\s:]{0,4}" + _LETTERS + r"(?:" + _STOP + r"|(?=选?项|[都均]?正确))"
    ),
    re.compile(r"(?<![A-Za-z0-9-])" + _LETTERS + r"(?:选?项)?[都均]?[是为]?(?:正确|对的)"),
)
# An option in a list of options, beside or below one another.
_ITEM = re.compile(r"(?:^|(?<=[\s;,。]))([A-H])\s*[.、:)](?=\s*\S)")
_WRONG = re.compile("错误|不正确|不对|不符")
_DENIED = re.compile(r"(?:不是|并非|而非|不属于|不包括|除了?|排除)$")
_MARKUP = str.maketrans("", "", "*_`#\"'“”‘")
SHORTEST_TEXT = 2  # characters; a shorter option, such as 是, stands in many an answer by chance


def chosen(answer: str, letters: Sequence[str], options: Sequence[str]) -> str | None:
    """Returns the letters that `answer` chooses, in order; None when it cannot be parsed.

    Args:
        answer: What the model wrote.
        letters: The letters that can be chosen.
        options: The text behind each.
    """
    text = unicodedata.normalize("NFKC", answer).translate(_MARKUP).strip()
    said = _letters_said(text)
    if not said and set(_ITEM.findall(text)) >= set(letters):
        return None  # the question said again
    if not said and (opened := _opening(text, letters, options)):
        said = [opened]
    if said:
        # Two conclusions that differ are none.
        found = set(said)
        return found.pop() if len(found) == 1 and set(said[0]) <= set(letters) else None
    return _named(text, letters, options)


def _letters_said(text: str) -> list[str]:
    """Returns what the phrases of a conclusion choose."""
    return [_ordered(m["letters"]) for phrase in _PHRASES for m in phrase.finditer(text)]


def _opening(text: str, letters: Sequence[str], options: Sequence[str]) -> str | None:
    """Returns the letters that an answer opens with, or those of the list that it opens with."""
    if _OPENING.match(text):
        right = "\n".join(p for p in re.split(r"[\n。;]", text) if not _WRONG.search(p))
        first = _OPENING.match(right)
        return first and _ordered(first["letters"] + "".join(_ITEM.findall(right)))
    for letter, option in zip(letters, options, strict=True):
        # "D DNA聚合酶": behind the letter stands its own text.
        written = unicodedata.normalize("NFKC", option).strip()
        if written and re.match(rf"{letter}[\s.、:)]*{re.escape(written)}", text):
            return letter
    return None


def _named(text: str, letters: Sequence[str], options: Sequence[str]) -> str | None:
    """Returns the letters of the options whose whole text stands in `text` and is not denied.

    A text that stands only inside another such option's is not named: 出血 in 胃出血.
    """
    said = _plain(text)
    plain = {letter: _plain(option) for letter, option in zip(letters, options, strict=True)}
    places = {
        letter: [m.span() for m in re.finditer(re.escape(option), said)]
        for letter, option in plain.items()
        if len(option) >= SHORTEST_TEXT
    }
    taken = [span for spans in places.values() for span in spans]
    named = [
        letter
        for letter, spans in places.items()
        if any(not _inside(span, taken) and not _DENIED.search(said[: span[0]]) for span in spans)
    ]
    return "".join(named) or None


def _inside(span: tuple[int, int], others: Sequence[tuple[int, int]]) -> bool:
    return any(o[0] <= span[0] and span[1] <= o[1] and o != span for o in others)


def _plain(text: str) -> str:
    """Returns `text` without white space and the stops at its end."""
    return re.sub("[。.;,]+$", "", "".join(unicodedata.normalize("NFKC", text).split()))


def _ordered(letters: str) -> str:
    return "".join(sorted(set(re.findall("[A-H]", letters))))
