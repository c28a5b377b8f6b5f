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
    alone = _by_version(scope, courses, cells, SOLID)
    confirmed = _by_version(scope, courses, cells, HATCHED)
    held = [cell for cell in cells if courses[cell].mark.look == HELD]
    parts = [f"{who} decides alone {where(policy, own)}" for who, own in alone.items()]
    parts += [f"People confirm {who} {where(policy, own)}" for who, own in confirmed.items()]
    if held:
        words = listed(sorted({courses[cell].mark.name for cell in held}))
        parts.append(f"Withheld ({words}) {where(policy, held)}: people decide there")
    covered = sum(len(own) for found in (alone, confirmed) for own in found.values())
    if not covered:
        return " ".join([f"{p}." for p in parts] + ["People decide everything."])
    rest = "" if covered + len(held) == len(cells) else "People decide everything else."
    return " ".join([*(f"{part}." for part in parts), rest]).strip()


def _by_version(
    scope: Scope, courses: Mapping[Cell, Course], cells: Iterable[Cell], look: str
) -> dict[str, list[Cell]]:
    found: dict[str, list[Cell]] = {}
    for cell in cells:
        if courses[cell].mark.look == look:
            found.setdefault(scope.holder(cell) or "", []).append(cell)
    return found


def where(policy: Policy, cells: Sequence[Cell]) -> str:
    """Say where cells are: by name as long as they are few, a site with all of them by its own.

    `at creek and at meadow by day`, `in 12 of 150 cells`
    """
    windows: dict[str, list[str]] = {}
    for cell in cells:
        windows.setdefault(cell.site, []).append(cell.window)
    if len(cells) == len(policy.cells) and len(cells) > 1:
        return "everywhere"
    whole = len(policy.windows)
    names = [
        f"at {site}" if len(own) == whole else f"at {site} by {listed(own)}"
        for site, own in windows.items()
    ]
    if len(names) <= MOST_NAMED:
        return listed(names)
    return f"in {len(cells)} of {len(policy.cells)} cells"


def side_by_side(scope: Scope, cells: Sequence[Cell]) -> str:
    """Say which version acts and which are tried beside it: `v7 acting, v8 challenger`."""
    holders = {scope.holder(cell) for cell in cells}
    here = [version.id for version in scope.versions.values() if not version.retired]
    acts, tried = [v for v in here if v in holders], [v for v in here if v not in holders]
    parts = [f"{listed(acts)} acting" if acts else "No acting version"]
    parts += [f"{listed(tried)} {'challenger' if len(tried) == 1 else 'challengers'}"] * bool(tried)
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
    others = [p for p in scope.proposals.values() if p.cell is None or p.cell.site in sites]
    waiting = [p for p in others if not p.approved]
    if waiting:
        first = min(waiting, key=lambda p: (p.expires_at, p.id))
        return Next(_counted(waiting) + " for others.", about(first, clock_of(_site(first))))
    if others:
        waits = several(
            len(others),
            "proposal is approved and waits for its time",
            "proposals are approved and wait for their time",
        )
        return Next(f"{waits}.", Markup("The table of cells says what each waits for."))
    ends = [(g.until, c) for (c, _), s in scope.cells.items() for g in s.grants
            if c.site in sites and g.until > at]  # fmt: skip
    if not ends:
        return Next("Nothing waits for anybody.", Markup("No gate is met, and no grant is held."))
    until, cell = min(ends)
    shown = clock_of(cell.site)(until)
    says = say("The next grant ends in {}, {}: {}.", took(until - at), shown, str(cell))
    return Next("Nothing waits for anybody.", says)


def _site(proposal: Proposal) -> str:
    return "" if proposal.cell is None else proposal.cell.site


def _counted(proposals: Sequence[Proposal]) -> str:
    if len({p.kind for p in proposals}) == 1:
        one, more = KINDS.get(proposals[0].kind, ("proposal", "proposals"))
    else:
        one, more = "proposal", "proposals"
    return "One " + f"{one} waits" if len(proposals) == 1 else f"{len(proposals)} {more} wait"


