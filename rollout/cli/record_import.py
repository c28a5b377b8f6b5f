"""`rollout import`: import recorded files into a live rollout."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rollout.cli.local_database import open_database
from rollout.cli.output import JsonFlag
from rollout.cli.questions import read_with_answers
from rollout.cli.record_options import (
    ActionsFile,
    CasesFile,
    ColumnFile,
    ColumnMappings,
    DecisionsFile,
    DecisionsWhere,
    EqualSides,
    OutcomesFile,
    PlantedFile,
    PredictionsFile,
    PredictionsWhere,
    SameForm,
    TrainingCutoffs,
    VersionContents,
    build_choices,
    parse_training_cutoff,
    parse_version_content,
)
from rollout.cli.rollout_options import RolloutName
from rollout.services.access.users import load_local_caller
from rollout.services.engine.rollout_state import load_rollout_state
from rollout.store.ledger.ledger import Ledger

if TYPE_CHECKING:
    from rollout.core.policy.policy import Policy
    from rollout.services.records.action_import import ActionFile
    from rollout.store.database.session import Database

UNUSED_ROWS = "unreadable_or_repeated"

ImporterName = Annotated[
    str, typer.Option("--by", help="the user who vouches for the times in the files")
]


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
    predictions_where: PredictionsWhere = None,
    decisions_where: DecisionsWhere = None,
    same_form: SameForm = None,
    equal_sides: EqualSides = False,
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
    # frames are slow to import
    from rollout.formats.records.files import RecordPaths  # noqa: PLC0415
    from rollout.services.records.import_vouching import (  # noqa: PLC0415
        build_senders,
        compute_digest,
        compute_digests,
        vouch_for_import,
    )
    from rollout.services.records.planted_cases import (  # noqa: PLC0415
        declare_planted_file,
        split_imported_cases,
    )
    from rollout.services.records.record_import import (  # noqa: PLC0415
        VersionStatements,
        check_declared_contents,
        import_records,
    )
    from rollout.services.replay.requests import ReplayRequest, read_request_records  # noqa: PLC0415

    sources = RecordPaths(predictions, decisions, cases, outcomes)
    request = ReplayRequest(
        Path(),
        sources,
        columns,
        column_mappings=tuple(mapped or ()),
        contents=dict(parse_version_content(text) for text in contents or ()),
        choices=build_choices(
            predictions_where, decisions_where, same_form=same_form, equal_sides=equal_sides
        ),
    )
    with open_database() as database:
        with database.begin_read() as transaction:
            state = load_rollout_state(transaction, rollout)
            made_at = next(Ledger(transaction, state.rollout).list_events(until=1)).at
        records = read_with_answers(
            lambda choices: read_request_records(replace(request, choices=choices), state.policy),
            request.choices,
        )
        now, digests = datetime.now(UTC), compute_digests(sources)
        records = split_imported_cases(database, state.rollout, records, planted, now)
        action_file = None if actions is None else _read_actions(actions, state.policy, now)
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
        if action_file is not None:
            status_counts["action"] = _store_actions(database, rollout, action_file, now)
        status_counts[UNUSED_ROWS] = {"rejected": records.rejected.height}
    _warn_of_early_cases(int((records.cases["occurred_at"] < made_at).sum()), made_at)
    if as_json:
        typer.echo(json.dumps(status_counts))
        return
    for kind, counts_by_status in status_counts.items():
        name = kind.replace("_", " ") if kind == UNUSED_ROWS else f"{kind}s"
        counts_text = (f"{count:,} {status}" for status, count in counts_by_status.items())
        typer.echo(f"{name}: {', '.join(counts_text)}")


def _read_actions(file: Path, policy: "Policy", now: datetime) -> "ActionFile":
    from rollout.services.records.action_import import read_action_file  # noqa: PLC0415

    return read_action_file(file, policy, now)


def _store_actions(
    database: "Database", rollout: str, action_file: "ActionFile", now: datetime
) -> dict[str, int]:
    from rollout.services.records.action_import import import_actions  # noqa: PLC0415

    return dict(import_actions(database, rollout, action_file, now))


def _warn_of_early_cases(cases: int, made_at: datetime) -> None:
    if cases:
        typer.echo(
            f"{cases} cases occurred before the rollout was created ({made_at:%Y-%m-%d %H:%M} "
            "UTC): they are stored, and are no evidence. To count them, create a new rollout with "
            "`rollout apply --at` set to a time before them",
            err=True,
        )
