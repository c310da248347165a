"""Ask a server by clients of others' making; run by their own environment, prints one JSON document.

python ask.py URL GRPC MODEL < texts.json      -> {client: {"label": [...], "scores": [[...], ...]}}
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import tritonclient.http
import tritonclient.http.aio
from huggingface_hub import InferenceClient
from kserve import (
    InferenceGRPCClient,
    InferenceRESTClient,
    InferInput,
    InferRequest,
    RESTConfig,
)
from open_inference.openapi.client import OpenInferenceClient
from open_inference.openapi.types.inference_request import InferenceRequest

NAMES = ("label", "scores")


def triton_parts(module: Any, texts: list[str], *, binary: bool) -> tuple[list[Any], list[Any]]:
    """Inputs and outputs as Triton's client wants them."""
    tensor = module.InferInput("text", [len(texts)], "BYTES")
    tensor.set_data_from_numpy(np.array([t.encode() for t in texts], object), binary_data=binary)
    outputs = [module.InferRequestedOutput(name, binary_data=binary) for name in NAMES]
    return [tensor], outputs


def document(answer: Any) -> dict[str, Any]:
    """Labels and scores of a Triton answer."""
    labels, scores = (answer.as_numpy(name) for name in NAMES)
    names = [label.decode() if isinstance(label, bytes) else label for label in labels.tolist()]
    return {"label": names, "scores": scores.tolist()}


def triton(address: str, model: str, texts: list[str], *, binary: bool) -> dict[str, Any]:
    """Of `tritonclient.http`; raw tensors are what it does when nothing is said."""
    with tritonclient.http.InferenceServerClient(address) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready(model)
        assert client.get_model_metadata(model)["name"] == model
        inputs, outputs = triton_parts(tritonclient.http, texts, binary=binary)
        return document(client.infer(model, inputs, outputs=outputs))


async def triton_async(address: str, model: str, texts: list[str]) -> dict[str, Any]:
    """Of `tritonclient.http.aio`."""
    client = tritonclient.http.aio.InferenceServerClient(address)
    try:
        inputs, outputs = triton_parts(tritonclient.http.aio, texts, binary=True)
        return document(await client.infer(model, inputs, outputs=outputs))
    finally:
        await client.close()


def kserve_request(model: str, texts: list[str], *, raw: bool) -> InferRequest:
    """For either of KServe's clients."""
    tensor = InferInput(name="text", shape=[len(texts)], datatype="BYTES", data=texts)
    if raw:
        tensor = InferInput(name="text", shape=[len(texts)], datatype="BYTES")
        tensor.set_data_from_numpy(np.array([t.encode() for t in texts], object), binary_data=True)
    return InferRequest(model_name=model, infer_inputs=[tensor])


def kserve_document(answer: Any) -> dict[str, Any]:
    """Labels and scores of an answer to either."""
    outputs = {output.name: output for output in answer.outputs}
    labels = outputs["label"].as_numpy().tolist()
    names = [label.decode() if isinstance(label, bytes) else label for label in labels]
    return {"label": names, "scores": outputs["scores"].as_numpy().tolist()}


async def kserve(url: str, model: str, texts: list[str]) -> dict[str, Any]:
    """Of KServe's own client over HTTP."""
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    assert await client.is_server_live(url)
    assert await client.is_model_ready(url, model)
    request = kserve_request(model, texts, raw=False)
    return kserve_document(await client.infer(url, request, model_name=model))


async def kserve_grpc(address: str, model: str, texts: list[str], *, raw: bool) -> dict[str, Any]:
    """Of KServe's own client over gRPC."""
    async with InferenceGRPCClient(address) as client:
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert await client.is_model_ready(model)
        return kserve_document(await client.infer(kserve_request(model, texts, raw=raw)))


def open_inference(url: str, model: str, texts: list[str]) -> dict[str, Any]:
    """Of `open-inference-openapi`, generated from the protocol's own contract."""
    client = OpenInferenceClient(base_url=url)
    client.check_server_liveness()
    client.check_model_readiness(model)
    assert client.read_server_metadata().name == "miniml"
    assert client.read_model_metadata(model).name == model
    tensor = {"name": "text", "shape": [len(texts)], "datatype": "BYTES", "data": texts}
    answer = client.model_infer(model, request=InferenceRequest(inputs=[tensor]))
    outputs = {output.name: output for output in answer.outputs}
    scores = np.array(outputs["scores"].data.__root__).reshape(outputs["scores"].shape)
    return {"label": outputs["label"].data.__root__, "scores": scores.tolist()}


def hub(url: str, texts: list[str]) -> dict[str, Any]:
    """Of `InferenceClient(model=URL).text_classification`, as typed; scores by label."""
    client = InferenceClient(model=url)
    answers = [client.text_classification(text) for text in texts]
    assert client.text_classification(texts[0], top_k=2) == answers[0][:2]
    return {
        "label": [answer[0].label for answer in answers],
        "by_label": [{one.label: one.score for one in answer} for answer in answers],
    }


def main() -> None:
    """All of them."""
    url, grpc, model = sys.argv[1:]
    texts = json.load(sys.stdin)
    address = urlsplit(url).netloc
    answers = {
        "triton, raw": triton(address, model, texts, binary=True),
        "triton, JSON": triton(address, model, texts, binary=False),
        "triton, asyncio": asyncio.run(triton_async(address, model, texts)),
        "hub": hub(url, texts),
        "kserve": asyncio.run(kserve(url, model, texts)),
        "kserve, gRPC": asyncio.run(kserve_grpc(grpc, model, texts, raw=False)),
        "kserve, gRPC, raw": asyncio.run(kserve_grpc(grpc, model, texts, raw=True)),
        "open inference": open_inference(url, model, texts),
    }
    sys.stdout.write(json.dumps(answers))


if __name__ == "__main__":
    main()
