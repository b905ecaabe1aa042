"""What a comparison asks: free questions, probes, and held-out test questions, in one list."""

from collections.abc import Sequence
from dataclasses import dataclass

from medqa.compare.plan import ComparePlan
from medqa.compare.probes import Probe, ProbeSet


@dataclass(frozen=True)
class Asked:
    """One question.

    Attributes:
        set: ``questions``, ``test``, or the name of the probe set.
        id: Unique within the set.
        question: What is asked.
        reference: The answer to be, or why a probe's answer is right; None for free questions.
        probe: Checks the answers; None where nothing is checked.
    """

    set: str
    id: str
    question: str
    reference: str | None = None
    probe: Probe | None = None


def all_asked(
    plan: ComparePlan, sets: Sequence[ProbeSet], pairs: Sequence[tuple[str, str]]
) -> list[Asked]:
    """Returns every question of `plan`: the free ones, the probes, then the test questions."""
    return [
        *(Asked("questions", f"question_{n}", text) for n, text in enumerate(plan.questions, 1)),
        *(
            Asked(one.name, probe.id, probe.question, _expected(probe), probe)
            for one in sets
            for probe in one.probes
        ),
        *(
            Asked("test", f"test_{n}", question, reference)
            for n, (question, reference) in enumerate(pairs[: plan.answer_rows], 1)
        ),
    ]


def _expected(probe: Probe) -> str:
    return probe.reason or "，".join(term.text for term in probe.must_all)
