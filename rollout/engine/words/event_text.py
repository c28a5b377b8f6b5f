"""Descriptions of events: of the rollout's ledger, and of the access ledger.

They format what events refer to: proposals, approvers, cells, local times.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import singledispatch
from typing import Final, Self

from rollout.engine.events import (
    Approved,
    AttemptsBegan,
    CalendarDataSet,
    CasesErased,
    CasesPlanted,
    ClockCorrected,
    DamageCleared,
    EraBegan,
    FactsConfirmed,
    FamiliarityChanged,
    GrantExpired,
    IncidentAcknowledged,
    IncidentOpened,
    LedgerEvent,
    NameErased,
    Narrowed,
    PolicyApplied,
    ProposalExpired,
    ProposalHeld,
    ProposalRaised,
    ProposalRejected,
    ProposalVoided,
    RecordsCounted,
    RecordsImported,
    RecordsPurged,
    Renewed,
    ReportSealed,
    Resumed,
    RolloutCreated,
    Stopped,
    Suspended,
    SuspensionCleared,
    TakenOver,
    TrainingCutoffSet,
    VersionFirstUsed,
    VersionRenamed,
    VersionRetired,
    Widened,
    select_events,
)
from rollout.engine.ledger.access_events import (
    CheckpointKeyUsed,
    CredentialsReset,
    EmailSet,
    IdentityLinked,
    KeyCreated,
    KeyRevoked,
    OneTimeLinkCreated,
    PasswordRehashed,
    PasswordSet,
    RecoveryCodeUsed,
    RoleGranted,
    RoleRevoked,
    SecondFactorAdded,
    SecondFactorRemoved,
    UserAdded,
    UserDisabled,
    UserEnabled,
    UserErased,
)
from rollout.engine.words.evidence_text import (
    describe_fresh_fact,
)
from rollout.engine.words.formatting import (
    format_cell_name,
    format_count,
    format_day,
    format_local_time,
    format_quantity,
    format_reading,
    format_zoned_time,
    join_words,
)
from rollout.kernel.calendar.instants import Cell
from rollout.kernel.policy.cell_evidence import describe_floor, describe_floor_cases
from rollout.kernel.policy.familiarity import FAMILIAR, FEW, MISTAKEN, format_value
from rollout.kernel.policy.policy import Policy, describe_guard
from rollout.kernel.policy.stages import shorten_content
from rollout.kernel.words import say_against, say_alarms, say_counts, say_gain, say_looser, say_void


@singledispatch
def describe_mark(event: LedgerEvent) -> str:
    """Return an event's phrase, of a narrowing also who or what narrowed; "" without a phrase."""
    return phrase_event(event)


@describe_mark.register
def _(event: Narrowed | Suspended) -> str:
    cause = f"guard {describe_guard(event.alarms[0])}" if event.alarms else event.by
    return f"{phrase_event(event)} ({cause})"


@describe_mark.register
def _(event: Stopped) -> str:
    return f"{phrase_event(event)} by {event.by}"


EVENT_PHRASES: Final[Mapping[type[LedgerEvent], str]] = {
    Approved: "{event.proposal} approved by {event.by}",
    Widened: "{version}widened to {event.to_stage}{floor}",
    TakenOver: "{version}replaced {event.replaced_version} at {event.to_stage}{floor}",
    Renewed: "{of_version}grant of {event.stage} renewed",
    Suspended: "{version}suspended",
    SuspensionCleared: "{of_version}suspension or alarm ended",
    GrantExpired: "{of_version}grant of {event.stage} expired",
    Stopped: "stop {event.stop}{drill}",
    Resumed: "stop {event.stop} ended",
    PolicyApplied: "policy {event.number} applied",
    VersionFirstUsed: "new version {event.version}",
    VersionRetired: "{event.version} is retired",
    RecordsPurged: "old records deleted",
}
"""Of kinds whose phrase needs their own fields, `name_floor` and their version alone."""


