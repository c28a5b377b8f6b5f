"""The live loop on a database: make its tables, apply a policy, import, tick."""

import json
import os
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from rollout.cli import deciding, reading
from rollout.cli.channels import configured
from rollout.cli.questions import (
    DEFAULT,
    URL,
    AsJson,
    At,
    By,
    Here,
    Name,
    Question,
    database_of,
    instant_of,
    opened,
    person,
    sentences,
)
from rollout.cli.refusing import refusals
from rollout.cli.remote import Server, path_of
from rollout.cli.replay import salt_of, trained
from rollout.cli.telling import changes_text, event_text, tell
from rollout.core.errors import Refusal
from rollout.formats.policy_yaml import read_policy
from rollout.formats.record_files import Sources
from rollout.services.acting import Event, written
from rollout.services.ingesting import ingest
from rollout.services.policies import planned, put
from rollout.services.replaying import Order, records_of
from rollout.services.standing import standing
from rollout.services.ticking import Ticker
from rollout.store.ledger import Ledger
from rollout.store.migrating import current, head, upgrade
from rollout.store.roles import grant

__all__ = ["opened", "register"]

database_app = typer.Typer(no_args_is_help=True, help="Make and upgrade the database's tables.")


@database_app.callback()
def group() -> None:
    """Make and upgrade the tables of the database that ROLLOUT_DATABASE_URL names."""


@database_app.command("upgrade")
def upgrade_tables() -> None:
    """Make the tables, or bring them up to this program; all or nothing.

    ROLLOUT_DATABASE_URL names the database, by default sqlite:///rollout.db.

    Example: `rollout db upgrade`
    """
    with refusals(), sentences():
        upgrade(os.environ.get(URL, DEFAULT))
        typer.echo(f"the tables are at {head()}")


@database_app.command("grant")
def grant_role(
    role: Annotated[str, typer.Argument(help="the role that `rollout serve` connects as")],
) -> None:
    """On PostgreSQL, let another role run the service on the tables that this one owns.

    Who owns a table can drop what keeps it append-only, so the service should not. Make the role
    with the server's own tools, and run this after each upgrade.

    Example: `rollout db grant rollout_service`
    """
    with refusals(), sentences(), database_of() as database:
        if database.engine.dialect.name == "sqlite":
            raise ValueError("SQLite has no roles: whoever can write the file can do everything")
        with database.writing() as transaction:
            grant(transaction, role)
    typer.echo(f"{role} may run the service; give ROLLOUT_DATABASE_URL with that role to `serve`")


@database_app.command("current")
def current_tables() -> None:
    """Say which revision the tables are at; exit 1 if it is not this program's.

    Example: `rollout db current`
    """
    with refusals(), sentences():
        found = current(os.environ.get(URL, DEFAULT))
    typer.echo(f"{found or 'no tables'}; this program is written for {head()}")
    if found != head():
        typer.echo("run `rollout db upgrade`", err=True)
        raise typer.Exit(1)


