"""What base and tuned model say, and how likely they find the reference answers: collected."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from medqa.compare.asked import Asked
from medqa.compare.generate import SIDES, Answer, Side
from medqa.compare.journal import Journal
from medqa.compare.plan import ComparePlan
from medqa.compare.sides import opened
from medqa.progress import progress


@dataclass(frozen=True)
class Responses:
    """Answers and losses of both.

    Attributes:
        answers: Of each side, for every question in their order.
        losses: Of each side, for every test pair in their order: summed nats of its answer and how
            many tokens they are of; empty for endpoints, which do not say.
    """

    answers: Mapping[Side, Sequence[Answer]]
    losses: Mapping[Side, Sequence[tuple[float, int]]]


def collected(
    plan: ComparePlan,
    asked: Sequence[Asked],
    pairs: Sequence[tuple[str, str]],
    journal: Journal,
) -> Responses:
    """Asks for what the journal does not have yet; loads no model where it has everything.

    Args:
        plan: Who answers, and how.
        asked: The questions.
        pairs: Questions with the answers whose loss is measured.
        journal: Keeps every batch as it comes.

    Raises:
        UserError: An endpoint refuses a request.
        StepError: It fails still after all retries.
    """
    total = 2 * (len(asked) + len(pairs))
    done = sum(len(journal.kept(part)) for side in SIDES for part in _parts(side))
    with progress("compare", total, "answers") as advance:
        advance(done)
        if done < total:
            sides = opened(plan)
            questions = [one.question for one in asked]
            for side in SIDES:
                answers, losses = _parts(side)
                for said in sides.answers(
                    side,
                    questions,
                    max_new_tokens=plan.max_new_tokens,
                    batch_size=plan.batch_size,
                    kept=journal.kept(answers),
                ):
                    journal.add(answers, said)
                    advance(len(said))
                for nats in sides.losses(
                    side,
                    pairs,
                    cutoff_len=plan.cutoff_len,
                    batch_size=plan.batch_size,
                    kept=journal.kept(losses),
                ):
                    journal.add(losses, [(n, (sum_, count)) for n, sum_, count in nats])
                    advance(len(nats))
    kept = {side: [journal.kept(part) for part in _parts(side)] for side in SIDES}
    return Responses(
        {side: [Answer(*kept[side][0][n]) for n in range(len(asked))] for side in SIDES},
        {side: [_nats(*kept[side][1][n]) for n in range(len(pairs))] for side in SIDES},
    )


def _nats(summed: float, tokens: int) -> tuple[float, int]:
    return summed, tokens


def _parts(side: Side) -> tuple[str, str]:
    """Returns the names of a side's two parts of the journal."""
    return f"{side} answers", f"{side} losses"
