"""The tokenizer of an exported model in the form in which llama.cpp reads one.

llama.cpp joins neighbours into the piece of the highest score, as SentencePiece does, so ids stay
the same when scores follow the order of the merges. Two things in it need care (its
``src/llama-vocab.cpp``): it looks for control tokens in any text, inside words too, and it would
join ordinary pieces to a control token whose text they make.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medqa.errors import CheckpointError
from medqa.paths import shown

RENAMED = {"sop": "<sop>", "eop": "<eop>"}
"""Control tokens that are parts of words (miSOProstol, pEOPle) to the names they get, GLM-4's."""

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_PREFIX, _RENAMED_PREFIX = "'[gMASK]sop'", "'[gMASK]' ~ '<sop>'"


@dataclass(frozen=True)
class Vocabulary:
    """Tokens in the order of their ids, up to the rows of the embedding.

    Attributes:
        tokens: Their texts, all different.
        scores: Which pair is joined first; the highest.
        types: ``gguf.TokenType``.
        stops: The ids that end an answer: of ``</s>``, then of ``<|user|>`` and ``<|observation|>``
            where the model has them.
        unknown: The id of ``<unk>``, which pads, too.
        template: The chat template in Jinja; None for a model that does not chat.
    """

    tokens: list[str]
    scores: list[float]
    types: list[int]
    stops: list[int]
    unknown: int
    template: str | None


def vocabulary(folder: Path, rows: int) -> Vocabulary:
    """Reads the tokenizer of a native checkpoint.

    Args:
        folder: It holds ``tokenizer.json`` and ``generation_config.json``.
        rows: Rows of the embedding; ids without a token get one that is never used.

    Raises:
        CheckpointError: It is no tokenizer that the import wrote, or llama.cpp would read text as
            control tokens.
    """
    tokenizer = _read(folder / "tokenizer.json")
    _require_ours(tokenizer, folder)
    ids: dict[str, int] = tokenizer["model"]["vocab"]
    control = {t["content"]: int(t["id"]) for t in tokenizer["added_tokens"]}
    texts = {n: text for text, n in (ids | control).items()}
    if max(texts) >= rows:
        raise CheckpointError(
            f"{shown(folder)}: token {max(texts)} has no row among the embedding's {rows}"
        )
    first_merge: dict[str, int] = {}
    for rank, merge in enumerate(tokenizer["model"]["merges"]):
        piece = "".join(merge) if isinstance(merge, list) else merge.replace(" ", "")
        first_merge.setdefault(piece, rank)
    lowest = float(-len(tokenizer["model"]["merges"]))
    tokens = [RENAMED.get(texts.get(n, ""), texts.get(n, f"[PAD{n}]")) for n in range(rows)]
    types = [_type(texts.get(n), control, tokenizer) for n in range(rows)]
    _require_apart(tokens, types, folder)
    return Vocabulary(
        tokens=tokens,
        scores=[float(-first_merge[t]) if t in first_merge else lowest for t in tokens],
        types=types,
        stops=_stops(folder),
        unknown=ids[tokenizer["model"]["unk_token"]],
        template=_template(folder),
    )


def _require_ours(tokenizer: Mapping[str, Any], folder: Path) -> None:
    """Refuses what does more than SentencePiece with a space before the text."""
    model = tokenizer.get("model", {})
    steps = [
        step.get("type") for step in (tokenizer.get("normalizer") or {}).get("normalizers", ())
    ]
    if not (
        model.get("type") == "BPE"
        and model.get("byte_fallback")
        and model.get("unk_token") in model.get("vocab", {})
        and steps == ["Prepend", "Replace"]
        and tokenizer.get("pre_tokenizer") is None
    ):
        raise CheckpointError(
            f"{shown(folder)}/tokenizer.json is not the tokenizer of an imported ChatGLM, so a "
            "GGUF file of it would read text otherwise than in training; run: make model, make "
            "train, make export"
        )


def _type(text: str | None, control: Mapping[str, int], tokenizer: Mapping[str, Any]) -> int:
    from gguf import TokenType

    if text is None:
        return TokenType.UNUSED
    if text == tokenizer["model"]["unk_token"]:
        return TokenType.UNKNOWN
    if text in control:
        return TokenType.CONTROL
    return TokenType.BYTE if _BYTE.fullmatch(text) else TokenType.NORMAL


def _require_apart(tokens: list[str], types: list[int], folder: Path) -> None:
    """Refuses texts that stand twice, and control tokens that pieces of text could join to."""
    from gguf import TokenType

    known = set(tokens)
    if len(known) != len(tokens):
        raise CheckpointError(f"{shown(folder)}: two tokens have one text")
    for token, kind in zip(tokens, types, strict=True):
        if kind == TokenType.NORMAL:
            continue
        for cut in range(1, len(token)):
            if all(len(part) == 1 or part in known for part in (token[:cut], token[cut:])):
                raise CheckpointError(
                    f"{shown(folder)}: llama.cpp would read {token[:cut]!r} and {token[cut:]!r} in "
                    f"a text as the control token {token!r}"
                )


def _stops(folder: Path) -> list[int]:
    stops = _read(folder / "generation_config.json").get("eos_token_id")
    stops = stops if isinstance(stops, list) else [stops]
    if not 1 <= len(stops) <= 3 or not all(isinstance(stop, int) for stop in stops):
        raise CheckpointError(
            f"{shown(folder)}/generation_config.json: expected one to three ids as eos_token_id, "
            f"found {stops}"
        )
    return stops


def _template(folder: Path) -> str | None:
    """Returns the chat template with the renamed token.

    The prefix is cut in two: older programs do not run a template but guess its format from parts
    of its text, and would take this one for GLM-4's, which has no space before a question.
    """
    file = folder / "chat_template.jinja"
    if not file.is_file():
        return None
    template = file.read_text(encoding="utf-8").replace(_PREFIX, _RENAMED_PREFIX)
    if "[gMASK]sop" in template:
        raise CheckpointError(
            f"{shown(file)} is not the template that the import wrote: expected {_PREFIX} in it"
        )
    return template


def _read(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise CheckpointError(f"{shown(file)} is not there or cannot be read") from None
    if not isinstance(values, dict):
        raise CheckpointError(f"{shown(file)} is not a JSON object")
    return values
