"""What gates and guards look at, and what each takes from a tally.

A tally row says how many units fell into one class: what the model said (`predicted`), what the
person said (`decided`), what a second blind person said (`second`), and at which of the policy's
cost levels the difference stands. Share measures take (successes, failures) from it, cost takes
the level, parity takes one of four classes, spans take nothing: they are read off the clock.
"""

from dataclasses import dataclass

WHOLE = "*"  # the row that stands for all levers together, where there are several
AGREE, DIFFER = "agree", "differ"  # what `predicted` says in such a row, and for numbers
MISSING = ""  # `decided` of a unit without a blind verdict
FAILED, LATE, OUTSIDE = "(failed)", "(late)", "(outside)"  # `predicted` where no label was usable

DETECTED = frozenset({"agreement", "recall", "precision", "cost", "override", "action_change"})
OPERATIONAL = frozenset({"latency_p95", "failures", "heartbeat", "missing"})


@dataclass(frozen=True, slots=True)
class Condition:
    """A measure with its line: a share, a cost, a count or seconds, as the measure has it."""

    measure: str
    line: float
    at_least: bool
    label: str | None = None
    lever: str | None = None
    action: str | None = None

    @property
    def key(self) -> tuple[str, str | None, str | None]:
        """Return what is measured, without the line: label and action never stand together."""
        return (self.measure, self.label or self.action, self.lever)

    def __str__(self) -> str:
        """Return the condition as people read it.

        >>> str(Condition("recall", 0.8, at_least=True, label="bear"))
        'recall of bear at least 80 %'
        """
        subject = self.label or self.action
        lever = f" ({self.lever})" if self.lever else ""
        bound = "at least" if self.at_least else "at most"
        return (
            f"{self.measure}{f' of {subject}' if subject else ''}{lever} {bound} {self.line_text}"
        )

    @property
    def line_text(self) -> str:
        """Return the line in its own unit: per cent, seconds, or plain."""
        if self.measure in {"cost", "harm", "action_change"}:
            return f"{self.line:g}"
        if self.measure in {"heartbeat", "latency_p95"}:
            return f"{self.line:g} s"
        return f"{self.line * 100:g} %"


@dataclass(frozen=True, slots=True)
class Kind:
    """The class of a unit in a tally: everything that a measure may look at."""

    lever: str
    predicted: str
    decided: str
    second: str = ""
    level: int = 0

    @property
    def agrees(self) -> bool:
        """Say whether model and person said the same; a missing verdict never agrees."""
        return self.decided != MISSING and self.predicted == self.decided


def success(condition: Condition, kind: Kind) -> bool | None:
    """Return whether a unit counts for (True) or against (False) a share measure of a gate.

    None leaves it out: a unit of another class, or for recall one without a verdict. Without a
    verdict agreement and precision take a disagreement (model.md §3): no data never widens.
    """
    match condition.measure:
        case "recall":
            return kind.agrees if kind.decided == condition.label else None
        case "precision":
            return kind.agrees if kind.predicted == condition.label else None
        case _:
            return kind.agrees


def parity_class(kind: Kind) -> int | None:
    """Return 0 both, 1 lone, 2 split, 3 none for a unit with two verdicts, None for others.

    Both people agree with the model; both stand against it together; they split and it sides
    with one; all three differ (statistics.md §14).
    """
    if MISSING in (kind.decided, kind.second):
        return None
    if kind.decided == kind.second:
        return 0 if kind.predicted == kind.decided else 1
    return 2 if kind.predicted in (kind.decided, kind.second) else 3
