"""What routes are given: the service, the instant of asking, who asks."""

from datetime import datetime
from typing import Annotated

from fastapi import Depends, Request

from api.auth import By
from rollout.core.scope.permissions import Act, Caller
from rollout.services.engine.service import Service

__all__ = ["Act", "By", "Caller", "Now", "Served"]


async def _served(request: Request) -> Service:
    service = request.app.state.service
    assert isinstance(service, Service)  # noqa: S101 - `create` puts it there
    return service


Served = Annotated[Service, Depends(_served)]


async def _now(service: Served) -> datetime:
    return service.clock.now()


Now = Annotated[datetime, Depends(_now)]
