"""Manifests as a cluster would take them: by schema, by policy, and equal to what they are made from."""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from ray.serve.schema import ServeDeploySchema
from referencing import Registry, Resource

import miniml
from serving.deploy_file import APPLICATION
from serving.draining import _DRAIN_S
from serving.environment import GUARDED_HAPROXY, to_export
from serving.settings import ServeSettings

ROOT = Path(__file__).parent.parent.parent.parent
K8S, SCHEMAS = ROOT / "deploy/k8s", Path(__file__).parent / "schemas"
KUBERNETES = "1.32"
OVERLAYS = ("aws", "cpu", "dev", "gpu")
WITH_RAY = ("aws", "cpu", "gpu")
KUBECTL = shutil.which("kubectl")
Manifest = dict[str, Any]
Rendered = dict[str, list[Manifest]]
TemplatesOf = Callable[[Any], Iterator[Manifest]]
# The one that means something else among several nodes than on one machine, and what KubeRay itself sets.
OTHER_THAN_ON_ONE_MACHINE = {"RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "10"}
BY_KUBERAY = {"RAY_AUTH_MODE"}


def closed(schema: Any) -> Any:
    """*schema*, whose objects take no property that they do not name."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: closed(each) for key, each in schema.items()}
    if found.get("properties") and not schema.get("x-kubernetes-preserve-unknown-fields"):
        # Alternatives (oneOf) say which property there must be, not which there may be.
        found.setdefault("additionalProperties", "type" not in found)
    return found


def custom_schemas() -> dict[str, Any]:
    """`apiVersion kind` -> schema of its spec."""
    found: dict[str, Any] = {}
    for path in sorted(SCHEMAS.glob("*.json")):
        found |= json.loads(path.read_text(encoding="utf-8"))
    return {name: closed(schema) for name, schema in found.items()}


def core_schema(name: str) -> Any:
    """One of Kubernetes's own files, which know no other fields than there are."""
    place = f"kubernetes-json-schema/v{KUBERNETES}.0-local-strict/{name}.json"
    return json.loads(files("kubernetes_validate").joinpath(place).read_text(encoding="utf-8"))


CUSTOM = custom_schemas()
REGISTRY: Registry[Any] = Resource.from_contents(core_schema("_definitions")) @ Registry()


@cache
def validator(api_version: str, kind: str) -> Draft202012Validator:
    """Of a whole manifest."""
    if spec := CUSTOM.get(f"{api_version} {kind}"):
        ours = {
            "properties": {"spec": spec},
            "required": ["apiVersion", "kind", "metadata", "spec"],
        }
        return Draft202012Validator(ours, registry=REGISTRY)
    group, _, version = api_version.rpartition("/")
    name = "-".join(filter(None, (kind.lower(), group.partition(".")[0], version)))
    return Draft202012Validator(core_schema(name), registry=REGISTRY)


def check(manifest: Manifest) -> None:
    """Raise `ValidationError` where no cluster would take *manifest*."""
    validator(manifest["apiVersion"], manifest["kind"]).validate(manifest)


def one(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    """The only manifest of that kind and name."""
    (found,) = [m for m in manifests if (m["kind"], m["metadata"]["name"]) == (kind, name)]
    return found


def containers(template: Manifest) -> list[Manifest]:
    """Those that run, and those that run before."""
    spec = template["spec"]
    return [*spec["containers"], *spec.get("initContainers", ())]


def test_every_manifest_passes_its_schema(rendered: Rendered) -> None:
    """Kubernetes, KubeRay, Istio and the Prometheus operator would take them all."""
    assert tuple(rendered) == OVERLAYS
    different = {json.dumps(each, sort_keys=True) for found in rendered.values() for each in found}
    for manifest in map(json.loads, sorted(different)):
        check(manifest)


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("RayService", "spec/rayClusterConfig/enableInTreeAutoscalin", True),
        ("RayService", "spec/rayClusterConfig/workerGroupSpecs/0/maxReplicas", "8"),
        ("RayService", "spec/rayClusterConfig/headGroupSpec/template/spec/containers/0/imag", "x"),
        ("RayService", "spec/rayClusterConfig/authOptions/mode", "tokens"),
        ("VirtualService", "spec/http/1/retries/attempt", 2),
        ("DestinationRule", "spec/trafficPolicy/outlierDetection/interval", 5),
        ("PeerAuthentication", "spec/mtls/mode", "STRICTLY"),
        ("AuthorizationPolicy", "spec/rulez", []),
        ("EnvoyFilter", "spec/configPatches/0/applyTo", "HTTP_FILTERS"),
        ("PrometheusRule", "spec/groups/0/rules/0/expression", "1"),
        ("PodMonitor", "spec/podMetricsEndpoints/0/ports", "metrics"),
        ("ScrapeConfig", "spec/scrapeInterval", "15 seconds"),
        ("NetworkPolicy", "spec/podSelecter", {}),
        ("CronJob", "spec/suspend", "yes"),
        ("PodDisruptionBudget", "spec/maxUnavailble", 1),
        ("Deployment", "spec/replicas", "two"),
    ],
)
def test_a_broken_field_is_seen(rendered: Rendered, kind: str, path: str, value: object) -> None:
    """A misspelt name or a wrong value fails, whoever defines the kind."""
    broken = copy.deepcopy(next(m for m in rendered["cpu"] if m["kind"] == kind))
    *way, last = [int(step) if step.isdigit() else step for step in path.split("/")]
    place: Any = broken
    for step in way:
        place = place[step]
    place[last] = value

    with pytest.raises(ValidationError):
        check(broken)


