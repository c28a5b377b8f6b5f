"""What happened, in a few words without figures or typed reasons.

A cell's timeline marks events by these phrases; the longer texts of `event_text` begin with them.
"""

from functools import singledispatch

from rollout.core.policy.confidence_floors import describe_floor_cases
from rollout.core.scope.event_base import LedgerEvent
from rollout.core.scope.events import (
    Approved,
    EvidencePaused,
    EvidenceResumed,
    GrantExpired,
    IncidentOpened,
    Narrowed,
    PolicyApplied,
    ProposalRaised,
    Renewed,
    Resumed,
    Stopped,
    Suspended,
    SuspensionCleared,
    TakenOver,
    VersionFirstUsed,
    VersionRetired,
    Widened,
)
from rollout.core.scope.record_events import CasesErased, RecordsPurged
from rollout.reports.text.formatting import describe_durations, format_quantity


def describe_mark(event: LedgerEvent) -> str:
    """Return an event's phrase, of a narrowing also who or what narrowed; "" without a phrase."""
    phrase = phrase_event(event)
    match event:
        case Narrowed(guard=""):
            return f"{phrase} ({event.by})"
        case Narrowed() | Suspended():
            return f"{phrase} (guard {describe_durations(event.guard)})"
        case Stopped():
            return f"{phrase} by {event.by}"
    return phrase


@singledispatch
def phrase_event(_event: LedgerEvent) -> str:
    """Return an event in a few words; "" for events that no timeline marks."""
    return ""


@phrase_event.register
def _(event: ProposalRaised) -> str:
    if not event.to_stage:
        return f"{event.proposal}: {event.kind} proposed"
    of_version, to_stage = {"takeover": ("by", "at"), "renewal": ("of", "at")}.get(
        event.kind, ("of", "to")
    )
    change = f"{event.kind} {of_version} {event.version} {to_stage} {event.to_stage}"
    return f"{event.proposal}: {change} proposed"


@phrase_event.register
def _(event: Approved) -> str:
    return f"{event.proposal} approved by {event.by}"


@phrase_event.register
def _(event: Widened) -> str:
    return f"{event.version} widened to {event.to_stage}{name_floor(event)}"


@phrase_event.register
def _(event: Renewed) -> str:
    return f"{event.version}: grant of {event.stage} renewed"


@phrase_event.register
def _(event: TakenOver) -> str:
    replaced = f"{event.version} replaced {event.replaced_version}"
    return f"{replaced} at {event.to_stage}{name_floor(event)}"


@phrase_event.register
def _(event: Narrowed) -> str:
    return phrase_narrowing(event, "")


@phrase_event.register
def _(event: Suspended) -> str:
    return f"{event.version} suspended"


@phrase_event.register
def _(event: SuspensionCleared) -> str:
    return f"{event.version}: suspension or alarm ended"


@phrase_event.register
def _(event: GrantExpired) -> str:
    return f"{event.version}: grant of {event.stage} expired"


@phrase_event.register
def _(event: IncidentOpened) -> str:
    return f"incident {event.incident}, {event.effect}"


@phrase_event.register
def _(event: Stopped) -> str:
    return f"stop {event.stop}{' (a drill)' if event.drill else ''}"


@phrase_event.register
def _(event: EvidencePaused) -> str:
    return f"{event.by} paused the evidence"


@phrase_event.register
def _(event: EvidenceResumed) -> str:
    return f"{event.by} resumed the evidence"


@phrase_event.register
def _(event: Resumed) -> str:
    return f"stop {event.stop} ended"


@phrase_event.register
def _(event: PolicyApplied) -> str:
    return f"policy {event.number} applied"


@phrase_event.register
def _(event: VersionFirstUsed) -> str:
    return f"new version {event.version}"


@phrase_event.register
def _(event: VersionRetired) -> str:
    return f"{event.version} is retired"


@phrase_event.register
def _(_event: RecordsPurged) -> str:
    return "old records deleted"


@phrase_event.register
def _(event: CasesErased) -> str:
    return f"{event.by} erased the contents of {format_quantity(len(event.keys), 'case')}"


def phrase_narrowing(event: Narrowed, origin: str) -> str:
    """Return a narrowing in a few words; `origin` says from where, such as " from supervised"."""
    if event.confidence_floor:
        return f"{event.version} keeps {event.to_stage}{name_floor(event)} alone"
    return f"{event.version} narrowed{origin} to {event.to_stage}"


def name_floor(event: Widened | TakenOver | Narrowed) -> str:
    """Return for which cases a stage is open, "" without several confidence floors."""
    floors = (event.confidence_floor,) if isinstance(event, Narrowed) else event.confidence_floors
    return f" for {describe_floor_cases(floors[0])}" if floors and floors[0] else ""
