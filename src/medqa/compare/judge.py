"""A model as judge: which of two answers is better, in both orders, not told whose they are."""

from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from medqa.compare.endpoint import Endpoint, rough_tokens
from medqa.compare.journal import Journal
from medqa.compare.judge_prompt import digest, messages, verdict
from medqa.compare.replies import replies
from medqa.compare.stats import share
from medqa.config import Strict

PART = "judge"  # of the journal

Row = Mapping[str, Any]
Outcome = Literal["win", "tie", "loss", "disagreed", "unparsed", "identical"]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Price(Strict):
    """What the endpoint charges for a million tokens.

    Attributes:
        input: Of what is sent.
        output: Of what it writes.
        currency: Of both, for example CNY.
    """

    input: Amount
    output: Amount
    currency: Annotated[str, Field(min_length=1)]


class Judge(Strict):
    """Who judges, and how many rows.

    Attributes:
        endpoint: The model that is asked.
        price: What it costs.
        rows: At most so many rows are judged, chosen by the seed.
        seed: Chooses the rows, and for each which answer is A in the first of its two requests.
        max_new_tokens: Longest judgement, in tokens; one that is cut is not counted.
    """

    endpoint: Endpoint
    price: Price
    rows: Annotated[int, Field(ge=1)]
    seed: int = 0
    max_new_tokens: Annotated[int, Field(ge=1)] = 512


@dataclass(frozen=True)
class Estimate:
    """What judging will cost at most, roughly.

    What is sent is counted by `rough_tokens`, each judgement as long as it may be, and no request
    as sent twice.
    """

    requests: int
    input_tokens: int
    output_tokens: int
    cost: float
    currency: str


@dataclass(frozen=True)
class _Request:
    """One question to the judge; `tuned` says which of A and B is the tuned model's answer."""

    row: int
    tuned: Literal["A", "B"]
    body: dict[str, Any]
    digest: str


def estimate(rows: Sequence[Row], judge: Judge, kept: Container[int | str] = ()) -> Estimate:
    """Returns what it will cost to judge `rows`.

    Args:
        rows: As for `judged`.
        judge: Who is asked.
        kept: What a journal has already: ``journal.kept(PART)``.
    """
    asked = _missing(rows, judge, kept).values()
    sent = sum(map(_rough_input, asked))
    written = sum(
        int(body.get("max_completion_tokens") or body.get("max_tokens") or judge.max_new_tokens)
        for body in asked
    )
    cost = _cost(judge.price, sent, written)
    return Estimate(len(asked), sent, written, cost, judge.price.currency)


def judged(
    rows: Sequence[Row], judge: Judge, journal: Journal, advance: Callable[[int], None]
) -> dict[str, Any]:
    """Asks the judge about `rows`, each in both orders, and counts from the tuned model's side.

    A row is won or lost only when both orders say so. Equal answers tie without a request. A
    judgement whose last line is no verdict is counted as unparsed, never guessed.

    Args:
        rows: Mappings with the strings ``question``, ``base``, ``tuned`` and, where there is one,
            ``reference``. Nothing else of them is sent.
        judge: Who is asked.
        journal: Keeps each judgement by the digest of its request.
        advance: Called with the number of judgements that came in.

    Returns:
        ``asked`` rows = ``wins`` + ``ties`` + ``losses`` + ``unparsed``; among the ties are those
        ``identical`` and those ``disagreed``, where the two orders contradict each other;
        ``p_value`` of the exact sign test of wins and losses; ``agreement``, the share of rows with
        two verdicts that agree (None of no rows), with Wilson's 95 % interval; ``requests``,
        ``input_tokens``, ``output_tokens``, ``cost``, ``currency``, and whether the endpoint
        counted all tokens itself, ``counted_by_endpoint``.

    Raises:
        ConfigError: The endpoint's key is not there.
        UserError: The endpoint refuses a request.
        StepError: It fails still after all retries. What it said before is in the journal.
    """
    missing = _missing(rows, judge, journal.kept(PART))
    for batch in replies(judge.endpoint, missing.items()):
        journal.add(PART, [(name, asdict(reply)) for name, reply in batch])
        advance(len(batch))
    outcomes = [one["outcome"] for one in judgements(rows, judge, journal)]
    return _counted(outcomes) | _paid(_requests(rows, judge), judge.price, journal.kept(PART))


