"""The first training rows of a data set as the model will see them."""

import json
from itertools import islice
from pathlib import Path
from typing import Any

from medqa import provenance
from medqa.config import read_yaml
from medqa.data import chat
from medqa.errors import DataError, MissingInputError
from medqa.paths import config_file, processed, resolve, shown

RECORD = "manifest.json"
COLUMNS = ("id", "department")
# What a row holds beside them, by what tells its kind.
TRAINED = {
    "output": ("instruction", "output"),
    "chosen": ("instruction", "chosen", "rejected"),
    "text": ("text",),
}
CONTROLS = ("[MASK]", "[gMASK]", "[sMASK]", "sop", "eop", "<|system|>", "<|user|>", "<|assistant|>",
            "<|observation|>")  # fmt: skip
CUT = "✂"
_DIM, _GREEN, _RED = "\x1b[36m", "\x1b[32m", "\x1b[31m"
_BOLD, _PLAIN = "\x1b[1m", "\x1b[0m"


def preview(name_or_config: str, count: int = 10, *, colour: bool = False) -> str:
    """Returns the first training rows in ChatGLM3's chat format, the trained part marked.

    Training files are in seeded order, so the first rows are a fair sample.

    Args:
        name_or_config: A converted data set, ``huatuo``, or its YAML; of a name the YAML is
            ``configs/data/<name>.yaml``, if there is one.
        count: How many rows.
        colour: Mark with colours, for a terminal; with ``⟦`` and ``⟧`` otherwise.

    Returns:
        Each row with its token count, and with a mark where training would cut it; without the
        tokenizer that the YAML names, what is missing and how to get it.

    Raises:
        MissingInputError: The YAML is not there, or the data set has not been converted.
        DataError: The training file does not hold what convert writes.
    """
    name, settings = _named(name_or_config)
    folder = processed(name)
    if provenance.read(folder / RECORD) is None:
        config = name_or_config if _is_yaml(name_or_config) else f"configs/data/{name}.yaml"
        raise MissingInputError(
            f"{shown(folder)} has not been converted; run: python scripts/convert.py {config}"
        )
    cutoff = settings.get("cutoff_len")
    encoder, note = _encoder(settings.get("tokenizer"))
    blocks = [
        _block(number, row, encoder, cutoff, colour)
        for number, row in enumerate(_rows(folder, count), start=1)
    ]
    marked = "green" if colour else "⟦ ⟧"
    head = f"{shown(folder)}: the first {len(blocks)} training rows; trained on: {marked}"
    return "\n\n".join([head, *blocks, *([note] if note else [])])


def _is_yaml(given: str) -> bool:
    return Path(given).suffix in {".yaml", ".yml"}


def _named(given: str) -> tuple[str, dict[str, Any]]:
    """Returns the data set's name, and what its YAML says about tokens now.

    The record of the conversion does not say it, for it decides nothing there. The YAML is not
    checked in whole: that a rule in it is misspelt is convert's to say.
    """
    if not _is_yaml(given):
        config = resolve(f"configs/data/{given}.yaml")
        return given, read_yaml(config) if config.is_file() else {}
    values = read_yaml(config_file(given))
    if not isinstance(values.get("name"), str):
        raise DataError(f"{given} is no data YAML: it has no key 'name'; see configs/data/")
    return values["name"], values


def _encoder(tokenizer: str | None) -> tuple[chat.Chat | None, str]:
    """Returns the encoder, or None and what is missing."""
    if tokenizer is None:
        return None, "tokens not counted: no YAML of it names a tokenizer (a model folder)"
    folder = resolve(tokenizer)
    if not (folder / chat.TOKENIZER).is_file():
        return None, f"tokens not counted: {chat.how_to_get(tokenizer)}"
    return chat.Chat(folder), ""


def _rows(folder: Path, count: int) -> list[dict[str, str]]:
    """Returns the first rows of the training file, JSON lines or Parquet."""
    lines, table = folder / "train.jsonl", folder / "train.parquet"
    try:
        if lines.is_file():
            with lines.open(encoding="utf-8") as file:
                found = [json.loads(line) for line in islice(file, count)]
        elif table.is_file():
            import polars as pl

            found = pl.scan_parquet(table, glob=False).head(count).collect().to_dicts()
        else:
            raise MissingInputError(f"{shown(folder)} has no training file; convert it again")
        return [{key: str(row[key]) for key in (*COLUMNS, *_trained(row))} for row in found]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"{shown(folder)} does not hold the training rows that convert writes ({error!r}); "
            "convert it again with --overwrite"
        ) from None


