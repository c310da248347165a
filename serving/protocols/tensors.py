"""Tensors of the Open Inference Protocol: texts in, labels and numbers out, as JSON or as raw bytes."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from msgspec import Meta, Struct, field

from serving.errors import MalformedBody, WrongInput
from serving.package import Package

Datatype = Literal["BYTES", "FP32"]
_LENGTH = struct.Struct("<I")  # in front of each element of a raw BYTES tensor


class TensorParameters(Struct, frozen=True, omit_defaults=True):
    """binary_data_size: bytes of this tensor after the JSON, instead of `data`."""

    binary_data_size: Annotated[int, Meta(ge=0)] | None = None


class InputTensor(Struct, frozen=True, kw_only=True):
    """Texts: shape [B] or [B, 1]."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any] | None = None
    parameters: TensorParameters = field(default_factory=TensorParameters)


class OutputTensor(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Answers, in order of the texts."""

    name: str
    shape: list[int]
    datatype: Datatype
    data: list[Any] | None = None
    parameters: TensorParameters = field(default_factory=TensorParameters)


class TensorMetadata(Struct, frozen=True):
    """A tensor that the model takes or gives; -1 is any number."""

    name: str
    datatype: Datatype
    shape: list[int]


def input_metadata(package: Package) -> list[TensorMetadata]:
    """What `infer` takes."""
    names = ["text", "text_pair"] if package.config.text_pair else ["text"]
    return [TensorMetadata(name, "BYTES", [-1]) for name in names]


def output_metadata(package: Package) -> list[TensorMetadata]:
    """What `infer` gives; scores and logits in the order of the labels."""
    count = len(package.config.labels)
    return [
        TensorMetadata("label", "BYTES", [-1]),
        TensorMetadata("score", "FP32", [-1]),
        TensorMetadata("scores", "FP32", [-1, count]),
        TensorMetadata("logits", "FP32", [-1, count]),
    ]


def texts_of(tensor: InputTensor, raw: bytes | None) -> list[str]:
    """The texts of one input; *raw* instead of its `data`. Raises `WrongInput`, `MalformedBody`."""
    if tensor.datatype != "BYTES":
        raise WrongInput(f"Input {tensor.name!r} must have datatype BYTES, not {tensor.datatype}.")
    if raw is not None:
        texts = [_utf8(element, tensor.name) for element in _elements(raw, tensor.name)]
    elif tensor.data is not None:
        texts = list(_flat(tensor.data, tensor.name))
    else:
        raise WrongInput(f"Input {tensor.name!r} has neither data nor binary_data_size.")
    if tensor.shape not in ([len(texts)], [len(texts), 1]):
        raise WrongInput(
            f"Input {tensor.name!r} has shape {tensor.shape}, but {len(texts)} texts;"
            " give [B] or [B, 1]."
        )
    return texts


def raw_labels(labels: Sequence[str]) -> bytes:
    """A BYTES tensor: each element's length, then its UTF-8."""
    encoded = [label.encode() for label in labels]
    return b"".join(_LENGTH.pack(len(element)) + element for element in encoded)


def raw_numbers(numbers: npt.NDArray[np.float32]) -> bytes:
    """An FP32 tensor: little-endian, row by row."""
    return numbers.astype("<f4").tobytes()


def _flat(data: Sequence[Any], name: str) -> Iterator[str]:
    for row in data:
        for value in row if isinstance(row, list) else [row]:
            if not isinstance(value, str):
                raise WrongInput(f"Input {name!r} must hold strings.")
            yield value


def _elements(raw: bytes, name: str) -> Iterator[bytes]:
    place = 0
    while place < len(raw):
        start = place + _LENGTH.size
        place = start + (_LENGTH.unpack_from(raw, place)[0] if start <= len(raw) else len(raw))
        if place > len(raw):
            raise MalformedBody(f"The raw bytes of input {name!r} end within an element.")
        yield raw[start:place]


def _utf8(element: bytes, name: str) -> str:
    try:
        return element.decode()
    except UnicodeDecodeError as error:
        raise WrongInput(f"Input {name!r} holds bytes that are not UTF-8 ({error}).") from error
