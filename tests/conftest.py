"""What every test shares: a home of its own, no hub, and no skips on CI."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

import miniml

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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where several processes share the tests (`make test`), a room's tests stay together: what is made
    once a session, a Ray, a trained checkpoint, is made once in all.
    """
    for item in items:
        room = item.path.relative_to(Path(__file__).parent).parts[0]
        item.add_marker(pytest.mark.xdist_group(room))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """On CI a skip is a failure: everything a test needs is installed by `.ci/run`."""
    report = yield
    if report.skipped and os.environ.get("CI") == "true" and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped on CI: {report.longrepr}"
    return report
