"""What LLaMA-Factory is asked before a training, in a process of its own, and what that tells."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from medqa.errors import StepError
from medqa.paths import project_root
from medqa.train.card import Card
from medqa.train.findings import Findings
from medqa.train.rows import SAMPLE

Part = tuple[bool, str]
"""A stretch of an encoded row as text, and whether it is trained."""


@dataclass(frozen=True)
class Request:
    """What is to be looked at.

    Attributes:
        values: The recipe.
        rows: Data set to rows as its file has them.
        shown: How many rows are to be decoded.
    """

    values: dict[str, Any]
    rows: dict[str, list[dict[str, Any]]]
    shown: int = 3


@dataclass
class Answer:
    """What was seen.

    Attributes:
        card: The GPU, if any.
        refused: Why LLaMA-Factory's parser or encoding refuses the recipe; empty if it does not.
        encoded: How many rows were encoded.
        endless: How many of them, not counting those that were cut, do not end in a token at which
            the model stops.
        end: The last trained token of the first row.
        stops: The tokens at which the model stops.
        template: ``same`` as the model's own chat template, ``other``, ``unknown`` to the library,
            or ``none``: there is nothing to compare it with.
        better: LLaMA-Factory's template that is the same, where the recipe's is another.
        repacked: Packed rows are the same as unpacked ones; None where none are packed.
        decoded: The rows to show, each as one sequence, or two of a preference row.
    """

    card: Card | None = None
    refused: str = ""
    encoded: int = 0
    endless: int = 0
    end: str = ""
    stops: list[str] = field(default_factory=list)
    template: str = "none"
    better: str = ""
    repacked: bool | None = None
    decoded: list[list[list[Part]]] = field(default_factory=list)


def ask(request: Request) -> Answer:
    """Has a process of its own look at what takes LLaMA-Factory and the GPU.

    Raises:
        StepError: It died.
    """
    offline = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    # torchrun's variables would make it wait for the others of its group.
    environment = {k: v for k, v in os.environ.items() if k not in {"RANK", "LOCAL_RANK"}} | offline
    done = subprocess.run(
        [sys.executable, "-m", "medqa.train.encoding"],
        input=json.dumps(asdict(request)),
        cwd=project_root(),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()] or ["it said nothing"]
        raise StepError(f"LLaMA-Factory could not be asked: {said[-1].strip()}")
    answer = json.loads(done.stdout)
    gpu = answer.pop("card")
    return Answer(card=Card(**gpu) if gpu else None, **answer)


def look(answer: Answer, values: Mapping[str, Any], found: Findings) -> None:
    """Tells what LLaMA-Factory's own parser, template and processors made of the recipe."""
    if answer.refused:
        # What was said before, with its cure, is what it stumbles over.
        if not found.failed("settings", "key", "data", "model", "adapter"):
            found.problem("parser", f"LLaMA-Factory says: {answer.refused}", "change that value")
        return
    asked = values["template"]
    if answer.template == "unknown" or answer.better:
        text = "asks otherwise than the model's own chat template"
        if answer.template == "unknown":
            text = "is no template of LLaMA-Factory's"
        found.problem("template", f"{asked} {text}", f"template={answer.better or 'chatglm3'}")
        return
    if not answer.encoded:
        return
    if answer.template == "other":
        found.warning(
            "template",
            f"{asked} asks otherwise than the model's own chat template",
            "look at the rows below: make preflight",
        )
    elif answer.template == "same":
        found.ok("template", f"{asked} gives the ids of the model's own chat template")
    elif values.get("stage") != "pt":
        found.warning(
            "template",
            "the tokenizer has no chat template to compare with",
            "import the chat model: make model",
        )
    if answer.endless:
        literal = values.get("stage") == "pt" and values.get("split_special_tokens")
        found.problem(
            "end",
            f"{answer.endless} of {answer.encoded} rows end in {answer.end!r}, where the model "
            f"does not stop ({', '.join(answer.stops)}): it would never end an answer",
            "split_special_tokens=false"
            if literal
            else "make the tokenizer again: import the model once more with --overwrite",
        )
    else:
        found.ok("end", f"{answer.encoded} rows encoded, all end in a token at which it stops")
    if answer.repacked is False:
        found.problem(
            "packing", "packed rows differ from unpacked ones", "packing=false neat_packing=false"
        )


def thinned(sample: Sequence[Mapping[str, Any]], sets: int) -> list[dict[str, Any]]:
    """Returns rows evenly, so that all sets together give some `SAMPLE`."""
    step = max(math.ceil(len(sample) * sets / SAMPLE), 1)
    return [dict(row) for row in sample[::step]]