@singledispatch
def phrase_event(event: LedgerEvent) -> str:
    """Return an event in a few words; "" for events that no timeline marks.

    Without its version it is read where a location names that.
    """
    version = getattr(event, "version", "")
    return EVENT_PHRASES.get(type(event), "").format(
        event=event,
        version=f"{version} " if version else "",
        of_version=f"{version}: " if version else "",
        floor=name_floor(event),
        drill=" (a drill)" if getattr(event, "drill", False) else "",
    )


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
def _(event: Narrowed) -> str:
    return phrase_narrowing(event, "")


@phrase_event.register
def _(event: IncidentOpened) -> str:
    of_version = f" of {event.version}" if event.version else ""
    return f"incident {event.incident}{of_version}, {event.effect}"


@phrase_event.register
def _(event: CasesErased) -> str:
    return f"{event.by} erased the contents of {format_quantity(len(event.keys), 'case')}"


def phrase_narrowing(event: Narrowed, origin: str) -> str:
    """Return a narrowing in a few words; `origin` says from where, such as " from supervised"."""
    version = f"{event.version} " if event.version else ""
    if event.confidence_floor:
        return f"{version}keeps {event.to_stage}{name_floor(event)} alone"
    if event.begins_attempt:
        return f"{version}began its next attempt"
    return f"{version}narrowed{origin} to {event.to_stage}"


def name_floor(event: LedgerEvent) -> str:
    """Return for which cases a stage is open, "" without several confidence floors."""
    floor = getattr(event, "acting_floor", "")
    return f" for {describe_floor_cases(floor)}" if floor else ""


MAX_NAMED_CELLS: Final = 3  # of a stop


@dataclass(frozen=True, slots=True)
class CitedProposals:
    """Proposals that events name, and the approvers of each, by id."""

    proposals: dict[str, ProposalRaised] = field(default_factory=dict)
    approvers: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def collect(cls, events: Iterable[LedgerEvent]) -> Self:
        """Return the proposals and approvers of events, in their order."""
        cited = cls()
        for event in events:
            cited.add_event(event)
        return cited

    def add_event(self, event: LedgerEvent) -> None:
        """Add an event, if it raised or approved a proposal."""
        self.proposals.update((e.proposal, e) for e in select_events((event,), ProposalRaised))
        if event.is_approved and event.given_groups:
            self.approvers.setdefault(event.about_proposal, []).append(event.by)