if (
    KUBECTL
):  # on CI there is none, and our own rendering is what is left; here it is held to kubectl's

    @pytest.mark.parametrize("overlay", OVERLAYS)
    def test_kubectl_renders_the_same(rendered: Rendered, overlay: str) -> None:
        """What these tests read is what `kubectl apply -k` would send."""
        done = subprocess.run(
            [str(KUBECTL), "kustomize", str(K8S / "overlays" / overlay)],
            capture_output=True,
            text=True,
            check=True,
        )

        assert by_name(list(yaml.safe_load_all(done.stdout))) == by_name(rendered[overlay])


def by_name(manifests: list[Manifest]) -> dict[tuple[str, str, str], Manifest]:
    """Each by what a cluster knows it by; none twice."""
    found = {
        (m["kind"], m["metadata"].get("namespace", ""), m["metadata"]["name"]): m for m in manifests
    }
    assert len(found) == len(manifests)
    return found


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_container_is_locked_in(
    rendered: Rendered, templates_of: TemplatesOf, overlay: str
) -> None:
    """Not root, nothing to write on but what is mounted, no privileges; bounded; a version of an image."""
    seen = 0
    for template in templates_of(rendered[overlay]):
        pod = template["spec"]["securityContext"]
        assert pod["runAsNonRoot"]
        assert pod["runAsUser"] > 0
        assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
        for each in containers(template):
            seen += 1
            secured, needs = each["securityContext"], each["resources"]
            assert secured["readOnlyRootFilesystem"], each["name"]
            assert secured["allowPrivilegeEscalation"] is False
            assert secured["capabilities"] == {"drop": ["ALL"]}
            assert set(needs["limits"]) >= {"cpu", "memory"} <= set(needs["requests"])
            assert needs["requests"]["memory"] == needs["limits"]["memory"]
            _, _, tag = each["image"].rpartition(":")
            assert tag not in ("", "latest", "master", each["image"]), each["image"]

    assert seen > 1


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_who_serves_is_probed(rendered: Rendered, templates_of: TemplatesOf, overlay: str) -> None:
    """What runs for ever says when it has started, lives and may be asked; miniml says it itself."""
    for manifest in rendered[overlay]:
        if manifest["kind"] == "CronJob":
            continue
        for template in templates_of(manifest):
            for each in template["spec"]["containers"]:
                assert {"startupProbe", "livenessProbe", "readinessProbe"} <= set(each)
    asked = [
        probe["httpGet"]["path"]
        for template in templates_of(rendered[overlay])
        for each in template["spec"]["containers"]
        if "miniml/serve" in each["image"]
        for name, probe in each.items()
        if name.endswith("Probe")
    ]

    assert "/readyz" in asked
    assert ("/healthz" in asked) == (overlay == "dev")  # in Ray's pods its own agent answers for it
    assert ("/api/local_raylet_healthz" in asked) == (overlay != "dev")


