"""Laws of the ports that a server gives to what it starts: free, different, nobody else's by chance."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from serving import environment
from serving.environment import free_ports, to_export
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


def test_replicas_of_two_servers_share_no_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one server's replica listens, which takes calls of others, the next one's do not begin."""
    name = environment.FIRST_GRPC_PORT
    ports = range(40_000, 40_500)
    first, second = free_ports(2, among=ports)
    monkeypatch.setattr(environment, "_FIRST_GRPC_PORTS", range(first, first + 1))
    kept = dict(os.environ)
    with socket.create_server(
        ("::", first), family=socket.AF_INET6, dualstack_ipv6=True, reuse_port=True
    ):
        os.environ.pop(name, None)
        try:
            with pytest.raises(PortInUse):
                environment.set_environment(haproxy=True)
            monkeypatch.setattr(environment, "_FIRST_GRPC_PORTS", range(second, second + 1))
            environment.set_environment(haproxy=True)
            given = os.environ[name]
        finally:
            os.environ.clear()
            os.environ.update(kept)

    assert given == str(second)


def test_haproxys_side_doors_are_shut(tmp_path: Path) -> None:
    """Its pages become this machine's, the socket its owner's; the door itself stays as wide as it was.

    And its own 502 and 503 are no 500, nor a 404 while nothing is served yet.
    """
    config = tmp_path / "haproxy.cfg"
    config.write_text(
        "global\n    stats socket /x/admin.sock mode 666 level admin expose-fd listeners\n"
        "defaults\n    mode http\n    timeout client 3600s\n"
        "    errorfile 502 /x/500.http\n    errorfile 503 /x/500.http\n    errorfile 504 /x/500.http\n"
        "frontend prometheus\n    bind :9101\n    mode http\n"
        "frontend http_frontend\n    bind *:8000\n    bind 127.0.0.1:8001\n"
        "frontend grpc_frontend\n    bind *:9000 proto h2\n"
        "backend default_backend\n    http-request return status 404 content-type text/plain\n"
        "listen stats\n  bind *:8404\n  stats enable\n"
    )
    ours = to_export(haproxy=True)
    told = {**os.environ, "MINIML_HAPROXY": "/bin/echo", "MINIML_BODY_TIMEOUT_S": "7"}
    words = [ours["RAY_SERVE_HAPROXY_BINARY_PATH"], "-db", "-f", str(config), "-sf", "42"]
    for _ in range(2):  # it may be started again with what it wrote
        said = subprocess.run(words, env=told, capture_output=True, text=True, check=True).stdout
        lines = config.read_text().splitlines()

        assert said.split() == words[1:]
        assert [line.split()[1] for line in lines if "bind" in line] == [
            *("127.0.0.1:9101", "*:8000", "127.0.0.1:8001", "*:9000", "127.0.0.1:8404")
        ]
        assert "    stats socket /x/admin.sock mode 600 level admin expose-fd listeners" in lines
        assert "    timeout http-request 7s" in lines
        assert sum("wait-for-body time 7s if" in line for line in lines) >= 1
        assert [line.split()[2] for line in lines if "http-error status" in line] == [
            "502",
            "503",
            "408",
        ]
        assert not any("errorfile" in line for line in lines)
        assert [line for line in lines if "status 404" in line] == []
        assert lines[-1] == "  stats enable"


def test_another_haproxy_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever names a binary of their own gets it as it is."""
    monkeypatch.setenv("RAY_SERVE_HAPROXY_BINARY_PATH", "/opt/haproxy")

    assert "MINIML_HAPROXY" not in to_export(haproxy=True)
    assert "RAY_SERVE_HAPROXY_BINARY_PATH" not in to_export(haproxy=False)
