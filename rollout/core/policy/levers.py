"""Levers: what is decided, the action that each answer leads to, and what a wrong one costs."""

from dataclasses import dataclass
from datetime import timedelta

SLACK = 1e-9  # of the number: decimal fractions are not exact in binary


@dataclass(frozen=True, slots=True)
class Margin:
    """A distance between two numbers: plain, or a share of the person's number."""

    amount: float
    relative: bool = False

    def at(self, number: float) -> float:
        """Return the distance in the lever's unit where the person said `number`.

        A hair more than written, so that 10.05 lies within 0.05 of 10 in binary too.
        """
        return (self.amount * abs(number) if self.relative else self.amount) + SLACK * abs(number)


@dataclass(frozen=True, slots=True)
class Cost:
    """One row of a lever's costs. For labels `did` and `right` are actions, None is any."""

    cost: float
    did: str | None = None
    right: str | None = None
    under: Margin | None = None
    over: Margin | None = None
    off: Margin | None = None


@dataclass(frozen=True, slots=True)
class Number:
    """A lever whose answer is a number: its unit, its range and what counts as agreement."""

    unit: str
    low: float
    high: float
    tolerance: Margin


@dataclass(frozen=True, slots=True)
class Lever:
    """What is decided: labels with the action that each leads to, or a number."""

    id: str
    labels: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()  # one per label, in the labels' order
    number: Number | None = None
    costs: tuple[Cost, ...] = (Cost(cost=1.0),)
    answer_within: timedelta | None = None
    unanswered: str | None = None

    def action(self, label: str) -> str | None:
        """Return the action that `label` leads to, None for a label that is not the lever's."""
        return self.actions[self.labels.index(label)] if label in self.labels else None

    def cost(self, did: str, right: str) -> float:
        """Return the cost of doing action `did` where `right` was right; the same action costs 0.

        The first row that fits counts. Without one the cost is the largest: a loaded policy
        has a row for each pair, so this happens only for a label outside the lever's.
        """
        if did == right:
            return 0.0
        rules = (
            candidate
            for candidate in self.costs
            if candidate.did in (None, did) and candidate.right in (None, right)
        )
        rule = next(rules, None)
        return self.largest_cost if rule is None else rule.cost

    def cost_of_number(self, model: float, person: float) -> float:
        """Return the cost of the model's number against the person's, in the charter's unit."""
        assert self.number is not None  # noqa: S101 - a label lever has no numbers to compare
        gap = model - person
        if abs(gap) <= self.number.tolerance.at(person):
            return 0.0
        return next((rule.cost for rule in self.costs if _applies(rule, gap, person)), 0.0)

    @property
    def largest_cost(self) -> float:
        """Return the highest cost that one wrong answer of this lever can have."""
        return max((c.cost for c in self.costs), default=0.0)

    @property
    def cost_levels(self) -> tuple[float, ...]:
        """Return the distinct costs, 0 included, ascending."""
        return tuple(sorted({0.0, *(c.cost for c in self.costs)}))


def _applies(row: Cost, gap: float, person: float) -> bool:
    exceeded = (
        row.under is not None and -gap > row.under.at(person),
        row.over is not None and gap > row.over.at(person),
        row.off is not None and abs(gap) > row.off.at(person),
    )
    return any(exceeded) or (row.under is row.over is row.off is None)
