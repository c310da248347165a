"""Terraform as it is written: what it names is there, data is locked up, and nobody may do too much.

No provider can be had here, so `terraform validate` is not run; names of attributes are not checked.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import hcl2
import pytest
import yaml

ROOT = Path(__file__).parent.parent.parent
AWS, K8S = ROOT / "deploy/aws", ROOT / "deploy/k8s"
POLICIES = sorted((AWS / "policies").glob("*.json"))
TERRAFORM = shutil.which("terraform") or shutil.which("tofu")
# Where AWS knows no resource to name: a log-in, and looking at what there is. In a key's own policy
# `*` is that key, and who holds the account decides by roles.
ANY_RESOURCE = {
    ("push", "LogIn"),
    ("autoscaler", "SeeGroupsAndTypes"),
    ("key", "TheAccountDecidesByItsRoles"),
}
ANY_ACTION = {("key", "TheAccountDecidesByItsRoles"), ("bucket", "OnlyEncryptedOnTheWay")}
Block = dict[str, Any]


@cache
def parsed() -> dict[str, list[Block]]:
    """Kind of block -> all of them, of all files."""
    found: dict[str, list[Block]] = {}
    for path in sorted(AWS.glob("*.tf")):
        with path.open(encoding="utf-8") as file:
            for kind, blocks in bare(hcl2.load(file)).items():
                found.setdefault(kind, []).extend(blocks)
    return found


def bare(value: Any) -> Any:
    """Without the quotes that the parser keeps, and its own remarks."""
    if isinstance(value, list):
        return [bare(each) for each in value]
    if isinstance(value, dict):
        return {key.strip('"'): bare(each) for key, each in value.items() if key[:2] != "__"}
    if isinstance(value, str) and len(value) > 1 and value[0] == value[-1] == '"':
        return value[1:-1]
    return value


def labelled(blocks: list[Block]) -> Iterator[tuple[str, Block]]:
    """`type.name` and body of each resource or data source."""
    for block in blocks:
        for kind, named in block.items():
            for name, body in named.items():
                yield f"{kind}.{name}", body


def of_kind(kind: str) -> dict[str, Block]:
    """Name -> body of every resource of that type."""
    found = labelled(parsed()["resource"])
    return {key.split(".")[1]: body for key, body in found if key.split(".")[0] == kind}


def declared(blocks: dict[str, list[Block]]) -> set[str]:
    """Everything that an expression may name."""
    found = {f"var.{name}" for block in blocks["variable"] for name in block}
    found |= {f"local.{name}" for block in blocks["locals"] for name in block}
    found |= {key for key, _ in labelled(blocks["resource"])}
    return found | {f"data.{key}" for key, _ in labelled(blocks["data"])}


def named_in(text: str) -> set[str]:
    """Variables, locals, resources and data sources that *text*, Terraform, names."""
    code = re.sub(r"#.*", "", text)
    # Inside a string only what is put in is code.
    code = re.sub(r'"(?:[^"\\$]|\\.|\$(?!\{)|\$\{[^}]*\})*"', _put_in, code)
    found = set(re.findall(r"\b(?:var|local)\.\w+", code))
    found |= set(re.findall(r"\bdata\.\w+\.\w+", code))
    return found | set(re.findall(r"(?<![\w.])aws_\w+\.\w+", code))


def _put_in(string: re.Match[str]) -> str:
    return " ".join(re.findall(r"\$\{([^}]*)\}", string.group()))


def policy(path: Path) -> Block:
    """The document, with something in each place that Terraform fills."""
    text = path.read_text(encoding="utf-8").replace(": ${repositories}", ': ["arn:of:repository"]')
    found: Block = json.loads(re.sub(r"\$\{(\w+)\}", r"<\1>", text))
    return found


def as_list(value: str | list[str]) -> list[str]:
    """Policies say one thing without a list."""
    return [value] if isinstance(value, str) else value


if TERRAFORM:  # on CI there is none; what it writes differently is seen by who has it

    def test_it_is_written_as_terraform_writes() -> None:
        """`terraform fmt` would change nothing."""
        done = subprocess.run(
            [str(TERRAFORM), "fmt", "-check", "-diff", str(AWS)],
            env={"TF_CLI_CONFIG_FILE": "/dev/null", "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=False,
        )

        assert done.returncode == 0, done.stdout + done.stderr


def test_everything_that_is_named_is_there() -> None:
    """Each variable, local, resource and data source is declared, and each is used or is a thing."""
    blocks = parsed()
    named: set[str] = set()
    for path in AWS.glob("*.tf"):
        named |= named_in(path.read_text(encoding="utf-8"))
    there = declared(blocks)

    assert named - there == set()
    assert {each for each in there if each.startswith(("var.", "local.", "data."))} <= named


def test_a_broken_name_is_seen() -> None:
    """A name that is nowhere is found in code, and not in comments or plain words."""
    text = '# var.gone\nx = "var.word ${var.nowhere}"\ny = aws_vpc.other.id\nz = data.aws_x.y.z\n'

    assert named_in(text) == {"var.nowhere", "aws_vpc.other", "data.aws_x.y"}
    assert not named_in(text) & declared(parsed())


def test_every_policy_gets_what_it_asks_for() -> None:
    """Each file of policies is used, and filled with just the values that stand open in it."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted(AWS.glob("*.tf")))
    literal = set(re.findall(r"policies/([\w-]+)\.json", text))
    pods = next(block["pods"] for block in parsed()["locals"] if "pods" in block)

    assert literal | set(pods) == {path.stem for path in POLICIES}
    for path in POLICIES:
        asked = set(re.findall(r"\$\{(\w+)\}", path.read_text(encoding="utf-8")))
        if path.stem in pods:
            given = set(pods[path.stem]["values"])
        else:
            call = re.search(
                rf"policies/{path.stem}\.json\"(?:, \{{(.*?)\n  \}}\))?", text, re.DOTALL
            )
            assert call is not None
            given = set(re.findall(r"^\s*(\w+)\s*=", call.group(1) or "", re.MULTILINE))
        assert asked == given, path.stem


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: path.stem)
def test_nobody_may_do_more_than_they_must(path: Path) -> None:
    """No action is a pattern and no resource is everything, but for what is listed here with its reason."""
    if path.stem == "images":
        assert [rule["action"] for rule in policy(path)["rules"]] == [{"type": "expire"}] * 2
        return
    statements = policy(path)["Statement"]

    assert policy(path)["Version"] == "2012-10-17"
    assert len({each["Sid"] for each in statements}) == len(statements)
    for each in statements:
        who = (path.stem, each["Sid"])
        actions = as_list(each["Action"])
        assert not {"NotAction", "NotResource", "NotPrincipal"} & set(each)
        assert (who in ANY_ACTION) == any("*" in action for action in actions), who
        assert (who in ANY_RESOURCE) == ("*" in as_list(each.get("Resource", []))), who
        if each["Effect"] == "Allow" and "Principal" in each:
            assert each["Principal"] != "*"
        assert all(re.fullmatch(r"[a-z0-9]+:[A-Za-z*]+", action) for action in actions)


