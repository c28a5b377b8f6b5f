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
    all_groups: Counter[str] = Counter()
    for required_groups in resumes(policy, policy.cells):
        all_groups |= Counter((OPERATOR, *required_groups))
    remedy = giving(tuple(all_groups.elements()), more="")
    text = f"nobody may approve here yet, so nothing widens and a stop would stay; {remedy}"
    return PolicyWarning("people", text)


def _empty_groups(policy: Policy, staff: Staff) -> Warned:
    sites_by_gate = _sites_of_gates(policy)
    for index, gate in enumerate(policy.gates):
        sites = sites_by_gate[id(gate)]
        for group in dict.fromkeys(gate.approvals):
            sites_without = [
                site
                for site in sites
                if not any(group in groups for groups in staff.at[site].values())
            ]
            if sites_without:
                yield PolicyWarning(
                    f"gates[{index}]", _never_opens(gate, group, sites_without, sites)
                )


def _sites_of_gates(policy: Policy) -> Mapping[int, Collection[str]]:
    """Return by a gate's identity the sites of the cells that it leads."""
    sites_by_gate: dict[int, dict[str, None]] = {id(gate): {} for gate in policy.gates}
    for cell in policy.cells:
        for stage_level in range(1, len(policy.rungs)):
            if (gate := policy.gate(stage_level, cell)) is not None:
                sites_by_gate[id(gate)][cell.site] = None
    return sites_by_gate


def _never_opens(gate: Gate, group: str, none: Sequence[str], sites: Collection[str]) -> str:
    location, location_reference = (
        ("", "") if len(none) == len(sites) else (at_text(none), " there")
    )
    return (
        f"nobody is in the group {group}{location}, so the gate to {gate.to} never"
        f" opens{location_reference}"
    )


def _stops_that_stay(policy: Policy, staff: Staff) -> Warned:
    """Warn of stops of a site that nobody could take back; else of a stop of all sites at once.

    Whoever operates every site stops them all at once, and a resume of that asks people who stand
    at each of them.
    """
    unresumable_stops = _by_site(policy, staff)
    for unresumable_stop, sites in unresumable_stops.items():
        location = "" if len(sites) == len(policy.sites) else at_text(sites)
        yield PolicyWarning("stops", _says(unresumable_stop, location, location))
    is_global_operator_present = any(OPERATOR in groups for groups in staff.throughout.values())
    if not unresumable_stops and is_global_operator_present and len(policy.sites) > 1:
        for unresumable_stop in _of(resumes(policy, policy.cells), staff.throughout):
            yield PolicyWarning("stops", _says(unresumable_stop, " of all sites at once", EVERY))


def _by_site(policy: Policy, staff: Staff) -> Mapping[_Stays, Sequence[str]]:
    cells = {
        site.id: [Cell(site.id, window.id) for window in policy.windows] for site in policy.sites
    }
    sites_by_stop: dict[_Stays, list[str]] = defaultdict(list)
    cached_stops: dict[tuple[object, ...], tuple[_Stays, ...]] = {}
    for site, site_cells in cells.items():
        approvers, requirements = staff.at[site], resumes(policy, site_cells)
        cache_key = (
            id(approvers),
            *requirements.items(),
        )  # sites that no right names have their people in common
        if cache_key not in cached_stops:
            cached_stops[cache_key] = tuple(_of(requirements, approvers))
        for unresumable_stop in cached_stops[cache_key]:
            sites_by_stop[unresumable_stop].append(site)
    return sites_by_stop


def _of(asked: Mapping[tuple[str, ...], tuple[str, ...]], people: Groups) -> Iterator[_Stays]:
    for required_groups, stages in asked.items():
        if missing_groups := resume_lacks(required_groups, people):
            can_lower_approvals = NOTHING_GRANTED not in stages and any(
                not resume_lacks((group,), people) for group in required_groups
            )
            yield _Stays(
                required_groups,
                stages if len(asked) > 1 else (),
                missing_groups,
                can_lower_approvals,
            )


def _says(stay: _Stays, stopped: str, where: str) -> str:
    approver_count = several(len(stay.needs) + 1, "person", "people")
    remedy = giving(stay.lacks) + where + (", or lower approvals" if stay.lower else "")
    return (
        f"a stop{stopped} could not be taken back{_when(stay.stages)}: {approver_count} are "
        f"needed, an operator to ask and {needs_text(stay.needs)} to approve; {remedy}"
    )


def _when(stages: Sequence[str]) -> str:
    if not stages:
        return ""
    return f" while {' or '.join(stage or 'nothing' for stage in stages)} is granted"
