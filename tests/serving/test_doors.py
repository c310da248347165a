"""Laws of the front doors: the same answers at each, in its own words."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import httpx
import numpy as np
import pytest

from serving.engine import Engine, prediction
from serving.package import Package

MakePackage = Callable[..., Package]
Listening = Callable[..., AbstractContextManager[str]]
TEXTS = ["good", "the soup was very bad and cold", "not warm " * 40, "staff", "ünïcode ✓ 好"]
RAW_LENGTH = "Inference-Header-Content-Length"


@pytest.fixture(params=["single_label", "multi_label"])
def served(request: pytest.FixtureRequest, make_package: MakePackage) -> Package:
    """A package of each task."""
    return make_package(task=request.param)


@pytest.fixture
def client(served: Package, listening: Listening) -> Any:
    """Of a real server."""
    with listening(served) as url, httpx.Client(base_url=url, trust_env=False) as client:
        yield client


def expected(package: Package, texts: list[str]) -> list[dict[str, float]]:
    """Every label's score, of each text alone."""
    labels = package.config.labels
    rows = Engine(package).logits(texts)
    return [dict(zip(labels, prediction(row, package).scores, strict=True)) for row in rows]


def infer_body(texts: list[str], **more: Any) -> dict[str, Any]:
    """Open Inference Protocol, texts as JSON."""
    tensor = {"name": "text", "shape": [len(texts)], "datatype": "BYTES", "data": texts}
    return {"inputs": [tensor], **more}


def doors(client: httpx.Client, package: Package, texts: list[str]) -> dict[str, Any]:
    """Scores by label of every text, as each door tells them."""
    labels = package.config.labels

    def post(path: str, body: dict[str, Any]) -> Any:
        response = client.post(path, json=body)
        assert response.status_code == 200, response.text
        return response.json()

    def named(rows: list[list[dict[str, Any]]]) -> list[dict[str, float]]:
        return [{one["label"]: one["score"] for one in row} for row in rows]

    infer = post(f"/v2/models/{package.config.name}/infer", infer_body(texts))
    outputs = {output["name"]: output for output in infer["outputs"]}
    table = np.array(outputs["scores"]["data"]).reshape(outputs["scores"]["shape"])
    lines = client.post(
        "/predict",
        content="\n".join(json.dumps({"text": t, "scores": "all"}) for t in texts),
        headers={"content-type": "application/x-ndjson"},
    )
    return {
        "native": [a["scores"] for a in post("/predict", {"texts": texts, "scores": "all"})],
        "top_k": named([a["top"] for a in post("/predict", {"texts": texts, "top_k": 99})]),
        "lines": [json.loads(line)["scores"] for line in lines.text.splitlines()],
        "hub": named(post("/", {"inputs": texts})),
        "inference": named(post("/predict", {"inputs": texts})),
        "classify": [
            dict(zip(labels, one["probs"], strict=True))
            for one in post("/v1/classify", {"input": texts})["data"]
        ],
        "open inference": [dict(zip(labels, map(float, row), strict=True)) for row in table],
    }


def test_every_door_gives_the_same_answers(
    client: httpx.Client, served: Package, texts: list[str]
) -> None:
    """The engine's scores, to a millionth, of every label of 200 texts and a few odd ones, in order."""
    asked = [*texts, *TEXTS]
    wanted = expected(served, asked)
    for door, answers in doors(client, served, asked).items():
        assert len(answers) == len(asked), door
        for got, want in zip(answers, wanted, strict=True):
            assert got == pytest.approx(want, abs=1e-6), door


def test_labels_agree_at_every_door(
    client: httpx.Client, served: Package, texts: list[str]
) -> None:
    """The likeliest label of 200 texts is the same wherever one is named."""
    native = client.post("/predict", json={"texts": texts}).json()
    infer = client.post(f"/v2/models/{served.config.name}/infer", json=infer_body(texts)).json()
    classified = client.post("/v1/classify", json={"input": texts}).json()
    ranked = client.post("/", json={"inputs": texts}).json()
    names = next(o["data"] for o in infer["outputs"] if o["name"] == "label")

    assert [answer["label"] for answer in native] == [name or None for name in names]
    assert [one["label"] for one in classified["data"]] == [a["label"] for a in native]
    for answer, row in zip(native, ranked, strict=True):
        assert answer["label"] in (None, row[0]["label"])
        assert [one["score"] for one in row] == sorted((o["score"] for o in row), reverse=True)


