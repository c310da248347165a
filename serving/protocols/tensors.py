"""Tensors of the Open Inference Protocol: texts in, labels and numbers out, as JSON or as raw bytes."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from msgspec import Meta, Struct, field

from serving.errors import MalformedBody, WrongInput
from serving.package import Package

Datatype = Literal["BYTES", "FP32"]
Values = list[str] | npt.NDArray[np.float32]
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
    check_datatype(tensor.name, tensor.datatype)
    if raw is not None:
        texts = decoded_elements(elements(raw, tensor.name), tensor.name)
    elif tensor.data is not None:
        texts = list(_flat(tensor.data, tensor.name))
    else:
        raise WrongInput(f"Input {tensor.name!r} has neither data nor binary_data_size.")
    check_shape(tensor.name, tensor.shape, texts)
    return texts


def check_datatype(name: str, datatype: str) -> None:
    """Raise `WrongInput` where input *name* is said to hold no texts."""
    if datatype != "BYTES":
        raise WrongInput(f"Input {name!r} must have datatype BYTES, not {datatype}.")


def check_shape(name: str, shape: Sequence[int], texts: Sequence[str]) -> None:
    """Raise `WrongInput` where input *name* says another shape than its texts have."""
    if list(shape) not in ([len(texts)], [len(texts), 1]):
        raise WrongInput(
            f"Input {name!r} has shape {list(shape)}, but {len(texts)} texts; give [B] or [B, 1]."
        )


def decoded_elements(encoded: Iterable[bytes], name: str) -> list[str]:
    """Texts of input *name* from their UTF-8. Raises `WrongInput`."""
    return [_utf8(element, name) for element in encoded]


def form_of(values: Values) -> tuple[Datatype, list[int]]:
    """Type and shape of an output."""
    return ("BYTES", [len(values)]) if isinstance(values, list) else ("FP32", list(values.shape))


def raw_values(values: Values) -> bytes:
    """Labels as each one's length, then its UTF-8; numbers little-endian, row by row."""
    if isinstance(values, list):
        encoded = [label.encode() for label in values]
        return b"".join(_LENGTH.pack(len(element)) + element for element in encoded)
    return values.astype("<f4").tobytes()


def _flat(data: Sequence[Any], name: str) -> Iterator[str]:
    for row in data:
        for value in row if isinstance(row, list) else [row]:
            if not isinstance(value, str):
                raise WrongInput(f"Input {name!r} must hold strings.")
            yield value


def elements(raw: bytes, name: str) -> Iterator[bytes]:
    """What a raw BYTES tensor holds. Raises `MalformedBody`."""
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
