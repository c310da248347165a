"""A load tied to Locust's events: alone, as master, or as worker.

Alone and as worker it has a generator; alone and as master it collects the samples and ends the load.
MINIML_BODIES names a file of request bodies, one JSON document a line, and MINIML_SAMPLES the folder
that receives every sample.
"""

from __future__ import annotations

import math
import os
import time
from pathlib import Path
from typing import Any

import gevent
from locust import runners
from locust.runners import MasterRunner, WorkerRunner

from benchmarks.locusts.collector import Collector, Mailbox
from benchmarks.locusts.generator import Generator, Part
from benchmarks.schedule import Schedule
from benchmarks.workloads import WORKLOADS, Row, read_rows, row_bodies

_TEXTS = 2048
_LEAD_S = 0.2  # for the word to reach all workers
_REPORT_S = 0.5
_BEGIN = "miniml-begin"
_TRIES = 20  # of a microsecond each


class LocustSession:
    """Loads one after another; Locust's page may start several."""

    def __init__(self, environment: Any) -> None:
        self.generator: Generator | None = None
        self._environment = environment
        self._runner = environment.runner
        self._collector: Collector | None = None
        self._mailbox: Mailbox | None = None
        self._begun = self._closed = False
        events = environment.events
        events.test_start.add_listener(self._prepare)
        events.test_stop.add_listener(self._close)
        if isinstance(self._runner, WorkerRunner):
            self._runner.register_message(_BEGIN, self._begin_as_told, concurrent=True)
            events.report_to_master.add_listener(self._report)
            runners.WORKER_REPORT_INTERVAL = _REPORT_S
        else:
            events.spawning_complete.add_listener(self._begin)
            events.worker_report.add_listener(self._collect)
            events.quit.add_listener(self._write)

    @property
    def complete(self) -> bool:
        """Whether every process has told its end."""
        return self._collector is not None and self._collector.complete.is_set()

    def _prepare(self, **_: Any) -> None:
        """Everything but the first request."""
        self._begun = self._closed = False
        self._collector = self._mailbox = self.generator = None
        options = self._environment.parsed_options
        if isinstance(self._runner, WorkerRunner):
            self._mailbox = Mailbox()
        else:
            master = isinstance(self._runner, MasterRunner)
            folder = os.environ.get("MINIML_SAMPLES")
            self._collector = Collector(
                Path(folder) if folder else None,
                processes=self._runner.worker_count if master else 1,
            )
            gevent.spawn(self._stop_when_complete, self._collector)
            if master:
                return
        box = self._mailbox or self._collector
        assert box is not None, "one of them was just made; this is a bug"
        self.generator = Generator(
            _bodies(options),
            box.add,
            schedule=_schedule(options),
            end_s=options.warmup_s + options.duration_s if options.duration_s else math.inf,
            drain_s=options.drain_s,
        )
        gevent.spawn(self._close_when_done, self.generator)

    def _begin(self, **_: Any) -> None:
        """All users are there: the load begins, on all workers at once."""
        if self._begun:
            return  # a shape has called for more users
        self._begun = True
        if self.generator:
            gevent.spawn(self.generator.begin, Part(began_s=time.perf_counter() + _LEAD_S))
            return
        workers = [*self._runner.clients.ready, *self._runner.clients.running]
        # Clocks of several machines agree as well as they are kept; on one they are the same.
        at_unix_s = time.time() + _LEAD_S
        for index, worker in enumerate(workers):
            part = {"index": index, "of": len(workers), "at_unix_s": at_unix_s}
            self._runner.send_message(_BEGIN, part, client_id=worker.id)

    def _begin_as_told(self, msg: Any, **_: Any) -> None:
        """The master's word, in a worker."""
        assert self.generator is not None, "the master began what was not prepared; this is a bug"
        began_s = by_own_clock(msg.data["at_unix_s"])
        self.generator.begin(Part(index=msg.data["index"], of=msg.data["of"], began_s=began_s))

    def _close_when_done(self, generator: Generator) -> None:
        generator.done.wait()
        if generator is self.generator:
            self._close()

    def _close(self, **_: Any) -> None:
        """Tell this process's end once: it is done, or Locust stops it."""
        if self._closed or self.generator is None:
            return
        self._closed = True
        self.generator.interrupt()
        box = self._mailbox or self._collector
        assert box is not None, "every generator has one; this is a bug"
        box.close(self.generator.end())

    def _report(self, data: dict[str, Any], **_: Any) -> None:
        if self._mailbox:
            self._mailbox.empty_into(data)

    def _collect(self, data: dict[str, Any], **_: Any) -> None:
        if self._collector:
            self._collector.report(data)

    def _stop_when_complete(self, collector: Collector) -> None:
        collector.complete.wait()
        if collector is not self._collector:
            return
        self._write()
        if self._environment.parsed_options.headless:
            self._runner.quit()
        else:
            self._runner.stop()

    def _write(self, **_: Any) -> None:
        if self._collector:
            self._collector.write()


def _schedule(options: Any) -> Schedule | None:
    if not options.rate_per_s:
        return None
    return Schedule(
        rate_per_s=options.rate_per_s,
        warmup_s=options.warmup_s,
        duration_s=options.duration_s,
        arrivals=options.arrivals,
        shape=options.shape,
        seed=options.seed,
    )


def _bodies(options: Any) -> list[bytes]:
    if path := os.environ.get("MINIML_BODIES"):
        return Path(path).read_bytes().split(b"\n")
    rows: list[Row] = (
        read_rows(Path(options.texts))
        if options.texts
        else [{"text": text} for text in WORKLOADS[options.workload](_TEXTS, options.seed)]
    )
    bodies = row_bodies(rows, texts_per_call=options.texts_per_call, seed=options.seed)
    return [body.content for body in bodies]


def by_own_clock(at_unix_s: float) -> float:
    """The same moment by `time.perf_counter`.

    Two clocks cannot be read at once; of some tries that one counts that was interrupted least.
    """
    tries = []
    for _ in range(_TRIES):
        before_s, unix_s, after_s = time.perf_counter(), time.time(), time.perf_counter()
        tries.append((after_s - before_s, (before_s + after_s) / 2 - unix_s))
    return at_unix_s + min(tries)[1]
