"""Narrowings that no quality guard explains: by harm, by loss of records, or by a user."""

from rollout.reports.figures.facts import ReportFacts
from rollout.reports.text.event_text import EventDescription


def list_other_narrowings(facts: ReportFacts) -> list[EventDescription]:
    """Return the narrowings without an estimate of when errors began, oldest first."""
    explained = {(row.site, row.window, row.narrowed_at) for row in facts.hindsights}
    return [
        event
        for event in facts.timeline
        if event.kind == "Narrowed" and (event.site, event.window, event.at) not in explained
    ]
