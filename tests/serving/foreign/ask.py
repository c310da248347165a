"""Ask a server by clients of others' making; run by their own environment, prints one JSON document.

python ask.py URL MODEL < texts.json      -> {client: {"label": [...], "scores": [[...], ...]}}
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
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig

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


async def kserve(url: str, model: str, texts: list[str]) -> dict[str, Any]:
    """Of KServe's own client."""
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    assert await client.is_server_live(url)
    assert await client.is_model_ready(url, model)
    tensor = InferInput(name="text", shape=[len(texts)], datatype="BYTES", data=texts)
    request = InferRequest(model_name=model, infer_inputs=[tensor])
    answer = await client.infer(url, request, model_name=model)
    outputs = {output.name: output for output in answer.outputs}
    scores = np.array(outputs["scores"].data).reshape(outputs["scores"].shape)
    return {"label": list(outputs["label"].data), "scores": scores.tolist()}


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
    url, model = sys.argv[1:]
    texts = json.load(sys.stdin)
    address = urlsplit(url).netloc
    answers = {
        "triton, raw": triton(address, model, texts, binary=True),
        "triton, JSON": triton(address, model, texts, binary=False),
        "triton, asyncio": asyncio.run(triton_async(address, model, texts)),
        "hub": hub(url, texts),
        "kserve": asyncio.run(kserve(url, model, texts)),
    }
    sys.stdout.write(json.dumps(answers))


if __name__ == "__main__":
    main()