def judgements(rows: Sequence[Row], judge: Judge, journal: Journal) -> list[dict[str, Any]]:
    """Returns for each judged row its index, its outcome, and what was said in both orders.

    Asks nothing: for after `judged`.
    """
    said: dict[int, list[dict[str, Any]]] = {n: [] for n in _chosen(rows, judge)}
    for request in _requests(rows, judge):
        reply = journal.kept(PART)[request.digest]
        found = verdict(reply["text"]) if reply["finished"] else None
        said[request.row].append({"tuned": request.tuned, "verdict": found, "text": reply["text"]})
    return [{"row": n, "outcome": _outcome(both), "said": both} for n, both in said.items()]


def _chosen(rows: Sequence[Row], judge: Judge) -> list[int]:
    """Returns the indices of the rows to judge, in their own order."""
    by_seed = sorted(range(len(rows)), key=lambda n: digest(judge.seed, n, rows[n]["question"]))
    return sorted(by_seed[: judge.rows])


def _requests(rows: Sequence[Row], judge: Judge) -> list[_Request]:
    """Returns two requests for each chosen row whose answers differ."""
    found = []
    for n in _chosen(rows, judge):
        row = rows[n]
        if row["base"].strip() == row["tuned"].strip():
            continue
        orders: list[Literal["A", "B"]] = ["A", "B"]
        if int(digest("order", judge.seed, n, row["question"]), 16) % 2:
            orders.reverse()
        for tuned in orders:
            a, b = (row["tuned"], row["base"]) if tuned == "A" else (row["base"], row["tuned"])
            body = judge.endpoint.body(
                messages(row["question"], row.get("reference"), a, b), judge.max_new_tokens
            )
            found.append(_Request(n, tuned, body, digest(judge.endpoint.base_url, body)))
    return found


def _missing(
    rows: Sequence[Row], judge: Judge, kept: Container[int | str]
) -> dict[str, dict[str, Any]]:
    """Returns digest and body of the requests that are still to be sent."""
    return {one.digest: one.body for one in _requests(rows, judge) if one.digest not in kept}


def _outcome(said: Sequence[Mapping[str, Any]]) -> Outcome:
    if not said:
        return "identical"
    if any(one["verdict"] is None for one in said):
        return "unparsed"
    outcomes: set[Outcome] = {
        "tie" if one["verdict"] == "tie" else "win" if one["verdict"] == one["tuned"] else "loss"
        for one in said
    }
    return outcomes.pop() if len(outcomes) == 1 else "disagreed"


def _counted(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    from scipy.stats import binomtest

    n = Counter(outcomes)
    decided = n["win"] + n["loss"]
    agreed = decided + n["tie"]
    both = agreed + n["disagreed"]
    low, high = share(agreed, both)
    return {
        "asked": len(outcomes),
        "identical": n["identical"],
        "wins": n["win"],
        "ties": n["tie"] + n["disagreed"] + n["identical"],
        "losses": n["loss"],
        "disagreed": n["disagreed"],
        "unparsed": n["unparsed"],
        "p_value": float(binomtest(n["win"], decided).pvalue) if decided else 1.0,
        "agreement": agreed / both if both else None,
        "agreement_low": low,
        "agreement_high": high,
    }


def _paid(requests: Sequence[_Request], price: Price, kept: Mapping[Any, Any]) -> dict[str, Any]:
    """Returns what the judgements cost; attempts that failed are not in it."""
    sent = written = 0
    counted = True
    bodies = {one.digest: one.body for one in requests}
    for name, body in bodies.items():
        reply = kept[name]
        read, wrote = reply["input_tokens"], reply["output_tokens"]
        counted = counted and read is not None and wrote is not None
        sent += _rough_input(body) if read is None else read
        written += rough_tokens(reply["text"]) if wrote is None else wrote
    return {
        "requests": len(bodies),
        "input_tokens": sent,
        "output_tokens": written,
        "cost": _cost(price, sent, written),
        "currency": price.currency,
        "counted_by_endpoint": counted,
    }


def _rough_input(body: Mapping[str, Any]) -> int:
    # 4 for a message's role and ends.
    return sum(rough_tokens(message["content"]) + 4 for message in body["messages"])


def _cost(price: Price, sent: int, written: int) -> float:
    return (sent * price.input + written * price.output) / 1e6
