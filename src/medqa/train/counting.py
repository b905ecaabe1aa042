"""How many tokens a row of training data has, counted without importing LLaMA-Factory.

Rows are encoded as LLaMA-Factory 0.9.5 does it with template chatglm3 (``data/template.py``,
``data/processor``): every text slot by itself, with the fixed tokens of the template around them.
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medqa.data.chat import kept
from medqa.errors import ConfigError, DataError, MissingInputError
from medqa.paths import resolve, shown
from medqa.train import registered
from medqa.train.settings import cutoff, is_packed, names

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SEED = 0
END = "</s>"
_COLUMNS = {"prompt": "instruction", "query": "input", "response": "output"}
_ASKED = ("prompt", "query", "system")
_COUNTED = {*_ASKED, "response", "chosen", "rejected"}


@dataclass(frozen=True)
class Row:
    """A row as encoded, in tokens.

    Attributes:
        whole: Its length before cutting; of a preference row that of its longer sequence.
        cut: What is left of it as sequences: one, or two of a preference row.
    """

    whole: int
    cut: tuple[int, ...]


@dataclass(frozen=True)
class _File:
    """A registered JSON lines file, its entry, and where its lines begin."""

    path: Path
    entry: Mapping[str, Any]
    offsets: Sequence[int]


def count(values: Mapping[str, Any], sample: int) -> tuple[list[Row], int]:
    """Counts the tokens of training rows.

    Args:
        values: A LLaMA-Factory YAML (stage pt, sft, rm or dpo, template chatglm3).
        sample: At most so many rows are encoded, drawn by a fixed seed.

    Returns:
        The rows, in the order of the files where all were encoded; and how many rows there are.

    Raises:
        ConfigError: Another template.
        MissingInputError: The tokenizer or a data set is not there yet.
        DataError: A row or an entry is not what LLaMA-Factory takes.
    """
    if values.get("stage") != "pt" and values.get("template") != "chatglm3":
        problem = f"template: expected chatglm3, found {values.get('template')!r}"
        raise ConfigError("lengths", [problem])
    files = _files(values)
    total = sum(len(file.offsets) for file in files)
    if not total:
        where = ", ".join(shown(file.path) for file in files) or "the key dataset"
        raise DataError(f"expected rows in {where}, found none; run: make data")
    chosen: Sequence[int] = range(total)
    if total > sample:
        chosen = random.Random(SEED).sample(chosen, sample)
    return _encoded(values, _read(files, chosen)), total


def most(values: Mapping[str, Any]) -> int:
    """Returns the most tokens of a row: one less than cutoff_len where packing is asked for.

    ``hparams/data_args.py`` takes one off, and the packing adds one token of padding again.
    """
    asked = bool(values.get("packing") or values.get("neat_packing"))
    return cutoff(values) - asked


def _files(values: Mapping[str, Any]) -> list[_File]:
    entries, registry = registered.registry(values), registered.place(values)
    files = []
    for name in names(values.get("dataset")):
        entry = entries.get(name, {})
        path = registry.parent / str(entry.get("file_name"))
        if not path.is_file():
            raise MissingInputError(
                f"data set {name!r} of {shown(registry)} was expected as a JSON lines file, found "
                "none; run: python scripts/convert.py configs/data/<name>.yaml"
            )
        form = entry.get("formatting", "alpaca")
        unknown = sorted(entry.get("columns", _COLUMNS).keys() - _COUNTED)
        if path.suffix != ".jsonl" or form != "alpaca" or unknown:
            raise DataError(
                f"data set {name!r} was expected as JSON lines in alpaca form with the columns "
                f"{', '.join(sorted(_COUNTED))}, found {path.name}, form {form}, "
                f"{', '.join(unknown) or 'those columns'}; "
                "run: python scripts/convert.py configs/data/<name>.yaml"
            )
        files.append(_File(path, entry, _offsets(path, values.get("max_samples"))))
    return files


def _offsets(path: Path, most: int | None) -> Sequence[int]:
    """Returns where each line begins; a blank line is none, and `most` are the first ones."""
    with path.open("rb") as lines:
        sizes = [len(line) if line.strip() else -len(line) for line in lines]
    starts = accumulate(map(abs, sizes), initial=0)
    return [start for start, size in zip(starts, sizes, strict=False) if size > 0][:most]


def _read(files: Sequence[_File], chosen: Iterable[int]) -> list[tuple[_File, Mapping[str, Any]]]:
    """Returns the rows with the numbers `chosen`, counted through all files, in that order."""
    import orjson

    places = list(chain.from_iterable(((file, at) for at in file.offsets) for file in files))
    handles = {file.path: file.path.open("rb") for file in files}
    found = []
    try:
        for number in chosen:
            file, offset = places[number]
            handle = handles[file.path]
            handle.seek(offset)
            try:
                row = orjson.loads(handle.readline())
            except orjson.JSONDecodeError as error:
                raise DataError(
                    f"{shown(file.path)}: the row at byte {offset} is not JSON ({error}); "
                    "run: python scripts/convert.py configs/data/<name>.yaml --overwrite"
                ) from None
            found.append((file, row))
    finally:
        for handle in handles.values():
            handle.close()
    return found


def _encoded(
    values: Mapping[str, Any], rows: Sequence[tuple[_File, Mapping[str, Any]]]
) -> list[Row]:
    tokenizer = _tokenizer(values)
    messages = [_texts(values, file, row) for file, row in rows]
    distinct = [text for text in dict.fromkeys(chain.from_iterable(messages)) if text]
    encodings = tokenizer.encode_batch_fast(distinct, add_special_tokens=False)
    sizes = {text: len(one.ids) for text, one in zip(distinct, encodings, strict=True)}
    newline = len(tokenizer.encode("\n", add_special_tokens=False).ids)
    stage, room = values.get("stage", "sft"), most(values)
    result = []
    for message in messages:
        counts = [sizes.get(text, 0) for text in message]
        if stage == "pt":
            result.append(_text(counts[0], None if is_packed(values) else room))
        else:
            result.append(_turn(*counts, newline=newline, room=room, stage=stage))
    return result


def _texts(values: Mapping[str, Any], file: _File, row: Mapping[str, Any]) -> list[str]:
    """Returns the texts of a row that are encoded: a document, or system, question, answers."""
    columns = file.entry.get("columns", _COLUMNS)
    answers: tuple[str, ...] = (
        ("chosen", "rejected") if file.entry.get("ranking") else ("response",)
    )
    if values.get("stage") == "pt":
        answers = ()
    given = {name: row.get(columns.get(name, "")) for name in (*_ASKED, *answers)}
    texts = {name: text for name, text in given.items() if isinstance(text, str)}
    if any(text or name in answers for name, text in given.items() if name not in texts):
        raise DataError(
            f"{shown(file.path)}: every value was expected as a text, found a row "
            f"{str(dict(row))[:80]}; run: python scripts/convert.py configs/data/<name>.yaml"
        )
    question = "\n".join(texts[name] for name in _ASKED[:2] if texts.get(name))
    if values.get("stage") == "pt":
        return [question + END]
    system = texts.get("system") or values.get("default_system") or ""
    return [system, question, *(texts[name] for name in answers)]


def _text(size: int, room: int | None) -> Row:
    """A document of `size` tokens, its end token included, cut at `room`."""
    return Row(size, (size if room is None else min(size, room),))


def _turn(system: int, question: int, *answers: int, newline: int, room: int, stage: str) -> Row:
    """A question with its answer or answers, all in tokens, within the template's fixed ones.

    [gMASK] sop, <|system|> newline text where there is one, <|user|> newline question
    <|assistant|>, newline answer </s>. What is cut is never the end token of a supervised row;
    that of a preference row is cut with its answer.
    """
    source = 2 + (system + newline + 1 if system else 0) + question + newline + 2
    if stage == "sft":
        (target,) = (answer + newline for answer in answers)
        return Row(source + target + 1, (sum(kept(source, target, room)) + 1,))
    targets = [answer + newline + 1 for answer in answers]
    left, longest = kept(source, max(targets), room + 1)  # no place is the end token's
    return Row(source + max(targets), tuple(left + min(target, longest) for target in targets))


def _tokenizer(values: Mapping[str, Any]) -> "Tokenizer":
    from tokenizers import Tokenizer

    folder = resolve(values["model_name_or_path"])
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise MissingInputError(f"{shown(file)} does not exist; run: make model")
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = bool(values.get("split_special_tokens"))
    return tokenizer
