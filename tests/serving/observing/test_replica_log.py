"""Laws of a replica's own log: whoever warns is heard, as JSON, and at once."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray.serve._private.common import ServeComponentType
from ray.serve._private.logging_utils import configure_component_logger
from ray.serve.schema import LoggingConfig

from serving.observing.replica_log import write_to_rays_file

LOGGERS = [logging.getLogger(name) for name in ("", "ray.serve")]


@pytest.fixture
def rays_file(tmp_path: Path) -> Iterator[Path]:
    """The log that Ray makes for a replica, buffered as `miniml serve` has it."""
    before = [(each.handlers[:], each.level, each.propagate) for each in LOGGERS]
    configure_component_logger(
        component_name="miniml_Encoder",
        component_id="one",
        component_type=ServeComponentType.REPLICA,
        logging_config=LoggingConfig(
            encoding="JSON", logs_dir=str(tmp_path), log_level="WARNING", enable_access_log=False
        ),
        max_bytes=10**6,
        backup_count=1,
        buffer_size=1000,
    )
    (path,) = tmp_path.iterdir()
    yield path
    for each, (handlers, level, propagate) in zip(LOGGERS, before, strict=True):
        each.handlers[:], each.propagate = handlers, propagate
        each.setLevel(level)


def test_warnings_of_all_loggers_are_lines_in_rays_file(rays_file: Path) -> None:
    """Ours, with the request's id and the traceback of a bug, and a library's; each without delay."""
    write_to_rays_file()
    logging.getLogger("serving.somewhere").warning("seen by %s", "ours")
    logging.getLogger("somebody.elses").warning("seen by theirs")
    bug, more = ZeroDivisionError("seen"), {"request_id": "mine"}
    logging.getLogger("serving").error("this is a bug", exc_info=bug, extra=more)
    lines = [json.loads(line) for line in rays_file.read_text().splitlines()]

    assert [line["message"] for line in lines] == [
        "seen by ours",
        "seen by theirs",
        "this is a bug",
    ]
    assert {line["replica"] for line in lines} == {"one"}
    assert lines[-1]["request_id"] == "mine"
    assert "ZeroDivisionError: seen" in lines[-1]["exc_text"]


def test_without_rays_file_nothing_changes() -> None:
    """Outside a replica our loggers keep the handlers that they have."""
    before = logging.getLogger().handlers[:]
    write_to_rays_file()

    assert logging.getLogger().handlers == before
