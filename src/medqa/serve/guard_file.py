"""What the YAML of the guard holds."""

from typing import Annotated

from pydantic import Field, StringConstraints

from medqa.config import Strict, nearest

Words = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Identifier = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")]
WordList = Annotated[tuple[Words, ...], Field(min_length=1)]


class Wording(Strict):
    """A notice as it is shown, in both languages of the page."""

    zh: Words
    en: Words


class Denial(Strict):
    """What takes words away from the text before any rule looks at it.

    Attributes:
        sayings: Phrases that look like an emergency and are none (笑死, 跳楼价).
        so_much: What exaggerates (帅到, 贵得) if soon after it there is
        figures: one of these (窒息, 吐血).
        denied: Symptoms that carry their own denial (不疼).
        words: Words that deny, prevent or suppose what follows in the clause.
        symptoms: What is a symptom itself when it is denied (没有 + 呼吸).
        except_in: Longer words that begin as one of `symptoms` and are none (呼吸困难).
        ends: Words at which the reach of a denial ends (但).
        reach: Characters that a denial reaches; an enumeration (、, 和) begins it anew.
    """

    sayings: WordList
    so_much: WordList
    figures: WordList
    denied: WordList
    words: WordList
    symptoms: WordList
    except_in: WordList
    ends: WordList
    reach: Annotated[int, Field(ge=1, le=20)]


class Past(Strict):
    """What is over: with one of `over` and none of `again`, clauses with `times` are blotted out.

    Attributes:
        times: When it was (上周, 去年).
        over: That it is over (已经出院).
        again: That it is not (又, 今天).
    """

    times: WordList
    over: WordList
    again: WordList


class GeneralEntry(Strict):
    """A kind of question that is about no one who is ill now.

    Attributes:
        name: Unique, snake_case.
        when: Lines of which one must hold.
        unless: Lines of which none may hold.
    """

    name: Identifier
    when: WordList
    unless: tuple[Words, ...] = ()


class RuleEntry(Strict):
    """A rule as it is written.

    Attributes:
        name: Unique, snake_case; it goes into logs and metrics.
        notice: Which of ``notices`` is shown.
        when: Lines of which one must hold.
        unless: Lines of which none may hold.
        always: Holds for questions of general knowledge too.
        reason: Why it is an emergency, in a sentence.
        source: Where that stands (guideline, textbook, year).
    """

    name: Identifier
    notice: Identifier
    when: WordList
    unless: tuple[Words, ...] = ()
    always: bool = False
    reason: Words
    source: Words


class SignsEntry(Strict):
    """The table of `medqa.serve.guard_signs`.

    Attributes:
        file: Its name, beside the YAML.
        notice: Which of ``notices`` is shown.
        above: Points from which on it is.
        unless: Words that silence it.
    """

    file: Words
    notice: Identifier
    above: float
    unless: WordList


class GuardFile(Strict):
    """``configs/guard/guard.yaml``.

    Attributes:
        disclaimer: After every answer.
        notices: Name to text.
        spelling: Common slips of the keyboard to what is meant.
        follow_up: How a message begins or what it holds that goes on with the one before.
        denial: What is taken away first.
        past: What is over.
        general: What is about a disease in general.
        words: Groups of words that the rules name.
        signs: What speaks where no rule does.
        emergencies: Rules whose notice stands before the answer, most urgent first.
        doses: Rules whose notice stands behind it.
    """

    disclaimer: Wording
    notices: dict[Identifier, Wording]
    spelling: dict[Words, Words]
    follow_up: WordList
    denial: Denial
    past: Past
    general: Annotated[tuple[GeneralEntry, ...], Field(min_length=1)]
    words: dict[Identifier, WordList]
    signs: SignsEntry
    emergencies: Annotated[tuple[RuleEntry, ...], Field(min_length=1)]
    doses: Annotated[tuple[RuleEntry, ...], Field(min_length=1)]


def problems_of(file: GuardFile) -> list[str]:
    """Returns what is wrong between the keys of a file."""
    problems = []
    rules = (*file.emergencies, *file.doses)
    names = [entry.name for entry in file.general] + [rule.name for rule in rules]
    problems += [f"two rules are called {n!r}" for n in dict.fromkeys(names) if names.count(n) > 1]
    for rule in rules:
        if rule.notice not in file.notices:
            near = nearest(rule.notice, file.notices)
            problems.append(f"{rule.name}: no notice is called {rule.notice!r}{near}")
    if file.signs.notice not in file.notices:
        near = nearest(file.signs.notice, file.notices)
        problems.append(f"signs: no notice is called {file.signs.notice!r}{near}")
    used = {file.signs.notice, *(rule.notice for rule in rules)}
    problems += [
        f"notices {name!r} is shown by no rule" for name in file.notices if name not in used
    ]
    lines = "\n".join(
        [
            *(line for entry in file.general for line in (*entry.when, *entry.unless)),
            *(line for rule in rules for line in (*rule.when, *rule.unless)),
        ]
    )
    problems += [
        f"words {name!r} is named by no rule" for name in file.words if f"<{name}>" not in lines
    ]
    return problems
