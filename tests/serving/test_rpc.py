"""Laws of gRPC: the answers of the other doors, the same limits, and a code for every refusal."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from grpc import StatusCode

from serving import errors
from serving.access.keys import create_key
from serving.engine import Engine
from serving.grpc_door import Straight, wait_ready
from serving.package import Package
from serving.protocols import open_inference_pb2 as pb
from serving.protocols import rpc
from serving.protocols.calls import CALLS, SERVICE

MakePackage = Callable[..., Package]
Listening = Callable[..., AbstractContextManager[str]]
LIMITS = {"max_texts": 200, "max_text_chars": 1000, "max_body_bytes": 100_000}


@dataclass
class Beside:
    """Stands for gRPC's context: what came beside a message, and what is told beside its answer."""

    metadata: Sequence[tuple[str, str]] = ()
    caller: str = "ipv4:127.0.0.1:4711"
    left_s: float | None = None
    code: StatusCode = StatusCode.OK
    details: str = ""
    trailing: dict[str, str] = field(default_factory=dict)

    def invocation_metadata(self) -> Iterable[tuple[str, str]]:
        """What came."""
        return self.metadata

    def peer(self) -> str:
        """From whom."""
        return self.caller

    def time_remaining(self) -> float | None:
        """Seconds until the caller's deadline."""
        return self.left_s

    def set_code(self, code: StatusCode) -> None:
        """Of the answer."""
        self.code = code

    def set_details(self, details: str) -> None:
        """Of the answer."""
        self.details = details

    def set_trailing_metadata(self, trailing_metadata: list[tuple[str, str]]) -> None:
        """Behind the answer."""
        self.trailing = dict(trailing_metadata)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, build: Callable[[Path], Package]) -> Package:
    """One package for the laws that need no other."""
    return build(tmp_path_factory.mktemp("package") / "tiny")


@pytest.fixture(scope="module")
def address(shared: Package, listening_grpc: Listening) -> Iterator[str]:
    """Of one replica with small limits."""
    with listening_grpc(shared, **LIMITS) as address:
        yield address


def infer(texts: Sequence[str], *, raw: bool = False, **more: Any) -> pb.ModelInferRequest:
    """A call for *texts*, as raw bytes or as contents."""
    message = pb.ModelInferRequest(**({"model_name": "tiny", "id": "mine"} | more))
    add(message, "text", texts, raw=raw)
    return message


def add(message: pb.ModelInferRequest, name: str, texts: Sequence[str], *, raw: bool) -> None:
    """One more input."""
    encoded = [text.encode() for text in texts]
    tensor = message.inputs.add(name=name, datatype="BYTES", shape=[len(texts)])
    if raw:
        parts = [len(one).to_bytes(4, "little") + one for one in encoded]
        message.raw_input_contents.append(b"".join(parts))
    else:
        tensor.contents.bytes_contents.extend(encoded)


def call(address: str, name: str, message: Any, **metadata: str) -> tuple[Any, dict[str, str]]:
    """The answer, and what came behind it. Raises `grpc.RpcError`."""
    with grpc.insecure_channel(address) as channel:
        ask = channel.unary_unary(
            f"/{SERVICE}/{name}",
            request_serializer=CALLS[name].takes.SerializeToString,
            response_deserializer=CALLS[name].gives.FromString,
        )
        given = [(key.replace("_", "-"), value) for key, value in metadata.items()]
        answer, state = ask.with_call(message, metadata=given, timeout=60)
    return answer, dict(state.trailing_metadata())


def refused(address: str, name: str, message: Any, **metadata: str) -> Any:
    """The error that the call is answered by: code, details, trailing metadata."""
    with pytest.raises(grpc.RpcError) as caught:
        call(address, name, message, **metadata)
    return caught.value


def values(answer: pb.ModelInferResponse) -> dict[str, Any]:
    """Every output, whichever form it has."""
    found: dict[str, Any] = {}
    for place, tensor in enumerate(answer.outputs):
        raw = answer.raw_output_contents[place] if answer.raw_output_contents else None
        if tensor.datatype == "FP32":
            flat = tensor.contents.fp32_contents if raw is None else np.frombuffer(raw, "<f4")
            found[tensor.name] = np.array(flat, np.float32).reshape(list(tensor.shape))
        elif raw is None:
            found[tensor.name] = [one.decode() for one in tensor.contents.bytes_contents]
        else:
            found[tensor.name] = []
            while raw:
                size = int.from_bytes(raw[:4], "little")
                found[tensor.name].append(raw[4 : 4 + size].decode())
                raw = raw[4 + size :]
    return found


