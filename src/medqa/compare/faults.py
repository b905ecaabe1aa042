"""What is wrong with the terms and names of a probe YAML, beyond its shape.

It works on the raw values, so that a file is told all of its faults at once, those of its shape
(`medqa.config`) included.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from medqa.compare.claims import Term, Text, Word
from medqa.compare.spelling import Names, fold

ASSERTED = ("must_all", "must_any")
LISTS = (*ASSERTED, "must_not", "on_topic", "off_topic")
# Lists of which no word may also stand in the other one: the answer could not pass by it.
_OPPOSED = (
    ("must_not", (*ASSERTED,)),
    ("off_topic", (*ASSERTED, "on_topic")),
)
# Without one of these a word neither ends its own clause nor asks.
_DOUBTFUL = re.compile(r"[^\w%+~()（）/、-]|[吗么]|难道|岂|怎|哪能|谁说|何尝")


def of_synonyms(synonyms: Any) -> list[str]:
    """Returns what is wrong with ``{name: [other names]}``."""
    heads: dict[str, dict[str, None]] = {}
    problems = []
    for head, name in _pairs(synonyms):
        folded = fold(name).text
        if not folded or any(sign in name for sign in "|=…"):
            problems.append(f"synonyms.{head}: {name!r} is no name; it is empty or has | = …")
        heads.setdefault(folded, {})[head] = None
    return problems + [
        f"synonyms: {name!r} stands under {' and '.join(map(repr, found))}; leave it under one"
        for name, found in heads.items()
        if len(found) > 1
    ]


def of_categories(categories: Any, probes: Any) -> list[str]:
    """Returns which categories have no name, and which names no category."""
    if not isinstance(categories, dict) or not isinstance(probes, list):
        return []
    used = dict.fromkeys(
        str(p["category"]) for p in probes if isinstance(p, dict) and "category" in p
    )
    return [
        *(f"categories: {name!r} has no name here" for name in used if name not in categories),
        *(f"categories: {name!r} has no probe" for name in categories if name not in used),
    ]


def of_probes(probes: Any, synonyms: Any) -> list[str]:
    """Returns what is wrong with the ids and terms of probes."""
    entries = [p for p in probes if isinstance(p, dict)] if isinstance(probes, list) else []
    ids = Counter(str(entry["id"]) for entry in entries if "id" in entry)
    problems = [f"probes: id {name!r} is given {n} times" for name, n in ids.items() if n > 1]
    grouped: dict[str, list[str]] = {}
    for head, name in _pairs(synonyms):
        if fold(name).text and fold(head).text:
            grouped.setdefault(head, []).append(name)
    names = Names.of(grouped)
    for number, entry in enumerate(entries):
        where = f"probes.{entry.get('id', number)}"
        problems += [f"{where}.{problem}" for problem in _of_probe(entry, names)]
        if not any(entry.get(key) for key in (*ASSERTED, "on_topic")):
            problems.append(f"{where}: any answer would pass; give must_all, must_any or on_topic")
    return problems


def _pairs(synonyms: Any) -> Iterator[tuple[str, str]]:
    """Yields every name with its head, the head itself first, of what has the right shape."""
    for head, others in synonyms.items() if isinstance(synonyms, Mapping) else ():
        if isinstance(head, str) and isinstance(others, list):
            yield from ((head, name) for name in (head, *others) if isinstance(name, str))


def _of_probe(entry: Mapping[str, Any], names: Names) -> Iterator[str]:
    """Yields what is wrong with the terms of one probe, behind ``probes.<id>.``."""
    words: dict[str, dict[tuple[Any, ...], str]] = {}
    for key in LISTS:
        terms = entry.get(key)
        for text in terms if isinstance(terms, list) else ():
            if not isinstance(text, str):
                continue  # the shape is told elsewhere
            term = Term.parse(text, names)
            yield from (f"{key}: {text!r} {fault}" for fault in _of_term(term, key, names))
            for word in term.words:
                words.setdefault(key, {})[word.parts, word.other] = word.text
    for key, against in _OPPOSED:
        for other in against:
            for same in words.get(key, {}).keys() & words.get(other, {}).keys():
                yield f"{key}: {words[key][same]!r} contradicts {other}"


def _of_term(term: Term, key: str, names: Names) -> Iterator[str]:
    one, naming, _ = term.text.rpartition("=")
    if naming and any(sign in term.text for sign in ("…", "...")):
        yield "has … in a naming (x=y): it stands in a term of its own"
    elif any(sign in one for sign in "|="):
        yield "has | or = before =: a naming is a term x=y|z of its own, x's names are synonyms"
    elif naming and key.endswith("_topic"):
        yield "is a naming (x=y), which can only be asserted: it belongs in a must_… list"
    else:
        yield from filter(None, dict.fromkeys(_of_word(w, key, names) for w in term.words))


def _of_word(word: Word, key: str, names: Names) -> str:
    if not all(word.parts) or (word.text.endswith("=") and not word.other):
        return "has an empty alternative"
    if word.other:
        return f"can never match: {word.text} are one name" if word.other in word.parts else ""
    whole = word.text.replace("...", "").replace("…", "")
    if not _DOUBTFUL.search(whole):
        return ""
    # Held against itself, since what a word says of itself is the most that an answer can say.
    text = Text(whole, names)
    alone = Term(word.text, (word,))
    if not alone.mentioned(text):
        return f"can never match: the parts of {word.text} are never in one clause"
    if key in ASSERTED and not alone.asserted(text):
        return f"can never match: {word.text} asserts nothing"
    if key == "must_not" and not alone.claimed(text):
        return f"can never match: {word.text} claims nothing"
    return ""
