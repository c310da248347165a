"""Laws of gRPC's messages: those of the .proto, in nobody's way, and not there where nobody asked."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool

from serving.protocols import open_inference_pb2 as pb

ROOT = Path(__file__).parent.parent.parent
CLIENTS = ROOT / ".venv" / "clients" / "bin" / "python"


def test_messages_survive_a_process() -> None:
    """Ray's proxies pickle a message to send it to a replica."""
    message = pb.ModelInferRequest(model_name="tiny", raw_input_contents=[b"good"])
    message.inputs.add(name="text", datatype="BYTES", shape=[1])

    assert pickle.loads(pickle.dumps(message)) == message


def test_others_messages_of_these_names_are_not_in_the_way() -> None:
    """A client that registers its own in the pool that all share finds it empty of ours."""
    theirs = descriptor_pb2.FileDescriptorProto()
    pb.DESCRIPTOR.CopyToProto(theirs)
    theirs.name = "theirs.proto"
    del theirs.message_type[0].field[:]
    pool: Any = descriptor_pool.Default()

    assert pool.AddSerializedFile(theirs.SerializeToString()).package == "inference"


def test_without_grpc_nothing_of_it_is_imported() -> None:
    """The HTTP surface loads neither the library nor the messages."""
    code = (
        "import sys, serving.protocols.surface, serving.deploy_file;"
        "print([m for m in sys.modules if m.startswith(('grpc', 'google.protobuf'))])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert ran.stdout.strip() == "[]"


def forget_json(messages: Iterable[Any]) -> None:
    """Take away how fields are spelt in JSON, which generated code does not keep."""
    for message in messages:
        for one in message.field:
            one.ClearField("json_name")
        forget_json(message.nested_type)


@pytest.mark.skipif(not CLIENTS.exists(), reason="no environment for clients: make clients")
def test_the_messages_are_those_of_the_proto(tmp_path: Path) -> None:
    """protoc, run again, describes what is committed: nobody changed one without the other."""
    out, source = tmp_path / "out", "serving/protocols/open_inference.proto"
    protoc = [str(CLIENTS), "-m", "grpc_tools.protoc", "-I.", f"--descriptor_set_out={out}", source]
    subprocess.run(protoc, check=True, cwd=ROOT, timeout=60)
    (made,) = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file
    ours = descriptor_pb2.FileDescriptorProto()
    pb.DESCRIPTOR.CopyToProto(ours)
    forget_json(made.message_type)

    assert made == ours
