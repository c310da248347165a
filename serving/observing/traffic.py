"""Requests as a server process counts them, whichever of its packages answered.

They are counted on when a package is replaced, and for each package that is loaded beside.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from serving.core import Answered
from serving.errors import ServingError
from serving.observing.histograms import Spread, histogram, histograms
from serving.request import Request

_OK, LEFT = 200, 499
_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10)
_TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Traffic(Collector):
    """Of one server process; told of requests, and asked, on its event loop.

    Packages come on threads that load them, and go.
    """

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, str]] = Counter()  # by door and status
        self._refused: Counter[tuple[str, str]] = Counter()  # by door and type
        self._seconds: dict[str, Spread] = {}  # by door
        self._stages = {stage: Spread(_SECONDS) for stage in ("tokenize", "queue", "infer")}
        self._texts = Spread(_TEXTS)
        self._lock = threading.Lock()  # of the two below
        self._by_package: dict[str, PackageTraffic] = {}
        self._users: Counter[str] = Counter()
        self.registry = CollectorRegistry()
        self.registry.register(self)
        ProcessCollector(registry=self.registry)

    def of(self, version: str) -> PackageTraffic:
        """What is counted for one package, the same for the same."""
        with self._lock:
            self._users[version] += 1
            return self._by_package.setdefault(version, PackageTraffic())

    def forget(self, version: str) -> None:
        """A package's series, once as often as it was asked for; it is counted from 0 when it comes again."""
        with self._lock:
            self._users[version] -= 1
            if self._users[version] <= 0:
                self._by_package.pop(version, None)

    def answered(self, request: Request, answered: Answered, took_s: float) -> None:
        """A request that got its answer."""
        door, stages = request.door, self._stages
        if (seconds := self._seconds.get(door)) is None:
            seconds = self._seconds[door] = Spread(_SECONDS)
        self._requests[door, "200"] += 1
        seconds.add(took_s)
        stages["tokenize"].add(answered.tokenize_ms / 1e3)
        if answered.cached < len(answered.answers):  # else nothing waited or ran
            stages["queue"].add(answered.queue_ms / 1e3)
            stages["infer"].add(answered.infer_ms / 1e3)
        self._texts.add(len(answered.answers))

    def refused(self, request: Request, error: ServingError) -> None:
        """A request that got an error."""
        self._requests[request.door, str(error.status)] += 1
        self._refused[request.door, type(error).__name__] += 1

    def left(self, request: Request) -> None:
        """A request whose caller did not wait; 499, as nginx has it."""
        self._requests[request.door, str(LEFT)] += 1

    def text(self) -> bytes:
        """All of it, in the text format."""
        return generate_latest(self.registry)

    def collect(self) -> Iterator[Metric]:
        """As it is now."""
        yield _counts("miniml_requests", "Requests by outcome.", ("door", "status"), self._requests)
        yield _counts(
            *("miniml_refused", "Requests not answered, by why.", ("door", "type"), self._refused)
        )
        yield histograms(
            *("miniml_request_seconds", "From the first byte read to the answer."),
            label="door",
            by=self._seconds,
        )
        yield histograms(
            *("miniml_stage_seconds", "Where the time of answered requests went."),
            label="stage",
            by=self._stages,
        )
        yield histogram(
            *("miniml_request_texts", "Texts in a request."),
            edges=_TEXTS,
            counts=self._texts.counts,
            total=self._texts.total,
        )
        with self._lock:
            packages = self._by_package.copy()
        yield _counts(
            *("miniml_package_requests", "Requests of a package.", ("package", "status")),
            {
                (version, str(status)): count
                for version, counted in packages.items()
                for status, count in counted.by_status.items()
            },
        )
        yield histograms(
            *("miniml_package_request_seconds", "Of the answers of a package."),
            label="package",
            by={version: counted.seconds for version, counted in packages.items()},
        )


class PackageTraffic:
    """Of one package: its requests by status, and the seconds of its answers."""

    def __init__(self) -> None:
        self.by_status = Counter({_OK: 0})
        self.seconds = Spread(_SECONDS)

    def answered(self, took_s: float) -> None:
        """A request that got its answer."""
        self.by_status[_OK] += 1
        self.seconds.add(took_s)

    def refused(self, status: int) -> None:
        """One that did not."""
        self.by_status[status] += 1


def _counts(
    name: str, told: str, labels: Sequence[str], counts: Mapping[tuple[str, str], int]
) -> Metric:
    family = CounterMetricFamily(name, told, labels=labels)
    for values, count in counts.items():
        family.add_metric(values, count)
    return family
