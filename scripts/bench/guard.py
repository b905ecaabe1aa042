"""How many emergencies the guard misses, and how often it speaks without one.

    python scripts/bench/guard.py                             # the unseen sentences, then the seen
    python scripts/bench/guard.py --rows ../huatuo/test.jsonl # real questions: what speaks, by rule
    python scripts/bench/guard.py --question 胸口疼出冷汗       # what it says to one
    python scripts/bench/guard.py --fit ../huatuo/test.jsonl  # writes configs/guard/signs.json anew

The rates are printed with Wilson's 95 % intervals, every missed emergency and every false alarm in
full, and the time a question takes. In tests/serve/guard, unseen.yaml is by authors who saw no
rule, earlier.yaml by the rules' own, and dev.yaml is what they were written on. Exits with 1 when
the promise does not hold on the unseen.
"""

import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medqa import cli
from medqa.errors import CheckFailedError, MissingInputError
from medqa.paths import resolve

if TYPE_CHECKING:
    from medqa.serve.guard import Guard

RULES = "configs/guard/guard.yaml"
SENTENCES = {name: f"tests/serve/guard/{name}.yaml" for name in ("unseen", "earlier", "dev")}
SIGNS = "configs/guard/signs.json"
LEAST_POINTS = 0.05
STRENGTH = 4.0  # inverse of the penalty; chosen by leaving out one author at a time

# The promises.
RECALL, FALSE_ALARMS = 0.98, 0.05


def rules(guard: "Guard", chat: str | list[str]) -> list[str]:
    """Returns the emergency rules that speak on a message or a chat."""
    questions = [chat] if isinstance(chat, str) else chat
    return [notice.rule for notice in guard.notices(questions).before]


def rate(name: str, hits: int, of: int) -> str:
    """Returns a rate with its interval as a line."""
    from scipy.stats import binomtest

    low, high = binomtest(hits, of).proportion_ci(method="wilson")
    return f"  {name:13} {hits:4} of {of:4}  {hits / of:.3f}  (95 %: {low:.3f} to {high:.3f})"


def measure(guard: "Guard", name: str) -> tuple[float, float]:
    """Prints and returns recall and false alarms on one file of sentences."""
    import yaml

    sentences = yaml.safe_load(resolve(SENTENCES[name]).read_text(encoding="utf-8"))
    missed = [chat for chat in sentences["emergency"] if not rules(guard, chat)]
    alarms = [(chat, found) for chat in sentences["ordinary"] if (found := rules(guard, chat))]
    emergencies, ordinary = len(sentences["emergency"]), len(sentences["ordinary"])
    print(f"{name}: {SENTENCES[name]}")
    print(rate("recall", emergencies - len(missed), emergencies))
    print(rate("false alarms", len(alarms), ordinary))
    for chat in missed:
        print(f"  missed       {chat}")
    for chat, found in alarms:
        print(f"  false alarm  {chat}  [{', '.join(found)}]")
    return 1 - len(missed) / emergencies, len(alarms) / ordinary


def asked(file: Path) -> Iterator[str]:
    """Yields the questions of JSON lines, in any schema of Huatuo-26M."""
    if not file.is_file():
        raise MissingInputError(f"{file} does not exist; expected JSON lines with questions")
    for line in file.read_text(encoding="utf-8").splitlines():
        row: dict[str, Any] = json.loads(line)
        question = row.get("questions") or row.get("question") or ""
        while isinstance(question, list):
            question = question[0]
        yield question


