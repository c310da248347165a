"""Spans, by OpenTelemetry: a request's place in a trace, and what is put down when something is over.

Only the place is given beforehand. Spans are made of measured times once the answer is out, and not
by the SDK's tracer, which takes seven times as long for the four of a request (80 microseconds of CPU,
not 11); its sampler, ids, resource, queue and exporter are used. Imported only where there is tracing.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from opentelemetry.context import Context
from opentelemetry.sdk.resources import SERVICE_INSTANCE_ID, SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, TraceIdRatioBased
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace.propagation import get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from serving.observing.delivery import Delivery

if TYPE_CHECKING:
    from serving.work import RunningBatch

_NOWHERE = Context()
_FINE, _FAILED = Status(StatusCode.UNSET), Status(StatusCode.ERROR)
_SAMPLED, _NOT_SAMPLED = TraceFlags(TraceFlags.SAMPLED), TraceFlags(TraceFlags.DEFAULT)
_SCOPE = InstrumentationScope("miniml")
Attributes = Mapping[str, AttributeValue]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A request's place in a trace: its own span, made when it is over, and its caller's."""

    context: SpanContext
    parent: SpanContext | None

    @property
    def sampled(self) -> bool:
        """Whether its spans are sent."""
        return self.context.trace_flags.sampled


@dataclass(frozen=True, slots=True, kw_only=True)
class Leg:
    """One leg of a request's time, of `time.perf_counter`; linked to the batches that ran in it."""

    name: str
    began_s: float
    ended_s: float
    batches: Sequence[SpanContext] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What a request's span says. failed: by our fault, not its caller's."""

    name: str
    attributes: Attributes
    began_s: float
    ended_s: float
    stages: Sequence[Leg] = ()
    failed: bool = False


class Spans:
    """Of one server process. All but `close` are called on the event loop's thread.

    endpoint: of the collector, without its path; without one the standard environment says.
    """

    def __init__(self, endpoint: str | None, *, share: float, replica: str) -> None:
        self._delivery = Delivery(endpoint)
        self._resource = _resource(replica)
        self._sampler = ParentBased(TraceIdRatioBased(share))
        self._read = TraceContextTextMapPropagator()
        self._ids = RandomIdGenerator()

    def begin(self, traceparent: str, tracestate: str) -> Place:
        """A place for a request: within its caller's trace, which decides, or in a new one."""
        around, parent, trace_id = _NOWHERE, None, 0
        if traceparent:
            carrier = {"traceparent": traceparent, "tracestate": tracestate}
            around = self._read.extract(carrier, context=_NOWHERE)
            found = get_current_span(around).get_span_context()
            if found.is_valid:
                parent, trace_id = found, found.trace_id
        trace_id = trace_id or self._ids.generate_trace_id()
        decided = self._sampler.should_sample(around, trace_id, "")
        context = SpanContext(
            trace_id,
            self._ids.generate_span_id(),
            is_remote=False,
            trace_flags=_SAMPLED
            if decided.decision is Decision.RECORD_AND_SAMPLE
            else _NOT_SAMPLED,
            trace_state=parent.trace_state if parent else None,
        )
        return Place(context=context, parent=parent)

    def request(self, place: Place, ended: Ended) -> None:
        """The span of a request at *place*, and one for each stage."""
        offset_ns = _offset_ns()
        self._put(
            *(ended.name, place.context, ended.began_s, ended.ended_s, offset_ns),
            parent=place.parent,
            attributes=ended.attributes,
            kind=SpanKind.SERVER,
            status=_FAILED if ended.failed else _FINE,
        )
        for stage in ended.stages:
            self._put(
                *(stage.name, self._beside(place.context), stage.began_s, stage.ended_s, offset_ns),
                parent=place.context,
                links=[Link(batch) for batch in stage.batches],
            )

    def batch(self, run: RunningBatch, outcome: object, ended_s: float) -> SpanContext | None:
        """The span of a batch, in a trace of its own, linked to all whose texts it ran.

        None, and no span, where none of these is traced.
        """
        traced = [span for text in run.batch if (span := text.call.traced)]
        if not traced:
            return None
        texts = Counter(span.span_id for span in traced)
        links = [
            Link(span, {"miniml.texts": texts[span.span_id]})
            for span in {span.span_id: span for span in traced}.values()
        ]
        context = SpanContext(
            self._ids.generate_trace_id(), self._ids.generate_span_id(), False, _SAMPLED
        )
        failed = isinstance(outcome, Exception)
        attributes: dict[str, AttributeValue] = {
            "miniml.batch.texts": len(run.batch),
            "miniml.batch.padded_length": run.longest,
            "miniml.batch.useful_tokens": sum(text.tokens for text in run.batch),
            "miniml.batch.expected_ms": round(run.expected_ms, 3),
            "miniml.batch.actual_ms": round((ended_s - run.started_s) * 1e3, 3),
        }
        if failed:
            attributes["error.type"] = type(outcome).__name__
        self._put(
            *("batch", context, run.started_s, ended_s, _offset_ns()),
            attributes=attributes,
            links=links,
            status=_FAILED if failed else _FINE,
        )
        return context

    def numbers(self) -> dict[str, float]:
        """Of `Delivery`."""
        return self._delivery.numbers()

    def close(self) -> None:
        """Send what is left, or give it up in time."""
        self._delivery.close()

    def _beside(self, context: SpanContext) -> SpanContext:
        """Of another span of the same trace."""
        return SpanContext(
            context.trace_id,
            self._ids.generate_span_id(),
            is_remote=False,
            trace_flags=context.trace_flags,
            trace_state=context.trace_state,
        )

    def _put(
        self,
        name: str,
        context: SpanContext,
        began_s: float,
        ended_s: float,
        offset_ns: int,
        **more: Any,
    ) -> None:
        self._delivery.put(
            ReadableSpan(
                name,
                context,
                resource=self._resource,
                start_time=offset_ns + round(began_s * 1e9),
                end_time=offset_ns + round(ended_s * 1e9),
                instrumentation_scope=_SCOPE,
                **more,
            )
        )


def _resource(replica: str) -> Resource:
    """Who sends: miniml, unless OpenTelemetry's own environment says otherwise."""
    told = Resource.create({SERVICE_INSTANCE_ID: replica} if replica else {})
    if str(told.attributes[SERVICE_NAME]).startswith("unknown_service"):
        return told.merge(Resource({SERVICE_NAME: "miniml"}))
    return told


def _offset_ns() -> int:
    """From `time.perf_counter` to nanoseconds since 1970; asked anew each time, as clocks are set."""
    return time.time_ns() - time.perf_counter_ns()
