"""Sends spans to a collector, by OpenTelemetry's own queue and exporter; nobody waits for it.

The collector may be slow or gone: what it does not take is dropped and counted.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Sequence
from urllib.parse import urlsplit

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

_log = logging.getLogger(__name__)
_PATH = "/v1/traces"
_BASE, _EXACT = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
_LIBRARY = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
# OpenTelemetry's own defaults; named here since what does not fit in is counted.
_MOST_WAITING, _MOST_AT_ONCE = 2048, 512
# Ray gives a replica that ends some seconds; a collector that is down must not take them.
_FLUSH_S, _GIVE_UP_S = 2.0, 1.0


class Delivery:
    """A bounded queue of spans to a collector. `put` is called on one thread only.

    endpoint: the collector's, without its path; without one the standard environment says.
    """

    def __init__(self, endpoint: str | None) -> None:
        url = where(endpoint)
        # It would log each attempt; `_Told` says when a collector goes and when it is back.
        logging.getLogger(_LIBRARY).setLevel(logging.CRITICAL + 1)
        self._told = _Told(url)
        self._most = _number("OTEL_BSP_MAX_QUEUE_SIZE", _MOST_WAITING)
        at_once = _number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", _MOST_AT_ONCE)
        self._processor = BatchSpanProcessor(
            self._told, max_queue_size=self._most, max_export_batch_size=min(self._most, at_once)
        )
        self._closed = False
        self._given = self._dropped = 0

    def put(self, span: ReadableSpan) -> None:
        """Send it some time, or drop it when too many wait."""
        # The processor's queue would drop the oldest, and log each.
        if self._closed or self._given - self._told.taken >= self._most:
            self._dropped += 1
            return
        self._given += 1
        self._processor.on_end(span)

    def numbers(self) -> dict[str, float]:
        """Spans since the start: sent, and not, since too many waited or the collector took none."""
        dropped = self._dropped + self._told.failed
        return {"trace_spans_sent": self._told.sent, "trace_spans_dropped": dropped}

    def close(self) -> None:
        """Send what is left, for three seconds at most."""
        self._closed = True
        end = threading.Thread(target=self._processor.shutdown, name="last-spans", daemon=True)
        end.start()
        end.join(_FLUSH_S)
        if end.is_alive():
            self._told.shutdown()  # it stops asking again, and the rest fails at once
            end.join(_GIVE_UP_S)


class _Told(SpanExporter):
    """OpenTelemetry's exporter to *url*, counted; it is said once when the collector goes or is back."""

    def __init__(self, url: str) -> None:
        self._exporter = OTLPSpanExporter(url)
        self._url = url
        self._away = False
        self.taken = self.sent = self.failed = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """What the collector said. Called on the processor's thread."""
        self.taken += len(spans)
        try:
            result = self._exporter.export(spans)
        except Exception:  # noqa: BLE001 - the processor would tell of it for each batch of spans
            _log.exception("Spans were not sent; this is a bug")
            result = SpanExportResult.FAILURE
        arrived = result is SpanExportResult.SUCCESS
        if arrived:
            self.sent += len(spans)
        else:
            self.failed += len(spans)
        if self._away is arrived:
            self._away = not arrived
            place = urlsplit(self._url)  # without the secrets that may stand in it
            _log.warning(
                "The collector at %s:%s takes %s",
                *(place.hostname, place.port, "spans again" if arrived else "no spans"),
            )
        return result

    def shutdown(self) -> None:
        """Of the exporter, too."""
        self._exporter.shutdown()


def where(endpoint: str | None) -> str:
    """The URL that spans are sent to: by OpenTelemetry's rules, where *endpoint* does not say."""
    if endpoint is None and (exact := os.environ.get(_EXACT)):
        return exact
    base = (endpoint or os.environ.get(_BASE, "")).rstrip("/")
    return base if base.endswith(_PATH) else base + _PATH


def _number(name: str, default: int) -> int:
    value = os.environ.get(name, "")
    return int(value) if value.isdecimal() and int(value) else default
