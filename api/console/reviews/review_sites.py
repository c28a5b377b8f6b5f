"""Review coverage: reviewers by site, and sites with too few."""

from collections.abc import Iterable
from dataclasses import dataclass

from rollout.core.policy.policy import Policy
from rollout.core.scope.permissions import REVIEWER
from rollout.services.access.users import UserAccount


@dataclass(frozen=True, slots=True)
class ReviewerSites:
    """A reviewer's sites; `everywhere` means all sites of the policy."""

    name: str
    everywhere: bool
    sites: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ReviewCoverage:
    """Reviewers of a rollout, and the sites without or with one reviewer.

    One reviewer is too few where two reviewers decide each case.
    """

    rollout: str
    sites: int
    reviewers: tuple[ReviewerSites, ...]
    unreviewed_sites: tuple[str, ...]
    single_reviewer_sites: tuple[str, ...]


def compute_review_coverage(
    users: Iterable[UserAccount], rollout: str, policy: Policy
) -> ReviewCoverage:
    """Return the review coverage of a rollout."""
    candidates = [
        _build_reviewer_sites(user_item, rollout, policy)
        for user_item in users
        if user_item.disabled_at is None
    ]
    reviewers = tuple(user_item for user_item in candidates if user_item.sites)
    counts = {
        site: sum(site in user_item.sites for user_item in reviewers) for site in policy.sites_by_id
    }
    return ReviewCoverage(
        rollout=rollout,
        sites=len(policy.sites_by_id),
        reviewers=reviewers,
        unreviewed_sites=tuple(site for site, count in counts.items() if count == 0),
        single_reviewer_sites=tuple(site for site, count in counts.items() if count == 1),
    )


def _build_reviewer_sites(user: UserAccount, rollout: str, policy: Policy) -> ReviewerSites:
    reviewer_roles = [assignment for assignment in user.rights if assignment.role == REVIEWER]
    sites = tuple(
        site
        for site in policy.sites_by_id
        if any(assignment.covers(rollout, site) for assignment in reviewer_roles)
    )
    return ReviewerSites(user.name, len(sites) == len(policy.sites_by_id), sites)
