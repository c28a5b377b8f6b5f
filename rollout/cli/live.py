"""Commands of a live rollout: apply a policy, import records, tick."""

import json
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from rollout.cli.channels import list_configured_names
from rollout.cli.errors import print_refusals
from rollout.cli.local_database import open_database
from rollout.cli.local_service import build_local_service
from rollout.cli.output import JsonFlag, format_changes, format_event, print_answer
from rollout.cli.record_options import (
    ActionsFile,
    CasesFile,
    ColumnFile,
    ColumnMappings,
    DecisionsFile,
    OutcomesFile,
    PlantedFile,
    PolicyFile,
    PredictionsFile,
    TrainingCutoffs,
    VersionContents,
)
from rollout.cli.remote import ServerUrl, build_path
from rollout.cli.replay import parse_salt, parse_training_cutoff, parse_version_content
from rollout.cli.rollout_options import ActorName, PastInstant, RolloutName, parse_instant
from rollout.cli.runner import CommandRequest, LocalContext, build_runner
from rollout.core.errors import RefusalError
from rollout.formats.policy.reader import read_policy
from rollout.formats.records.files import RecordPaths
from rollout.services.access.users import load_local_caller
from rollout.services.engine.command_handler import Event, build_command_result
from rollout.services.engine.rollout_state import load_rollout_state
from rollout.services.engine.ticks import Ticker
from rollout.services.policies.policies import preview_policy, put_policy
from rollout.services.records.import_vouching import (
    build_senders,
    compute_digest,
    compute_digests,
    vouch_for_import,
)
from rollout.services.records.planted_cases import declare_planted_file, split_imported_cases
from rollout.services.records.record_import import (
    VersionStatements,
    check_declared_contents,
    import_actions,
    import_records,
    read_action_file,
)
from rollout.services.replay.replay import ReplayRequest, read_request_records
from rollout.store.ledger.ledger import Ledger

UNUSED_ROWS = "unreadable_or_repeated"

ImporterName = Annotated[
    str, typer.Option("--by", help="the user who vouches for the times in the files")
]


