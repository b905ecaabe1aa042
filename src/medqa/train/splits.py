"""The data sets of a recipe: registered, valid, not cut short, and apart from what is tested."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medqa.config import read_yaml
from medqa.errors import DataError, MedqaError
from medqa.paths import resolve, shown
from medqa.train import registered, rows, settings
from medqa.train.controls import Controls, control_tokens
from medqa.train.findings import Findings
from medqa.train.registered import Registered

CUT_FAILS = 0.05
"""Share of rows over cutoff_len above which a recipe is refused; below, it is warned of."""

LENGTHS = 1000
"""Rows whose tokens are counted for that share."""

_HELD_OUT = "_test"


def look(
    values: Mapping[str, Any], source: str, found: Findings
) -> list[tuple[Registered, rows.Scan]]:
    """Reads every row of the training and validation sets; returns the former."""
    try:
        entries = registered.registry(values)
    except DataError as error:
        text, _, cure = str(error).rpartition("; ")
        found.problem("data", text, cure)
        return []
    training = registered.find(values.get("dataset"), values, entries, found)
    validation = registered.find(values.get("eval_dataset"), values, entries, found)
    tests = _tests(values, entries, source, training)
    kept = []
    for key, sets in (("dataset", training), ("eval_dataset", validation)):
        for data in sets:
            if data.name.endswith(_HELD_OUT) or set(data.files) & tests.keys():
                right = data.name.removesuffix(_HELD_OUT)
                right += "_train" if key == "dataset" else "_val"
                found.problem(
                    "split",
                    f"{key} names {data.name!r}, which is for the comparison alone",
                    f"{key}={right}",
                )
            else:
                kept.append(data)
    held: dict[str, str] = {}
    stage, split = str(values.get("stage", "sft")), bool(values.get("split_special_tokens"))
    try:
        for file, data in tests.items():
            asked = rows.questions([file], data.reader("ppo"))
            held |= dict.fromkeys(asked, shown(file))
        seen_val = [(d, rows.questions(d.files, d.reader("ppo"))) for d in validation if d in kept]
    except DataError as error:
        found.problem("data", str(error), "convert it again")
        return []
    folder = resolve(str(values.get("model_name_or_path")))
    controls = Controls(control_tokens(folder))
    result = []
    for data in kept:
        others = held
        if data in training:
            others = {q: d.name for d, asked in seen_val if d != data for q in asked} | held
        seen = rows.look(data, stage, rows.Held(others), controls, found, split=split)
        if seen is not None and seen.sample and data in training:
            result.append((data, seen))
    return result


def _tests(
    values: Mapping[str, Any],
    entries: Mapping[str, Any],
    source: str,
    training: Sequence[Registered],
) -> dict[Path, Registered]:
    """Returns the files that must not be trained on.

    They are the test splits of the data sets, and what ``compare.yaml`` beside the recipe asks.
    """
    folders = {file.parent for data in training for file in data.files}
    names = [name for name in entries if name.endswith(_HELD_OUT)]
    silent = Findings()  # that a test split is gone is nothing to this training
    files = {
        file: data
        for data in registered.find(names, values, entries, silent)
        for file in data.files
        if file.parent in folders
    }
    try:
        compared = read_yaml(resolve(source).parent / "compare.yaml").get("test_file")
    except (OSError, MedqaError):
        compared = None
    if compared and (file := resolve(compared)).is_file():
        files.setdefault(file, Registered(shown(file), (file,), {}))
    return files


def look_lengths(values: Mapping[str, Any], config: Mapping[str, Any], found: Findings) -> None:
    """Looks how many rows cutoff_len cuts; a packed stream of documents loses none."""
    from medqa.train.lengths import lengths

    if values.get("stage") == "pt" and settings.is_packed(values):
        return
    try:
        seen = lengths(values, sample=LENGTHS)
    except (MedqaError, ValueError):  # a template or file that it does not know, or told of before
        if not found.failed("data", "settings"):
            found.ok("length", "not counted: another template or kind of file than medqa's own")
        return
    most = int(config.get("max_position_embeddings") or seen.longest)
    fitting = min(math.ceil(seen.longest / 64) * 64, most)
    text = f"{seen.cut:.2%} of rows are longer than cutoff_len {settings.cutoff(values):,}"
    text += f" (99 of 100 have at most {seen.p99:,} tokens, the longest {seen.longest:,})"
    cure = "leave them out: max_answer_chars of the data YAML"
    if fitting > settings.cutoff(values):
        cure = f"cutoff_len={fitting}, or {cure}"
    if seen.cut > CUT_FAILS:
        lost = "would end in mid-sentence"
        if values.get("stage") in {"dpo", "rm"}:
            lost = "would lose their end token"
        found.problem("length", f"{text}: their answers {lost}", cure)
    elif seen.cut:
        found.warning("length", text, cure)
    else:
        found.ok("length", f"no row is cut: the longest has {seen.longest:,} tokens")
