"""Whether enough users exist for the approvals of a stop's resume.

One user proposes and others approve; nobody fills two needs. So a resume with two needs takes three
operators.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from rollout.core.calendar.sites import Cell
from rollout.core.policy.policy import Policy
from rollout.core.scope.permissions import OPERATOR, Caller
from rollout.core.scope.stop_commands import TWO_OPERATORS

GroupsByUser = Mapping[str, Collection[str]]
"""Groups by user name; `operator` is one."""

NO_STAGE = ""


@dataclass(frozen=True, slots=True)
class GroupMembership:
    """Users' groups at each site, and at all sites at once."""

    by_site: Mapping[str, GroupsByUser]
    at_all_sites: GroupsByUser


def find_group_memberships(
    callers: Iterable[Caller], rollout: str, sites: Sequence[str]
) -> GroupMembership:
    """Return users' groups; sites without own roles share one value."""
    all_callers = tuple(callers)
    callers_by_site = defaultdict(list)
    for caller in all_callers:
        for site in {assignment.site for assignment in caller.role_assignments if assignment.site}:
            callers_by_site[site].append(caller)
    global_groups = find_groups(all_callers, rollout)
    groups_by_site = {
        s: {**global_groups, **find_groups(callers_by_site[s], rollout, (s,))}
        if s in callers_by_site
        else global_groups
        for s in sites
    }
    all_sites = set(sites)
    callers_at_all_sites = [
        c
        for c in all_callers
        if all_sites <= {assignment.site for assignment in c.role_assignments}
    ]
    return GroupMembership(
        groups_by_site,
        {**global_groups, **find_groups(callers_at_all_sites, rollout, tuple(sites))},
    )


def find_groups(
    callers: Iterable[Caller], rollout: str, sites: tuple[str, ...] = ()
) -> GroupsByUser:
    """Return users' groups at all of `sites`, without users in none.

    () means all sites that exist.
    """
    groups_by_user = {caller.name: caller.as_actor(rollout, sites).groups for caller in callers}
    return {name: groups for name, groups in groups_by_user.items() if groups}


def find_unfilled_needs(needs: Sequence[str], groups_by_user: GroupsByUser) -> tuple[str, ...]:
    """Return the needs that stay open, with one need per user.

    Needs of operators are filled last, so that the missing one is an operator if possible.

    >>> find_unfilled_needs(
    ...     ("operator", "operator", "safety"), {"ana": ("operator", "safety"), "bo": ()}
    ... )
    ('operator', 'operator')
    """
    needed_groups = sorted(needs, key=lambda group: group == OPERATOR)
    need_by_user: dict[str, int] = {}
    is_filled_list = [
        _assign_user(index, needed_groups, groups_by_user, need_by_user, set())
        for index in range(len(needed_groups))
    ]
    return tuple(
        group for group, filled in zip(needed_groups, is_filled_list, strict=True) if not filled
    )


def _assign_user(
    index: int,
    needed_groups: Sequence[str],
    groups_by_user: GroupsByUser,
    need_by_user: dict[str, int],
    tried_users: set[str],
) -> bool:
    """Fill a need, moving other users if necessary; return whether it worked."""
    for name, groups in groups_by_user.items():
        if needed_groups[index] in groups and name not in tried_users:
            tried_users.add(name)
            if name not in need_by_user or _assign_user(
                need_by_user[name], needed_groups, groups_by_user, need_by_user, tried_users
            ):
                need_by_user[name] = index
                return True
    return False


def find_missing_for_resume(needs: Sequence[str], groups_by_user: GroupsByUser) -> tuple[str, ...]:
    """Return the groups that a resume lacks, with an operator to propose it.

    >>> find_missing_for_resume(
    ...     ("operator", "operator"), {"ana": ("operator",), "bo": ("operator",)}
    ... )
    ('operator',)
    """
    return find_unfilled_needs((OPERATOR, *needs), groups_by_user)


def exclude_user(groups_by_user: GroupsByUser, name: str) -> GroupsByUser:
    """Return the users without one, as proposers can't approve."""
    return {user: groups for user, groups in groups_by_user.items() if user != name}


def find_eligible_requesters(needs: Sequence[str], groups_by_user: GroupsByUser) -> tuple[str, ...]:
    """Return the operators who leave enough others to approve, sorted."""
    operators = (name for name, groups in groups_by_user.items() if OPERATOR in groups)
    return tuple(
        sorted(
            name
            for name in operators
            if not find_unfilled_needs(needs, exclude_user(groups_by_user, name))
        )
    )


def list_resume_needs(
    policy: Policy, cells: Collection[Cell]
) -> Mapping[tuple[str, ...], tuple[str, ...]]:
    """Return the possible approvals of a resume and their stages.

    The needs are those of the highest gate that comes back; two operators while nothing is granted.
    """
    stages_by_needs: dict[tuple[str, ...], list[str]] = {}
    for needs, stage in _list_needs_by_stage(policy, cells):
        stages_by_needs.setdefault(tuple(sorted(needs)), []).append(stage)
    return {needs: tuple(stages) for needs, stages in stages_by_needs.items()}


def _list_needs_by_stage(
    policy: Policy, cells: Collection[Cell]
) -> Iterator[tuple[tuple[str, ...], str]]:
    yield TWO_OPERATORS, NO_STAGE
    for stage_level, stage in enumerate(policy.stage_ids[1:], start=1):
        needed_groups: Counter[str] = Counter()
        for gate in {
            id(g): g for g in (policy.find_gate(stage_level, c) for c in cells) if g
        }.values():
            needed_groups |= Counter(gate.approvals)
        if needed_groups:
            yield tuple(needed_groups.elements()), stage