@dataclass(frozen=True, slots=True)
class EventDescriber:
    """Formats events with their policy, proposals and approvals.

    Times in the year of `reference_date` are formatted without the year. Cells of sites that
    the reader may not read (`is_readable` is false) are counted, not named.
    """

    policy: Policy
    cited: CitedProposals
    is_simulated: bool = False
    reference_date: datetime | None = None
    is_readable: Callable[[str], bool] = lambda _site: True

    def find_cell(self, event: LedgerEvent) -> Cell | None:
        """Return the cell of an event or of its proposal."""
        cell: Cell | None = getattr(event, "cell", None)
        if cell is not None:
            return cell
        proposal = self.cited.proposals.get(getattr(event, "proposal", ""))
        return proposal.cell if proposal else None

    def find_version(self, event: LedgerEvent) -> str | None:
        """Return the version of an event or of its proposal."""
        proposal = self.cited.proposals.get(getattr(event, "proposal", ""))
        return getattr(event, "version", "") or (proposal.version if proposal else "") or None

    def find_zone(self, cell: Cell | None) -> str:
        """Return the time zone of a cell, also if the site has left the policy."""
        return self.policy.get_timezone("" if cell is None else cell.site)

    def format_instant(self, at: datetime, zone: str, reference: datetime) -> str:
        """Return an instant on the zone's clock."""
        return format_local_time(at, zone, reference)

    def format_approvers(self, proposal: str) -> str:
        """Return the approvers, marked if simulated."""
        names = join_words(self.cited.approvers.get(proposal, []))
        return f"{names} (simulated)" if names and self.is_simulated else names or "no user"

    def format_cells(self, cells: Iterable[Cell]) -> str:
        """Return up to three names of cells and the number of the others."""
        all_cells = list(cells)
        names = [
            format_cell_name(cell.site, cell.window)
            for cell in all_cells
            if self.is_readable(cell.site)
        ][:MAX_NAMED_CELLS]
        others = len(all_cells) - len(names)
        if not names:
            return format_quantity(others, "cell")
        return join_words([*names, f"{others} more"] if others else names)

    def format_readings(self, proposal: str) -> str:
        """Return the readings of a proposal, without their logarithms."""
        event = self.cited.proposals.get(proposal)
        return "" if event is None else "; ".join(self._list_grounds(event))

    def _list_grounds(self, event: ProposalRaised) -> Iterator[str]:
        """Yield in words what a proposal rests on."""
        yield from (format_reading(reading, self.policy) for reading in event.readings)
        if event.confidence_floor:
            yield describe_floor(self.policy.evidence, event.confidence_floor)
        if event.cell is None:
            yield f"{event.kind} {event.about}"
        yield from map(say_looser, event.loosens)
        yield from map(str, event.cells)

    def format_main_reading(self, proposal: str) -> str:
        """Return the gain of a proposal, else its agreement, else its first reading."""
        event = self.cited.proposals.get(proposal)
        readings = [(r, r.parse_condition()) for r in event.readings] if event else []
        for reading, condition in readings:
            if reading.estimate:
                return f"gain {say_gain(reading, condition)}"
        for reading, condition in readings:
            if condition.is_whole_agreement:
                return f"{say_counts(reading.counts)} agree"
        return next(self._list_grounds(event), "") if event else ""


class ZonedEventDescriber(EventDescriber):
    """Formats events with the zone's abbreviation at each instant."""

    __slots__ = ()

    def format_instant(self, at: datetime, zone: str, reference: datetime) -> str:
        """Return an instant with its zone's abbreviation."""
        return format_zoned_time(at, zone, reference)