def fit(file: Path) -> None:
    """Fits the signs to dev.yaml, and to those real questions on which no rule speaks.

    A real question counts a tenth of an authored one: some are emergencies that no rule found.
    """
    import yaml
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression

    from medqa import config
    from medqa.files import atomic_file
    from medqa.serve.guard import Guard
    from medqa.serve.guard_eraser import Eraser
    from medqa.serve.guard_file import GuardFile
    from medqa.serve.guard_signs import LONGEST, signs_of

    values = config.load(RULES, (), GuardFile)
    guard, erased = Guard(values, None), Eraser(values.denial, values.past, values.spelling).erased
    sentences = yaml.safe_load(resolve(SENTENCES["dev"]).read_text(encoding="utf-8"))
    emergency, ordinary = (
        [erased(chat if isinstance(chat, str) else chat[-1]) for chat in sentences[kind]]
        for kind in ("emergency", "ordinary")
    )
    real = [erased(q) for q in asked(file) if len(q) <= LONGEST and not rules(guard, q)]
    weights = [1.5] * len(emergency) + [1.0] * len(ordinary) + [0.1] * len(real)
    urgent = [1] * len(emergency) + [0] * (len(ordinary) + len(real))
    signs = CountVectorizer(analyzer=signs_of, min_df=2)
    seen = signs.fit_transform([*emergency, *ordinary, *real])
    fitted = LogisticRegression(C=STRENGTH, max_iter=500).fit(seen, urgent, sample_weight=weights)
    found = zip(signs.get_feature_names_out(), fitted.coef_[0], strict=True)
    points = {sign: round(float(value), 2) for sign, value in sorted(found)}
    points = {sign: value for sign, value in points.items() if abs(value) >= LEAST_POINTS}
    table = {"base": round(float(fitted.intercept_[0]), 2), "points": points}
    text = json.dumps(table, ensure_ascii=False, indent=0)
    with atomic_file(resolve(SIGNS)) as file_out:
        file_out.write(text.encode() + b"\n")
    print(f"{SIGNS}: {len(points)} signs from {len(urgent)} questions")


def speak_on(guard: "Guard", file: Path) -> None:
    """Prints which real questions get a notice; one JSON row a line, as Huatuo-26M has them."""
    counted: Counter[str] = Counter()
    total = spoken = 0
    for question in asked(file):
        total += 1
        if found := rules(guard, question):
            spoken += 1
            counted.update(found)
            print(f"  {', '.join(found)}: {' '.join(question.split())}")
    print(rate("speaks", spoken, total))
    print("  " + ", ".join(f"{name} {count}" for name, count in counted.most_common()))


def milliseconds(guard: "Guard", question: str, times: int) -> float:
    """Returns the time of one question, the best of `times`."""
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        guard.notices([question])
        taken.append(time.perf_counter() - started)
    return min(taken) * 1e3


def main(argv: Sequence[str] | None = None) -> None:
    """Measures, prints, judges."""
    parser = cli.parser(__doc__)
    parser.add_argument("--question", metavar="TEXT", help="only show what is said to this")
    parser.add_argument("--fit", metavar="FILE", type=Path, help="fit the signs, with these rows")
    parser.add_argument("--rows", metavar="FILE", type=Path, help="only look at real questions")
    given = parser.parse_args(argv)
    from medqa.serve.guard import Guard

    if given.fit:
        fit(given.fit)
        return
    guard = Guard.load(RULES)
    if given.question:
        found = guard.notices([given.question])
        for notice in (*found.before, *found.after):
            print(f"{notice.part} ({notice.rule}): {notice.text}")
    elif given.rows:
        speak_on(guard, given.rows)
    else:
        recall, alarms = measure(guard, "unseen")
        measure(guard, "earlier")
        measure(guard, "dev")
        short, long = (
            "我爸突然胸口压榨样疼，还出冷汗，怎么办",
            "没有发烧，胸口有点疼，咳嗽三天了。" * 588,
        )
        print(f"a question takes {milliseconds(guard, short, 50):.2f} ms, ", end="")
        print(f"one of {len(long):,} characters {milliseconds(guard, long, 3):.1f} ms")
        if recall < RECALL or alarms > FALSE_ALARMS:
            raise CheckFailedError(f"promised: recall {RECALL}, false alarms {FALSE_ALARMS}")


if __name__ == "__main__":
    cli.run(main)
