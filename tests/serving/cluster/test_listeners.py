"""What listens, of servers of their own: on this machine alone, and beyond it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from benchmarks.server import serving
from serving.environment import free_ports
from serving.package import Package

WAYS = (
    ("this machine", ()),
    ("every interface", ("--host", "0.0.0.0", "--insecure")),
)


@pytest.mark.parametrize(("host", "more"), WAYS)
@pytest.mark.parametrize("grpc", [False, True])
def test_every_door_stands_in_the_docs(
    package: Package,
    undocumented: Callable[..., tuple[Any, Any]],
    host: str,
    more: tuple[str, ...],
    *,
    grpc: bool,
) -> None:
    """Whatever --host says, docs/security.md has a row for every port, and no row too many."""
    port, grpc_port = free_ports(2)
    arguments = (*more, *(("--grpc-port", str(grpc_port)) if grpc else ()))
    with serving(str(package.folder), port=port, arguments=arguments) as server:
        assert undocumented(server.pid, grpc=grpc, host=host) == ({}, {})
