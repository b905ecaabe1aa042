"""What is taken out of a question before a rule looks at it."""

import re
from collections.abc import Mapping

from medqa.serve.guard_file import Denial, Past
from medqa.serve.guard_text import BREAKS, fold, one_of


class Eraser:
    """Blots out what a text denies, supposes, says in a manner of speaking, or tells as over."""

    def __init__(self, denial: Denial, past: Past, spelling: Mapping[str, str]) -> None:
        slips = {fold(slip): fold(meant) for slip, meant in spelling.items()}
        self._slips = slips
        self._spelling = re.compile(one_of(slips))
        symptoms, longer = one_of(denial.symptoms), one_of(denial.except_in)
        step = rf"(?:(?!{one_of(denial.ends)})[^{BREAKS}、 ]){{1,{denial.reach}}}"
        latin = r"(?: (?!and\b|but\b|or\b)[a-z0-9'-]+){1,4}(?: or(?: [a-z0-9'-]+){1,3})?"
        self._erased = re.compile(
            f"{one_of([*denial.sayings, *denial.denied])}"
            f"|{one_of(denial.so_much)}[^{BREAKS}]{{0,4}}?{one_of(denial.figures)}"
            # Atomic: 没有 before a symptom is not tried again as 没.
            f"|(?>{one_of(denial.words)})(?:(?={longer})|(?! ?{symptoms}))"
            rf"(?:(?<=[a-z]){latin}|{step}(?:(?:[、]|(?<=[和或及])){step})*)"
        )
        self._listed = re.compile(
            rf"(?<![^{BREAKS}])([^{BREAKS}]{{1,30}}?)(?:[都均也]没有?|[都均]无)(?=[{BREAKS}]|$)"
        )
        self._symptoms = re.compile(symptoms)
        self._clause = re.compile(f"[^{BREAKS}]+")
        self._times = re.compile(one_of(past.times))
        self._over = re.compile(f"(?<![没未]){one_of(past.over)}")
        self._again = re.compile(one_of(past.again))

    def erased(self, text: str) -> str:
        """Returns a question folded, blots in it."""
        folded = self._spelling.sub(lambda match: self._slips[match[0]], fold(text))
        if self._over.search(folded) and not self._again.search(folded):
            folded = self._clause.sub(self._blot_past, folded)
        folded = self._erased.sub(_blot, folded)
        return self._listed.sub(self._blot_list, folded)

    def _blot_past(self, match: re.Match[str]) -> str:
        return _blot(match) if self._times.search(match[0]) else match[0]

    def _blot_list(self, match: re.Match[str]) -> str:
        return match[0] if self._symptoms.search(match[1]) else _blot(match)


def _blot(match: re.Match[str]) -> str:
    return "□" * len(match[0])