def test_there_is_time_to_answer(rendered: Rendered, templates_of: TemplatesOf) -> None:
    """A pod is killed only after what it waits for before its end, and the time to answer who is there."""
    for overlay in OVERLAYS:
        for template in templates_of(rendered[overlay]):
            for each in template["spec"]["containers"]:
                if "lifecycle" in each:
                    words = " ".join(each["lifecycle"]["preStop"]["exec"]["command"]).split()
                    asleep_s = float(words[words.index("sleep") + 1])
                    granted_s = template["spec"]["terminationGracePeriodSeconds"]
                    assert granted_s >= asleep_s + _DRAIN_S


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_secret_stands_in_the_clear(
    rendered: Rendered, templates_of: TemplatesOf, overlay: str
) -> None:
    """No Secret is among the manifests, and what is named like one is taken from one."""
    assert not [m for m in rendered[overlay] if m["kind"] == "Secret"]
    for template in templates_of(rendered[overlay]):
        for each in containers(template):
            for variable in each.get("env", ()):
                if variable["name"].endswith(("PASSWORD", "TOKEN", "AUTH", "SECRET")):
                    assert set(variable["valueFrom"]) == {"secretKeyRef"}, variable["name"]
                assert "@" not in variable.get("value", "") or "$(" in variable["value"]


@pytest.mark.parametrize("overlay", WITH_RAY)
def test_from_elsewhere_only_port_8000_is_reached(rendered: Rendered, overlay: str) -> None:
    """Ray's ports are open to its own pods, 8265 to KubeRay, 8080 to Prometheus, and nothing to others."""
    policies = [m["spec"] for m in rendered[overlay] if m["kind"] == "NetworkPolicy"]
    ours = {"app.kubernetes.io/name": "miniml"}
    reached: dict[str, set[int]] = {}
    for policy in policies:
        if policy["podSelector"].get("matchLabels") != ours:
            continue
        for rule in policy["ingress"]:
            for source in rule["from"]:  # a rule without would be for everybody
                if "podSelector" in source:
                    assert source["podSelector"]["matchLabels"] == ours
                else:
                    labels = source["namespaceSelector"]["matchLabels"]
                    reached[labels["kubernetes.io/metadata.name"]] = {
                        port["port"] for port in rule["ports"]
                    }

    assert {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}.items() <= policies[0].items()
    assert "ingress" not in policies[0]
    assert reached == {
        "istio-ingress": {8000},
        "monitoring": {8000, 8080},
        "kuberay-system": {8000, 8265},
    }


def test_every_selector_selects(rendered: Rendered, templates_of: TemplatesOf) -> None:
    """What is meant for a pod by its labels meets one, so that no policy or service is a dead letter."""
    for manifests in rendered.values():
        pods = [t["metadata"]["labels"] for t in templates_of(manifests)]
        for manifest in manifests:
            spec = manifest.get("spec", {})
            wanted: Any = spec.get("podSelector") or spec.get("selector") or {}
            labels = wanted.get("matchLabels", wanted if manifest["kind"] == "Service" else {})
            if labels:
                assert any(labels.items() <= pod.items() for pod in pods), manifest["metadata"]


