"""Run in a process of its own by conftest's `publisher`: publish, and die where told to.

home, folder, name: what to publish. times: how often. barrier: where to meet the others first.
environment: more of it, as who one is at a hub.
die_at: the process sends itself SIGKILL at this event, counted over calls and returns in our
registry and in MLflow's stores. count_to: a file for how many events there were.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from registry.store import publish

options: dict[str, Any] = globals()["options"]
watched = (f"{os.sep}registry{os.sep}", f"{os.sep}mlflow{os.sep}store{os.sep}")
events = 0


def count(frame: FrameType, _event: str, _argument: object) -> None:
    """Die when the time has come."""
    global events  # noqa: PLW0603  # a profile function has no other place to count
    if any(part in frame.f_code.co_filename for part in watched):
        events += 1
        if events == options.get("die_at"):
            os.kill(os.getpid(), signal.SIGKILL)


# The server that forks these may have been started by a test that asked a hub, and lasts.
for name in [name for name in os.environ if name.startswith("MLFLOW_TRACKING_")]:
    del os.environ[name]
os.environ["MINIML_HOME"] = options["home"]
os.environ.update(options.get("environment", {}))
if uri := options.get("tracking_uri"):
    os.environ["MLFLOW_TRACKING_URI"] = uri
if barrier := options.get("barrier"):
    barrier.wait()
if "die_at" in options or "count_to" in options:
    sys.setprofile(count)
for _ in range(options.get("times", 1)):
    publish(Path(options["folder"]), name=options["name"], recipe="same", alias="newest")
sys.setprofile(None)
if "count_to" in options:
    Path(options["count_to"]).write_text(str(events))
