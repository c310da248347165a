"""Laws of two pools behind one address (`deploy/pools/haproxy.cfg`)."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from serving.environment import free_ports, to_export
from serving.package import Package

CONFIG = Path(__file__).parent.parent.parent / "deploy" / "pools" / "haproxy.cfg"
LONG_S = 60.0
MakePackage = Callable[..., Package]
Listening = Callable[..., AbstractContextManager[str]]


def asked(url: str, times: int) -> list[str]:
    """Digests of who answered; every request is answered."""
    with httpx.Client(base_url=url, trust_env=False) as client:
        answers = [client.post("/predict", json={"text": "good"}) for _ in range(times)]
    assert {answer.status_code for answer in answers} == {200}
    return [answer.headers["x-package-digest"] for answer in answers]


def test_two_pools_have_one_address(make_package: MakePackage, listening: Listening) -> None:
    """Both answer, each with its own package; when one goes, the other answers everything."""
    packages = [make_package(seed=seed) for seed in (0, 1)]
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    with ExitStack() as pools, ExitStack() as goes:
        stays = pools.enter_context(listening(packages[0]))
        other = goes.enter_context(listening(packages[1]))
        words = {"GPU": urlsplit(stays).netloc, "CPU": urlsplit(other).netloc}
        told = {**os.environ, **words, "POOLS": f"127.0.0.1:{port}"}
        command = [to_export(haproxy=True)["MINIML_HAPROXY"], "-db", "-f", str(CONFIG)]
        balancer = subprocess.Popen(command, env=told)
        try:
            deadline_s = time.monotonic() + LONG_S
            both: set[str] = set()
            while len(both) < 2:
                assert time.monotonic() < deadline_s
                with suppress(httpx.TransportError, AssertionError):
                    both |= set(asked(url, 1))
            goes.close()
            left = set(asked(url, 50))
        finally:
            balancer.terminate()
            balancer.wait(LONG_S)

    assert both == {package.digest for package in packages}
    assert left == {packages[0].digest}
