"""The data YAML: what is read, what is kept, and how it is divided."""

from collections import Counter
from typing import Annotated, Any

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from medqa.config import Strict
from medqa.data.rows import Limits
from medqa.data.sources import Source

Share = Annotated[float, Field(gt=0, lt=1)]
Length = Annotated[int, Field(ge=1)]


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
        name: Of the folder ``data/processed/<name>`` and of the data sets ``<name>_train`` and
            ``<name>_test``; ASCII, since LLaMA-Factory's registry is.
        sources: The raw files.
        min_question_chars: Bounds of the cleaned texts' lengths, in characters.
        max_question_chars: As above.
        min_answer_chars: As above.
        max_answer_chars: As above.
        test_share: Share of the pairs that goes to test.
        seed: Of the split, the sample and the order.
        max_rows: Keep only this many training pairs, replay not counted; a bigger sample
            contains the smaller.
        replay: General data for training, or nothing.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]
    sources: Annotated[list[Source], Field(min_length=1)]
    min_question_chars: Length
    max_question_chars: Length
    min_answer_chars: Length
    max_answer_chars: Length
    test_share: Share
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    max_rows: Length | None = None
    replay: Replay | None = None

    @field_validator("max_question_chars", "max_answer_chars")
    @classmethod
    def _not_below_minimum(cls, value: int, info: ValidationInfo) -> int:
        least = str(info.field_name).replace("max", "min")
        if value < info.data.get(least, 1):
            raise PydanticCustomError("limits", f"must not be less than {least}")
        return value

    @field_validator("sources", "replay")
    @classmethod
    def _tags_differ(cls, value: Any, info: ValidationInfo) -> Any:
        given = value.sources if isinstance(value, Replay) else value or []
        known = info.data.get("sources", []) if info.field_name == "replay" else []
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
    def limits(self) -> Limits:
        """The allowed lengths."""
        return Limits(
            self.min_question_chars,
            self.max_question_chars,
            self.min_answer_chars,
            self.max_answer_chars,
        )
