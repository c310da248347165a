"""Who may what at a hub: runs in MLflow's server, as `authorization_function` of its basic-auth app.

MLflow knows users and passwords, and what of others' each may change. It lets everybody whom it knows
make experiments and names, though, and what is published under a new name is `latest` to all. So here
who may only read makes nothing, and who may only publish removes nothing:

    read      nothing of theirs is written but their own password
    publish   what holds EDIT on all experiments (MLflow's `experiment`, `*`) makes and changes
    manage    MLflow's administrators; only they remove, rename, and say who may what

This only narrows what MLflow allows. Nothing of ours is imported, so that any MLflow server can use
the file alone.
"""

from __future__ import annotations

from typing import Any

_ASKING = ("GET", "HEAD", "OPTIONS")
_QUESTIONS = ("/search", "/graphql")  # these are POST, and change nothing
_ONES_OWN = ("/users/update-password",)
_REMOVING = ("/delete", "/rename")
_WRITES = ("EDIT", "MANAGE")


def authorize() -> Any:
    """Who asks, as MLflow finds it; or the answer 401 or 403."""
    from flask import Response, request
    from mlflow.server import auth

    asking = auth.authenticate_request_basic_auth()
    if isinstance(asking, Response) or reads(request.method, request.path):
        return asking
    user = auth.store.get_user(str(asking.username))
    if user.is_admin or (not removes(request.method, request.path) and _publishes(auth, user)):
        return asking
    return auth.make_forbidden_response()


def reads(method: str, path: str) -> bool:
    """Whether a call changes nothing, or nothing but the caller's own password."""
    return (
        method in _ASKING
        or (method == "POST" and path.endswith(_QUESTIONS))
        or (method == "PATCH" and path.endswith(_ONES_OWN))
    )


def removes(method: str, path: str) -> bool:
    """Whether something would be gone, or gone by its name."""
    return method == "DELETE" or path.endswith(_REMOVING)


def _publishes(auth: Any, user: Any) -> bool:
    from mlflow.utils.workspace_utils import DEFAULT_WORKSPACE_NAME

    grants = auth.store.list_grants(user.id, DEFAULT_WORKSPACE_NAME, {"experiment"})
    return any(
        grant.resource_pattern == "*" and grant.permission in _WRITES
        for grant in grants
        if grant.resource_type == "experiment"
    )