@pytest.mark.parametrize("task", ["single_label", "multi_label"])
def test_the_same_answers_as_predict(
    make_package: MakePackage,
    listening: Listening,
    listening_grpc: Listening,
    texts: list[str],
    task: str,
) -> None:
    """200 texts, as raw bytes and as contents: labels of /predict, its scores to a millionth."""
    package = make_package(task=task)
    with listening(package) as url:
        predicted = httpx.post(f"{url}/predict", json={"texts": texts, "scores": "all"}).json()
    scores = [list(one["scores"].values()) for one in predicted]
    logits = Engine(package).logits(texts)
    with listening_grpc(package) as address:
        for raw in (True, False):
            answer, _ = call(address, "ModelInfer", infer(texts, raw=raw))
            given = values(answer)

            assert bool(answer.raw_output_contents) == raw
            assert (answer.model_name, answer.model_version) == ("tiny", package.digest[:12])
            assert answer.id == "mine"
            assert given["label"] == [one["label"] or "" for one in predicted]
            np.testing.assert_allclose(given["scores"], scores, atol=1e-6)
            np.testing.assert_allclose(
                given["score"], [one["score"] for one in predicted], atol=1e-6
            )
            np.testing.assert_array_equal(given["logits"], logits)


def test_a_pair_is_two_inputs(make_package: MakePackage, listening_grpc: Listening) -> None:
    """Second texts go with the first ones; without them, or one too few, the call is refused."""
    package = make_package(text_pair=True)
    with listening_grpc(package) as address:
        message = infer(["good", "bad"])
        alone = refused(address, "ModelInfer", message)
        add(message, "text_pair", ["warm", "cold"], raw=False)
        answer, _ = call(address, "ModelInfer", message)
        del message.inputs[1]
        add(message, "text_pair", ["warm"], raw=False)
        short = refused(address, "ModelInfer", message)

    expected = Engine(package).logits(["good", "bad"], ["warm", "cold"])
    np.testing.assert_array_equal(values(answer)["logits"], expected)
    assert {alone.code(), short.code()} == {StatusCode.INVALID_ARGUMENT}
    assert "text_pair" in alone.details()


def test_only_the_outputs_that_are_wanted(address: str) -> None:
    """In the order in which they are named."""
    wanted = [{"name": "scores"}, {"name": "label"}]
    answer, _ = call(address, "ModelInfer", infer(["good"], outputs=wanted))

    assert [output.name for output in answer.outputs] == ["scores", "label"]


def test_health_and_metadata(address: str, shared: Package) -> None:
    """Live, ready, and what goes in and out; by version, too."""
    version = shared.digest[:12]
    live, _ = call(address, "ServerLive", pb.ServerLiveRequest())
    ready, _ = call(address, "ServerReady", pb.ServerReadyRequest())
    model, _ = call(address, "ModelReady", pb.ModelReadyRequest(name="tiny", version=version))
    server, _ = call(address, "ServerMetadata", pb.ServerMetadataRequest())
    about, _ = call(address, "ModelMetadata", pb.ModelMetadataRequest(name="tiny"))

    assert (live.live, ready.ready, model.ready) == (True, True, True)
    assert (server.name, server.version) == ("miniml", version)
    assert (about.name, about.versions, about.platform) == ("tiny", [version], "onnxruntime_fp32")
    assert [(one.name, one.datatype, one.shape) for one in about.inputs] == [
        ("text", "BYTES", [-1])
    ]
    assert [(one.name, one.datatype, one.shape) for one in about.outputs] == [
        ("label", "BYTES", [-1]),
        ("score", "FP32", [-1]),
        ("scores", "FP32", [-1, 3]),
        ("logits", "FP32", [-1, 3]),
    ]


