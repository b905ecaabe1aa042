"""The compare YAML: who answers, what is asked, what must hold."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from medqa.compare import lines
from medqa.compare.endpoint import Endpoint
from medqa.compare.judge import Judge
from medqa.config import Strict, nearest
from medqa.errors import DataError
from medqa.paths import resolve

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Way = Literal["adapter", "models", "endpoints", "predictions"]


class Endpoints(Strict):
    """Two servers, or two models of one server, that speak the OpenAI protocol."""

    base: Endpoint
    tuned: Endpoint


class Predictions(Strict):
    """Two answer files that LLaMA-Factory's ``do_predict`` wrote (``generated_predictions.jsonl``).

    A row is ``{"prompt": …, "predict": …, "label": …}``.
    """

    base: str
    tuned: str


class Gate(Strict):
    """What must hold; a key that is left out asks for nothing.

    Attributes:
        perplexity_p: The perplexity of the test answers is lower than the base's, and the p-value
            of the difference is below this.
        category_loss: No category of probes loses more than this share of its questions.
        keep: Probe set to the share of the base's right answers that must be left.
        least: Probe set to the share of all its questions that must be answered rightly.
        loop_rate: Fewer than this share of all answers may end in a loop.
        unfinished_rate: Fewer than this share of all answers may lack their end.
        judge_p: The judge prefers the tuned model, and the p-value is below this.
    """

    perplexity_p: Share | None = None
    category_loss: Share | None = None
    keep: dict[str, Share] = Field(default_factory=dict)
    least: dict[str, Share] = Field(default_factory=dict)
    loop_rate: Share | None = None
    unfinished_rate: Share | None = None
    judge_p: Share | None = None


class ComparePlan(Strict):
    """A compare YAML.

    Who answers is said in one of four ways: a base and an adapter (one loaded model, adapter off
    and on), a base and a tuned model, two endpoints, or two files of answers.

    Attributes:
        model_name_or_path: The base model's folder.
        adapter_name_or_path: The adapter that makes it the tuned one.
        tuned_model_name_or_path: Or the tuned model's own folder.
        endpoints: Or who is asked over HTTP; no perplexity then.
        predictions: Or the answers of another program; no perplexity and no probes then.
        test_file: Held-out pairs in alpaca form.
        test_rows: The perplexity is measured on the answers of the first so many; the file is in
            seeded order.
        answer_rows: The first so many of them are also asked, and the answers scored.
        cutoff_len: Longest question with answer, in tokens; the perplexity of what is beyond is
            not measured.
        probes: Sets of questions with checkable answers: a name to a file of configs/probes.
        questions: Asked of both and shown side by side, not judged.
        max_new_tokens: Longest answer, in tokens.
        batch_size: Questions answered at a time.
        judge: A model that is asked which answer is better; nobody when left out.
        gate: What must hold, or the command fails.
        output_dir: Where the answers and the report go.
    """

    model_name_or_path: str | None = None
    adapter_name_or_path: str | None = None
    tuned_model_name_or_path: str | None = None
    endpoints: Endpoints | None = None
    predictions: Predictions | None = None
    test_file: str | None = None
    test_rows: Count = 1
    answer_rows: Annotated[int, Field(ge=0)] = 0
    cutoff_len: Count = 1024
    probes: dict[str, str] = Field(default_factory=dict)
    questions: list[str] = Field(default_factory=list)
    max_new_tokens: Count = 512
    batch_size: Count = 8
    judge: Judge | None = None
    gate: Gate = Gate()
    output_dir: str

    @property
    def way(self) -> Way:
        """Which of the four ways the YAML takes."""
        if self.endpoints:
            return "endpoints"
        if self.predictions:
            return "predictions"
        return "adapter" if self.adapter_name_or_path else "models"

    @property
    def answering(self) -> dict[str, Any]:
        """What decides an answer or a loss, beside model and question; the rest only looks."""
        return self.model_dump(include={"endpoints", "cutoff_len", "max_new_tokens", "batch_size"})

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        problems = [*self._ways(), *self._gate_problems()]
        if self.answer_rows > self.test_rows:
            problems.append(
                f"answer_rows {self.answer_rows} is more than test_rows {self.test_rows}"
            )
        if problems:
            raise PydanticCustomError("keys", "; ".join(problems).replace("{", "{{"))
        return self

    def _ways(self) -> Iterator[str]:
        """Yields what is wrong with who answers."""
        local = {"adapter_name_or_path", "tuned_model_name_or_path"}
        given = [key for key in (*sorted(local), "endpoints", "predictions") if getattr(self, key)]
        if len(given) != 1:
            yield (
                "expected one of adapter_name_or_path, tuned_model_name_or_path, endpoints and "
                f"predictions, found {' and '.join(given) or 'none'}"
            )
        elif given[0] in local and not self.model_name_or_path:
            yield f"{given[0]} wants the base beside it, model_name_or_path"
        elif given[0] not in local and self.model_name_or_path:
            yield f"model_name_or_path is not read beside {given[0]}; take it out"
        elif given[0] == "predictions" and (self.probes or self.questions or self.test_file):
            yield "predictions bring their questions; take out probes, questions and test_file"
        elif given[0] != "predictions" and not self.test_file:
            yield "missing key 'test_file'"

    def _gate_problems(self) -> Iterator[str]:
        """Yields what the gate asks for and this comparison does not measure."""
        for key in ("keep", "least"):
            for name in getattr(self.gate, key):
                if name not in self.probes:
                    yield (
                        f"gate.{key}: {name!r} is no set of 'probes'{nearest(name, self.probes)}"
                    )
        if self.gate.perplexity_p is not None and (self.endpoints or self.predictions):
            yield "gate.perplexity_p: no perplexity is measured on endpoints and predictions"
        if self.gate.category_loss is not None and not self.probes:
            yield "gate.category_loss: there are no 'probes'"
        if self.gate.judge_p is not None and not self.judge:
            yield "gate.judge_p: there is no 'judge'"


def read_pairs(path: str, count: int) -> list[tuple[str, str]]:
    """Returns question and answer of the first `count` rows of an alpaca file.

    Raises:
        MissingInputError: There is no such file.
        DataError: A line is no such row, or there is none.
    """
    pairs = []
    for _, row in lines.rows(resolve(path), ("instruction", "output")):
        question = "\n".join(part for part in (row["instruction"], row.get("input")) if part)
        pairs.append((question, row["output"]))
        if len(pairs) == count:
            break
    if not pairs:
        raise DataError(f"{path} has no rows, so there is nothing to compare on; see its manifest")
    return pairs


def read_predictions(files: Predictions) -> list[tuple[str, str, str, str]]:
    """Returns question, reference, base's and tuned model's answer of every row of two files.

    Raises:
        MissingInputError: One of them is not there.
        DataError: A line is no prediction; or the two do not answer the same questions: names the
            first line that differs.
    """
    keys = ("prompt", "predict", "label")
    base, tuned = (
        [row for _, row in lines.rows(resolve(path), keys)] for path in (files.base, files.tuned)
    )
    for number, (one, other) in enumerate(zip(base, tuned, strict=False), 1):
        for key in ("prompt", "label"):
            if one[key] != other[key]:
                raise DataError(
                    f"line {number}: the two files do not answer the same questions: {key} is "
                    f"{_cut(one[key], other[key])!r} in {files.base} and "
                    f"{_cut(other[key], one[key])!r} in {files.tuned}; predict both on one file"
                )
    if len(base) != len(tuned):
        raise DataError(
            f"{files.base} has {len(base)} rows and {files.tuned} {len(tuned)}; "
            "predict both on one file"
        )
    if not base:
        raise DataError(f"{files.base} has no rows, so there is nothing to compare")
    return [
        (one["prompt"], one["label"], one["predict"], other["predict"])
        for one, other in zip(base, tuned, strict=True)
    ]


def _cut(text: str, other: str) -> str:
    """Returns the part of `text` around the first character in which it differs from `other`."""
    same = next((n for n, (a, b) in enumerate(zip(text, other, strict=False)) if a != b), None)
    start = max((min(len(text), len(other)) if same is None else same) - 15, 0)
    return ("…" if start else "") + text[start : start + 40]
