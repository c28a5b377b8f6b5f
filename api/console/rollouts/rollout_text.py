"""A rollout in sentences: what is allowed now, what decides next, and the limits that it has."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final

from markupsafe import Markup

from api.console.page.cell_view import Clock, missing, say
from api.console.page.stages import HATCHED, HELD, SOLID
from api.console.page.time_format import took
from api.console.rollouts.map_rows import Course
from rollout.core.calendar.opening_hours import is_open, next_change
from rollout.core.calendar.sites import Cell, Site
from rollout.core.policy.policy import Freeze, Limit, Policy, Where
from rollout.core.scope.scope import Proposal, Scope
from rollout.reports.text.formatting import listed, several

MOST_NAMED: Final = 4
"""Places that a sentence names; more of them are counted."""
KINDS: Final = {
    "widening": ("widening", "widenings"),
    "renewal": ("renewal", "renewals"),
    "takeover": ("takeover", "takeovers"),
    "resume": ("resume", "resumes"),
    "policy": ("change of the policy", "changes of the policy"),
    "clock": ("correction of the clock", "corrections of the clock"),
}


@dataclass(frozen=True, slots=True)
class Next:
    """What decides next: who is asked in a few words, what it is about, and where to decide.

    `proposal` is the id of the one to read first; "" where none waits for the reader.
    """

    strong: str
    says: Markup
    proposal: str = ""


@dataclass(frozen=True, slots=True)
class Fact:
    """One line of the limits."""

    name: str
    says: Markup


def lede(policy: Policy, scope: Scope, courses: Mapping[Cell, Course], sites: Sequence[str]) -> str:
    """Say what is allowed now, what is withheld, and that people decide the rest."""
    cells = [cell for cell in policy.cells if cell.site in sites]
    deciding = _by_version(scope, courses, cells, SOLID)
    supervised = _by_version(scope, courses, cells, HATCHED)
    withheld = [cell for cell in cells if courses[cell].mark.look == HELD]
    parts = [
        f"{version} decides alone {where(policy, version_cells)}"
        for version, version_cells in deciding.items()
    ]
    parts += [
        f"People confirm {version} {where(policy, version_cells)}"
        for version, version_cells in supervised.items()
    ]
    if withheld:
        hold_words = listed(sorted({courses[cell].mark.name for cell in withheld}))
        parts.append(f"Withheld ({hold_words}) {where(policy, withheld)}: people decide there")
    covered_count = sum(
        len(version_cells) for group in (deciding, supervised) for version_cells in group.values()
    )
    if not covered_count:
        return " ".join([f"{part_text}." for part_text in parts] + ["People decide everything."])
    rest_text = (
        "" if covered_count + len(withheld) == len(cells) else "People decide everything else."
    )
    return " ".join([*(f"{part}." for part in parts), rest_text]).strip()


def _by_version(
    scope: Scope, courses: Mapping[Cell, Course], cells: Iterable[Cell], look: str
) -> dict[str, list[Cell]]:
    cells_by_version: dict[str, list[Cell]] = {}
    for cell in cells:
        if courses[cell].mark.look == look:
            cells_by_version.setdefault(scope.holder(cell) or "", []).append(cell)
    return cells_by_version


def where(policy: Policy, cells: Sequence[Cell]) -> str:
    """Say where cells are: by name as long as they are few, a site with all of them by its own.

    `at creek and at meadow by day`, `in 12 of 150 cells`
    """
    windows: dict[str, list[str]] = {}
    for cell in cells:
        windows.setdefault(cell.site, []).append(cell.window)
    if len(cells) == len(policy.cells) and len(cells) > 1:
        return "everywhere"
    window_count = len(policy.windows)
    names = [
        (
            f"at {site}"
            if len(site_windows) == window_count
            else f"at {site} by {listed(site_windows)}"
        )
        for site, site_windows in windows.items()
    ]
    if len(names) <= MOST_NAMED:
        return listed(names)
    return f"in {len(cells)} of {len(policy.cells)} cells"


def side_by_side(scope: Scope, cells: Sequence[Cell]) -> str:
    """Say which version acts and which are tried beside it: `v7 acting, v8 challenger`."""
    acting_ids = {scope.holder(cell) for cell in cells}
    version_ids = [version.id for version in scope.versions.values() if not version.retired]
    acting, challengers = (
        [version_id for version_id in version_ids if version_id in acting_ids],
        [version_id for version_id in version_ids if version_id not in acting_ids],
    )
    parts = [f"{listed(acting)} acting" if acting else "No acting version"]
    parts += [
        f"{listed(challengers)} {'challenger' if len(challengers) == 1 else 'challengers'}"
    ] * bool(challengers)
    return ", ".join(parts)


def caption(first: int, shown: int, among: int) -> str:
    """Say which cells of all a table shows.

    >>> caption(0, 6, 6), caption(25, 25, 150)
    ('6 cells', '26–50 of 150 cells')
    """
    if not first and shown == among:
        return several(among, "cell")
    return f"{first + 1}–{first + shown} of {several(among, 'cell')}"


def next_of(
    scope: Scope,
    mine: Sequence[Proposal],
    sites: Sequence[str],
    at: datetime,
    clock_of: Callable[[str], Clock],
) -> Next:
    """Say what decides next.

    Args:
        scope: the fold of the ledger.
        mine: the proposals that wait for the reader, the first to close first.
        sites: those that the reader may read.
        at: now.
        clock_of: how a time is shown at a site; "" is none in particular.
    """
    if mine:
        return Next(
            _counted(mine) + " for you.", about(mine[0], clock_of(_site(mine[0]))), mine[0].id
        )
    other_proposals = [
        proposal
        for proposal in scope.proposals.values()
        if proposal.cell is None or proposal.cell.site in sites
    ]
    open_proposals = [proposal for proposal in other_proposals if not proposal.approved]
    if open_proposals:
        first_proposal = min(
            open_proposals, key=lambda proposal: (proposal.expires_at, proposal.id)
        )
        return Next(
            _counted(open_proposals) + " for others.",
            about(first_proposal, clock_of(_site(first_proposal))),
        )
    if other_proposals:
        waiting_text = several(
            len(other_proposals),
            "proposal is approved and waits for its time",
            "proposals are approved and wait for their time",
        )
        return Next(f"{waiting_text}.", Markup("The table of cells says what each waits for."))
    grant_ends = [
        (grant.until, cell_item)
        for (cell_item, _), cell_state in scope.cells.items()
        for grant in cell_state.grants
        if cell_item.site in sites and grant.until > at
    ]
    if not grant_ends:
        return Next("Nothing waits for anybody.", Markup("No gate is met, and no grant is held."))
    until, cell = min(grant_ends)
    time_text = clock_of(cell.site)(until)
    text = say("The next grant ends in {}, {}: {}.", took(until - at), time_text, str(cell))
    return Next("Nothing waits for anybody.", text)


def _site(proposal: Proposal) -> str:
    return "" if proposal.cell is None else proposal.cell.site


def _counted(proposals: Sequence[Proposal]) -> str:
    if len({proposal.kind for proposal in proposals}) == 1:
        singular, plural = KINDS.get(proposals[0].kind, ("proposal", "proposals"))
    else:
        singular, plural = "proposal", "proposals"
    return (
        "One " + f"{singular} waits" if len(proposals) == 1 else f"{len(proposals)} {plural} wait"
    )


def about(proposal: Proposal, clock: Clock) -> Markup:
    """Say what a proposal is about, who has approved it and until when it is open."""
    approvers = listed([approval.by for approval in proposal.approvals])
    approved_text = f"; {approvers} approved" if approvers else ""
    subject = {
        "widening": f"{proposal.cell} has met its gate for {proposal.to}",
        "renewal": f"{proposal.cell} keeps {proposal.to} if it is renewed",
        "takeover": f"{proposal.version} may take over {proposal.cell} at {proposal.to}",
        "resume": f"Stop {proposal.about} would be taken back",
        "policy": "Another policy would be in force",
    }.get(proposal.kind, f"Its subject: {proposal.about}")
    return say(
        "{}{}. It waits for {} until {}.",
        subject, approved_text, missing(proposal), clock(proposal.expires_at),
    )  # fmt: skip


# Limits


def limits(
    policy: Policy, scope: Scope, sites: Sequence[str], at: datetime, clock: Clock
) -> tuple[Fact, ...]:
    """Return ceilings, waves, freezes and what is settling, each in a line."""
    readable_sites = [site for site in policy.sites if site.id in sites]
    return tuple(
        fact
        for facts in (
            _ceilings(policy),
            _waves(policy, scope, readable_sites, at),
            _freezes(policy, readable_sites, at, clock),
        )
        for fact in facts
    )


def _ceilings(policy: Policy) -> Iterator[Fact]:
    texts = [_limit(limit) for limit in policy.limits]
    no_limit_text = Markup("None: every cell may go up to {}.").format(policy.rungs[-1])
    yield Fact("Ceilings", Markup("<br>").join(texts) if texts else no_limit_text)


def _limit(limit: Limit) -> Markup:
    trial_text = "" if limit.ends is None else f"a trial until {_day(limit.ends)}"
    maximum_text = "" if limit.never_above is None else f"never above {limit.never_above}"
    return say(
        "{}: {}.",
        _whose(limit.where),
        listed([part for part in (maximum_text, trial_text) if part]),
    )


def _day(day: date) -> str:
    return f"{day.day} {day:%b %Y}"


def _whose(whose: Where) -> str:
    sites = listed(list(whose.sites)) if whose.sites else ""
    windows = listed(list(whose.windows)) if whose.windows else ""
    if sites and windows:
        return f"{sites} by {windows}"
    return sites or (f"Everywhere by {windows}" if windows else "Everywhere")


def _waves(policy: Policy, scope: Scope, sites: Sequence[Site], at: datetime) -> Iterator[Fact]:
    waves = policy.waves
    if waves is None:
        return
    by_wave: dict[int, list[str]] = {}
    for site in sorted(sites, key=lambda site_item: site_item.wave):
        by_wave.setdefault(site.wave, []).append(site.id)
    names = [
        f"{number}: {listed(site_ids) if len(site_ids) <= MOST_NAMED else f'{len(site_ids)} sites'}"
        for number, site_ids in by_wave.items()
    ]
    share_text = "all" if waves.share >= 1 else f"{waves.share * 100:g} %"
    yield Fact(
        "Waves",
        say(
            "{}. A wave opens when {} of the one before {} been {} for {} in the same window.",
            "; ".join(names), share_text, "have", waves.stage, took(waves.hold),
        ),
    )  # fmt: skip
    if waves.at_once is not None:
        recent_count = sum(at - widened < waves.settle for widened in scope.widened_at.values())
        maximum_text = several(waves.at_once, "cell")
        yield Fact(
            "Settling",
            say("{} of at most {}, {} each.", recent_count, maximum_text, took(waves.settle)),
        )


def _freezes(policy: Policy, sites: Sequence[Site], at: datetime, clock: Clock) -> Iterator[Fact]:
    for freeze in policy.freezes:
        yield Fact("Freeze", _freeze(policy, freeze, sites, at, clock))


def _freeze(
    policy: Policy, freeze: Freeze, sites: Sequence[Site], at: datetime, clock: Clock
) -> Markup:
    """Say when nothing widens: now, or the next time at the first site that it is about."""
    matching_sites = (
        site_item
        for site_item in sites
        if any(freeze.where.fits(Cell(site_item.id, window.id)) for window in policy.windows)
    )
    site = next(matching_sites, None)
    scope_text = "" if freeze.where == Where() else f" ({_whose(freeze.where)})"
    text = say(
        "{}{}, {}: nothing widens; narrowing goes on.", freeze.reason, scope_text, freeze.hours
    )
    if site is None:
        return text
    change = next_change(freeze.hours, site, at)
    if change is None:
        return text
    if is_open(freeze.hours, site, at):
        return text + say(" It holds until {}.", clock(change))
    return text + say(" Next: {}.", clock(change))
