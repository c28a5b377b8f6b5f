"""Options of commands on a rollout, and a reader of times.

Options of commands that read a policy file, and a reader of salts.

The setting of second factors, for commands that change accounts.
"""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from rollout.settings import read_settings

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


def parse_time(option: str, text: str | None, example: str) -> datetime | None:
    """Return the time of an option; None without one.

    Raises:
        ValueError: the text is not a time, or has no offset.
    """
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{option} {text} is no time; write it as {example}") from None
    if at.tzinfo is None:
        raise ValueError(f"{option} {text} has no offset; add one, Z for UTC")
    return at


def parse_instant(text: str | None) -> datetime:
    """Return the time of `--at`, by default now.

    Raises:
        ValueError: the text is not a time, has no offset, or is in the future.
    """
    now = datetime.now(UTC)
    at = parse_time("--at", text, "2027-06-01T12:00Z") or now
    if at > now:
        raise ValueError(f"--at {text} is in the future; name a past time, or leave it out")
    return at


PolicyFile = Annotated[Path, typer.Argument(help="policy file, YAML or JSON", metavar="POLICY")]


def parse_salt(text: str) -> bytes:
    """Read `--salt`.

    Raises:
        ValueError: the text is not hexadecimal.
    """
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise ValueError(
            f"--salt {text} is not hexadecimal; write an even number of hex digits"
        ) from None


def parse_salts(text: str) -> tuple[bytes, bytes]:
    """Read `--salt` of a replay: a rollout's salt and its service's; b"" for the same one.

    Raises:
        ValueError: a part is not hexadecimal.
    """
    salt, _, audit_salt = text.partition(",")
    return parse_salt(salt), parse_salt(audit_salt)


FACTOR_VARIABLE = "ROLLOUT_REQUIRE_SECOND_FACTOR"


def is_second_factor_required() -> bool:
    """Return the setting of second factors in this process's environment.

    Other settings are not read: a faulty one must not keep an admin from removing a user.
    """
    variables = (
        {FACTOR_VARIABLE: os.environ[FACTOR_VARIABLE]} if FACTOR_VARIABLE in os.environ else {}
    )
    return read_settings(variables).require_second_factor
