"""Alarms in words: what was counted, in the guard's own unit."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Final

from rollout.core.calendar.instants import format_duration
from rollout.core.policy.cell_evidence import GuardReading
from rollout.core.policy.policy import Guard
from rollout.kernel.measures import Watch

ALSO_IN_ALARM: Final = "; also in alarm: "


def join_alarms(reasons: Iterable[str]) -> str:
    """Return the reasons of alarms in one cell as one text, the first as the cause."""
    return ALSO_IN_ALARM.join(reasons)


def describe_alarm(guard: Guard, reading: GuardReading, tick: timedelta) -> str:
    """Return the guard's condition and what was counted against it.

    Without `silence` the value of `heartbeat` is in ticks; that of `gain` is in millionths of the
    outcome's range.

    >>> from rollout.kernel.measures import MEASURES, Condition
    >>> failures = Guard(Condition(MEASURES["failures"], 0.02), "suspend")
    >>> describe_alarm(failures, GuardReading(is_alarm=True, value="3", records=4), timedelta(0))
    'failures at most 2 %: 3 of 4 answers failed'
    """
    if reading.silence is not None:
        silence = _format_silence(reading.silence)
        return f"{guard.condition}: no heartbeat for {silence} in opening hours"
    if guard.condition.measure.watch is Watch.SIGNS:
        return f"{guard.condition}: no heartbeat for {format_duration(int(reading.value) * tick)}"
    if guard.condition.population.has_gain:
        outcome = guard.condition.population.outcome
        amount = outcome.format_amount(int(reading.value) * 1e-6 * outcome.span)
        return f"{guard.condition}: {amount} a unit so far, over {reading.records} units"
    condition = guard.condition.describe(reading.subject or guard.condition.subject)
    counted = guard.condition.measure.describe_stored(guard.condition.threshold_text)
    return f"{condition}: {reading.value} of {reading.records} {counted}"


def _format_silence(silence: timedelta) -> str:
    """Return a duration in at most two units.

    >>> _format_silence(timedelta(minutes=31)), _format_silence(timedelta(hours=51, minutes=5))
    ('31 min', '2 d 3 h')
    """
    hours, minutes = divmod(silence // timedelta(minutes=1), 60)
    days, hours = divmod(hours, 24)
    amounts = ((days, "d"), (hours, "h"), (minutes, "min"))
    first = next((i for i, (amount, _) in enumerate(amounts) if amount), len(amounts) - 1)
    parts = [f"{amount} {unit}" for amount, unit in amounts[first : first + 2] if amount]
    return " ".join(parts) or "0 min"
