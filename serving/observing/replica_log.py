"""The log of a replica's process: warnings and bugs, as JSON, in the file that Ray keeps for it.

Ray writes only its own logger's records there. All others, ours too, would go to standard error, which
Ray, as `miniml serve` starts it, takes for records of level INFO and drops.
"""

from __future__ import annotations

import logging
from logging.handlers import MemoryHandler

_RAYS = "ray.serve"


def write_to_rays_file() -> None:
    """Let records of every logger from WARNING on go where those of Ray go, and at once.

    A record's `request_id` (as `extra`) becomes a field. Does nothing where Ray keeps no file.
    """
    for handler in logging.getLogger(_RAYS).handlers:
        if isinstance(handler, MemoryHandler):
            # It would wait for an error, or a thousand records.
            handler.flushLevel = logging.WARNING
            logging.getLogger().addHandler(handler)
