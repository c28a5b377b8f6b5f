"""The live loop on a database: apply, import, tick, status, and what people say to it.

Whoever can write the database may do everything: names and groups are taken as given.
"""

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from rollout.cli.refusing import refusals
from rollout.cli.replay import salt_of, trained
from rollout.core.commands import Approve, AskResume, Narrow, Person, Reject, StopCells
from rollout.core.errors import Refusal
from rollout.core.events import Event
from rollout.core.ledger import body_of
from rollout.formats.record_files import Sources
from rollout.services.applying import apply as apply_policy
from rollout.services.commanding import Asked, carry_out, named_cells
from rollout.services.ingesting import ingest
from rollout.services.replaying import Order, records_of
from rollout.services.standing import standing, status_text
from rollout.services.standing import status as status_of
from rollout.services.ticking import Ticker
from rollout.store.errors import StoreError
from rollout.store.ledger import Ledger
from rollout.store.migrating import current, head, require_current, upgrade
from rollout.store.session import Database

URL = "ROLLOUT_DATABASE_URL"
DEFAULT = "sqlite:///rollout.db"

database_app = typer.Typer(no_args_is_help=True, help="Make and upgrade the database's tables.")

Name = Annotated[str, typer.Argument(help="id of the rollout", metavar="ROLLOUT")]
By = Annotated[str, typer.Option(help="who says so")]
Group = Annotated[list[str] | None, typer.Option(help="a group that they stand in")]
At = Annotated[
    str | None, typer.Option(help="an instant of the past, 2027-06-01T12:00Z; by default now")
]
Reason = Annotated[str, typer.Option(help="why; nothing waits for it")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON, nothing else")]
Sites = Annotated[list[str] | None, typer.Option("--site", help="sites, also by pattern")]
Windows = Annotated[list[str] | None, typer.Option("--window", help="windows, also by pattern")]


@contextmanager
def opened() -> Iterator[Database]:
    """Open the database that is asked for; refuse one whose tables are not this program's."""
    with refusals(), _sentences():
        database = Database(os.environ.get(URL, DEFAULT))
        try:
            require_current(database)
            yield database
        finally:
            database.close()


@contextmanager
def _sentences() -> Iterator[None]:
    """Give what the store refuses to whoever prints refusals."""
    try:
        yield
    except StoreError as error:
        raise Refusal(str(error)) from error


def instant_of(text: str | None) -> datetime:
    """Read `--at`; nothing means now.

    Raises:
        ValueError: it is no time, has no offset, or lies ahead: what happens then is not known.
    """
    now = datetime.now(UTC)
    if text is None:
        return now
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"--at {text}: write it as 2027-06-01T12:00Z") from None
    if at.tzinfo is None:
        raise ValueError(f"--at {text}: add an offset, Z for UTC")
    if at > now:
        raise ValueError(f"--at {text} lies ahead of the clock")
    return at


@database_app.callback()
def group() -> None:
    """Make and upgrade the tables of the database that ROLLOUT_DATABASE_URL names."""


@database_app.command("upgrade")
def upgrade_tables() -> None:
    """Make the tables, or bring them up to this program; all or nothing.

    Example: `rollout db upgrade`
    """
    with refusals(), _sentences():
        upgrade(os.environ.get(URL, DEFAULT))
        typer.echo(f"the tables are at {head()}")


@database_app.command("current")
def current_tables() -> None:
    """Say which revision the tables are at; exit 1 if it is not this program's.

    Example: `rollout db current`
    """
    with refusals(), _sentences():
        found = current(os.environ.get(URL, DEFAULT))
    typer.echo(f"{found or 'no tables'}; this program is written for {head()}")
    if found != head():
        typer.echo("run `rollout db upgrade`", err=True)
        raise typer.Exit(1)


