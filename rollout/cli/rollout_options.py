"""Options of commands on a rollout, and a reader of times."""

from datetime import UTC, datetime
from typing import Annotated

import typer

RolloutName = Annotated[str, typer.Argument(help="name of the rollout", metavar="ROLLOUT")]
ActorName = Annotated[
    str, typer.Option(help="acting user, local database only (a service takes it from the API key)")
]
GroupNames = Annotated[
    list[str] | None,
    typer.Option(help="act for this group only (repeatable; default: all groups of the user)"),
]
PastInstant = Annotated[
    str | None, typer.Option(help="act as of this past time, as 2027-06-01T12:00Z (default: now)")
]
ReasonText = Annotated[str, typer.Option(help="reason, stored in the ledger (optional)")]
ExpectedHeads = Annotated[
    list[str] | None,
    typer.Option(
        "--head",
        metavar="REVISION:HASH",
        help="head kept elsewhere, which one of the exported ledgers must have (repeatable)",
    ),
]


def parse_instant(text: str | None) -> datetime:
    """Return the time of `--at`, by default now.

    Raises:
        ValueError: the text is not a time, has no offset, or is in the future.
    """
    now = datetime.now(UTC)
    if text is None:
        return now
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"--at {text} is no time; write it as 2027-06-01T12:00Z") from None
    if at.tzinfo is None:
        raise ValueError(f"--at {text} has no offset; add one, Z for UTC")
    if at > now:
        raise ValueError(f"--at {text} is in the future; name a past time, or leave it out")
    return at
