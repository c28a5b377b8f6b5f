"""Measures of gates and guards, and how each counts a unit.

A `UnitClass` holds the prediction, up to two human decisions and the cost level of their
difference. Share measures count it as success or failure, cost takes the level; measures of time
don't use it.
"""

from dataclasses import dataclass

from rollout.kernel.units import SILENT, UnitClass

DETECTOR_MEASURES = frozenset(
    {"agreement", "recall", "precision", "cost", "override", "action_change"}
)
COUNTED_MEASURES = DETECTOR_MEASURES | {"drift", "gain"}  # false alarms are counted by units
OPERATIONAL_MEASURES = frozenset({"latency_p95", "failures", "heartbeat", "missing"})
SITE_MEASURES = frozenset({"latency_p95", "failures"})  # one device and one network per site
TESTED_MEASURES = SITE_MEASURES | {"missing", "unaudited"}  # shares of records, by a test
TIMED_MEASURES = TESTED_MEASURES | {"heartbeat"}  # false alarms are counted by time
NARROWING_EFFECTS = frozenset({"one-stage", "shadow"})


@dataclass(frozen=True, slots=True)
class Condition:
    """A measure with its threshold `line`, in the measure's unit.

    The unit is a share, a cost, a count or seconds.
    """

    measure: str
    line: float
    at_least: bool
    label: str | None = None
    lever: str | None = None
    action: str | None = None

    @property
    def key(self) -> tuple[str, str | None, str | None]:
        """Return what is measured, without the threshold.

        Label and action share a place: no measure has both.
        """
        return (self.measure, self.label or self.action, self.lever)

    @property
    def question(self) -> tuple[str | None, ...]:
        """Return what is asked: another one starts evidence anew, another threshold doesn't."""
        return self.key

    def __str__(self) -> str:
        """Return the condition as text.

        >>> str(Condition("recall", 0.8, at_least=True, label="bear"))
        'recall of bear at least 80 %'
        """
        subject = self.label or self.action or ("decisions" if self.measure == "drift" else "")
        lever = f" ({self.lever})" if self.lever else ""
        bound = "at least" if self.at_least else "at most"
        return (
            f"{self.measure}{f' of {subject}' if subject else ''}{lever} {bound}"
            f" {self.threshold_text}"
        )

    @property
    def threshold_text(self) -> str:
        """Return the threshold with its unit."""
        if self.measure in {"cost", "harm", "action_change"}:
            return f"{self.line:g}"
        if self.measure in {"heartbeat", "latency_p95"}:
            return f"{self.line:g} s"
        return f"{self.line * 100:g} %"


def is_success(condition: Condition, unit_class: UnitClass) -> bool | None:
    """Return whether a unit is a success; None if excluded.

    Missing units are failures, so that silence never widens a cell; only those without a decision
    are excluded from recall, since nobody knows their label.
    """
    match condition.measure:
        case "recall":
            return unit_class.agrees if unit_class.decided == condition.label else None
        case "precision":
            counts = unit_class.predicted == condition.label or unit_class.predicted in SILENT
            return unit_class.agrees if counts else None
        case _:
            return unit_class.agrees
