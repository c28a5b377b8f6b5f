"""Schedules in a calendar program: the caller's address, and the file that it returns."""

from typing import Annotated

from fastapi import APIRouter, Path, Response

from api.deps import (
    Caller,
    CurrentTime,
    Permission,
    RequirePermission,
    ServiceDependency,
    WallTime,
)
from api.problems import build_problem_responses
from api.schemas.examples import NOON, build_responses
from rollout.services.cells import calendar_feeds

router = APIRouter(tags=["users"])
Anyone = Annotated[Caller, RequirePermission(Permission.IDENTIFY)]
MEDIA_TYPE = "text/calendar"
ADDRESS_EXAMPLE = "https://rollout.example.org/calendars/Zk3vQ0b8Wc1.ics"
FILE_EXAMPLE = """\
BEGIN:VCALENDAR
VERSION:2.0
PRODID:-//rollout//schedule//EN
BEGIN:VEVENT
UID:bears-freeze-2027-07-01@rollout
DTSTART:20270701T220000Z
SUMMARY:bears: freeze begins
END:VEVENT
END:VCALENDAR
"""


@router.get(
    "/v1/me/calendar",
    operation_id="getCalendarAddress",
    summary="Get my calendar",
    responses=build_responses({"created_at": NOON, "unreadable": []}),
)
def get_calendar_address(
    service: ServiceDependency, caller: Anyone
) -> calendar_feeds.CalendarAddress:
    """Return since when you have a calendar address; the address is shown only once.

    `unreadable` names the rollouts whose schedules are missing, since their rows can't be read.
    """
    return calendar_feeds.load_calendar_address(service, caller)


@router.post(
    "/v1/me/calendar",
    operation_id="createCalendarAddress",
    summary="Create my calendar address",
    status_code=201,
    responses=build_responses({"address": ADDRESS_EXAMPLE}, 201),
)
def create_calendar_address(
    service: ServiceDependency, caller: Anyone, now: WallTime
) -> calendar_feeds.CreatedCalendar:
    """Create your address for calendar programs; the one before stops working.

    The file has the schedules of the rollouts that you may read. Keep the address secret.
    """
    return calendar_feeds.create_calendar(service, caller, at=now)


@router.delete(
    "/v1/me/calendar",
    operation_id="revokeCalendarAddress",
    summary="Revoke my calendar address",
    status_code=204,
    response_class=Response,
)
def revoke_calendar_address(service: ServiceDependency, caller: Anyone) -> None:
    """Revoke your address: programs that use it get no schedule any more."""
    calendar_feeds.revoke_calendar(service, caller)


@router.get(
    "/calendars/{token}.ics",
    operation_id="getCalendarFile",
    summary="Get schedules as an iCalendar file",
    response_class=Response,
    responses={
        200: {"content": {MEDIA_TYPE: {"example": FILE_EXAMPLE}}, "description": "the file"},
        **build_problem_responses(404, 422),
    },
)
def get_calendar_file(
    token: Annotated[str, Path(max_length=100, description="secret of the address")],
    service: ServiceDependency,
    now: CurrentTime,
) -> Response:
    """Return the schedules of an address's user, for the next three months.

    The address is the only secret; its user sees what a viewer sees.
    """
    content = calendar_feeds.build_calendar_file(service, token, at=now)
    headers = {"Cache-Control": "private, no-cache"}
    return Response(content, media_type=f"{MEDIA_TYPE}; charset=utf-8", headers=headers)


@router.head("/calendars/{token}.ics", include_in_schema=False)
def check_calendar_file(
    token: Annotated[str, Path(max_length=100)], service: ServiceDependency, now: CurrentTime
) -> Response:
    """Answer as for the file, without its content: calendar programs ask whether it is there."""
    response = get_calendar_file(token, service, now)
    response.body = b""
    return response
