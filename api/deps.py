"""Dependencies of routes: the service, the current time, the caller."""

from datetime import datetime
from typing import Annotated

from fastapi import Depends, Request

from api.auth import RequirePermission
from rollout.core.scope.permissions import Caller, Permission
from rollout.services.engine.service import Service

__all__ = [
    "Caller",
    "CurrentTime",
    "Permission",
    "RequirePermission",
    "ServiceDependency",
    "WallTime",
]


async def _get_service(request: Request) -> Service:
    service = request.app.state.service
    assert isinstance(service, Service)  # noqa: S101 - set by create_app
    return service


ServiceDependency = Annotated[Service, Depends(_get_service)]


async def _get_time(service: ServiceDependency) -> datetime:
    return service.clock.now()


CurrentTime = Annotated[datetime, Depends(_get_time)]


async def _get_wall_time(service: ServiceDependency) -> datetime:
    return service.wall_clock.now()


WallTime = Annotated[datetime, Depends(_get_wall_time)]
"""The time of sessions, keys and review claims; another one only in the live demo."""