def apply(
    policy: Annotated[Path, typer.Argument(help="the policy, YAML or JSON", metavar="POLICY")],
    by: By,
    at: At = None,
    salt: Annotated[
        str | None, typer.Option(help="hex, of a new rollout; by default from chance")
    ] = None,
) -> None:
    """Apply a policy. The first one makes the rollout; one that loosens waits for approval.

    Example: `rollout apply policy.yaml --by ana`
    """
    with opened() as database:
        text = policy.read_text(encoding="utf-8")
        given = None if salt is None else salt_of(salt)
        typer.echo(apply_policy(database, text, Person(by), instant_of(at), given).says)


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

    Cases count as received when they occurred, or when the file says: you vouch for the times.

    Example: `rollout import ramps --predictions predictions.csv --decisions decisions.csv`
    """
    with opened() as database:
        with database.reading() as transaction:
            policy = standing(transaction, rollout).policy
        sources = Sources(predictions, decisions, cases, outcomes)
        order = Order(Path(), sources, columns=columns, mapped=tuple(mapped or ()))
        records = records_of(order, policy)
        until = dict(trained(text) for text in trained_until or ())
        counts = ingest(database, rollout, records, datetime.now(UTC), until)
        found = {kind: dict(verdicts) for kind, verdicts in sorted(counts.items())}
        found["unreadable or repeated"] = {"set aside": records.set_aside.height}
    if as_json:
        typer.echo(json.dumps(found))
        return
    for kind, verdicts in found.items():
        typer.echo(f"{kind}: " + ", ".join(f"{n} {said}" for said, n in verdicts.items()))


def tick(rollout: Name, at: At = None, as_json: AsJson = False) -> None:
    """Count what is due and decide. Slots that were missed are folded into this pass.

    Run it once a slot, by cron or a timer; more often does nothing.

    Example: `rollout tick ramps`
    """
    with opened() as database:
        events = Ticker(database, rollout, f"cli-{secrets.token_hex(4)}").tick(instant_of(at))
    if events is None:
        typer.echo("[]" if as_json else "this slot is done, or somebody else is doing it")
        return
    _tell(events, as_json=as_json)


def status(rollout: Name, at: At = None, as_json: AsJson = False) -> None:
    """Show stages, open proposals with the hash to approve them by, and stops.

    Example: `rollout status ramps`
    """
    with opened() as database:
        found = status_of(database, rollout, instant_of(at))
    typer.echo(json.dumps(found) if as_json else status_text(found))


def approve(
    rollout: Name,
    proposal: Annotated[str, typer.Argument(help="as P-1 in `status`", metavar="PROPOSAL")],
    by: By,
    evidence: Annotated[str, typer.Option(help="the hash of what you were shown")],
    group: Group = None,
    at: At = None,
) -> None:
    """Say yes to a proposal; it is applied by a later tick, once everybody asked has.

    Example: `rollout approve ramps P-1 --by ana --evidence HASH`
    """
    person = Person(by, tuple(group or ("operator",)))
    when = instant_of_or_refuse(at)
    _do(rollout, lambda _: Approve(at=when, by=person, proposal=proposal, evidence=evidence))


def reject(
    rollout: Name,
    proposal: Annotated[str, typer.Argument(help="as P-1 in `status`", metavar="PROPOSAL")],
    by: By,
    reason: Reason = "",
    at: At = None,
) -> None:
    """Say no to a proposal; it is quiet for a while.

    Example: `rollout reject ramps P-1 --by ana --reason "after the holidays"`
    """
    when = instant_of_or_refuse(at)
    _do(rollout, lambda _: Reject(at=when, by=Person(by), proposal=proposal, reason=reason))


def narrow(  # noqa: PLR0913, PLR0917 - one parameter for each flag that a person may give
    rollout: Name,
    to: Annotated[str, typer.Option(help="a stage, or shadow")],
    by: By,
    site: Sites = None,
    window: Windows = None,
    every: Annotated[bool, typer.Option("--all", help="every cell")] = False,
    reason: Reason = "",
    at: At = None,
) -> None:
    """Take what is granted above a stage away, at once.

    Example: `rollout narrow ramps --to shadow --site ramp-a --by ana`
    """
    when = instant_of_or_refuse(at)
    sites, windows = _named(site, window, every=every)
    _do(
        rollout,
        lambda now: Narrow(
            at=when,
            by=Person(by),
            cells=named_cells(now.policy, sites, windows),
            to=to,
            reason=reason,
        ),
    )


def stop(  # noqa: PLR0913, PLR0917 - one parameter for each flag that a person may give
    rollout: Name,
    by: By,
    site: Sites = None,
    window: Windows = None,
    every: Annotated[bool, typer.Option("--all", help="every cell")] = False,
    drill: Annotated[bool, typer.Option(help="an exercise; it holds all the same")] = False,
    reason: Reason = "",
    at: At = None,
) -> None:
    """Withhold everything that is granted, at once, until a resume is approved.

    Example: `rollout stop ramps --all --by ana`
    """
    when = instant_of_or_refuse(at)
    sites, windows = _named(site, window, every=every)
    _do(
        rollout,
        lambda now: StopCells(
            at=when,
            by=Person(by),
            cells=named_cells(now.policy, sites, windows),
            reason=reason,
            drill=drill,
        ),
    )


def resume(
    rollout: Name,
    held: Annotated[str, typer.Argument(help="the stop, as in `status`", metavar="STOP")],
    by: By,
    at: At = None,
) -> None:
    """Propose that a stop is taken back; others approve it.

    Example: `rollout resume ramps S-12 --by ana`
    """
    when = instant_of_or_refuse(at)
    _do(rollout, lambda _: AskResume(at=when, by=Person(by), stop=held))


def export(rollout: Name) -> None:
    """Print a rollout's ledger as `rollout ledger verify` reads it.

    Example: `rollout ledger export ramps > ledger.jsonl`
    """
    with opened() as database, database.reading() as transaction:
        for line in Ledger(transaction, standing(transaction, rollout).rollout).lines():
            typer.echo(line)


def instant_of_or_refuse(text: str | None) -> datetime:
    """Read `--at`, or print why it can't be read and leave."""
    with refusals():
        return instant_of(text)


def _named(
    sites: list[str] | None, windows: list[str] | None, *, every: bool
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    with refusals():
        if not (sites or windows or every):
            raise ValueError("say which cells: --site, --window, or --all")
    return tuple(sites or ()), tuple(windows or ())


def _do(rollout: str, asked: Asked) -> None:
    with opened() as database:
        _tell(carry_out(database, rollout, asked), as_json=False)


def _tell(events: tuple[Event, ...], *, as_json: bool) -> None:
    """Print what was written to the ledger, an event a line."""
    rows = [
        {"at": e.at.isoformat(), "event": type(e).__name__, "by": e.by, **body_of(e)}
        for e in events
    ]
    if as_json:
        typer.echo(json.dumps(rows))
        return
    for row in rows:
        own = " ".join(str(v) for k, v in row.items() if k in SHOWN and v)
        typer.echo(f"{row['at']} {row['event']} {own}".rstrip())
    if not rows:
        typer.echo("nothing changed")


SHOWN = ("proposal", "stop", "incident", "site", "window", "version", "stage", "came_from", "to")


def register(app: typer.Typer, ledger: typer.Typer) -> None:
    """Put the commands of a live rollout beside the others."""
    app.add_typer(database_app, name="db")
    app.command("import")(import_records)
    for command in (apply, tick, status, approve, reject, narrow, stop, resume):
        app.command(command.__name__)(command)
    ledger.command("export")(export)