def test_options_of_the_native_door(package: Package, listening: Listening) -> None:
    """Each option adds what it says and changes nothing else."""
    with (
        listening(package, cache_bytes=0) as url,
        httpx.Client(base_url=url, trust_env=False) as client,
    ):

        def ask(**options: Any) -> Any:
            response = client.post("/predict", json={"text": TEXTS[1], **options})
            return response.json() | {"status": response.status_code}

        plain = ask()
        scores = expected(package, TEXTS[1:2])[0]
        ranked = sorted(scores.items(), key=lambda pair: -pair[1])

        assert ask(top_k=2) == plain | {
            "top": [{"label": label, "score": pytest.approx(score)} for label, score in ranked[:2]]
        }
        assert ask(scores="all") == plain | {"scores": pytest.approx(scores)}
        row = Engine(package).logits(TEXTS[1:2])[0]
        logits = dict(zip(package.config.labels, row.tolist(), strict=True))
        assert ask(logits=True) == plain | {"logits": logits}
        timings = ask(timings=True).pop("timings")
        assert set(timings) == {"tokenize_ms", "queue_ms", "infer_ms"}
        assert ask(abstain_below=plain["score"]) == plain
        assert ask(abstain_below=1.0) == plain | {"label": None}
        assert ask(priority="bulk", deadline_ms=60_000) == plain
        assert ask(deadline_ms=1e-6)["status"] == 504
        assert ask(truncate=False) == plain
        long = client.post("/predict", json={"text": TEXTS[2], "truncate": False})
        assert (long.status_code, long.json()["error"]["type"]) == (422, "TextTooLong")


def test_a_threshold_of_the_callers_own(make_package: MakePackage, listening: Listening) -> None:
    """It replaces the package's: 0 gives every label, 1 none."""
    package = make_package(task="multi_label")
    with listening(package) as url, httpx.Client(base_url=url, trust_env=False) as client:
        every, none = (
            client.post("/predict", json={"text": "good", "threshold": threshold}).json()
            for threshold in (0, 1)
        )

    assert {given["label"] for given in every["labels"]} == set(package.config.labels)
    assert (none["label"], none["labels"]) == (None, [])


def test_a_document_in_windows(package: Package, listening: Listening) -> None:
    """Its logits are the mean or the greatest of its windows' own; a short text's are its own."""
    words = TEXTS[2].split()
    parts = [" ".join(words[start : start + 30]) for start in range(0, len(words), 30)]
    rows = Engine(package).logits(parts)
    labels = package.config.labels
    with listening(package) as url, httpx.Client(base_url=url, trust_env=False) as client:
        for aggregate, wanted in (("mean", rows.mean(axis=0)), ("max", rows.max(axis=0))):
            body = {"texts": [TEXTS[2], "good"], "logits": True}
            window = {"stride": 0, "aggregate": aggregate}
            long, short = client.post("/predict", json=body | {"window": window}).json()
            plain = client.post("/predict", json={"text": "good", "logits": True}).json()

            assert long["logits"] == pytest.approx(dict(zip(labels, wanted.tolist(), strict=True)))
            assert short == plain


def test_one_text_as_inputs(client: httpx.Client) -> None:
    """The hub's way nests it in a list, text-embeddings-inference's does not; a text may be `inputs`."""
    nested = client.post("/", json={"inputs": "good"}).json()
    flat = client.post("/predict", json={"inputs": "good"}).json()
    native = client.post("/predict", json={"text": "inputs"})

    assert nested == [flat]
    assert "label" in native.json()


def test_a_list_of_two_is_two_texts_unless_nested(
    make_package: MakePackage, listening: Listening
) -> None:
    """To a pair model a pair is a list in the list; to a model of one text it is refused."""
    with listening(make_package(text_pair=True)) as url:
        pair = httpx.post(f"{url}/predict", json={"inputs": [["good", "bad"]]})
        native = httpx.post(f"{url}/predict", json={"text": "good", "text_pair": "bad"})
        two = httpx.post(f"{url}/predict", json={"inputs": ["good", "bad"]})
    with listening(make_package()) as url:
        refused = httpx.post(f"{url}/predict", json={"inputs": [["good", "bad"]]})
        texts = httpx.post(f"{url}/predict", json={"inputs": ["good", "bad"]}).json()

    assert pair.json()[0][0]["score"] == native.json()["score"]
    assert (two.status_code, refused.status_code, len(texts)) == (422, 422, 2)


def test_metadata_and_health_of_the_open_inference_protocol(
    client: httpx.Client, served: Package
) -> None:
    """Live, ready, and what goes in and out, by name and by version; other names are nowhere."""
    name, version = served.config.name, served.digest[:12]
    said = client.get(f"/v2/models/{name}").json()
    answer = client.post(f"/v2/models/{name}/versions/{version}/infer", json=infer_body(["good"]))
    paths = ["/v2/health/live", "/v2/health/ready", f"/v2/models/{name}/ready", "/health"]

    assert said["versions"] == [version]
    assert said == client.get(f"/v2/models/{name}/versions/{version}").json()
    assert client.get("/v2").json()["extensions"] == ["binary_tensor_data"]
    assert [client.get(path).status_code for path in paths] == [200] * len(paths)
    assert {o["name"] for o in said["outputs"]} == {o["name"] for o in answer.json()["outputs"]}
    for output in answer.json()["outputs"]:
        assert int(np.prod(output["shape"])) == len(output["data"])
    assert client.get("/v2/models/other").status_code == 404


