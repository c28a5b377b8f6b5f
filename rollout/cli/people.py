"""`rollout people` and `rollout keys`, on the database that ROLLOUT_DATABASE_URL names.

Whoever can write the database may act in anybody's name, so `--by` is asked for and not proved.
It has to be somebody who may; the house chain keeps it.
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
from rollout.core.rights import ADMIN, Caller, Right
from rollout.services import keys, people
from rollout.services.clock import SystemClock
from rollout.services.people import Amendment, Member, local_caller
from rollout.services.signing_in import SigningIn
from rollout.services.tokens import SIZE, write_token
from rollout.store.api_keys import ApiKey
from rollout.store.ledger import Ledger
from rollout.store.rollouts import HOUSE_CHAIN
from rollout.store.session import Database

READER = Caller("", rights=(Right(ADMIN),))  # whoever has the database can read all of it

ROLES = "viewer, reviewer, operator, approver, ingest or admin"

people_app = typer.Typer(no_args_is_help=True, help="Who is here, and what they may do.")
keys_app = typer.Typer(no_args_is_help=True, help="API keys of people and machines.")

Name = Annotated[str, typer.Argument(help="of a person or a machine", metavar="NAME")]
By = Annotated[str, typer.Option(help="the admin who says so")]
Role = Annotated[
    str,
    typer.Argument(help=ROLES, metavar="ROLE"),
]
In = Annotated[str, typer.Option("--rollout", help="in one rollout; by default in all")]
Site = Annotated[str, typer.Option(help="at one site of it; by default at all")]
Group = Annotated[str, typer.Option(help="of an approver: the group that gates ask for")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON, nothing else")]


@people_app.callback()
def people_group() -> None:
    """Who is here, and what they may do. Begin with `rollout people first-admin NAME`.

    These commands work on the database that ROLLOUT_DATABASE_URL names, by default
    sqlite:///rollout.db, also where ROLLOUT_SERVER is set.
    """


@keys_app.callback()
def keys_group() -> None:
    """API keys of people and machines: shown once, and over after a time.

    These commands work on the database that ROLLOUT_DATABASE_URL names, by default
    sqlite:///rollout.db, also where ROLLOUT_SERVER is set.
    """


@people_app.command("first-admin")
def first_admin(name: Name, as_json: AsJson = False) -> None:
    """Make the first admin; refused once anybody is here. No password is set.

    An admin changes people and policies, and neither approves nor stops: give yourself
    `operator` too if you do. `rollout people password` or `people link` lets them sign in.

    Example: `rollout people first-admin ana`
    """
    with opened() as database:
        _tell(people.first_admin(database, name, at=datetime.now(UTC)), as_json=as_json)


@people_app.command("add")
def add(  # noqa: PLR0913, PLR0917 - one parameter for each flag that a person may give
    name: Name,
    by: By,
    machine: Annotated[bool, typer.Option("--machine", help="a box or a service")] = False,
    email: Annotated[str, typer.Option(help="as their identity provider verified it")] = "",
    role: Annotated[str, typer.Option(help=f"a role to begin with: {ROLES}")] = "",
    rollout: In = "",
    site: Site = "",
    group: Group = "",
    as_json: AsJson = False,
) -> None:
    """Give a name to somebody, or to a machine. A name is never given again.

    Example: `rollout people add ramp-a-box --machine --role ingest --rollout ramps --by ana`
    """
    rights = [Right(role, rollout, site, group)] if role else []
    with opened() as database:
        added = people.add(
            database,
            local_caller(database, by),
            name,
            at=datetime.now(UTC),
            machine=machine,
            email=email,
            rights=rights,
        )
        _tell(added, as_json=as_json)


@people_app.command("list")
def list_people(as_json: AsJson = False) -> None:
    """List everybody who ever had a name here, with their rights.

    Example: `rollout people list`
    """
    with opened() as database:
        found = people.everybody(database, READER)
    if as_json:
        typer.echo(json.dumps([_plain(asdict(member)) for member in found]))
        return
    for member in found:
        typer.echo(_said(member))
    if not found:
        typer.echo("nobody is here yet; `rollout people first-admin NAME`")


@people_app.command("disable")
def disable(name: Name, by: By, as_json: AsJson = False) -> None:
    """End somebody's password, keys, sessions and rights, everywhere within a second.

    Example: `rollout people disable bo --by ana`
    """
    _amend(name, by, Amendment(disabled=True), as_json=as_json)


@people_app.command("enable")
def enable(name: Name, by: By, as_json: AsJson = False) -> None:
    """Let somebody come in again who was disabled, without any right.

    Example: `rollout people enable bo --by ana`
    """
    _amend(name, by, Amendment(disabled=False), as_json=as_json)


@people_app.command("give")
def give(
    name: Name,
    role: Role,
    by: By,
    rollout: In = "",
    site: Site = "",
    group: Group = "",
    as_json: AsJson = False,
) -> None:
    """Give a right. Machines may be ingest and viewer.

    Example: `rollout people give cy approver --group safety --rollout ramps --by ana`
    """
    right = Right(role, rollout, site, group)
    _amend(name, by, Amendment(give=(right,)), as_json=as_json)


@people_app.command("take")
def take(
    name: Name,
    role: Role,
    by: By,
    rollout: In = "",
    site: Site = "",
    group: Group = "",
    as_json: AsJson = False,
) -> None:
    """Take a right away, named as it was given; it holds everywhere within a second.

    Example: `rollout people take bo operator --rollout ramps --by ana`
    """
    right = Right(role, rollout, site, group)
    _amend(name, by, Amendment(take=(right,)), as_json=as_json)


@people_app.command("password")
def password(
    name: Name,
    by: By,
    from_input: Annotated[
        bool, typer.Option("--stdin", help="read it from standard input, one line")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Set somebody's password; their sessions end. It is asked for, never given as a word here.

    Example: `rollout people password bo --by ana`
    """
    with opened() as database:
        caller = local_caller(database, by)
        typed = sys.stdin.readline().rstrip("\n") if from_input else _typed()
        _signing(database).set_password(caller, name, typed, at=datetime.now(UTC), vouched=True)
    typer.echo(json.dumps({"name": name}) if as_json else f"{name} has a new password")


