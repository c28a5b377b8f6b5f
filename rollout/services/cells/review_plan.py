"""The review plan of a running rollout: where the next reviews help most."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from rollout.core.errors import RefusalError
from rollout.core.scope.permissions import (
    Caller,
    Permission,
    may_be_asked_blind,
    require_permission,
)
from rollout.reports.figures.review_plan import ReviewPlan, compute_review_plan
from rollout.services.engine.service import Service

MAX_PLANNED_CELLS: Final = 100
"""Simulating a condition takes 20 to 400 ms, unless its counts are as before."""

MAX_NAMED_SITES: Final = 5


class TooManyCellsError(RefusalError):
    """A plan has more cells than one request may simulate."""


@dataclass(frozen=True, slots=True)
class LiveReviewPlan:
    """A review plan with the ledger's revision that it is of.

    `is_batched` says that evidence of some site moves in batches, since the reader may be asked for
    a blind review there.
    """

    rollout: str
    revision: int
    is_batched: bool
    plan: ReviewPlan


def load_review_plan(
    service: Service,
    caller: Caller,
    rollout_name: str,
    *,
    at: datetime,
    decisions: int,
    site: str | None = None,
) -> LiveReviewPlan:
    """Return where the next decisions help most, of the cells whose sites the caller may read.

    Where the caller may be asked for blind reviews, evidence moves in whole batches. The present
    rate is that of the two weeks before.

    Args:
        site: plan the cells of this site alone.

    Raises:
        NotAllowedError: the caller may not read the site, or any.
        RefusalError: the policy has no such site.
        TooManyCellsError: there are more cells than a request plans.
    """
    from rollout.services.cells.cells import (
        batch_evidence,
        build_current_period,
        build_evidence_inputs,
    )
    from rollout.services.engine.evidence_reader import load_events, load_evidence_views

    require_permission(caller, Permission.READ, rollout_name, () if site is None else (site,))
    cached_rollout = service.state_cache.reload_rollout(rollout_name)
    state = cached_rollout.state
    if site is not None and site not in state.policy.sites_by_id:
        examples = ", ".join(list(state.policy.sites_by_id)[:MAX_NAMED_SITES])
        raise RefusalError(f"the policy has no site {site}: name one of its sites, as {examples}")
    cells = [
        cell
        for cell in state.policy.cells
        if site in {None, cell.site}
        and caller.has_permission(Permission.READ, rollout_name, cell.site)
    ]
    if len(cells) > MAX_PLANNED_CELLS:
        raise TooManyCellsError(
            f"{len(cells):,} cells, and one plan has at most {MAX_PLANNED_CELLS}: name a `site`"
        )
    views = batch_evidence(
        load_evidence_views(service.database, state, cells), caller, rollout_name
    )
    inputs = build_evidence_inputs(state, load_events(service.database, state), views, at)
    periods = {
        key: (build_current_period(key, state, inputs.last),) for key in inputs.evidence_views
    }
    sites = tuple({cell.site for cell in cells})
    return LiveReviewPlan(
        rollout_name,
        cached_rollout.head.revision,
        bool(sites) and may_be_asked_blind(caller, rollout_name, sites),
        compute_review_plan(inputs, periods, decisions),
    )
