"""Everything that can be known to be wrong before the first step of a training, said at once.

Two tiers: what needs no heavy import (settings, model, adapter, data, folder, disk), and what only
LLaMA-Factory and the GPU can say, asked of a process of its own. Nothing is written.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medqa import provenance
from medqa.config import load_llamafactory, read_yaml
from medqa.errors import ConfigError, MedqaError, PreflightError
from medqa.paths import config_file, resolve, shown
from medqa.train import base, card, inquiry, room, rows, settings, splits
from medqa.train.findings import Findings, Level
from medqa.train.folder import RECORD, is_unfinished
from medqa.train.inputs import decisive, digests
from medqa.train.inquiry import Answer, Request
from medqa.train.registered import Registered

_MARKS: Mapping[Level, str] = {"ok": "ok     ", "warning": "warning", "problem": "PROBLEM"}


@dataclass(frozen=True)
class Look:
    """What a preflight saw.

    Attributes:
        source: The recipe's file.
        found: All that was looked at.
        answer: What LLaMA-Factory made of the rows; None if it was not asked.
    """

    source: str
    found: Findings
    answer: Answer | None = None

    @property
    def failed(self) -> bool:
        """A training must not begin."""
        return bool(self.found.told("problem"))


def require(
    values: Mapping[str, Any],
    *,
    source: str,
    overwrite: bool = False,
    resuming: bool = False,
    held: bool = False,
) -> list[str]:
    """Refuses a training that cannot end well.

    A run that goes on is looked at without LLaMA-Factory: it was asked when the run began, about
    the same settings, model and data.

    Args:
        values: The recipe, as `config.load_llamafactory` returns it.
        source: Its file.
        overwrite: What the output folder holds is to be replaced.
        resuming: The output folder holds this run.
        held: This process has the lock of the output folder.

    Returns:
        What is doubtful, a line each.

    Raises:
        PreflightError: Everything that is wrong, each with its cure.
    """
    look = _look(
        values,
        source,
        Findings(),
        overwrite=overwrite,
        resuming=resuming,
        held=held,
        asking=not resuming,
    )
    if look.failed:
        raise PreflightError(source, look.found.told("problem"))
    return look.found.told("warning")


def inspect(config: str | Path, overrides: Sequence[str] = ()) -> Look:
    """Looks at a recipe without training; what is wrong with the file itself is found, too.

    Raises:
        MissingInputError: There is no such file.
        ConfigError: It is no YAML mapping.
    """
    found, source = Findings(), shown(config_file(config))
    try:
        values = load_llamafactory(config, overrides, "train")
    except ConfigError as error:
        values = read_yaml(config_file(config), overrides)
        for problem in error.problems:
            name = problem.removeprefix("unknown key ").split(":")[0].split(";")[0].strip("'\"")
            values.pop(name, None)  # the rest can still be looked at
            text, _, cure = problem.partition("; ")
            found.problem("key", text, cure or f"correct it in {source} or among the overrides")
    resuming = settings.has_required(values) and _is_this_run(values, config_file(config))
    return _look(values, source, found, overwrite=False, resuming=resuming, held=False, asking=True)


def report(look: Look, *, colour: bool = False) -> str:
    """Returns what was seen as text: a line for each thing, then rows as they are trained.

    Args:
        look: What was seen.
        colour: Mark the trained part in colour, else by 【】.
    """
    lines = [f"preflight of {look.source}"]
    for one in look.found:
        lines.append(f"  {_MARKS[one.level]}  {one.about:8}  {one.text}")
        if one.cure:
            lines.append(f"{'':21}-> {one.cure}")
    if look.answer and look.answer.decoded:
        marks = ("\x1b[1;32m", "\x1b[0m") if colour else ("【", "】")
        lines += ["", "rows as they are trained, " + f"{marks[0]}what is learned{marks[1]} marked:"]
        for number, row in enumerate(look.answer.decoded, 1):
            for sequence in row:
                told = "".join(_marked(text, marks if on else ("", "")) for on, text in sequence)
                lines.append(f"  {number}  {told}")
    problems, warnings = (len(look.found.told(level)) for level in ("problem", "warning"))
    lines += ["", f"problems: {problems}, warnings: {warnings}"]
    return "\n".join(lines)


def _marked(text: str, marks: tuple[str, str]) -> str:
    line = text.replace("\n", "↵")
    if len(line) > 300:
        line = f"{line[:200]} … {line[-60:]}"
    return f"{marks[0]}{line}{marks[1]}"


def _look(
    values: Mapping[str, Any],
    source: str,
    found: Findings,
    *,
    overwrite: bool,
    resuming: bool,
    held: bool,
    asking: bool,
) -> Look:
    settings.look(values, found)
    config = None
    if isinstance(values.get("model_name_or_path"), str):
        config = base.look(values, source, found)
        base.look_adapter(values, source, found)
    samples = splits.look(values, source, found)
    if config and samples and not found.failed("length"):
        splits.look_lengths(values, config, found)
    if isinstance(values.get("output_dir"), str):
        room.look_folder(
            resolve(values["output_dir"]), found, overwrite=overwrite, resuming=resuming, held=held
        )
        if config and not found.failed("output"):
            _look_disk(values, config, _steps(values, samples), source, found)
    if not asking or not settings.has_required(values):
        return Look(source, found)
    # Without a model nothing can be encoded, but the parser still has its say.
    chosen = {data.name: inquiry.thinned(seen.sample, len(samples)) for data, seen in samples}
    answer = inquiry.ask(Request(dict(values), chosen if config else {}))
    card.look(answer.card, values, found)
    if config:
        _look_memory(answer, values, config, source, found)
    inquiry.look(answer, values, found)
    return Look(source, found, answer)


def _look_disk(
    values: Mapping[str, Any], config: Mapping[str, Any], steps: int, source: str, found: Findings
) -> None:
    try:
        room.look_disk(values, config, steps, source, found)
    except LookupError:  # an architecture that the budget does not know
        found.ok("disk", "not predicted for this model")


def _look_memory(
    answer: Answer,
    values: Mapping[str, Any],
    config: Mapping[str, Any],
    source: str,
    found: Findings,
) -> None:
    try:
        card.fits(answer.card, values, config, source, found)
    except (MedqaError, LookupError, ArithmeticError):  # told before, or an unknown architecture
        found.ok("memory", "not predicted for this model")


def _steps(values: Mapping[str, Any], samples: Sequence[tuple[Registered, rows.Scan]]) -> int:
    """Estimates the steps of the run, as if each row were a batch's."""
    most = int(values.get("max_steps") or 0)
    if most > 0:
        return most
    total = sum(seen.rows for _, seen in samples) * float(values.get("num_train_epochs", 3))
    batch = int(values.get("per_device_train_batch_size", 8))
    batch *= int(values.get("gradient_accumulation_steps", 1))
    return int(total / max(batch, 1)) + 1


def _is_this_run(values: Mapping[str, Any], config: Path) -> bool:
    """Says whether the output folder holds this very run, finished or not."""
    target = resolve(values["output_dir"])
    settled = decisive(values)
    try:
        inputs = digests(values, config)
    except MedqaError:  # told by the look at model and data
        return False
    done = provenance.is_current(target / RECORD, step="train", inputs=inputs, config=settled)
    return done or is_unfinished(target, inputs, settled)