def apply(
    policy: PolicyFile,
    by: ActorName = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="print what would change, and change nothing")
    ] = False,
    server: ServerUrl = None,
    at: PastInstant = None,
    salt: Annotated[
        str | None,
        typer.Option(help="hex salt of a new rollout, local database only (default: random)"),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Apply a policy. A new one creates the rollout; a looser one becomes a proposal.

    Evidence counts from then on. To import recorded history, create the rollout with `--at` set to
    a time before it.

    Example: `rollout apply policy.yaml --by ana --at 2026-09-01T00:00Z`

    On a service: `ROLLOUT_API_KEY=ro_… rollout apply policy.yaml --server URL`
    """
    with print_refusals():
        rollout_name, text = read_policy(policy).rollout, policy.read_text(encoding="utf-8")
        salt_bytes = None if salt is None else parse_salt(salt)
        configured_names = None if server else list_configured_names()
        if salt_bytes and server:
            raise RefusalError(
                "--salt works on the local database only; leave it out with --server"
            )
    runner = build_runner(server, by, None, at)
    if dry_run:

        def preview(context: LocalContext) -> Any:
            return preview_policy(
                build_local_service(context.database),
                context.caller,
                text,
                at=context.at,
                channels=configured_names,
            )

        (result,) = runner.run(CommandRequest("POST", "/v1/plan", preview, text=text))
        print_answer(
            result, "\n".join([format_changes(result), *result["warnings"]]), as_json=as_json
        )
        return

    def run_locally(context: LocalContext) -> Any:
        return put_policy(
            context.database,
            context.caller,
            rollout_name,
            text,
            at=context.at,
            salt=salt_bytes,
            channels=configured_names,
        )

    (result,) = runner.run(
        CommandRequest("PUT", build_path(rollout_name, "policy"), run_locally, text=text)
    )
    print_answer(result, "\n".join([result["text"], *result["warnings"]]), as_json=as_json)


def import_record_files(  # noqa: PLR0913, PLR0917 - one parameter for each option
    rollout: RolloutName,
    predictions: PredictionsFile,
    decisions: DecisionsFile,
    by: ImporterName,
    cases: CasesFile = None,
    outcomes: OutcomesFile = None,
    actions: ActionsFile = None,
    columns: ColumnFile = None,
    mapped: ColumnMappings = None,
    trained_until: TrainingCutoffs = None,
    contents: VersionContents = None,
    planted: PlantedFile = None,
    as_json: JsonFlag = False,
) -> None:
    """Import recorded files into the database (safe to repeat).

    The database is ROLLOUT_DATABASE_URL (default: sqlite:///rollout.db), even if ROLLOUT_SERVER is
    set. A case counts as received at `received_at` of the file of cases, or else when it occurred.
    The ledger records that `--by` vouches for these times, and every proposal on them shows it.
    Actions are judged by their permits, as over HTTP; the count of `unauthorized` is part of
    `accepted`. A case of `--planted` counts as declared now: it is refused if a record of it is
    stored, or if an answer is older. So list cases before they are answered.

    Example: `rollout import ramps --predictions predictions.csv --decisions decisions.csv --by ana`
    """
    sources = RecordPaths(predictions, decisions, cases, outcomes)
    request = ReplayRequest(
        Path(),
        sources,
        columns,
        column_mappings=tuple(mapped or ()),
        contents=dict(parse_version_content(text) for text in contents or ()),
    )
    with open_database() as database:
        with database.begin_read() as transaction:
            state = load_rollout_state(transaction, rollout)
            made_at = next(Ledger(transaction, state.rollout).list_events(until=1)).at
        records = read_request_records(request, state.policy)
        now, digests = datetime.now(UTC), compute_digests(sources)
        records = split_imported_cases(database, state.rollout, records, planted, now)
        action_rows = None if actions is None else read_action_file(actions, state.policy, now)
        all_digests = digests if actions is None else (*digests, compute_digest(actions))
        # before the ledger says who vouches
        check_declared_contents(state, records, request.contents)
        caller = load_local_caller(database, by)
        if planted is not None:
            declare_planted_file(database, caller, rollout, planted, now)
        vouch_for_import(database, caller, rollout, records, all_digests, now)
        training_cutoffs = dict(parse_training_cutoff(text) for text in trained_until or ())
        stated = VersionStatements(training_cutoffs, request.contents, caller)
        senders = build_senders(sources, digests)
        counts = import_records(database, rollout, records, now, stated, senders)
        status_counts = {
            kind: dict(counts_by_status) for kind, counts_by_status in sorted(counts.items())
        }
        if action_rows is not None:
            status_counts["action"] = dict(import_actions(database, rollout, action_rows, now))
        status_counts[UNUSED_ROWS] = {"rejected": records.rejected.height}
    _warn_of_early_cases(int((records.cases["occurred_at"] < made_at).sum()), made_at)
    if as_json:
        typer.echo(json.dumps(status_counts))
        return
    for kind, counts_by_status in status_counts.items():
        name = kind.replace("_", " ") if kind == UNUSED_ROWS else f"{kind}s"
        counts_text = (f"{count:,} {status}" for status, count in counts_by_status.items())
        typer.echo(f"{name}: {', '.join(counts_text)}")


def _warn_of_early_cases(cases: int, made_at: datetime) -> None:
    if cases:
        typer.echo(
            f"{cases} cases occurred before the rollout was created ({made_at:%Y-%m-%d %H:%M} "
            "UTC): they are stored, and are no evidence. To count them, create a new rollout with "
            "`rollout apply --at` set to a time before them",
            err=True,
        )


def tick(rollout: RolloutName, at: PastInstant = None, as_json: JsonFlag = False) -> None:
    """Count new evidence and widen or narrow, on the local database, for one slot.

    `rollout serve` ticks by itself. Without a service, run this once a slot, by cron or a timer;
    a second tick in a slot changes nothing. Missed slots are made up for in the next tick. The
    database is ROLLOUT_DATABASE_URL (default: sqlite:///rollout.db), even if ROLLOUT_SERVER is set.

    Example: `rollout tick ramps`
    """
    with open_database() as database:
        events = Ticker(database, rollout, f"cli-{secrets.token_hex(4)}").tick(parse_instant(at))
        result = None if events is None else build_command_result(database, rollout, events)
    if result is None:
        typer.echo(
            "[]"
            if as_json
            else "nothing to do: this slot is done, or another process is working on it"
        )
        return
    _print_events(result.events, as_json=as_json)


def _print_events(events: tuple[Event, ...], *, as_json: bool) -> None:
    rows = [
        {"at": event.at.isoformat(), "kind": event.kind, "by": event.by, "body": event.body}
        for event in events
    ]
    text = "\n".join(format_event(row) for row in rows)
    print_answer(rows, text or "nothing changed", as_json=as_json)
