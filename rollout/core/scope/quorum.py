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
    everybody = tuple(people)
    named = defaultdict(list)
    for caller in everybody:
        for site in {right.site for right in caller.rights if right.site}:
            named[site].append(caller)
    whole = groups_at(everybody, rollout)
    at = {
        s: {**whole, **groups_at(named[s], rollout, (s,))} if s in named else whole for s in sites
    }
    wanted = set(sites)
    everywhere = [c for c in everybody if wanted <= {right.site for right in c.rights}]
    return Staff(at, {**whole, **groups_at(everywhere, rollout, tuple(sites))})


def groups_at(people: Iterable[Caller], rollout: str, sites: tuple[str, ...] = ()) -> Groups:
    """Return in which groups people stand at all of some sites; () asks for all that there are.

    Whoever stands in none is left out.
    """
    found = {caller.name: caller.person(rollout, sites).groups for caller in people}
    return {name: groups for name, groups in found.items() if groups}


def unfilled(needs: Sequence[str], people: Groups) -> tuple[str, ...]:
    """Return the needs that stay open at best, one person for one of them.

    Operators are looked for last, so that where one of them would do it is one that is missing.

    >>> unfilled(("operator", "operator", "safety"), {"ana": ("operator", "safety"), "bo": ()})
    ('operator', 'operator')
    """
    wanted = sorted(needs, key=lambda group: group == OPERATOR)
    taken: dict[str, int] = {}
    found = [_fill(place, wanted, people, taken, set()) for place in range(len(wanted))]
    return tuple(group for group, filled in zip(wanted, found, strict=True) if not filled)


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
    return {other: groups for other, groups in people.items() if other != name}


def askers(needs: Sequence[str], people: Groups) -> tuple[str, ...]:
    """Return by name the operators whose asking leaves enough others to approve."""
    able = (name for name, groups in people.items() if OPERATOR in groups)
    return tuple(sorted(name for name in able if not unfilled(needs, without(people, name))))


def resumes(policy: Policy, cells: Collection[Cell]) -> Mapping[tuple[str, ...], tuple[str, ...]]:
    """Return what a stop of some cells may ask to be taken back, and the stages that do.

    It asks the highest gate that comes back; two operators while nothing is granted.
    """
    found: dict[tuple[str, ...], list[str]] = {}
    for needs, stage in _asked(policy, cells):
        found.setdefault(tuple(sorted(needs)), []).append(stage)
    return {needs: tuple(stages) for needs, stages in found.items()}


def _asked(policy: Policy, cells: Collection[Cell]) -> Iterator[tuple[tuple[str, ...], str]]:
    yield TWO_OPERATORS, NOTHING_GRANTED
    for rung, stage in enumerate(policy.rungs[1:], start=1):
        asked: Counter[str] = Counter()
        for gate in {id(g): g for g in (policy.gate(rung, c) for c in cells) if g}.values():
            asked |= Counter(gate.approvals)
        if asked:
            yield tuple(asked.elements()), stage