@dataclass(frozen=True, slots=True)
class EventDescription:
    """The description of one event.

    Attributes:
        revision: its position in the ledger.
        at, local: the instant, and the time at the cell's site (else in the rollout's zone).
        kind: the event's name.
        site, window, version: None if the event has no cell or version.
        to: the stage that it leads to, or None; None of a narrowing of evidence alone.
        by: the user, or `policy` for the engine.
        text: description without time and cell.
        short_text: short description.
        simulated: whether its approvals were simulated.
        effect: what an incident caused; "" of other events.
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
    short_text: str
    simulated: bool
    effect: str = ""


def describe_events(
    policy: Policy,
    events: Sequence[LedgerEvent],
    first: datetime,
    last: datetime,
    *,
    is_simulated: bool = False,
    is_readable: Callable[[str], bool] | None = None,
) -> tuple[EventDescription, ...]:
    """Return descriptions of all events of a ledger, in order.

    Times are formatted without the year if `first` and `last` are in the same one. A stop names
    cells only of sites for which `is_readable` is true.
    """
    reference_date = first if first.year == last.year else None
    cited = CitedProposals.collect(events)
    describer = EventDescriber(policy, cited, is_simulated, reference_date)
    if is_readable is not None:
        describer = replace(describer, is_readable=is_readable)
    return tuple(
        describe_event(revision, event, describer) for revision, event in enumerate(events, start=1)
    )


def describe_event(
    revision: int, event: LedgerEvent, describer: EventDescriber
) -> EventDescription:
    """Return the description of one event."""
    cell = describer.find_cell(event)
    return EventDescription(
        revision=revision,
        at=event.at,
        local=format_local_time(event.at, describer.find_zone(cell), describer.reference_date),
        kind=type(event).__name__,
        site=cell.site if cell else None,
        window=cell.window if cell else None,
        version=describer.find_version(event),
        to=None if event.begins_attempt else getattr(event, "to_stage", None) or None,
        by=event.by,
        text=_describe(event, describer),
        short_text=_describe_briefly(event, describer),
        simulated=describer.is_simulated and event.is_approved,
        effect=getattr(event, "effect", ""),
    )


EVENT_TEXTS: Final[Mapping[type[LedgerEvent], str]] = {
    RolloutCreated: "rollout created; SHA-256 of its sampling salt: {event.salt_hash:.12}…",
    PolicyApplied: "{phrase} by {event.by}, hash {event.policy_hash:.12}…",
    VersionRetired: "{phrase}; all its grants ended",
    VersionRenamed: "{event.version} is {event.continues} under a new name, with the same content"
    " {event.content:.12}…; its evidence, attempts and grants go on",
    ProposalRaised: "{phrase}, needs {needs}; {readings}",
    FactsConfirmed: "{event.by} wants {event.proposal} in spite of {incidents}",
    ProposalVoided: "{event.proposal} became void: {closing}",
    Approved: "{phrase}{simulated}, citing evidence hash {event.evidence_hash:.12}…",
    ProposalRejected: "{event.proposal} rejected by {event.by}",
    ProposalExpired: "{event.proposal} expired before it was applied",
    Widened: "{phrase} until {until}; {readings}; approved by {approvers}",
    Renewed: "{phrase} until {until}; approved by {approvers}",
    TakenOver: "{phrase}; {readings}; approved by {approvers}",
    Suspended: "{phrase}; guard {alarms}",
    GrantExpired: "{phrase} {until}, not renewed",
    Resumed: "{phrase}; approved by {approvers}",
    IncidentOpened: "{phrase}: {event.cause_text}",
    IncidentAcknowledged: "{event.by} acknowledged incident {event.incident}{because}",
    CasesErased: "{phrase}{because}; their counts stay",
    NameErased: "{event.by} replaced a name by {event.pseudonym}{because}",
    CasesPlanted: "{event.by} declared {cases} as planted, of which no record was stored{because}",
    ClockCorrected: "the rollout's time, ahead at {previous_time}, went back to the clock's; units"
    " counted ahead count again when they are due, and grants that expired by the wrong time stay"
    " expired",
    RecordsPurged: "{rows} rows of records from before {before} deleted",
    RecordsImported: "{cases} imported from {files}; {event.by} vouches that they were received"
    " from {received_since} to {received_until}",
    TrainingCutoffSet: "{event.by} stated that {event.version} was trained on cases up to"
    " {trained_until}",
    ReportSealed: "{event.by} sealed edition {event.number} of the report “{event.report}”, {since}"
    " to {until}, {event.state}; seal {event.sha256:.12}…",
    RecordsCounted: "{event.records:,} records counted; hash over them: {event.digest:.12}…",
    EraBegan: "{event.by} began era {event.era} after a restore, so that earlier permits and leases"
    " are invalid: {event.cause_text}",
    DamageCleared: "{event.by} checked damaged rows and let the model decide again: {event.reason}",
}
"""Of kinds whose description needs their own fields and `_list_values` alone."""
TIME_FIELDS: Final = (
    "until", "since", "before", "previous_time", "trained_until", "received_since",
    "received_until",
)  # fmt: skip
"""Times that descriptions name, on the clock of the event's cell, else of the rollout."""


@singledispatch
def _describe(event: LedgerEvent, describer: EventDescriber) -> str:
    text = EVENT_TEXTS.get(type(event), type(event).__name__)
    return text.format(event=event, **_list_values(event, describer))