def test_who_serves_only_reads() -> None:
    """Serving cannot change a bucket, and jobs cannot delete from one or write to raw data."""
    writes = re.compile(r"s3:(Put|Delete|Abort|Restore)\w*")
    statements = {
        name: policy(AWS / f"policies/{name}.json")["Statement"] for name in ("serve", "jobs")
    }
    for name, found in statements.items():
        for each in found:
            for action in as_list(each["Action"]):
                assert "Delete" not in action
                if writes.match(action):
                    assert name == "jobs"
                    assert set(each["Resource"]) == {"<hub>/*", "<registry>/*"}


def test_every_bucket_is_locked_up() -> None:
    """Versions, a key of ours, nothing public, no plain HTTP, and an end for what was overwritten."""
    kinds = [
        "versioning",
        "server_side_encryption_configuration",
        "public_access_block",
        "ownership_controls",
        "policy",
        "lifecycle_configuration",
    ]
    assert set(of_kind("aws_s3_bucket")) == {"this"}
    for kind in kinds:
        (body,) = of_kind(f"aws_s3_bucket_{kind}").values()
        assert body["for_each"] == "${aws_s3_bucket.this}", kind
        assert body["bucket"] == "${each.value.id}"
    (block,) = of_kind("aws_s3_bucket_public_access_block").values()
    (encryption,) = of_kind("aws_s3_bucket_server_side_encryption_configuration").values()
    (versioning,) = of_kind("aws_s3_bucket_versioning").values()

    assert [
        value for key, value in block.items() if key.startswith(("block", "ignore", "restrict"))
    ] == ([True] * 4)
    default = encryption["rule"][0]["apply_server_side_encryption_by_default"][0]
    assert default["sse_algorithm"] == "aws:kms"
    assert versioning["versioning_configuration"][0]["status"] == "Enabled"


