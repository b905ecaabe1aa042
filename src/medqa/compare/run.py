"""The comparison: ask both, measure, write the report, say what came out."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medqa import provenance
from medqa.compare import report
from medqa.compare.generate import SIDES, Pair, Side
from medqa.compare.plan import ComparePlan, Probe, read_pairs, read_probes
from medqa.config import load
from medqa.errors import MissingInputError
from medqa.files import atomic_folder
from medqa.paths import resolve, shown
from medqa.progress import progress

RECORD = "report.json"


def compare(config: str | Path, overrides: Sequence[str] = (), *, overwrite: bool = False) -> str:
    """Compares base and tuned model as a compare YAML says.

    Writes ``answers.jsonl`` (every question with both answers), ``report.html`` and, last,
    ``report.json``.

    Returns:
        The summary for the terminal.

    Raises:
        ConfigError: Everything that is wrong with the YAML.
        MissingInputError: A step that comes before has not been run.
        DataError: A probe or test file is not what it must be.
        TargetError: The output folder holds a comparison of other inputs.
    """
    plan = load(config, overrides, ComparePlan)
    probes = {name: read_probes(path) for name, path in plan.probes.items()}
    pairs = read_pairs(plan.test_file, plan.test_rows)
    inputs = _inputs(plan)
    settings = plan.model_dump(exclude={"output_dir"})
    target = resolve(plan.output_dir)
    if provenance.is_current(target / RECORD, step="compare", inputs=inputs, config=settings):
        found = provenance.read(target / RECORD) or {}
        answers = _read_answers(target / report.ANSWERS)
        return f"{report.summary(found, answers, target)}\nup to date: {shown(target)}"
    with atomic_folder(target, overwrite=overwrite) as folder:
        answers, losses = _ask(plan, probes, pairs)
        found = {
            "facts": _facts(answers, probes),
            "test_loss": losses | {"rows": len(pairs)},
            "training": _training(plan),
        }
        report.write_answers(folder / report.ANSWERS, answers)
        curve = resolve(plan.adapter_name_or_path) / "training_loss.png"
        report.write_html(folder / report.HTML, found, answers, curve, inputs)
        provenance.write(
            folder / RECORD,
            step="compare",
            inputs=inputs,
            config=settings,
            outputs=[folder / report.ANSWERS, folder / report.HTML],
            **found,
        )
    return report.summary(found | {"config": settings}, answers, target)


def ask(config: str | Path, overrides: Sequence[str], questions: list[str]) -> str:
    """Returns both answers to `questions` as a table; writes nothing."""
    plan = load(config, overrides, ComparePlan)
    _models(plan)
    asked = plan.model_copy(update={"questions": questions})
    answers, _ = _ask(asked, {}, [])
    return report.side_by_side(answers)


def _inputs(plan: ComparePlan) -> dict[str, str]:
    model, weights = _models(plan)
    files = [weights, *(resolve(path) for path in (plan.test_file, *plan.probes.values()))]
    return provenance.model_digest(model) | provenance.digest(*files)


def _models(plan: ComparePlan) -> tuple[Path, Path]:
    """Returns the base's folder and the adapter's weights, or says which step is missing."""
    model, adapter = resolve(plan.model_name_or_path), resolve(plan.adapter_name_or_path)
    if not (model / "config.json").is_file():
        raise MissingInputError(
            f"model {shown(model)} does not exist; run: make model, or scripts/import_model.py"
        )
    weights = adapter / "adapter_model.safetensors"
    if not weights.is_file():
        raise MissingInputError(
            f"adapter {shown(adapter)} does not exist or is not finished; "
            "run: python scripts/train.py with its recipe"
        )
    provenance.require_same_base(adapter, model)
    return model, weights


def _ask(
    plan: ComparePlan, probes: dict[str, list[Probe]], pairs: list[tuple[str, str]]
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Returns one row a question with both answers, and the test loss of both sides."""
    rows: list[dict[str, Any]] = [
        {"set": "questions", "question": question} for question in plan.questions
    ]
    judges: list[Probe | None] = [None] * len(rows)
    for name, members in probes.items():
        for probe in members:
            rows.append({"set": name, "question": probe.question, "expect": probe.expect})
            judges.append(probe)
    both = Pair(plan.model_name_or_path, plan.adapter_name_or_path)
    questions = [row["question"] for row in rows]
    losses: dict[str, float] = {}
    with progress("compare", 2 * (len(rows) + len(pairs)), "answers") as advance:
        for side in SIDES:
            for batch in both.answers(
                side, questions, max_new_tokens=plan.max_new_tokens, batch_size=plan.batch_size
            ):
                for n, answer in batch:
                    _enter(rows[n], judges[n], side, answer)
                advance(len(batch))
            if pairs:
                losses[side] = both.loss(
                    side,
                    pairs,
                    cutoff_len=plan.cutoff_len,
                    batch_size=plan.batch_size,
                    advance=advance,
                )
    return rows, losses


def _enter(row: dict[str, Any], judge: Probe | None, side: Side, answer: str) -> None:
    row[side] = answer
    if judge:
        row[f"{side}_right"] = judge.passes(answer)


def _facts(
    answers: list[dict[str, Any]], probes: dict[str, list[Probe]]
) -> dict[str, dict[str, int]]:
    """Returns for each probe set how many were asked and answered rightly by each side."""
    return {
        name: {"asked": len(members)}
        | {
            side: sum(row[f"{side}_right"] for row in answers if row["set"] == name)
            for side in SIDES
        }
        for name, members in probes.items()
    }


def _training(plan: ComparePlan) -> dict[str, Any]:
    """Returns what the adapter's run recorded; nothing when it was trained without us."""
    run = provenance.read(resolve(plan.adapter_name_or_path) / "medqa_run.json") or {}
    return {key: run[key] for key in ("steps", "seconds_per_step", "train_loss") if key in run}


def _read_answers(path: Path) -> list[dict[str, Any]]:
    with path.open("rb") as lines:  # str.splitlines would also split at U+2028 in an answer
        return [json.loads(line) for line in lines]
