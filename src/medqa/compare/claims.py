"""What a text says of a term: whether it is mentioned, asserted, or claimed.

A term is *mentioned* if its words are there. It is *asserted* if they are there and the text does
not deny them, ask for them or put them off. It is *claimed* if they are asserted, put off or not,
and the text does not go on to call them forbidden or harmful. An answer must assert what is right
and must not claim what is wrong.

It is read by rules, of which each can be argued with; there is no model in it.

1.  Spelling. Half and full width, case, white space, quotation marks, Markdown's emphasis, and
    simplified and traditional characters make no difference: 雙硫侖 is 双硫仑.
2.  Whole words. A Latin word or a number is matched whole: 4克 is not in 14克 or 0.4克, 120 not in
    1200, H2O not in H2O2.
3.  Names. A name stands for all of its synonyms, but not inside a longer name of something else:
    氧氟沙星 is not in 左氧氟沙星.
4.  Clauses end at ，。；！？ and at the end of a line; 、 and brackets end none. A ``…`` in a term
    spans one clause.
5.  Negation binds what follows it in its clause, all of a list included: in 不能喝酒、吸烟 neither
    is asserted, in 喝酒，不能吸烟 喝酒 is. Words that only look like negations bind nothing: 不适,
    失禁, 不仅.
6.  Its reach ends early where something else begins: 不能喝酒以免低血压, 如果没有禁忌可以服用,
    不要惊慌立即拨打120. 没有 and 不 end sooner than 不能 and 禁止 do.
7.  Two negations side by side are none (不得不, 并非不能, 不要忘记, 不可避免); one of a whole
    sentence turns each in it (没有证据表明, 不代表, 不能因为没有症状就停药).
8.  A term that holds a negation is denied only by another directly before it, or by one of a whole
    sentence: 不建议 is asserted in 并不建议, not in 不是不建议; 孕妇禁用 is after 禁忌：.
9.  Figures. What a limit denies is going beyond it: 不能超过4克 asserts 4克. Nor is the frame of a
    ban part of it: 不要在24小时内饮酒 asserts 24小时.
10. Headings. 禁忌： and 以下做法是错误的： deny the list after them, on lines of its own too.
11. Questions assert nothing (可以喝酒吗, 能不能喝酒, 是否), unless yes is the answer; rhetorical
    ones say the opposite (难道不应该就医吗, 怎么能喝酒). Nor does hearsay (很多人以为可以喝酒) or
    an exception (除非医生说可以服用).
12. What the text calls untrue is not asserted: 可以喝酒的说法是错误的, 可以喝酒，这是谣言, 排不掉.
13. Put off. What is to be done only if things get worse is not asserted now: 如果加重，请就医 does
    not send anyone to a doctor, nor do 叫不醒就打120 and 明天还疼的话去急诊. What repeats the
    question puts nothing off.
14. Not claimed is what the text forbids or blames after naming it (饮酒是禁止的, 饮酒属于禁忌,
    喝水会导致窒息, 喝水、催吐都是错误的), only supposes (如果自行开车，…), or says of
    something else than what was asked about (治癫痫的是卡马西平). A permission stays claimed,
    whatever harm is spoken of after it.
15. Naming. ``x=y`` is asserted where the text makes x and y one (x（y）, x又名y, x就是y, x的商品名
    有z、y, x是一种y, or the other way round), and 5 to 12 do not undo it. No naming: x与y类似,
    x不是y, 不要把x与y混淆, x（z）、y（w）.

Known to be beyond these rules: a list after a ban whose entries stand between commas (不能吃葱，
蒜，酒), a negated symptom that opens a list (不能说话、口角歪斜), negation in English, irony, and
a fact told of something else without 才 or 的是 (蜘蛛有八条腿).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from medqa.compare import naming, negation
from medqa.compare.spelling import Names, Piece, Span, fold


class Text:
    """An answer, read once, asked many times.

    Attributes:
        given: As it was given.
        folded: In the one spelling.
        names: Where the names of its probe set stand.
        reading: Where it negates.
    """

    def __init__(self, given: str, names: Names, question: str = "") -> None:
        self.given = given
        self.folded = fold(given)
        self.names = names.places(self.folded)
        self.reading = negation.read(self.folded.text, self.folded.before, fold(question).text)

    def find(self, pieces: tuple[Piece, ...], start: int = 0) -> Iterator[Span]:
        """Yields where a word stands from `start` on, whatever names it is written with."""
        for span in self._starts(pieces[0], start):
            for end in self._ends(pieces[1:], span[1]):
                if self.folded.is_word(span[0], end):
                    yield span[0], end

    def _starts(self, piece: Piece, start: int) -> Iterator[Span]:
        if piece.is_name:
            yield from (span for span in self.names.get(piece.text, ()) if span[0] >= start)
            return
        at = self.folded.text.find(piece.text, start)
        while at >= 0:
            yield at, at + len(piece.text)
            at = self.folded.text.find(piece.text, at + 1)

    def _ends(self, pieces: tuple[Piece, ...], at: int) -> Iterator[int]:
        if not pieces:
            yield at
        elif pieces[0].is_name:
            for span in self.names.get(pieces[0].text, ()):
                if span[0] == at:
                    yield from self._ends(pieces[1:], span[1])
        elif self.folded.text.startswith(pieces[0].text, at):
            yield from self._ends(pieces[1:], at + len(pieces[0].text))

    def quote(self, span: Span) -> str:
        """Returns the words of the answer around `span`."""
        first, last = self.folded.origin[span[0]], self.folded.origin[span[1] - 1]
        begin, end = max(0, first - _AROUND), last + 1 + _AROUND
        words = " ".join(self.given[begin:end].split())
        return f"{'…' if begin else ''}{words}{'…' if end < len(self.given) else ''}"


@dataclass(frozen=True)
class Word:
    """One of the alternatives of a term.

    Attributes:
        text: As written.
        parts: More than one where ``…`` stood between them.
        other: What ``parts[0]`` is named as being; empty where no ``=`` stood.
    """

    text: str
    parts: tuple[tuple[Piece, ...], ...]
    other: tuple[Piece, ...] = ()


@dataclass(frozen=True)
class Hit:
    """Where a text says a word.

    Attributes:
        word: The alternative as written.
        span: Its place in the folded text.
    """

    word: str
    span: Span


@dataclass(frozen=True)
class Term:
    """A term of a probe.

    Attributes:
        text: As written.
        words: Its alternatives.
    """

    text: str
    words: tuple[Word, ...]

    @classmethod
    def parse(cls, text: str, names: Names) -> "Term":
        """Returns the term ``a|b…c`` or ``x=a|b``."""
        one, equals, others = map(str.strip, text.rpartition("="))
        words = []
        for other in map(str.strip, others.split("|")):
            if equals:
                words.append(Word(f"{one}={other}", (_pieces(one, names),), _pieces(other, names)))
            else:
                parts = other.replace("...", "…").split("…")
                words.append(Word(other, tuple(_pieces(part, names) for part in parts)))
        return cls(text, tuple(words))

    @classmethod
    def literal(cls, text: str) -> "Term":
        """Returns `text` as a term in which ``|``, ``=`` and ``…`` mean themselves."""
        return cls(text, (Word(text, (_pieces(text, Names({})),)),))

    def mentioned(self, text: Text) -> Hit | None:
        """Returns where `text` has the term, negated or not."""
        return self._first(text, lambda parts: True)

    def asserted(self, text: Text) -> Hit | None:
        """Returns where `text` asserts the term, for now and not for later."""
        reading = text.reading
        return self._first(text, lambda parts: reading.asserts(parts) and not reading.defers(parts))

    def claimed(self, text: Text) -> Hit | None:
        """Returns where `text` asserts the term, and does not call it forbidden or harmful."""
        reading = text.reading
        return self._first(text, lambda parts: reading.asserts(parts) and not reading.warns(parts))

    def _first(self, text: Text, holds: Callable[[list[Span]], bool]) -> Hit | None:
        for word in self.words:
            for parts in self._namings(word, text) if word.other else _places(word, text):
                if holds(parts):
                    return Hit(word.text, (parts[0][0], parts[-1][1]))
        return None

    def _namings(self, word: Word, text: Text) -> Iterator[list[Span]]:
        """Yields the places where the one side of an ``=`` is named as being the other."""
        ones, others = list(text.find(word.parts[0])), list(text.find(word.other))
        if not ones or not others:
            return
        sides = {side for w in self.words if w.other for side in (*w.parts, w.other)}
        known = [span for side in sides for span in text.find(side)]
        for one in ones:
            for other in others:
                if naming.is_named(text.folded.text, one, other, known):
                    yield [max(one, other)]


def _pieces(text: str, names: Names) -> tuple[Piece, ...]:
    return names.pieces(fold(text))


def _places(word: Word, text: Text) -> Iterator[list[Span]]:
    """Yields the places of each part of `word`, the later ones in the clause of the first."""
    first, *rest = word.parts
    for span in text.find(first):
        spans = [span]
        limit = text.reading.clause(span[0])[0].end if rest else 0
        for part in rest:
            found = next(text.find(part, spans[-1][1]), None)
            if not found or found[1] > limit:
                break
            spans.append(found)
        else:
            yield spans


_AROUND = 12
