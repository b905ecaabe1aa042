"""Examinations: base and tuned model sit them, and their answers are compared in pairs."""

import hashlib
import importlib.metadata
import importlib.util
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from medqa import provenance
from medqa.compare import exams_report, sides
from medqa.compare.exams_papers import Paper, read_paper
from medqa.compare.exams_plan import EvaluatePlan, ExamTask
from medqa.compare.generate import SIDES, Pair
from medqa.compare.journal import Journal, open_journal
from medqa.config import load
from medqa.errors import MissingInputError
from medqa.files import atomic_file, atomic_folder, require_empty
from medqa.paths import resolve, shown
from medqa.progress import progress

RECORD = "report.json"
ANSWERS = "answers.jsonl"


def evaluate(config: str | Path, overrides: Sequence[str] = (), *, overwrite: bool = False) -> str:
    """Lets base and tuned model sit the examinations of an evaluate YAML.

    Writes ``answers.jsonl`` (every question with both choices) and, last, ``report.json``. What a
    killed run has answered is kept in a journal beside the folder and not asked again.

    Returns:
        The summary for the terminal.

    Raises:
        ConfigError: Everything that is wrong with the YAML or a task file.
        MissingInputError: A step that comes before has not been run, or lm-eval is not installed.
        DataError: A set's files are not what they must be, or a question is too long.
        TargetError: The output folder holds an evaluation of other inputs, or another process is
            writing it.
    """
    plan = load(config, overrides, EvaluatePlan)
    tasks = {name: load(resolve(exam.task), [], ExamTask) for name, exam in plan.sets.items()}
    papers = {name: read_paper(exam, tasks[name]) for name, exam in plan.sets.items()}
    inputs = _inputs(plan, papers)
    code = provenance.code(Path(__file__).parent)  # the reading of letters belongs to the result
    settings = plan.model_dump(exclude={"output_dir"}) | {"code": code}
    target = resolve(plan.output_dir)
    if provenance.is_current(target / RECORD, step="evaluate", inputs=inputs, config=settings):
        found = provenance.read(target / RECORD) or {}
        return f"{exams_report.summary(found, target)}\nup to date: {shown(target)}"
    _require_lm_eval()
    if not overwrite:
        require_empty(target)
    key = json.dumps([inputs, settings, provenance.versions()], sort_keys=True)
    digest = hashlib.sha256(key.encode()).hexdigest()
    with open_journal(target.with_name(f".{target.name}.journal"), digest) as journal:
        rows = _answers(plan, tasks, papers, journal)
        found = {"exams": exams_report.results(tasks, papers, rows)}
        with atomic_folder(target, overwrite=overwrite) as folder:
            with atomic_file(folder / ANSWERS) as out:
                for row in rows:
                    out.write((json.dumps(row, ensure_ascii=False) + "\n").encode())
            provenance.write(
                folder / RECORD,
                step="evaluate",
                inputs=inputs,
                config=settings,
                outputs=[folder / ANSWERS],
                lm_eval=importlib.metadata.version("lm-eval"),
                **found,
            )
        journal.remove()
    return exams_report.summary(found, target)


def _require_lm_eval() -> None:
    if importlib.util.find_spec("lm_eval") is None:
        raise MissingInputError(
            "lm-eval is not installed, and the examinations need it; "
            "run: uv pip install --constraints constraints.txt --editable '.[eval]'"
        )


def _inputs(plan: EvaluatePlan, papers: Mapping[str, Paper]) -> dict[str, str]:
    """Returns what decides the answers, with digests."""
    files = {resolve(exam.task) for exam in plan.sets.values()}
    files |= {file for paper in papers.values() for file in paper.files}
    models = sides.with_adapter(plan.model_name_or_path, plan.adapter_name_or_path)
    return models | provenance.digest(*sorted(files))


def _answers(
    plan: EvaluatePlan,
    tasks: Mapping[str, ExamTask],
    papers: Mapping[str, Paper],
    journal: Journal,
) -> list[dict[str, Any]]:
    """Returns the rows of ``answers.jsonl``, set by set, in the order of the files."""
    from medqa.compare.exams_model import Candidate, entry, lm_eval_task, requests

    logging.getLogger("lm_eval").setLevel(logging.ERROR)  # it warns of what is meant here
    documents = {name: [asdict(one) for one in paper.questions] for name, paper in papers.items()}
    rows = {
        name: [{"set": name} | {k: v for k, v in one.items() if k != "choices"} for one in held]
        for name, held in documents.items()
    }
    asked = {name: lm_eval_task(name, task, documents[name]) for name, task in tasks.items()}
    pair = Pair(plan.model_name_or_path, plan.adapter_name_or_path)
    count = sum(requests(task, documents[name]) for name, task in tasks.items())
    with progress("evaluate", len(SIDES) * count, "answers") as advance:
        candidate = Candidate(pair, plan.batch_size, journal, advance)
        # One side through all sets before the other: the Pair is quick then.
        for side in SIDES:
            for name, task in tasks.items():
                samples = candidate.sit(side, name, asked[name])
                for row, sample in zip(rows[name], samples, strict=True):
                    row |= entry(side, task, sample)
    return [row for name in tasks for row in rows[name]]
