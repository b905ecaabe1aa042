"""The evaluate YAML: which examinations, from which files, asked how."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Self, get_args

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from medqa.config import Strict, load
from medqa.paths import resolve

Count = Annotated[int, Field(ge=1)]
Name = Annotated[str, Field(pattern=r"^[\w-]+$")]
Layout = Literal["cmmlu", "ceval", "cmb", "cmexam"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)


class Metric(Strict):
    """What makes a choice out of likelihoods: ``acc`` their sum, ``acc_norm`` that a character."""

    metric: Literal["acc", "acc_norm"]
    aggregation: Literal["mean"]
    higher_is_better: Literal[True]


class Generation(Strict):
    """How an answer is written; greedily, and to the model's own end token at most."""

    max_gen_toks: Count


class ExamTask(Strict):
    """A task file of lm-eval, the keys of it that an examination needs.

    The templates see a question's ``question``, ``options`` and ``letters`` (lists of the same
    length), ``choices`` (both, a line each), ``answer`` (the right letters), ``kind`` (单项选择题,
    多项选择题, or empty where the paper does not say) and ``exam`` (its name, or empty).

    Attributes:
        task: The task's name.
        output_type: ``multiple_choice`` compares the likelihoods of given answers, so that each
            question is answered; ``generate_until`` reads letters out of a written answer.
        doc_to_text: What the model is asked, as a Jinja template.
        doc_to_choice: Of which answers the likelihoods are compared.
        doc_to_target: The right one.
        generation_kwargs: For ``generate_until``.
        metric_list: One metric.
    """

    task: Name
    output_type: Literal["multiple_choice", "generate_until"]
    doc_to_text: Annotated[str, Field(min_length=1)]
    doc_to_choice: Literal["letters", "options"] | None = None
    doc_to_target: str
    generation_kwargs: Generation | None = None
    metric_list: Annotated[list[Metric], Field(min_length=1, max_length=1)]

    @property
    def written(self) -> bool:
        """Whether the model writes its answer."""
        return self.output_type == "generate_until"

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        given = {"doc_to_choice": self.doc_to_choice, "generation_kwargs": self.generation_kwargs}
        wanted, other = sorted(given, reverse=self.written)
        if not given[wanted] or given[other]:
            raise PydanticCustomError(
                "keys", f"output_type {self.output_type} wants {wanted} and takes no {other}"
            )
        return self


class Exam(Strict):
    """One set of questions.

    Attributes:
        layout: How its files are laid out, named by the set that is published so.
        path: ``cmmlu``, ``ceval``: the published zip, or a folder with the same files; ``cmb``,
            ``cmexam``: the file.
        subjects: Only these; all when not given.
        max_rows: A seeded sample of so many questions; all when not given.
        task: The lm-eval task file that says how they are asked.
    """

    layout: Layout
    path: str
    subjects: Annotated[list[str], Field(min_length=1)] | None = None
    max_rows: Count | None = None
    task: str


class EvaluatePlan(Strict):
    """An evaluate YAML.

    Attributes:
        model_name_or_path: The base model's folder.
        adapter_name_or_path: The adapter that makes it the tuned one.
        exams: A name to a set of questions, or to nothing: ``exams.cmb=null`` leaves one out.
        batch_size: Questions answered at a time.
        output_dir: Where the answers and the report go.
    """

    model_name_or_path: str
    adapter_name_or_path: str
    exams: dict[Name, Exam | None]
    batch_size: Count
    output_dir: str

    @property
    def sets(self) -> dict[str, Exam]:
        """The sets that are asked."""
        return {name: exam for name, exam in self.exams.items() if exam}

    @model_validator(mode="after")
    def _asks(self) -> Self:
        if not self.sets:
            raise PydanticCustomError("keys", "exams: expected at least one set, found none")
        return self


def download_folder(layout: Layout) -> Path:
    """Where scripts/download.py puts the set of that name."""
    return resolve("data/raw/exams") / layout


def absent(config: str | Path, overrides: Sequence[str]) -> list[Layout]:
    """Returns the published sets that an evaluate YAML names and that are not there yet.

    Raises:
        ConfigError: Everything that is wrong with the YAML.
    """
    plan = load(config, overrides, EvaluatePlan)
    missing = {
        exam.layout
        for exam in plan.sets.values()
        if not resolve(exam.path).exists()
        and download_folder(exam.layout) in resolve(exam.path).parents
    }
    return [layout for layout in LAYOUTS if layout in missing]
