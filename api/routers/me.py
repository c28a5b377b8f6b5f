"""The current account: its roles and its password."""

from typing import Annotated

from fastapi import APIRouter, Response

from api.auth import Caller, Permission, RequirePermission, ServiceDependency, WallTime
from api.schemas.users import CurrentAccount, PasswordRequest

router = APIRouter(prefix="/v1/me", tags=["users"])
Anyone = Annotated[Caller, RequirePermission(Permission.IDENTIFY)]


@router.get("", operation_id="getCurrentAccount", summary="Get the current account and its roles")
def get_current_account(caller: Anyone) -> CurrentAccount:
    """Return your account name and roles.

    `access_head` is the revision of the access ledger that they come from.
    """
    return CurrentAccount.model_validate(caller)


@router.put(
    "/password",
    operation_id="setPassword",
    summary="Set my password",
    status_code=204,
    response_class=Response,
)
def set_password(
    body: PasswordRequest, service: ServiceDependency, caller: Anyone, now: WallTime
) -> None:
    """Set your password.

    `current` is required if you have a password. All your sessions end, including this one.
    """
    service.sign_in.set_password(
        caller, caller.name, body.password, at=now, current_password=body.current
    )
