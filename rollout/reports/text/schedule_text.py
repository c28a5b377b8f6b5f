"""Entries of a schedule in words."""

from typing import Final

from rollout.core.scope.schedule import DUE_DRILL, FIRST_DRILL, OVERDUE_DRILL, ScheduleEntry
from rollout.reports.text.formatting import format_cell_name, format_count

MAX_SITES: Final = 3  # named in one title
DRILL_TEXTS: Final = {
    FIRST_DRILL: "First stop drill is due",
    DUE_DRILL: "Stop drill is due",
    OVERDUE_DRILL: "Stop drill is overdue",
}


def describe_entry(entry: ScheduleEntry, *, names_windows: bool, names_reasons: bool = True) -> str:
    """Describe an entry in one line, without its time; a freeze also without the typed reason."""
    reason = f" ({entry.detail})" if names_reasons else ""
    subject, place = entry.subject, _describe_place(entry, names_windows=names_windows)
    texts = {
        "wave": f"Wave {subject} may widen{place}, if the wave before keeps its stage",
        "freeze": f"Freeze{reason}: nothing widens{place}",
        "start": f"Limits first allow a stage above shadow{place}",
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
