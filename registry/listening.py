"""Where the registry is served, and the server that is to answer there."""

from __future__ import annotations

import http
import http.client
import ipaddress
import socket
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from registry.errors import AddressTaken, CannotServe, StoreUnavailable

_POLL_S, _ANSWER_S = 0.2, 2
_LAST_PORT = 65535


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A host and port of this machine, and what others call it.

    name: a name, or the URL of the TLS end in front. certificate: PEM file with key, for TLS here.
    """

    host: str = "127.0.0.1"
    port: int = 5000
    name: str | None = None
    certificate: Path | None = None

    @property
    def url(self) -> str:
        """Where others find it."""
        name = self.name or (socket.gethostname() if self._is_everywhere else self.host)
        if "://" in name:
            return name.rstrip("/")
        shown = f"[{name}]" if ":" in name else name
        return f"{'https' if self.certificate else 'http'}://{shown}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether this machine alone reaches it; a name other than localhost is taken for more."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def _is_everywhere(self) -> bool:
        try:
            return ipaddress.ip_address(self.host).is_unspecified
        except ValueError:
            return False

    def require_free(self) -> None:
        """Raise `AddressTaken` unless one can listen there, `CannotServe` for a bad certificate."""
        if not 0 < self.port <= _LAST_PORT:
            raise AddressTaken(
                f"There is no port {self.port}; choose a --port from 1 to {_LAST_PORT}."
            )
        try:
            family, _, _, _, address = socket.getaddrinfo(
                self.host, self.port, type=socket.SOCK_STREAM
            )[0]
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
        except OSError as error:
            raise AddressTaken(
                f"Cannot listen on {self.host}:{self.port} ({error.strerror}); "
                "choose another with --port."
            ) from error
        if self.certificate is not None:
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.certificate)
            except (OSError, ssl.SSLError) as error:
                raise CannotServe(
                    f"{self.certificate} is no PEM file with a certificate and its key ({error})."
                ) from error

    def answers(self) -> bool:
        """Whether the server is up. Not by urllib, which would ask a proxy for a loopback address."""
        connection = self._connection()
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status < http.HTTPStatus.INTERNAL_SERVER_ERROR
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        if self.certificate is None:
            return http.client.HTTPConnection(self.host, self.port, timeout=_ANSWER_S)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False  # it is asked whether it is up, not who it is
        context.verify_mode = ssl.CERT_NONE
        return http.client.HTTPSConnection(self.host, self.port, timeout=_ANSWER_S, context=context)


def raise_if_ended(server: subprocess.Popen[bytes], output: IO[bytes]) -> None:
    """Wait a moment; raise with the last thing the server said when it has ended."""
    try:
        code = server.wait(_POLL_S)
    except subprocess.TimeoutExpired:
        return
    output.seek(0)
    lines = output.read().decode(errors="replace").strip().splitlines() or ["it said nothing"]
    raise StoreUnavailable(f"MLflow's server ended with code {code}: {lines[-1]}.")
