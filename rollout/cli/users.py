"""`rollout users` and `rollout keys`, on the database that ROLLOUT_DATABASE_URL names.

A process that can write the database can act as any user, so `--by` is required and not proved.
The user must have the permission; the access ledger records the name.
"""

import json
import secrets
import sys
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from rollout.cli.live import opened
from rollout.core.scope.permissions import ADMIN, Caller, Right
from rollout.services.access import keys, users
from rollout.services.access.keys import SIZE, write_token
from rollout.services.access.sign_in import SigningIn
from rollout.services.access.users import Amendment, Member, local_caller
from rollout.services.support.clock import SystemClock
from rollout.store.access.api_keys import ApiKey
from rollout.store.database.session import Database

READER = Caller("", rights=(Right(ADMIN),))  # a process with the database can read all of it

ROLES = "viewer, reviewer, operator, approver, ingest or admin"

users_app = typer.Typer(no_args_is_help=True)
keys_app = typer.Typer(no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="name of a user or service account", metavar="NAME")]
By = Annotated[str, typer.Option(help="the acting admin")]
Role = Annotated[
    str,
    typer.Argument(help=ROLES, metavar="ROLE"),
]
In = Annotated[str, typer.Option("--rollout", help="limit the role to a rollout (default: all)")]
Site = Annotated[str, typer.Option(help="limit the role to a site of the rollout (default: all)")]
Group = Annotated[str, typer.Option(help="approver only: the group that gates require")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON and nothing else")]


@users_app.callback()
def users_group() -> None:
    """Manage users, service accounts and roles. Start with `rollout users first-admin NAME`.

    These commands use the database in ROLLOUT_DATABASE_URL (default: sqlite:///rollout.db), even
    if ROLLOUT_SERVER is set.

    Example: `rollout users add bo --role operator --rollout ramps --by ana`
    """


@keys_app.callback()
def keys_group() -> None:
    """Manage the API keys of users and service accounts. A key is shown once and expires.

    These commands use the database in ROLLOUT_DATABASE_URL (default: sqlite:///rollout.db), even
    if ROLLOUT_SERVER is set.

    Example: `rollout keys create ramp-a-camera --by ana`
    """


@users_app.command("first-admin")
def first_admin(name: Name, as_json: AsJson = False) -> None:
    """Create the first admin, without a password. Refused if a user already exists.

    An admin manages users and policies, and can neither approve nor stop: for that, grant
    yourself `operator` too. To sign in, run `rollout users set-password` or
    `rollout users password-link`.

    Example: `rollout users first-admin ana`
    """
    with opened() as database:
        _tell(users.first_admin(database, name, at=datetime.now(UTC)), as_json=as_json)


@users_app.command("add")
def add(  # noqa: PLR0913, PLR0917 - one parameter for each flag that a person may give
    name: Name,
    by: By,
    service_account: Annotated[
        bool, typer.Option("--service-account", help="the account of a program, such as a camera")
    ] = False,
    email: Annotated[str, typer.Option(help="address verified by the identity provider")] = "",
    role: Annotated[str, typer.Option(help=f"first role: {ROLES}")] = "",
    rollout: In = "",
    site: Site = "",
    group: Group = "",
    as_json: AsJson = False,
) -> None:
    """Add a user or a service account. A name is never reused.

    Example: `rollout users add bo --role operator --rollout ramps --by ana`

    A program: `rollout users add ramp-a-camera --service-account --role ingest --rollout ramps
    --by ana`
    """
    role_assignments = [Right(role, rollout, site, group)] if role else []
    with opened() as database:
        account = users.add(
            database,
            local_caller(database, by),
            name,
            at=datetime.now(UTC),
            machine=service_account,
            email=email,
            rights=role_assignments,
        )
        _tell(account, as_json=as_json)


@users_app.command("list")
def list_users(as_json: AsJson = False) -> None:
    """List all users and service accounts, also disabled ones, with their roles.

    Example: `rollout users list`
    """
    with opened() as database:
        found = users.everybody(database, READER)
    if as_json:
        typer.echo(json.dumps([_user_json(member) for member in found]))
        return
    for member in found:
        typer.echo(_said(member))
    if not found:
        typer.echo("no users yet; create one: `rollout users first-admin NAME`")


@users_app.command("disable")
def disable(name: Name, by: By, as_json: AsJson = False) -> None:
    """Disable an account: its password, keys, sessions and roles end within a second.

    Example: `rollout users disable bo --by ana`
    """
    _amend(name, by, Amendment(disabled=True), as_json=as_json)


@users_app.command("enable")
def enable(name: Name, by: By, as_json: AsJson = False) -> None:
    """Enable a disabled account again, without any role.

    Example: `rollout users enable bo --by ana`
    """
    _amend(name, by, Amendment(disabled=False), as_json=as_json)


@users_app.command("grant-role")
def grant_role(
    name: Name,
    role: Role,
    by: By,
    rollout: In = "",
    site: Site = "",
    group: Group = "",
    as_json: AsJson = False,
) -> None:
    """Grant a role. Service accounts can be ingest and viewer.

    Example: `rollout users grant-role cy approver --group safety --rollout ramps --by ana`
    """
    right = Right(role, rollout, site, group)
    _amend(name, by, Amendment(give=(right,)), as_json=as_json)


@users_app.command("revoke-role")
def revoke_role(
    name: Name,
    role: Role,
    by: By,
    rollout: In = "",
    site: Site = "",
    group: Group = "",
    as_json: AsJson = False,
) -> None:
    """Revoke a role, with the options it was granted with. Takes effect within a second.

    Example: `rollout users revoke-role bo operator --rollout ramps --by ana`
    """
    right = Right(role, rollout, site, group)
    _amend(name, by, Amendment(take=(right,)), as_json=as_json)


@users_app.command("set-password")
def set_password(
    name: Name,
    by: By,
    from_input: Annotated[
        bool, typer.Option("--stdin", help="read the password from standard input, one line")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Set the password of a user, typed at a prompt. The user's sessions end.

    Example: `rollout users set-password bo --by ana`
    """
    with opened() as database:
        caller = local_caller(database, by)
        typed = sys.stdin.readline().rstrip("\n") if from_input else _typed()
        _signing(database).set_password(caller, name, typed, at=datetime.now(UTC), vouched=True)
    typer.echo(json.dumps({"name": name}) if as_json else f"password of {name} set")


@users_app.command("password-link")
def password_link(name: Name, by: By, as_json: AsJson = False) -> None:
    """Create a token with which a user sets their own password, once, within 24 hours.

    Example: `rollout users password-link bo --by ana`
    """
    with opened() as database:
        secret = write_token(secrets.token_bytes(SIZE))
        caller = local_caller(database, by)
        token = users.link(database, caller, name, at=datetime.now(UTC), secret=secret)
    if as_json:
        typer.echo(json.dumps({"name": name, "token": token}))
        return
    typer.echo(token)
    says = f"valid once, for {name}, for 24 hours: enter it at /console/come-in"
    typer.echo(says, err=True)


@keys_app.command("create")
def create(
    holder: Annotated[str, typer.Argument(help="user or service account", metavar="NAME")],
    by: By,
    expires: Annotated[
        str | None,
        typer.Option(
            help="end of the key, for example 2028-01-01T00:00Z (default: 90 days for users, "
            "365 for service accounts)"
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Create an API key and print it once. Send it as `Authorization: Bearer KEY`.

    Example: `rollout keys create ramp-a-camera --by ana`
    """
    with opened() as database:
        made = keys.make(
            database,
            local_caller(database, by),
            holder,
            chance=secrets.token_bytes(keys.CHANCE),
            at=datetime.now(UTC),
            expires_at=_instant(expires),
        )
    if as_json:
        told = {"holder": made.holder, "prefix": made.prefix, "key": made.text}
        typer.echo(json.dumps(_plain({**told, "expires_at": made.expires_at})))
        return
    typer.echo(made.text)
    until = f"{made.expires_at:%Y-%m-%d}"
    typer.echo(f"API key of {holder}, valid until {until}; it is not shown again", err=True)


@keys_app.command("list")
def list_keys(
    holder: Annotated[
        str | None, typer.Argument(help="keys of this account (default: all)", metavar="[NAME]")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List API keys by prefix, with account, expiry and last use.

    Example: `rollout keys list ramp-a-camera`
    """
    with opened() as database:
        keys_found = keys.keys_of(database, READER, holder)
    if as_json:
        typer.echo(json.dumps([_plain(asdict(key)) for key in keys_found]))
        return
    for key in keys_found:
        typer.echo(_of_key(key))
    if not keys_found:
        typer.echo("no keys yet; create one: `rollout keys create NAME --by ADMIN`")


@keys_app.command("revoke")
def revoke(
    prefix: Annotated[
        str, typer.Argument(help="prefix of the key, from `rollout keys list`", metavar="PREFIX")
    ],
    by: By,
    as_json: AsJson = False,
) -> None:
    """Revoke an API key. Takes effect within a second.

    Example: `rollout keys revoke 5f1c2a9be077 --by ana`
    """
    with opened() as database:
        keys.revoke(database, local_caller(database, by), prefix, at=datetime.now(UTC))
    typer.echo(json.dumps({"prefix": prefix}) if as_json else f"{prefix} revoked")


def _amend(name: str, by: str, amendment: Amendment, *, as_json: bool) -> None:
    with opened() as database:
        caller = local_caller(database, by)
        account = users.amend(database, caller, name, amendment, at=datetime.now(UTC))
        _tell(account, as_json=as_json)


def _tell(member: Member, *, as_json: bool) -> None:
    typer.echo(json.dumps(_user_json(member)) if as_json else _said(member))


def _user_json(member: Member) -> dict[str, Any]:
    """Return a user with the keys that the API has."""
    plain = _plain(asdict(member))
    names = {"machine": "service_account", "rights": "roles"}
    return {names.get(key, key): value for key, value in plain.items()}


def _said(member: Member) -> str:
    kind_text = " (service account)" if member.machine else ""
    if member.disabled_at is not None:
        return f"{member.name}{kind_text}: disabled since {member.disabled_at:%Y-%m-%d}"
    return f"{member.name}{kind_text}: " + (", ".join(map(str, member.rights)) or "no role")


def _of_key(key: ApiKey) -> str:
    used_text = f"used {key.last_used_at:%Y-%m-%d %H:%M}" if key.last_used_at else "never used"
    if key.revoked_at is not None:
        return f"{key.prefix} of {key.holder}: revoked {key.revoked_at:%Y-%m-%d}, {used_text}"
    expiry_text = f"until {key.expires_at:%Y-%m-%d}" if key.expires_at else "no expiry"
    return f"{key.prefix} of {key.holder}: {expiry_text}, {used_text}"


def _plain(told: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in told.items()
    }


def _instant(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"--expires {text} is no time; write it as 2028-01-01T00:00Z") from None
    if at.tzinfo is None:
        raise ValueError(f"--expires {text} has no offset; add one, Z for UTC")
    return at


def _typed() -> str:
    return str(typer.prompt("password", hide_input=True, confirmation_prompt=True))


def _signing(database: Database) -> SigningIn:
    return SigningIn(database, SystemClock(), secrets.token_bytes)


def register(app: typer.Typer) -> None:
    """Put both groups beside the other commands."""
    app.add_typer(users_app, name="users")
    app.add_typer(keys_app, name="keys")
