"""Incidents in words: what tripped, what it did, how it comes back."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from api.console.page.page_context import Visitor
from api.console.page.text import first_large
from api.console.page.time_format import took
from rollout.core.calendar.sites import SHADOW, Cell
from rollout.core.errors import Refusal
from rollout.core.policy.cell_evidence import Key
from rollout.core.policy.measures import DETECTED
from rollout.core.policy.policy import Guard, Policy, duration_text
from rollout.core.scope.permissions import Act
from rollout.reports.statistics.intervals import share
from rollout.reports.text.formatting import between, cell_name, of, per_cent, separated
from rollout.services.cells.cells import cell_of
from rollout.services.incidents.incident_impact import Aftermath, Span
from rollout.services.incidents.incidents import IncidentStatus

TAGS: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "narrowed": ("bad", "Narrowed"),
        "suspended": ("suspended", "Suspended"),
        "reported": ("warn", "Reported"),
        "unauthorized": ("bad", "Acted without permission"),
        "ledger_rolled_back": ("bad", "Ledger rewound"),
        "clock": ("warn", "Clock behind"),
    }
)
"""The shape and word of each kind of incident; of an alarm, of what it did."""
WHAT: Final[Mapping[str, str]] = MappingProxyType(
    {
        "unauthorized": "the model acted without permission",
        "ledger_rolled_back": "somebody has seen a ledger that this one is not",
        "clock": "the clock stands before the ledger",
    }
)


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table of what was counted: what, before, since."""

    what: str
    before: str
    since: str


def tag_of(kind: str, did: str) -> tuple[str, str]:
    """Return the shape and word of an incident.

    >>> tag_of("alarm", "suspended"), tag_of("clock", "nothing raised or applied")
    (('suspended', 'Suspended'), ('warn', 'Clock behind'))
    """
    return TAGS.get(did, TAGS.get(kind, ("note", "Incident")))


def heading(kind: str, did: str, site: str, window: str) -> str:
    """Return what happened where, in a few words.

    >>> heading("alarm", "narrowed", "creek", "day")
    'creek · day was narrowed'
    """
    cell = cell_name(site, window)
    if kind == "alarm":
        effect_text = "is reported by a guard" if did == "reported" else f"was {did}"
        return f"{cell or 'A cell'} {effect_text}"
    kind_text = WHAT.get(kind, kind)
    return f"{cell}: {kind_text}" if cell else first_large(kind_text)


def heading_of(found: Aftermath) -> str:
    """Return the heading of an incident's page: with the stages, where it narrowed its cell."""
    incident = found.incident
    affected_cell = next(
        (
            cell_impact
            for cell_impact in found.cells
            if cell_impact.cell == Cell(incident.site, incident.window)
        ),
        None,
    )
    heading_text = heading(incident.kind, incident.effect, incident.site, incident.window)
    if (
        incident.effect != "narrowed"
        or affected_cell is None
        or affected_cell.before == affected_cell.after
    ):
        return heading_text
    return f"{heading_text} from {affected_cell.before} to {affected_cell.after}"


def tripped(found: Aftermath) -> tuple[str, ...]:
    """Return what tripped, a sentence each: the reading, and what an alarm of its kind means."""
    incident = found.incident
    if incident.kind != "alarm":
        return (separated(incident.reason),)
    return (separated(incident.reason), *_about_guard(found.guard))


def did(found: Aftermath) -> str:
    """Return what it did in a sentence."""
    incident = found.incident
    match incident.effect:
        case "narrowed":
            other_count = len(found.cells) - 1
            others_text = (
                f" {other_count} other cells went down with it." if other_count > 1 else ""
            )
            others_text = " One other cell went down with it." if other_count == 1 else others_text
            return f"Narrowing took effect at once, without a person.{others_text}"
        case "suspended":
            return "Grants are withheld, not taken: people decide until the measure is good again."
        case "reported":
            return "Nothing was narrowed: this guard tells people and leaves the rest to them."
    texts = {
        "unauthorized": (
            "The action is recorded as unauthorized and is never evidence. No grant "
            "was taken for it."
        ),
        "ledger_rolled_back": (
            "Clients that saw the later head are told that a human decides. A "
            "backup may have been restored, or another database answers."
        ),
        "clock": (
            "Nothing is raised or applied while the clock stands before the ledger's last "
            "entry. Narrowing and stopping still work."
        ),
    }
    return texts.get(incident.kind, incident.effect)


def returns(found: Aftermath, visitor: Visitor, rollout: str) -> tuple[str, ...]:
    """Return how it comes back, a sentence each."""
    incident = found.incident
    if incident.kind == "clock":
        return (
            "Set the clock of the machine right; it is compared at every tick.",
            "If the ledger's own time is ahead, `rollout doctor` says how people set it back.",
        )
    if incident.kind == "ledger_rolled_back":
        return (
            "Verify the ledger and compare its head with one kept elsewhere.",
            "Clients that saw the later head go on once the ledger holds that row again.",
        )
    if incident.kind == "unauthorized":
        return ("Nothing was taken, so nothing has to come back.",)
    return tuple(_cell_returns(found, visitor, rollout))


