"""Records a day as days; days, lines and lists of cells as people say them."""

from datetime import timedelta
from math import inf

from rollout.core.measures import Condition
from rollout.core.places import Cell
from rollout.core.policy import duration_text

YEAR, MONTH = 365.0, 30.0


def product(*factors: float | None) -> float | None:
    """Multiply rates and shares; None as soon as nobody said one of them."""
    result = 1.0
    for factor in factors:
        if factor is None:
            return None
        result *= factor
    return result


def days_for(records: float, per_day: float | None) -> float | None:
    """Return the days until so many records came."""
    if records <= 0:
        return 0.0
    if per_day is None:
        return None
    return records / per_day if per_day > 0 else inf


def days_text(days: float) -> str:
    """Say a span as people do.

    >>> days_text(0.2), days_text(3), days_text(98), days_text(900)
    ('5 hours', '3 days', '14 weeks', '2.5 years')
    """
    if days == inf:
        return "never"
    if days < 2:
        hours = max(1, round(days * 24))
        return f"{hours} hour{'s' if hours > 1 else ''}"
    if days < 21:
        return f"{days:.0f} days"
    return f"{days / 7:.0f} weeks" if days < YEAR else f"{days / YEAR:.1f} years"


def condition_text(condition: Condition) -> str:
    """Say a condition, a span of time in its own unit.

    >>> condition_text(Condition("heartbeat", 7200.0, at_least=False))
    'heartbeat at most 2h'
    """
    if condition.measure not in {"heartbeat", "latency_p95"}:
        return str(condition)
    text = duration_text(timedelta(seconds=condition.line))
    return str(condition).replace(condition.line_text, text)


def listed(cells: tuple[Cell, ...]) -> str:
    """Name the first cells and count the others."""
    more = f" and {len(cells) - 3} more" if len(cells) > 3 else ""
    return ", ".join(str(cell) for cell in cells[:3]) + more
