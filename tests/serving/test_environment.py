"""Laws of the ports that a server gives to what it starts: free, different, nobody else's by chance."""

from __future__ import annotations

import re
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from serving import environment
from serving.environment import free_ports
from serving.errors import PortInUse

EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")


def test_free_ports_can_all_be_listened_at() -> None:
    """At once, so they are different; and the kernel gives none of them to a connection meanwhile."""
    first, last = map(int, EPHEMERAL.read_text().split()) if EPHEMERAL.exists() else (32768, 60999)
    with ExitStack() as held:
        for port in free_ports(20):
            held.enter_context(socket.create_server(("127.0.0.1", port)))
            assert not first <= port <= last


def test_a_port_that_is_listened_at_is_not_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two ports the other is found; of none, an error says where was looked."""
    one, two = free_ports(2)
    monkeypatch.setattr(environment, "_PORTS", range(one, one + 1))
    with socket.create_server(("127.0.0.1", one)):
        with pytest.raises(PortInUse, match=re.escape(f"from {one} to {one}")):
            free_ports(1)
        monkeypatch.setattr(environment, "_PORTS", range(two, two + 1))
        assert free_ports(1) == [two]
    monkeypatch.setattr(environment, "_PORTS", range(one, one + 1))
    assert free_ports(1) == [one]