def _trained(row: dict[str, Any]) -> tuple[str, ...]:
    """Returns the names of what the model reads; those of a pair where nothing is told."""
    return next((names for key, names in TRAINED.items() if key in row), TRAINED["output"])


def _block(
    number: int,
    row: dict[str, str],
    encoder: chat.Chat | None,
    cutoff: int | None,
    colour: bool,
) -> str:
    """Returns one row: what it is, then its text as the model reads it."""
    facts = [row["id"], row["department"]]
    texts = [row[name] for name in _trained(row)]
    spoken = [c for c in CONTROLS if c in "".join(texts) and not c.isalpha()]
    if encoder:
        counted, texts = _counted(texts, encoder, cutoff)
        facts += counted
    if spoken:
        facts.append(f"{' '.join(spoken)} in the text is read as plain characters")
    head = f"{number}. " + " · ".join(fact for fact in facts if fact)

    def control(token: str) -> str:
        return f"{_DIM}{token}{_PLAIN}" if colour else token

    def trained(text: str, mark: str = _GREEN) -> str:
        text = f"{_printable(text)}{control(chat.END)}"
        return f"{mark}{text}{mark}{_PLAIN}" if colour else f"⟦{text}⟧"

    first = f"{_BOLD + head + _PLAIN if colour else head}\n"
    if "text" in row:
        return first + trained(texts[0])
    opening = "".join(map(control, chat.OPENING))
    asked = f"{first}{opening}\n {_printable(texts[0])}{control(chat.TURN)}"
    if "chosen" not in row:
        return asked + trained(f"\n {texts[1]}")
    better, worse = trained(f"\n {texts[1]}"), trained(f"\n {texts[2]}", _RED)
    return f"{asked}\nchosen {better}\nrejected {worse}"


def _counted(
    texts: list[str], encoder: chat.Chat, cutoff: int | None
) -> tuple[list[str], list[str]]:
    """Returns the tokens of a row and what training cuts, and the texts with the cuts marked."""
    if len(texts) == 1:  # the end token is one more; nothing is cut, since texts are packed
        return [f"{encoder.counts(texts)[0] + 1:,} tokens"], texts
    question, *answers = texts
    pairs = [encoder.encode(question, answer) for answer in answers]
    facts = [f"{' and '.join(f'{pair.length:,}' for pair in pairs)} tokens"]
    longest = max(pairs, key=lambda pair: pair.length)
    if not cutoff or longest.length <= cutoff:
        return facts, texts
    of_prompt, of_answer = len(longest.prompt), len(longest.answer)
    if len(answers) == 1:
        of_prompt, of_answer = chat.kept(of_prompt, of_answer, cutoff)
    else:  # the end token is not spared, as in LLaMA-Factory's `processor/pairwise.py`
        of_prompt, of_answer = chat.kept(of_prompt, of_answer + 1, cutoff + 1)
    lost = len(longest.prompt) - of_prompt, max(len(longest.answer) - of_answer, 0)
    facts.append(f"cut at {cutoff:,}: {lost[0]:,} of the question, {lost[1]:,} of the answer")
    return facts, [
        _cut(question, longest.question_ends, of_prompt),
        *(_cut(a, pair.answer_ends, of_answer) for a, pair in zip(answers, pairs, strict=True)),
    ]


def _cut(text: str, ends: list[int], kept: int) -> str:
    """Marks the place in `text` behind which its tokens are lost; leaves it whole if none is."""
    if kept >= len(ends):
        return text
    place = ends[kept - 1] if kept else 0
    return f"{text[:place]}{CUT}{text[place:]}"


def _printable(text: str) -> str:
    """Shows what a terminal would obey instead of print."""
    return "".join(c if c.isprintable() or c in "\n\t　" else f"⟨U+{ord(c):04X}⟩" for c in text)
