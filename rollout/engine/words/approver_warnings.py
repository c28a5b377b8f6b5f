"""Warnings about missing approvers and about senders of records, and missing roles in words.

Approvers: a policy can have too few users for its approvals and resumes.

Senders: an account's decisions may be no evidence, or it registers the cases that it predicts.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rollout.engine.decide.approvals import (
    NO_STAGE,
    GroupMembership,
    GroupsByUser,
    find_missing_for_resume,
    list_resume_needs,
)
from rollout.engine.decide.permissions import APPROVER, OPERATOR
from rollout.engine.words.formatting import format_quantity, join_words
from rollout.kernel.calendar.instants import Cell
from rollout.kernel.policy.evidence_sources import RegisteredUnits
from rollout.kernel.policy.policy import Gate, Policy
from rollout.kernel.policy.policy_warnings import PolicyWarning

MAX_LISTED_NAMES = 6  # further names are counted


@dataclass(frozen=True, slots=True)
class _UnresumableStop:
    """A stop that no users could resume.

    Attributes:
        required_groups: groups whose approval the resume needs.
        stages: stages that it restores, `NO_STAGE` before any; () for all.
        missing_groups: groups that lack a user.
        can_lower_approvals: whether fewer required approvals would be enough.
    """

    required_groups: tuple[str, ...]
    stages: tuple[str, ...]
    missing_groups: tuple[str, ...]
    can_lower_approvals: bool


def list_approver_warnings(
    policy: Policy, site_approvers: GroupMembership | None
) -> tuple[PolicyWarning, ...]:
    """Return warnings about missing approvers, in a fixed order.

    Args:
        site_approvers: group members at the policy's sites; None if users aren't known yet.
    """
    if site_approvers is None:
        return ()
    if not any(site_approvers.by_site.values()):
        return (_warn_no_approvers(policy),)
    return (
        *_warn_empty_groups(policy, site_approvers),
        *_warn_unresumable_stops(policy, site_approvers),
    )


def _warn_no_approvers(policy: Policy) -> PolicyWarning:
    """Return one warning for a rollout without any approvers."""
    all_groups: Counter[str] = Counter()
    for required_groups in list_resume_needs(policy, policy.cells):
        all_groups |= Counter((OPERATOR, *required_groups))
    remedy = describe_missing_roles(tuple(all_groups.elements()), more_text="")
    text = f"no user may approve yet, so nothing can widen and a stop can't end; {remedy}"
    return PolicyWarning("users", text)


def _warn_empty_groups(policy: Policy, site_approvers: GroupMembership) -> Iterator[PolicyWarning]:
    sites_by_gate = _map_sites_by_gate(policy)
    for index, gate in enumerate(policy.gates):
        sites = sites_by_gate[id(gate)]
        for group in dict.fromkeys(gate.approvals):
            sites_without = [
                site
                for site in sites
                if not any(group in groups for groups in site_approvers.by_site[site].values())
            ]
            if sites_without:
                yield PolicyWarning(
                    f"gates[{index}]", _describe_closed_gate(gate, group, sites_without, sites)
                )


def _map_sites_by_gate(policy: Policy) -> Mapping[int, Collection[str]]:
    """Return the sites that each gate applies to, by the gate's identity."""
    sites_by_gate: dict[int, dict[str, None]] = {id(gate): {} for gate in policy.gates}
    for cell in policy.cells:
        for stage_level in range(1, len(policy.stage_ids)):
            if (gate := policy.find_gate(stage_level, cell)) is not None:
                sites_by_gate[id(gate)][cell.site] = None
    return sites_by_gate


def _describe_closed_gate(
    gate: Gate, group: str, sites_without: Sequence[str], sites: Collection[str]
) -> str:
    location, location_reference = (
        ("", "") if len(sites_without) == len(sites) else (format_sites(sites_without), " there")
    )
    return (
        f"no user is in the group {group}{location}, so the gate to {gate.to} never"
        f" opens{location_reference}"
    )


def _warn_unresumable_stops(
    policy: Policy, site_approvers: GroupMembership
) -> Iterator[PolicyWarning]:
    """Warn of stops of one site that can't be resumed; else of a stop of all sites.

    An operator of every site can stop them all at once. That resume needs approvers at each of
    them.
    """
    unresumable_stops = _group_unresumable_stops(policy, site_approvers)
    for unresumable_stop, sites in unresumable_stops.items():
        location = "" if len(sites) == len(policy.sites) else format_sites(sites)
        yield PolicyWarning(
            "stops", _describe_unresumable_stop(unresumable_stop, location, location)
        )
    is_global_operator_present = any(
        OPERATOR in groups for groups in site_approvers.at_all_sites.values()
    )
    if not unresumable_stops and is_global_operator_present and len(policy.sites) > 1:
        for unresumable_stop in _find_unresumable_stops(
            list_resume_needs(policy, policy.cells), site_approvers.at_all_sites
        ):
            yield PolicyWarning(
                "stops",
                _describe_unresumable_stop(
                    unresumable_stop, " of all sites at once", " at every site"
                ),
            )


