"""Questions of an examination; a row that cannot be asked is counted, with the reason.

| reason | meaning |
|---|---|
| ``broken_row`` | too many or too few fields, no JSON object, a value of another type |
| ``no_question`` | there is no letter in the question |
| ``bad_options`` | fewer than two options with a text, a letter twice or beyond A to H |
| ``no_answer`` | there is no right answer |
| ``bad_answer`` | the right answer is no letter of an option |
| ``several_answers`` | more than one right answer, and the task compares single choices |
| ``not_sampled`` | nothing wrong with it: left out by ``max_rows`` |
"""

import random
import re
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medqa.compare import exams_files
from medqa.compare.exams_plan import Exam, ExamTask
from medqa.config import nearest
from medqa.errors import DataError, MissingInputError
from medqa.paths import resolve, shown

SEED = 0  # of the sample that max_rows takes


@dataclass(frozen=True)
class Question:
    """One question: what the templates of a task file see, see `exams_plan.ExamTask`."""

    id: str
    subject: str
    exam: str
    kind: str
    question: str
    letters: list[str]
    options: list[str]
    choices: str
    answer: str


@dataclass
class Paper:
    """The questions of one set.

    Attributes:
        questions: Those that are asked.
        files: What was read.
        read: Rows of the subjects asked for.
        left_out: Reason to how many rows were not asked, and where the first of them stands.
    """

    questions: list[Question] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    read: int = 0
    left_out: dict[str, dict[str, Any]] = field(default_factory=dict)

    def leave_out(self, reason: str, where: str) -> None:
        """Counts a row that is not asked."""
        self.left_out.setdefault(reason, {"rows": 0, "first": where})["rows"] += 1


def read_paper(exam: Exam, task: ExamTask) -> Paper:
    """Reads the questions of a set.

    Raises:
        MissingInputError: The files are not there.
        DataError: A file is not laid out so, a subject is in none, or no row can be asked.
    """
    source = resolve(exam.path)
    if not source.exists():
        raise MissingInputError(f"{shown(source)} does not exist; {exams_files.cure(exam, source)}")
    paper, subjects = Paper(), set[str]()
    for row in exams_files.rows(exam, source, paper.files):
        if row.subject is not None:
            subjects.add(row.subject)
            if exam.subjects and row.subject not in exam.subjects:
                continue
        paper.read += 1
        question = _question(row)
        if isinstance(question, str):
            paper.leave_out(question, row.where)
        elif len(question.answer) > 1 and not task.written:
            paper.leave_out("several_answers", row.where)
        else:
            paper.questions.append(question)
    for subject in exam.subjects or ():
        if subject not in subjects:
            raise DataError(
                f"{shown(source)} has no subject {subject!r}{nearest(subject, subjects)}"
            )
    if not paper.questions:
        raise DataError(_empty(exam, paper))
    _sample(paper, exam.max_rows or len(paper.questions))
    return paper


def _question(row: exams_files.Row) -> Question | str:
    """Returns a row as a question, or why it is none."""
    fields = row.fields or {}
    question, options = fields.get("question"), fields.get("options")
    if not isinstance(question, str) or not isinstance(options, list):
        return "broken_row"
    if not re.search(r"[^\W\d_]", question):
        return "no_question"
    # A blank option is a place that was not used.
    given = {letter: text.strip() for letter, text in options if text.strip()}
    letters = [letter for letter, _ in options]
    if len(given) < 2 or len(set(letters)) < len(letters) or not set(letters) <= set("ABCDEFGH"):
        return "bad_options"
    answer = fields.get("answer")
    if not isinstance(answer, str) or not answer.strip():
        return "no_answer"
    right = set(re.sub(r"[\s,、;]", "", unicodedata.normalize("NFKC", answer)))
    if not right or not right <= given.keys():
        return "bad_answer"
    return Question(
        id=row.where,
        subject=str(row.subject),
        exam=str(fields.get("exam") or ""),
        kind=str(fields.get("kind") or ""),
        question=question.strip(),
        letters=list(given),
        options=list(given.values()),
        choices="\n".join(f"{letter}. {text}" for letter, text in given.items()),
        answer="".join(sorted(right)),
    )


def _sample(paper: Paper, count: int) -> None:
    """Leaves out all but a seeded sample of `count` questions."""
    total = len(paper.questions)
    picked = set(random.Random(SEED).sample(range(total), min(count, total)))
    for n, question in enumerate(paper.questions):
        if n not in picked:
            paper.leave_out("not_sampled", question.id)
    paper.questions = [question for n, question in enumerate(paper.questions) if n in picked]


def _empty(exam: Exam, paper: Paper) -> str:
    counts = ", ".join(f"{left['rows']} {reason}" for reason, left in paper.left_out.items())
    message = f"{exam.path} has no question that can be asked ({counts or 'it is empty'}); "
    if exam.layout == "cmb" and "no_answer" in paper.left_out:
        return message + f"put {exams_files.CMB_ANSWERS} of its GitHub repository beside it"
    return message + f"is it laid out as {exam.layout} is published, and its task made for it?"
