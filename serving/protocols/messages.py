"""Tensors of the Open Inference Protocol as protobuf: texts out of a request, values into an answer.

Outputs come in the form in which the texts came: raw bytes, or contents by type.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from serving.errors import MalformedBody, WrongInput
from serving.package import Package
from serving.protocols import open_inference_pb2 as pb
from serving.protocols.inference import version_of
from serving.protocols.oip import model_metadata, server_metadata
from serving.protocols.tensors import (
    TensorMetadata,
    Values,
    check_datatype,
    check_shape,
    decoded_elements,
    elements,
    form_of,
    raw_values,
)


def texts_of(message: pb.ModelInferRequest) -> dict[str, list[str]]:
    """Texts by name of their input. Raises `WrongInput`, `MalformedBody`."""
    raws = message.raw_input_contents
    if raws and len(raws) != len(message.inputs):
        raise MalformedBody(
            f"raw_input_contents must be one for each of the {len(message.inputs)} inputs, or none;"
            f" got {len(raws)}."
        )
    texts: dict[str, list[str]] = {}
    for place, tensor in enumerate(message.inputs):
        if tensor.name in texts:
            raise WrongInput(f"Input {tensor.name!r} is there twice.")
        if raws and tensor.HasField("contents"):
            raise WrongInput(
                f"Input {tensor.name!r} has contents and raw_input_contents; send one."
            )
        check_datatype(tensor.name, tensor.datatype)
        encoded = elements(raws[place], tensor.name) if raws else tensor.contents.bytes_contents
        texts[tensor.name] = decoded_elements(encoded, tensor.name)
        check_shape(tensor.name, tensor.shape, texts[tensor.name])
    return texts


def infer_answer(
    message: pb.ModelInferRequest,
    package: Package,
    outputs: Sequence[str],
    values: Mapping[str, Values],
) -> pb.ModelInferResponse:
    """The answer to *message*: *outputs* with their *values*."""
    answer = pb.ModelInferResponse(
        model_name=package.config.name, model_version=version_of(package), id=message.id
    )
    for name in outputs:
        datatype, shape = form_of(values[name])
        tensor = answer.outputs.add(name=name, datatype=datatype, shape=shape)
        if message.raw_input_contents:
            answer.raw_output_contents.append(raw_values(values[name]))
        else:
            tensor.contents.CopyFrom(_contents(values[name]))
    return answer


def server_answer(package: Package) -> pb.ServerMetadataResponse:
    """What answers here. Raw tensors are no extension in gRPC."""
    said = server_metadata(package)
    return pb.ServerMetadataResponse(name=said.name, version=said.version)


def model_answer(package: Package) -> pb.ModelMetadataResponse:
    """What the model takes and gives."""
    said = model_metadata(package)
    return pb.ModelMetadataResponse(
        name=said.name,
        versions=said.versions,
        platform=said.platform,
        inputs=map(_metadata, said.inputs),
        outputs=map(_metadata, said.outputs),
    )


def _metadata(tensor: TensorMetadata) -> pb.ModelMetadataResponse.TensorMetadata:
    return pb.ModelMetadataResponse.TensorMetadata(
        name=tensor.name, datatype=tensor.datatype, shape=tensor.shape
    )


def _contents(values: Values) -> pb.InferTensorContents:
    if isinstance(values, list):
        return pb.InferTensorContents(bytes_contents=[label.encode() for label in values])
    return pb.InferTensorContents(fp32_contents=values.ravel())
