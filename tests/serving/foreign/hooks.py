"""What schemathesis must be told of lines: it makes requests of one line, and reads answers as lines."""

from __future__ import annotations

import json
from typing import Any

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def _line(ctx: Any, value: Any) -> bytes:  # noqa: ARG001 - schemathesis hands it over
    return json.dumps(value).encode()


@schemathesis.deserializer("application/x-ndjson")
def _first_line(ctx: Any, response: Any) -> Any:  # noqa: ARG001
    return json.loads(response.content.splitlines()[0])
