"""The Open Inference Protocol, version 2, over HTTP: `/v2`, as KServe and Triton clients speak it.

Raw tensors after the JSON (Triton's binary extension) are read and written, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import msgspec
from msgspec import Struct, field

from serving.core import Answered
from serving.errors import MalformedBody, WrongInput
from serving.package import Package
from serving.protocols.asking import Asked, Written
from serving.protocols.decoding import decoded
from serving.protocols.inference import Inference, version_of
from serving.protocols.tensors import (
    InputTensor,
    OutputTensor,
    TensorMetadata,
    TensorParameters,
    Values,
    form_of,
    input_metadata,
    output_metadata,
    raw_values,
    texts_of,
)
from serving.settings import ServeSettings

_HEADER_LENGTH = b"inference-header-content-length"
_RAW = b"application/octet-stream"


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


class Infer:
    """`POST /v2/models/NAME/infer`."""

    def __init__(self, package: Package, limits: ServeSettings) -> None:
        self._package = package
        self._inference = Inference(package, limits)

    def read(self, body: bytes, headers: Mapping[bytes, bytes]) -> Asked:
        """Raises `MalformedBody`, `WrongInput` or `TooLarge`, each saying which field and why."""
        said, raw = _parted(body, headers.get(_HEADER_LENGTH))
        given = decoded(_DECODER, said)
        question = self._inference.question(_texts(given, raw))
        names = self._inference.outputs([output.name for output in given.outputs or []])
        outputs = given.outputs or [RequestedOutput(name) for name in names]
        write = partial(self._write, given=given, outputs=outputs)
        return Asked(texts=question.texts, pairs=question.pairs, write=write)

    def _write(
        self, answered: Answered, *, given: InferBody, outputs: list[RequestedOutput]
    ) -> Written:
        values = self._inference.values(answered)
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


def _tensor(name: str, values: Values, *, as_raw: bool) -> tuple[OutputTensor, bytes]:
    datatype, shape = form_of(values)
    if as_raw:
        raw = raw_values(values)
        size = TensorParameters(binary_data_size=len(raw))
        return OutputTensor(name=name, shape=shape, datatype=datatype, parameters=size), raw
    data: list[Any] = values if isinstance(values, list) else values.ravel().tolist()
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
