"""A rollout in sentences: what is allowed, the next decision, its limits."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Final

from markupsafe import Markup

from api.cells.map_rows import StageSchedule
from api.web_kit.cell_view import TimeFormatter, describe_missing_approvals, format_sentence
from api.web_kit.page import encode_segment, format_time_span
from api.web_kit.waiting import READ_TEXT, REQUEST_TEXT
from rollout.engine.decide.policy_changes import describe_version
from rollout.engine.decide.scope import ProposalState, Scope
from rollout.engine.words.formatting import capitalize_first, format_quantity, join_words
from rollout.engine.words.state_text import ANY_PROPOSAL, PROPOSAL_KINDS
from rollout.features.reports.pages.timeline_layout import HATCHED, SOLID, WITHHELD, StageMarker
from rollout.kernel.calendar.instants import Cell, Site
from rollout.kernel.calendar.opening_hours import find_next_change, is_open
from rollout.kernel.policy.policy import Freeze, Limit, Policy, Where
from rollout.kernel.policy.stages import describe_decided
from rollout.kernel.units import group_pairs

MAX_NAMED: Final = 4
"""Maximum number of locations named in a sentence; more are counted."""


@dataclass(frozen=True, slots=True)
class NextDecision:
    """The next decision: its kind, its subject, and the link to it.

    `path` is below the rollout's page. `is_own` is true if the link is the visitor's next step.
    """

    strong: str
    text: Markup
    path: str = "/proposals"
    link_text: str = "All proposals"
    is_own: bool = False


@dataclass(frozen=True, slots=True)
class LimitFact:
    """One limit of a rollout."""

    name: str
    text: Markup


def describe_allowed(
    policy: Policy, scope: Scope, schedules: Mapping[Cell, StageSchedule], sites: Sequence[str]
) -> str:
    """Describe what is stopped or suspended now, then what is allowed."""
    cells = [cell for cell in policy.cells if cell.site in sites]
    deciding = _group_cells_by_version(scope, schedules, cells, SOLID)
    shares = {
        cell: find_model_share(policy, schedules[cell].marker)
        for version_cells in deciding.values()
        for cell in version_cells
    }
    supervised = _group_cells_by_version(scope, schedules, cells, HATCHED)
    withheld = [cell for cell in cells if schedules[cell].marker.pattern == WITHHELD]
    parts = [
        f"{version} decides {describe_decided(share)}{',' * (share < 1)}"
        f" {describe_cells(policy, shared_cells)}"
        for version, version_cells in deciding.items()
        for share, shared_cells in _group_cells_by_share(version_cells, shares)
    ]
    parts += [
        f"Humans confirm {version} {describe_cells(policy, version_cells)}"
        for version, version_cells in supervised.items()
    ]
    if withheld:
        hold_words = join_words(sorted({schedules[cell].marker.name for cell in withheld}))
        where = describe_cells(policy, withheld)
        if len(withheld) == len(cells):
            return f"{capitalize_first(hold_words)} {where}: humans decide everything."
        parts.insert(0, f"{capitalize_first(hold_words)} {where}: humans decide there")
    covered_count = sum(
        len(version_cells) for group in (deciding, supervised) for version_cells in group.values()
    )
    if not covered_count:
        return " ".join([f"{part_text}." for part_text in parts] + ["Humans decide everything."])
    is_all = covered_count + len(withheld) == len(cells)
    rest_text = "" if is_all and set(shares.values()) <= {1} else "Humans decide everything else."
    return " ".join([*(f"{part}." for part in parts), rest_text]).strip()


def find_model_share(policy: Policy, marker: StageMarker) -> float:
    """Return the share of cases that the model decides at a stage, where it does."""
    return round(1 - policy.get_stage(policy.stage_ids.index(marker.name)).blind, 12)


def _group_cells_by_share(
    cells: Sequence[Cell], shares: Mapping[Cell, float]
) -> list[tuple[float, list[Cell]]]:
    """Return the cells by the share that the model decides there, largest first."""
    return [
        (share, [cell for cell in cells if shares[cell] == share])
        for share in sorted({shares[cell] for cell in cells}, reverse=True)
    ]


def _group_cells_by_version(
    scope: Scope, schedules: Mapping[Cell, StageSchedule], cells: Iterable[Cell], pattern: str
) -> dict[str, list[Cell]]:
    return group_pairs(
        (scope.get_holder(cell) or "", cell)
        for cell in cells
        if schedules[cell].marker.pattern == pattern
    )


def describe_cells(policy: Policy, cells: Sequence[Cell]) -> str:
    """Describe where cells are: by cell or whole site if few.

    `at creek and at meadow by day`, `in 12 of 150 cells`
    """
    windows = group_pairs((cell.site, cell.window) for cell in cells)
    if len(cells) == len(policy.cells) and len(cells) > 1:
        return "everywhere"
    window_count = len(policy.windows)
    names = [
        (
            f"at {site}"
            if len(site_windows) == window_count
            else f"at {site} by {join_words(site_windows)}"
        )
        for site, site_windows in windows.items()
    ]
    if len(names) <= MAX_NAMED:
        return join_words(names)
    return f"in {len(cells)} of {len(policy.cells)} cells"


def describe_versions(scope: Scope, cells: Sequence[Cell]) -> str:
    """Describe the versions: `v7 acting, v8 challenger`."""
    acting_ids = {scope.get_holder(cell) for cell in cells}
    version_ids = [version.id for version in scope.versions.values() if not version.retired]
    acting = [version_id for version_id in version_ids if version_id in acting_ids]
    challengers = [version_id for version_id in version_ids if version_id not in acting_ids]
    name_all = partial(_name_versions, scope)
    parts = [f"{name_all(acting)} acting" if acting else "No acting version"]
    parts += [
        f"{name_all(challengers)} {'challenger' if len(challengers) == 1 else 'challengers'}"
    ] * bool(challengers)
    return ", ".join(parts)


def _name_versions(scope: Scope, version_ids: Sequence[str]) -> str:
    return join_words([describe_version(scope, version_id) for version_id in version_ids])


def format_caption(first_index: int, count: int, total: int) -> str:
    """Format which of all cells a table shows.

    >>> format_caption(0, 6, 6), format_caption(25, 25, 150)
    ('6 cells', '26–50 of 150 cells')
    """
    if not first_index and count == total:
        return format_quantity(total, "cell")
    return f"{first_index + 1}–{first_index + count} of {format_quantity(total, 'cell')}"


def build_next_decision(
    scope: Scope,
    own_proposals: Sequence[ProposalState],
    sites: Sequence[str],
    at: datetime,
    get_time_formatter: Callable[[str], TimeFormatter],
) -> NextDecision:
    """Describe the next decision.

    Args:
        scope: the projected scope.
        own_proposals: proposals that the visitor can approve, first deadline first.
        sites: sites that the visitor may read.
        at: now.
        get_time_formatter: returns a site's time formatter; "" for no site.
    """
    if own_proposals:
        return NextDecision(
            f"{_describe_count(own_proposals)} your approval.",
            _describe_proposals(own_proposals, get_time_formatter),
            _build_path(own_proposals[0]) if len(own_proposals) == 1 else "/proposals",
            READ_TEXT,
            is_own=True,
        )
    other_proposals = [
        proposal
        for proposal in scope.proposals.values()
        if proposal.cell is None or proposal.cell.site in sites
    ]
    open_proposals = [proposal for proposal in other_proposals if not proposal.is_approved]
    if open_proposals:
        open_proposals.sort(key=lambda proposal: (proposal.expires_at, proposal.id))
        return NextDecision(
            f"{_describe_count(open_proposals)} approval by others.",
            _describe_proposals(open_proposals, get_time_formatter),
        )
    if other_proposals:
        waiting_text = format_quantity(
            len(other_proposals),
            "proposal is approved and takes effect later",
            "proposals are approved and take effect later",
        )
        return NextDecision(
            f"{waiting_text}.", Markup("The table of cells shows what each waits for.")
        )
    grant_ends = [
        (grant.until, cell_item)
        for (cell_item, _), cell_state in scope.cells.items()
        for grant in cell_state.grants
        if cell_item.site in sites and grant.until > at
    ]
    if not grant_ends:
        return NextDecision(
            "No decision is pending.", Markup("No gate is met, and there is no grant.")
        )
    until, cell = min(grant_ends)
    time_text = get_time_formatter(cell.site)(until)
    text = format_sentence(
        "The next grant ends in {}, {}: {}.", format_time_span(until - at), time_text, str(cell)
    )
    return NextDecision("No decision is pending.", text)


def lead_with_stops(
    decision: NextDecision,
    stopped_cells: Sequence[Cell],
    own_proposals: Sequence[ProposalState] = (),
    *,
    may_request: bool = False,
) -> NextDecision:
    """Return the next decision with what is stopped, and the way back, before it.

    Args:
        decision: the next decision without regard to stops.
        stopped_cells: stopped cells that the visitor may read.
        own_proposals: proposals that the visitor can approve.
        may_request: whether the visitor can request the resume of a stop.

    >>> stopped = [Cell("lake", "day"), Cell("lake", "night")]
    >>> led = lead_with_stops(NextDecision("1 widening needs your approval.", Markup("")), stopped)
    >>> led.strong, led.path, led.link_text
    ('Stopped: 2 cells at lake.', '/stops', 'Active stops')
    """
    if not stopped_cells:
        return decision
    sites = list(dict.fromkeys(cell.site for cell in stopped_cells))
    resumes = [proposal for proposal in own_proposals if proposal.rules.ends_stop]
    if resumes:
        path, link_text = _build_path(resumes[0]), READ_TEXT
    else:
        path, link_text = "/stops", REQUEST_TEXT if may_request else "Active stops"
    return replace(
        decision,
        path=path,
        link_text=link_text,
        is_own=True,
        strong=f"Stopped: {format_quantity(len(stopped_cells), 'cell')} at {join_words(sites)}.",
        text=format_sentence("Humans decide there. {} {}", decision.strong, decision.text),
    )


def _build_path(proposal: ProposalState) -> str:
    return f"/proposals/{encode_segment(proposal.id)}"


def _describe_proposals(
    proposals: Sequence[ProposalState], get_time_formatter: Callable[[str], TimeFormatter]
) -> Markup:
    """Describe one proposal, or name the cells of several and the first deadline."""
    first = proposals[0]
    format_time = get_time_formatter("" if first.cell is None else first.cell.site)
    if len(proposals) == 1:
        return describe_proposal(first, format_time)
    names = [str(proposal.cell or proposal.about or proposal.id) for proposal in proposals]
    hidden_count = len(names) - MAX_NAMED
    if hidden_count > 0:
        names = [*names[:MAX_NAMED], f"{hidden_count} more"]
    return format_sentence(
        "{}. The first one is open until {}.", join_words(names), format_time(first.expires_at)
    )


def _describe_count(proposals: Sequence[ProposalState]) -> str:
    is_one_kind = len({proposal.kind for proposal in proposals}) == 1
    words = PROPOSAL_KINDS.get(proposals[0].kind, ANY_PROPOSAL) if is_one_kind else ANY_PROPOSAL
    return format_quantity(len(proposals), f"{words.noun} needs", f"{words.plural} need")


def describe_proposal(proposal: ProposalState, format_time: TimeFormatter) -> Markup:
    """Describe a proposal's subject, approvals and deadline."""
    approvers = join_words([approval.by for approval in proposal.approvals])
    approved_text = f"; {approvers} approved" if approvers else ""
    subject = PROPOSAL_KINDS.get(proposal.kind, ANY_PROPOSAL).subject.format(
        cell=proposal.cell, to=proposal.to, version=proposal.version, about=proposal.about
    )
    return format_sentence(
        "{}{}. Needs {} until {}.",
        subject,
        approved_text,
        describe_missing_approvals(proposal),
        format_time(proposal.expires_at),
    )


