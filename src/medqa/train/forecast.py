"""What a recipe will take: memory on the card, settings that fit it, hours for an epoch."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medqa.config import load_llamafactory, read_yaml
from medqa.errors import CheckpointError, ConfigError, DataError, MissingInputError
from medqa.model.budget import (
    CHATGLM3_6B,
    CONTEXT,
    FRAGMENTATION,
    GIB,
    Peak,
    Shape,
    flops_per_token,
    method,
    peaks,
)
from medqa.model.budget_choice import Choice, fastest, fits, nearest
from medqa.paths import config_file, resolve, shown
from medqa.train.forecast_text import span, table
from medqa.train.lengths import Lengths, lengths

USABLE = 22 / 24
"""Of a card's memory, by its name: the rest is the driver's, the desktop's, or never there."""

RTX_4090 = 165.0
"""Dense bfloat16 TFLOPS with float32 sums, by NVIDIA's data sheet of the Ada architecture."""


_PREFIX = "PREFIX_TUNING"
_VIRTUAL_TOKENS = 128  # scripts/begin_prefix.py's default


@dataclass(frozen=True)
class Card:
    """What is assumed of the card.

    Attributes:
        memory: As its maker calls it, in GB; `USABLE` of it in GiB is counted on.
        tflops: Its peak, dense, in the type that is computed in.
        mfu: The share of the peak that training reaches; all operations count, those that
            checkpointing repeats too.
        count: Cards that train together.
    """

    memory: float
    tflops: float = RTX_4090
    mfu: float = 0.45
    count: int = 1

    @property
    def usable(self) -> int:
        """Bytes that are counted on."""
        return int(self.memory * USABLE * GIB)


@dataclass(frozen=True)
class _Plan:
    """A recipe and the files that it stands among."""

    values: Mapping[str, Any]
    shape: Shape
    known: Mapping[str, Any]
    notes: Sequence[str]

    @property
    def prefix(self) -> bool:
        """The recipe is prefix tuning."""
        return (self.known.get("adapter") or {}).get("peft_type") == _PREFIX

    def predict(self, values: Mapping[str, Any]) -> dict[str, Peak]:
        return peaks(values, self.shape, **self.known)


def forecast(config: str | Path, overrides: Sequence[str], card: Card) -> str:
    """Predicts memory and time of a training recipe; nothing heavy is imported.

    Args:
        config: A training YAML of LLaMA-Factory; ``compare.yaml`` and ``export.yaml`` beside it
            say how its result is used.
        overrides: ``key=value`` replacements.
        card: What it is to run on.

    Returns:
        Some lines for the terminal.

    Raises:
        ConfigError: Everything that is wrong with a YAML, or with `card`.
        MissingInputError: The model is not there, and none whose shape is known.
        CheckpointError: Its ``config.json`` is no native GLM's.
    """
    file = config_file(config)
    _require(card)
    plan = _plan(load_llamafactory(config, overrides, "train"), file, card)
    counted, said = _counted(plan.values)
    values = _shortened(plan.values, counted)
    found = plan.predict(values)
    lines = [
        f"{shown(file)} on a card of {card.memory:g} GB, counted on: {card.usable / GIB:.1f} GiB",
        *plan.notes,
        *_recast(plan, found["train"]),
        "",
        *table(found, card.usable),
        "",
        f"CUDA is an assumption: {CONTEXT / GIB:.2f} GiB for driver and kernels, and "
        f"{FRAGMENTATION:.0%} of what comes and goes for fragmentation.",
        "",
        *_proposals(plan, values, found, card),
        "",
        *_time(values, plan.shape, card, counted, said),
    ]
    return "\n".join(lines)


