"""Narrow, stop and resume. Whoever may do a part of what they ask does that part, at once."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any

from rollout.core.calendar.sites import Cell
from rollout.core.errors import Refusal, UnknownCell
from rollout.core.policy.policy import Policy, matches
from rollout.core.scope.commands import AskResume, Narrow, StopCells
from rollout.core.scope.permissions import Act, Caller, require
from rollout.core.scope.scope import Proposal, Stop
from rollout.core.scope.stops import resume_needs
from rollout.services.engine.command_results import CommandResult, act
from rollout.services.engine.rollout_state import Standing, standing
from rollout.services.engine.service import Service
from rollout.services.engine.state_cache import STALE
from rollout.services.proposals.approval_permissions import left_over
from rollout.services.proposals.eligible_approvers import needs_text
from rollout.services.stops.stop_latency import StopLatency, past_of, reach_of, reach_text
from rollout.store.database.session import Database

OWED = timedelta(seconds=STALE)


class UnknownStop(Refusal):
    """No stop of that id holds."""

    code = "unknown-stop"


@dataclass(frozen=True, slots=True)
class Named:
    """Which cells are meant: some by name, or those that patterns of sites and windows fit."""

    cells: tuple[Cell, ...] = ()
    sites: tuple[str, ...] = ()
    windows: tuple[str, ...] = ()
    everything: bool = False


@dataclass(frozen=True, slots=True)
class ExcludedTarget:
    """A part of what was named that nothing was done to, and why."""

    target: str
    reason: str


@dataclass(frozen=True, slots=True)
class Chosen:
    """The cells that the caller named and may operate, and what was left out."""

    cells: tuple[Cell, ...]
    left_out: tuple[ExcludedTarget, ...]

    @property
    def sites(self) -> tuple[str, ...]:
        """Return the sites of the cells, each once."""
        return tuple(dict.fromkeys(cell.site for cell in self.cells))


@dataclass(frozen=True, slots=True)
class ActiveStop:
    """A stop that holds. `resume_proposal` is the open proposal to take it back, "" without one."""

    id: str
    by: str
    at: datetime
    reason: str
    drill: bool
    cells: tuple[Cell, ...]
    resume_proposal: str
    resume_required_approvals: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StopList:
    """The stops that hold, how soon a new one would everywhere, and when that was last tried."""

    items: tuple[ActiveStop, ...]
    stop_latency: tuple[StopLatency, ...]
    last_drill: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StopResult(CommandResult):
    """The result of a stop; `active_stops` withhold its cells, this stop or earlier ones."""

    cells: tuple[Cell, ...]
    excluded: tuple[ExcludedTarget, ...]
    active_stops: tuple[ActiveStop, ...]
    stop_latency: tuple[StopLatency, ...]
    last_drill: datetime | None
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NarrowingResult(CommandResult):
    """What came of a narrowing."""

    cells: tuple[Cell, ...]
    excluded: tuple[ExcludedTarget, ...]
    stop_latency: tuple[StopLatency, ...]
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeResult(CommandResult):
    """What came of asking for the end of a stop: the proposal to be approved.

    `text` names whom it waits for, and what to do where too few are left.
    """

    stop: str
    proposal: str
    required_approvals: tuple[str, ...]
    evidence_hash: str
    text: str


def stop(
    database: Database,
    caller: Caller,
    name: str,
    named: Named,
    *,
    at: datetime,
    reason: str = "",
    drill: bool = False,
) -> StopResult:
    """Withhold what is granted in the cells that are named, as far as the caller may.

    Asked once more it answers what holds.

    Raises:
        UnknownCell: nothing that was named exists.
        NotAllowed: the caller may stop none of it.
    """
    require(caller, Act.OPERATE, name)

    def asked(stood: Standing) -> StopCells:
        resolved_target = chosen(named, stood.policy, caller)
        by = caller.person(name, resolved_target.sites)
        return StopCells(at=at, by=by, cells=resolved_target.cells, reason=reason, drill=drill)

    command_result = act(database, caller, name, asked)
    with database.reading() as transaction:
        state = standing(transaction, name)
        resolved_target = chosen(named, state.policy, caller)
        stop_history = past_of(transaction, state)
        matching_stops = [
            stop
            for stop in state.scope.stops.values()
            if stop.cells.intersection(resolved_target.cells)
        ]
        stop_latencies = reach_of(stop_history, state.policy, resolved_target.sites, at)
        return StopResult(
            **_fields(command_result),
            cells=resolved_target.cells,
            excluded=resolved_target.left_out,
            active_stops=tuple(
                _held(stop, state, stop_history.reasons, at) for stop in matching_stops
            ),
            stop_latency=stop_latencies,
            last_drill=stop_history.last_drill,
            text=f"it holds for the next question, and {reach_text(stop_latencies)}",
        )


def narrow(
    database: Database,
    caller: Caller,
    name: str,
    named: Named,
    to: str,
    *,
    at: datetime,
    reason: str = "",
) -> NarrowingResult:
    """Take what is granted above stage `to` away, as far as the caller may.

    Raises:
        UnknownCell: nothing that was named exists.
        NotAllowed: the caller may narrow none of it.
        NotNarrower: `to` is no stage, or it lies above all that is named.
    """
    require(caller, Act.OPERATE, name)

    def asked(stood: Standing) -> Narrow:
        resolved_target = chosen(named, stood.policy, caller)
        by = caller.person(name, resolved_target.sites)
        return Narrow(at=at, by=by, cells=resolved_target.cells, to=to, reason=reason)

    command_result = act(database, caller, name, asked)
    with database.reading() as transaction:
        state = standing(transaction, name)
        resolved_target = chosen(named, state.policy, caller)
        stop_latencies = reach_of(
            past_of(transaction, state), state.policy, resolved_target.sites, at
        )
        return NarrowingResult(
            **_fields(command_result),
            cells=resolved_target.cells,
            excluded=resolved_target.left_out,
            stop_latency=stop_latencies,
            text=f"it holds for the next question, and {reach_text(stop_latencies)}",
        )


def ask_resume(
    database: Database, caller: Caller, name: str, held: str, *, at: datetime
) -> ResumeResult:
    """Propose that a stop is taken back; asked already, the open proposal is the answer.

    Raises:
        UnknownStop: it does not hold.
        NotAllowed: the caller may not operate all that it holds.
    """
    require(caller, Act.OPERATE, name)

    def asked(stood: Standing) -> AskResume:
        sites = _sites_of(_find(stood, held))
        require(caller, Act.OPERATE, name, sites)
        return AskResume(at=at, by=caller.person(name, sites), stop=held)

    command_result = act(database, caller, name, asked)
    with database.reading() as transaction:
        state = standing(transaction, name)
        resume_proposal = _resume_of(state, held)
        if resume_proposal is None:
            raise UnknownStop(f"{held} was taken back meanwhile; `rollout status` shows what holds")
        text = left_over(transaction, state, resume_proposal) or _waits(resume_proposal)
    return ResumeResult(
        **_fields(command_result),
        stop=held,
        proposal=resume_proposal.id,
        required_approvals=resume_proposal.needs,
        evidence_hash=resume_proposal.evidence,
        text=text,
    )


def _resume_of(stood: Standing, held: str) -> Proposal | None:
    proposals = stood.scope.proposals.values()
    return next(
        (
            proposal
            for proposal in proposals
            if proposal.kind == "resume" and proposal.about == held
        ),
        None,
    )


def _waits(resume: Proposal) -> str:
    if resume.approved:
        return f"{resume.id} is approved: the next tick that may applies it"
    return f"{resume.id} needs {needs_text(resume.needs)} other than {resume.raised_by}"


def stops_of(service: Service, caller: Caller, name: str, *, at: datetime) -> StopList:
    """Return the stops that hold at the sites that the caller may read."""
    require(caller, Act.READ, name)
    state = service.watch.confirmed(name).standing
    sites = tuple(stop for stop in state.policy.site if caller.may(Act.READ, name, stop))
    readable_stops = [
        stop for stop in state.scope.stops.values() if set(_sites_of(stop)).intersection(sites)
    ]
    with service.database.reading() as transaction:
        stop_history = past_of(transaction, state)
    return StopList(
        items=tuple(_held(stop, state, stop_history.reasons, at) for stop in readable_stops),
        stop_latency=reach_of(stop_history, state.policy, sites, at),
        last_drill=stop_history.last_drill,
    )


def chosen(named: Named, policy: Policy, caller: Caller) -> Chosen:
    """Return what of the cells named exists and is the caller's to operate.

    Raises:
        Refusal: nothing was named.
        UnknownCell: nothing of it exists; the text lists the cells.
        NotAllowed: none of it is the caller's.
    """
    if not (named.cells or named.sites or named.windows or named.everything):
        raise Refusal("say which cells: cells, sites, windows, or all: true")
    matching_cells = _fitting(named, policy)
    if not matching_cells:
        cell_text = ", ".join(str(cell) for cell in policy.cells)
        raise UnknownCell(f"no cell fits; cells: {cell_text}")
    sites = tuple(dict.fromkeys(cell.site for cell in matching_cells))
    operable_sites = {site for site in sites if caller.may(Act.OPERATE, policy.rollout, site)}
    if not operable_sites:
        require(caller, Act.OPERATE, policy.rollout, sites)
    excluded_sites = (
        ExcludedTarget(s, f"{caller.name} is no operator there")
        for s in sites
        if s not in operable_sites
    )
    unknown_targets = (
        ExcludedTarget(unknown_name, "the policy has none")
        for unknown_name in _unknown(named, policy)
    )
    return Chosen(
        tuple(c for c in matching_cells if c.site in operable_sites),
        (*excluded_sites, *unknown_targets),
    )


def _fitting(named: Named, policy: Policy) -> tuple[Cell, ...]:
    """Return the cells that are named; each site is looked at once, not once a cell."""
    if named.everything:
        return tuple(policy.cells)
    sites: set[str] = set()
    if named.sites or named.windows:
        sites = {site for site in policy.site if _any(named.sites, site)}
    windows = {
        window for window in {cell.window for cell in policy.cells} if _any(named.windows, window)
    }
    return tuple(
        cell
        for cell in policy.cells
        if cell in named.cells or (cell.site in sites and cell.window in windows)
    )


def _any(patterns: Sequence[str], name: str) -> bool:
    return not patterns or any(matches(pattern, name) for pattern in patterns)


def _unknown(named: Named, policy: Policy) -> Iterable[str]:
    """Yield what was named and fits nothing; what else was named goes on all the same."""
    windows = [window.id for window in policy.windows]
    yield from (str(cell) for cell in named.cells if cell not in policy.known)
    yield from (
        pattern
        for pattern in named.sites
        if not any(matches(pattern, site) for site in policy.site)
    )
    yield from (
        pattern
        for pattern in named.windows
        if not any(matches(pattern, window) for window in windows)
    )


def _held(stop: Stop, stood: Standing, reasons: Mapping[str, str], at: datetime) -> ActiveStop:
    resume_proposal = _resume_of(stood, stop.id)
    resume_groups = (
        resume_needs(stood.scope, stood.policy, stop, at)
        if resume_proposal is None
        else resume_proposal.needs
    )
    return ActiveStop(
        id=stop.id,
        by=stop.by,
        at=stop.at,
        reason=reasons.get(stop.id, ""),
        drill=stop.drill,
        cells=tuple(sorted(stop.cells)),
        resume_proposal="" if resume_proposal is None else resume_proposal.id,
        resume_required_approvals=resume_groups,
    )


def _find(stood: Standing, held: str) -> Stop:
    stop = stood.scope.stops.get(held)
    if stop is None:
        stop_ids = ", ".join(stood.scope.stops) or "none"
        raise UnknownStop(f"no stop {held} holds; those that do: {stop_ids}")
    return stop


def _sites_of(stop: Stop) -> tuple[str, ...]:
    return tuple(sorted({cell.site for cell in stop.cells}))


def _fields(done: CommandResult) -> dict[str, Any]:
    return {result_field.name: getattr(done, result_field.name) for result_field in fields(done)}
