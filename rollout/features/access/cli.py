"""`rollout users` and `rollout keys`, on the database that ROLLOUT_DATABASE_URL names.

A process that can write the database can act as any user, so `--by` is required but not verified.
The user must have the permission; the access ledger records the name.

`rollout users export` prints what is stored about a user or reviewer; it can ask a service instead.
"""

import json
import secrets
import sys
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from rollout.data.access.tokens import ApiKey
from rollout.engine.decide.permissions import ADMIN, AssignedRole, Caller
from rollout.features.access import credentials, keys, users
from rollout.features.access.keys import TOKEN_BYTES, write_token
from rollout.features.access.sign_in import SignIn
from rollout.features.access.users import AccountUpdate, UserAccount, load_local_caller
from rollout.features.erasure.erasure import iterate_user_data
from rollout.features.policies.account_changes import change_account
from rollout.live.clock import SystemClock
from rollout.terminal.local_database import open_database
from rollout.terminal.remote import (
    ActorName,
    JsonFlag,
    ServerUrl,
    build_path,
    is_second_factor_required,
    parse_time,
    print_answer,
    print_refusals,
    print_warnings,
    request_lines,
)


def export_user(
    name: Annotated[str, typer.Argument(help="a user's or reviewer's name", metavar="NAME")],
    by: ActorName = "",
    server: ServerUrl = None,
) -> None:
    """Export what is stored about a user or reviewer, one JSON object per line.

    Example: `rollout users export rosalind --by ana`
    """
    if server:
        for line in request_lines(server, build_user_path(name, "data")):
            typer.echo(line)
        return
    if not by:
        with print_refusals():
            raise ValueError("no acting user; add --by NAME, or name a service by --server")
    with open_database() as database:
        for row in iterate_user_data(database, load_local_caller(database, by), name):
            typer.echo(json.dumps(row, ensure_ascii=False))


def build_user_path(name: str, part: str) -> str:
    """Return the path of a part of a user."""
    return build_path(name, part).replace("/v1/rollouts/", "/v1/users/", 1)


# A process with access to the database can read all of it.
LOCAL_ADMIN = Caller("", role_assignments=(AssignedRole(ADMIN),))

ROLES = (
    "viewer, reviewer, operator, approver, ingest-predictions, ingest-decisions, ingest-outcomes, "
    "ingest (all three) or admin"
)

users_app = typer.Typer(no_args_is_help=True)
keys_app = typer.Typer(no_args_is_help=True)

UserName = Annotated[str, typer.Argument(help="name of a user or service account", metavar="NAME")]
AdminName = Annotated[str, typer.Option(help="the acting admin")]
RoleName = Annotated[
    str,
    typer.Argument(help=ROLES, metavar="ROLE"),
]
RolloutOption = Annotated[
    str, typer.Option("--rollout", help="limit the role to a rollout (default: all)")
]
SiteOption = Annotated[
    str, typer.Option(help="limit the role to a site of the rollout (default: all)")
]
GroupOption = Annotated[str, typer.Option(help="approver only: the group that gates require")]


users_app.command("export")(export_user)


@users_app.callback()
def describe_user_commands() -> None:
    """Manage users, service accounts and roles. Start with `rollout users first-admin NAME`.

    These commands use the database in ROLLOUT_DATABASE_URL (default: sqlite:///rollout.db), even
    if ROLLOUT_SERVER is set.

    Example: `rollout users add bo --role operator --rollout ramps --by ana`
    """


@keys_app.callback()
def describe_key_commands() -> None:
    """Manage the API keys of users and service accounts. A key is shown once and expires.

    These commands use the database in ROLLOUT_DATABASE_URL (default: sqlite:///rollout.db), even
    if ROLLOUT_SERVER is set.

    Example: `rollout keys create ramp-a-camera --by ana`
    """


@users_app.command("first-admin")
def create_first_admin(name: UserName, as_json: JsonFlag = False) -> None:
    """Create the first admin, without a password. Refused if a user already exists.

    An admin manages users and policies, and can neither approve nor stop: for that, grant
    yourself `operator` too. To sign in, run `rollout users set-password` or
    `rollout users password-link`.

    Example: `rollout users first-admin ana`
    """
    with open_database() as database:
        _print_account(
            users.create_first_admin(database, name, at=datetime.now(UTC)), as_json=as_json
        )


