"""`rollout import`, `rollout baseline` and `rollout plant`: what a live rollout takes from files.

A baseline says how often each action was taken before the model. Planted cases are declared before
they are sent.
"""

import csv
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from rollout.data.ledger.ledger import Ledger
from rollout.engine.records.records import BaselineCount, RemarkReason
from rollout.features.access.users import load_local_caller
from rollout.features.records.baselines import store_baselines
from rollout.features.records.planted_cases import (
    PlantingRequest,
    declare_planted_cases,
    declare_planted_file,
    split_imported_cases,
)
from rollout.live.rollout_state import read_rollout
from rollout.terminal.local_database import open_database
from rollout.terminal.remote import (
    ActionsFile,
    ActorName,
    CasesFile,
    ColumnFile,
    ColumnMappings,
    DecisionsFile,
    DecisionsWhere,
    EqualSides,
    JsonFlag,
    OutcomesFile,
    PlantedFile,
    PredictionsFile,
    PredictionsWhere,
    RolloutName,
    SameForm,
    ServerUrl,
    TrainingCutoffs,
    VersionContents,
    build_choices,
    build_path,
    parse_training_cutoff,
    parse_version_content,
    print_answer,
    print_refusals,
    read_with_answers,
)
from rollout.terminal.runner import LocalContext, build_runner

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
    from rollout.engine.files.files import RecordPaths
    from rollout.features.records.record_import import (
        VersionStatements,
        build_senders,
        check_declared_contents,
        compute_digest,
        compute_digests,
        import_actions,
        import_records,
        read_action_file,
        vouch_for_import,
    )
    from rollout.features.replay.requests import ReplayRequest, read_request_records

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
        with read_rollout(database, rollout) as (transaction, state):
            made_at = next(Ledger(transaction, state.rollout).list_events(until=1)).at
        records = read_with_answers(
            lambda choices: read_request_records(replace(request, choices=choices), state.policy),
            request.choices,
        )
        now, digests = datetime.now(UTC), compute_digests(sources)
        records = split_imported_cases(database, state.rollout, records, planted, now)
        action_file = None if actions is None else read_action_file(actions, state.policy, now)
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
            status_counts["action"] = dict(import_actions(database, rollout, action_file, now))
        status_counts[UNUSED_ROWS] = {"rejected": records.rejected.height}
    is_hint = records.notes["reason"] == RemarkReason.NO_COLUMN.value
    for file, hint in records.notes.filter(is_hint).select("file", "detail").rows():
        typer.echo(f"{file}: {hint}", err=True)
    _warn_of_early_cases(int((records.cases["occurred_at"] < made_at).sum()), made_at)
    if as_json:
        typer.echo(json.dumps(status_counts))
        return
    for kind, counts_by_status in status_counts.items():
        counts_text = ", ".join(f"{n:,} {status}" for status, n in counts_by_status.items())
        typer.echo(
            f"{kind.replace('_', ' ') if kind == UNUSED_ROWS else f'{kind}s'}: {counts_text}"
        )


def _warn_of_early_cases(cases: int, made_at: datetime) -> None:
    if cases:
        typer.echo(
            f"{cases} cases occurred before the rollout was created ({made_at:%Y-%m-%d %H:%M} "
            "UTC): they are stored, and are no evidence. To count them, create a new rollout with "
            "`rollout apply --at` set to a time before them",
            err=True,
        )


COLUMNS = ("site", "window", "lever", "action", "n", "since", "until")
BaselineFile = Annotated[
    Path, typer.Argument(help=f"CSV with columns {', '.join(COLUMNS)}", metavar="FILE")
]


def import_baseline(
    rollout: RolloutName,
    file: BaselineFile,
    by: ActorName = "",
    server: ServerUrl = None,
    as_json: JsonFlag = False,
) -> None:
    """Import how often each action was taken before the model, from a CSV file.

    A row is a cell, an action and a span, with its count in column `n`. All rows are stored, or
    none. Repeating an import changes nothing; a row with a new count replaces the old one. The
    ledger records who imported the file. The action of a set of labels is written `a;b`.

    Example: `rollout baseline ramps manual-2026.csv --by ada`
    """
    with print_refusals():
        baseline_counts = _read_counts(file)
    items = [
        {
            column: value.isoformat()
            if isinstance(value := getattr(baseline_count, column), datetime)
            else value
            for column in COLUMNS
        }
        for baseline_count in baseline_counts
    ]
    result = build_runner(server, by).send(
        "POST",
        build_path(rollout, "baselines"),
        lambda context: {
            "new": store_baselines(
                context.database, context.caller, rollout, baseline_counts, context.at
            )
        },
        {"items": items},
    )
    print_answer(result, f"{result['new']} of {len(baseline_counts)} rows are new", as_json=as_json)


def _read_counts(file: Path) -> list[BaselineCount]:
    """Return the rows of a file.

    Raises:
        ValueError: a column is missing or a line is invalid.
    """
    with file.open(encoding="utf-8-sig", newline="") as text:
        rows = csv.DictReader(text)
        missing_columns = [column for column in COLUMNS if column not in (rows.fieldnames or ())]
        if missing_columns:
            raise ValueError(
                f"{file}: column {', '.join(missing_columns)} is missing; required columns:"
                f" {', '.join(COLUMNS)}"
            )
        return [_parse_count(file, rows.line_num, row) for row in rows]


def _parse_count(file: Path, line: int, row: dict[str, str]) -> BaselineCount:
    try:
        since, until = (datetime.fromisoformat(row[column]) for column in ("since", "until"))
        names = {column: row[column] for column in COLUMNS[:4]}
        return BaselineCount(**names, n=int(row["n"]), since=since, until=until)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{file}, line {line}: {error}") from error


def plant(
    rollout: RolloutName,
    file: Annotated[Path, typer.Argument(help="keys of the cases, one a line", metavar="FILE")],
    reason: Annotated[str, typer.Option(help="what the cases are for")],
    by: ActorName = "",
    server: ServerUrl = None,
    as_json: JsonFlag = False,
) -> None:
    """Declare cases as planted, before they are sent (safe to repeat).

    Planted cases are scenarios and seeded rare events. They take the same way as all others, and
    no figure, gate or guard about the cases that occur counts them; gates require them with
    `of: planted`. A case of which a record is stored can't be declared.

    Example: `rollout plant ramps bears.txt --reason "40 recorded bears" --by ada`
    """
    with print_refusals():
        keys = list(dict.fromkeys(filter(None, file.read_text(encoding="utf-8-sig").split("\n"))))

    def run_locally(context: LocalContext) -> Any:
        request = PlantingRequest(frozenset(keys), reason)
        result = declare_planted_cases(
            context.database, context.caller, rollout, request, context.at
        )
        return {"new": result.new, "repeated": result.repeated}

    result = build_runner(server, by).send(
        "POST",
        build_path(rollout, "planted-cases"),
        run_locally,
        {"keys": keys, "reason": reason},
    )
    text = f"{result['new']} cases declared as planted, {result['repeated']} were before"
    print_answer(result, text, as_json=as_json)