def _require(card: Card) -> None:
    problems = [
        f"{name}: expected more than 0, found {value:g}"
        for name, value in (
            ("--gpu-memory", card.memory),
            ("--tflops", card.tflops),
            ("--mfu", card.mfu),
            ("--cards", card.count),
        )
        if value <= 0
    ]
    if card.mfu > 1:
        problems.append(f"--mfu: expected a share of at most 1, found {card.mfu:g}")
    if problems:
        raise ConfigError("command line", problems)


def _plan(values: Mapping[str, Any], file: Path, card: Card) -> _Plan:
    if not values.get("model_name_or_path"):
        raise ConfigError(shown(file), ["missing key 'model_name_or_path'"])
    shape, notes = _shape(resolve(values["model_name_or_path"]))
    known: dict[str, Any] = {"cards": card.count}
    if given := values.get("adapter_name_or_path"):
        known["adapter"] = _json(resolve(str(given)) / "adapter_config.json")
        if known["adapter"] is None and "prefix" in Path(str(given)).parts:
            known["adapter"] = {"peft_type": _PREFIX, "num_virtual_tokens": _VIRTUAL_TOKENS}
            notes = [
                *notes,
                f"{given} is not there yet: taken for {_VIRTUAL_TOKENS} virtual tokens",
            ]
        if known["adapter"] is None:
            notes = [*notes, f"{given} is not there yet: counted as LoRA of the recipe's rank"]
    if given := values.get("deepspeed"):
        known["deepspeed"] = given if isinstance(given, dict) else _json(resolve(given))
        if known["deepspeed"] is None:
            raise MissingInputError(f"deepspeed: expected a JSON file at {given}, found none")
        notes = [*notes, f"ZeRO divides memory among {card.count} cards (--cards)"]
    for name in ("compare", "export"):
        neighbour = file.with_name(f"{name}.yaml")
        if neighbour.is_file():
            known[name] = read_yaml(neighbour)
    return _Plan(values, shape, known, notes)


def _recast(plan: _Plan, train: Peak) -> Iterator[str]:
    """Yields a line where autocast makes a second copy of the weights, and keeps it."""
    how = method(plan.values, plan.shape, plan.known.get("adapter"))
    if not how.recast or "deepspeed" in plan.known:
        return
    same = replace(plan, shape=replace(plan.shape, dtype=how.compute)).predict(plan.values)["train"]
    yield (
        f"The weights stay {how.weights} where {how.compute} is computed in, so cast copies are "
        f"kept: training takes {train.total / GIB:.1f} GiB, and {same.total / GIB:.1f} with a "
        f"model imported in {how.compute} (scripts/import_model.py --dtype)."
    )


def _shape(folder: Path) -> tuple[Shape, list[str]]:
    """Returns the model's shape and where it was taken from."""
    config = _json(folder / "config.json")
    if config is None:
        if not folder.name.startswith("chatglm3-6b"):
            raise MissingInputError(
                f"expected a model at {shown(folder)}, found no config.json; run: make model, or "
                "make demo for the tiny one"
            )
        note = f"{shown(folder)} is not there: ChatGLM3-6B's published shape is taken, in bfloat16"
        return CHATGLM3_6B, [note]
    try:
        shape = Shape.of(config)
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            f"{shown(folder)}/config.json: expected a native GLM's sizes, found none of {error}; "
            f"run: python scripts/import_model.py SOURCE {shown(folder)}"
        ) from None
    return shape, [
        f"{shown(folder)}: {shape.parameters / 1e6:,.4g} million parameters, {shape.dtype}"
    ]


