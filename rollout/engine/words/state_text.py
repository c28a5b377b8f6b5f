"""States of cells, proposals and incidents: their tags and meanings."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Final

from rollout.engine.decide.incident_kinds import ALARM, get_incident_kind
from rollout.engine.decide.incidents import MAX_OPEN_INCIDENTS
from rollout.engine.decide.proposals import ProposalHold
from rollout.engine.decide.schedule import DUE_DRILL, FIRST_DRILL, OVERDUE_DRILL, ScheduleEntry
from rollout.engine.decide.scope import STOPPED, SUSPENDED
from rollout.engine.records.records import RemarkReason
from rollout.engine.words.formatting import format_cell_name, format_count, format_quantity

MAX_SITES: Final = 3  # named in one title
DRILL_TEXTS: Final = {
    FIRST_DRILL: "First stop drill is due",
    DUE_DRILL: "Stop drill is due",
    OVERDUE_DRILL: "Stop drill is overdue",
}


def describe_entry(entry: ScheduleEntry, *, names_windows: bool) -> str:
    """Describe an entry in one line, without its time."""
    subject, place = entry.subject, _describe_place(entry, names_windows=names_windows)
    texts = {
        "wave": f"Wave {subject} may widen{place}, if the wave before keeps its stage",
        "freeze": f"Freeze ({entry.detail}): nothing widens{place}",
        "end": f"The trial ends{place}: humans decide every case",
        "grant": f"The grant of {subject} to {entry.detail} ends{place}, unless renewed",
        "expiry": f"Proposal {subject} ({entry.detail}) expires{place}",
        "effect": f"Approved proposal {subject} ({entry.detail}) can take effect{place}",
        "report": f"Report {subject} ({entry.detail})",
        "drill": f"{DRILL_TEXTS.get(subject, '')}{place}",
    }
    return texts[entry.kind]


def _describe_place(entry: ScheduleEntry, *, names_windows: bool) -> str:
    if not entry.sites:
        return ""
    window = entry.window if names_windows else ""
    names = [format_cell_name(site, window) or site for site in entry.sites]
    more_count = len(names) - MAX_SITES
    if more_count < 2:  # a single one is named, as its name says more than its number
        return f" at {', '.join(names)}"
    return f" at {', '.join(names[:MAX_SITES])} and {format_count(more_count)} more sites"


TICK = "tick"


def describe_hold(hold: ProposalHold, format_time: Callable[[datetime], str]) -> str:
    """Describe the end of a hold, with its time where it is known."""
    texts = {
        "observing": "end of observing: this policy grants nothing",
        "facts": f"an approver who wants it in spite of {hold.reason}",
        "harm": f"an operator who acknowledges {hold.reason}, which reports a harm",
        "fresh": "answers that don't count yet to stop speaking against it",
        "stop": "resume of the stop that holds the cell",
        "freeze": f"end of the freeze ({hold.reason})",
        "alarm": "end of a guard's alarm there",
        "wave": f"opening of its wave ({hold.reason})",
        "settling": "recently widened cells to settle",
        TICK: "next tick",
    }
    until_text = "" if hold.until is None else f", {format_time(hold.until)}"
    return f"{texts[hold.kind]}{until_text}"


REMARK_TEXTS = {
    RemarkReason.FAILED.value: "no answer",
    RemarkReason.UNSURE.value: "no answer",
    RemarkReason.MODEL_REVIEWER.value: "the name of a version: a model is no human",
    RemarkReason.PLACEHOLDER.value: "a text such as nan, read as missing",
    RemarkReason.NO_COLUMN.value: "an optional column is missing, and another may be meant",
    RemarkReason.GAP_TIME.value: "a local time that clocks skip in spring",
    RemarkReason.AMBIGUOUS_TIME.value: "a local time that clocks show twice in autumn",
}


def describe_remark(reason: str) -> str:
    """Return a reason with what it means, where the name alone is unclear.

    >>> describe_remark("gap-time"), describe_remark("duplicate")
    ('gap-time (a local time that clocks skip in spring)', 'duplicate')
    """
    text = REMARK_TEXTS.get(reason)
    return reason if text is None else f"{reason} ({text})"


@dataclass(frozen=True, slots=True)
class StateText:
    """A state in words: colour and text of its tag, and its meaning in sentences."""

    kind: str
    tag: str
    meaning: str


CELL_STATES: Final[Mapping[str, StateText]] = MappingProxyType(
    {
        STOPPED: StateText(
            "stopped",
            "Stopped",
            "A user has withheld all grants. Humans decide until other users approve a resume. "
            "A grant whose end passes meanwhile does not return.",
        ),
        SUSPENDED: StateText(
            "suspended",
            "Suspended",
            "An operational guard, such as for late answers, is beyond its threshold. Humans "
            "decide. Grants return automatically once the measure was within the threshold for "
            "the guard’s whole period. A third suspension within 24 hours narrows the cell.",
        ),
        "narrowed": StateText(
            "bad",
            "Narrowed",
            "A guard found the model worse than its threshold, or a user narrowed the cell. Only "
            "new evidence and new approvals widen it again. The tag is shown for seven days.",
        ),
        "lapsing": StateText(
            "warn",
            "Lapsing",
            "Less than a fifth of the grant’s time is left. It ends unless a renewal is approved.",
        ),
        "lapsed": StateText(
            "warn",
            "Lapsed",
            "A grant reached its end without renewal; no guard tripped. The tag stays for seven "
            "days.",
        ),
        "unaudited": StateText(
            "warn", "Unaudited", "Too many sampled model decisions have no audit."
        ),
        "stale": StateText(
            "warn", "Stale", "A site has sent nothing for longer than the policy allows."
        ),
        "reported": StateText(
            "warn", "Reported", "A guard that only reports is in alarm. Nothing is narrowed."
        ),
        "eligible": StateText(
            "note",
            "Eligible",
            "Every condition of the gate was met when a proposal was raised; it needs approvals, "
            "also if the bound has since fallen below the threshold.",
        ),
        "approved": StateText(
            "mute",
            "Approved",
            "All approvals are given. The proposal takes effect at the next tick. If a freeze, an "
            "earlier wave or recently widened cells delay it, the tag names the cause.",
        ),
        "too few": StateText(
            "mute", "Held: too few", "The gate needs more decided cases, days or reviewers."
        ),
        "below threshold": StateText(
            "mute",
            "Held: below threshold",
            "The bound does not reach the threshold at the gate’s risk yet. More agreeing cases "
            "may change that.",
        ),
        "off course": StateText(
            "mute",
            "Held: off course",
            "At the current estimate the threshold will probably never be met. More cases alone "
            "do not help.",
        ),
        "missing decisions": StateText(
            "mute",
            "Held: missing decisions",
            "Too many cases closed without a decision. These may be the hard ones.",
        ),
        "wave": StateText(
            "mute",
            "Held: wave",
            "Sites of an earlier wave must keep their stage for a while first.",
        ),
        "rejected": StateText(
            "mute",
            "Held: rejected",
            "A user rejected a proposal. Nothing is proposed here for a time that the policy sets.",
        ),
        "ceiling": StateText("mute", "At its ceiling", "The policy allows no higher stage here."),
        "overdue": StateText(
            "bad",
            "Ticks overdue",
            "No tick has done what has long been due: guards see nothing, and humans decide.",
        ),
        "no data": StateText(
            "mute",
            "No data",
            "No unit was counted here for a day, or none ever. Without data no cell widens.",
        ),
    }
)
"""States of a cell; where several apply, the first one counts."""
CLOSED_PROPOSALS: Final[Mapping[str, StateText]] = MappingProxyType(
    {
        "applied": StateText(
            "good",
            "Applied",
            "It was approved and applied; later narrowings may have ended it.",
        ),
        "rejected": StateText("bad", "Rejected", "It was rejected; nothing changed."),
        "void": StateText(
            "warn",
            "Void",
            "Its conditions no longer held before it was applied; nothing changed.",
        ),
        "expired": StateText(
            "mute", "Expired", "It closed without enough approvals; nothing changed."
        ),
    }
)
"""States of a closed proposal."""
INCIDENT_EFFECTS: Final[Mapping[str, StateText]] = MappingProxyType(
    {
        "narrowed": StateText("bad", "Narrowed", "was narrowed"),
        "suspended": StateText("suspended", "Suspended", "was suspended"),
        "reported": StateText("warn", "Reported", "is reported by a guard"),
        "late": StateText("bad", "Late harm", "has a harm that came late"),
    }
)
"""What an alarm caused."""


@dataclass(frozen=True, slots=True)
class ProposalKindText:
    """A kind of proposal in words.

    Attributes:
        noun, plural: its name.
        title: what it would do, to be formatted with cell, to, version and about.
        subject: the same as a sentence.
    """

    noun: str
    plural: str
    title: str
    subject: str


PROPOSAL_KINDS: Final[Mapping[str, ProposalKindText]] = MappingProxyType(
    {
        "widening": ProposalKindText(
            "widening", "widenings", "Widen {cell} to {to}", "{cell} has met its gate for {to}"
        ),
        "renewal": ProposalKindText(
            "renewal", "renewals", "Renew {cell}, {to}", "{cell} keeps {to} if it is renewed"
        ),
        "takeover": ProposalKindText(
            "takeover",
            "takeovers",
            "Let {version} take over {cell}, {to}",
            "{version} may take over {cell} at {to}",
        ),
        "resume": ProposalKindText(
            "resume", "resumes", "Resume after stop {about}", "Stop {about} would end"
        ),
        "policy": ProposalKindText(
            "change of the policy",
            "changes of the policy",
            "Change the policy",
            "Another policy would be in force",
        ),
    }
)
ANY_PROPOSAL: Final = ProposalKindText(
    "proposal", "proposals", "Decide about {cell}", "Its subject: {about}"
)
"""Words for proposals of several kinds."""


def get_incident_text(kind: str, effect: str) -> StateText:
    """Return the tag and meaning of an incident.

    >>> get_incident_text("alarm", "suspended").tag, get_incident_text("clock", "").tag
    ('Suspended', 'Clock behind')
    """
    incident_kind = get_incident_kind(kind)
    return INCIDENT_EFFECTS.get(effect) or StateText(
        incident_kind.tone, incident_kind.tag, incident_kind.meaning
    )


def format_incident_heading(
    incident_id: str, kind: str, effect: str, site: str, window: str
) -> str:
    """Return which incident it is, what happened and where.

    >>> format_incident_heading("I-1", "alarm", "narrowed", "creek", "day")
    'Incident I-1: creek · day was narrowed'
    >>> format_incident_heading("I-2", "clock", "", "", "")
    'Incident I-2: the clock is behind the last entry or tick'
    >>> format_incident_heading("I-3", "writes", "", "creek", "day")
    'Incident I-3, creek · day: a replica could not write to the ledger'
    """
    cell = format_cell_name(site, window)
    if kind == ALARM.name:
        effect_text = INCIDENT_EFFECTS.get(effect)
        meaning = effect_text.meaning if effect_text else f"was {effect}"
        return f"Incident {incident_id}: {cell or 'a cell'} {meaning}"
    meaning = get_incident_kind(kind).meaning
    return f"Incident {incident_id}{f', {cell}' if cell else ''}: {meaning}"


def describe_unopened_incidents(kind: str, site: str, window: str, number: int) -> str:
    """Describe the incidents that were counted instead of opened.

    >>> text = describe_unopened_incidents("unauthorized", "creek", "day", 150)
    >>> text.partition(". ")[0]
    'creek · day: 150 further incidents (unauthorized action) are counted, not opened'
    """
    cell = format_cell_name(site, window)
    tag = get_incident_text(kind, "").tag.lower()
    number_text = format_quantity(number, "further incident")
    return (
        f"{cell or 'Without a cell'}: {number_text} ({tag}) {'is' if number == 1 else 'are'}"
        f" counted, not opened. At most {MAX_OPEN_INCIDENTS} of a kind are open in a cell;"
        " acknowledge them to see new ones."
    )
