"""Laws of traces, as a collector gets them: the caller's trace, honest times, batches and no loose ends."""

from __future__ import annotations

import json
import socket
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import httpx
import pytest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from serving.access.keys import create_key
from serving.package import Package

Listening = Callable[..., AbstractContextManager[str]]
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED, NOT_SAMPLED = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"
TEXTS = ["good", "bad soup", "the staff was not very warm", "cold " * 20]


def attributes(of: Any) -> dict[str, Any]:
    """Of a span, a link or a resource."""

    def value(pair: KeyValue) -> Any:
        return getattr(pair.value, str(pair.value.WhichOneof("value")))

    return {pair.key: value(pair) for pair in of.attributes}


def requests(collector: Any) -> list[Span]:
    """The spans of requests."""
    return [span for span in collector.spans if span.kind == Span.SPAN_KIND_SERVER]


def batches(collector: Any) -> list[Span]:
    """The spans of batches."""
    return [span for span in collector.spans if span.name == "batch"]


def stages(collector: Any, request: Span) -> dict[str, Span]:
    """The spans within *request*, by name; each name once."""
    within = [span for span in collector.spans if span.parent_span_id == request.span_id]
    named = {span.name: span for span in within}
    assert len(named) == len(within)
    return named


@pytest.fixture
def short_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight spans may wait, and they are sent soon."""
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "8")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")


def test_a_request_stands_in_its_callers_trace(
    package: Package, listening: Listening, collector: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trace, parent and state are the caller's; the span says what was asked, and the resource by whom."""
    monkeypatch.delenv("OTEL_SERVICE_NAME", raising=False)
    headers = {"traceparent": SAMPLED, "tracestate": "a=1,b=2", "x-request-id": "mine"}
    with listening(package, otlp_endpoint=collector.url) as url:
        answer = httpx.post(f"{url}/predict", json={"texts": TEXTS}, headers=headers)
    (span,) = requests(collector)
    found = attributes(span)

    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    assert (span.trace_state, span.name) == ("a=1,b=2", "POST /predict")
    assert (found["http.request.method"], found["http.route"]) == ("POST", "/predict")
    assert (found["http.response.status_code"], answer.status_code) == (200, 200)
    assert (found["miniml.texts"], found["miniml.cached"]) == (len(TEXTS), 0)
    assert found["miniml.tokens"] > len(TEXTS)
    assert found["miniml.request_id"] == "mine"
    assert found["miniml.package.digest"] == package.digest
    assert {attributes(r.resource)["service.name"] for r in collector.taken} == {"miniml"}


def test_stages_lie_within_their_request(
    package: Package, listening: Listening, collector: Any
) -> None:
    """Tokenizing, waiting and running follow each other, and take as long as the headers say."""
    with listening(package, otlp_endpoint=collector.url) as url:
        headers = httpx.post(f"{url}/predict", json={"text": "good"}).headers
    (request,) = requests(collector)
    found = stages(collector, request)
    in_order = [found[name] for name in ("tokenize", "queue", "infer")]
    edges = [
        edge for span in in_order for edge in (span.start_time_unix_nano, span.end_time_unix_nano)
    ]

    assert len(found) == 3
    assert edges == sorted(edges)
    assert request.start_time_unix_nano <= edges[0]
    assert edges[-1] <= request.end_time_unix_nano
    for span in in_order:
        took_ms = (span.end_time_unix_nano - span.start_time_unix_nano) / 1e6
        assert span.trace_id == request.trace_id
        assert took_ms == pytest.approx(float(headers[f"x-{span.name}-ms"]), abs=0.01)


