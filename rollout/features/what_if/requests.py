"""Requests to compare a draft with the policy in force, and who may make them.

Whoever may be asked for blind reviews gets no comparison: a draft can be cut to single out a case.
What replays both policies is imported when a request is checked: it loads frames.
"""

from dataclasses import dataclass
from typing import Final

from rollout.engine.decide.permissions import (
    Caller,
    Permission,
    may_be_asked_blind,
    require_permission,
)
from rollout.kernel.errors import RefusalError
from rollout.kernel.policy.policy import Policy
from rollout.kernel.policy_files.reader import parse_policy
from rollout.live.rollout_state import RolloutState

SPANS: Final = (30, 90)  # days


@dataclass(frozen=True, slots=True)
class WhatIfRequest:
    """A draft of a rollout's policy, and the number of recorded days it is compared over."""

    rollout: str
    draft_text: str
    days: int = SPANS[0]


def check_request(caller: Caller, state: RolloutState, request: WhatIfRequest) -> Policy:
    """Return the draft of a request that can be run.

    Raises:
        NotAllowedError: the caller may not read every site of the rollout.
        InvalidPolicyError: the draft is not valid.
        RefusalError: the span or the draft is not one that can be compared, or the caller may be
            asked for blind reviews.
    """
    from rollout.features.what_if.replayed_policy import check_comparable

    require_permission(caller, Permission.READ, request.rollout, tuple(state.policy.sites_by_id))
    if request.days not in SPANS:
        days = " or ".join(map(str, SPANS))
        raise RefusalError(f"{request.days} days are no span of a comparison; write {days}")
    draft = parse_policy(request.draft_text)
    if draft.rollout != request.rollout:
        raise RefusalError(
            f"the draft is of {draft.rollout}, not of {request.rollout}; write its name in it"
        )
    if may_be_asked_blind(caller, request.rollout, ()):
        raise RefusalError(
            "because you may be asked for blind reviews here, a draft of yours could single out a"
            " case; let a user without reviews run it"
        )
    check_comparable(state.policy, draft)
    return draft
