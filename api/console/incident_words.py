"""Incidents in words: what tripped, what it did, how it comes back."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from api.console.times import took
from api.console.visitor import Visitor
from api.console.wording import first_large
from rollout.core.errors import Refusal
from rollout.core.known import Key
from rollout.core.measures import DETECTED
from rollout.core.places import SHADOW, Cell
from rollout.core.policy import Guard, Policy, duration_text
from rollout.core.rights import Act
from rollout.reports.intervals import share
from rollout.reports.words import between, cell_name, of, per_cent, separated
from rollout.services.aftermath import Aftermath, Span
from rollout.services.cells import cell_of
from rollout.services.incidents import IncidentStatus

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
        does = "is reported by a guard" if did == "reported" else f"was {did}"
        return f"{cell or 'A cell'} {does}"
    said = WHAT.get(kind, kind)
    return f"{cell}: {said}" if cell else first_large(said)


def heading_of(found: Aftermath) -> str:
    """Return the heading of an incident's page: with the stages, where it narrowed its cell."""
    told = found.incident
    own = next((c for c in found.cells if c.cell == Cell(told.site, told.window)), None)
    made = heading(told.kind, told.effect, told.site, told.window)
    if told.effect != "narrowed" or own is None or own.before == own.after:
        return made
    return f"{made} from {own.before} to {own.after}"


def tripped(found: Aftermath) -> tuple[str, ...]:
    """Return what tripped, a sentence each: the reading, and what an alarm of its kind means."""
    told = found.incident
    if told.kind != "alarm":
        return (separated(told.reason),)
    return (separated(told.reason), *_about_guard(found.guard))


def did(found: Aftermath) -> str:
    """Return what it did in a sentence."""
    told = found.incident
    match told.effect:
        case "narrowed":
            more = len(found.cells) - 1
            others = f" {more} other cells went down with it." if more > 1 else ""
            others = " One other cell went down with it." if more == 1 else others
            return f"Narrowing took effect at once, without a person.{others}"
        case "suspended":
            return "Grants are withheld, not taken: people decide until the measure is good again."
        case "reported":
            return "Nothing was narrowed: this guard tells people and leaves the rest to them."
    says = {
        "unauthorized": "The action is recorded as unauthorized and is never evidence. No grant "
        "was taken for it.",
        "ledger_rolled_back": "Clients that saw the later head are told that a human decides. A "
        "backup may have been restored, or another database answers.",
        "clock": "Nothing is raised or applied while the clock stands before the ledger's last "
        "entry. Narrowing and stopping still work.",
    }
    return says.get(told.kind, told.effect)


def returns(found: Aftermath, visitor: Visitor, rollout: str) -> tuple[str, ...]:
    """Return how it comes back, a sentence each."""
    told = found.incident
    if told.kind == "clock":
        return (
            "Set the clock of the machine right; it is compared at every tick.",
            "If the ledger's own time is ahead, `rollout doctor` says how people set it back.",
        )
    if told.kind == "ledger_rolled_back":
        return (
            "Verify the ledger and compare its head with one kept elsewhere.",
            "Clients that saw the later head go on once the ledger holds that row again.",
        )
    if told.kind == "unauthorized":
        return ("Nothing was taken, so nothing has to come back.",)
    return tuple(_cell_returns(found, visitor, rollout))


def _cell_returns(found: Aftermath, visitor: Visitor, rollout: str) -> Iterator[str]:
    told = found.incident
    own = next((c for c in found.cells if c.cell == Cell(told.site, told.window)), None)
    if own is None:
        yield "The policy has this cell, or its version, no more."
        return
    if own.withheld == "stopped":
        yield "The cell is stopped by a person too. Resuming needs people's approval."
    if told.effect == "reported":
        yield "Nothing was taken, so nothing has to come back."
    elif _level(own.now, found.policy) >= _level(own.before, found.policy) and not own.withheld:
        yield f"It is back: the cell stands on {own.now} again."
    elif own.withheld == "suspended":
        yield _by_itself(found.guard, found.policy)
    else:
        yield from _by_evidence(found, visitor, rollout, own.cell)


def _by_itself(guard: Guard | None, policy: Policy) -> str:
    over = took((guard.over if guard else None) or policy.tick)
    return f"It returns by itself after {over} within the line. Nobody has to do anything."


def _by_evidence(found: Aftermath, visitor: Visitor, rollout: str, cell: Cell) -> Iterator[str]:
    if found.attempt > 1 and any(kept.row.fields.get("restart") for kept in found.did):
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
    over = f" over {duration_text(guard.over)}" if guard.over else ""
    yield f"The guard's line: {guard.condition}{over}."
    if guard.condition.measure in DETECTED:
        often = separated(f"{guard.false_alarm_every:.0f}")
        yield f"A false alarm of this kind is expected at most once in {often} judged units."
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
    of = f" of {label}" if label else ""
    on = f" on {lever}" if lever and not label else ""
    return f"{measure.capitalize()}{of}{on}"


def _judged(span: Span) -> str:
    return separated(str(span.counted.judged))


def _missing(span: Span) -> str:
    closed = span.counted.closed
    return separated(f"{span.counted.missing} of {closed}") if closed else "no data"


def _counts(span: Span, key: Key) -> tuple[int, ...]:
    return span.counted.counts.get(key, ())


def _share(span: Span, key: Key) -> str:
    good, bad = (*_counts(span, key), 0, 0)[:2]
    found = share(good, good + bad)
    if found.rate is None:
        return "no data"
    return f"{per_cent(found.rate)} ({between(found)}), {of(found)}"


def who_may(visitor: Visitor, rollout: str, told: IncidentStatus) -> str:
    """Say why the visitor can't acknowledge, and who can; "" where they can."""
    if visitor.may(Act.OPERATE, rollout, told.site):
        return ""
    where = f" at {told.site}" if told.site else " of every site"
    return f"Acknowledging takes an operator{where} of {rollout}. An admin gives that right."
