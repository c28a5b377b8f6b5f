"""Who reviews where: the reviewers of a rollout with their sites, and the sites that have none."""

from collections.abc import Iterable
from dataclasses import dataclass

from rollout.core.policy.policy import Policy
from rollout.core.scope.permissions import REVIEWER
from rollout.services.access.users import Member


@dataclass(frozen=True, slots=True)
class Reviewing:
    """A reviewer and where: `everywhere`, or at some sites of the policy."""

    name: str
    everywhere: bool
    sites: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Where:
    """A rollout's reviewers; `nobody` names the sites that none of them reviews at.

    `alone` names those at which only one does: too few where a case is read twice.
    """

    rollout: str
    sites: int
    reviewers: tuple[Reviewing, ...]
    nobody: tuple[str, ...]
    alone: tuple[str, ...]


def where(members: Iterable[Member], rollout: str, policy: Policy) -> Where:
    """Return who reviews where in a rollout."""
    candidates = [
        _reviewing(user_item, rollout, policy)
        for user_item in members
        if user_item.disabled_at is None
    ]
    reviewers = tuple(user_item for user_item in candidates if user_item.sites)
    counts = {site: sum(site in user_item.sites for user_item in reviewers) for site in policy.site}
    return Where(
        rollout=rollout,
        sites=len(policy.site),
        reviewers=reviewers,
        nobody=tuple(site for site, count in counts.items() if count == 0),
        alone=tuple(site for site, count in counts.items() if count == 1),
    )


def _reviewing(member: Member, rollout: str, policy: Policy) -> Reviewing:
    reviewer_roles = [assignment for assignment in member.rights if assignment.role == REVIEWER]
    sites = tuple(
        site
        for site in policy.site
        if any(assignment.reaches(rollout, site) for assignment in reviewer_roles)
    )
    return Reviewing(member.name, len(sites) == len(policy.site), sites)
