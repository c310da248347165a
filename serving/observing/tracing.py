"""What a request's spans say: who asked for what, and where the time went.

Told of requests as `serving.protocols.desk.Observer`; `serving.observing.spans` makes and sends the spans.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from opentelemetry.util.types import AttributeValue

from serving.core import Answered
from serving.errors import ServingError
from serving.observing.spans import Ended, Leg, Place, Spans
from serving.package import Package
from serving.request import Request
from serving.work import TRACED

# Where a door is, by its name; a request that came through none has a path but no route.
_ROUTES = {
    "predict": "/predict",
    "lines": "/predict",
    "hub": "/",
    "classify": "/v1/classify",
    "open_inference": "/v2/models/{model}/infer",
}
# There is no HTTP status of one line, nor of gRPC.
_NO_STATUS = ("lines", "grpc")
_RPC = "inference.GRPCInferenceService/ModelInfer"
_SERVERS_FAULT = 500


class Tracing:
    """An observer that makes spans of what it is told, of requests whose trace is sampled."""

    def __init__(self, spans: Spans, package: Package) -> None:
        self._spans = spans
        self._digest = package.digest

    def enter(self, request: Request) -> None:
        """From here on, batches of this task run texts of *request*."""
        place = self._place(request)
        TRACED.set(place.context if place.sampled else None)

    def answered(self, request: Request, answered: Answered, took_s: float) -> None:
        """It got its answers."""
        if self._place(request).sampled:
            ended_s = request.began_s + took_s
            found: dict[str, AttributeValue] = {
                "miniml.texts": len(answered.answers),
                "miniml.tokens": answered.tokens,
                "miniml.cached": answered.cached,
            }
            self._end(request, took_s, found, 200, stages=stages(answered, ended_s))

    def refused(self, request: Request, error: ServingError, took_s: float) -> None:
        """It got an error."""
        if self._place(request).sampled:
            self._end(request, took_s, {"error.type": type(error).__name__}, error.status)

    def left(self, request: Request, took_s: float) -> None:
        """Nobody waited for its answer."""
        if self._place(request).sampled:
            self._end(request, took_s, {"error.type": "CallerLeft"}, None)

    def _place(self, request: Request) -> Place:
        trail = request.trail
        if trail.place is None:
            trail.place = self._spans.begin(request.traceparent, request.tracestate)
        return trail.place

    def _end(
        self,
        request: Request,
        took_s: float,
        found: dict[str, AttributeValue],
        status: int | None,
        *,
        stages: Sequence[Leg] = (),
    ) -> None:
        if request.door not in _NO_STATUS and status is not None:
            found["http.response.status_code"] = status
        if request.trail.texts:
            found.setdefault("miniml.texts", len(request.trail.texts))
        if request.key:
            found["enduser.id"] = request.key.name
        ended = Ended(
            name=_name(request),
            attributes={
                **_semantic(request),
                "miniml.door": request.door,
                "miniml.request_id": request.id,
                "miniml.package.digest": self._digest,
                **found,
            },
            began_s=request.began_s,
            ended_s=request.began_s + took_s,
            stages=stages,
            failed=status is not None and status >= _SERVERS_FAULT,
        )
        self._spans.request(self._place(request), ended)


def stages(answered: Answered, ended_s: float) -> list[Leg]:
    """Where the time until *ended_s* went; queue and infer only where something was computed.

    queue: until the last of its batches began; infer: from the first one's begin to the last one's end.
    What was computed for somebody else, who asked before, counts from when this request was read.
    """
    read_s = min(ended_s, answered.began_s + answered.tokenize_ms / 1e3)
    return [
        Leg(name="tokenize", began_s=answered.began_s, ended_s=read_s),
        *_computed(answered, read_s, ended_s),
    ]


def _computed(answered: Answered, read_s: float, ended_s: float) -> Iterator[Leg]:
    def within(at_s: float) -> float:
        return min(max(at_s, read_s), ended_s)

    ran = {run: None for answer in answered.answers for run in answer.ran}
    if not ran:
        return
    first_s, last_s = min(run.started_s for run in ran), max(run.started_s for run in ran)
    arrived_s = min(
        max(run.started_s for run in answer.ran) - answer.queue_ms / 1e3
        for answer in answered.answers
        if answer.ran
    )
    yield Leg(name="queue", began_s=within(arrived_s), ended_s=within(last_s))
    yield Leg(
        name="infer",
        began_s=within(first_s),
        ended_s=within(max(run.ended_s for run in ran)),
        batches=[run.span for run in ran if run.span],
    )


def _name(request: Request) -> str:
    if request.door == "grpc":
        return _RPC
    route = _ROUTES.get(request.door)
    named = f"{request.method} {route}" if route else request.method
    return f"{named} line" if request.line else named


def _semantic(request: Request) -> dict[str, AttributeValue]:
    """By OpenTelemetry's conventions for servers."""
    if request.door == "grpc":
        return {"rpc.system.name": "grpc", "rpc.method": _RPC}
    known: dict[str, AttributeValue] = {
        "http.request.method": request.method,
        "url.scheme": "http",
        "url.path": request.path,
    }
    if route := _ROUTES.get(request.door):
        known["http.route"] = route
    if request.line:
        known["miniml.line"] = request.line
    return known
