"""Assignments that an offline client made, and whether the scope and the sampling value give them.

A claim is stored only if it is the answer that the service would have given. A wrong one would move
a case to the other arm of an experiment.
"""

from dataclasses import dataclass
from typing import Final

from rollout.core.scope.assignment import Assignment

SHARE_TOLERANCE: Final = 1e-9  # shares are sums and products of the policy's


@dataclass(frozen=True, slots=True)
class AssignmentClaim:
    """An answer that a client gave itself by its snapshot; the fields are as in `Assignment`."""

    decider: str
    exposure: str
    share: float
    revision: int

    @property
    def is_sampled(self) -> bool:
        """Return whether a sampling value decided; if not, the case is in no arm."""
        return self.share < 1


def find_claim_fault(claim: AssignmentClaim, expected: Assignment) -> str:
    """Return how a claim differs from the answer of its revision, or ""."""
    is_same_share = abs(claim.share - expected.share) < SHARE_TOLERANCE
    if is_same_share and (claim.decider, claim.exposure) == (expected.decider, expected.exposure):
        return ""
    return (
        f"the client says {_describe_answer(claim)}; revision {claim.revision} and the sampling"
        f" value give {_describe_answer(expected)}"
    )


def _describe_answer(answer: AssignmentClaim | Assignment) -> str:
    return f"{answer.decider} ({answer.exposure}, {answer.share * 100:.4g} % of units)"