def no_text(message: pb.ModelInferRequest, **change: Any) -> pb.ModelInferRequest:
    """*message* with its input changed."""
    for name, value in change.items():
        if name == "shape":
            message.inputs[0].shape[:] = value
        elif name == "contents":
            message.inputs[0].contents.bytes_contents[:] = value
        else:
            setattr(message.inputs[0], name, value)
    return message


BOTH_FORMS = infer(["good"], raw=True)
BOTH_FORMS.inputs[0].contents.bytes_contents.append(b"good")
TWICE = infer(["good"])
add(TWICE, "text", ["good"], raw=False)


@pytest.mark.parametrize(
    ("message", "code", "words"),
    [
        (infer(["good"], model_name="huge"), StatusCode.NOT_FOUND, "no model 'huge' here"),
        (infer(["good"], model_version="2"), StatusCode.NOT_FOUND, "no version '2' here"),
        (infer([" "]), StatusCode.INVALID_ARGUMENT, "text[0] is empty"),
        (infer([]), StatusCode.INVALID_ARGUMENT, "text is empty"),
        (infer(["good"] * 201), StatusCode.INVALID_ARGUMENT, "201 texts"),
        (infer(["g" * 1001]), StatusCode.INVALID_ARGUMENT, "1001 characters"),
        (infer(["g" * 999] * 101), StatusCode.INVALID_ARGUMENT, "the limit is 100000"),
        (infer(["a"], outputs=[{"name": "x"}]), StatusCode.INVALID_ARGUMENT, "no output x"),
        (pb.ModelInferRequest(model_name="tiny"), StatusCode.INVALID_ARGUMENT, "got none"),
        (no_text(infer(["a"]), name="t"), StatusCode.INVALID_ARGUMENT, "got t"),
        (no_text(infer(["a"]), datatype="INT8"), StatusCode.INVALID_ARGUMENT, "must have datatype"),
        (no_text(infer(["a"]), shape=[2]), StatusCode.INVALID_ARGUMENT, "has shape [2]"),
        (no_text(infer(["a"]), contents=[b"\xff"]), StatusCode.INVALID_ARGUMENT, "not UTF-8"),
        (TWICE, StatusCode.INVALID_ARGUMENT, "twice"),
        (BOTH_FORMS, StatusCode.INVALID_ARGUMENT, "send one"),
        (infer(["a"], raw_input_contents=[b"", b""]), StatusCode.INVALID_ARGUMENT, "got 2"),
        (
            infer(["a"], raw_input_contents=[b"\x09\0\0\0a"]),
            StatusCode.INVALID_ARGUMENT,
            "contents",
        ),
    ],
)
def test_what_cannot_be_answered_is_refused(
    address: str, message: pb.ModelInferRequest, code: StatusCode, words: str
) -> None:
    """With its code, a sentence on what was seen, and the kind of error as in HTTP's body."""
    error = refused(address, "ModelInfer", message)

    assert (error.code(), words in error.details()) == (code, True), error.details()
    assert hasattr(errors, dict(error.trailing_metadata())["x-error-type"])


@pytest.mark.parametrize("body", [b"\xff", b"\x0a\x02\xff\xff", b"{}"])
def test_bytes_that_are_no_message_are_refused(address: str, body: bytes) -> None:
    """As the caller's fault, not as ours."""
    with grpc.insecure_channel(address) as channel:
        ask = channel.unary_unary(f"/{SERVICE}/ModelInfer")
        with pytest.raises(
            grpc.RpcError, match=r"bytes are no inference\.ModelInferRequest"
        ) as got:
            ask(body, timeout=60)

    error: Any = got.value
    assert error.code() == StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("name", ["ModelReady", "ModelMetadata"])
def test_another_model_is_not_found(address: str, name: str) -> None:
    """Neither ready nor described."""
    error = refused(address, name, CALLS[name].takes(name="huge"))

    assert error.code() == StatusCode.NOT_FOUND


def test_what_is_told_beside_an_answer(address: str, shared: Package) -> None:
    """The package, whether the answer was known, the caller's own id; times are numbers."""
    first = call(address, "ModelInfer", infer(["beside"]), x_request_id="mine")[1]
    known = call(address, "ModelInfer", infer(["beside"]))[1]
    fresh = call(address, "ModelInfer", infer(["beside"]), cache_control="no-cache")[1]

    assert first["x-package-digest"] == shared.digest
    assert first["x-request-id"] == "mine"
    assert len({first["x-request-id"], known["x-request-id"], fresh["x-request-id"]}) == 3
    assert [told["x-cache"] for told in (first, known, fresh)] == ["miss", "hit", "miss"]
    assert all(float(first[f"x-{stage}-ms"]) >= 0 for stage in ("tokenize", "queue", "infer"))


