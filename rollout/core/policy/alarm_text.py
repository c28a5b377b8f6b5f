"""Alarms in words: what was counted, in the guard's own unit."""

from datetime import timedelta

from rollout.core.calendar.instants import format_duration
from rollout.core.policy.cell_evidence import GuardReading
from rollout.core.policy.outcomes import GainCondition
from rollout.core.policy.policy import Guard


def describe_alarm(guard: Guard, reading: GuardReading, tick: timedelta) -> str:
    """Return the guard's condition and what was counted against it.

    The value of `heartbeat` is in ticks, that of `gain` in millionths of the outcome's range.

    >>> from rollout.core.policy.measures import Condition
    >>> failures = Guard(Condition("failures", 0.02, at_least=False), "suspend")
    >>> describe_alarm(failures, GuardReading(is_alarm=True, value="3", records=4), timedelta(0))
    'failures at most 2 %: 3 of 4 answers failed'
    """
    if guard.condition.measure == "heartbeat":
        return f"{guard.condition}: no heartbeat for {format_duration(int(reading.value) * tick)}"
    if isinstance(guard.condition, GainCondition):
        outcome = guard.condition.outcome
        amount = outcome.format_amount(int(reading.value) * 1e-6 * outcome.span)
        return f"{guard.condition}: {amount} a unit so far, over {reading.records} units"
    return f"{guard.condition}: {reading.value} of {reading.records} {_describe_unit(guard)}"


def _describe_unit(guard: Guard) -> str:
    match guard.condition.measure:
        case "latency_p95":
            return f"answers slower than {guard.condition.threshold_text}"
        case "failures":
            return "answers failed"
        case "missing":
            return "units closed without a decision"
        case "unaudited":
            return "audits overdue"
        case _:
            return "records against it"
