"""Counters, histograms and gauges for Prometheus."""

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from medqa.serve.journal import Entry
from medqa.serve.traffic import Traffic

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
_FIRST_TOKEN = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_ANSWER = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160)


class Metrics:
    """The numbers of one server, in a registry of their own.

    Args:
        traffic: What is under way, read when the numbers are asked for.
        generating: How many answers the engine itself is at: above ``medqa_running`` for long, it
            generates what nobody waits for.
    """

    def __init__(self, traffic: Traffic, generating: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "medqa_requests_total",
            "Requests that have ended",
            ["path", "status", "side"],
            registry=self.registry,
        )
        self._notices = Counter(
            "medqa_notices_total",
            "Notices put before or after an answer",
            ["rule"],
            registry=self.registry,
        )
        self._prompt = Counter(
            "medqa_prompt_tokens_total", "Tokens read", ["side"], registry=self.registry
        )
        self._said = Counter(
            "medqa_completion_tokens_total", "Tokens written", ["side"], registry=self.registry
        )
        self._first = Histogram(
            "medqa_first_token_seconds",
            "From request to the model's first words",
            ["side"],
            buckets=_FIRST_TOKEN,
            registry=self.registry,
        )
        self._answer = Histogram(
            "medqa_answer_seconds",
            "From request to the end of a whole answer",
            ["side"],
            buckets=_ANSWER,
            registry=self.registry,
        )
        gauges: dict[str, tuple[str, Callable[[], int]]] = {
            "medqa_running": ("Answers under way", lambda: traffic.running),
            "medqa_waiting": ("Requests in the queue", lambda: traffic.waiting),
            "medqa_generating": ("Answers that the engine is at", generating),
        }
        for name, (told, count) in gauges.items():
            Gauge(name, told, registry=self.registry).set_function(count)
        ProcessCollector(registry=self.registry)

    def add(self, entry: Entry) -> None:
        """Counts a request that has ended."""
        side = entry.side or ""
        self._requests.labels(entry.path or "", str(entry.status), side).inc()
        for rule in entry.notices:
            self._notices.labels(rule).inc()
        if entry.prompt_tokens:
            self._prompt.labels(side).inc(entry.prompt_tokens)
        if entry.completion_tokens:
            self._said.labels(side).inc(entry.completion_tokens)
        if entry.first_token is not None:
            self._first.labels(side).observe(entry.first_token)
        if entry.completion_tokens and entry.status == 200 and not entry.error:
            self._answer.labels(side).observe(entry.seconds)

    def text(self) -> bytes:
        """Returns Prometheus' text format."""
        return generate_latest(self.registry)