def test_deadline_and_priority_are_metadata(address: str) -> None:
    """What cannot be answered in time is not; what is no number or no priority is refused."""
    now = {"x_deadline_ms": "0.000001", "cache_control": "no-cache"}
    late = refused(address, "ModelInfer", infer(["late"]), **now)
    wrong = [
        refused(address, "ModelInfer", infer(["good"]), x_deadline_ms="soon"),
        refused(address, "ModelInfer", infer(["good"]), x_priority="first"),
    ]
    bulk, _ = call(address, "ModelInfer", infer(["good"]), x_priority="bulk")

    assert late.code() == StatusCode.DEADLINE_EXCEEDED
    assert dict(late.trailing_metadata())["x-error-type"] == "DeadlineExceeded"
    assert [error.code() for error in wrong] == [StatusCode.INVALID_ARGUMENT] * 2
    assert len(bulk.outputs) == 4


def test_every_call_but_the_probes_asks_for_a_key(
    shared: Package, listening_grpc: Listening, tmp_path: Path
) -> None:
    """Without it, or with a wrong one, UNAUTHENTICATED; either spelling opens; probes are open."""
    _, secret = create_key(tmp_path / "keys.json", "web")
    messages = {name: signature.takes() for name, signature in CALLS.items()}
    messages |= {"ModelInfer": infer(["good"])}
    messages |= {name: CALLS[name].takes(name="tiny") for name in ("ModelReady", "ModelMetadata")}
    with listening_grpc(shared, keys=str(tmp_path / "keys.json")) as address:
        for name, message in messages.items():
            if name in ("ServerLive", "ServerReady"):
                call(address, name, message)
                continue
            closed = refused(address, name, message)
            assert closed.code() == StatusCode.UNAUTHENTICATED
            assert dict(closed.trailing_metadata())["www-authenticate"] == "Bearer"
            wrong = refused(address, name, message, authorization=f"Bearer {secret[:-1]}")
            assert wrong.code() == StatusCode.UNAUTHENTICATED
            call(address, name, message, authorization=f"Bearer {secret}")
            call(address, name, message, x_api_key=secret)


def test_a_quota_counts_texts_here_too(
    shared: Package, listening_grpc: Listening, tmp_path: Path
) -> None:
    """Beyond it RESOURCE_EXHAUSTED, with retry-after; what is refused is not counted."""
    _, secret = create_key(tmp_path / "keys.json", "web", texts_per_day=10)
    with listening_grpc(shared, keys=str(tmp_path / "keys.json")) as address:
        call(address, "ModelInfer", infer(["good"] * 6), x_api_key=secret)
        over = refused(address, "ModelInfer", infer(["good"] * 5), x_api_key=secret)
        call(address, "ModelInfer", infer(["good"] * 4), x_api_key=secret)

    assert over.code() == StatusCode.RESOURCE_EXHAUSTED
    assert 1 <= int(dict(over.trailing_metadata())["retry-after"]) <= 86_400


def kinds(kind: type[errors.ServingError]) -> Iterator[type[errors.ServingError]]:
    """*kind* and all below it."""
    yield kind
    for child in kind.__subclasses__():
        yield from kinds(child)


def test_every_error_has_a_code() -> None:
    """The caller's faults have codes that say so, ours others; whoever may come again is told so."""
    ours = {StatusCode.INTERNAL, StatusCode.DEADLINE_EXCEEDED}
    again = {StatusCode.RESOURCE_EXHAUSTED, StatusCode.UNAVAILABLE}
    for kind in kinds(errors.ServingError):
        code = rpc.code_of(kind.__new__(kind))
        if issubclass(kind, errors.Unavailable):
            assert code in again, kind
        elif issubclass(kind, errors.BadRequest):
            assert code not in ours | again | {StatusCode.OK}, kind
        else:
            assert code in ours, kind