def apply(
    policy: Annotated[Path, typer.Argument(help="the policy, YAML or JSON", metavar="POLICY")],
    by: By = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="say what it would change, and change nothing")
    ] = False,
    server: Server = None,
    at: At = None,
    salt: Annotated[
        str | None,
        typer.Option(help="hex, of a new rollout on the local database; by default from chance"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Apply a policy. The first one makes the rollout; one that loosens waits for approval.

    Evidence counts from then on. For recorded history make the rollout as of an instant before it.

    Example: `rollout apply policy.yaml --by ana --at 2026-09-01T00:00Z`

    Of a service: `ROLLOUT_KEY=ro_… rollout apply policy.yaml --server URL`
    """
    with refusals():
        name, text = read_policy(policy).rollout, policy.read_text(encoding="utf-8")
        given = None if salt is None else salt_of(salt)
        known = None if server else configured()
        if given and server:
            raise Refusal("--salt is for the local database: a service draws its own")
    asker = person(server, by, None, at)
    if dry_run:

        def dry(me: Here) -> Any:
            return planned(me.service, me.caller, text, at=me.at, channels=known)

        (found,) = asker.answer(Question("POST", "/v1/plan", dry, text=text))
        tell(found, "\n".join([changes_text(found), *found["warnings"]]), as_json=as_json)
        return

    def here(me: Here) -> Any:
        return put(me.database, me.caller, name, text, at=me.at, salt=given, channels=known)

    (found,) = asker.answer(Question("PUT", path_of(name, "policy"), here, text=text))
    tell(found, "\n".join([found["text"], *found["warnings"]]), as_json=as_json)


def import_records(  # noqa: PLR0913, PLR0917 - one parameter for each flag that a person may give
    rollout: Name,
    predictions: Annotated[Path, typer.Option(help="what the model said, CSV or JSON lines")],
    decisions: Annotated[Path, typer.Option(help="what people decided")],
    cases: Annotated[Path | None, typer.Option(help="sites, times, attributes")] = None,
    outcomes: Annotated[Path | None, typer.Option(help="what turned out to be true")] = None,
    columns: Annotated[Path | None, typer.Option(help="YAML: our column names to yours")] = None,
    mapped: Annotated[
        list[str] | None, typer.Option("--map", help="one column: predictions.case_key=image")
    ] = None,
    trained_until: Annotated[
        list[str] | None,
        typer.Option(help="VERSION=TIME: cases up to then are no evidence for that version"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Bring recorded files into the database. Doing it again changes nothing.

    It is the database of ROLLOUT_DATABASE_URL, by default sqlite:///rollout.db, also where
    ROLLOUT_SERVER is set. Cases count as received when they occurred, or when the file says: you
    vouch for the times.

    Example: `rollout import ramps --predictions predictions.csv --decisions decisions.csv`
    """
    with opened() as database:
        with database.reading() as transaction:
            stood = standing(transaction, rollout)
            made_at = next(Ledger(transaction, stood.rollout).events(until=1)).at
        sources = Sources(predictions, decisions, cases, outcomes)
        order = Order(Path(), sources, columns=columns, mapped=tuple(mapped or ()))
        records = records_of(order, stood.policy)
        until = dict(trained(text) for text in trained_until or ())
        counts = ingest(database, rollout, records, datetime.now(UTC), until)
        found = {kind: dict(verdicts) for kind, verdicts in sorted(counts.items())}
        found["unreadable or repeated"] = {"set aside": records.set_aside.height}
    _say_too_early(int((records.cases["occurred_at"] < made_at).sum()), made_at)
    if as_json:
        typer.echo(json.dumps(found))
        return
    for kind, verdicts in found.items():
        typer.echo(f"{kind}: " + ", ".join(f"{n} {said}" for said, n in verdicts.items()))


def _say_too_early(cases: int, made_at: datetime) -> None:
    if cases:
        typer.echo(
            f"{cases} cases occurred before the rollout was made ({made_at:%Y-%m-%d %H:%M} UTC): "
            "they are kept and are no evidence. To count them make the rollout anew with "
            "`rollout apply --at` an instant before them",
            err=True,
        )


def tick(rollout: Name, at: At = None, as_json: AsJson = False) -> None:
    """Count what is due and decide, on the local database. `rollout serve` ticks by itself.

    It is the database of ROLLOUT_DATABASE_URL, by default sqlite:///rollout.db, also where
    ROLLOUT_SERVER is set.
    Run it once a slot, by cron or a timer; more often does nothing. Slots that were missed are
    folded into this pass.

    Example: `rollout tick ramps`
    """
    with opened() as database:
        events = Ticker(database, rollout, f"cli-{secrets.token_hex(4)}").tick(instant_of(at))
        done = None if events is None else written(database, rollout, events)
    if done is None:
        typer.echo("[]" if as_json else "this slot is done, or somebody else is doing it")
        return
    _tell(done.events, as_json=as_json)


def _tell(events: tuple[Event, ...], *, as_json: bool) -> None:
    rows = [{"at": e.at.isoformat(), "kind": e.kind, "by": e.by, "body": e.body} for e in events]
    text = "\n".join(event_text(row) for row in rows)
    tell(rows, text or "nothing changed", as_json=as_json)


def register(app: typer.Typer, ledger: typer.Typer) -> None:
    """Put the commands of a live rollout beside the others.

    `ledger verify` takes the place of the one that reads files alone.
    """
    app.add_typer(database_app, name="db")
    app.command("import")(import_records)
    saying = (
        deciding.approve,
        deciding.reject,
        deciding.narrow,
        deciding.stop,
        deciding.resume,
        deciding.retire,
        deciding.acknowledge,
    )
    for command in (apply, tick, reading.status, reading.proposals, reading.incidents, *saying):
        app.command(command.__name__)(command)
    ledger.command("export")(reading.export)
    ledger.command("verify")(reading.verify)
