"""Stands in for `python -m miniml` where tuning starts servers: how fast it is depends on its setting.

It serves one request at a time, twice as fast when it is told its lanes. Run as `miniml.py` from a
folder that comes first on the path; knows what `bench tune` and `bench soak` ask of the command, and no more.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
from pathlib import Path

_SLOW_S = 0.02
_INFO = {"package_digest": "d" * 64, "examples": [{"text": "Warm soup."}]}


async def main() -> None:
    """Serve until SIGINT, or write down what would be served."""
    parser = argparse.ArgumentParser()
    parser.add_argument("verb")
    parser.add_argument("package")
    parser.add_argument("--port", type=int)
    parser.add_argument("--lanes", type=int)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--max-queue-ms", type=float)
    parser.add_argument("--cache-mb", type=float)
    parser.add_argument("--write-config", type=Path)
    told = vars(parser.parse_args())
    if path := told.pop("write_config"):
        told["max_batch"] = int(os.environ["MINIML_MAX_BATCH"])
        path.write_text(json.dumps(told))
        return
    turn = asyncio.Lock()
    hold_s = _SLOW_S / 2 if told["lanes"] else _SLOW_S

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                body: dict[str, object]
                if head.startswith(b"get /readyz"):
                    body = {"status": "ok"}
                elif head.startswith(b"get"):
                    body = dict(_INFO)
                else:
                    await reader.readexactly(int(head.split(b"content-length:")[1].split()[0]))
                    async with turn:
                        await asyncio.sleep(hold_s)
                    body = {"label": "positive"}
                content = json.dumps(body).encode()
                start = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(content)
                writer.write(start + content)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    await asyncio.start_server(handle, "127.0.0.1", told["port"], backlog=1024)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop.set)
    await stop.wait()


if __name__ == "__main__":
    asyncio.run(main())
