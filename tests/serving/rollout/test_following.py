"""Laws of a rollout: nobody notices but by the digest, and what is bad goes again by itself.

On the replica's own shelf and a real socket, without Ray; `test_cluster` has one law of the whole.
"""

from __future__ import annotations

import asyncio
import re
import threading
import time
import weakref
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st

from serving.client import Client, RemoteError
from serving.core import Core
from serving.engine import Engine
from serving.errors import ServingError
from serving.lanes import Lanes
from serving.observing.traffic import Traffic
from serving.options import DeployOptions
from serving.package import Package, open_package
from serving.protocols.surface import build_endpoint
from serving.rollout.deploying import deploy
from serving.rollout.following import Rollout
from serving.rollout.ledger import Ledger, Memory
from serving.rollout.sharing import is_shared
from serving.rollout.shelf import Loaded, Shelf
from serving.rollout.wanted import Pinned, Wanted, WantedChange, first
from serving.rollout.witness import Witness
from serving.settings import ServeSettings

MakePackage = Callable[..., Package]
LONG_S = 60.0


class Replica:
    """What a replica of Ray's holds, without Ray: it is all the replicas there are, unless told."""

    def __init__(self, package: Package, ledger: Ledger, *, name: str = "one", **more: Any) -> None:
        start = ledger.proven() or first(package.config.name, str(package.folder), package.digest)
        self._settings = ServeSettings(package="p", rollout_without_key=True)
        self.loads: Counter[str] = Counter()
        self._traffic = Traffic()
        self.shelf = Shelf(start.model(), self.load)
        self.rollout = Rollout(ledger, self.shelf, start, replica=name, **more)

    def load(self, source: Pinned) -> Loaded:
        """As `serving.app` does."""
        package, witness = open_package(Path(source.package)), Witness()
        if package.digest != source.digest:
            raise ServingError("another digest")
        self.loads[package.digest] += 1
        core = Core(package, Lanes(count=1, threads=1), self._settings)
        endpoint = build_endpoint(
            *(core, self._settings), rollouts=self, witnesses=[witness], traffic=self._traffic
        )
        return Loaded(source=source, core=core, endpoint=endpoint, witness=witness)

    async def states(self) -> list[dict[str, Any]]:
        """Of this one."""
        return [await self.rollout.state()]

    async def change(self, change: WantedChange) -> Wanted:
        """Here alone."""
        return await self.rollout.change(change)

    def serves(self, revision: int) -> bool:
        """Whether it has taken it."""
        return self.rollout.revision == revision

    @property
    def digest(self) -> str:
        """What answers."""
        return self.shelf.current.source.digest

    async def close(self) -> None:
        """Everything."""
        await self.rollout.close()
        await self.shelf.close()


