"""What speaks against a widening at its moment: answers that are stored and don't count yet.

A gate reads units after their grace. Whoever approves in between would not hear that a version
turned bad yesterday. So the units inside their grace whose answer is known are read beside those
that count; of them, such as can no longer count for the version are missing.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from math import comb
from typing import Final, NamedTuple

from rollout.kernel.calendar.sites import Cell
from rollout.kernel.facts import ALARM, NEWEST, TURNED, UNPLACED, FreshFact
from rollout.kernel.measures import Condition, MeasureKey
from rollout.kernel.policy.cell_evidence import EvidenceCounts, expand_conditions
from rollout.kernel.policy.gates import get_condition_counts, read_condition
from rollout.kernel.policy.policy import Policy

NEWEST_SIZES: Final = (20, 50, 100)
NEWEST_LEVEL: Final = 0.05
"""A cell at the gate's line has so few agreements among its newest answers less often than this."""


class UnplacedDecisions(NamedTuple):
    """Decisions whose case and site nobody knows, among all: of seven days, or of a file."""

    unplaced: int = 0
    decided: int = 0


NO_UNPLACED: Final = UnplacedDecisions()


@dataclass(frozen=True, slots=True)
class FreshEvidence:
    """Evidence of one version in a cell with the units inside their grace whose answer is known.

    Attributes:
        fresh: counts of these units alone.
        attempt: all counts of the attempt, with them.
        newest: per share condition (agreements, answers) among the newest 20, 50 and 100 answers,
            as far as there are so many.
        alarms: conditions of guards that are in alarm now if they are run over the attempt.
        unplaced: decisions of the rollout that belong to no cell.
        floors: the same at each confidence floor, lowest first; () without several.
    """

    fresh: EvidenceCounts
    attempt: EvidenceCounts
    newest: Mapping[MeasureKey, tuple[tuple[int, int], ...]] = field(default_factory=dict)
    alarms: tuple[Condition, ...] = ()
    unplaced: UnplacedDecisions = NO_UNPLACED
    floors: tuple["FreshEvidence", ...] = ()

    def get_floor(self, floor_index: int) -> "FreshEvidence":
        """Return the evidence at a confidence floor, by its place in the policy's list."""
        return self.floors[floor_index] if self.floors else self


def list_fresh_facts(
    policy: Policy, cell: Cell, stage_level: int, evidence: FreshEvidence
) -> tuple[FreshFact, ...]:
    """Return what holds the widening of a cell to a stage now, () if nothing does."""
    return tuple(_find_fresh_facts(policy, cell, stage_level, evidence))


def _find_fresh_facts(
    policy: Policy, cell: Cell, stage_level: int, evidence: FreshEvidence
) -> Iterator[FreshFact]:
    for condition in policy.list_conditions(stage_level, cell):
        if condition.population.sums_units:
            yield from _find_turned(policy, condition, evidence.attempt)
            yield from _find_rare(condition, evidence.newest.get(condition.key, ()))
    yield from (FreshFact(ALARM, condition) for condition in evidence.alarms)
    unplaced, decided = evidence.unplaced
    if unplaced > policy.evidence.missing_at_most * decided:
        yield FreshFact(UNPLACED, None, unplaced, decided)


def _find_turned(
    policy: Policy, condition: Condition, counts: EvidenceCounts
) -> Iterator[FreshFact]:
    for part in expand_conditions((condition,), counts.slices):
        values = get_condition_counts(part, counts, policy)
        if read_condition(part, values, 1.0, policy).has_turned:
            yield FreshFact(TURNED, part, values[0], sum(values))


def _find_rare(condition: Condition, newest: tuple[tuple[int, int], ...]) -> Iterator[FreshFact]:
    """Yield the largest number of newest answers that agree too seldom."""
    for agreed, size in reversed(newest):
        if agreed < find_least_agreements(size, condition.share):
            yield FreshFact(NEWEST, condition, agreed, size)
            return


@cache
def find_least_agreements(size: int, line: float) -> int:
    """Return the fewest agreements that a cell at the line has in 5 % of its newest answers.

    >>> find_least_agreements(20, 0.95), find_least_agreements(100, 0.9)
    (17, 85)
    """
    below, agreed = 0.0, 0
    while True:
        below += comb(size, agreed) * line**agreed * (1 - line) ** (size - agreed)
        if below >= NEWEST_LEVEL:
            return agreed
        agreed += 1
