"""Locust users for a miniml endpoint, in a closed or an open loop.

With Locust's web page, where all options below can be set:
    locust -f benchmarks/locustfile.py --host http://127.0.0.1:8000
On several cores, or machines:
    locust -f benchmarks/locustfile.py --host http://127.0.0.1:8000 --processes 4
Headless, with a JSON record:
    miniml bench load --url http://127.0.0.1:8000

With --rate-per-s requests are due by a schedule and latency counts from then, in Locust's own numbers,
too; Locust's users are then the most requests under way at once.
"""

from __future__ import annotations

from typing import Any

from geventhttpclient.client import HTTPClientPool
from locust import FastHttpUser, LoadTestShape, constant, events, task

from benchmarks.client_process import allow_files
from benchmarks.locusts.session import LocustSession
from benchmarks.schedule import level_at, stages
from benchmarks.workloads import REPEATED, WORKLOADS
from serving.client import key_header

_HEADERS = {"content-type": "application/json", **key_header()}
_FRESH = {"cache-control": "no-cache"}
_MOST_CONNECTIONS = 10_000  # Locust's users are the limit


@events.init_command_line_parser.add_listener
def _options(parser: Any, **_: Any) -> None:
    """What can be asked for; Locust's web page shows the same."""
    add = parser.add_argument
    add("--workload", choices=tuple(WORKLOADS), default="reviews", help="Made-up texts.")
    add("--texts", default="", help="File of texts, .txt or .jsonl, instead.")
    add("--texts-per-call", type=int, default=1, help="Texts in one request, 1 to 64.")
    add("--rate-per-s", type=float, default=0.0, help="Open loop: requests a second; 0: closed.")
    add("--arrivals", choices=("poisson", "constant"), default="poisson", help="Open loop.")
    add("--shape", choices=("steady", "ramp", "steps"), default="steady", help="How it rises.")
    add("--warmup-s", type=float, default=0.0, help="Seconds before, at the first level.")
    add("--duration-s", type=float, default=60.0, help="Seconds; 0: a closed loop without end.")
    add("--drain-s", type=float, default=30.0, help="How long answers are waited for at the end.")
    add("--seed", type=int, default=0, help="Seed of texts and arrivals.")


@events.init.add_listener
def _tie(environment: Any, **_: Any) -> None:
    """The load of this process, tied to Locust's events."""
    allow_files()
    options = environment.parsed_options
    environment.miniml = LocustSession(environment)
    if not options.rate_per_s and options.shape != "steady":
        environment.shape_class = RisingUsers(environment)
    pool = HTTPClientPool(concurrency=_MOST_CONNECTIONS, network_timeout=options.drain_s)
    PredictUser.client_pool = pool


class PredictUser(FastHttpUser):
    """Asks when it gets a ticket: at once in a closed loop, when it is due in an open one.

    All share a pool, whose last used connection is used next: servers close those that idle.
    """

    wait_time = constant(0)

    @task
    def predict(self) -> None:
        """One `POST /predict`."""
        generator = self.environment.miniml.generator
        ticket = generator.take()
        body = generator.bodies[ticket.body]
        known = self.environment.parsed_options.workload == REPEATED
        headers = _HEADERS if known else _HEADERS | _FRESH
        with self.client.post(
            "/predict", data=body, headers=headers, catch_response=True
        ) as response:
            error = getattr(response, "error", None)
            latency_ms = generator.answered(ticket, response.status_code, error)
            response.request_meta["response_time"] = latency_ms


class RisingUsers(LoadTestShape):
    """A closed loop whose users rise to `--users` in a ramp or in steps."""

    abstract = True  # else Locust would use it for every load
    use_common_options = True

    def __init__(self, environment: Any) -> None:
        super().__init__()
        self._session = environment.miniml
        self._options = environment.parsed_options

    def tick(self) -> tuple[int, float] | None:
        """Users wanted now, and how fast they may come; None at the end."""
        if self._session.complete:
            return None
        options = self._options
        users = options.num_users or 1
        found = stages(
            options.shape, users, warmup_s=options.warmup_s, duration_s=options.duration_s
        )
        return max(1, round(level_at(found, self.get_run_time()))), float(users)
