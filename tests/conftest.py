"""What every test shares: a home of its own, no hub, and no skips on CI."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import psutil
import pytest

import miniml
from benchmarks.roles import roles_of

SECURITY = Path(__file__).parent.parent / "docs" / "security.md"
SETTLED_S = 60.0
HERE, EVERYWHERE, HOST = "this machine", "every interface", "--host"
PLACES = {
    "127.0.0.1": HERE,
    "::ffff:127.0.0.1": HERE,
    "::1": HERE,
    "0.0.0.0": EVERYWHERE,
    "::": EVERYWHERE,
}

# Before any library reads them: subprocesses inherit both.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# A shell starts what it runs in the background with SIGINT ignored, and children inherit that: the
# processes that tests interrupt would never hear of it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def miniml_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A fresh `MINIML_HOME`, so that no test sees the developer's registry or another test's."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINIML_HOME", str(folder))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield folder


@pytest.fixture(autouse=True)
def loggers_as_they_were() -> Iterator[None]:
    """What a command of ours, or a library, sets up for its process does not last beyond the test."""
    root, ours = logging.getLogger(), [logging.getLogger(name) for name in miniml.OUR_LOGGERS]
    level = root.level  # its handlers are pytest's business
    before = [(each.handlers[:], each.level, each.propagate) for each in ours]
    yield
    root.setLevel(level)
    for each, (handlers, own_level, propagate) in zip(ours, before, strict=True):
        each.handlers[:], each.propagate = handlers, propagate
        each.setLevel(own_level)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """On CI a skip is a failure: everything a test needs is installed by `.ci/run`."""
    report = yield
    if report.skipped and os.environ.get("CI") == "true" and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped on CI: {report.longrepr}"
    return report


def doors(root: int) -> dict[tuple[str, str, int], str]:
    """What listens of the server that began as *root*: (role, address, port) -> one of `PLACES`."""
    found = {}
    for role, stat in roles_of(root):
        try:
            listening = psutil.Process(stat.pid).net_connections("tcp")
        except psutil.NoSuchProcess:
            continue
        for one in listening:
            if one.status == psutil.CONN_LISTEN:
                place = PLACES.get(one.laddr.ip, f"the machine's address {one.laddr.ip}")
                found[role, one.laddr.ip, one.laddr.port] = place
    return found


def documented(*, grpc: bool, host: str) -> tuple[Counter[tuple[str, str]], set[tuple[str, str]]]:
    """docs/security.md on what listens: (role, place) -> how often it must, and what may.

    host: where `--host` is, as the table says it.
    """
    text = SECURITY.read_text(encoding="utf-8").partition("## What listens")[2]
    lines = [line for line in text.partition("\n*Unless taken*")[0].splitlines() if line[:1] == "|"]
    must: Counter[tuple[str, str]] = Counter()
    may = set()
    for line in lines[2:]:
        role, _, place, there, _ = (cell.strip() for cell in line.strip("|").split("|"))
        row = (role, host if place == HOST else place)
        if there == "always" or (there == "with gRPC" and grpc):
            must[row] += 1
        elif there != "with gRPC":
            may.add(row)
    return must, may


@pytest.fixture(scope="session")
def doors_of() -> Callable[[int], dict[tuple[str, str, int], str]]:
    """`doors`."""
    return doors


@pytest.fixture(scope="session")
def undocumented() -> Callable[..., tuple[Counter[tuple[str, str]], Counter[tuple[str, str]]]]:
    """`undocumented(root, grpc=, host=)`: what listens and stands in no row, and rows that nothing is.

    Processes that are still starting have the time to.
    """

    def compare(
        root: int, *, grpc: bool, host: str = HERE
    ) -> tuple[Counter[tuple[str, str]], Counter[tuple[str, str]]]:
        must, may = documented(grpc=grpc, host=host)
        deadline_s = time.monotonic() + SETTLED_S
        while True:
            seen = Counter((role, place) for (role, _, _), place in doors(root).items())
            extra = Counter({row: n for row, n in (seen - must).items() if row not in may})
            missing = must - seen
            if not (extra or missing) or time.monotonic() > deadline_s:
                return extra, missing
            time.sleep(0.2)

    return compare
