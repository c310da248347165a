"""The station: a shell beside a real server, in which pages of the docs are run as they stand there.

The server is `miniml serve` with Ray, HAProxy, keys, Redis and a request log, started by the runbook's own command; its
package is made of a small checkpoint folder as the guides say; a Prometheus looks at it, with our rules.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from docs.checks import Fence, blocks
from registry import store
from registry.artifact import staged
from serving.access.keys import create_key
from serving.environment import free_ports

ROOT = Path(__file__).parent.parent.parent
RUNBOOK, MIGRATION = ROOT / "docs/runbook", ROOT / "docs/migration"
RULES = ROOT / "deploy/prometheus/rules.yml"
# tritonclient wants other libraries than ours: `make clients`.
CLIENTS = ROOT / ".venv/clients/bin/python"
BINARIES = ("redis-server", "redis-cli", "prometheus", "flock", "curl")
ROWS = 200  # all of which agree: 98.1 % with 95 % certainty, where 98 % are asked for
START_S, STOP_S, BLOCK_S = 240.0, 90.0, 300.0
# What would take minutes, or days of traffic, of a command that is run here.
SHORTER = {
    "--watch 2m": "--watch 1s",
    "sleep 10": "sleep 0.2",
    "-ge 1000": f"-ge {ROWS}",
    "--min-texts 1000": f"--min-texts {ROWS}",
    "--share 10%": "--share 100%",
}


def blocks_of(page: Path) -> list[Fence]:
    """Its fenced blocks, in order."""
    return blocks(page.read_text(encoding="utf-8"))


def serves(block: Fence) -> bool:
    """Whether it runs until it is stopped, or is the file of what does."""
    if block.language == "python":
        return "FastAPI()" in block.text
    return block.text.startswith(("miniml serve", "uvicorn")) and "--write-config" not in block.text


@pytest.fixture(scope="session")
def shorter() -> dict[str, str]:
    """What a page says, and what is run here in its place."""
    return SHORTER


@dataclass(kw_only=True)
class Station:
    """A shell beside the server. environment: the index page's variables, with values of this place.

    aside: pages that are being run meanwhile.
    """

    folder: Path
    environment: dict[str, str]
    ports: dict[str, str]
    server: subprocess.Popen[bytes] | None = None
    aside: dict[Path, Future[None]] = field(default_factory=dict)

    def do(self, page: Path) -> None:
        """Run what *page* has to run, in order; what serves is running."""
        for block in [block for block in blocks_of(page) if not serves(block)]:
            if block.language == "bash":
                self.shell(block.text)
            elif block.language == "promql":
                self.query(block.text)
            elif block.language == "python":
                self.python(block.text)

    def here(self, text: str) -> str:
        """*text* with this place's ports for the documented ones, and less patience."""
        instead = self.ports | SHORTER
        # In one pass: a port of this place may have a documented one within it.
        known = "|".join(map(re.escape, instead))
        return re.sub(known, lambda found: instead[found[0]], text)

    def shell(self, text: str) -> str:
        """What a block prints, run as it stands after the index page's first; it must end with 0."""
        first = next(b.text for b in blocks_of(RUNBOOK / "index.md") if b.language == "bash")
        return self.run(["bash", "-euo", "pipefail", "-c", f"{first}\n{self.here(text)}"])

    def python(self, text: str) -> str:
        """What a script prints, run by whoever has its libraries."""
        interpreter = str(CLIENTS) if "tritonclient" in text else sys.executable
        script = self.folder / "block.py"
        script.write_text(self.here(text), encoding="utf-8")
        # Offline the hub's client would not even ask this machine.
        offline = "huggingface_hub" not in text
        return self.run([interpreter, str(script)], HF_HUB_OFFLINE=str(int(offline)))

    def run(self, command: list[str], **more: str) -> str:
        """Its standard output; it must end with 0."""
        ran = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment | more,
            capture_output=True,
            text=True,
            timeout=BLOCK_S,
            check=False,
        )
        assert ran.returncode == 0, f"{command[-1]}\n{ran.stdout[-2000:]}\n{ran.stderr[-3000:]}"
        return ran.stdout

    def query(self, text: str) -> None:
        """Prometheus can answer it."""
        url = self.environment["PROMETHEUS_URL"]
        asked = httpx.get(
            f"{url}/api/v1/query", params={"query": text}, timeout=30, trust_env=False
        )
        answer = asked.json()
        assert answer["status"] == "success", f"{text}\n{answer}"

    @contextmanager
    def beside(self, command: str, name: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run *command* until the block is left."""
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {command}"],
                cwd=self.folder,
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        # Whoever waits for its end sees it: no one else would take it from the kernel.
        threading.Thread(target=process.wait, daemon=True).start()
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_S)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)

    def said(self, name: str) -> str:
        """The last words of what runs beside."""
        return (self.folder / f"{name}.log").read_text(errors="replace")[-3000:]


def until_answered(url: str, process: subprocess.Popen[bytes], said: Callable[[], str]) -> None:
    """Return once *url* is answered with 200."""
    deadline_s = time.monotonic() + START_S
    while True:
        with suppress(httpx.HTTPError):
            if httpx.get(url, timeout=5, trust_env=False).status_code == httpx.codes.OK:
                return
        assert process.poll() is None, said()
        assert time.monotonic() < deadline_s, said()
        time.sleep(0.1)


WORDS = ("soup", "staff", "price", "taste", "cold", "warm", "good", "bad", "very", "not", "never")
LABELS = ("negative", "neutral", "positive")


def write_their_model(folder: Path) -> None:
    """`their-model`, as `save_pretrained` leaves it, and `held-out.jsonl`: what it is surest of."""
    import random

    import torch
    import transformers as untyped

    transformers: Any = untyped

    model_folder = folder / "their-model"
    model_folder.mkdir()
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (model_folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    tokenizer = transformers.BertTokenizerFast(str(model_folder / "vocab.txt"), model_max_length=48)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=48,
        initializer_range=0.5,  # so that answers differ from text to text
        id2label=dict(enumerate(LABELS)),
        label2id={label: place for place, label in enumerate(LABELS)},
    )
    model = transformers.BertForSequenceClassification(config).eval()
    drawn = random.Random(0)
    texts = sorted(
        {" ".join(drawn.choices(WORDS, k=drawn.randint(4, 40))) for _ in range(4 * ROWS)}
    )
    feed = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        model.classifier.bias -= model(**feed).logits.mean(0)  # so that each label has its share
        chances = model(**feed).logits.softmax(-1)
    model.save_pretrained(model_folder)
    tokenizer.save_pretrained(model_folder)
    sure = chances.max(-1).values.argsort(descending=True)[:ROWS].tolist()
    rows = [{"text": texts[i], "label": LABELS[int(chances[i].argmax())]} for i in sure]
    assert {row["label"] for row in rows} == set(LABELS)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "held-out.jsonl").write_text(lines, encoding="utf-8")


def publish_another(home: Path, folder: Path) -> None:
    """`reviews@candidate`: the champion's files, sealed once more, so with another digest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINIML_HOME", str(home))
        champion = store.resolve("reviews@champion", kind="package")
        with staged(folder, kind="package", lineage={**champion.lineage, "again": "1"}) as copy:
            shutil.copytree(store.fetch(champion), copy, dirs_exist_ok=True)
            (copy / "manifest.json").unlink()
        store.publish(folder, name="reviews", alias="candidate")


def write_prometheus(folder: Path, address: str, key: str) -> None:
    """Its configuration: our rules, and the server at *address*, which wants a key."""
    (folder / "prometheus.key").write_text(key, encoding="utf-8")
    config = {
        "global": {"scrape_interval": "500ms", "evaluation_interval": "500ms"},
        "rule_files": [str(RULES)],
        "scrape_configs": [
            {
                "job_name": "miniml",
                "authorization": {"credentials_file": str(folder / "prometheus.key")},
                "static_configs": [{"targets": [address]}],
            }
        ],
    }
    (folder / "prometheus.yml").write_text(json.dumps(config), encoding="utf-8")


def a_place(folder: Path, ray: str) -> Station:
    """Ports, keys and the environment of a shell; nothing runs yet."""
    port, grpc, old, redis, prometheus = map(str, free_ports(5))
    home = folder / "home"
    secrets = {
        name: create_key(home / "keys.json", name, admin=name == "operator")[1]
        for name in ("operator", "web", "prometheus")
    }
    write_prometheus(folder, f"127.0.0.1:{port}", secrets["prometheus"])
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MINIML_"))}
    environment = kept | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HOME": str(folder),
        "TERM": "dumb",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
        "RAY_TMPDIR": ray,
        "MINIML_REDIS_BUDGET_MS": "1000",  # on a busy machine 5 ms pass without any Redis
        "MINIML_HOME": str(home),
        "KEYS_FILE": str(home / "keys.json"),
        "MINIML_URL": f"http://127.0.0.1:{port}",
        "MINIML_API_KEY": secrets["operator"],
        "REDIS_URL": f"redis://127.0.0.1:{redis}/0",
        "REQUEST_LOG": str(folder / "requests.jsonl"),
        "RAY_LOGS": f"{ray}/ray/session_latest/logs/serve",
        "PROMETHEUS_URL": f"http://127.0.0.1:{prometheus}",
        # The old servers of two guides: ours speaks as they do.
        "OLD_URL": f"http://127.0.0.1:{port}",
        "OLD_ADDRESS": f"127.0.0.1:{port}",
    }
    ports = {"8000": port, "9000": grpc, "8001": old}
    return Station(folder=folder, environment=environment, ports=ports)