@contextmanager
def listening(package: Package) -> Iterator[tuple[str, Replica]]:
    """A replica on a real socket."""
    replica = Replica(package, Ledger(Memory(), "test"))
    config = uvicorn.Config(replica.shelf, port=0, log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    listener = config.bind_socket()

    async def run() -> None:
        await server.serve([listener])
        await replica.close()

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        with Client(url) as client:
            client.wait_ready(timeout_s=LONG_S)
        yield url, replica
    finally:
        server.should_exit = True
        thread.join()


class Load:
    """Callers, each on a connection of its own; every answer is compared with its own package's."""

    def __init__(
        self, url: str, packages: list[Package], texts: list[str], callers: int = 4
    ) -> None:
        self._url, self._texts = url, texts
        self._right = {
            package.digest: Engine(package).logits(texts).tolist() for package in packages
        }
        self._over = threading.Event()
        self._callers = [threading.Thread(target=self._ask) for _ in range(callers)]
        self.seen: Counter[str] = Counter()
        self.wrong: list[str] = []

    def __enter__(self) -> Self:
        for caller in self._callers:
            caller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for caller in self._callers:
            caller.join()

    def wait_for(self, digest: str, count: int) -> None:
        """So many more answers of that package."""
        wanted = self.seen[digest] + count
        wait_until(lambda: self.seen[digest] >= wanted or bool(self.wrong))

    def _ask(self) -> None:
        body = {"texts": self._texts, "logits": True}
        with httpx.Client(base_url=self._url, trust_env=False, timeout=LONG_S) as client:
            while not self._over.is_set():
                try:
                    response = client.post("/predict", json=body).raise_for_status()
                    digest = response.headers["x-package-digest"]
                    given = [list(one["logits"].values()) for one in response.json()]
                    self.wrong += [] if given == self._right[digest] else [digest]
                    self.seen[digest] += 1
                except httpx.HTTPError as error:
                    self.wrong.append(repr(error))


def wait_until(true: Callable[[], bool]) -> None:
    """Look again and again, and give up after a long time."""
    deadline_s = time.monotonic() + LONG_S
    while not true():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


async def until(true: Callable[[], bool]) -> None:
    """The same on an event loop."""
    await asyncio.to_thread(wait_until, true)


def deployed(url: str, package: Package, **options: Any) -> Any:
    """As `miniml deploy` does it."""
    return deploy(DeployOptions(package=str(package.folder), url=url, **{"watch": "0", **options}))


@pytest.fixture
def two(make_package: MakePackage) -> tuple[Package, Package]:
    """Packages that answer the same texts differently."""
    return make_package(seed=1), make_package(seed=2)


def test_nobody_notices_a_swap_but_by_the_digest(two: tuple[Package, Package]) -> None:
    """Under load from many: none fails, each answer is its digest's, and in the end only the new's."""
    old, new = two
    with listening(old) as (url, replica), Load(url, [old, new], ["very good", "soup"]) as load:
        for there, back in ((old, new), (new, old), (old, new)):
            load.wait_for(there.digest, 20)
            told = deployed(url, back)
            load.seen.clear()
            load.wait_for(back.digest, 50)
            # Answers that were being written when it ended may still be the old one's.
            assert load.seen[there.digest] <= 4
            assert (told.digest, told.replicas) == (back.digest, 1)

    assert load.wrong == []
    assert replica.digest == new.digest


def test_a_package_that_does_not_prove_itself_changes_nothing(
    make_package: MakePackage, two: tuple[Package, Package]
) -> None:
    """Its golden answers are wrong: the deploy fails with that sentence, and nobody got its answers."""
    old, _ = two
    wrong = make_package(seed=3, golden_shift=1.0)
    with listening(old) as (url, replica), Load(url, [old], ["very good"]) as load:
        load.wait_for(old.digest, 5)
        with pytest.raises(RemoteError, match="golden answers"):
            deployed(url, wrong)
        load.wait_for(old.digest, 5)
        state = httpx.get(f"{url}/rollout").json()

    assert load.wrong == []
    assert (replica.digest, state["wanted"]["revision"]) == (old.digest, 2)
    assert "golden answers" in state["replicas"][0]["refused"]


def test_a_package_that_fails_is_taken_back(make_package: MakePackage) -> None:
    """Of requests with a word it has no row for, which the one before had: in seconds, and told why."""
    old, failing = make_package(seed=1), make_package(seed=2, rows=15)
    with listening(old) as (url, replica):
        over = threading.Event()
        caller = threading.Thread(target=ask_until, args=(url, "goods", over))
        caller.start()
        try:
            with pytest.raises(RemoteError, match=r"of \d+ requests failed"):
                deployed(url, failing, watch="10m")
        finally:
            over.set()
            caller.join()
        response = httpx.post(f"{url}/predict", json={"text": "goods"})

    assert response.headers["x-package-digest"] == old.digest == replica.digest


def test_who_is_judged_is_judged_on(make_package: MakePackage) -> None:
    """Another change, of a shadow, does not end the watch: what fails then is taken back, and that stays."""
    old, failing = make_package(seed=1), make_package(seed=2, rows=15)
    with listening(old) as (url, replica), httpx.Client(base_url=url, timeout=LONG_S) as client:
        shadow = {"package": "other/1", "digest": "a" * 64, "share": 0.1}
        change = {"package": str(failing.folder), "digest": failing.digest}
        for body in (change, {"shadow": shadow}):
            revision = client.put("/rollout", json=body).json()["revision"]
            wait_until(partial(replica.serves, revision))
        over = threading.Event()
        caller = threading.Thread(target=ask_until, args=(url, "goods", over))
        caller.start()
        wait_until(lambda: replica.digest == old.digest)
        over.set()
        caller.join()
        wanted = client.get("/rollout").json()["wanted"]

    assert "requests failed" in wanted["undone"]
    assert wanted["models"][0]["shadow"] == shadow


def test_a_package_that_is_slow_is_taken_back(make_package: MakePackage) -> None:
    """Slower than what was told at the deploy."""
    old, slow = make_package(seed=1), make_package(seed=2, slow=True, exam_rows=0)
    with listening(old) as (url, replica):
        over = threading.Event()
        caller = threading.Thread(target=ask_until, args=(url, "good", over))
        caller.start()
        try:
            with pytest.raises(RemoteError, match="took longer than 5 ms"):
                deployed(url, slow, watch="10m", p99_ms=5.0)
        finally:
            over.set()
            caller.join()

    assert replica.digest == old.digest


def ask_until(url: str, text: str, over: threading.Event) -> None:
    """One after the other, whatever comes; none is known."""
    with httpx.Client(base_url=url, trust_env=False, timeout=LONG_S) as client:
        while not over.is_set():
            client.post("/predict", json={"text": text}, headers={"cache-control": "no-cache"})


def test_going_back_by_hand(two: tuple[Package, Package]) -> None:
    """`--rollback` leads to what was before, once; then there is nothing to go back to."""
    old, new = two
    with listening(old) as (url, replica):
        deployed(url, new)
        assert deploy(DeployOptions(url=url, rollback=True)).digest == old.digest == replica.digest
        with pytest.raises(RemoteError, match="no package to go back to"):
            deploy(DeployOptions(url=url, rollback=True))


def test_a_canary_answers_its_share_and_who_asks_for_it(two: tuple[Package, Package]) -> None:
    """The same callers always, the whole share; by name or digest everybody; to all without loading it anew."""
    old, new = two
    with listening(old) as (url, replica), httpx.Client(base_url=url, timeout=LONG_S) as client:

        def digest_for(**headers: str) -> str:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            response = client.post("/predict", json={"text": "good"}, headers=named)
            return str(response.headers.get("x-package-digest", response.status_code))

        assert digest_for(x_model_version="canary") == "404"
        told = deployed(url, new, canary="25%")
        callers = [str(n) for n in range(100)]
        asked = [digest_for(x_canary_key=caller) for caller in callers]
        shared = [is_shared(caller.encode(), new.digest, 0.25) for caller in callers]

        assert told.share == 0.25
        assert [digest == new.digest for digest in asked] == shared
        assert {digest_for() for _ in range(60)} == {old.digest, new.digest}
        assert digest_for(x_model_version="canary") == new.digest
        assert digest_for(x_model_version=new.digest[:12]) == new.digest
        assert digest_for(x_model_version=old.digest) == old.digest
        assert digest_for(x_model_version="feedbeef") == digest_for(x_model_version="a") == "404"
        paths = [f"/v2/models/tiny/versions/{each.digest[:12]}" for each in (old, new)] * 8
        assert {client.get(path).status_code for path in paths} == {200}

        page = client.get("/metrics").text
        counted = dict(
            re.findall(r'package_requests_total{package="(\w+)",status="200"} (\d+)', page)
        )
        (whole,) = re.findall(r'requests_total{door="predict",status="200"} (\d+)', page)
        assert counted.keys() == {old.digest[:12], new.digest[:12]}
        assert sum(map(int, counted.values())) == int(whole) == 100 + 60 + 3

        deployed(url, new)
        assert {digest_for(x_canary_key=caller) for caller in callers[:20]} == {new.digest}
        wait_until(lambda: old.digest[:12] not in client.get("/metrics").text)
        assert 'requests_total{door="predict",status="200"} 183' in client.get("/metrics").text
        assert replica.loads[new.digest] == 1


def test_a_canary_ends_by_hand_or_by_its_failures(make_package: MakePackage) -> None:
    """Then what answered the others answers all; beside a bad one the others notice nothing."""
    old, good = (make_package(seed=seed) for seed in (1, 2))
    failing = make_package(seed=3, rows=15)
    with listening(old) as (url, replica):
        deployed(url, good, canary="0.5")
        assert deploy(DeployOptions(url=url, end_canary=True)).digest == old.digest
        assert [loaded.source.digest for loaded in replica.shelf.loaded] == [old.digest]
        over = threading.Event()
        caller = threading.Thread(target=ask_until, args=(url, "goods", over))
        caller.start()
        try:
            with pytest.raises(RemoteError, match=r"of \d+ requests failed"):
                deployed(url, failing, canary="50%", watch="10m")
        finally:
            over.set()
            caller.join()

        assert [loaded.source.digest for loaded in replica.shelf.loaded] == [old.digest]


@given(st.lists(st.binary(max_size=40), max_size=50), st.floats(0, 1), st.floats(0, 1))
def test_who_is_in_a_share_is_in_a_larger_one(keys: list[bytes], one: float, other: float) -> None:
    """All are in the whole, none in nothing; and the same key says the same again."""
    less, more = sorted((one, other))
    for key in keys:
        assert is_shared(key, "ab" * 32, less) <= is_shared(key, "ab" * 32, more)
        assert is_shared(key, "ab" * 32, 1.0)
        assert not is_shared(key, "ab" * 32, 0.0)


def test_a_share_is_as_large_as_it_says() -> None:
    """Of 20,000 keys 10 %, give or take a half; of another package others."""
    keys = [str(n).encode() for n in range(20_000)]
    one, other = ([is_shared(key, digest * 32, 0.1) for key in keys] for digest in ("ab", "cd"))

    assert sum(one) == pytest.approx(2000, abs=200)
    assert sum(a and b for a, b in zip(one, other, strict=True)) == pytest.approx(200, abs=80)


def test_a_stream_of_lines_ends_on_the_package_it_began_with(two: tuple[Package, Package]) -> None:
    """While it is open another package takes over; its lines go on being the old one's answers."""
    old, new = two

    with listening(old) as (url, replica), httpx.Client(timeout=LONG_S) as client:

        def lines() -> Iterator[bytes]:
            yield b'{"text": "good", "logits": true}\n'
            begun = replica.shelf.current.witness
            wait_until(lambda: begun.conduct().answered == 1)
            deployed(url, new)
            assert replica.digest == new.digest
            yield b'{"text": "good", "logits": true}\n'

        kind = {"content-type": "application/x-ndjson"}
        response = client.post(f"{url}/predict", content=lines(), headers=kind)
        one, other = response.text.splitlines()

    assert response.headers["x-package-digest"] == old.digest
    assert one == other


def test_a_web_page_cannot_change_the_server(package: Package) -> None:
    """Without keys: only as JSON, which a page cannot send elsewhere, and by a name of this machine."""
    json = {"content-type": "application/json"}
    cases: list[tuple[dict[str, str], int]] = [
        ({}, 415),
        ({"content-type": "text/plain"}, 415),
        ({**json, "host": "evil.example"}, 403),
        ({**json, "host": "127.0.0.1.evil.example:80"}, 403),
        (json, 422),
        ({"content-type": "application/json; charset=utf-8", "host": "localhost:8000"}, 422),
        ({**json, "host": "[::1]:8000"}, 422),
    ]
    with listening(package) as (url, _):
        for headers, status in cases:
            response = httpx.put(f"{url}/rollout", content=b"{}", headers=headers)

            assert response.status_code == status, headers
        late = httpx.put(f"{url}/rollout", json={"rollback": True, "revision": 9})

    assert (late.status_code, late.json()["error"]["type"]) == (409, "Conflict")


def test_a_package_that_was_replaced_takes_no_memory(two: tuple[Package, Package]) -> None:
    """Its graph is gone as soon as nobody is answered by it, whoever else still knows its endpoint."""
    old, new = two

    async def law(ledger: Ledger) -> None:
        replica = Replica(old, ledger)
        before = replica.shelf.current
        graph = weakref.ref(before.core._engine.session)
        await replica.change(change_to(new))
        await until(lambda: graph() is None)

        assert replica.digest == new.digest
        await replica.close()

    run(law)


def run(law: Callable[[Ledger], Awaitable[None]]) -> None:
    """On one event loop, with a ledger that several replicas share."""
    asyncio.run(law(Ledger(Memory(), "test")))  # type: ignore[arg-type]


def change_to(package: Package) -> WantedChange:
    """Without a watch."""
    return WantedChange(package=str(package.folder), digest=package.digest)


def test_replicas_follow_in_turns_and_all_go_back(
    make_package: MakePackage, two: tuple[Package, Package]
) -> None:
    """A bad package is loaded by the first replica alone; a good one by each, whoever was told."""
    old, new = two
    wrong = make_package(seed=3, golden_shift=1.0)

    async def law(ledger: Ledger) -> None:
        replicas = [Replica(old, ledger, name=str(n)) for n in range(4)]

        async def all_have(revision: int) -> None:
            for replica in replicas:
                replica.rollout.look()
            await until(lambda: all(each.rollout.revision == revision for each in replicas))

        await replicas[2].change(change_to(wrong))
        await all_have(2)
        assert sum(replica.loads[wrong.digest] for replica in replicas) == 1
        assert {replica.digest for replica in replicas} == {old.digest}

        await replicas[1].change(change_to(new))
        await all_have(3)
        assert {replica.digest for replica in replicas} == {new.digest}
        # Who starts now, or again, serves the same at once.
        late = Replica(old, ledger, name="late")
        assert (late.digest, late.loads[old.digest]) == (new.digest, 0)
        for replica in (*replicas, late):
            await replica.close()

    run(law)


def test_a_replica_that_dies_loading_stops_the_rollout(two: tuple[Package, Package]) -> None:
    """Its turn never ends: whoever starts serves the old one, and the others take the new one back."""
    old, new = two

    async def law(ledger: Ledger) -> None:
        other = Replica(old, ledger, name="other", patience_s=0.1)
        ledger.claim(1, "dead")
        await other.change(change_to(new))
        again = Replica(old, ledger, name="again", patience_s=0.1)
        assert again.digest == old.digest
        await until(lambda: ledger.proven() is not None)
        found = ledger.latest()

        assert found
        assert "did not take it" in found.undone
        assert other.digest == old.digest
        assert new.digest not in other.loads
        for replica in (other, again):
            await replica.close()

    run(law)


def test_of_two_changes_one_is_refused(make_package: MakePackage) -> None:
    """By two replicas at once, on what both saw: one is wanted and taken by both, the other is told."""
    old, *others = (make_package(seed=seed) for seed in (1, 2, 3))

    async def law(ledger: Ledger) -> None:
        replicas = [Replica(old, ledger, name=str(n)) for n in range(2)]
        told = await asyncio.gather(
            *(
                replica.change(
                    WantedChange(package=str(other.folder), digest=other.digest, revision=0)
                )
                for replica, other in zip(replicas, others, strict=True)
            ),
            return_exceptions=True,
        )
        refused = [each for each in told if isinstance(each, ServingError)]
        (taken,) = [each for each in told if isinstance(each, Wanted)]
        for replica in replicas:
            replica.rollout.look()
        await until(lambda: {each.digest for each in replicas} == {taken.model().digest})

        assert [error.status for error in refused] == [409]
        for replica in replicas:
            await replica.close()

    run(law)
