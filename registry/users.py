"""Who may ask a hub, and what: MLflow's users, told apart as `registry.access` tells them apart."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field
from typing import Any, Literal

from registry.connection import prepare_mlflow, server_uri, translated, without_password
from registry.errors import BadReference, NotFound, StoreUnavailable

May = Literal["read", "publish", "manage"]
_USERS, _GRANT = "/api/2.0/mlflow/users", "/api/3.0/mlflow/users/permissions/grant"
_PUBLISHED = ("experiment", "registered_model")  # what publishing makes and changes, in MLflow
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_SECRET_BYTES = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class HubUser:
    """A user and what they may do; each right holds those before it."""

    name: str
    may: May


@dataclass(frozen=True, slots=True, kw_only=True)
class NewHubUser:
    """A user with the password, which nobody can be told again."""

    user: HubUser
    password: str = field(repr=False)
    uri: str


def add_user(name: str, *, may: May, replace: bool = False) -> NewHubUser:
    """Make a user with a password of ours. Raises `BadReference` for a bad name, or one taken.

    replace: who has the name already is removed first, rights, password and all.
    """
    if not _NAME.fullmatch(name):
        raise BadReference(f"{name!r} cannot be a user: letters, digits and . _ @ -, at most 64.")
    if any(user.name == name for user in list_users()):
        if not replace:
            raise BadReference(f"There is a user {name!r}; --replace gives a new password.")
        remove_user(name)
    password = secrets.token_urlsafe(_SECRET_BYTES)
    _ask("POST", f"{_USERS}/create", json={"username": name, "password": password})
    if may == "publish":
        for made in _PUBLISHED:
            grant = {"resource_type": made, "resource_id": "*", "permission": "EDIT"}
            _ask("POST", _GRANT, json={"username": name, **grant})
    if may == "manage":
        _ask("PATCH", f"{_USERS}/update-admin", json={"username": name, "is_admin": True})
    uri = without_password(_uri())
    return NewHubUser(user=HubUser(name=name, may=may), password=password, uri=uri)


def list_users() -> list[HubUser]:
    """All users, by name."""
    users = _ask("GET", f"{_USERS}/list")["users"]
    found = [HubUser(name=user["username"], may=_may(user)) for user in users]
    return sorted(found, key=lambda user: user.name)


def remove_user(name: str) -> None:
    """Let nobody in by that name any more. Raises `NotFound`."""
    try:
        _ask("DELETE", f"{_USERS}/delete", json={"username": name})
    except NotFound as error:
        there = ", ".join(user.name for user in list_users())
        raise NotFound(f"There is no user {name!r}; there are: {there}.") from error


def _may(user: Any) -> May:
    if user["is_admin"]:
        return "manage"
    grants = [grant for role in user["roles"] for grant in role["permissions"]]
    everywhere = {
        grant["resource_type"]
        for grant in grants
        if grant["resource_pattern"] == "*" and grant["permission"] in ("EDIT", "MANAGE")
    }
    return "publish" if everywhere.issuperset(_PUBLISHED) else "read"


def _uri() -> str:
    uri = server_uri()
    if uri is None:
        raise StoreUnavailable(
            "Users are a hub's; name it by MLFLOW_TRACKING_URI, and yourself by "
            "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."
        )
    return uri


def _ask(method: str, path: str, **how: Any) -> Any:
    """What the hub answers, as JSON."""
    uri = _uri()
    prepare_mlflow()
    from mlflow.exceptions import MlflowException
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request, verify_rest_response

    with translated(uri):
        answer = http_request(get_default_host_creds(uri), path, method, **how)
        try:
            verify_rest_response(answer, path)
        except MlflowException as error:
            if error.error_code != "ENDPOINT_NOT_FOUND":
                raise
            place = without_password(uri)
            raise NotFound(f"{place} asks nobody for a password, so it has no users.") from error
        return answer.json() if answer.content else {}
