"""What happened, in words: the ledger's events as a newcomer reads them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import singledispatch

from rollout.core.calendar.sites import Cell
from rollout.core.policy.policy import Policy
from rollout.core.scope.events import (
    Approved,
    ClockCorrected,
    EraBegan,
    Event,
    FormChanged,
    GrantExpired,
    IncidentAcknowledged,
    IncidentOpened,
    Narrowed,
    PolicyApplied,
    ProposalExpired,
    ProposalRaised,
    ProposalRejected,
    ProposalVoided,
    RecordsCounted,
    RecordsPurged,
    Renewed,
    ReportSealed,
    Resumed,
    RolloutCreated,
    RulesApplied,
    Stopped,
    Suspended,
    SuspensionCleared,
    TakenOver,
    VersionFirstUsed,
    VersionRetired,
    Widened,
)
from rollout.reports.inputs.inputs import Inputs
from rollout.reports.text.formatting import (
    listed,
    local,
    number,
    separated,
    several,
    spans_in_words,
    zoned,
)

MAIN = (
    "PolicyApplied", "VersionFirstUsed", "VersionRetired", "Widened", "TakenOver", "Narrowed",
    "Suspended", "SuspensionCleared", "GrantExpired", "Renewed", "Stopped", "Resumed",
    "IncidentOpened", "ProposalVoided", "ProposalExpired", "ProposalRejected", "ClockCorrected",
    "RecordsPurged",
)  # fmt: skip
"""Kinds that a reader's timeline shows; proposals and approvals stand in the auditor's."""


@dataclass(frozen=True, slots=True)
class Happening:
    """One event.

    Attributes:
        revision: its place in the ledger.
        at, local: the instant, and the time at the cell's site (else in the rollout's zone).
        kind: the event's name.
        site, window, version: what it is about; None where it is about no cell.
        to: the stage that it leads to, None where it leads nowhere.
        by: who did it: a person, or `policy` for the engine itself.
        text: the event in words, without time and cell.
        brief: the same in a few words.
        simulated: whether people in it were made up.
    """

    revision: int
    at: datetime
    local: str
    kind: str
    site: str | None
    window: str | None
    version: str | None
    to: str | None
    by: str
    text: str
    brief: str
    simulated: bool


def happenings(inputs: Inputs) -> tuple[Happening, ...]:
    """Return every event of the ledger in words, in order."""
    proposals = {
        event.proposal: event for event in inputs.events if isinstance(event, ProposalRaised)
    }
    approvers_by_proposal: dict[str, list[str]] = {}
    for event in inputs.events:
        if isinstance(event, Approved):
            approvers_by_proposal.setdefault(event.proposal, []).append(event.by)
    describer = Telling(
        inputs.policy, proposals, approvers_by_proposal, inputs.simulated, _since(inputs)
    )
    return tuple(
        happening(revision, event, describer)
        for revision, event in enumerate(inputs.events, start=1)
    )


def _since(inputs: Inputs) -> datetime | None:
    """Return when the history began, None where it spans several years: then years are told."""
    return inputs.first if inputs.first.year == inputs.last.year else None


@dataclass(frozen=True, slots=True)
class Telling:
    """What an event is told with: the policy, and the proposals and approvals that it cites."""

    policy: Policy
    raised: Mapping[str, ProposalRaised]
    yes: Mapping[str, list[str]]
    simulated: bool
    since: datetime | None

    def cell(self, event: Event) -> Cell | None:
        """Return the cell that an event is about: its own, or its proposal's."""
        cell: Cell | None = getattr(event, "cell", None)
        if cell is not None:
            return cell
        proposal = self.raised.get(getattr(event, "proposal", ""))
        return proposal.cell if proposal else None

    def version(self, event: Event) -> str | None:
        """Return the version that an event is about, in the same way."""
        proposal = self.raised.get(getattr(event, "proposal", ""))
        return getattr(event, "version", "") or (proposal.version if proposal else "") or None

    def zone(self, cell: Cell | None) -> str:
        """Return the zone in which an event's time is told; the site may have left the policy."""
        return self.policy.zone_of("" if cell is None else cell.site)

    def when(self, at: datetime, zone: str, beside: datetime) -> str:
        """Return an instant that an event speaks of, on a clock."""
        return local(at, zone, beside)

    def approvers(self, proposal: str) -> str:
        """Return who approved, and that they were made up."""
        names = listed(self.yes.get(proposal, []))
        return f"{names} (simulated)" if names and self.simulated else names or "nobody"

    def grounds(self, proposal: str) -> str:
        """Return the readings that a proposal was raised on, without their logarithms."""
        event = self.raised.get(proposal)
        readings = event.readings if event else ()
        return "; ".join(self._ground(reading.split(", log E")[0]) for reading in readings)

    def ground(self, proposal: str) -> str:
        """Return the agreement that a proposal was raised on, else its first reading."""
        lines = self.grounds(proposal).split("; ")
        agreement_lines = (line for line in lines if line.startswith("agreement at least"))
        counts = next((line.rpartition(": ")[2] for line in agreement_lines), "")
        return f"{counts} agree" if counts else lines[0]

    def _ground(self, line: str) -> str:
        """Return a reading with the mean cost in place of how many units cost how much."""
        condition, colon, counts = line.rpartition(": ")
        if not colon:  # of a policy, a resume, a clock: nothing was counted
            return line
        if not condition.startswith("cost"):
            return f"{condition}: {separated(counts)}"
        free, _, all_units = counts.partition(" of ")
        units = [int(count) for count in free.split()]
        units += [int(all_units) - units[0]] if all_units else []
        if len(units) != len(self.policy.cost_levels):  # counted by the costs of another policy
            return f"{condition}: {separated(counts)}"
        total = sum(
            unit_count * cost
            for unit_count, cost in zip(units, self.policy.cost_levels, strict=True)
        )
        return f"{condition}: {total / max(sum(units), 1):.3f} over {number(sum(units))}"


