"""Commands of a live rollout: create tables, apply a policy, import records, tick."""

import json
import os
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from rollout.cli import approvals, records_input
from rollout.cli.channels import configured
from rollout.cli.errors import refusals
from rollout.cli.output import changes_text, event_text, tell
from rollout.cli.plan_and_status import (
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
from rollout.cli.remote import Server, path_of
from rollout.cli.replay import salt_of, trained
from rollout.core.errors import Refusal
from rollout.formats.policy.reader import read_policy
from rollout.formats.records.files import Sources
from rollout.services.engine.command_results import Event, written
from rollout.services.engine.rollout_state import standing
from rollout.services.engine.ticks import Ticker
from rollout.services.engine.unit_counting import ingest
from rollout.services.ledger.ledger_forms import change_forms
from rollout.services.policies.policies import planned, put
from rollout.services.replay.replay import Order, records_of
from rollout.store.database.database_roles import grant
from rollout.store.database.migrations import current, head, upgrade
from rollout.store.ledger.ledger import Ledger

__all__ = ["opened", "register"]

database_app = typer.Typer(no_args_is_help=True)


@database_app.callback()
def group() -> None:
    """Create and upgrade the tables of the database in ROLLOUT_DATABASE_URL.

    Example: `rollout db upgrade`
    """


@database_app.command("upgrade")
def upgrade_tables() -> None:
    """Create the tables, or upgrade them to this version of the program; all or nothing.

    The database is ROLLOUT_DATABASE_URL (default: sqlite:///rollout.db).

    Example: `rollout db upgrade`
    """
    with refusals(), sentences():
        upgrade(os.environ.get(URL, DEFAULT))
        typer.echo(f"tables are at revision {head()}")
        with database_of() as database:
            changed = change_forms(database, datetime.now(UTC))
        for name in changed:
            typer.echo(f"{name}: the ledger goes on in form 2")


@database_app.command("grant")
def grant_role(
    role: Annotated[
        str,
        typer.Argument(help="PostgreSQL role that `rollout serve` connects as", metavar="ROLE"),
    ],
) -> None:
    """Grant a PostgreSQL role what the service needs, without ownership of the tables.

    The owner of a table can drop the triggers that keep it append-only, so the service should not
    own its tables. Create the role with PostgreSQL's tools, and run this after each upgrade.

    Example: `rollout db grant rollout_service`
    """
    with refusals(), sentences(), database_of() as database:
        if database.engine.dialect.name == "sqlite":
            raise ValueError("SQLite has no roles: protect the file by its permissions instead")
        with database.writing() as transaction:
            grant(transaction, role)
    typer.echo(
        f"{role} can run the service: set ROLLOUT_DATABASE_URL with this role for `rollout serve`"
    )


@database_app.command("current")
def current_tables() -> None:
    """Print the revision of the tables; exit 1 if this program needs another.

    Example: `rollout db current`
    """
    with refusals(), sentences():
        table_revision = current(os.environ.get(URL, DEFAULT))
    typer.echo(f"tables: {table_revision or 'none'}; needed by this program: {head()}")
    if table_revision != head():
        typer.echo("run `rollout db upgrade`", err=True)
        raise typer.Exit(1)


def apply(
    policy: Annotated[Path, typer.Argument(help="policy file, YAML or JSON", metavar="POLICY")],
    by: By = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="print what would change, and change nothing")
    ] = False,
    server: Server = None,
    at: At = None,
    salt: Annotated[
        str | None,
        typer.Option(help="hex salt of a new rollout, local database only (default: random)"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Apply a policy. A new one creates the rollout; a looser one becomes a proposal.

    Evidence counts from then on. To import recorded history, create the rollout with `--at` set to
    a time before it.

    Example: `rollout apply policy.yaml --by ana --at 2026-09-01T00:00Z`

    On a service: `ROLLOUT_API_KEY=ro_… rollout apply policy.yaml --server URL`
    """
    with refusals():
        rollout_name, text = read_policy(policy).rollout, policy.read_text(encoding="utf-8")
        salt_bytes = None if salt is None else salt_of(salt)
        configured_names = None if server else configured()
        if salt_bytes and server:
            raise Refusal("--salt works on the local database only; leave it out with --server")
    runner = person(server, by, None, at)
    if dry_run:

        def dry(me: Here) -> Any:
            return planned(me.service, me.caller, text, at=me.at, channels=configured_names)

        (result,) = runner.answer(Question("POST", "/v1/plan", dry, text=text))
        tell(result, "\n".join([changes_text(result), *result["warnings"]]), as_json=as_json)
        return

    def here(me: Here) -> Any:
        return put(
            me.database,
            me.caller,
            rollout_name,
            text,
            at=me.at,
            salt=salt_bytes,
            channels=configured_names,
        )

    (result,) = runner.answer(Question("PUT", path_of(rollout_name, "policy"), here, text=text))
    tell(result, "\n".join([result["text"], *result["warnings"]]), as_json=as_json)


def import_records(  # noqa: PLR0913, PLR0917 - one parameter for each flag that a person may give
    rollout: Name,
    predictions: Annotated[
        Path, typer.Option(help="predictions of the model: CSV, JSON lines or Parquet")
    ],
    decisions: Annotated[Path, typer.Option(help="human decisions")],
    cases: Annotated[
        Path | None, typer.Option(help="sites, times and attributes of the cases")
    ] = None,
    outcomes: Annotated[Path | None, typer.Option(help="outcomes that became known later")] = None,
    columns: Annotated[
        Path | None, typer.Option(help="YAML file that maps our column names to yours")
    ] = None,
    mapped: Annotated[
        list[str] | None,
        typer.Option("--map", help="map one column, as predictions.case_key=image (repeatable)"),
    ] = None,
    trained_until: Annotated[
        list[str] | None,
        typer.Option(help="VERSION=TIME: cases up to this time are no evidence for the version"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Import recorded files into the database (safe to repeat).

    The database is ROLLOUT_DATABASE_URL (default: sqlite:///rollout.db), even if ROLLOUT_SERVER is
    set. A case counts as received at the time that the file states, or else when it occurred, so
    you are responsible for the times.

    Example: `rollout import ramps --predictions predictions.csv --decisions decisions.csv`
    """
    with opened() as database:
        with database.reading() as transaction:
            state = standing(transaction, rollout)
            made_at = next(Ledger(transaction, state.rollout).events(until=1)).at
        sources = Sources(predictions, decisions, cases, outcomes)
        request = Order(Path(), sources, columns=columns, mapped=tuple(mapped or ()))
        records = records_of(request, state.policy)
        training_ends = dict(trained(text) for text in trained_until or ())
        counts = ingest(database, rollout, records, datetime.now(UTC), training_ends)
        status_counts = {
            kind: dict(counts_by_status) for kind, counts_by_status in sorted(counts.items())
        }
        status_counts["unreadable_or_repeated"] = {"rejected": records.set_aside.height}
    _warn_of_early_cases(int((records.cases["occurred_at"] < made_at).sum()), made_at)
    if as_json:
        typer.echo(json.dumps(status_counts))
        return
    for kind, counts_by_status in status_counts.items():
        typer.echo(
            f"{kind}: "
            + ", ".join(f"{count} {status}" for status, count in counts_by_status.items())
        )


def _warn_of_early_cases(cases: int, made_at: datetime) -> None:
    if cases:
        typer.echo(
            f"{cases} cases occurred before the rollout was created ({made_at:%Y-%m-%d %H:%M} "
            "UTC): they are stored, and are no evidence. To count them, create a new rollout with "
            "`rollout apply --at` set to a time before them",
            err=True,
        )


def tick(rollout: Name, at: At = None, as_json: AsJson = False) -> None:
    """Count new evidence and widen or narrow, on the local database, for one slot.

    `rollout serve` ticks by itself. Without a service, run this once a slot, by cron or a timer;
    a second tick in a slot changes nothing. Missed slots are made up for in the next tick. The
    database is ROLLOUT_DATABASE_URL (default: sqlite:///rollout.db), even if ROLLOUT_SERVER is set.

    Example: `rollout tick ramps`
    """
    with opened() as database:
        events = Ticker(database, rollout, f"cli-{secrets.token_hex(4)}").tick(instant_of(at))
        result = None if events is None else written(database, rollout, events)
    if result is None:
        typer.echo(
            "[]"
            if as_json
            else "nothing to do: this slot is done, or another process is working on it"
        )
        return
    _tell(result.events, as_json=as_json)


def _tell(events: tuple[Event, ...], *, as_json: bool) -> None:
    rows = [
        {"at": event.at.isoformat(), "kind": event.kind, "by": event.by, "body": event.body}
        for event in events
    ]
    text = "\n".join(event_text(row) for row in rows)
    tell(rows, text or "nothing changed", as_json=as_json)


def register(app: typer.Typer, ledger: typer.Typer) -> None:
    """Put the commands of a live rollout beside the others.

    `ledger verify` takes the place of the one that reads files alone.
    """
    app.add_typer(database_app, name="db")
    app.command("import")(import_records)
    decision_commands = (
        approvals.approve,
        approvals.reject,
        approvals.narrow,
        approvals.stop,
        approvals.resume,
        approvals.retire,
        approvals.acknowledge,
    )
    for command in (
        apply,
        tick,
        records_input.status,
        records_input.proposals,
        records_input.incidents,
        *decision_commands,
    ):
        app.command(command.__name__)(command)
    ledger.command("export")(records_input.export)
    ledger.command("export-access")(records_input.export_access)
    ledger.command("verify")(records_input.verify)
