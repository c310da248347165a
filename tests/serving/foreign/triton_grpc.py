"""Ask by Triton's gRPC clients, right and wrong; run by the clients' environment, prints JSON.

Apart from `ask.py`: KServe's client cannot be imported beside Triton's, both register messages of the
same names.

python triton_grpc.py ADDRESS MODEL KEY < texts.json      -> {"answers": {...}, "codes": {...}}
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.grpc.aio

NAMES = ("label", "scores")


def parts(module: Any, texts: list[str]) -> tuple[list[Any], list[Any]]:
    """Inputs and outputs."""
    tensor = module.InferInput("text", [len(texts)], "BYTES")
    tensor.set_data_from_numpy(np.array([text.encode() for text in texts], object))
    return [tensor], [module.InferRequestedOutput(name) for name in NAMES]


def document(answer: Any) -> dict[str, Any]:
    """Labels and scores."""
    labels, scores = (answer.as_numpy(name).tolist() for name in NAMES)
    return {"label": [label.decode() for label in labels], "scores": scores}


def answered(client: Any, model: str, texts: list[str], headers: dict[str, str]) -> dict[str, Any]:
    """Of the client without asyncio, after all that can be asked beside."""
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(model, headers=headers)
    assert client.get_server_metadata(headers=headers).name == "miniml"
    assert client.get_model_metadata(model, headers=headers).inputs[0].name == "text"
    inputs, outputs = parts(tritonclient.grpc, texts)
    return document(client.infer(model, inputs, outputs=outputs, headers=headers))


async def answered_async(
    address: str, model: str, texts: list[str], headers: dict[str, str]
) -> dict[str, Any]:
    """Of `tritonclient.grpc.aio`."""
    async with tritonclient.grpc.aio.InferenceServerClient(address) as client:
        assert await client.is_server_ready()
        inputs, outputs = parts(tritonclient.grpc.aio, texts)
        return document(await client.infer(model, inputs, outputs=outputs, headers=headers))


def codes(client: Any, model: str, headers: dict[str, str]) -> dict[str, str]:
    """What each wrong call is told."""

    def code(texts: list[str], name: str = model, **more: Any) -> str:
        inputs, _ = parts(tritonclient.grpc, texts)
        try:
            client.infer(name, inputs, **({"headers": headers} | more))
        except tritonclient.grpc.InferenceServerException as error:
            return str(error.status())
        return "answered"

    late = headers | {"x-deadline-ms": "0.000001", "cache-control": "no-cache"}
    return {
        "no key": code(["good"], headers={}),
        "wrong key": code(["good"], headers={"x-api-key": "mm_wrong_key"}),
        "wrong model": code(["good"], "huge"),
        "wrong version": code(["good"], model_version="2"),
        "empty text": code([" "]),
        "too many texts": code(["good"] * 1025),
        "too late": code(["good"], headers=late),
    }


def main() -> None:
    """Both."""
    address, model, key = sys.argv[1:]
    texts = json.load(sys.stdin)
    headers = {"authorization": f"Bearer {key}"}
    with tritonclient.grpc.InferenceServerClient(address) as client:
        answers = {
            "triton, gRPC": answered(client, model, texts, headers),
            "triton, gRPC, asyncio": asyncio.run(answered_async(address, model, texts, headers)),
        }
        told = codes(client, model, headers)
    sys.stdout.write(json.dumps({"answers": answers, "codes": told}))


if __name__ == "__main__":
    main()