class Zoned(Telling):
    """The same for a reader of many sites: instants bear the letters of their zone."""

    __slots__ = ()

    def when(self, at: datetime, zone: str, beside: datetime) -> str:
        """Return an instant that an event speaks of, with its zone's letters."""
        return zoned(at, zone, beside)


def happening(revision: int, event: Event, told: Telling) -> Happening:
    """Return one event in words."""
    cell = told.cell(event)
    return Happening(
        revision=revision,
        at=event.at,
        local=local(event.at, told.zone(cell), told.since),
        kind=type(event).__name__,
        site=cell.site if cell else None,
        window=cell.window if cell else None,
        version=told.version(event),
        to=getattr(event, "to_stage", None) or None,
        by=event.by,
        text=_text(event, told),
        brief=_brief(event, told),
        simulated=told.simulated and isinstance(event, Approved | Widened | TakenOver | Renewed),
    )


@singledispatch
def _text(event: Event, _told: Telling) -> str:
    return type(event).__name__


@_text.register
def _(event: RolloutCreated, _told: Telling) -> str:
    return f"rollout created; SHA-256 of the salt of its draws: {event.salt_hash[:12]}…"


@_text.register
def _(event: PolicyApplied, _told: Telling) -> str:
    return f"policy {event.number} applied by {event.by}, hash {event.policy_hash[:12]}…"


@_text.register
def _(event: VersionFirstUsed, _told: Telling) -> str:
    return f"{event.version} is seen for the first time; it begins in shadow everywhere"


@_text.register
def _(event: VersionRetired, _told: Telling) -> str:
    return f"{event.version} is retired and holds nothing any more"


@_text.register
def _(event: ProposalRaised, told: Telling) -> str:
    needs = several(len(event.needs), "approval")
    subject = (
        f"{event.kind} of {event.version} to {event.to_stage}" if event.to_stage else event.kind
    )
    return f"{event.proposal}: {subject} proposed, asks for {needs}; {told.grounds(event.proposal)}"


@_text.register
def _(event: Approved, told: Telling) -> str:
    suffix = " (simulated)" if told.simulated else ""
    return (
        f"{event.proposal} approved by {event.by}{suffix}, on evidence {event.evidence_hash[:12]}…"
    )


@_text.register
def _(event: ProposalRejected, _told: Telling) -> str:
    return f"{event.proposal} rejected by {event.by}"


@_text.register
def _(event: ProposalVoided, _told: Telling) -> str:
    return f"{event.proposal} is void: {event.reason}"


@_text.register
def _(event: ProposalExpired, _told: Telling) -> str:
    return f"{event.proposal} expired: nobody finished approving in time"


@_text.register
def _(event: Widened, told: Telling) -> str:
    until = told.when(event.until, told.zone(event.cell), event.at)
    return (
        f"{event.version} goes up to {event.to_stage}, until {until}; "
        f"{told.grounds(event.proposal)}; approved by {told.approvers(event.proposal)}"
    )


@_text.register
def _(event: Renewed, told: Telling) -> str:
    until = told.when(event.until, told.zone(event.cell), event.at)
    return f"{event.version} keeps {event.stage} until {until}; {told.approvers(event.proposal)}"


