"""The stages of a ladder, and how each divides its units between the model and people."""

from dataclasses import dataclass
from datetime import timedelta

from rollout.core.policy.outcomes import DECIDES, PROPOSES

LOWEST_SHARE, HIGHEST_SHARE = 0.02, 0.98  # of the model's arm; beyond, one arm says too little
SHARED_STAGE = "{:g} % of cases, drawn at random; humans the rest"
"""What a version decides at a stage with a share, in percent."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage above shadow.

    With `audit` the model decides, without it a human confirms. A stage with `share` is one with
    the rest as its blind share: people decide it, and see nothing of the model.
    """

    id: str
    blind: float = 0.0
    audit: float | None = None
    lasts: timedelta = timedelta(days=90)
    share: float | None = None

    @property
    def model_decides(self) -> bool:
        """Return whether the model acts without a human's confirmation."""
        return self.audit is not None

    @property
    def reviewed_share(self) -> float:
        """Return the share of units that get a blind decision.

        Those are the units whose sampling value lies below it.
        """
        return self.blind + (1 - self.blind) * (self.audit or 0.0)

    @property
    def arm(self) -> str:
        """Return what the model does with the units of its arm."""
        return DECIDES if self.model_decides else PROPOSES

    @property
    def drawn_share(self) -> float:
        """Return the share of units drawn for the model to decide; 1 without `share`."""
        return 1.0 if self.share is None else self.share

    @property
    def model_share(self) -> float | None:
        """Return the probability of the model's arm; None if the stage has no two arms."""
        share = round(1 - self.blind, 12)
        return share if LOWEST_SHARE <= share <= HIGHEST_SHARE else None


def build_shared_stage(stage_id: str, share: float, audit: float | None, lasts: timedelta) -> Stage:
    """Return a stage at which the model decides a share of units, drawn at random."""
    return Stage(stage_id, round(1 - share, 12), audit or 0.0, lasts, share)
