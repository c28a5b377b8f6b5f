"""Users and service accounts: create them and change their roles."""

from typing import Annotated

from fastapi import APIRouter, Response

from api.auth import Caller, Permission, RequirePermission, ServiceDependency, WallTime
from api.paging import After, Limit, Page, build_page
from api.schemas.examples import build_responses
from api.schemas.users import (
    USER,
    ChangedUser,
    PasswordLink,
    User,
    UserChangeRequest,
    UserList,
    UserRequest,
)
from rollout.features.access import credentials, users
from rollout.features.access.keys import TOKEN_BYTES, write_token
from rollout.features.policies.approver_warnings import change_account

router = APIRouter(prefix="/v1/users", tags=["users"])
USERS_RESPONSES = build_responses({"items": [USER], "next": None})
Admin = Annotated[Caller, RequirePermission(Permission.ADMINISTER)]


@router.get(
    "",
    operation_id="listUsers",
    summary="List users and service accounts",
    response_model=UserList,
    responses=USERS_RESPONSES,
)
def list_users(
    service: ServiceDependency, caller: Admin, after: After = None, limit: Limit = 100
) -> Page[User]:
    """Return all users and service accounts, oldest first.

    Disabled accounts are included. Requires the admin role.
    """
    accounts = users.load_accounts(service.database, caller)
    return build_page([User.of(user) for user in accounts], lambda user: user.name, after, limit)


@router.post(
    "", operation_id="createUser", summary="Create a user or a service account", status_code=201
)
def create_user(
    body: UserRequest, service: ServiceDependency, caller: Admin, now: WallTime
) -> User:
    """Create a user or a service account.

    A name cannot be reused, even after the account is disabled (409). Service accounts can have the
    roles `ingest` and `viewer`. Requires the admin role.
    """
    account = users.create_account(
        service.database,
        caller,
        body.name,
        at=now,
        is_service_account=body.service_account,
        email=body.email,
        role_assignments=[form.assigned_role for form in body.roles],
    )
    return User.of(account)


@router.patch("/{name}", operation_id="updateUser", summary="Disable a user or change their roles")
def update_user(
    name: str, body: UserChangeRequest, service: ServiceDependency, caller: Admin, now: WallTime
) -> ChangedUser:
    """Disable or enable an account, or change its roles or email.

    All changes are applied, or none. When an account is disabled, its keys, sessions, password and
    roles end immediately. `warnings` names each gate and each stop for which users are missing
    since then. Requires the admin role.
    """
    changed = change_account(
        service.database,
        caller,
        name,
        body.amendment,
        at=now,
        requires_second_factor=service.requires_second_factor,
    )
    return ChangedUser.of_change(changed)


@router.post(
    "/{name}/link",
    operation_id="createPasswordLink",
    summary="Create a one-time link to set a password",
    status_code=201,
)
def create_password_link(
    name: str, service: ServiceDependency, caller: Admin, now: WallTime
) -> PasswordLink:
    """Return a one-time token to set a password.

    The token expires after one day. Send it only to the user. Requires the admin role.
    """
    secret = write_token(service.entropy(TOKEN_BYTES))
    return PasswordLink(
        name=name,
        token=users.create_sign_in_link(service.database, caller, name, at=now, secret=secret),
    )


@router.delete(
    "/{name}/second-factor",
    operation_id="resetSecondFactor",
    summary="Remove a user's second factor",
    status_code=204,
    response_class=Response,
)
def reset_second_factor(
    name: str, service: ServiceDependency, caller: Admin, now: WallTime
) -> None:
    """Remove the second factor of a user who lost it.

    Their sessions end. Their approvals count again after 24 hours, and never together with yours.
    Requires the admin role.
    """
    credentials.reset_second_factor(service.database, caller, name, at=now)
