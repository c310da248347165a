"""What a server did, as Prometheus reads it; few series, whatever callers send.

No text, key or path of a caller is ever a label: doors, statuses, error types and the package's own
labels (the first 50) are all there is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from serving.answer_mix import AnswerMix
from serving.core import Answered
from serving.errors import ServingError
from serving.operations import Operations
from serving.package import Package
from serving.request import Request

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10)
_TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
# A series each for when a series began: nobody asks, and they are as many again.
disable_created_metrics()
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Of one server process. operations, batch_sizes: live numbers, read when somebody asks.

    A series is looked up once and then kept: to find it by its labels takes longer than to count.
    """

    def __init__(
        self,
        package: Package,
        operations: Callable[[], Mapping[str, float]],
        batch_sizes: Callable[[], Sequence[int]] = tuple,
    ) -> None:
        self.registry = registry = CollectorRegistry()
        about = Info("miniml_package", "What is served.", registry=registry)
        about.info({"name": package.config.name, "digest": package.digest})
        self._requests = Counter(
            "miniml_requests", "Requests by outcome.", ["door", "status"], registry=registry
        )
        self._refused = Counter(
            "miniml_refused", "Requests not answered, by why.", ["door", "type"], registry=registry
        )
        self._seconds = Histogram(
            *("miniml_request_seconds", "From the first byte read to the answer.", ["door"]),
            buckets=_SECONDS,
            registry=registry,
        )
        stages = Histogram(
            *("miniml_stage_seconds", "Where the time of answered requests went.", ["stage"]),
            buckets=_SECONDS,
            registry=registry,
        )
        self._tokenize, self._queue, self._infer = map(
            stages.labels, ("tokenize", "queue", "infer")
        )
        self._texts = Histogram(
            "miniml_request_texts", "Texts in a request.", buckets=_TEXTS, registry=registry
        )
        self._by_door: dict[str, tuple[Counter, Histogram]] = {}
        self._by_refusal: dict[tuple[str, type[ServingError]], tuple[Counter, Counter]] = {}
        self._mix = AnswerMix(package)
        registry.register(self._mix)
        registry.register(Operations(operations, batch_sizes))
        ProcessCollector(registry=registry)

    def answered(self, request: Request, answered: Answered, took_s: float) -> None:
        """A request that got its answer."""
        requests, seconds = self._by_door.get(request.door) or self._bind(request.door)
        requests.inc()
        seconds.observe(took_s)
        self._tokenize.observe(answered.tokenize_ms / 1e3)
        if answered.cached < len(answered.answers):  # else nothing waited or ran
            self._queue.observe(answered.queue_ms / 1e3)
            self._infer.observe(answered.infer_ms / 1e3)
        self._texts.observe(len(answered.answers))
        for answer in answered.answers:
            self._mix.add(answer.logits)

    def _bind(self, door: str) -> tuple[Counter, Histogram]:
        found = self._requests.labels(door, "200"), self._seconds.labels(door)
        self._by_door[door] = found
        return found

    def refused(self, request: Request, error: ServingError, took_s: float) -> None:  # noqa: ARG002 - as observers are told
        """A request that got an error."""
        kind = (request.door, type(error))
        for counter in self._by_refusal.get(kind) or self._bind_refusal(*kind):
            counter.inc()

    def _bind_refusal(self, door: str, kind: type[ServingError]) -> tuple[Counter, Counter]:
        found = (
            self._requests.labels(door, str(kind.status)),
            self._refused.labels(door, kind.__name__),
        )
        self._by_refusal[door, kind] = found
        return found

    def left(self, request: Request, took_s: float) -> None:  # noqa: ARG002 - as observers are told
        """A request whose caller did not wait; 499, as nginx has it."""
        self._requests.labels(request.door, "499").inc()

    def text(self) -> bytes:
        """All of it, in the text format."""
        return generate_latest(self.registry)


def side_by_side(texts: Sequence[tuple[str, bytes]]) -> bytes:
    """One page of several replicas' *texts*, each sample with its `replica`."""
    registry = CollectorRegistry()
    registry.register(_Several(texts))
    return generate_latest(registry)


class _Several(Collector):
    def __init__(self, texts: Iterable[tuple[str, bytes]]) -> None:
        self._texts = texts

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        for replica, text in self._texts:
            for family in text_string_to_metric_families(text.decode()):
                into = families.setdefault(
                    family.name, Metric(family.name, family.documentation, family.type)
                )
                for sample in family.samples:
                    labels: Any = {**sample.labels, "replica": replica}
                    into.add_sample(sample.name, labels, sample.value)
        yield from families.values()