def _list_values(event: LedgerEvent, describer: EventDescriber) -> dict[str, str]:
    """Return what texts of kinds say of several, "" where the event has nothing of it."""
    proposal, cell = getattr(event, "proposal", ""), describer.find_cell(event)
    zone = describer.find_zone(cell)
    times = {name: getattr(event, name) for name in TIME_FIELDS if hasattr(event, name)}
    return {
        **{name: describer.format_instant(at, zone, event.at) for name, at in times.items()},
        "phrase": phrase_event(event),
        "simulated": " (simulated)" if describer.is_simulated else "",
        "readings": describer.format_readings(proposal),
        "approvers": describer.format_approvers(proposal),
        "alarms": say_alarms(getattr(event, "alarms", ())),
        "because": _say_reason(event),
        "closing": event.describe_closing(cell),
        "needs": format_quantity(len(event.needed_groups), "approval"),
        "incidents": ", ".join(getattr(event, "incidents", ())),
        "rows": format_count(sum(getattr(event, "counts", ()))),
        "files": join_words(list(getattr(event, "files", ()))),
        "cases": format_quantity(getattr(event, "cases", 0), "case"),
    }


def _say_reason(event: LedgerEvent) -> str:
    reason = getattr(event, "reason", "") or getattr(event, "note", "")
    return f": {reason}" if reason else ""


@_describe.register
def _(event: VersionFirstUsed, _describer: EventDescriber) -> str:
    content = f", content {shorten_content(event.content)}" if event.content else ""
    return f"{phrase_event(event)}{content}; it starts in shadow in every cell"


@_describe.register
def _(event: ProposalHeld, _describer: EventDescriber) -> str:
    facts = "; ".join(map(describe_fresh_fact, event.fresh_facts))
    return f"{event.proposal} is approved and held: {facts}"


@_describe.register
def _(event: Narrowed, _describer: EventDescriber) -> str:
    cause = f"guard {say_alarms(event.alarms)}"
    if not event.alarms:
        reason = say_void(event.cause) if event.cause else event.reason or "no reason given"
        cause = f"{event.by}: {reason}"
    suffix = ", evidence restarts from zero" if event.restart and not event.begins_attempt else ""
    return f"{phrase_narrowing(event, f' from {event.from_stage}')}; {cause}{suffix}"


@_describe.register
def _(event: SuspensionCleared, _describer: EventDescriber) -> str:
    if not event.alarms:
        return f"{phrase_event(event)}; the policy no longer has its guard"
    return f"{phrase_event(event)}; guard {describe_guard(event.alarms[0])} is met again"


@_describe.register
def _(event: Stopped, describer: EventDescriber) -> str:
    drill = " (a drill)" if event.drill else ""
    reason = event.cause_text or "no reason given"
    return f"{event.by} stopped {describer.format_cells(event.cells)}{drill}: {reason}"


@_describe.register
def _(event: CalendarDataSet, _describer: EventDescriber) -> str:
    holidays = f", holidays of {event.holidays}" if event.holidays else ""
    data = f"program {event.program}, time-zone data {event.time_zones}{holidays}"
    names = {"program": "the program", "time_zones": "time-zone data", "holidays": "holidays"}
    changed = join_words([names[field] for field in event.changed])
    if not changed:
        return f"counted with {data}"
    return f"{changed} changed: {data}; past days may lie in other windows than before"


@_describe.register
def _(event: AttemptsBegan, _describer: EventDescriber) -> str:
    first = (
        f"{event.versions[0]} in {event.cells[0]}: attempt {event.numbers[0]} of {event.years[0]},"
        f" with {float(event.shares[0]) * 100:.3g} % of each gate's risk"
    )
    others = len(event.cells) - 1
    return f"evidence begins for {first}" + f"; and {others} more attempts" * (others > 0)


@_describe.register
def _(event: FamiliarityChanged, _describer: EventDescriber) -> str:
    text = format_value((event.attributes[0], event.values[0]))
    verb = {
        FAMILIAR: f"{text} is familiar from now on",
        MISTAKEN: f"humans decide cases with {text}, on which the version differs too often",
        FEW: f"humans decide cases with {text}, which is new here",
    }[event.statuses[0]]
    first = (
        f"{event.versions[0]} in {event.cells[0]}: {verb};"
        f" {event.agreed[0]} of {event.judged[0]} judged units agree"
    )
    others = len(event.cells) - 1
    return first + f"; and {others} more value{'s' * (others > 1)}" * (others > 0)