def _group_unresumable_stops(
    policy: Policy, site_approvers: GroupMembership
) -> Mapping[_UnresumableStop, Sequence[str]]:
    cells = {
        site.id: [Cell(site.id, window.id) for window in policy.windows] for site in policy.sites
    }
    sites_by_stop: dict[_UnresumableStop, list[str]] = defaultdict(list)
    cached_stops: dict[tuple[object, ...], tuple[_UnresumableStop, ...]] = {}
    for site, site_cells in cells.items():
        approvers, requirements = (
            site_approvers.by_site[site],
            list_resume_needs(policy, site_cells),
        )
        cache_key = (
            id(approvers),
            *requirements.items(),
        )  # sites that no permission names have the same approvers
        if cache_key not in cached_stops:
            cached_stops[cache_key] = tuple(_find_unresumable_stops(requirements, approvers))
        for unresumable_stop in cached_stops[cache_key]:
            sites_by_stop[unresumable_stop].append(site)
    return sites_by_stop


def _find_unresumable_stops(
    requirements: Mapping[tuple[str, ...], tuple[str, ...]], approvers: GroupsByUser
) -> Iterator[_UnresumableStop]:
    for required_groups, stages in requirements.items():
        if missing_groups := find_missing_for_resume(required_groups, approvers):
            can_lower_approvals = NO_STAGE not in stages and any(
                not find_missing_for_resume((group,), approvers) for group in required_groups
            )
            yield _UnresumableStop(
                required_groups,
                stages if len(requirements) > 1 else (),
                missing_groups,
                can_lower_approvals,
            )


def _describe_unresumable_stop(
    unresumable_stop: _UnresumableStop, stop_text: str, location: str
) -> str:
    approver_count = format_quantity(len(unresumable_stop.required_groups) + 1, "user")
    remedy = (
        describe_missing_roles(unresumable_stop.missing_groups)
        + location
        + (", or lower approvals" if unresumable_stop.can_lower_approvals else "")
    )
    return (
        f"a stop{stop_text} could not be ended{_describe_stages(unresumable_stop.stages)}:"
        f" {approver_count} are needed, an operator to propose the resume and"
        f" {format_needs(unresumable_stop.required_groups)} to approve; {remedy}"
    )


def _describe_stages(stages: Sequence[str]) -> str:
    if not stages:
        return ""
    return f" while {' or '.join(stage or 'nothing' for stage in stages)} is granted"


@dataclass(frozen=True, slots=True)
class RecordSenders:
    """Who may send a rollout's decisions, and who registered its newest cases."""

    decisions: tuple[str, ...] = ()
    cases: tuple[RegisteredUnits, ...] = ()


NO_SENDERS: Final = RecordSenders()


def list_source_warnings(policy: Policy, senders: RecordSenders) -> Iterator[PolicyWarning]:
    """Yield a warning for each account whose decisions or cases wouldn't count as one expects."""
    yield from _warn_own_cases(policy, senders.cases)
    for account in senders.decisions:
        if not policy.evidence.sources.list_patterns(account):
            text = (
                f"{account} may send decisions, and no source names it: its decisions are stored "
                f"and reported, never evidence; to count them add {{account: {account}, "
                "reviewers: [...]} to `accounts`"
            )
            yield PolicyWarning("evidence.sources", text)


def _warn_own_cases(policy: Policy, counts: tuple[RegisteredUnits, ...]) -> Iterator[PolicyWarning]:
    """Yield a warning for each account that registers cases and predicts them."""
    total = sum(count.units for count in counts)
    others = [count.source for count in counts if not count.own] or ["NAME"]
    for count in counts:
        if count.own and policy.evidence.sources.registers(count.source):
            text = (
                f"{count.source} registered {count.units:,} of the newest {total:,} cases and"
                f" predicted {count.own:,} of them: it can leave out those that its model would get"
                f" wrong; let another account register: `sources: {{cases: [{', '.join(others)}]}}`"
            )
            yield PolicyWarning("evidence.sources.cases", text)


def format_needs(required_groups: Sequence[str]) -> str:
    """Format the required groups.

    >>> format_needs(("operator", "operator")), format_needs(("operator", "safety"))
    ('2 operators', '1 operator and 1 of safety')
    """
    return join_words(list(format_group_counts(required_groups)))


def format_group_counts(required_groups: Sequence[str]) -> tuple[str, ...]:
    """Return each group with its number of approvals; () without groups."""
    group_counts = Counter(required_groups).items()
    return tuple(
        format_quantity(count, group) if group == OPERATOR else f"{count} of {group}"
        for group, count in group_counts
    )


def describe_missing_roles(missing_groups: Sequence[str], more_text: str = " more") -> str:
    """Describe which roles to grant to how many more users.

    >>> describe_missing_roles(("operator",))
    'give 1 more user the role operator'
    >>> describe_missing_roles(("operator", "safety"))
    'give 1 more user the role operator and 1 more user the role approver of safety'
    """
    group_counts = Counter(missing_groups).items()
    roles = [
        f"{count}{more_text} {'user' if count == 1 else 'users'} the role"
        f" {group if group == OPERATOR else f'{APPROVER} of {group}'}"
        for group, count in group_counts
    ]
    return f"give {join_words(roles)}"


def format_sites(sites: Sequence[str]) -> str:
    """Format sites as the end of a phrase.

    >>> format_sites(("creek", "lake"))
    ' at creek and lake'
    """
    return f" at {format_names(sites)}"


def format_names(names: Sequence[str]) -> str:
    """Format the first names and count the others.

    >>> format_names(("bo", "cy")), format_names("abcdefgh")
    ('bo and cy', 'a, b, c, d, e, f and 2 more')
    """
    more_texts = [f"{len(names) - MAX_LISTED_NAMES} more"] if len(names) > MAX_LISTED_NAMES else []
    return join_words([*names[:MAX_LISTED_NAMES], *more_texts])
