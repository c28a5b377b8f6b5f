"""`rollout erase`: erase a case, an episode or a name."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from rollout.data.erasure.contents import compact_database
from rollout.features.access.cli import build_user_path
from rollout.features.access.users import load_local_caller
from rollout.features.backups.backups import parse_head, read_exports
from rollout.features.erasure.erasure import (
    ERASURES,
    ErasureRequest,
    ErasureResult,
    describe_erasure,
    erase_user,
)
from rollout.features.erasure.erasure_replay import apply_erasures
from rollout.terminal.local_database import open_database
from rollout.terminal.remote import (
    ActorName,
    ExpectedHeads,
    JsonFlag,
    ServerUrl,
    build_path,
    is_second_factor_required,
    print_answer,
    print_warnings,
)
from rollout.terminal.runner import CommandRequest, build_runner

app = typer.Typer(no_args_is_help=True)

RolloutOption = Annotated[str, typer.Option("--rollout", help="the rollout")]
ReasonOption = Annotated[
    str, typer.Option(help="why; it stays in the ledger, so name nobody and no case in it")
]
CompactFlag = Annotated[
    bool,
    typer.Option(
        "--compact",
        help="local database only: then rewrite the file, so that it no longer holds what was"
        " erased (nobody else may write meanwhile)",
    ),
]


@app.callback()
def describe_erase_commands() -> None:
    """Erase the contents of cases, or names, for good. Counts, hashes and ledgers stay.

    Example: `rollout erase case c-7 --rollout ramps --reason "request 12" --by ana`
    """


@app.command("case")
def erase_case(
    key: Annotated[str, typer.Argument(help="key of the case", metavar="KEY")],
    rollout: RolloutOption,
    reason: ReasonOption,
    by: ActorName = "",
    server: ServerUrl = None,
    compact: CompactFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Erase the contents of a case: records, notes, review tasks, media and rows in reports.

    Example: `rollout erase case c-7 --rollout ramps --reason "request 12" --by ana`
    """
    _erase_contents("case", key, rollout, reason, by, server, compact=compact, as_json=as_json)


@app.command("episode")
def erase_episode(
    key: Annotated[str, typer.Argument(help="key of the episode", metavar="KEY")],
    rollout: RolloutOption,
    reason: ReasonOption,
    by: ActorName = "",
    server: ServerUrl = None,
    compact: CompactFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Erase the contents of all cases of an episode, and its key.

    Example: `rollout erase episode visit-9 --rollout ramps --reason "request 12" --by ana`
    """
    _erase_contents("episode", key, rollout, reason, by, server, compact=compact, as_json=as_json)


@app.command("name")
def erase_user_or_reviewer(
    name: Annotated[str, typer.Argument(help="a user's or reviewer's name", metavar="NAME")],
    reason: ReasonOption,
    rollout: Annotated[
        str, typer.Option("--rollout", help="only a reviewer's name in this rollout")
    ] = "",
    by: ActorName = "",
    server: ServerUrl = None,
    compact: CompactFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Erase a user with their account, or a reviewer's name: a pseudonym takes its place.

    Example: `rollout erase name rosalind --reason "request 13" --by ana`
    """
    if rollout:
        _erase_contents(
            "reviewer", name, rollout, reason, by, server, compact=compact, as_json=as_json
        )
        return
    request = CommandRequest(
        "POST",
        build_user_path(name, "erasure"),
        lambda context: erase_user(
            context.database,
            ErasureRequest(context.caller, "", reason, context.at),
            name,
            requires_second_factor=is_second_factor_required(),
        ),
        {"reason": reason},
    )
    _run(request, by, server, compact=compact, as_json=as_json)


@app.command("again")
def erase_again(
    file: Annotated[
        Path, typer.Argument(help="exported ledger, of a rollout or the access ledger")
    ],
    by: Annotated[str, typer.Option(help="acting admin")],
    head: ExpectedHeads = None,
) -> None:
    """Apply the erasures of a ledger to a restored database. Safe to repeat.

    Export the newest ledgers before you restore, also the access ledger. Exports are not signed:
    name a head that you kept by `--head`.

    Example: `rollout erase again ledger.jsonl --by ana`
    """
    with open_database() as database:
        (export,) = read_exports([file], frozenset(map(parse_head, head or ())))
        caller = load_local_caller(database, by)
        applied = apply_erasures(database, caller, export.erasures, datetime.now(UTC))
    typer.echo(f"{export.text}\n{applied.text}")


def _erase_contents(  # noqa: PLR0913 - one parameter for each option
    kind: str,
    key: str,
    rollout: str,
    reason: str,
    by: str,
    server: str | None,
    *,
    compact: bool,
    as_json: bool,
) -> None:
    request = CommandRequest(
        "POST",
        build_path(rollout, "erasures"),
        lambda context: ERASURES[kind](
            context.database, ErasureRequest(context.caller, rollout, reason, context.at), key
        ),
        {"kind": kind, "key": key, "reason": reason},
    )
    _run(request, by, server, compact=compact, as_json=as_json)


def _run(
    request: CommandRequest, by: str, server: str | None, *, compact: bool, as_json: bool
) -> None:
    (answer,) = build_runner(server, by).run(request)
    result = ErasureResult(**{**answer, "warnings": tuple(answer.get("warnings", ()))})
    if compact and not server:
        with open_database() as database:
            compact_database(database)
    print_answer(answer, describe_erasure(result), as_json=as_json)
    print_warnings(result.warnings)