@people_app.command("link")
def link(name: Name, by: By, as_json: AsJson = False) -> None:
    """Make a token by which somebody sets their own password, once, within a day.

    Example: `rollout people link bo --by ana`
    """
    with opened() as database:
        secret = write_token(secrets.token_bytes(SIZE))
        caller = local_caller(database, by)
        token = people.link(database, caller, name, at=datetime.now(UTC), secret=secret)
    if as_json:
        typer.echo(json.dumps({"name": name, "token": token}))
        return
    typer.echo(token)
    says = f"for {name} alone, within a day: put it in at /console/come-in with a new password"
    typer.echo(says, err=True)


@people_app.command("history")
def history() -> None:
    """Print the chain of all that was changed, as `rollout ledger verify` reads it.

    Example: `rollout people history > house.jsonl`
    """
    with opened() as database, database.reading() as transaction:
        for line in Ledger(transaction, HOUSE_CHAIN).lines():
            typer.echo(line)


@keys_app.command("make")
def make(
    holder: Annotated[str, typer.Argument(help="whose key it is to be", metavar="NAME")],
    by: By,
    expires: Annotated[
        str | None,
        typer.Option(help="2028-01-01T00:00Z; by default in 365 days for machines, 90 for people"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and print it, this once. Give it as `Authorization: Bearer KEY`.

    Example: `rollout keys make ramp-a-box --by ana`
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
    typer.echo(f"of {holder}, until {made.expires_at:%Y-%m-%d}; it is not shown again", err=True)


@keys_app.command("list")
def list_keys(
    holder: Annotated[
        str | None, typer.Argument(help="whose; by default everybody's", metavar="NAME")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List keys by their prefix: whose, until when, and when they were used last.

    Example: `rollout keys list ramp-a-box`
    """
    with opened() as database:
        found = keys.keys_of(database, READER, holder)
    if as_json:
        typer.echo(json.dumps([_plain(asdict(key)) for key in found]))
        return
    for key in found:
        typer.echo(_of_key(key))
    if not found:
        typer.echo("no keys; `rollout keys make NAME --by ADMIN` makes one")


@keys_app.command("revoke")
def revoke(
    prefix: Annotated[str, typer.Argument(help="as in `keys list`", metavar="PREFIX")],
    by: By,
    as_json: AsJson = False,
) -> None:
    """End a key; it opens nothing anywhere within a second.

    Example: `rollout keys revoke 5f1c2a9be077 --by ana`
    """
    with opened() as database:
        keys.revoke(database, local_caller(database, by), prefix, at=datetime.now(UTC))
    typer.echo(json.dumps({"prefix": prefix}) if as_json else f"{prefix} is over")


def _amend(name: str, by: str, amendment: Amendment, *, as_json: bool) -> None:
    with opened() as database:
        caller = local_caller(database, by)
        changed = people.amend(database, caller, name, amendment, at=datetime.now(UTC))
        _tell(changed, as_json=as_json)


def _tell(member: Member, *, as_json: bool) -> None:
    typer.echo(json.dumps(_plain(asdict(member))) if as_json else _said(member))


def _said(member: Member) -> str:
    kind = " (machine)" if member.machine else ""
    if member.disabled_at is not None:
        return f"{member.name}{kind}: disabled since {member.disabled_at:%Y-%m-%d}"
    return f"{member.name}{kind}: " + (", ".join(map(str, member.rights)) or "no right")


def _of_key(key: ApiKey) -> str:
    used = f"used {key.last_used_at:%Y-%m-%d %H:%M}" if key.last_used_at else "never used"
    if key.revoked_at is not None:
        return f"{key.prefix} of {key.holder}: revoked {key.revoked_at:%Y-%m-%d}, {used}"
    until = f"until {key.expires_at:%Y-%m-%d}" if key.expires_at else "without an end"
    return f"{key.prefix} of {key.holder}: {until}, {used}"


def _plain(told: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v.isoformat() if isinstance(v, datetime) else v for k, v in told.items()}


def _instant(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"--expires {text}: write it as 2028-01-01T00:00Z") from None
    if at.tzinfo is None:
        raise ValueError(f"--expires {text}: add an offset, Z for UTC")
    return at


def _typed() -> str:
    return str(typer.prompt("password", hide_input=True, confirmation_prompt=True))


def _signing(database: Database) -> SigningIn:
    return SigningIn(database, SystemClock(), secrets.token_bytes)


def register(app: typer.Typer) -> None:
    """Put both groups beside the other commands."""
    app.add_typer(people_app, name="people")
    app.add_typer(keys_app, name="keys")
