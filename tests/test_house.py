"""The house stands: arrows, light imports, sizes, one owner for every name."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("registry", "training", "export", "serving", "benchmarks", "deploy", "docs")
MAX_FILE_LINES, MAX_FUNCTION_LINES = 300, 40

# room -> what of ours it may import; a name without a dot means the whole room.
ARROWS: dict[str, set[str]] = {
    "registry": set(),
    "training": {"registry"},
    "export": {
        "registry",
        *(
            f"serving.{name}"
            for name in (
                "agreement",
                "package",
                "engine",
                "session",
                "isa",
                "lanes",
                "calibration",
                "canonical",
                "cost",
                "errors",
            )
        ),
    },
    "deploy": {"registry", "serving.package"},
    "docs": {"miniml", "registry.artifact", "serving"},
    "serving": {"registry.artifact", "registry.errors", "registry.home", "registry.store"},
    "benchmarks": {
        f"serving.{name}"
        for name in (
            *(
                "package",
                "engine",
                "session",
                "isa",
                "lanes",
                "cost",
                "planner",
                "scaling",
                "line",
                "client",
            ),
        )
    },
}
# Inside serving: a module imports only what stands further right. Only server and deploy_file import app.
# Of rooms with a dot each module has a place of its own; others are one thing.
SERVING_ORDER = (
    "server",
    "draining",
    "orphans",
    "own_ray",
    "deploy_file",
    "observing.log_relay",
    "app",
    "rollout.everywhere",
    "rollout.cluster_store",
    "grpc_door",
    "observing.replica_log",
    "autoscaler",
    "shortcut",
    "one_write",
    "predict",
    "offline",
    "shadow.promoting",
    "shadow.commands",
    "shadow.showing",
    "caching.commands",
    "rollout.deploying",
    "access.commands",
    "observing.top",
    "rollout.following",
    "models.routing",
    "models.metrics",
    "models.others",
    "rollout.shelf",
    "rollout.witness",
    "rollout.probation",
    "rollout.ledger",
    "protocols",
    "access.gate",
    "access.metering",
    "observing.tracing",
    "observing.request_log",
    "shadow.beside",
    "shadow.observer",
    "shadow.metrics",
    "observing.metrics",
    "observing.traffic",
    "observing.answer_mix",
    "observing.operations",
    "observing.histograms",
    "observing.drift",
    "request",
    "shadow.process",
    "shadow.worker",
    "shadow.report",
    "agreement",
    "core",
    "readiness",
    "observing.spans",
    "observing.delivery",
    "caching.cache",
    "caching.shared_cache",
    "caching.breaker",
    "pulse",
    "reading",
    "token_estimate",
    "memory",
    "batcher",
    "dispatch",
    "offered",
    "work",
    "line",
    "planner",
    "scaling",
    "calibration",
    "lanes",
    "cost",
    "engine",
    "session",
    "gpu",
    "cuda",
    "encoding",
    "isa",
    "rollout.starting",
    "settings",
    "models.budget",
    "models.names",
    "rollout.wanted",
    "rollout.sharing",
    "access.keys",
    "observing.log_file",
    "environment",
    "client",
    "conversation",
    "amounts",
    "options",
    "locate",
    "apart",
    "package",
    "canonical",
    "errors",
)
PURE = (
    *(
        "planner",
        "cost",
        "line",
        "observing.drift",
        "scaling",
        "rollout.probation",
        "rollout.sharing",
        "rollout.wanted",
    ),
    *("models.budget", "models.names"),
    *("agreement", "shadow.report"),
)
HEAVY = ("torch", "transformers", "ray", "onnxruntime", "mlflow", "datasets", "matplotlib")


def sources() -> list[Path]:
    """Every Python file of the product."""
    files = [ROOT / "miniml.py"]
    for room in ROOMS:
        files.extend(sorted((ROOT / room).rglob("*.py")))
    return files


def imports(path: Path) -> Iterator[str]:
    """Dotted names imported anywhere in *path*: `from a.b import c` gives `a.b.c`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; say where the name comes from"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def of_ours(name: str) -> bool:
    """Whether a dotted name belongs to one of our rooms or to the front door."""
    return name.partition(".")[0] in (*ROOMS, "miniml")


@pytest.mark.parametrize("room", ROOMS)
def test_arrows(room: str) -> None:
    """A room imports from another only along an arrow of the architecture."""
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sorted((ROOT / room).rglob("*.py"))
        for name in imports(path)
        if of_ours(name) and name.split(".")[0] != room
        if not any(name == allowed or name.startswith(f"{allowed}.") for allowed in ARROWS[room])
    ]

    assert wrong == []