@singledispatch
def _describe_briefly(event: LedgerEvent, describer: EventDescriber) -> str:
    """Return a short description, or the full one if there is none."""
    return _describe(event, describer)


@_describe_briefly.register
def _(event: Widened, describer: EventDescriber) -> str:
    return f"{phrase_event(event)}, {describer.format_main_reading(event.proposal)}"


@_describe_briefly.register
def _(event: Narrowed, _describer: EventDescriber) -> str:
    cause_text = f"guard: {say_against(event.alarms[0])}" if event.alarms else f"by {event.by}"
    return f"{phrase_event(event)}, {cause_text}"


@_describe_briefly.register(TakenOver)
@_describe_briefly.register(Renewed)
@_describe_briefly.register(GrantExpired)
def _(event: LedgerEvent, _describer: EventDescriber) -> str:
    return phrase_event(event)


ACCESS_EVENT_TEXTS: Final[Mapping[type[LedgerEvent], str]] = {
    UserErased: "the name and address of {event.user} were erased{because}",
    UserDisabled: "{event.user} is disabled: password, keys, sessions, links and roles end",
    UserEnabled: "{event.user} is enabled again, without any role",
    PasswordSet: "{event.user} has a new password; all their sessions end",
    PasswordRehashed: "the password of {event.user} is hashed anew at their sign-in; it is the"
    " same",
    SecondFactorAdded: "{event.user} has a second factor; their other sessions end",
    SecondFactorRemoved: "{event.user} has removed their second factor; all their sessions end",
    RecoveryCodeUsed: "{event.user} has used a recovery code",
    CredentialsReset: "the {event.credential} of {event.user} is reset: their approvals pause for"
    " 24 hours, and never count together with those of {event.by}",
    EmailSet: "{event.user} has another e-mail address, or none",
    IdentityLinked: "{event.user} is linked to their account at {event.issuer}",
    RoleGranted: "{event.user} is {event.assigned_role}",
    RoleRevoked: "{event.user} is no longer {event.assigned_role}",
    KeyRevoked: "key {event.prefix} of {event.user} is revoked",
    CheckpointKeyUsed: "heads of ledgers are signed with the public key {event.public_key}",
}
"""Of kinds whose description needs their own fields alone."""


@singledispatch
def describe_access_event(event: LedgerEvent) -> str:
    """Return the description of one event of the access ledger."""
    text = ACCESS_EVENT_TEXTS.get(type(event), type(event).__name__)
    return text.format(event=event, because=_say_reason(event))


@describe_access_event.register
def _(event: UserAdded) -> str:
    return f"{event.user} is added{', a service account' if event.service_account else ''}"


@describe_access_event.register
def _(event: KeyCreated) -> str:
    return f"key {event.prefix} of {event.user} is created, until {format_day(event.expires_at)}"


@describe_access_event.register
def _(event: OneTimeLinkCreated) -> str:
    return f"a one-time link is created for {event.user or 'the first admin'}"


STAGE_EVENTS: Final = ("Widened", "TakenOver", "Narrowed", "GrantExpired")


def count_events(timeline: Sequence[EventDescription]) -> tuple[Counter[str], Counter[str]]:
    """Return the number of events by kind, and of those that moved a stage's floor alone.

    The first number has none of the second: a stage that stays is neither widened nor narrowed. Nor
    is one whose version began its next attempt.
    """
    stages: dict[tuple[str | None, str | None], tuple[str | None, str | None]] = {}
    kinds, floor_steps = Counter[str](), Counter[str]()
    for event in timeline:
        if event.kind == "Narrowed" and event.to is None:
            continue
        cell, now = (event.site, event.window), (event.version, event.to)
        has_stayed = event.kind in {"Widened", "Narrowed"} and stages.get(cell) == now
        (floor_steps if has_stayed else kinds)[event.kind] += 1
        if event.kind in STAGE_EVENTS:
            stages[cell] = now
    return kinds, floor_steps
