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
    found = [_reviewing(one, rollout, policy) for one in members if one.disabled_at is None]
    reviewers = tuple(one for one in found if one.sites)
    counts = {site: sum(site in one.sites for one in reviewers) for site in policy.site}
    return Where(
        rollout=rollout,
        sites=len(policy.site),
        reviewers=reviewers,
        nobody=tuple(site for site, n in counts.items() if n == 0),
        alone=tuple(site for site, n in counts.items() if n == 1),
    )


def _reviewing(member: Member, rollout: str, policy: Policy) -> Reviewing:
    held = [right for right in member.rights if right.role == REVIEWER]
    sites = tuple(s for s in policy.site if any(right.reaches(rollout, s) for right in held))
    return Reviewing(member.name, len(sites) == len(policy.site), sites)