@users_app.command("add")
def add_user(  # noqa: PLR0913, PLR0917 - one parameter for each option
    name: UserName,
    by: AdminName,
    service_account: Annotated[
        bool, typer.Option("--service-account", help="the account of a program, such as a camera")
    ] = False,
    email: Annotated[str, typer.Option(help="address verified by the identity provider")] = "",
    role: Annotated[str, typer.Option(help=f"first role: {ROLES}")] = "",
    rollout: RolloutOption = "",
    site: SiteOption = "",
    group: GroupOption = "",
    as_json: JsonFlag = False,
) -> None:
    """Add a user or a service account. A name is never reused.

    Example: `rollout users add bo --role operator --rollout ramps --by ana`

    A program: `rollout users add ramp-a-camera --service-account --role ingest-predictions
    --rollout ramps --by ana`
    """
    role_assignments = [AssignedRole(role, rollout, site, group)] if role else []
    with open_database() as database:
        account = users.create_account(
            database,
            load_local_caller(database, by),
            name,
            at=datetime.now(UTC),
            is_service_account=service_account,
            email=email,
            role_assignments=role_assignments,
        )
        _print_account(account, as_json=as_json)


@users_app.command("list")
def list_users(as_json: JsonFlag = False) -> None:
    """List all users and service accounts, also disabled ones, with their roles.

    Example: `rollout users list`
    """
    with open_database() as database:
        accounts = users.load_accounts(database, LOCAL_ADMIN)
    lines = [*map(_format_account, accounts)] or [
        "no users yet; create one: `rollout users first-admin NAME`"
    ]
    print_answer([*map(_build_user_json, accounts)], "\n".join(lines), as_json=as_json)


@users_app.command("disable")
def disable_user(name: UserName, by: AdminName, as_json: JsonFlag = False) -> None:
    """Disable an account: its password, keys, sessions and roles end within a second.

    Example: `rollout users disable bo --by ana`
    """
    _update_account(name, by, AccountUpdate(is_disabled=True), as_json=as_json)


@users_app.command("enable")
def enable_user(name: UserName, by: AdminName, as_json: JsonFlag = False) -> None:
    """Enable a disabled account again, without any role.

    Example: `rollout users enable bo --by ana`
    """
    _update_account(name, by, AccountUpdate(is_disabled=False), as_json=as_json)


@users_app.command("grant-role")
def grant_role(
    name: UserName,
    role: RoleName,
    by: AdminName,
    rollout: RolloutOption = "",
    site: SiteOption = "",
    group: GroupOption = "",
    as_json: JsonFlag = False,
) -> None:
    """Grant a role. Service accounts can have the roles of ingest, and viewer.

    Example: `rollout users grant-role cy approver --group safety --rollout ramps --by ana`
    """
    _update_account(
        name,
        by,
        AccountUpdate(roles_to_grant=(AssignedRole(role, rollout, site, group),)),
        as_json=as_json,
    )


@users_app.command("revoke-role")
def revoke_role(
    name: UserName,
    role: RoleName,
    by: AdminName,
    rollout: RolloutOption = "",
    site: SiteOption = "",
    group: GroupOption = "",
    as_json: JsonFlag = False,
) -> None:
    """Revoke a role, with the options it was granted with. Takes effect within a second.

    Example: `rollout users revoke-role bo operator --rollout ramps --by ana`
    """
    _update_account(
        name,
        by,
        AccountUpdate(roles_to_revoke=(AssignedRole(role, rollout, site, group),)),
        as_json=as_json,
    )


