"""The comparison: ask both, measure, write the report, say what came out."""

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medqa import provenance
from medqa.compare import gate, measures, report, terminal
from medqa.compare.asked import Asked, all_asked
from medqa.compare.journal import Journal, open_journal
from medqa.compare.judge import Judge, estimate, judged, judgements
from medqa.compare.plan import ComparePlan, read_pairs
from medqa.compare.probes import ProbeSet, read_probes
from medqa.compare.responses import collected
from medqa.compare.rows import Row, predicted_rows, rows
from medqa.compare.sides import require_keys, who
from medqa.compare.verdict import verdict
from medqa.config import load
from medqa.errors import CheckFailedError, ConfigError
from medqa.files import atomic_folder, require_empty
from medqa.paths import resolve, shown
from medqa.progress import progress

RECORD = "report.json"
ROOM = Path(__file__).parent
# Modules that decide nothing, and modules that decide what an answer is worth, not what it is.
LOOKING = {"difference", "labels", "report", "terminal", "verdict"}
JUDGING = {
    *("claims", "faults", "gate", "lexicon", "lines", "measures", "metrics", "naming", "negation"),
    *("plan", "probes", "reading", "resampling", "rows", "run", "spelling", "stats"),
}
# What the sample's probe sets are called; a YAML of probes says it itself.
TITLES = {
    "medical": {"zh": "医学事实", "en": "medical facts"},
    "general": {"zh": "常识", "en": "general facts"},
}


@dataclass(frozen=True)
class Comparison:
    """What came out.

    Attributes:
        text: The summary for the terminal.
        failed: The conditions of the gate that do not hold, each with what was measured.
    """

    text: str
    failed: tuple[str, ...]

    def require_passed(self) -> None:
        """Raises CheckFailedError if the gate does not hold."""
        if self.failed:
            raise CheckFailedError(f"the gate fails: {'; '.join(self.failed)}")


def compare(
    config: str | Path, overrides: Sequence[str] = (), *, overwrite: bool = False
) -> Comparison:
    """Compares base and tuned model as a compare YAML says.

    Writes ``answers.jsonl`` (every question with both answers), ``report.html`` and, last,
    ``report.json``. Answers are kept in a journal beside the folder: a killed run goes on where
    it stopped, and another gate, judge or probe term does not ask the models again.

    Raises:
        ConfigError: Everything that is wrong with the YAML.
        MissingInputError: A step that comes before has not been run.
        DataError: A probe or test file is not what it must be.
        TargetError: The output folder holds a comparison of other inputs, or another process is
            writing it.
        UserError: An endpoint refuses a request.
        StepError: An endpoint fails still after all retries.
    """
    plan = load(config, overrides, ComparePlan)
    require_keys(plan)
    sets = [_named(read_probes(path), name) for name, path in plan.probes.items()]
    pairs = read_pairs(plan.test_file, plan.test_rows) if plan.test_file else []
    read = [resolve(path) for path in (plan.test_file, *plan.probes.values()) if path]
    files = who(plan) | provenance.digest(*read)
    # The code belongs to it: another rule for negation gives another result.
    settings = plan.model_dump(exclude={"output_dir"}) | {"code": provenance.code(ROOM, LOOKING)}
    target = resolve(plan.output_dir)
    if provenance.is_current(target / RECORD, step="compare", inputs=files, config=settings):
        found = provenance.read(target / RECORD) or {}
        answers = report.read_answers(target / report.ANSWERS)
        return _comparison(found, answers, target, last=f"up to date: {shown(target)}")
    if not overwrite:
        require_empty(target)
    asked = all_asked(plan, sets, pairs)
    measured = pairs if plan.way in ("adapter", "models") else []
    questions = [one.question for one in asked]
    answering = provenance.code(ROOM, JUDGING | LOOKING)
    key = _digest([who(plan), plan.answering, questions, measured, answering])
    with open_journal(target.with_name(f".{target.name}.journal"), key) as journal:
        if plan.predictions:
            answers = predicted_rows(plan.predictions)
        else:
            answers = rows(asked, measured, collected(plan, asked, measured, journal))
        judge = _judged(plan.judge, answers, journal) if plan.judge else None
    found = _found(plan, sets, answers, judge)
    record = {
        "inputs": files,
        "config": settings,
        "config_digest": _digest(settings),
        "versions": provenance.versions(),
    }
    with atomic_folder(target, overwrite=overwrite) as folder:
        report.write_answers(folder / report.ANSWERS, answers)
        curve = resolve(plan.adapter_name_or_path or "absent") / "training_loss.png"
        report.write_html(folder / report.HTML, found, answers, curve, record)
        provenance.write(
            folder / RECORD,
            step="compare",
            inputs=files,
            config=settings,
            outputs=[folder / report.ANSWERS, folder / report.HTML],
            **found,
        )
    return _comparison(found, answers, target)


