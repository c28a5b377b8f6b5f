"""Rows of a chain as people read them: what happened in words, where, by whom."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import singledispatch
from typing import Final

from rollout.core.access.access_events import (
    EmailSet,
    IdentityLinked,
    KeyCreated,
    KeyRevoked,
    OneTimeLinkCreated,
    PasswordSet,
    RoleGranted,
    RoleRevoked,
    UserAdded,
    UserDisabled,
    UserEnabled,
)
from rollout.core.ledger.ledger import event_of
from rollout.core.scope.events import Event
from rollout.core.scope.permissions import Right
from rollout.core.scope.scope import ENGINE
from rollout.reports.text.event_text import Zoned, happening
from rollout.reports.text.formatting import day_text
from rollout.services.ledger.ledger_reader import ChainPage, KeptRow

BY_ITSELF: Final = "the engine"
WIDER: Final = ("Widened", "Renewed", "TakenOver", "Resumed", "SuspensionCleared")
NARROWER: Final = ("Narrowed", "Suspended", "GrantExpired", "Stopped")
GROUPS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "wider": ("Widened, renewed, taken over, resumed, cleared", WIDER),
    "narrower": ("Narrowed, suspended, stopped, lapsed", NARROWER),
    "proposals": (
        "Proposals and approvals",
        (
            "ProposalRaised",
            "Approved",
            "ProposalRejected",
            "ProposalVoided",
            "ProposalExpired",
        ),
    ),
    "incidents": ("Incidents", ("IncidentOpened", "IncidentAcknowledged")),
    "policy": ("Policy", ("RolloutCreated", "PolicyApplied")),
    "versions": ("Versions", ("VersionFirstUsed", "VersionRetired")),
    "other": ("Reports, clock, deletions", ("ReportSealed", "ClockCorrected", "RecordsPurged")),
}
"""What a rollout's ledger can be looked through for: a name in addresses, words, kinds of rows."""
HOUSE_GROUPS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "people": ("People", ("UserAdded", "UserDisabled", "UserEnabled", "EmailSet")),
    "rights": ("Rights", ("RoleGranted", "RoleRevoked")),
    "keys": ("Keys", ("KeyCreated", "KeyRevoked")),
    "ways-in": ("Passwords and links", ("PasswordSet", "OneTimeLinkCreated", "IdentityLinked")),
}


@dataclass(frozen=True, slots=True)
class Line:
    """One row in words.

    Attributes:
        revision, at, kind, hash: as it is kept.
        zone: on whose clock it is told; "" on the reader's.
        says: what happened.
        where: the cell and version, "" where it is about none.
        by: who did it.
        proposal, incident: what it is about, for a link; "" for none.
        tone: `wider`, `narrower` or "".
    """

    revision: int
    at: datetime
    kind: str
    hash: str
    zone: str
    says: str
    where: str
    by: str
    proposal: str
    incident: str
    tone: str


def lines_of(page: ChainPage) -> tuple[Line, ...]:
    """Return the rows of a page in words, in their order."""
    if page.policy is None:
        return tuple(_of_house(entry) for entry in page.items)
    describer = Zoned(page.policy, page.raised, page.approved, simulated=False, since=None)
    return lines_told(page.items, describer)


def lines_told(rows: Iterable[KeptRow], told: Zoned) -> tuple[Line, ...]:
    """Return rows of a rollout's ledger in words, in their order."""
    return tuple(_line(entry, told) for entry in rows)


def said_by(actor: str) -> str:
    """Return who did something as people read it.

    >>> said_by("bo"), said_by("policy")
    ('bo', 'the engine')
    """
    return BY_ITSELF if actor == ENGINE else actor


def actor_named(typed: str) -> str:
    """Return the actor that a reader means.

    >>> actor_named(" The engine "), actor_named("bo")
    ('policy', 'bo')
    """
    name = typed.strip()
    return ENGINE if name.lower() in {BY_ITSELF, "engine"} else name


def _line(kept: KeptRow, told: Zoned) -> Line:
    event = event_of(kept.row)
    description = happening(kept.row.revision, event, told)
    cell = told.cell(event)
    parts = (description.site, description.window, description.version)
    tones = {**dict.fromkeys(WIDER, "wider"), **dict.fromkeys(NARROWER, "narrower")}
    return Line(
        revision=description.revision,
        at=description.at,
        kind=description.kind,
        hash=kept.hash,
        zone=told.zone(cell),
        says=_unlabelled(description.text, description.version, in_cell=cell is not None),
        where=" · ".join(part for part in parts if part) if cell is not None else "",
        by=said_by(description.by),
        proposal=str(kept.row.fields.get("proposal") or ""),
        incident=str(kept.row.fields.get("incident") or ""),
        tone=tones.get(description.kind, ""),
    )


def _unlabelled(text: str, version: str | None, *, in_cell: bool) -> str:
    """Return what happened without the version that stands beside the cell already."""
    return text.removeprefix(f"{version} ").removeprefix(f"{version}: ") if in_cell else text


def _of_house(kept: KeptRow) -> Line:
    event = event_of(kept.row)
    return Line(
        revision=kept.row.revision,
        at=event.at,
        kind=kept.row.event_kind,
        hash=kept.hash,
        zone="",
        says=_in_house(event),
        where="",
        by=said_by(event.by),
        proposal="",
        incident="",
        tone="",
    )


@singledispatch
def _in_house(event: Event) -> str:
    return type(event).__name__


@_in_house.register
def _(event: UserAdded) -> str:
    return f"{event.user} is added{', a machine' if event.service_account else ''}"


@_in_house.register
def _(event: UserDisabled) -> str:
    return f"{event.user} is disabled: password, keys, sessions, links and rights end"


@_in_house.register
def _(event: UserEnabled) -> str:
    return f"{event.user} may come in again, without any right"


@_in_house.register
def _(event: PasswordSet) -> str:
    return f"{event.user} has a new password; every session of theirs ends"


@_in_house.register
def _(event: EmailSet) -> str:
    return f"{event.user} has another e-mail address, or none"


@_in_house.register
def _(event: IdentityLinked) -> str:
    return f"{event.user} is linked to their account at {event.issuer}"


@_in_house.register
def _(event: RoleGranted) -> str:
    return f"{event.user} is {_right(event)}"


@_in_house.register
def _(event: RoleRevoked) -> str:
    return f"{event.user} is no longer {_right(event)}"


@_in_house.register
def _(event: KeyCreated) -> str:
    return f"key {event.prefix} of {event.user} is made, until {day_text(event.expires_at)}"


@_in_house.register
def _(event: KeyRevoked) -> str:
    return f"key {event.prefix} of {event.user} is revoked"


@_in_house.register
def _(event: OneTimeLinkCreated) -> str:
    return f"a one-time link is made for {event.user or 'the first admin'}"


def _right(event: RoleGranted | RoleRevoked) -> str:
    return str(Right(event.role, event.rollout, event.site, event.group))
