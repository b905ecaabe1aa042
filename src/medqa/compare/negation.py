"""Where a text negates, and how far each negation reaches.

One pass over a folded text finds the words of `medqa.compare.lexicon` and keeps what is in force
between them. The rules and their examples stand in `medqa.compare.claims`.
"""

from collections.abc import Sequence, Set
from itertools import pairwise

from medqa.compare import lexicon
from medqa.compare.reading import Clause, Mark, Reading


def read(text: str, before: Sequence[str], question: str = "") -> Reading:
    """Reads a folded text.

    Args:
        text: Its characters.
        before: For each the white space that stood before it; ``"\\n"`` begins a line.
        question: What it answers, folded: 如果 that only repeats it supposes nothing new.
    """
    events = [(m.start(), m.end(), m.lastgroup or "") for m in lexicon.SIGNS.finditer(text)]
    inside = {place for start, end, _ in events for place in range(start + 1, end)}
    events += [
        (place, place, "line")
        for place, space in enumerate(before)
        if space == "\n" and place not in inside
    ]
    # What ends a clause comes before the line that begins at its end.
    events.sort(key=lambda event: (event[1], event[0]))
    reader = _Reader(text, {"".join(pair) for pair in pairwise(question)} - lexicon.COMMON)
    for start, end, kind in events:
        reader.take(start, end, kind)
    reader.close(len(text), "")
    return reader.reading


class _Reader:
    """Goes through a text once and keeps what is in force."""

    def __init__(self, text: str, asked: Set[str]) -> None:
        self.reading = Reading(text, asked=asked)
        self.text = text
        self.begin = 0
        self.marks: tuple[Mark, ...] = ()
        self.brackets: list[int] = []
        self.runs = 0
        self.heading = False  # 禁忌: the list after a heading is still being read
        self.listed = False  # … and it stands on lines of its own
        self.waits = False  # 如果加重: what follows the supposition waits for it

    def take(self, start: int, end: int, kind: str) -> None:
        """Takes the next event."""
        place = start
        if kind in ("stop", "line"):
            self._stop(start, end, kind)
        elif kind == "colon":
            self._colon(start, end)
        elif kind == "left":
            self.brackets.append(start)
        elif kind == "right":
            opened = self.brackets.pop() if self.brackets else start
            self.marks = tuple(m for m in self.marks if m.start < opened)
        elif kind == "limit":
            self._change(start, end)
            place = end  # 不能超过4克: 超过 is negated, 4克 is not
            self.marks = ()
        elif kind == "change":
            self._change(start, end)
        elif kind in _ENDED_BY or kind == "once":
            waits = kind == "once" and self._is_once(start)
            if kind == "once":
                kind = "again" if self.text[start] == "再" else "then"
            if not self._follows(start):
                self.marks = tuple(m for m in self.marks if m.kind not in _ENDED_BY[kind])
            self._await(start)
            if waits:
                self.marks = (*self.marks, Mark("later", start, end, -1))
        elif kind == "lapse":
            if self._follows(start):  # 不要忘记: as good as two negations
                self.marks = (*self.marks, Mark("ban", start, end, self.runs))
        elif kind != "plain":
            self._negate(kind, start, end)
        self.reading.places.append(place)
        self.reading.states.append(self.marks)

    def close(self, end: int, stop: str) -> None:
        """Ends the clause before `end`."""
        turned = bool(lexicon.RHETORICAL.search(self.text, self.begin, end))
        asks = "?" in stop or bool(lexicon.ASKS.search(self.text, self.begin, end))
        self.reading.clauses.append(Clause(self.begin, end, asks and not turned, turned))

    def _follows(self, start: int) -> bool:
        return bool(self.marks) and self.marks[-1].end == start

    def _negate(self, kind: str, start: int, end: int) -> None:
        if not self._follows(start):
            self.runs += 1
            ended = ("ban", "none") if kind == "ban" else ("none",)
            self.marks = tuple(m for m in self.marks if m.kind not in ended)
        self.marks = (*self.marks, Mark(kind, start, end, self.runs))

    def _change(self, start: int, end: int) -> None:
        """Notes that something is supposed to happen that is not what was asked about."""
        if not any(m.kind == "if" for m in self.marks):
            return
        rest = lexicon.CLAUSE.findall(self.text, start)[0]
        before = self.text[self.begin : start]
        if "已经" in before + rest:
            known = self.reading.repeats(before + rest)
        else:
            known = not lexicon.WORSE.search(rest) and self.reading.repeats(rest)
        if not known and not lexicon.THIS.match(self.text, end):
            self.waits = True

    def _is_once(self, start: int) -> bool:
        """Says whether 就, 再, 才 or 时 waits for what stands before it in the clause."""
        before = self.text[self.begin : start]
        if len(before) < _CONDITION or lexicon.AT_ONCE.search(before):
            return False
        return not self.reading.repeats(before)

    def _await(self, start: int) -> None:
        if self.waits:
            self.waits = False
            self.marks = (*self.marks, Mark("later", start - 1, start, -1))

    def _colon(self, start: int, end: int) -> None:
        self.heading = bool(self.marks) and bool(
            lexicon.HEADING.search(self.text, self.begin, start)
        )
        self.close(start, "")
        self.begin = end
        self.listed = False
        if not self.heading:
            self.marks = ()

    def _stop(self, start: int, end: int, kind: str) -> None:
        words = self.text[start:end]
        if kind == "line" and self.heading and lexicon.ITEM.match(self.text, start):
            self.listed = True
            goes_on = True
        elif kind == "stop":
            goes_on = self.heading and (
                self.listed or words in ",;" or self.text[start - 1].isdigit()
            )
        else:
            goes_on = False
        if end > self.begin:
            self.close(start, words)
            self.begin = end
        self.brackets.clear()
        if not goes_on:
            self._await(start)
            stays = words == "," and any(m.kind == "later" for m in self.marks)
            self.marks = tuple(m for m in self.marks if stays and m.kind == "later")
            self.heading = self.listed = False


_CONDITION = 3  # characters before 就 that can tell when
_ENDED_BY = {
    "turn": ("that", "open", "ban", "none", "if"),
    "cause": ("ban", "none", "if"),
    "then": ("none", "if"),
    "again": ("none", "if"),
    "now": ("later",),
}
