"""Counting rules: by which number records become evidence, and evidence becomes decisions.

A rollout begins on `CURRENT_RULES` and stays on its rules until users apply others
(`RulesApplied`), so an upgrade of the program changes no running rollout. Ledgers from before
numbers are on rules 1. Everything that a number changes is a function here:

- rules 2: a decision or outcome is evidence only from a source that the policy names, and no
  outcome for widening from the sender of the case's prediction; a gate's risk is
  bounded per cell and year, over all versions; operational guards
  on shares of records test them, and silence counts in a cell's own minutes.
"""

from typing import Final

FIRST_RULES: Final = 1
CURRENT_RULES: Final = 2


def distinguishes_sources(rules: int) -> bool:
    """Return whether records are evidence only from sources that the policy names."""
    return rules >= 2


def numbers_attempts_by_year(rules: int) -> bool:
    """Return whether a cell's attempts share each gate's risk over a year and all versions."""
    return rules >= 2


def has_guard_tests(rules: int) -> bool:
    """Return whether operational guards test shares, and silence against traffic."""
    return rules >= 2
