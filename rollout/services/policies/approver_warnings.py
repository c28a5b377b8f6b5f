"""What a policy asks of people, and there are too few of them: said before it is an incident."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from rollout.core.calendar.sites import Cell
from rollout.core.policy.policy import Gate, Policy
from rollout.core.policy.policy_warnings import PolicyWarning
from rollout.core.scope.permissions import OPERATOR
from rollout.core.scope.quorum import NOTHING_GRANTED, Groups, Staff, resume_lacks, resumes
from rollout.reports.text.formatting import several
from rollout.services.proposals.eligible_approvers import at_text, giving, needs_text

Warned = Iterator[PolicyWarning]
EVERY = " at every site"


@dataclass(frozen=True, slots=True)
class _Stays:
    """A resume that nobody could bring about: which one, whom it lacks, whether less would do.

    Attributes:
        needs: the approvals that it asks.
        stages: that come back with it, `NOTHING_GRANTED` while none does; () for whatever does.
        lacks: whom to add.
        lower: whether it would do with fewer of the approvals.
    """

    needs: tuple[str, ...]
    stages: tuple[str, ...]
    lacks: tuple[str, ...]
    lower: bool


def people_warnings(policy: Policy, staff: Staff | None) -> tuple[PolicyWarning, ...]:
    """Return what a policy asks of people that those who are here can't do, in a fixed order.

    Args:
        policy: a loaded policy.
        staff: who stands where at its sites; None where people aren't known yet.
    """
    if staff is None:
        return ()
    if not any(staff.at.values()):
        return (_nobody(policy),)
    return (*_empty_groups(policy, staff), *_stops_that_stay(policy, staff))


def _nobody(policy: Policy) -> PolicyWarning:
    """Say all at once of a rollout to which nobody has come yet, as of each one that is new."""
    everything: Counter[str] = Counter()
    for needs in resumes(policy, policy.cells):
        everything |= Counter((OPERATOR, *needs))
    step = giving(tuple(everything.elements()), more="")
    says = f"nobody may approve here yet, so nothing widens and a stop would stay; {step}"
    return PolicyWarning("people", says)


def _empty_groups(policy: Policy, staff: Staff) -> Warned:
    sites_of = _sites_of_gates(policy)
    for i, gate in enumerate(policy.gates):
        sites = sites_of[id(gate)]
        for group in dict.fromkeys(gate.approvals):
            none = [s for s in sites if not any(group in g for g in staff.at[s].values())]
            if none:
                yield PolicyWarning(f"gates[{i}]", _never_opens(gate, group, none, sites))


def _sites_of_gates(policy: Policy) -> Mapping[int, Collection[str]]:
    """Return by a gate's identity the sites of the cells that it leads."""
    led: dict[int, dict[str, None]] = {id(gate): {} for gate in policy.gates}
    for cell in policy.cells:
        for rung in range(1, len(policy.rungs)):
            if (gate := policy.gate(rung, cell)) is not None:
                led[id(gate)][cell.site] = None
    return led


def _never_opens(gate: Gate, group: str, none: Sequence[str], sites: Collection[str]) -> str:
    where, there = ("", "") if len(none) == len(sites) else (at_text(none), " there")
    return f"nobody is in the group {group}{where}, so the gate to {gate.to} never opens{there}"


def _stops_that_stay(policy: Policy, staff: Staff) -> Warned:
    """Warn of stops of a site that nobody could take back; else of a stop of all sites at once.

    Whoever operates every site stops them all at once, and a resume of that asks people who stand
    at each of them.
    """
    stays = _by_site(policy, staff)
    for stay, sites in stays.items():
        where = "" if len(sites) == len(policy.sites) else at_text(sites)
        yield PolicyWarning("stops", _says(stay, where, where))
    all_at_once = any(OPERATOR in groups for groups in staff.throughout.values())
    if not stays and all_at_once and len(policy.sites) > 1:
        for stay in _of(resumes(policy, policy.cells), staff.throughout):
            yield PolicyWarning("stops", _says(stay, " of all sites at once", EVERY))


def _by_site(policy: Policy, staff: Staff) -> Mapping[_Stays, Sequence[str]]:
    cells = {site.id: [Cell(site.id, w.id) for w in policy.windows] for site in policy.sites}
    found: dict[_Stays, list[str]] = defaultdict(list)
    known: dict[tuple[object, ...], tuple[_Stays, ...]] = {}
    for site, here in cells.items():
        people, asked = staff.at[site], resumes(policy, here)
        kind = (id(people), *asked.items())  # sites that no right names have their people in common
        if kind not in known:
            known[kind] = tuple(_of(asked, people))
        for stay in known[kind]:
            found[stay].append(site)
    return found


def _of(asked: Mapping[tuple[str, ...], tuple[str, ...]], people: Groups) -> Iterator[_Stays]:
    for needs, stages in asked.items():
        if lacks := resume_lacks(needs, people):
            lower = NOTHING_GRANTED not in stages and any(
                not resume_lacks((group,), people) for group in needs
            )
            yield _Stays(needs, stages if len(asked) > 1 else (), lacks, lower)


def _says(stay: _Stays, stopped: str, where: str) -> str:
    people = several(len(stay.needs) + 1, "person", "people")
    step = giving(stay.lacks) + where + (", or lower approvals" if stay.lower else "")
    return (
        f"a stop{stopped} could not be taken back{_when(stay.stages)}: {people} are "
        f"needed, an operator to ask and {needs_text(stay.needs)} to approve; {step}"
    )


def _when(stages: Sequence[str]) -> str:
    if not stages:
        return ""
    return f" while {' or '.join(stage or 'nothing' for stage in stages)} is granted"
