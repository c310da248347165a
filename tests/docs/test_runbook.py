"""The runbook and the guides as they are written: each alert has its page, and what pages name exists.

test_runbook_runs.py runs what stands in them.
"""

from __future__ import annotations

import re
import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from docs.checks import Fence, blocks

ROOT = Path(__file__).parent.parent.parent
RUNBOOK, MIGRATION, K8S = ROOT / "docs/runbook", ROOT / "docs/migration", ROOT / "deploy/k8s"
PAGES = sorted({*RUNBOOK.glob("*.md"), *MIGRATION.glob("*.md")})
RULES = ROOT / "deploy/prometheus/rules.yml"
RULES_TEST = ROOT / "tests/deploy/rules_test.yml"
# Blocks that are not run here, by their first words, and why.
NOT_RUN = {
    "miniml bench slo": "takes minutes, and all of the machine",
    "miniml serve reviews@champion --lanes 2": "eight cores, where this may be a machine of two",
    "miniml keys revoke NAME": "whose it is, nobody knows before",
    "serve status": "asks the head of a cluster, and a server on one machine has no dashboard",
}
# kubectl and a cluster are not here, so lines of `console` are compared with the manifests instead. What no
# manifest has: KubeRay's Service, what is made by hand (docs/kubernetes.md), and a node.
OF_NO_MANIFEST = {"service/miniml-serve-svc", "secret/miniml-keys"}
ALERT_PARTS = (
    "**What it means.**",
    "**How bad.**",
    "## First look",
    "## Over when",
    "**Tested by**",
)


def blocks_of(page: Path) -> list[Fence]:
    """Its fenced blocks, in order."""
    return blocks(page.read_text(encoding="utf-8"))


def alerts() -> dict[str, dict[str, Any]]:
    """Of the rules, by name."""
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}


def test_every_alert_has_a_page_and_every_page_its_alert() -> None:
    """A page of its name, to which its annotation leads, and no page of an alert that is none."""
    assert {page.stem for page in RUNBOOK.glob("Miniml*.md")} == set(alerts())
    for name, rule in alerts().items():
        assert rule["annotations"]["runbook_url"].endswith(f'"docs/runbook/%s.md") "{name}" }}}}')


@pytest.mark.parametrize("name", alerts())
def test_a_page_says_what_whoever_is_woken_wants_to_know(name: str) -> None:
    """What it means, how bad, where to look, when it is over, how it is tested; as severe as the rule."""
    text = (RUNBOOK / f"{name}.md").read_text(encoding="utf-8")
    severity = alerts()[name]["labels"]["severity"]
    worst = {"critical": "Critical", "warning": "A warning"}[severity]

    assert [part for part in ALERT_PARTS if part not in text] == []
    assert f"**How bad.** {worst}" in text
    assert re.search(r"^## Causes", text, re.MULTILINE)
    index = (RUNBOOK / "index.md").read_text(encoding="utf-8")
    assert f"| [{name}]({name}.md) | {severity} |" in index


@pytest.mark.parametrize("folder", [RUNBOOK, MIGRATION], ids=lambda folder: folder.name)
def test_each_page_is_reached_from_the_index(folder: Path) -> None:
    """By a link."""
    index = (folder / "index.md").read_text(encoding="utf-8")

    links = set(re.findall(r"\]\(([\w-]+\.md)", index))

    assert {page.name for page in folder.glob("*.md")} - {"index.md"} <= links


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_page_names_is_there(page: Path) -> None:
    """Files of the repository, cases of the alerts' tests, and metrics."""
    text = page.read_text(encoding="utf-8")
    files = re.findall(r"`((?:tests|deploy|serving)/[\w./-]+)`", text)
    cases = {test["name"] for test in yaml.safe_load(RULES_TEST.read_text("utf-8"))["tests"]}
    tested = text.partition("**Tested by**")[2]
    quoted = [" ".join(name.split()) for name in re.findall(r'"([^"]+)"', tested)]
    known = (ROOT / "docs/metrics.md").read_text("utf-8") + RULES.read_text("utf-8")
    metrics = re.findall(r"\b(?:miniml|process)_\w+|\bjob\w*:\w+:\w+", text)

    assert [name for name in files if not (ROOT / name).exists()] == []
    assert [name for name in quoted if name not in cases] == []
    suffix = re.compile(r"_(?:sum|count|bucket)$")
    assert {name for name in metrics if suffix.sub("", name) not in known} == set()


def test_variables_are_defined_once() -> None:
    """Each that a command uses is set on the index page, or by the block itself."""
    here = "\n".join(block.text for block in blocks_of(RUNBOOK / "index.md")[:1])
    ours = set(re.findall(r"^export (\w+)=", here, re.MULTILINE)) | {"PWD"}
    for page in sorted(RUNBOOK.glob("*.md")):
        for block in blocks_of(page):
            if block.language in ("bash", "sh"):
                own = set(re.findall(r"\b(\w+)=", block.text))
                own |= set(re.findall(r"\bfor (\w+) in", block.text))
                used = set(re.findall(r"\$\{?([A-Za-z_]\w*)", block.text))
                assert used <= ours | own, page.name


def test_what_is_not_run_is_known() -> None:
    """Each such block is listed with its reason, and none is listed that is not there."""
    found = [b.text for page in PAGES for b in blocks_of(page) if b.language == "sh"]

    assert [t for t in found if not t.startswith(tuple(NOT_RUN))] == []
    assert [words for words in NOT_RUN if not any(t.startswith(words) for t in found)] == []


def manifests() -> tuple[set[str], str]:
    """What `deploy/k8s` makes, as kind/name, and all of its text."""
    texts = [path.read_text(encoding="utf-8") for path in sorted(K8S.rglob("*.yaml"))]
    documents = [one for text in texts for one in yaml.safe_load_all(text) if one]
    named = {
        f"{one['kind']}/{one['metadata']['name']}".lower() for one in documents if "metadata" in one
    }
    return named, "\n".join(texts)


CONSOLE = [
    line
    for page in PAGES
    for block in blocks_of(page)
    if block.language == "console"
    for line in block.text.splitlines()
]


@pytest.mark.parametrize("line", CONSOLE)
def test_a_console_names_what_the_manifests_have(line: str) -> None:
    """Namespace, kinds and names, labels, containers and folders; or a target of make."""
    named, text = manifests()
    words = shlex.split(line)
    options = dict(pairwise(words))
    if words[0] == "make":
        assert f"\n{words[1]}:" in (ROOT / "Makefile").read_text(encoding="utf-8")
        return
    assert words[0] == "kubectl"
    assert options.get("-n", "miniml") == "miniml"
    if label := options.get("-l"):
        key, _, value = label.partition("=")
        assert f"{key}: {value}\n" in text
    if container := options.get("-c"):
        assert f"- name: {container}\n" in text
    if folder := options.get("-k"):
        assert (ROOT / folder / "kustomization.yaml").is_file()
    kinds = "rayservice|deployment|service|secret generic"
    things = re.findall(rf"\b({kinds})[ /]([a-z][\w-]+)", line)
    for kind, name in things:
        thing = f"{kind.split()[0]}/{name}"
        assert thing in named | OF_NO_MANIFEST, thing
