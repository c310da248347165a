"""What a server did, as Prometheus reads it; few series, whatever callers send.

No text, key or path of a caller is ever a label: doors, statuses, error types and the package's own
labels (the first 50) are all there is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Info, disable_created_metrics, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from serving.core import Answered
from serving.errors import ServingError
from serving.observing.answer_mix import AnswerMix
from serving.observing.operations import Operations
from serving.observing.traffic import LEFT, Traffic
from serving.package import Package
from serving.request import OTHER, Request

_DIGITS = 12  # of a digest, as versions are shown everywhere
# A series each for when a series began: nobody asks, and they are as many again.
disable_created_metrics()
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Of one package in a server process. operations, batch_sizes: live numbers, read when somebody asks.

    traffic: what the process counts for all its packages.
    """

    def __init__(
        self,
        package: Package,
        operations: Callable[[], Mapping[str, float]],
        batch_sizes: Callable[[], Sequence[int]] = tuple,
        *,
        traffic: Traffic | None = None,
    ) -> None:
        self.registry = registry = CollectorRegistry()
        about = Info("miniml_package", "What is served.", registry=registry)
        about.info({"name": package.config.name, "digest": package.digest})
        self._traffic = traffic or Traffic()
        self._version = package.digest[:_DIGITS]
        self._counted = self._traffic.of(self._version)
        self._mix = AnswerMix(package)
        registry.register(self._mix)
        registry.register(Operations(operations, batch_sizes))

    def answered(self, request: Request, answered: Answered, took_s: float) -> None:
        """A request that got its answer."""
        self._traffic.answered(request, answered, took_s)
        self._counted.answered(took_s)
        for answer in answered.answers:
            self._mix.add(answer.logits)

    def refused(self, request: Request, error: ServingError, took_s: float) -> None:  # noqa: ARG002 - as observers are told
        """A request that got an error."""
        self._traffic.refused(request, error)
        if request.door != OTHER:  # what comes in at no door is no package's
            self._counted.refused(error.status)

    def left(self, request: Request, took_s: float) -> None:  # noqa: ARG002 - as observers are told
        """A request whose caller did not wait; 499, as nginx has it."""
        self._traffic.left(request)
        self._counted.refused(LEFT)

    def text(self) -> bytes:
        """All of it, in the text format."""
        return self._traffic.text() + generate_latest(self.registry)

    def close(self) -> None:
        """The package is gone: its series are, too."""
        self._traffic.forget(self._version)


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
