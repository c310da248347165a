"""Models beside the first as Prometheus reads them: by the names that they were given at the start."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from serving.models.others import Other


class ModelMetrics(Collector):
    """Of one replica; package: the first 12 digits of the digest, by which requests are counted, too."""

    def __init__(self, others: Sequence[Other]) -> None:
        self._others = others

    def collect(self) -> Iterator[Metric]:
        """As they are now."""
        labels = ("model", "package")
        loaded = GaugeMetricFamily("miniml_model_loaded", "1, or 0 while it is not.", labels=labels)
        size = GaugeMetricFamily("miniml_model_bytes", "What its last load took.", labels=labels)
        loads = CounterMetricFamily("miniml_model_loads", "Times it was loaded.", labels=["model"])
        failures = CounterMetricFamily(
            "miniml_model_load_failures", "Times it could not be.", labels=["model"]
        )
        for other in self._others:
            name, package = other.model.name, other.model.digest[:12]
            loaded.add_metric([name, package], float(other.loaded is not None))
            size.add_metric([name, package], other.size_bytes)
            loads.add_metric([name], other.loads)
            failures.add_metric([name], other.failures)
        yield from (loaded, size, loads, failures)
