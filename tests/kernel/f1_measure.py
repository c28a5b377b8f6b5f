"""A measure more, as somebody would add it: `tests/kernel/test_measures.py` puts it into a copy."""

from rollout.kernel.measures.base import Expectation, Shares
from rollout.kernel.measures.measure_kinds import LabelMeasure
from rollout.kernel.units import SILENT, UnitClass


class F1(LabelMeasure):
    """Twice the units with a label on both sides, of all that either side gave it to.

    A share s of both among either is an F1 of 2s / (1 + s).
    """

    name = "f1"
    definition = "the harmonic mean of recall and precision of the label"
    against = "units were {subject} for one side alone"

    def is_success(self, unit: UnitClass, label: str, *, many: bool) -> bool | None:  # noqa: ARG002
        """Return whether both sides gave the label; None if neither did."""
        if unit.predicted in SILENT:
            return False
        return unit.agrees if label in {unit.predicted, unit.decided} else None

    def to_share(self, threshold: Shares) -> Shares:
        """Return the share of units with the label on both sides."""
        return threshold / (2 - threshold)

    def from_share(self, share: Shares) -> Shares:
        """Return the F1."""
        return 2 * share / (1 + share)

    def expect(self, agreement: float | None, label_share: float | None) -> Expectation:
        """Return what recall and precision as high as agreement give."""
        if agreement is None:
            return Expectation(label_share, None)
        either = None if label_share is None else label_share * (2 - agreement)
        return Expectation(either, self.to_share(agreement))