def _cell_returns(found: Aftermath, visitor: Visitor, rollout: str) -> Iterator[str]:
    incident = found.incident
    affected_cell = next(
        (
            cell_impact
            for cell_impact in found.cells
            if cell_impact.cell == Cell(incident.site, incident.window)
        ),
        None,
    )
    if affected_cell is None:
        yield "The policy has this cell, or its version, no more."
        return
    if affected_cell.withheld == "stopped":
        yield "The cell is stopped by a person too. Resuming needs people's approval."
    if incident.effect == "reported":
        yield "Nothing was taken, so nothing has to come back."
    elif (
        _level(affected_cell.now, found.policy) >= _level(affected_cell.before, found.policy)
        and not affected_cell.withheld
    ):
        yield f"It is back: the cell stands on {affected_cell.now} again."
    elif affected_cell.withheld == "suspended":
        yield _by_itself(found.guard, found.policy)
    else:
        yield from _by_evidence(found, visitor, rollout, affected_cell.cell)


def _by_itself(guard: Guard | None, policy: Policy) -> str:
    period_text = took((guard.over if guard else None) or policy.tick)
    return f"It returns by itself after {period_text} within the line. Nobody has to do anything."


def _by_evidence(found: Aftermath, visitor: Visitor, rollout: str, cell: Cell) -> Iterator[str]:
    if found.attempt > 1 and any(entry.row.fields.get("restart") for entry in found.did):
        yield f"Evidence starts anew with attempt {found.attempt}, at a smaller risk."
    else:
        yield "Evidence goes on counting; the gate is renewed with what comes."
    if found.proposals:
        yield f"A proposal waits for people: {', '.join(found.proposals)}."
    elif _in_policy(found.policy, cell):
        try:
            detail = cell_of(visitor.service, visitor.caller, rollout, cell, at=visitor.at)
        except Refusal:
            return
        yield detail.status.next_step


def _in_policy(policy: Policy, cell: Cell) -> bool:
    return cell in policy.known


def _level(stage: str, policy: Policy) -> int:
    return policy.rungs.index(stage) if stage in policy.rungs else policy.rungs.index(SHADOW)


def _about_guard(guard: Guard | None) -> Iterator[str]:
    if guard is None:
        yield "The policy has this guard no more."
        return
    period_text = f" over {duration_text(guard.over)}" if guard.over else ""
    yield f"The guard's line: {guard.condition}{period_text}."
    if guard.condition.measure in DETECTED:
        interval_text = separated(f"{guard.false_alarm_every:.0f}")
        yield (
            f"A false alarm of this kind is expected at most once in {interval_text} judged units."
        )
    if guard.reach != "cell":
        yield f"It reaches the whole {guard.reach}."


def counted_rows(found: Aftermath) -> tuple[Row, ...]:
    """Return what was counted on the stage before and since; () where nothing can be compared."""
    before, after = found.before, found.after
    if before is None or after is None or not before.counted.closed + after.counted.closed:
        return ()
    keys = dict.fromkeys((*before.counted.counts, *after.counted.counts))
    rows = [Row("Judged units", _judged(before), _judged(after))]
    rows += [
        Row(f"{_named(key)}", _share(before, key), _share(after, key))
        for key in keys
        if len(_counts(before, key) or _counts(after, key)) == 2
    ]
    rows.append(Row("Closed without a verdict", _missing(before), _missing(after)))
    return tuple(rows)


def _named(key: Key) -> str:
    measure, label, lever = key
    label_text = f" of {label}" if label else ""
    lever_text = f" on {lever}" if lever and not label else ""
    return f"{measure.capitalize()}{label_text}{lever_text}"


def _judged(span: Span) -> str:
    return separated(str(span.counted.judged))


def _missing(span: Span) -> str:
    closed = span.counted.closed
    return separated(f"{span.counted.missing} of {closed}") if closed else "no data"


def _counts(span: Span, key: Key) -> tuple[int, ...]:
    return span.counted.counts.get(key, ())


def _share(span: Span, key: Key) -> str:
    good_count, bad_count = (*_counts(span, key), 0, 0)[:2]
    estimate = share(good_count, good_count + bad_count)
    if estimate.rate is None:
        return "no data"
    return f"{per_cent(estimate.rate)} ({between(estimate)}), {of(estimate)}"


def who_may(visitor: Visitor, rollout: str, told: IncidentStatus) -> str:
    """Say why the visitor can't acknowledge, and who can; "" where they can."""
    if visitor.may(Act.OPERATE, rollout, told.site):
        return ""
    site_text = f" at {told.site}" if told.site else " of every site"
    return f"Acknowledging takes an operator{site_text} of {rollout}. An admin gives that right."
