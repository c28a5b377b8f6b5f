"""Whether enough people are there: one asks for a stop's end, and others approve it.

Nobody fills two places, so three operators are needed where a resume asks for two.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from rollout.core.calendar.sites import Cell
from rollout.core.policy.policy import Policy
from rollout.core.scope.permissions import OPERATOR, Caller
from rollout.core.scope.stops import TWO_OPERATORS

Groups = Mapping[str, Collection[str]]
"""By a person's name the groups in which they stand somewhere; `operator` is one."""

NOTHING_GRANTED = ""


@dataclass(frozen=True, slots=True)
class Staff:
    """Who stands in which groups: at each site, and at all sites at once."""

    at: Mapping[str, Groups]
    throughout: Groups


def staff_of(people: Iterable[Caller], rollout: str, sites: Sequence[str]) -> Staff:
    """Return who stands in which groups. Sites that no right names share one and the same value."""
    all_callers = tuple(people)
    callers_by_site = defaultdict(list)
    for caller in all_callers:
        for site in {assignment.site for assignment in caller.rights if assignment.site}:
            callers_by_site[site].append(caller)
    global_groups = groups_at(all_callers, rollout)
    groups_by_site = {
        s: {**global_groups, **groups_at(callers_by_site[s], rollout, (s,))}
        if s in callers_by_site
        else global_groups
        for s in sites
    }
    all_sites = set(sites)
    callers_at_all_sites = [
        c for c in all_callers if all_sites <= {assignment.site for assignment in c.rights}
    ]
    return Staff(
        groups_by_site, {**global_groups, **groups_at(callers_at_all_sites, rollout, tuple(sites))}
    )


def groups_at(people: Iterable[Caller], rollout: str, sites: tuple[str, ...] = ()) -> Groups:
    """Return in which groups people stand at all of some sites; () asks for all that there are.

    Whoever stands in none is left out.
    """
    groups_by_user = {caller.name: caller.person(rollout, sites).groups for caller in people}
    return {name: groups for name, groups in groups_by_user.items() if groups}


def unfilled(needs: Sequence[str], people: Groups) -> tuple[str, ...]:
    """Return the needs that stay open at best, one person for one of them.

    Operators are looked for last, so that where one of them would do it is one that is missing.

    >>> unfilled(("operator", "operator", "safety"), {"ana": ("operator", "safety"), "bo": ()})
    ('operator', 'operator')
    """
    needed_groups = sorted(needs, key=lambda group: group == OPERATOR)
    need_by_user: dict[str, int] = {}
    is_filled_list = [
        _fill(index, needed_groups, people, need_by_user, set())
        for index in range(len(needed_groups))
    ]
    return tuple(
        group for group, filled in zip(needed_groups, is_filled_list, strict=True) if not filled
    )


def _fill(
    place: int, wanted: Sequence[str], people: Groups, taken: dict[str, int], tried: set[str]
) -> bool:
    """Find somebody for a place, where need be by moving others; who has one keeps some place."""
    for name, groups in people.items():
        if wanted[place] in groups and name not in tried:
            tried.add(name)
            if name not in taken or _fill(taken[name], wanted, people, taken, tried):
                taken[name] = place
                return True
    return False


def resume_lacks(needs: Sequence[str], people: Groups) -> tuple[str, ...]:
    """Return whom a resume lacks, whoever asks for it; it takes an operator to ask.

    >>> resume_lacks(("operator", "operator"), {"ana": ("operator",), "bo": ("operator",)})
    ('operator',)
    """
    return unfilled((OPERATOR, *needs), people)


def without(people: Groups, name: str) -> Groups:
    """Return the people less one: whoever asks does not approve."""
    return {user: groups for user, groups in people.items() if user != name}


def askers(needs: Sequence[str], people: Groups) -> tuple[str, ...]:
    """Return by name the operators whose asking leaves enough others to approve."""
    operators = (name for name, groups in people.items() if OPERATOR in groups)
    return tuple(sorted(name for name in operators if not unfilled(needs, without(people, name))))


def resumes(policy: Policy, cells: Collection[Cell]) -> Mapping[tuple[str, ...], tuple[str, ...]]:
    """Return what a stop of some cells may ask to be taken back, and the stages that do.

    It asks the highest gate that comes back; two operators while nothing is granted.
    """
    stages_by_needs: dict[tuple[str, ...], list[str]] = {}
    for needs, stage in _asked(policy, cells):
        stages_by_needs.setdefault(tuple(sorted(needs)), []).append(stage)
    return {needs: tuple(stages) for needs, stages in stages_by_needs.items()}


def _asked(policy: Policy, cells: Collection[Cell]) -> Iterator[tuple[tuple[str, ...], str]]:
    yield TWO_OPERATORS, NOTHING_GRANTED
    for stage_level, stage in enumerate(policy.rungs[1:], start=1):
        needed_groups: Counter[str] = Counter()
        for gate in {id(g): g for g in (policy.gate(stage_level, c) for c in cells) if g}.values():
            needed_groups |= Counter(gate.approvals)
        if needed_groups:
            yield tuple(needed_groups.elements()), stage
