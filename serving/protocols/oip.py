"""The Open Inference Protocol, version 2, over HTTP: `/v2`, as KServe and Triton clients speak it.

Raw tensors after the JSON (Triton's binary extension) are read and written, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Struct, field

from serving.core import Answered
from serving.engine import prediction
from serving.errors import MalformedBody, WrongInput
from serving.package import Package
from serving.protocols.asking import Asked, Written, check_texts
from serving.protocols.decoding import decoded
from serving.protocols.tensors import (
    Datatype,
    InputTensor,
    OutputTensor,
    TensorMetadata,
    TensorParameters,
    input_metadata,
    output_metadata,
    raw_labels,
    raw_numbers,
    texts_of,
)
from serving.settings import ServeSettings

_HEADER_LENGTH = b"inference-header-content-length"
_RAW = b"application/octet-stream"
Numbers = npt.NDArray[np.float32]


class RequestedParameters(Struct, frozen=True):
    """binary_data: send this output as raw bytes."""

    binary_data: bool | None = None


class RequestedOutput(Struct, frozen=True):
    """An output that is wanted."""

    name: str
    parameters: RequestedParameters = field(default_factory=RequestedParameters)


class InferParameters(Struct, frozen=True):
    """binary_data_output: send outputs as raw bytes where they do not say."""

    binary_data_output: bool = False


class InferBody(Struct, frozen=True, kw_only=True):
    """Body of `infer`: the texts, and the outputs that are wanted; none are all."""

    inputs: list[InputTensor]
    id: str | None = None
    outputs: list[RequestedOutput] | None = None
    parameters: InferParameters = field(default_factory=InferParameters)


class InferAnswer(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The body of a 200."""

    model_name: str
    model_version: str
    outputs: list[OutputTensor]
    id: str | None = None


class ServerMetadata(Struct, frozen=True):
    """`GET /v2`."""

    name: str
    version: str
    extensions: list[str]


class ModelMetadata(Struct, frozen=True):
    """`GET /v2/models/NAME`. The version is the package's digest, cut to 12 digits."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


_DECODER = msgspec.json.Decoder(InferBody)


def server_metadata(package: Package) -> ServerMetadata:
    """What answers here."""
    return ServerMetadata("miniml", version_of(package), ["binary_tensor_data"])


def model_metadata(package: Package) -> ModelMetadata:
    """What the model takes and gives."""
    return ModelMetadata(
        name=package.config.name,
        versions=[version_of(package)],
        platform=f"{package.config.runtime}_{package.config.precision}",
        inputs=input_metadata(package),
        outputs=output_metadata(package),
    )


def version_of(package: Package) -> str:
    """As it is shown everywhere."""
    return package.digest[:12]


class Infer:
    """`POST /v2/models/NAME/infer`."""

    def __init__(self, package: Package, limits: ServeSettings) -> None:
        self._package = package
        self._limits = limits

    def read(self, body: bytes, headers: Mapping[bytes, bytes]) -> Asked:
        """Raises `MalformedBody`, `WrongInput` or `TooLarge`, each saying which field and why."""
        said, raw = _parted(body, headers.get(_HEADER_LENGTH))
        given = decoded(_DECODER, said)
        texts = _texts(given, raw)
        wanted = {tensor.name for tensor in input_metadata(self._package)}
        if texts.keys() != wanted:
            raise WrongInput(f"inputs must be {_listed(wanted)}, each once; got {_listed(texts)}.")
        for name, values in texts.items():
            check_texts(values, name, limits=self._limits)
        pairs = texts.get("text_pair")
        if pairs is not None and len(pairs) != len(texts["text"]):
            raise WrongInput(f"text holds {len(texts['text'])} texts, but text_pair {len(pairs)}.")
        known = [tensor.name for tensor in output_metadata(self._package)]
        outputs = given.outputs or [RequestedOutput(name) for name in known]
        if unknown := {output.name for output in outputs} - set(known):
            raise WrongInput(f"There is no output {_listed(unknown)}, but {_listed(known)}.")
        write = partial(self._write, given=given, outputs=outputs)
        return Asked(texts=texts["text"], pairs=pairs, write=write)

    def _write(
        self, answered: Answered, *, given: InferBody, outputs: list[RequestedOutput]
    ) -> Written:
        values = self._values(answered)
        tensors, raws = [], []
        for output in outputs:
            binary = output.parameters.binary_data
            as_raw = given.parameters.binary_data_output if binary is None else binary
            tensor, raw = _tensor(output.name, values[output.name], as_raw=as_raw)
            tensors.append(tensor)
            raws.append(raw)
        said = msgspec.json.encode(
            InferAnswer(
                model_name=self._package.config.name,
                model_version=version_of(self._package),
                outputs=tensors,
                id=given.id,
            )
        )
        if not any(raws):
            return Written(body=said)
        length = (_HEADER_LENGTH, b"%d" % len(said))
        return Written(body=said + b"".join(raws), content_type=_RAW, headers=(length,))

    def _values(self, answered: Answered) -> dict[str, list[str] | Numbers]:
        given = [prediction(answer.logits, self._package) for answer in answered.answers]
        return {
            "label": [one.label or "" for one in given],
            "score": np.array([one.score for one in given], dtype=np.float32),
            "scores": np.array([one.scores for one in given], dtype=np.float32),
            "logits": np.stack([answer.logits for answer in answered.answers]),
        }


def _tensor(name: str, values: list[str] | Numbers, *, as_raw: bool) -> tuple[OutputTensor, bytes]:
    datatype: Datatype
    if isinstance(values, list):
        datatype, shape, data, raw = "BYTES", [len(values)], list[Any](values), raw_labels(values)
    else:
        datatype, shape, raw = "FP32", list(values.shape), raw_numbers(values)
        data = values.ravel().tolist()
    if as_raw:
        size = TensorParameters(binary_data_size=len(raw))
        return OutputTensor(name=name, shape=shape, datatype=datatype, parameters=size), raw
    return OutputTensor(name=name, shape=shape, datatype=datatype, data=data), b""


def _parted(body: bytes, length: bytes | None) -> tuple[bytes, bytes]:
    """The JSON and the raw bytes after it. Raises `MalformedBody`."""
    if length is None:
        return body, b""
    if not length.isdigit() or int(length) > len(body):
        name = _HEADER_LENGTH.decode()
        raise MalformedBody(
            f"{name} must be the length of the JSON, within the body's {len(body)}."
        )
    return body[: int(length)], body[int(length) :]


def _texts(given: InferBody, raw: bytes) -> dict[str, list[str]]:
    """Texts by name of the input. Raises as `texts_of`, and when *raw* is too short or too long."""
    texts: dict[str, list[str]] = {}
    place = 0
    for tensor in given.inputs:
        size = tensor.parameters.binary_data_size
        part = None
        if size is not None:
            part = raw[place : place + size]
            place += size
        if place > len(raw):
            raise MalformedBody(f"Input {tensor.name!r} has fewer raw bytes than it says.")
        if tensor.name in texts:
            raise WrongInput(f"Input {tensor.name!r} is there twice.")
        texts[tensor.name] = texts_of(tensor, part)
    if place != len(raw):
        raise MalformedBody(f"{len(raw) - place} raw bytes belong to no input.")
    return texts


def _listed(names: Any) -> str:
    return ", ".join(sorted(names)) or "none"