def ask(config: str | Path, overrides: Sequence[str], questions: list[str]) -> str:
    """Returns both answers to `questions` as a table; keeps nothing."""
    plan = load(config, overrides, ComparePlan)
    if plan.predictions:
        raise ConfigError(shown(Path(config)), ["files of predictions answer no new question"])
    who(plan)
    require_keys(plan)
    asked = [Asked("questions", f"question_{n}", text) for n, text in enumerate(questions, 1)]
    with tempfile.TemporaryDirectory() as folder, open_journal(Path(folder) / "j", "") as journal:
        return terminal.side_by_side(rows(asked, [], collected(plan, asked, [], journal)))


def _named(one: ProbeSet, name: str) -> ProbeSet:
    """Returns the set under the name that the YAML gives it."""
    title = TITLES.get(name, one.title) if one.title["en"] == one.name else one.title
    return replace(one, name=name, title=title)


def _found(
    plan: ComparePlan, sets: Sequence[ProbeSet], answers: Sequence[Row], judge: Any
) -> dict[str, Any]:
    """Returns the facts of ``report.json``."""
    found: dict[str, Any] = {
        "metrics": measures.metric_table(answers),
        "probes": measures.probe_table(sets, answers),
        "judge": judge,
        "training": _training(plan),
        "definitions": measures.definitions(),
    }
    checks = gate.checks(plan.gate, found)
    return {
        "verdict": verdict(found, checks),
        "gate": [check._asdict() for check in checks],
        **found,
    }


def _judged(judge: Judge, answers: Sequence[Row], journal: Journal) -> dict[str, Any]:
    """Asks the judge about the test answers, having said what it will cost.

    Each row that was judged gets the outcome and what was said, as ``judgement``.
    """
    asked = [row for row in answers if row["set"] == "test" and "base" in row]
    cost = estimate(asked, judge, journal.kept("judge"))
    with progress(
        f"judge (at most some {cost.cost:.2f} {cost.currency})", cost.requests, "judgements"
    ) as advance:
        found = judged(asked, judge, journal, advance)
    for judgement in judgements(asked, judge, journal):
        asked[judgement.pop("row")]["judgement"] = judgement
    return found


def _training(plan: ComparePlan) -> dict[str, Any]:
    """Returns what the adapter's run recorded; nothing when it was trained without us."""
    if not plan.adapter_name_or_path:
        return {}
    run = provenance.read(resolve(plan.adapter_name_or_path) / "medqa_run.json") or {}
    return {key: run[key] for key in ("steps", "seconds_per_step", "train_loss") if key in run}


def _comparison(
    found: Mapping[str, Any], answers: list[Row], target: Path, last: str = ""
) -> Comparison:
    text = terminal.summary(found, answers, target)
    failed = tuple(
        f"{check['name']} (required: {check['required']}; measured: {check['measured']})"
        for check in found["gate"]
        if not check["passed"]
    )
    return Comparison(f"{text}\n{last}" if last else text, failed)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
