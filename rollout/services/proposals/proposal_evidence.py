"""A proposal's evidence in figures: as it was frozen when it was raised, and as it is now."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import numpy as np

from rollout.core.calendar.sites import Cell
from rollout.core.policy.cell_evidence import Counted, Known
from rollout.core.policy.gates import GateReading, Reading, read_condition, read_gate, read_renewal
from rollout.core.policy.measures import Condition
from rollout.core.policy.policy import Gate, Minimum, Policy
from rollout.core.scope.permissions import Act, Caller, require
from rollout.reports.figures.report_identity import promise
from rollout.reports.statistics.bounds import bounds_of, estimates_of
from rollout.services.engine.evidence_reader import known_of
from rollout.services.engine.rollout_state import Standing
from rollout.services.engine.service import Service
from rollout.services.proposals.proposal_details import Proposal
from rollout.store.ledger.ledger import Ledger

FIGURES: Final = re.compile(
    r": (?P<counts>\d+ of \d+|\d+(?: \d+)*), log E [^()]*\(risk (?P<risk>[0-9.e+-]+)\)$", re.ASCII
)
"""A frozen reading after its condition, in the form of `gates.Reading.text`."""


@dataclass(frozen=True, slots=True)
class Weighed:
    """One condition on some counts.

    Attributes:
        condition: what is asked for.
        counts: agreeing and not; per cost level; or the four parity classes.
        estimate: the plain share or mean cost, None without records.
        bound: the one that holds at every look; None for parity, renewals and without records.
        met: whether the condition is met at its risk.
    """

    condition: Condition
    counts: tuple[int, ...]
    estimate: float | None
    bound: float | None
    met: bool

    @property
    def n(self) -> int:
        """Return how many records there are."""
        return sum(self.counts)


@dataclass(frozen=True, slots=True)
class Line:
    """A condition as it was frozen and as it is now; None where it can't be read any more."""

    text: str
    frozen: Weighed | None
    now: Weighed | None


@dataclass(frozen=True, slots=True)
class Beside:
    """What a gate asks for beside its conditions, and what there is of it now."""

    units: int
    days: int
    reviewers: int
    closed: int
    missing: int
    minimum: Minimum
    missing_at_most: float


@dataclass(frozen=True, slots=True)
class ProposalEvidence:
    """The evidence that a proposal rests on.

    Attributes:
        lines: one a frozen reading, in their order.
        beside: counted now; None where the policy has no such gate any more, and of proposals
            about no cell.
        lacks: what the gate lacks now, in words.
        turned: whether the evidence of now would void it.
        risk: of the gate in this attempt.
        attempt: which attempt the evidence is of.
        since: the first instant whose units count in it.
        promise: what the gate promises and what not, "" without a gate.
    """

    lines: tuple[Line, ...]
    beside: Beside | None = None
    lacks: tuple[str, ...] = ()
    turned: bool = False
    risk: float | None = None
    attempt: int = 1
    since: datetime | None = None
    promise: str = ""


def evidence_of(service: Service, caller: Caller, name: str, shown: Proposal) -> ProposalEvidence:
    """Return the figures behind a proposal that the caller was shown.

    Raises:
        NotAllowed: the caller may not read its site.
    """
    require(caller, Act.READ, name, (shown.site,) if shown.site else ())
    state = service.watch.confirmed(name).standing
    cell, stage_level = Cell(shown.site, shown.window), _rung(state.policy, shown)
    gate = (
        state.policy.gate(stage_level, cell) if stage_level and cell in state.policy.known else None
    )
    if gate is None:
        return ProposalEvidence(tuple(Line(text, None, None) for text in shown.readings))
    cell_evidence = known_of(service.database, state, cell, shown.version)
    return _weighed(state, shown, cell, stage_level, gate, cell_evidence)


def raised_on(service: Service, caller: Caller, name: str, evidence: str) -> tuple[str, ...]:
    """Return the readings that once were frozen under a hash, () where none were.

    Raises:
        NotAllowed: the caller may not read the rollout.
    """
    require(caller, Act.READ, name)
    state = service.watch.confirmed(name).standing
    with service.database.reading() as transaction:
        for row in Ledger(transaction, state.rollout).rows(kinds=("ProposalRaised",)):
            raised = row.fields
            site = str(raised.get("site", ""))
            if raised["evidence_hash"] == evidence and caller.may(Act.READ, name, site):
                return tuple(map(str, raised["readings"]))
    return ()


