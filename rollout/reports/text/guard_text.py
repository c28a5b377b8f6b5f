"""Alarms of guards in words: what was counted, by measure."""

import re
from typing import Final

from rollout.core.policy.alarm_text import ALSO_IN_ALARM
from rollout.kernel.measures import MEASURES
from rollout.reports.text.formatting import add_separators

STORED_ENDING: Final = " records against it"
GUARD_PATTERN: Final = re.compile(
    r"(?P<measure>\w+)(?: of (?P<subject>.+?))?(?: \([^()]*\))? (?:at least|at most|>=|<=) "
)


def format_guard_reason(reason: str) -> str:
    """Return the stored reason of an alarm in words.

    >>> format_guard_reason("agreement at least 90 %: 15 of 1820 records against it")
    'agreement at least 90 %: 15 of 1,820 blind decisions disagree'
    >>> format_guard_reason("drift of 0001234 at most 0: 15 of 1820 records against it")
    'drift of 0001234 at most 0: 15 of 1,820 cases speak for 0001234'
    >>> format_guard_reason("harm at most 0: 1 of 40 records against it")
    'harm at most 0: 1 of 40 outcomes name a harm'
    """
    return ALSO_IN_ALARM.join(map(_format_alarm, reason.split(ALSO_IN_ALARM)))


def _format_alarm(reason: str) -> str:
    if reason.endswith(STORED_ENDING):
        reason = f"{reason.removesuffix(STORED_ENDING)} {name_counted_records(reason)}"
    return add_separators(reason)


def name_counted_records(guard: str) -> str:
    """Return which records a guard counts against its measure, to follow `15 of 182`."""
    match = GUARD_PATTERN.match(guard)
    if match is None or match["measure"] not in MEASURES:
        return STORED_ENDING.strip()
    return MEASURES[match["measure"]].describe_against(match["subject"] or "")