def _json(file: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except OSError:
        return None
    except ValueError as error:
        raise CheckpointError(f"{shown(file)} is not JSON ({error})") from None
    return found if isinstance(found, dict) else None


def _counted(values: Mapping[str, Any]) -> tuple[Lengths | None, str]:
    """Returns the lengths of the recipe's rows, or why they are not known."""
    try:
        return lengths(values), ""
    except (MissingInputError, DataError, ConfigError) as error:
        return None, str(error)


def _shortened(values: Mapping[str, Any], counted: Lengths | None) -> Mapping[str, Any]:
    """Returns `values` with cutoff_len at the longest batch that can come, where that is known."""
    packed = values.get("packing") or values.get("neat_packing") or values.get("stage") == "pt"
    if packed or counted is None or counted.sampled < counted.rows:
        return values
    longest = -(-counted.longest // 8) * 8  # LLaMA-Factory pads to a multiple of 8
    return {**values, "cutoff_len": min(int(values.get("cutoff_len", 2048)), longest)}


def _proposals(
    plan: _Plan, values: Mapping[str, Any], found: Mapping[str, Peak], card: Card
) -> Iterator[str]:
    """Yields the nearest setting that fits, the fastest one, and what to change elsewhere."""
    quickest = fastest(values, plan.shape, plan.predict, card.usable, prefix=plan.prefix)
    flops = flops_per_token(values, plan.shape)
    if fits(found, card.usable):
        if quickest is None or not quickest.changes:
            yield "It fits, and no setting with rows of this length that fits takes fewer FLOPs."
        elif quickest.flops < flops:
            yield f"It fits. Fastest that fits: {_told(quickest, flops)}"
        else:
            yield f"It fits. As few FLOPs with larger batches: {_told(quickest, flops)}"
    else:
        close = nearest(values, plan.shape, plan.predict, card.usable, prefix=plan.prefix)
        if close is None:
            yield "It does not fit, nor does any batch, checkpointing, row length or 4-bit base."
        else:
            yield f"It does not fit. Nearest that does: {_told(close, flops)}"
            if quickest and quickest.changes != close.changes:
                yield f"Fastest that fits at this row length: {_told(quickest, flops)}"
    if found["compare"].total > card.usable:
        yield from _smaller_comparison(plan, card)


def _smaller_comparison(plan: _Plan, card: Card) -> Iterator[str]:
    size = int(plan.known.get("compare", {}).get("batch_size", 8))
    while size > 1:
        size //= 2
        compare = plan.known.get("compare", {}) | {"batch_size": size}
        peak = replace(plan, known={**plan.known, "compare": compare}).predict(plan.values)[
            "compare"
        ]
        if peak.total <= card.usable:
            yield f"compare.yaml fits with batch_size={size}: {peak.total / GIB:.1f} GiB"
            return
    yield "compare.yaml fits with no batch_size: take a larger card"


def _told(choice: Choice, flops: float) -> str:
    highest = max(choice.peaks[n].total for n in ("train", "evaluate") if n in choice.peaks)
    speed = f", {choice.flops / flops:.2f} of the FLOPs a token" if choice.flops != flops else ""
    return f"{choice} ({highest / GIB:.1f} GiB{speed})"


def _time(
    values: Mapping[str, Any], shape: Shape, card: Card, counted: Lengths | None, said: str
) -> Iterator[str]:
    flops = flops_per_token(values, shape)
    speed = card.tflops * 1e12 * card.mfu * card.count
    yield (
        f"{flops / 1e9:.3g} GFLOPs a token ({flops / shape.parameters:.2f} a parameter) at "
        f"{card.mfu:.0%} of {card.tflops:g} TFLOPS"
        + (f" on each of {card.count} cards" if card.count > 1 else "")
        + f": {speed / flops:,.0f} tokens a second, {span(1e6 * flops / speed)} for a million."
    )
    if counted is None:
        yield f"The data was not counted, so no time for an epoch: {said}"
        return
    about = "" if counted.sampled == counted.rows else f", from {counted.sampled:,} of them"
    epochs = float(values.get("num_train_epochs") or 3)
    once = counted.computed * flops / speed
    yield (
        f"{counted.rows:,} rows, {counted.tokens:,} tokens{about}; with padding "
        f"{counted.computed:,} are computed: {span(once)} an epoch, {span(once * epochs)} for "
        f"{epochs:g}, without evaluations."
    )