def ask_directly(endpoint: Any, beside: Beside, message: pb.ModelInferRequest) -> Any:
    """The answer to *message* without a socket; what is told beside it is in *beside*."""
    return asyncio.run(endpoint.rpc.call("ModelInfer", message, beside))


@pytest.mark.parametrize("left_s", [0.0, 1e-9])
def test_the_callers_own_deadline_counts(
    shared: Package, replica: Callable[..., Any], left_s: float
) -> None:
    """Of gRPC's deadline and the one in metadata, the nearer is kept."""
    _, endpoint = replica(shared)
    beside = Beside(metadata=[("x-deadline-ms", "60000")], left_s=left_s)
    answer = ask_directly(endpoint, beside, infer(["good"]))

    assert (beside.code, len(answer.outputs)) == (StatusCode.DEADLINE_EXCEEDED, 0)


def test_a_bug_tells_nothing_of_itself(shared: Package, replica: Callable[..., Any]) -> None:
    """INTERNAL, with a sentence that holds nothing of what went wrong."""
    _, endpoint = replica(shared)
    beside = Beside()
    ask_directly(endpoint, beside, "no message at all")  # type: ignore[arg-type]

    assert (beside.code, beside.trailing["x-error-type"]) == (StatusCode.INTERNAL, "InternalError")
    assert "ByteSize" not in beside.details


@pytest.mark.parametrize(
    ("caller", "local"),
    [
        ("ipv4:127.0.0.1:4711", True),
        ("ipv4:127.9.9.9:1", True),
        ("ipv6:%5B::1%5D:4711", True),
        ("ipv6:[::ffff:127.0.0.1]:4711", True),
        ("unix:/tmp/socket", True),
        ("ipv4:192.0.2.7:4711", False),
        ("ipv6:%5B2001:db8::7%5D:4711", False),
        ("ipv6:%5Bfe80::7%25eth0%5D:4711", False),
        ("ipv6:%5B::ffff:192.0.2.7%5D:4711", False),
        ("somewhere", False),
    ],
)
def test_who_listens_here_alone_answers_here_alone(
    shared: Package, replica: Callable[..., Any], caller: str, local: bool
) -> None:
    """Ray listens on every interface; a caller of another machine is told nothing but that."""
    _, endpoint = replica(shared, local_only=True)
    beside = Beside(caller=caller)
    answer = ask_directly(endpoint, beside, infer(["good"]))

    assert beside.code == (StatusCode.OK if local else StatusCode.PERMISSION_DENIED)
    assert bool(answer.outputs) == local


class Waiting:
    """Stands for an endpoint that never answers; tells when a call came, and when it was given up."""

    def __init__(self) -> None:
        self.rpc = self
        self.began, self.ended = asyncio.Event(), asyncio.Event()

    async def call(self, name: str, message: Any, context: Any) -> Any:
        """Never."""
        del name, message, context
        self.began.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.set()


@pytest.mark.parametrize("by_deadline", [False, True])
def test_a_caller_who_leaves_ends_the_call(by_deadline: bool) -> None:
    """Whether it hangs up or its own deadline passes, nobody works for it any longer."""

    async def run() -> None:
        endpoint: Any = Waiting()
        server = grpc.aio.server()
        nobody = SimpleNamespace(**dict.fromkeys(CALLS))
        server.add_generic_rpc_handlers((Straight(nobody, endpoint=lambda: endpoint),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            ask = channel.unary_unary(
                f"/{SERVICE}/ModelInfer", request_serializer=pb.ModelInferRequest.SerializeToString
            )
            asked = ask(infer(["good"]), timeout=0.5 if by_deadline else None)
            async with asyncio.timeout(30):
                await endpoint.began.wait()
                if not by_deadline:
                    asked.cancel()
                await endpoint.ended.wait()
        await server.stop(0)

    asyncio.run(run())


def test_waiting_for_a_server_ends() -> None:
    """At once when whoever waits gives up, and with an error when nobody comes."""
    wait_ready("127.0.0.1:1", timeout_s=60, alive=lambda: False)
    with pytest.raises(errors.ServingError, match="does not answer"):
        wait_ready("127.0.0.1:1", timeout_s=0, alive=lambda: True)