@_text.register
def _(event: TakenOver, told: Telling) -> str:
    return (
        f"{event.version} takes over from {event.replaced_version} at {event.to_stage}; "
        f"{told.grounds(event.proposal)}; approved by {told.approvers(event.proposal)}"
    )


@_text.register
def _(event: Narrowed, _told: Telling) -> str:
    cause = (
        f"guard {spans_in_words(event.reason)}"
        if event.guard
        else f"{event.by}: {event.reason or 'no reason'}"
    )
    suffix = ", evidence starts anew" if event.restart else ""
    return f"{event.version} goes down from {event.from_stage} to {event.to_stage}; {cause}{suffix}"


@_text.register
def _(event: Suspended, _told: Telling) -> str:
    return f"{event.version} is suspended; guard {spans_in_words(event.reason)}"


@_text.register
def _(event: SuspensionCleared, _told: Telling) -> str:
    return f"{event.version}: {spans_in_words(event.guard)} is good again"


@_text.register
def _(event: GrantExpired, told: Telling) -> str:
    until = told.when(event.until, told.zone(event.cell), event.at)
    return f"{event.version}: the grant of {event.stage} ended {until} and was not renewed"


@_text.register
def _(event: Stopped, _told: Telling) -> str:
    drill = " (a drill)" if event.drill else ""
    return f"{event.by} stops {several(len(event.cells), 'cell')}{drill}: {event.reason}"


@_text.register
def _(event: Resumed, told: Telling) -> str:
    return f"stop {event.stop} is taken back; {told.approvers(event.proposal)}"


@_text.register
def _(event: IncidentOpened, _told: Telling) -> str:
    return f"incident {event.incident}, {event.effect}: {spans_in_words(event.reason)}"


@_text.register
def _(event: IncidentAcknowledged, _told: Telling) -> str:
    return f"{event.by} has seen incident {event.incident}{f': {event.note}' if event.note else ''}"


@_text.register
def _(event: ClockCorrected, told: Telling) -> str:
    wrong_time = told.when(event.previous_time, told.policy.timezone, event.at)
    return (
        f"the clock was ahead at {wrong_time} and is set right; what had lapsed by then stays"
        " lapsed"
    )


@_text.register
def _(event: RecordsPurged, told: Telling) -> str:
    before = told.when(event.before, told.policy.timezone, event.at)
    return f"{number(sum(event.counts))} rows of records from before {before} are deleted"


@_text.register
def _(event: ReportSealed, told: Telling) -> str:
    since, until = (
        told.when(at, told.policy.timezone, event.at) for at in (event.since, event.until)
    )
    name = f"version {event.number} of the report {event.report}, {since} to {until}"
    return f"{event.by} made {name}, {event.state}; it is kept under {event.sha256[:12]}…"


@_text.register
def _(event: RecordsCounted, _told: Telling) -> str:
    return f"{number(event.records)} records counted, with digest {event.digest[:12]}…"


@_text.register
def _(event: RulesApplied, _told: Telling) -> str:
    return f"counting rules {event.number} applied by {event.by}"


@_text.register
def _(event: EraBegan, _told: Telling) -> str:
    return f"era {event.era} began after a restore; nothing issued before it is valid"


@_text.register
def _(event: FormChanged, _told: Telling) -> str:
    return (
        f"the ledger goes on in form {event.form}; revision {event.revision} before it has hash "
        f"{event.head[:12]}…"
    )


def _brief(event: Event, told: Telling) -> str:
    """Return an event in a few words; what has no short form is told whole."""
    match event:
        case Widened():
            return f"{event.version} up to {event.to_stage}, {told.ground(event.proposal)}"
        case TakenOver():
            return f"{event.version} takes over from {event.replaced_version} at {event.to_stage}"
        case Narrowed():
            counts = separated(event.reason.rpartition(": ")[2].removesuffix(" records against it"))
            cause = f"{counts} against it" if event.guard else f"by {event.by}"
            return f"{event.version} DOWN to {event.to_stage}, {cause}"
        case Renewed():
            return f"{event.version} keeps {event.stage}"
        case VersionFirstUsed():
            return f"{event.version} seen first"
        case _:
            return _text(event, told)


def shown(happening: Happening) -> bool:
    """Say whether a reader's timeline shows it; incidents only where nothing else tells of them."""
    if happening.kind == "IncidentOpened":
        return ", reported:" in happening.text
    return happening.kind in MAIN