def test_what_rests_or_travels_is_encrypted() -> None:
    """Caches, images, disks and the cluster's secrets; machines answer only who asks with a token."""
    (redis,) = of_kind("aws_elasticache_replication_group").values()
    (images,) = of_kind("aws_ecr_repository").values()
    (cluster,) = of_kind("aws_eks_cluster").values()
    (template,) = of_kind("aws_launch_template").values()

    assert redis["transit_encryption_enabled"] is True
    assert redis["at_rest_encryption_enabled"] is True
    assert redis["auth_token"] == "${var.redis_password}"
    assert images["image_tag_mutability"] == "IMMUTABLE"
    assert images["encryption_configuration"][0]["encryption_type"] == "KMS"
    assert cluster["encryption_config"][0]["resources"] == ["secrets"]
    assert cluster["vpc_config"][0]["endpoint_private_access"] is True
    assert template["metadata_options"][0]["http_tokens"] == "required"
    assert template["metadata_options"][0]["http_put_response_hop_limit"] == 1
    assert template["block_device_mappings"][0]["ebs"][0]["encrypted"] is True


def test_no_secret_is_written_down() -> None:
    """What is secret has no default, and the API is private until somebody says who may reach it."""
    variables = {name: body for block in parsed()["variable"] for name, body in block.items()}

    assert {name for name, body in variables.items() if body.get("sensitive")} == {"redis_password"}
    assert "default" not in variables["redis_password"]
    assert variables["api_cidrs"]["default"] == []
    assert all(body["description"].endswith(".") for body in variables.values())


def test_it_fits_the_manifests() -> None:
    """Pools, taints, accounts, images, caches and addresses are those that deploy/k8s names."""
    manifests = "\n".join(path.read_text(encoding="utf-8") for path in sorted(K8S.rglob("*.yaml")))
    locals_ = {name: value for block in parsed()["locals"] for name, value in block.items()}
    (nodes,) = of_kind("aws_eks_node_group").values()
    (images,) = of_kind("aws_ecr_repository").values()
    (label,) = nodes["labels"]
    accounts = {
        (each["metadata"]["namespace"], each["metadata"]["name"])
        for path in K8S.rglob("*.yaml")
        for each in yaml.safe_load_all(path.read_text(encoding="utf-8"))
        if each and each["kind"] == "ServiceAccount"
    }
    bound = {(pod["namespace"], pod["account"]) for pod in locals_["pods"].values()}
    overlay = yaml.safe_load((K8S / "overlays/aws/kustomization.yaml").read_text(encoding="utf-8"))

    pools = set(re.findall(rf"{re.escape(label)}: (\w+)", manifests))
    assert pools == set(locals_["pools"])
    assert set(locals_["pools"]["gpu"]["taints"]) == set(
        re.findall(r"key: (nvidia\S+),", manifests)
    )
    assert {each for each in bound if each[0] == "miniml"} <= accounts
    wanted = set(re.findall(r"newName: \S+/miniml/([\w-]+)", manifests))
    assert wanted == set(re.findall(r'"([\w-]+)"', images["for_each"]))
    assert all(".dkr.ecr." in image["newName"] for image in overlay["images"])
    assert set(re.findall(r"master\.miniml-(\w+)\.", manifests)) == set(locals_["redis"])
    variables = {name: body for block in parsed()["variable"] for name, body in block.items()}
    assert f"cidr: {variables['cidr']['default']}" in manifests
