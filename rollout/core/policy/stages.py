"""The stages of a ladder, and how each divides its units between the model and people."""

from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple

from rollout.core.policy.outcomes import DECIDES, PROPOSES

LOWEST_SHARE, HIGHEST_SHARE = 0.02, 0.98  # of the model's arm; beyond, one arm says too little
MAX_AUDIT_RATIO = 10  # of the highest audit share to the least; beyond, one error decides a gate


class UnsureShare(NamedTuple):
    """The audit share of cases whose confidence lies below a threshold."""

    confidence: float
    share: float


class AuditRule(NamedTuple):
    """The audit shares of a stage; `unsure` ascend by confidence, and their shares descend."""

    least: float
    unsure: tuple[UnsureShare, ...] = ()


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage above shadow.

    With `audit` the model decides, without it a human confirms. A stage with `share` is one with
    the rest as its blind share: people decide it, and see nothing of the model. `audit` is the
    least audit share; below the confidences of `unsure` larger ones hold.
    """

    id: str
    blind: float = 0.0
    audit: float | None = None
    lasts: timedelta = timedelta(days=90)
    share: float | None = None
    unsure: tuple[UnsureShare, ...] = ()

    @property
    def model_decides(self) -> bool:
        """Return whether the model acts without a human's confirmation."""
        return self.audit is not None

    @property
    def reviewed_share(self) -> float:
        """Return the share of units that get a blind decision, whatever the confidence.

        Those are the units whose sampling value lies below it.
        """
        return self._add_blind(self.audit or 0.0)

    @property
    def reviewed_shares(self) -> tuple[float, ...]:
        """Return that share by confidence, from the least sure cases on."""
        return (*(self._add_blind(row.share) for row in self.unsure), self.reviewed_share)

    def _add_blind(self, audit: float) -> float:
        return self.blind + (1 - self.blind) * audit

    def find_reviewed_share(self, confidence: float | None) -> float:
        """Return the share of units with such a confidence that get a blind decision.

        Without a confidence in [0, 1] it is the highest.

        >>> stage = Stage("s", audit=0.05, unsure=(UnsureShare(0.9, 0.5),))
        >>> [stage.find_reviewed_share(confidence) for confidence in (0.9, 0.89, None, 1.1)]
        [0.05, 0.5, 0.5, 0.5]
        """
        return self.reviewed_shares[self.find_audit_band(confidence)]

    def find_audit_share(self, confidence: float | None) -> float:
        """Return the share of the model's cases with such a confidence that are audited."""
        shares = (*(row.share for row in self.unsure), self.audit or 0.0)
        return shares[self.find_audit_band(confidence)]

    def find_audit_band(self, confidence: float | None) -> int:
        """Return the place of a confidence's share in `reviewed_shares`."""
        if confidence is None or not 0 <= confidence <= 1:
            return 0
        return sum(row.confidence <= confidence for row in self.unsure)

    def describe_unsure(self) -> str:
        """Describe the larger shares of unsure cases, to stand after the least; "" without any.

        >>> Stage("s", audit=0.05, unsure=(UnsureShare(0.9, 0.5),)).describe_unsure()
        ' (50 % below confidence 0.9)'
        """
        rows = (f"{row.share * 100:g} % below confidence {row.confidence:g}" for row in self.unsure)
        return f" ({', '.join(rows)})" if self.unsure else ""

    @property
    def arm(self) -> str:
        """Return what the model does with the units of its arm."""
        return DECIDES if self.model_decides else PROPOSES

    @property
    def model_share(self) -> float | None:
        """Return the probability of the model's arm; None if the stage has no two arms."""
        share = round(1 - self.blind, 12)
        return share if LOWEST_SHARE <= share <= HIGHEST_SHARE else None


def build_shared_stage(
    stage_id: str, share: float, audit: AuditRule | None, lasts: timedelta
) -> Stage:
    """Return a stage at which the model decides a share of units, drawn at random."""
    rule = audit or AuditRule(0.0)
    return Stage(stage_id, round(1 - share, 12), rule.least, lasts, share, rule.unsure)
