"""What speaks against a proposal, as values: track records, and answers that don't count yet."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from rollout.engine.decide.approvals import TrackRecord, build_track_record
from rollout.engine.decide.permissions import Caller, Permission
from rollout.engine.decide.proposals import list_proposal_facts
from rollout.engine.decide.scope import RECORD_SPAN
from rollout.engine.words.evidence_text import describe_track_fact
from rollout.engine.words.formatting import format_zoned_time
from rollout.features.proposals.proposal_details import Proposal
from rollout.kernel.calendar.sites import Cell
from rollout.kernel.facts import FreshFact
from rollout.kernel.policy.fresh_evidence import FreshEvidence
from rollout.live.evidence.evidence_reader import load_events, load_fresh_evidence
from rollout.live.rollout_state import RolloutState
from rollout.live.service import Service


@dataclass(frozen=True, slots=True)
class CounterEvidence:
    """What an approver must know beside the evidence.

    Attributes:
        records: of the version, and then of the one that acts where it would; of a resume those of
            all versions that act in the cells.
        fresh: evidence with answers that don't count yet; None where they hold nothing.
        fresh_facts: what of them holds the proposal now.
    """

    records: tuple[TrackRecord, ...] = ()
    fresh: FreshEvidence | None = None
    fresh_facts: tuple[FreshFact, ...] = ()


def load_counter_evidence(
    service: Service, caller: Caller, rollout_name: str, proposal: Proposal, at: datetime
) -> CounterEvidence:
    """Return what speaks against a proposal, up to its end.

    Raises:
        NotAllowedError: the caller may not read its site.
    """
    sites = (proposal.site,) if proposal.site else ()
    state = service.load_permitted_state(caller, Permission.READ, rollout_name, sites)
    records = load_track_records(service, state, proposal, at)
    open_proposal = state.scope.proposals.get(proposal.id)
    cell = Cell(proposal.site, proposal.window)
    is_for_cell = proposal.rules.gives_more and cell in state.policy.cell_set
    if open_proposal is None or not is_for_cell:
        return CounterEvidence(records)
    fresh = load_fresh_evidence(service.database, state, cell, proposal.version, at)
    facts = list_proposal_facts(state.policy, open_proposal, fresh)
    return CounterEvidence(records, fresh, facts)


def load_track_records(
    service: Service, state: RolloutState, proposal: Proposal, at: datetime
) -> tuple[TrackRecord, ...]:
    """Return the track records of a proposal's versions, up to its end."""
    scope = state.scope
    stop = scope.stops.get(proposal.about)
    cells = (
        [Cell(proposal.site, proposal.window)]
        if proposal.site
        else sorted(stop.cells)
        if stop
        else []
    )
    holders = [holder for c in cells if (holder := scope.get_holder(c)) is not None]
    versions = dict.fromkeys([proposal.version] * bool(proposal.version) + holders)
    until = proposal.closed_at or max(at, scope.at or at)
    events = load_events(service.database, state) if versions else ()
    return tuple(
        build_track_record(
            version,
            events,
            [s for (_, v), met in scope.cell_values.items() if v == version
             for s in met.statuses.values()],
            site=proposal.site,
            since=proposal.raised_at - RECORD_SPAN,
            until=until,
        )
        for version in versions
    )  # fmt: skip


def list_facts_against(
    caller: Caller, rollout_name: str, records: Iterable[TrackRecord], timezone: str, at: datetime
) -> list[str]:
    """Say what spoke against versions; sites that the caller may not read aren't named."""

    def name_cell(cell: Cell | None) -> str:
        site = "" if cell is None else cell.site
        may_read = bool(site) and caller.has_permission(Permission.READ, rollout_name, site)
        return f"in {cell}" if may_read else "at another site"

    def format_time(instant: datetime) -> str:
        return format_zoned_time(instant, timezone, at)

    facts = (fact for record in records for fact in record.facts if fact.speaks_against)
    return [describe_track_fact(fact, format_time, name_cell) for fact in facts]
