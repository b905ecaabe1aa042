"""The data YAML: what is read, what is mended, what is kept, and how it is divided."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from medqa.config import Strict, load
from medqa.data.rows import Kind, Limits, Settings
from medqa.data.rules import Rules
from medqa.data.sources import Source

Share = Annotated[float, Field(gt=0, lt=1)]
Length = Annotated[int, Field(ge=1)]
Bound = Annotated[Length | None, Field(validate_default=True)]

BOUNDS = tuple(
    f"{end}_{what}_chars" for what in ("question", "answer", "text") for end in ("min", "max")
)
# What decides how the work is done and how the result is looked at, but not the result.
WORKING = frozenset({"workers", "runner", "tokenizer", "cutoff_len"})


class Replay(Strict):
    """General data mixed into training, so that the model does not forget what it knew.

    Attributes:
        share: Share of the training rows, between 0 and 1.
        sources: Where it comes from; none of it goes to test.
    """

    share: Share
    sources: Annotated[list[Source], Field(min_length=1)]


class Recipe(Strict):
    """A data YAML.

    Attributes:
        kind: What the rows are: ``pairs`` of question and answer, for LLaMA-Factory's stage
            ``sft``; ``preference``, a question with a better and a worse answer, for ``dpo``;
            running ``text``, for ``pt``.
        name: Of the folder ``data/processed/<name>`` and of the data sets ``<name>_train`` and
            ``<name>_test``; ASCII, since LLaMA-Factory's registry is.
        sources: The raw files.
        rules: Cleaning rules by name, each on or off.
        privacy: Replace personal data with placeholders such as ``[电话]``.
        segment_questions: Cut the questions into words and drop stop words, as the source paper
            did; off by default.
        min_question_chars: Bounds of the cleaned texts' lengths, in characters.
        max_question_chars: As above.
        min_answer_chars: As above.
        max_answer_chars: As above.
        min_text_chars: The same of a text, which has no other bounds.
        max_text_chars: As above.
        test_share: Share of the pairs that goes to test.
        val_share: Share of the pairs that goes to validation, or nothing.
        seed: Of the split, the sample and the order.
        max_rows: Keep only this many training pairs, replay not counted; a bigger sample
            contains the smaller.
        replay: General data for training, or nothing.
        decontaminate: Evaluation files; training pairs whose question is near one of theirs are
            left out.
        output: Format of train, val and test.
        workers: Processes; all cores when not given.
        runner: ``local``, or ``ray`` for the Ray cluster that ``RAY_ADDRESS`` names.
        tokenizer: Model folder whose tokenizer counts the lengths in the report.
        cutoff_len: Tokens at which training cuts a pair; the report says how many it would cut.
    """

    kind: Kind = "pairs"
    name: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]
    sources: Annotated[list[Source], Field(min_length=1)]
    rules: Rules = Rules()
    privacy: bool = True
    segment_questions: bool = False
    min_question_chars: Bound = None
    max_question_chars: Bound = None
    min_answer_chars: Bound = None
    max_answer_chars: Bound = None
    min_text_chars: Bound = None
    max_text_chars: Bound = None
    test_share: Share
    val_share: Share | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    max_rows: Length | None = None
    replay: Replay | None = None
    decontaminate: list[Source] = Field(default_factory=list)
    output: Literal["jsonl", "parquet"] = "jsonl"
    workers: Length | None = None
    runner: Literal["local", "ray"] = "local"
    tokenizer: str | None = None
    cutoff_len: Length | None = None

    @model_validator(mode="before")
    @classmethod
    def _kind_of_sources(cls, values: Any) -> Any:
        """Tells each source the kind of its rows; evaluation files hold questions with answers."""
        if not isinstance(values, dict) or values.get("kind") not in get_args(Kind):
            return values

        def told(sources: Any) -> Any:
            if not isinstance(sources, list):
                return sources
            return [
                {"kind": values["kind"], **source} if isinstance(source, dict) else source
                for source in sources
            ]

        replay = values.get("replay")
        if isinstance(replay, dict) and "sources" in replay:
            values = {**values, "replay": {**replay, "sources": told(replay["sources"])}}
        return {**values, "sources": told(values.get("sources"))} if "sources" in values else values

    @field_validator(*BOUNDS)
    @classmethod
    def _bound_of_kind(cls, value: int | None, info: ValidationInfo) -> int | None:
        kind, name = info.data.get("kind"), str(info.field_name)
        ours = kind is None or ("text" in name) == (kind == "text")
        if ours and value is None and kind:
            raise PydanticCustomError("missing", "is missing")
        if not ours and value is not None:
            instead = "min_text_chars and max_text_chars"
            if kind != "text":
                instead = "bounds of question and answer"
            raise PydanticCustomError(
                "limits", "kind {kind} has {instead} instead", {"kind": kind, "instead": instead}
            )
        least = name.replace("max", "min")
        if value is not None and value < (info.data.get(least) or 1):
            raise PydanticCustomError("limits", f"must not be less than {least}")
        return value

    @field_validator("segment_questions")
    @classmethod
    def _questions_to_segment(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("kind") == "text":
            raise PydanticCustomError("kind", "a text is not cut into words; take the key out")
        return value

    @field_validator("val_share")
    @classmethod
    def _leaves_training(cls, value: float | None, info: ValidationInfo) -> float | None:
        if value is not None and value + info.data.get("test_share", 0) >= 1:
            raise PydanticCustomError("shares", "test_share and val_share must leave training rows")
        return value

    @field_validator("sources", "replay", "decontaminate")
    @classmethod
    def _tags_differ(cls, value: Any, info: ValidationInfo) -> Any:
        given = value.sources if isinstance(value, Replay) else value or []
        kind = info.data.get("kind", "pairs") if info.field_name != "decontaminate" else "pairs"
        if any(source.kind != kind for source in given):
            raise PydanticCustomError(
                "kind", "kind stands once, at the top of the YAML; take it out of the source"
            )
        before = list(info.data.get("sources", []))
        if info.field_name == "decontaminate" and info.data.get("replay"):
            before += info.data["replay"].sources
        known = before if info.field_name != "sources" else []
        tags = Counter(source.source for source in [*known, *given])
        twice = [tag for tag, times in tags.items() if times > 1]
        if twice:
            raise PydanticCustomError(
                "tags", f"each source needs a tag of its own, but {', '.join(twice)} is there twice"
            )
        return value

    @property
    def all_sources(self) -> list[Source]:
        """The files of training and test, then those of replay."""
        return [*self.sources, *(self.replay.sources if self.replay else [])]

    @property
    def parts(self) -> list[str]:
        """The splits that it makes."""
        return ["train", "test", *(["val"] if self.val_share else [])]

    @property
    def unit(self) -> str:
        """What a row of the result is called."""
        return "text" if self.kind == "text" else "pair"

    @property
    def settings(self) -> Settings:
        """What the work on one row needs to know."""
        question = self.min_question_chars, self.max_question_chars
        answer = self.min_answer_chars, self.max_answer_chars
        if self.kind == "text":
            question = answer = self.min_text_chars, self.max_text_chars
        limits = Limits(*(int(bound or 0) for bound in (*question, *answer)))
        return Settings(
            limits=limits,
            rules=self.rules.on,
            privacy=self.privacy,
            segment_questions=self.segment_questions,
            seed=self.seed,
            kind=self.kind,
        )


def absent(config: str | Path, overrides: Sequence[str] = ()) -> list[tuple[str, Path]]:
    """Returns hub repository and file of each source that is not there and says where it is from.

    Raises:
        ConfigError: Everything that is wrong with the YAML.
    """
    recipe = load(config, overrides, Recipe)
    read = [*recipe.all_sources, *recipe.decontaminate]
    return [(s.hub, s.file) for s in read if s.hub and not s.file.exists()]
