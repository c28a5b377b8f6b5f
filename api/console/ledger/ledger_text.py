"""Ledger entries in words."""

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
from rollout.core.ledger.ledger import parse_event
from rollout.core.scope.events import LedgerEvent
from rollout.core.scope.permissions import AssignedRole
from rollout.core.scope.scope import ENGINE
from rollout.reports.text.event_text import ZonedEventDescriber, describe_event
from rollout.reports.text.formatting import format_day
from rollout.services.ledger.ledger_reader import LedgerEntry, LedgerPage

ENGINE_NAME: Final = "the engine"
WIDENING_KINDS: Final = ("Widened", "Renewed", "TakenOver", "Resumed", "SuspensionCleared")
NARROWING_KINDS: Final = ("Narrowed", "Suspended", "GrantExpired", "Stopped")
EVENT_GROUPS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "wider": ("Widened, renewed, taken over, resumed, cleared", WIDENING_KINDS),
    "narrower": ("Narrowed, suspended, stopped, lapsed", NARROWING_KINDS),
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
    "other": (
        "Reports, clock, imports, deletions",
        ("ReportSealed", "ClockCorrected", "RecordsImported", "RecordsPurged"),
    ),
}
"""Filter choices of a rollout's ledger: label and event kinds by URL name."""
ACCESS_EVENT_GROUPS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "people": ("Users", ("UserAdded", "UserDisabled", "UserEnabled", "EmailSet")),
    "rights": ("Roles", ("RoleGranted", "RoleRevoked")),
    "keys": ("Keys", ("KeyCreated", "KeyRevoked")),
    "ways-in": ("Passwords and links", ("PasswordSet", "OneTimeLinkCreated", "IdentityLinked")),
}


@dataclass(frozen=True, slots=True)
class LedgerLine:
    """One ledger entry in words.

    Attributes:
        revision, at, kind, hash: as stored.
        zone: timezone of its time; "" for the visitor's.
        text: what happened.
        location: cell and version, "" if it concerns none.
        by: the actor.
        proposal, incident: ids for links, or "".
        tone: `wider`, `narrower` or "".
    """

    revision: int
    at: datetime
    kind: str
    hash: str
    zone: str
    text: str
    location: str
    by: str
    proposal: str
    incident: str
    tone: str


def describe_ledger_page(page: LedgerPage) -> tuple[LedgerLine, ...]:
    """Describe the entries of a page, in their order."""
    if page.policy is None:
        return tuple(_describe_access_entry(entry) for entry in page.items)
    describer = ZonedEventDescriber(
        page.policy, page.cited_proposals, page.approvers, is_simulated=False, reference_date=None
    )
    return describe_ledger_entries(page.items, describer)


def describe_ledger_entries(
    entries: Iterable[LedgerEntry], describer: ZonedEventDescriber
) -> tuple[LedgerLine, ...]:
    """Describe entries of a rollout's ledger, in their order."""
    return tuple(_describe_entry(entry, describer) for entry in entries)


def format_actor(actor: str) -> str:
    """Return the display name of an actor.

    >>> format_actor("bo"), format_actor("policy")
    ('bo', 'the engine')
    """
    return ENGINE_NAME if actor == ENGINE else actor


def parse_actor(typed: str) -> str:
    """Return the actor's name for a typed display name.

    >>> parse_actor(" The engine "), parse_actor("bo")
    ('policy', 'bo')
    """
    name = typed.strip()
    return ENGINE if name.lower() in {ENGINE_NAME, "engine"} else name


def _describe_entry(entry: LedgerEntry, describer: ZonedEventDescriber) -> LedgerLine:
    event = parse_event(entry.row)
    description = describe_event(entry.row.revision, event, describer)
    cell = describer.find_cell(event)
    parts = (description.site, description.window, description.version)
    tones = {**dict.fromkeys(WIDENING_KINDS, "wider"), **dict.fromkeys(NARROWING_KINDS, "narrower")}
    return LedgerLine(
        revision=description.revision,
        at=description.at,
        kind=description.kind,
        hash=entry.hash,
        zone=describer.find_zone(cell),
        text=_drop_version(description.text, description.version, has_cell=cell is not None),
        location=" · ".join(part for part in parts if part) if cell is not None else "",
        by=format_actor(description.by),
        proposal=str(entry.row.fields.get("proposal") or ""),
        incident=str(entry.row.fields.get("incident") or ""),
        tone=tones.get(description.kind, ""),
    )


def _drop_version(text: str, version: str | None, *, has_cell: bool) -> str:
    """Return the text without the version, which the location already names."""
    return text.removeprefix(f"{version} ").removeprefix(f"{version}: ") if has_cell else text


def _describe_access_entry(entry: LedgerEntry) -> LedgerLine:
    event = parse_event(entry.row)
    return LedgerLine(
        revision=entry.row.revision,
        at=event.at,
        kind=entry.row.event_kind,
        hash=entry.hash,
        zone="",
        text=_describe_access_event(event),
        location="",
        by=format_actor(event.by),
        proposal="",
        incident="",
        tone="",
    )


@singledispatch
def _describe_access_event(event: LedgerEvent) -> str:
    return type(event).__name__


@_describe_access_event.register
def _(event: UserAdded) -> str:
    return f"{event.user} is added{', a service account' if event.service_account else ''}"


@_describe_access_event.register
def _(event: UserDisabled) -> str:
    return f"{event.user} is disabled: password, keys, sessions, links and roles end"


@_describe_access_event.register
def _(event: UserEnabled) -> str:
    return f"{event.user} is enabled again, without any role"


@_describe_access_event.register
def _(event: PasswordSet) -> str:
    return f"{event.user} has a new password; all their sessions end"


@_describe_access_event.register
def _(event: EmailSet) -> str:
    return f"{event.user} has another e-mail address, or none"


@_describe_access_event.register
def _(event: IdentityLinked) -> str:
    return f"{event.user} is linked to their account at {event.issuer}"


@_describe_access_event.register
def _(event: RoleGranted) -> str:
    return f"{event.user} is {_format_role_assignment(event)}"


@_describe_access_event.register
def _(event: RoleRevoked) -> str:
    return f"{event.user} is no longer {_format_role_assignment(event)}"


@_describe_access_event.register
def _(event: KeyCreated) -> str:
    return f"key {event.prefix} of {event.user} is created, until {format_day(event.expires_at)}"


@_describe_access_event.register
def _(event: KeyRevoked) -> str:
    return f"key {event.prefix} of {event.user} is revoked"


@_describe_access_event.register
def _(event: OneTimeLinkCreated) -> str:
    return f"a one-time link is created for {event.user or 'the first admin'}"


def _format_role_assignment(event: RoleGranted | RoleRevoked) -> str:
    return str(AssignedRole(event.role, event.rollout, event.site, event.group))