@pytest.mark.parametrize("overlay", WITH_RAY)
def test_the_environment_is_that_of_miniml_serve(
    rendered: Rendered, overlay: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray starts in what `serving.environment` says, but for what is written down here as different."""
    for name in to_export(haproxy=True):
        monkeypatch.delenv(name, raising=False)
    table = to_export(haproxy=True)
    expected = {
        name: OTHER_THAN_ON_ONE_MACHINE.get(name, value)
        for name, value in table.items()
        if name not in {*GUARDED_HAPROXY, *BY_KUBERAY}  # the image says where its HAProxy lies
    }
    cluster = one(rendered[overlay], "RayService", "miniml")["spec"]["rayClusterConfig"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]

    assert cluster["authOptions"]["mode"] == table["RAY_AUTH_MODE"]
    for group in groups:
        (container,) = group["template"]["spec"]["containers"]
        told = {v["name"]: v["value"] for v in container["env"] if "value" in v}
        assert {name: told.get(name) for name in expected} == expected
        assert set(told) - set(expected) == {"MINIML_REDIS_URL"}
        assert after(container["command"], told).items() >= (table | expected).items()


def after(command: list[str], told: dict[str, str]) -> dict[str, str]:
    """The environment in which `ray start` would run, as KubeRay joins the words for bash."""
    python = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    script = f"{' '.join(command)} && env -0"
    done = subprocess.run(
        ["/bin/bash", "-c", "--", script], env=python | told, capture_output=True, check=True
    )
    return dict(line.split("=", 1) for line in done.stdout.decode().split("\0") if line)


@pytest.mark.parametrize("overlay", WITH_RAY)
def test_ray_would_take_the_application(
    rendered: Rendered, overlay: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray and our settings read it; a replica fits a worker, and workers are as many as replicas."""
    spec = one(rendered[overlay], "RayService", "miniml")["spec"]
    schema = ServeDeploySchema.model_validate(yaml.safe_load(spec["serveConfigV2"]))
    (application,) = schema.applications
    monkeypatch.setenv("MINIML_REDIS_URL", "redis://:word@miniml-redis-cache:6379/0")
    settings = ServeSettings(**application.args)
    (workers,) = spec["rayClusterConfig"]["workerGroupSpecs"]
    (container,) = workers["template"]["spec"]["containers"]

    assert (application.name, application.route_prefix) == (APPLICATION, "/")
    assert application.import_path == "serving.app:build"
    assert (schema.http_options.host, schema.http_options.port) == ("0.0.0.0", 8000)
    assert settings.keys
    assert settings.redis_url  # by the environment
    assert (settings.min_replicas, settings.max_replicas) == (
        workers["minReplicas"],
        workers["maxReplicas"],
    )
    assert settings.lanes is not None
    assert settings.threads is not None
    assert settings.lanes * settings.threads <= int(workers["rayStartParams"]["num-cpus"])
    assert int(workers["rayStartParams"]["num-cpus"]) < int(container["resources"]["limits"]["cpu"])
    assert (settings.device == "cuda") == ("nvidia.com/gpu" in container["resources"]["limits"])
    (mount,) = [m for m in container["volumeMounts"] if m["name"] == "keys"]
    assert settings.keys == f"{mount['mountPath']}/keys.json"


def test_the_commands_are_ours(rendered: Rendered, templates_of: TemplatesOf) -> None:
    """Every `miniml` in a container is a command that our command line reads, with its values put in."""
    commands: Any = typer.main.get_command(miniml.app)
    seen = set()
    for manifests in rendered.values():
        values = {"REDIS_PASSWORD": "word"}
        for config in (m for m in manifests if m["metadata"]["name"] == "miniml-pipeline"):
            values |= config.get("data", {})
        for template in templates_of(manifests):
            for each in containers(template):
                command = each.get("command", [""])
                if command[0] == "miniml":
                    words = [expanded(word, values) for word in command[2:]]
                    commands.commands[command[1]].make_context(command[1], words)
                    seen.add(command[1])

    assert seen == {"serve", "transform", "train", "export"}


def expanded(word: str, values: dict[str, str]) -> str:
    """*word* as Kubernetes would hand it over."""
    return re.sub(r"\$\((\w+)\)", lambda found: values[found.group(1)], word)


def test_prometheus_and_its_operator_read_the_same_rules(rendered: Rendered) -> None:
    """`make manifests` was run since a rule was changed, and the dashboard is the one that is tested."""
    rules = yaml.safe_load((ROOT / "deploy/prometheus/rules.yml").read_text(encoding="utf-8"))
    dashboard = (ROOT / "deploy/grafana/miniml.json").read_text(encoding="utf-8")

    assert one(rendered["cpu"], "PrometheusRule", "miniml")["spec"] == rules
    found = one(rendered["cpu"], "ConfigMap", "miniml-dashboard")["data"]
    assert found == {"miniml.json": dashboard}


def test_the_gateway_asks_for_limits_that_there_are(rendered: Rendered) -> None:
    """Each descriptor that the gateway sends has a limit, in the domain that it names."""
    gateway = one(rendered["cpu"], "EnvoyFilter", "miniml-global-limit")["spec"]["configPatches"]
    limits = yaml.safe_load(
        one(rendered["cpu"], "ConfigMap", "miniml-ratelimit")["data"]["limits.yaml"]
    )
    actions = [
        action
        for patch in gateway
        for limit in patch["patch"]["value"].get("rate_limits", ())
        for action in limit["actions"]
    ]
    sent = {next(iter(a.values())).get("descriptor_key", next(iter(a))) for a in actions}
    service = gateway[0]["patch"]["value"]["typed_config"]

    assert sent == {limit["key"] for limit in limits["descriptors"]}
    assert service["domain"] == limits["domain"]
    (port,) = one(rendered["cpu"], "Service", "miniml-ratelimit")["spec"]["ports"]
    cluster = service["rate_limit_service"]["grpc_service"]["envoy_grpc"]["cluster_name"]
    assert cluster == f"outbound|{port['port']}||miniml-ratelimit.miniml.svc.cluster.local"


def test_only_what_is_safe_is_asked_again(rendered: Rendered) -> None:
    """Retries are for nobody there and for who leaves; never for who is full, failed or took too long."""
    routes = one(rendered["cpu"], "VirtualService", "miniml")["spec"]["http"]
    (requests,) = [route for route in routes if "retries" in route]

    assert set(requests["retries"]["retryOn"].split(",")) == {
        "connect-failure",
        "refused-stream",
        "503",
    }