def serving_block(page: Path, language: str = "bash") -> str:
    """The one of *page* that serves."""
    (found,) = [b.text for b in blocks_of(page) if serves(b) and b.language == language]
    return found


@pytest.fixture(scope="module")
def station(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Station]:
    """Everything runs: the package is made as the guides say, the server is started as the runbook says."""
    if missing := [name for name in BINARIES if shutil.which(name) is None]:
        pytest.skip(f"not on this machine: {', '.join(missing)}")
    folder = tmp_path_factory.mktemp("runbook")
    # Ray's sockets lie below it, and the kernel allows no long names.
    short = tempfile.TemporaryDirectory(prefix="mm", dir="/tmp", ignore_cleanup_errors=True)
    with short as ray:
        yield from everything(a_place(folder, ray))


def everything(place: Station) -> Iterator[Station]:
    """*place*, while all of it runs."""
    folder = place.folder
    write_their_model(folder)
    fastapi, registry = MIGRATION / "fastapi-pipeline.md", RUNBOOK / "registry.md"
    (folder / "before.py").write_text(serving_block(fastapi, "python"), encoding="utf-8")
    redis = place.environment["REDIS_URL"].rpartition(":")[2].removesuffix("/0")
    prometheus = place.environment["PROMETHEUS_URL"].removeprefix("http://")
    listen = f"--web.listen-address={prometheus}"
    with ExitStack() as stack, ThreadPoolExecutor(1) as another:

        def start(name: str, command: str, url: str = "") -> subprocess.Popen[bytes]:
            process = stack.enter_context(place.beside(command, name))
            if url:
                until_answered(url, process, lambda: place.said(name))
            return process

        start("redis", f"redis-server --port {redis} --bind 127.0.0.1 --save ''")
        start(
            "prometheus",
            f"prometheus --config.file=prometheus.yml --storage.tsdb.path=tsdb {listen}",
        )
        before = start("before", place.here(serving_block(fastapi)))
        place.do(MIGRATION / "index.md")
        publish_another(folder / "home", folder / "again")
        # It asks no server, and has a core to itself while others wait for theirs.
        place.aside[registry] = another.submit(place.do, registry)
        command = place.here(serving_block(RUNBOOK / "restart-and-drain.md"))
        place.server = start("server", command, f"{place.environment['MINIML_URL']}/readyz")
        place.environment["SERVER_PID"] = str(place.server.pid)
        old = f"http://127.0.0.1:{place.ports['8001']}/docs"
        until_answered(old, before, lambda: place.said("before"))
        yield place
