"""Live numbers of `Core.operations` as Prometheus reads them: in seconds, and with what they mean."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from serving.observing.histograms import histogram
from serving.work import BATCH_EDGES


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shown:
    """A number by its name here, without the prefix. scale: what its value is multiplied by."""

    name: str
    told: str
    counter: bool = False
    scale: float = 1.0


def _counter(name: str, told: str) -> _Shown:
    return _Shown(name=name, told=told, counter=True)


def _gauge(name: str, told: str, scale: float = 1.0) -> _Shown:
    return _Shown(name=name, told=told, scale=scale)


_MS = 1e-3  # in seconds: Prometheus's base unit
_SHOWN = {
    "queued_ms": _gauge("queued_seconds", "Work that waits, spread over the lanes.", _MS),
    "batches": _counter("batches", "Batches that were run."),
    "texts": _counter("texts_computed", "Texts that were run; the rest were known."),
    "useful_tokens": _counter("useful_tokens", "Tokens of the texts that were run."),
    "padded_tokens": _counter("padded_tokens", "Tokens that were run, with padding."),
    "useful_token_ratio": _gauge("useful_token_ratio", "Useful of padded tokens, since the start."),
    "cost_error": _gauge("cost_error", "Mean relative error of the cost model's last predictions."),
    "loop_late_p50_ms": _gauge(
        "loop_late_p50_seconds", "How late the event loop was: median of the last minute.", _MS
    ),
    "loop_late_p99_ms": _gauge(
        "loop_late_p99_seconds", "The same, 99th percentile of the last minute.", _MS
    ),
    "start_s": _gauge("start_seconds", "From the process's start to ready."),
    "lanes": _gauge("lanes", "Batches that can run at once."),
    "lanes_busy_s": _counter("lanes_busy_seconds", "Time that lanes ran batches, all together."),
    "lanes_cpu_s": _counter("lanes_cpu_seconds", "CPU of the lanes' own threads."),
    "tokenize_cpu_s": _counter("tokenize_cpu_seconds", "CPU of tokenizing."),
    "healthy": _gauge("healthy", "1, or 0 while a lane is stalled or lost."),
    "cache_entries": _gauge("cache_entries", "Answers in memory."),
    "cache_bytes": _gauge("cache_bytes", "What they take."),
    "cache_memory_hits": _counter("cache_memory_hits", "Texts found in memory."),
    "cache_redis_hits": _counter("cache_redis_hits", "Texts found in Redis."),
    "cache_joined": _counter("cache_joined", "Texts computed for an equal one just then."),
    "cache_misses": _counter("cache_misses", "Texts asked for that were not known."),
    "cache_redis_failures": _counter("cache_redis_failures", "Times Redis failed or was late."),
    "cache_redis_dropped_writes": _counter(
        "cache_redis_dropped_writes", "Writes to Redis left out, there being too many."
    ),
    "trace_spans_sent": _counter("trace_spans_sent", "Spans that the collector took."),
    "trace_spans_dropped": _counter(
        "trace_spans_dropped", "Spans that it did not take, or that were too many to wait."
    ),
    "request_log_written": _counter("request_log_written", "Lines of the request log."),
    "request_log_dropped": _counter(
        "request_log_dropped", "Lines of it that could not be written."
    ),
    "cache_redis_resting": _gauge("cache_redis_resting", "1 while Redis is left alone, else 0."),
}


class Operations(Collector):
    """What *operations* say when somebody asks; one without a description is shown as a gauge."""

    def __init__(
        self,
        operations: Callable[[], Mapping[str, float]],
        batch_sizes: Callable[[], Sequence[int]],
    ) -> None:
        """batch_sizes: batches by their texts, as in `Tally`."""
        self._operations = operations
        self._batch_sizes = batch_sizes

    def collect(self) -> Iterator[Metric]:
        """As they are now."""
        numbers = self._operations()
        for key, value in numbers.items():
            shown = _SHOWN.get(key) or _gauge(key, key.replace("_", " "))
            family = CounterMetricFamily if shown.counter else GaugeMetricFamily
            yield family(f"miniml_{shown.name}", shown.told, value=value * shown.scale)
        sizes = self._batch_sizes()
        if sizes:
            yield histogram(
                *("miniml_batch_texts", "Texts in a batch."),
                edges=BATCH_EDGES,
                counts=sizes,
                total=numbers["texts"],
            )
