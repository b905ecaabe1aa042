"""What stands before and after an answer: an emergency notice, a word on doses, a disclaimer.

The guard reads what people ask, never what the model answers. It knows words and rules
(``configs/guard/guard.yaml``) and is no diagnosis: it is to say 120 once too often rather than once
too little, and still to be silent on ordinary questions, or nobody would heed it.

Which messages count:

- the newest;
- the newest together with the one before it, where part of a rule is in each (胸口疼 / 还一直出汗);
- the one before it alone, where the newest goes on with it (那要先吃阿司匹林吗): once more, and no
  longer. A change of topic ends it at once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from medqa import config
from medqa.errors import ConfigError
from medqa.paths import config_file, shown
from medqa.serve.guard_eraser import Eraser
from medqa.serve.guard_file import GuardFile, Wording, problems_of
from medqa.serve.guard_rules import Reader, Rule, Text, Vocabulary
from medqa.serve.guard_signs import Signs
from medqa.serve.guard_text import is_chinese

__all__ = ["Guard", "Notice", "Notices"]

Language = Literal["zh", "en"]
FOLLOW_UP = 30  # characters of a message that may go on with the one before


@dataclass(frozen=True)
class Notice:
    """A paragraph beside an answer.

    Attributes:
        part: What it is.
        text: One paragraph, no surrounding blank lines.
        rule: Name of the rule, for logs and metrics; it tells nothing of the user's words.
    """

    part: Literal["emergency", "dose", "disclaimer"]
    text: str
    rule: str


@dataclass(frozen=True)
class Notices:
    """What stands before an answer and what after it, in order."""

    before: tuple[Notice, ...]
    after: tuple[Notice, ...]


class Guard:
    """The rules of one YAML; they hold no state, so that one guard serves all threads."""

    def __init__(self, file: GuardFile, signs: Signs | None, source: str = "guard") -> None:
        self._vocabulary = Vocabulary()
        reader = Reader(file.words, self._vocabulary)
        self._general = reader.rules(file.general, "general")
        self._emergencies = reader.rules(file.emergencies, "emergencies")
        self._doses = reader.rules(file.doses, "doses")
        if problems := problems_of(file) + reader.problems:
            raise ConfigError(source, problems)
        self._file = file
        self._signs = signs
        self._no_signs = self._vocabulary.choice(file.signs.unless)
        self._eraser = Eraser(file.denial, file.past, file.spelling)
        self._follow_up = self._vocabulary.choice(file.follow_up)

    @classmethod
    def load(cls, path: str | Path) -> "Guard":
        """Reads a guard YAML.

        Raises:
            MissingInputError: There is no such file.
            ConfigError: Everything that is wrong with it.
        """
        file = config_file(path)
        values = config.load(path, (), GuardFile)
        signs = Signs.load(file.parent / values.signs.file, values.signs.above)
        return cls(values, signs, shown(file))

    def notices(self, questions: Sequence[str]) -> Notices:
        """Returns what belongs beside the answer to the newest of a chat's questions.

        Args:
            questions: The user's messages, newest last; two of them are read.
        """
        language = self._language(questions)
        texts = [self._vocabulary.read(self._eraser.erased(q)) for q in questions[-2:]]
        before = self._once(self._urgent(texts), "emergency", language)
        if texts and not before and self._has_signs(texts[-1]):
            said = _said(self._file.notices[self._file.signs.notice], language)
            before = (Notice("emergency", said, "signs"),)
        doses = [rule for rule in self._doses if texts and rule.holds(texts[-1])]
        last = Notice("disclaimer", self.disclaimer(language), "disclaimer")
        return Notices(before, (*self._once(doses, "dose", language), last))

    def disclaimer(self, language: Language) -> str:
        """Returns the paragraph that ends every answer."""
        return _said(self._file.disclaimer, language)

    def _urgent(self, texts: Sequence[Text]) -> Iterator[Rule]:
        if not texts:
            return
        *earlier, newest = texts
        before = earlier[0] if earlier else None
        general = self._is_general(newest)
        goes_on = not general and self._goes_on(newest)
        for rule in self._emergencies:
            if general and not rule.always:
                continue
            if rule.holds(newest) or (
                before and (rule.holds(newest, before) or (goes_on and self._held(rule, before)))
            ):
                yield rule

    def _held(self, rule: Rule, text: Text) -> bool:
        return rule.holds(text) and (rule.always or not self._is_general(text))

    def _has_signs(self, text: Text) -> bool:
        if self._signs is None or self._is_general(text) or self._no_signs.is_in(text):
            return False
        return self._signs.hold(text.text)

    def _is_general(self, text: Text) -> bool:
        return any(rule.holds(text) for rule in self._general)

    def _goes_on(self, text: Text) -> bool:
        return len(text.text) <= FOLLOW_UP and self._follow_up.is_in(text)

    def _once(
        self,
        rules: Iterator[Rule] | Sequence[Rule],
        part: Literal["emergency", "dose"],
        language: Language,
    ) -> tuple[Notice, ...]:
        """Returns the notices of `rules`, each text once, under the first rule that shows it."""
        found: dict[str, Notice] = {}
        for rule in rules:
            text = _said(self._file.notices[rule.notice], language)
            found.setdefault(rule.notice, Notice(part, text, rule.name))
        return tuple(found.values())

    def _language(self, questions: Sequence[str]) -> Language:
        """The language of the newest message that has letters; Chinese where none has."""
        for question in reversed(questions):
            chinese = is_chinese(question)
            if chinese is not None:
                return "zh" if chinese else "en"
        return "zh"


def _said(wording: Wording, language: Language) -> str:
    return wording.zh if language == "zh" else wording.en