def about(proposal: Proposal, clock: Clock) -> Markup:
    """Say what a proposal is about, who has approved it and until when it is open."""
    yes = listed([approval.by for approval in proposal.approvals])
    given = f"; {yes} approved" if yes else ""
    what = {
        "widening": f"{proposal.cell} has met its gate for {proposal.to}",
        "renewal": f"{proposal.cell} keeps {proposal.to} if it is renewed",
        "takeover": f"{proposal.version} may take over {proposal.cell} at {proposal.to}",
        "resume": f"Stop {proposal.about} would be taken back",
        "policy": "Another policy would be in force",
    }.get(proposal.kind, f"Its subject: {proposal.about}")
    return say(
        "{}{}. It waits for {} until {}.",
        what, given, missing(proposal), clock(proposal.expires_at),
    )  # fmt: skip


# Limits


def limits(
    policy: Policy, scope: Scope, sites: Sequence[str], at: datetime, clock: Clock
) -> tuple[Fact, ...]:
    """Return ceilings, waves, freezes and what is settling, each in a line."""
    here = [site for site in policy.sites if site.id in sites]
    return tuple(
        fact
        for found in (
            _ceilings(policy),
            _waves(policy, scope, here, at),
            _freezes(policy, here, at, clock),
        )
        for fact in found
    )


def _ceilings(policy: Policy) -> Iterator[Fact]:
    says = [_limit(limit) for limit in policy.limits]
    none = Markup("None: every cell may go up to {}.").format(policy.rungs[-1])
    yield Fact("Ceilings", Markup("<br>").join(says) if says else none)


def _limit(limit: Limit) -> Markup:
    ends = "" if limit.ends is None else f"a trial until {_day(limit.ends)}"
    never = "" if limit.never_above is None else f"never above {limit.never_above}"
    return say("{}: {}.", _whose(limit.where), listed([part for part in (never, ends) if part]))


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
    for site in sorted(sites, key=lambda s: s.wave):
        by_wave.setdefault(site.wave, []).append(site.id)
    names = [
        f"{number}: {listed(ids) if len(ids) <= MOST_NAMED else f'{len(ids)} sites'}"
        for number, ids in by_wave.items()
    ]
    share = "all" if waves.share >= 1 else f"{waves.share * 100:g} %"
    yield Fact(
        "Waves",
        say(
            "{}. A wave opens when {} of the one before {} been {} for {} in the same window.",
            "; ".join(names), share, "have", waves.stage, took(waves.hold),
        ),
    )  # fmt: skip
    if waves.at_once is not None:
        recent = sum(at - widened < waves.settle for widened in scope.widened_at.values())
        most = several(waves.at_once, "cell")
        yield Fact("Settling", say("{} of at most {}, {} each.", recent, most, took(waves.settle)))


def _freezes(policy: Policy, sites: Sequence[Site], at: datetime, clock: Clock) -> Iterator[Fact]:
    for freeze in policy.freezes:
        yield Fact("Freeze", _freeze(policy, freeze, sites, at, clock))


def _freeze(
    policy: Policy, freeze: Freeze, sites: Sequence[Site], at: datetime, clock: Clock
) -> Markup:
    """Say when nothing widens: now, or the next time at the first site that it is about."""
    fits = (s for s in sites if any(freeze.where.fits(Cell(s.id, w.id)) for w in policy.windows))
    site = next(fits, None)
    whose = "" if freeze.where == Where() else f" ({_whose(freeze.where)})"
    words = say("{}{}, {}: nothing widens; narrowing goes on.", freeze.reason, whose, freeze.hours)
    if site is None:
        return words
    change = next_change(freeze.hours, site, at)
    if change is None:
        return words
    if is_open(freeze.hours, site, at):
        return words + say(" It holds until {}.", clock(change))
    return words + say(" Next: {}.", clock(change))