def test_batches_are_linked_to_exactly_those_whose_texts_they_ran(
    package: Package, listening: Listening, collector: Any
) -> None:
    """No text is lost: a batch's texts are its requests', a request's are its batches', both ways round."""
    calls = [(TEXTS * 3)[n : n + 1 + n % 7] for n in range(12)]
    with (
        listening(package, otlp_endpoint=collector.url, cache_bytes=0) as url,
        httpx.Client(base_url=url) as client,
        ThreadPoolExecutor(6) as callers,
    ):
        list(callers.map(lambda texts: client.post("/predict", json={"texts": texts}), calls))
    asked = {span.span_id: attributes(span)["miniml.texts"] for span in requests(collector)}
    ran: Counter[bytes] = Counter()
    for batch in batches(collector):
        links = {link.span_id: attributes(link)["miniml.texts"] for link in batch.links}
        ran.update(links)
        said = attributes(batch)
        assert sum(links.values()) == said["miniml.batch.texts"]
        padded = said["miniml.batch.texts"] * said["miniml.batch.padded_length"]
        assert 0 < said["miniml.batch.useful_tokens"] <= padded
        assert said["miniml.batch.actual_ms"] > 0
        assert said["miniml.batch.expected_ms"] > 0
    back = {
        (link.span_id, request.span_id)
        for request in requests(collector)
        for link in stages(collector, request)["infer"].links
    }
    forth = {(b.span_id, link.span_id) for b in batches(collector) for link in b.links}

    assert sorted(asked.values()) == sorted(map(len, calls))
    assert dict(ran) == asked
    assert back == forth


def test_known_and_joined_texts_leave_no_loose_ends(
    package: Package, listening: Listening, collector: Any
) -> None:
    """Whoever computed it: each link leads to a span, and what was known neither waited nor ran."""
    with (
        listening(package, otlp_endpoint=collector.url) as url,
        httpx.Client(base_url=url) as client,
        ThreadPoolExecutor(8) as callers,
    ):
        for text in TEXTS:
            body = {"texts": [text, text]}
            answers = callers.map(lambda b: client.post("/predict", json=b), [body] * 8)
            assert all(answer.status_code == 200 for answer in answers)
        client.post("/predict", json={"texts": TEXTS})
        text = client.get("/metrics").text
    there = {span.span_id for span in collector.spans}
    ran = sum(attributes(batch)["miniml.batch.texts"] for batch in batches(collector))

    assert len(requests(collector)) == 8 * len(TEXTS) + 1
    assert f"\nminiml_texts_computed_total {float(ran)}\n" in text
    assert all(link.span_id in there for span in collector.spans for link in span.links)
    for request in requests(collector):
        said, found = attributes(request), stages(collector, request)
        if said["miniml.cached"] == said["miniml.texts"]:
            assert found.keys() == {"tokenize"}
        else:
            assert found.keys() == {"tokenize", "queue", "infer"}
            assert len(found["infer"].links) == 1
        for span in found.values():
            assert request.start_time_unix_nano <= span.start_time_unix_nano
            assert span.start_time_unix_nano <= span.end_time_unix_nano
            assert span.end_time_unix_nano <= request.end_time_unix_nano


@pytest.mark.parametrize(("share", "followed"), [(1.0, False), (0.0, True)])
def test_the_caller_decides_where_it_traces(
    package: Package, listening: Listening, collector: Any, *, share: float, followed: bool
) -> None:
    """A trace that is sampled is followed at any share, one that is not is never; nor are its batches."""
    told = SAMPLED if followed else NOT_SAMPLED
    with listening(package, otlp_endpoint=collector.url, trace_share=share) as url:
        for text in TEXTS:
            headers = {"traceparent": told}
            assert httpx.post(f"{url}/predict", json={"text": text}, headers=headers).is_success
        if not share:
            assert httpx.post(f"{url}/predict", json={"text": "very good"}).is_success

    assert len(requests(collector)) == len(batches(collector)) == (len(TEXTS) if followed else 0)


@pytest.mark.parametrize("odd", ["", "00-0-0-01", f"00-{'0' * 32}-{PARENT}-01", "ff" + SAMPLED[2:]])
def test_a_trace_that_cannot_be_is_begun_anew(
    package: Package, listening: Listening, collector: Any, odd: str
) -> None:
    """A header that W3C does not allow is as none: a trace of its own, without a parent."""
    with listening(package, otlp_endpoint=collector.url) as url:
        httpx.post(f"{url}/predict", json={"text": "good"}, headers={"traceparent": odd})
    (span,) = requests(collector)

    assert span.parent_span_id == b""
    assert span.trace_id.hex() not in (TRACE, "0" * 32)


