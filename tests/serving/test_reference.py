"""The HTTP contract as the pages have it is the one that a server shows."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any, cast

import httpx

from docs import contract
from serving.core import Core
from serving.lanes import Lanes
from serving.package import Package
from serving.protocols.inference import version_of
from serving.protocols.rollout_door import Rollouts
from serving.protocols.surface import build_endpoint
from serving.settings import ServeSettings


def test_the_page_is_of_the_contract_that_a_server_shows(package: Package) -> None:
    """Name and version apart, `/openapi.json` of a server that has everything is what the page is made of."""

    async def shown() -> Any:
        settings = ServeSettings(package="p")
        core = Core(package, Lanes(count=1, threads=1), settings)
        nobody = cast("Rollouts", SimpleNamespace())
        endpoint = build_endpoint(core, settings, rollouts=nobody, models=list)
        transport = httpx.ASGITransport(app=endpoint)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            told = (await client.get("/openapi.json")).text
        await core.close()
        model = f"/v2/models/{package.config.name}"
        told = told.replace(model, f"/v2/models/{contract.NAME}")
        return json.loads(told.replace(version_of(package), contract.VERSION))

    assert asyncio.run(shown()) == contract.document()