@users_app.command("set-password")
def set_password(
    name: UserName,
    by: AdminName,
    from_input: Annotated[
        bool, typer.Option("--stdin", help="read the password from standard input, one line")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Set the password of a user, typed at a prompt. The user's sessions end.

    Example: `rollout users set-password bo --by ana`
    """
    with open_database() as database:
        caller = load_local_caller(database, by)
        typed = (
            sys.stdin.readline().rstrip("\n")
            if from_input
            else str(typer.prompt("password", hide_input=True, confirmation_prompt=True))
        )
        SignIn(database, SystemClock(), secrets.token_bytes).set_password(
            caller, name, typed, at=datetime.now(UTC), skips_current=True
        )
    typer.echo(json.dumps({"name": name}) if as_json else f"password of {name} set")


@users_app.command("password-link")
def password_link(name: UserName, by: AdminName, as_json: JsonFlag = False) -> None:
    """Create a token with which a user sets their own password, once, within 24 hours.

    Example: `rollout users password-link bo --by ana`
    """
    with open_database() as database:
        secret = write_token(secrets.token_bytes(TOKEN_BYTES))
        token = users.create_sign_in_link(
            database, load_local_caller(database, by), name, at=datetime.now(UTC), secret=secret
        )
    if as_json:
        typer.echo(json.dumps({"name": name, "token": token}))
        return
    typer.echo(token)
    text = f"one-time code of {name}, valid for 24 hours: enter it at /console/set-password"
    typer.echo(text, err=True)


@users_app.command("reset-second-factor")
def reset_second_factor(name: UserName, by: AdminName, as_json: JsonFlag = False) -> None:
    """Remove the second factor of a user who lost it, with its recovery codes.

    The user's sessions end. Their approvals count again after 24 hours, and never together with
    those of the admin.

    Example: `rollout users reset-second-factor bo --by ana`
    """
    with open_database() as database:
        credentials.reset_second_factor(
            database, load_local_caller(database, by), name, at=datetime.now(UTC)
        )
    typer.echo(json.dumps({"name": name}) if as_json else f"second factor of {name} removed")


@keys_app.command("create")
def create(
    holder: Annotated[str, typer.Argument(help="user or service account", metavar="NAME")],
    by: AdminName,
    expires: Annotated[
        str | None,
        typer.Option(
            help="end of the key, for example 2028-01-01T00:00Z (default: 90 days for users, "
            "365 for service accounts)"
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Create an API key and print it once. Send it as `Authorization: Bearer KEY`.

    Example: `rollout keys create ramp-a-camera --by ana`
    """
    with open_database() as database:
        account = keys.create_key(
            database,
            load_local_caller(database, by),
            holder,
            random_bytes=secrets.token_bytes(keys.KEY_BYTES),
            at=datetime.now(UTC),
            expires_at=parse_time("--expires", expires, "2028-01-01T00:00Z"),
        )
    if as_json:
        messages = {"holder": account.holder, "prefix": account.prefix, "key": account.text}
        typer.echo(json.dumps(_to_plain({**messages, "expires_at": account.expires_at})))
        return
    typer.echo(account.text)
    until = f"{account.expires_at:%Y-%m-%d}"
    typer.echo(f"API key of {holder}, valid until {until}; it is not shown again", err=True)


@keys_app.command("list")
def list_keys(
    holder: Annotated[
        str | None, typer.Argument(help="keys of this account (default: all)", metavar="[NAME]")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """List API keys by prefix, with account, expiry and last use.

    Example: `rollout keys list ramp-a-camera`
    """
    with open_database() as database:
        api_keys = keys.load_keys(database, LOCAL_ADMIN, holder)
    lines = [*map(_format_key, api_keys)] or [
        "no keys yet; create one: `rollout keys create NAME --by ADMIN`"
    ]
    print_answer([_to_plain(asdict(key)) for key in api_keys], "\n".join(lines), as_json=as_json)


@keys_app.command("revoke")
def revoke_key(
    prefix: Annotated[
        str, typer.Argument(help="prefix of the key, from `rollout keys list`", metavar="PREFIX")
    ],
    by: AdminName,
    as_json: JsonFlag = False,
) -> None:
    """Revoke an API key. Takes effect within a second.

    Example: `rollout keys revoke 5f1c2a9be077 --by ana`
    """
    with open_database() as database:
        keys.revoke_key(database, load_local_caller(database, by), prefix, at=datetime.now(UTC))
    typer.echo(json.dumps({"prefix": prefix}) if as_json else f"{prefix} revoked")


def _update_account(name: str, by: str, update: AccountUpdate, *, as_json: bool) -> None:
    with open_database() as database:
        caller = load_local_caller(database, by)
        changed = change_account(
            database,
            caller,
            name,
            update,
            at=datetime.now(UTC),
            requires_second_factor=is_second_factor_required(),
        )
    _print_account(changed.account, as_json=as_json)
    print_warnings(changed.warnings)


def _print_account(account: UserAccount, *, as_json: bool) -> None:
    typer.echo(json.dumps(_build_user_json(account)) if as_json else _format_account(account))


def _build_user_json(member: UserAccount) -> dict[str, Any]:
    """Return a user with the JSON keys of the API."""
    plain = _to_plain(asdict(member))
    names = {"is_service_account": "service_account", "rights": "roles"}
    renamed = {names.get(key, key): plain[key] for key in plain if key != "number"}
    return {**renamed, "broad": member.is_broad}


def _format_account(account: UserAccount) -> str:
    kind_text = " (service account)" if account.is_service_account else ""
    if account.disabled_at is not None:
        return f"{account.name}{kind_text}: disabled since {account.disabled_at:%Y-%m-%d}"
    broad_text = " (broad: may send predictions and what judges them)" if account.is_broad else ""
    roles_text = ", ".join(map(str, account.rights)) or "no role"
    return f"{account.name}{kind_text}: {roles_text}{broad_text}"


def _format_key(key: ApiKey) -> str:
    used_text = f"used {key.last_used_at:%Y-%m-%d %H:%M}" if key.last_used_at else "never used"
    if key.revoked_at is not None:
        return f"{key.prefix} of {key.holder}: revoked {key.revoked_at:%Y-%m-%d}, {used_text}"
    expiry_text = f"until {key.expires_at:%Y-%m-%d}" if key.expires_at else "no expiry"
    return f"{key.prefix} of {key.holder}: {expiry_text}, {used_text}"


def _to_plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in values.items()
    }
