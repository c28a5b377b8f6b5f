"""Who asks: what the service takes them for."""

from typing import Annotated

from fastapi import APIRouter, Response

from api.deps import Act, By, Caller, Now, Served
from api.schemas.users import CurrentAccount, PasswordRequest, RoleAssignment

router = APIRouter(prefix="/v1/me", tags=["users"])
Anyone = Annotated[Caller, By(Act.BE)]


@router.get("", operation_id="getCurrentAccount", summary="Get the current account and its roles")
def get_current_account(who: Anyone) -> CurrentAccount:
    """Return the caller's name and rights, as of a revision of the house chain."""
    roles = [RoleAssignment.model_validate(right) for right in who.rights]
    return CurrentAccount(
        name=who.name, service_account=who.machine, roles=roles, access_head=who.house
    )


@router.put(
    "/password",
    operation_id="setPassword",
    summary="Set my password",
    status_code=204,
    response_class=Response,
)
def set_password(asked: PasswordRequest, service: Served, who: Anyone, now: Now) -> None:
    """Set one's own password; every session of one's own ends, this one too."""
    service.signing.set_password(who, who.name, asked.password, at=now, current=asked.current)