def test_refusals_say_why(package: Package, listening: Listening, collector: Any) -> None:
    """Each has its status and the error's type; only what is our fault is a failure."""
    headers = {"x-deadline-ms": "0.000001"}
    with listening(package, otlp_endpoint=collector.url) as url:
        httpx.post(f"{url}/predict", content=b"{")
        httpx.post(f"{url}/", json={"inputs": ""})
        httpx.post(f"{url}/predict", json={"text": "good"}, headers=headers)
    found = {
        (span.name, attributes(span)["error.type"]): (
            attributes(span)["http.response.status_code"],
            span.status.code,
        )
        for span in requests(collector)
    }

    assert found == {
        ("POST /predict", "MalformedBody"): (400, Status.STATUS_CODE_UNSET),
        ("POST /", "WrongInput"): (422, Status.STATUS_CODE_UNSET),
        ("POST /predict", "DeadlineExceeded"): (504, Status.STATUS_CODE_ERROR),
    }


def test_a_key_is_named_and_never_shown(
    package: Package, listening: Listening, collector: Any, tmp_path: Any
) -> None:
    """Spans say whose request it was, and who had no key; texts and secrets stand in none."""
    _, secret = create_key(tmp_path / "keys.json", "web")
    keys = {"otlp_endpoint": collector.url, "keys": str(tmp_path / "keys.json")}
    body = {"text": "marker good"}
    with listening(package, **keys) as url:
        for given in (secret, "mm_none_none"):
            asked = {"authorization": f"Bearer {given}"}
            httpx.post(f"{url}/predict", json=body, headers=asked)
    said = [attributes(span) for span in requests(collector)]
    everything = b"".join(each.SerializeToString() for each in collector.taken)

    assert [one.get("enduser.id") for one in said] == ["web", None]
    assert said[1]["error.type"] == "Unauthenticated"
    assert secret.encode() not in everything
    assert b"marker" not in everything


def test_each_line_is_a_request(package: Package, listening: Listening, collector: Any) -> None:
    """Lines of a stream have spans of their own, numbered, in their caller's trace."""
    lines = [json.dumps({"text": "good"}), "{", json.dumps({"text": "bad"})]
    headers = {"content-type": "application/x-ndjson", "traceparent": SAMPLED}
    with listening(package, otlp_endpoint=collector.url) as url:
        httpx.post(f"{url}/predict", content="\n".join(lines), headers=headers)
    found = {attributes(s)["miniml.line"]: attributes(s) for s in requests(collector)}

    assert {span.parent_span_id.hex() for span in requests(collector)} == {PARENT}
    assert {span.name for span in requests(collector)} == {"POST /predict line"}
    assert [found[n].get("error.type") for n in (1, 2, 3)] == [None, "MalformedBody", None]


@pytest.mark.parametrize("how", ["gone", "failing", "silent"])
@pytest.mark.usefixtures("short_queue")
def test_a_collector_that_is_down_harms_nobody(
    package: Package,
    listening: Listening,
    collector: Any,
    caplog: pytest.LogCaptureFixture,
    *,
    how: str,
) -> None:
    """Answers come, what does not fit is dropped and counted, it is said once, and the end is near."""
    collector.status = 500
    silent = socket.create_server(("127.0.0.1", 0))  # nobody takes what comes
    there = {
        "gone": "http://127.0.0.1:1",
        "failing": collector.url,
        "silent": f"http://127.0.0.1:{silent.getsockname()[1]}",
    }
    with silent, listening(package, otlp_endpoint=there[how], cache_bytes=0) as url:
        for _ in range(20):
            assert httpx.post(f"{url}/predict", json={"text": "good"}).is_success
        text = httpx.get(f"{url}/metrics").text
        began_s = time.monotonic()
    took_s = time.monotonic() - began_s
    dropped = [line for line in text.splitlines() if line.startswith("miniml_trace_spans_dropped_")]
    said = [record.getMessage() for record in caplog.records if "collector" in record.getMessage()]

    assert float(dropped[0].split()[1]) >= 20 * 5 - 8 - 8  # some wait, some are being sent
    assert took_s < 20  # it is three seconds at most; a machine may be slow
    assert [message for message in said if "takes no spans" in message] == said[:1] == said


def test_the_standard_environment_is_enough(
    package: Package, listening: Listening, collector: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OTEL_EXPORTER_OTLP_ENDPOINT turns traces on, OTEL_SERVICE_NAME names who sends."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_SERVICE_NAME", "reviews")
    with listening(package) as url:
        httpx.post(f"{url}/predict", json={"text": "good"})

    assert len(requests(collector)) == 1
    assert {attributes(r.resource)["service.name"] for r in collector.taken} == {"reviews"}