# Limits


def list_limits(
    policy: Policy, scope: Scope, sites: Sequence[str], at: datetime, format_time: TimeFormatter
) -> tuple[LimitFact, ...]:
    """Return ceilings, waves, freezes and settling cells, one line each."""
    readable_sites = [site for site in policy.sites if site.id in sites]
    return tuple(
        fact
        for facts in (
            _describe_ceilings(policy),
            _describe_waves(policy, scope, readable_sites, at),
            _describe_freezes(policy, readable_sites, at, format_time),
        )
        for fact in facts
    )


def _describe_ceilings(policy: Policy) -> Iterator[LimitFact]:
    texts = [_describe_limit(limit) for limit in policy.limits]
    no_limit_text = Markup("None: every cell may reach {}.").format(policy.stage_ids[-1])
    yield LimitFact("Ceilings", Markup("<br>").join(texts) if texts else no_limit_text)


def _describe_limit(limit: Limit) -> Markup:
    trial_text = "" if limit.ends is None else f"a trial until {limit.ends.day} {limit.ends:%b %Y}"
    maximum_text = "" if limit.never_above is None else f"never above {limit.never_above}"
    return format_sentence(
        "{}: {}.",
        _describe_scope(limit.where),
        join_words([part for part in (maximum_text, trial_text) if part]),
    )