def _rung(policy: Policy, shown: Proposal) -> int:
    return policy.rungs.index(shown.to) if shown.to in policy.rungs else 0


def _weighed(
    stood: Standing, shown: Proposal, cell: Cell, rung: int, gate: Gate, known: Known
) -> ProposalEvidence:
    policy, scope = stood.policy, stood.scope
    cell_state = scope.state(cell, shown.version)
    reading, evidence_counts = _reading(policy, shown, cell, rung, cell_state.attempt, known)
    current_readings = {
        str(condition_reading.condition): condition_reading
        for condition_reading in reading.readings
    }
    unit_counts = evidence_counts if shown.kind == "renewal" else known.attempt
    return ProposalEvidence(
        lines=tuple(_line(text, current_readings, policy) for text in shown.readings),
        beside=Beside(
            units=evidence_counts.judged,
            days=evidence_counts.days,
            reviewers=evidence_counts.reviewers,
            closed=unit_counts.closed,
            missing=unit_counts.missing,
            minimum=gate.minimum,
            missing_at_most=policy.evidence.missing_at_most,
        ),
        lacks=reading.lacks,
        turned=reading.turned,
        risk=reading.readings[0].risk if reading.readings else None,
        attempt=cell_state.attempt,
        since=cell_state.attempt_since,
        promise=promise(policy)[policy.gates.index(gate)],
    )


def _reading(
    policy: Policy, shown: Proposal, cell: Cell, rung: int, attempt: int, known: Known
) -> tuple[GateReading, Counted]:
    """Return how the gate reads now, as a tick would read it, and what its minimum is held to."""
    if shown.kind == "renewal":
        renewal_counts = known.spans.get(shown.to, Counted())
        return read_renewal(policy, cell, rung, renewal_counts), renewal_counts
    counts = known.attempt if shown.kind == "takeover" else known.entered
    return read_gate(policy, cell, rung, attempt, known.attempt, counts), counts


def _line(text: str, now: dict[str, Reading], policy: Policy) -> Line:
    reading = next(
        (
            condition_reading
            for condition_text, condition_reading in now.items()
            if text.startswith(f"{condition_text}: ")
        ),
        None,
    )
    if reading is None:
        return Line(text, None, None)
    frozen = _frozen(text[len(str(reading.condition)) :], reading.condition, policy)
    return Line(text, frozen, _of(reading.condition, reading.counts, reading.risk, policy))


def _frozen(figures: str, condition: Condition, policy: Policy) -> Weighed | None:
    """Read a frozen reading's counts and risk; None where its counts are of another form."""
    match = FIGURES.fullmatch(figures)
    if match is None:
        return None
    counts = tuple(_counts(match["counts"]))
    width = 4 if condition.measure == "parity" else len(policy.cost_levels)
    if len(counts) != (width if condition.measure in {"cost", "parity"} else 2):
        return None
    return _of(condition, counts, float(match["risk"]), policy)


def _counts(text: str) -> Iterator[int]:
    """Yield the counts of `418 of 426`, or of a row of numbers."""
    if " of " in text:
        agreements, _, total = text.partition(" of ")
        yield from (int(agreements), int(total) - int(agreements))
        return
    yield from map(int, text.split())


def _of(condition: Condition, counts: tuple[int, ...], risk: float, policy: Policy) -> Weighed:
    count, rows = sum(counts), np.array([counts], dtype=np.int64)
    has_bound = count and risk < 1  # a renewal is held to an E of 1: no bound goes with that
    bound = bounds_of(condition, rows, risk, policy) if has_bound else None
    return Weighed(
        condition=condition,
        counts=counts,
        estimate=float(estimates_of(condition, rows, policy)[0]) if count else None,
        bound=None if bound is None else float(bound[0]),
        met=read_condition(condition, counts, risk, policy).met,
    )
