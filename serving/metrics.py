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
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from serving.core import Answered
from serving.engine import prediction
from serving.errors import ServingError
from serving.package import Package
from serving.request import Request

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10)
_TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_SHARES = tuple(place / 20 for place in range(1, 21))
_MOST_LABELS = 50
_OTHER, _NONE = "(other)", "(none)"
# A series each for when a series began: nobody asks, and they are as many again.
disable_created_metrics()
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# Live numbers of `Core.operations` -> their names here; the rest are gauges of their own name.
_COUNTERS = {
    "batches": "batches",
    "texts": "texts_computed",
    "useful_tokens": "useful_tokens",
    "padded_tokens": "padded_tokens",
    "lanes_cpu_s": "lanes_cpu_seconds",
    "tokenize_cpu_s": "tokenize_cpu_seconds",
    "cache_memory_hits": "cache_memory_hits",
    "cache_redis_hits": "cache_redis_hits",
    "cache_joined": "cache_joined",
    "cache_misses": "cache_misses",
    "cache_redis_failures": "cache_redis_failures",
    "cache_redis_dropped_writes": "cache_redis_dropped_writes",
}
_HELP = {
    "queued_ms": "Milliseconds of work that wait, spread over the lanes.",
    "useful_tokens": "Tokens of texts that were run; with padded_tokens: the useful share.",
    "padded_tokens": "Tokens that were run, with padding.",
    "cost_error": "Mean relative error of the cost model's last predictions.",
    "loop_late_p99_ms": "How late the event loop was, 99th percentile of the last minute.",
}


class Metrics:
    """Of one server process. operations: live numbers, read when somebody asks."""

    def __init__(self, package: Package, operations: Callable[[], Mapping[str, float]]) -> None:
        self._package = package
        self._names = frozenset(package.config.labels[:_MOST_LABELS])
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
        self._stages = Histogram(
            *("miniml_stage_seconds", "Where the time of answered requests went.", ["stage"]),
            buckets=_SECONDS,
            registry=registry,
        )
        self._texts = Histogram(
            "miniml_request_texts", "Texts in a request.", buckets=_TEXTS, registry=registry
        )
        self._labels = Counter(
            "miniml_answers", "Texts by the label they got.", ["label"], registry=registry
        )
        self._confidence = Histogram(
            "miniml_confidence", "Score of the likeliest label.", buckets=_SHARES, registry=registry
        )
        registry.register(_Operations(operations))

    def answered(self, request: Request, answered: Answered, took_s: float) -> None:
        """A request that got its answer."""
        self._requests.labels(request.door, "200").inc()
        self._seconds.labels(request.door).observe(took_s)
        self._stages.labels("tokenize").observe(answered.tokenize_ms / 1e3)
        if answered.cached < len(answered.answers):  # else nothing waited or ran
            self._stages.labels("queue").observe(answered.queue_ms / 1e3)
            self._stages.labels("infer").observe(answered.infer_ms / 1e3)
        self._texts.observe(len(answered.answers))
        for answer in answered.answers:
            given = prediction(answer.logits, self._package)
            known = given.label if given.label in self._names else _OTHER
            self._labels.labels(_NONE if given.label is None else known).inc()
            self._confidence.observe(given.score)

    def refused(self, request: Request, error: ServingError, took_s: float) -> None:  # noqa: ARG002 - as observers are told
        """A request that got an error."""
        self._requests.labels(request.door, str(error.status)).inc()
        self._refused.labels(request.door, type(error).__name__).inc()

    def text(self) -> bytes:
        """All of it, in the text format."""
        return generate_latest(self.registry)


class _Operations(Collector):
    """Live numbers as counters and gauges."""

    def __init__(self, operations: Callable[[], Mapping[str, float]]) -> None:
        self._operations = operations

    def collect(self) -> Iterator[Metric]:
        """As they are now."""
        for name, value in self._operations().items():
            told = _HELP.get(name, name.replace("_", " "))
            if name in _COUNTERS:
                yield CounterMetricFamily(f"miniml_{_COUNTERS[name]}", told, value=value)
            else:
                yield GaugeMetricFamily(f"miniml_{name}", told, value=value)


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