def place_in_serving(parts: tuple[str, ...]) -> str:
    """What `SERVING_ORDER` calls a module of these *parts*; "" if it is no module of serving's."""
    if parts[0] != "serving":
        return ""
    rooms = {name.partition(".")[0] for name in SERVING_ORDER if "." in name}
    return ".".join(parts[1:3] if parts[1] in rooms else parts[1:2])


def test_arrows_inside_serving() -> None:
    """Inside serving, imports point one way; planner and cost know nothing that acts."""
    wrong = []
    for path in sorted((ROOT / "serving").rglob("*.py")):
        here = place_in_serving(path.relative_to(ROOT).with_suffix("").parts)
        for name in imports(path):
            there = place_in_serving(tuple(name.split(".")))
            if there in (here, ""):
                continue
            if here not in SERVING_ORDER or there not in SERVING_ORDER:
                wrong.append(f"{here} or {there} has no place in SERVING_ORDER")
            elif SERVING_ORDER.index(there) < SERVING_ORDER.index(here):
                wrong.append(f"{here} imports {there}")

    assert wrong == []


@pytest.mark.parametrize("module", PURE)
def test_pure_modules_do_not_act(module: str) -> None:
    """Planner and cost model are functions of plain values: no clock, no I/O, no asyncio."""
    names = {
        name.split(".")[0] for name in imports(ROOT / "serving" / f"{module.replace('.', '/')}.py")
    }

    assert not names & {"asyncio", "time", "os", "pathlib", "onnxruntime", "ray", "threading"}


@pytest.mark.parametrize(
    "module",
    [
        "miniml",
        "registry",
        "registry.artifact",
        "serving",
        "serving.package",
        "export",
        "training",
        "deploy",
    ],
)
def test_light_imports(module: str) -> None:
    """Importing a front door or a contract loads none of the heavy libraries."""
    code = f"import sys, {module}; print([m for m in {HEAVY!r} if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert result.stdout.strip() == "[]"


def test_a_replica_draws_no_tables() -> None:
    """What shows things on a terminal takes 2 MB of each replica that imports it."""
    code = "import sys, serving.app, serving.shortcut; print('rich' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert result.stdout.strip() == "False"


def test_serving_never_imports_training_libraries() -> None:
    """No file of serving names torch, transformers or MLflow: the image carries none of them."""
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sorted((ROOT / "serving").rglob("*.py"))
        for name in imports(path)
        if name.split(".")[0] in ("torch", "transformers", "mlflow", "datasets", "optimum")
    ]

    assert wrong == []


def test_sizes() -> None:
    """A file is at most 300 lines, a function at most 40."""
    wrong = []
    for path in sources():
        text = path.read_text(encoding="utf-8")
        name = path.relative_to(ROOT)
        if (lines := text.count("\n")) > MAX_FILE_LINES:
            wrong.append(f"{name}: {lines} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > MAX_FUNCTION_LINES:
                    wrong.append(f"{name}: {node.name} has {length} lines")

    assert wrong == []


def test_one_owner_for_every_class_name() -> None:
    """A public class name is defined once in the whole house, so that a noun means one thing."""
    owners = defaultdict(list)
    for path in sources():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                owners[node.name].append(str(path.relative_to(ROOT)))

    assert {name: files for name, files in owners.items() if len(files) > 1} == {}


def test_top_level_names_are_ours() -> None:
    """No other installed distribution claims one of our flat top-level names."""
    claimed = packages_distributions()

    assert {
        name: claimed.get(name, []) for name in ROOMS if set(claimed.get(name, [])) - {"miniml"}
    } == {}


def test_tests_have_no_package_files() -> None:
    """An `__init__.py` under tests would shadow the real rooms."""
    assert list((ROOT / "tests").rglob("__init__.py")) == []


def test_no_machine_in_the_tree() -> None:
    """No file names a home folder, a registry host or a mirror of the machine it was made on."""
    pattern = re.compile(r"/(?:root|home/\w+|work)/|https?://[^/\s]*(?:pypi|mirror)\.")
    files = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True, check=False
    ).stdout.split("\n")
    wrong: list[str] = []
    for name in filter(None, files):
        path = ROOT / name
        if name == "tests/test_house.py" or not path.is_file():
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        wrong.extend(f"{name}: {match.group()}" for match in pattern.finditer(text))

    assert wrong == []