def test_raw_tensors_are_the_same_numbers(client: httpx.Client, served: Package) -> None:
    """Texts and answers as bytes after the JSON: equal to those in the JSON, output by output."""
    path = f"/v2/models/{served.config.name}/infer"
    raw = b"".join(struct.pack("<I", len(t.encode())) + t.encode() for t in TEXTS)
    tensor = {"name": "text", "shape": [len(TEXTS), 1], "datatype": "BYTES"}
    head = json.dumps(
        {
            "id": "mine",
            "inputs": [tensor | {"parameters": {"binary_data_size": len(raw)}}],
            "parameters": {"binary_data_output": True},
        }
    ).encode()
    got = client.post(path, content=head + raw, headers={RAW_LENGTH: str(len(head))})
    length = int(got.headers[RAW_LENGTH])
    answer, rest = json.loads(got.content[:length]), got.content[length:]
    plain = client.post(path, json=infer_body(TEXTS, id="mine")).json()

    assert (answer["id"], plain["id"]) == ("mine", "mine")
    for output, in_json in zip(answer["outputs"], plain["outputs"], strict=True):
        size = output["parameters"]["binary_data_size"]
        part, rest = rest[:size], rest[size:]
        assert (output["name"], output["shape"]) == (in_json["name"], in_json["shape"])
        if output["datatype"] == "FP32":
            np.testing.assert_array_equal(
                np.frombuffer(part, "<f4"), np.array(in_json["data"], np.float32)
            )
        else:
            elements = []
            while part:
                (size,) = struct.unpack_from("<I", part)
                elements.append(part[4 : 4 + size].decode())
                part = part[4 + size :]
            assert elements == in_json["data"]
    assert rest == b""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"inputs": []}, "got none"),
        ({"inputs": [{"name": "t", "shape": [1], "datatype": "BYTES", "data": ["a"]}]}, "got t"),
        ({"inputs": [{"name": "text", "shape": [1], "datatype": "INT8", "data": [1]}]}, "BYTES"),
        ({"inputs": [{"name": "text", "shape": [2], "datatype": "BYTES", "data": ["a"]}]}, "shape"),
        ({"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": [1]}]}, "strings"),
        ({"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES"}]}, "neither data"),
        ({"inputs": infer_body(["a"])["inputs"] * 2}, "twice"),
        ({"outputs": [{"name": "label"}, {"name": "colour"}]}, "no output colour"),
        ({"inputs": infer_body([" "])["inputs"]}, "is empty"),
    ],
)
def test_tensors_that_are_none_are_refused(
    package: Package, listening: Listening, change: dict[str, Any], words: str
) -> None:
    """Each with a 422 and a sentence on what was seen."""
    with listening(package) as url:
        response = httpx.post(f"{url}/v2/models/tiny/infer", json=infer_body(["a"]) | change)

    assert response.status_code == 422
    assert words in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("size", "raw", "length"),
    [
        (9, b"\x04\0\0\0good", None),  # more than there is
        (8, b"\x05\0\0\0good", None),  # an element longer than the bytes
        (3, b"\x04\0\0", None),
        (8, b"\x04\0\0\0goodmore", None),
        (8, b"\x04\0\0\0good", "1000000"),
        (8, b"\x04\0\0\0good", "-1"),
        (8, b"\x04\0\0\0good", "ten"),
    ],
)
def test_raw_bytes_that_do_not_fit_are_refused(
    package: Package, listening: Listening, size: int, raw: bytes, length: str | None
) -> None:
    """Never read beyond what was sent: a 400 and a sentence."""
    tensor = {"name": "text", "shape": [1], "datatype": "BYTES"}
    head = json.dumps({"inputs": [tensor | {"parameters": {"binary_data_size": size}}]}).encode()
    headers = {RAW_LENGTH: length or str(len(head))}
    with listening(package) as url:
        response = httpx.post(f"{url}/v2/models/tiny/infer", content=head + raw, headers=headers)

    assert (response.status_code, response.json()["error"]["type"]) == (400, "MalformedBody")


def test_a_model_that_is_not_served_here_is_not_answered_for(
    package: Package, listening: Listening
) -> None:
    """A classify call may name the model, the right one."""
    with listening(package) as url:
        right, wrong = (
            httpx.post(f"{url}/v1/classify", json={"input": "good", "model": model})
            for model in ("tiny", "huge")
        )

    assert right.json()["usage"]["total_tokens"] == 3
    assert (wrong.status_code, "huge" in wrong.text) == (422, True)