def _describe_scope(cell_filter: Where) -> str:
    sites = join_words(list(cell_filter.sites)) if cell_filter.sites else ""
    windows = join_words(list(cell_filter.windows)) if cell_filter.windows else ""
    if sites and windows:
        return f"{sites} by {windows}"
    return sites or (f"Everywhere by {windows}" if windows else "Everywhere")


def _describe_waves(
    policy: Policy, scope: Scope, sites: Sequence[Site], at: datetime
) -> Iterator[LimitFact]:
    waves = policy.waves
    if waves is None:
        return
    by_wave = group_pairs(
        (site.wave, site.id) for site in sorted(sites, key=lambda site: site.wave)
    )
    names = [
        f"{number}:"
        f" {join_words(site_ids) if len(site_ids) <= MAX_NAMED else f'{len(site_ids)} sites'}"
        for number, site_ids in by_wave.items()
    ]
    share_text = "all" if waves.share >= 1 else f"{waves.share * 100:g} %"
    yield LimitFact(
        "Waves",
        format_sentence(
            "{}. A wave opens when {} of the previous one {} been {} for {} in the same window.",
            "; ".join(names), share_text, "have", waves.stage, format_time_span(waves.hold),
        ),
    )  # fmt: skip
    if waves.at_once is not None:
        recent_count = sum(at - widened < waves.settle for widened in scope.widened_at.values())
        maximum_text = format_quantity(waves.at_once, "cell")
        yield LimitFact(
            "Settling",
            format_sentence(
                "{} of at most {} widened within the last {}.",
                recent_count,
                maximum_text,
                format_time_span(waves.settle),
            ),
        )


def _describe_freezes(
    policy: Policy, sites: Sequence[Site], at: datetime, format_time: TimeFormatter
) -> Iterator[LimitFact]:
    for freeze in policy.freezes:
        yield LimitFact("Freeze", _describe_freeze(policy, freeze, sites, at, format_time))


def _describe_freeze(
    policy: Policy, freeze: Freeze, sites: Sequence[Site], at: datetime, format_time: TimeFormatter
) -> Markup:
    """Describe when nothing widens: now, or next at the first affected site."""
    matching_sites = (
        site_item
        for site_item in sites
        if any(freeze.where.fits(Cell(site_item.id, window.id)) for window in policy.windows)
    )
    site = next(matching_sites, None)
    scope_text = "" if freeze.where == Where() else f" ({_describe_scope(freeze.where)})"
    text = format_sentence(
        "{}{}, {}: nothing widens; narrowing still works.", freeze.reason, scope_text, freeze.hours
    )
    if site is None:
        return text
    change = find_next_change(freeze.hours, site, at)
    if change is None:
        return text
    if is_open(freeze.hours, site, at):
        return text + format_sentence(" It lasts until {}.", format_time(change))
    return text + format_sentence(" Next: {}.", format_time(change))
