"""What a version brought beyond people in a cell, by outcome with a value."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rollout.data.database.session import Database
from rollout.kernel.calendar.sites import Cell
from rollout.live.rollout_state import RolloutState

if TYPE_CHECKING:
    from rollout.features.reports.figures.methods import GainFacts
    from rollout.live.evidence.evidence_reader import EvidenceKey


@dataclass(frozen=True, slots=True)
class GainArm:
    """One arm: its units with a value, those without one, and the mean value."""

    units: int
    missing: int
    mean: float | None


@dataclass(frozen=True, slots=True)
class Gain:
    """What the model's arm brought beyond the people's arm, in the outcome's unit.

    Attributes:
        site, window, version: the cell and the version.
        outcome, unit: the outcome and the unit of its values.
        arm: `decides` or `proposes`, what the model did in its arm.
        gain: the difference, as better counts; None without units in both arms.
        lower, upper: its interval of 95 %, valid at every look.
        has_one_share: whether all units had the same chance to get to the model; if not, the gain
            is not the difference of the means.
        without_arm: units of the same stages that are in no arm: more than chance decided them.
        missing_reasons: units whose value is of no source of evidence, by reason: also missing.
        more_is_better: whether a higher value is better; if not, a gain is a lower mean.
    """

    site: str
    window: str
    version: str
    outcome: str
    unit: str
    arm: str
    gain: float | None
    lower: float
    upper: float
    has_one_share: bool
    model: GainArm
    people: GainArm
    without_arm: int
    missing_reasons: Mapping[str, int]
    more_is_better: bool


def load_gains(
    database: Database, state: RolloutState, keys: "Iterable[EvidenceKey]"
) -> "dict[EvidenceKey, tuple[Gain, ...]]":
    """Return the gains of cells and versions; empty for a policy without outcomes."""
    wanted_keys = {key for key in keys if key[0] in state.policy.cell_set}
    if not state.policy.outcomes or not wanted_keys:
        return {}
    # imported here: most policies have no outcomes, and lists of proposals need nothing else of it
    from rollout.features.reports.figures.methods import compute_view_gains
    from rollout.live.evidence.evidence_reader import load_evidence_views

    cells = sorted({cell for cell, _ in wanted_keys})
    views = load_evidence_views(database, state, cells)
    return {
        key: tuple(
            build_gain(facts)
            for outcome in state.policy.outcomes
            for facts in compute_view_gains(views[key], outcome)
        )
        for key in wanted_keys & views.keys()
    }


def load_cell_gains(database: Database, state: RolloutState, cell: Cell) -> tuple[Gain, ...]:
    """Return the gains of all versions in a cell, in order of first use."""
    keys = [(cell, version) for version in state.scope.versions]
    gains = load_gains(database, state, keys)
    return tuple(gain for key in keys for gain in gains.get(key, ()))


def build_gain(facts: "GainFacts") -> Gain:
    """Return a report's gain by arm."""
    return Gain(
        site=facts.site,
        window=facts.window,
        version=facts.version,
        outcome=facts.outcome,
        unit=facts.unit,
        arm=facts.arm,
        gain=facts.gain,
        lower=facts.lower,
        upper=facts.upper,
        has_one_share=facts.has_one_share,
        without_arm=facts.without_arm,
        missing_reasons=facts.missing_reasons,
        more_is_better=facts.more_is_better,
        model=GainArm(facts.model_units, facts.model_missing, facts.model_mean),
        people=GainArm(facts.human_units, facts.human_missing, facts.human_mean),
    )
