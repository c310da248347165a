"""Requests as a server process counts them, whichever of its packages answered.

They are counted on when a package is replaced, and for each package that is loaded beside. A series
is looked up once and then kept: to find it by its labels takes longer than to count.
"""

from __future__ import annotations

from collections import Counter as Counted

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from serving.core import Answered
from serving.errors import ServingError
from serving.request import Request

LEFT = 499
_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10)
_TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Traffic:
    """Of one server process."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
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
        self._package_requests = Counter(
            *("miniml_package_requests", "Requests of a package.", ["package", "status"]),
            registry=registry,
        )
        self._package_seconds = Histogram(
            *("miniml_package_request_seconds", "Of the answers of a package.", ["package"]),
            buckets=_SECONDS,
            registry=registry,
        )
        ProcessCollector(registry=registry)
        self._by_door: dict[str, tuple[Counter, Histogram]] = {}
        self._by_refusal: dict[tuple[str, type[ServingError]], tuple[Counter, Counter]] = {}
        self._by_package: dict[str, PackageTraffic] = {}
        self._users: Counted[str] = Counted()

    def of(self, version: str) -> PackageTraffic:
        """What is counted for one package, the same for the same."""
        self._users[version] += 1
        if version not in self._by_package:
            seconds = self._package_seconds.labels(version)
            self._by_package[version] = PackageTraffic(version, self._package_requests, seconds)
        return self._by_package[version]

    def forget(self, version: str) -> None:
        """A package's series, once as often as it was asked for; it is counted from 0 when it comes again."""
        self._users[version] -= 1
        if self._users[version] > 0:
            return
        if counted := self._by_package.pop(version, None):
            counted.forget()
            self._package_seconds.remove(version)

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

    def refused(self, request: Request, error: ServingError) -> None:
        """A request that got an error."""
        kind = (request.door, type(error))
        for counter in self._by_refusal.get(kind) or self._bind_refusal(*kind):
            counter.inc()

    def left(self, request: Request) -> None:
        """A request whose caller did not wait; 499, as nginx has it."""
        self._requests.labels(request.door, str(LEFT)).inc()

    def text(self) -> bytes:
        """All of it, in the text format."""
        return generate_latest(self.registry)

    def _bind(self, door: str) -> tuple[Counter, Histogram]:
        found = self._requests.labels(door, "200"), self._seconds.labels(door)
        self._by_door[door] = found
        return found

    def _bind_refusal(self, door: str, kind: type[ServingError]) -> tuple[Counter, Counter]:
        found = (
            self._requests.labels(door, str(kind.status)),
            self._refused.labels(door, kind.__name__),
        )
        self._by_refusal[door, kind] = found
        return found


class PackageTraffic:
    """Of one package, by its version."""

    def __init__(self, version: str, requests: Counter, seconds: Histogram) -> None:
        self._version = version
        self._requests = requests
        self._seconds = seconds
        self._by_status = {200: requests.labels(version, "200")}

    def answered(self, took_s: float) -> None:
        """A request that got its answer."""
        self._by_status[200].inc()
        self._seconds.observe(took_s)

    def refused(self, status: int) -> None:
        """One that did not."""
        if status not in self._by_status:
            self._by_status[status] = self._requests.labels(self._version, str(status))
        self._by_status[status].inc()

    def forget(self) -> None:
        """All series."""
        for status in self._by_status:
            self._requests.remove(self._version, str(status))
        self._by_status = {}
