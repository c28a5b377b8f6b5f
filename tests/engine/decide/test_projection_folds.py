"""Folding many events at once: the same scope as one by one, from any point, at their cost."""

from dataclasses import replace
from datetime import datetime
from random import Random
from types import MappingProxyType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout.engine.decide.projection import apply_event, apply_events
from rollout.engine.decide.scope import Scope
from rollout.engine.events import (
    Approved,
    ClockCorrected,
    GrantExpired,
    IncidentAcknowledged,
    IncidentOpened,
    LedgerEvent,
    Narrowed,
    PolicyApplied,
    ProposalRaised,
    ProposalRejected,
    RecordsPurged,
    Renewed,
    ReportSealed,
    Resumed,
    Stopped,
    Suspended,
    SuspensionCleared,
    TakenOver,
    VersionFirstUsed,
    VersionRetired,
    Widened,
)
from rollout.kernel.calendar.instants import SHADOW, Cell
from tests.engine.decide.test_projection import SEEN, widened
from tests.factories import (
    CREEK,
    DAY,
    HOUR,
    LAKE,
    NOON,
    eventful,
)


def happens(scope: Scope, at: datetime, chance: Random) -> LedgerEvent:
    """Return a next event that a ledger in this state could hold."""
    cell, version = chance.choice([CREEK, LAKE]), chance.choice(["v1", "v2"])
    of = {"at": at, "by": "policy", "cell": cell, "version": version}
    held = [g.stage for g in scope.get_cell_state(cell, version).grants]
    is_open = chance.choice([*scope.proposals, ""])
    stage, next_number = chance.choice(["supervised", "autonomous"]), scope.proposal_count + 1
    choices: list[LedgerEvent] = [
        PolicyApplied(
            at=at,
            by="bo",
            number=2,
            policy_hash="x",
            restarted=(cell,),
            cleared=(cell,) * (at.hour < 4),
        ),
        VersionFirstUsed(at=at, by="policy", version=f"v{chance.randint(1, 4)}"),
        VersionRetired(at=at, by="bo", version=version),
        Widened(**of, to_stage=stage, until=at + DAY, proposal=is_open),
        Renewed(**of, stage=stage, until=at + DAY, proposal=is_open),
        TakenOver(
            **of,
            replaced_version="v1",
            to_stage=stage,
            stages=(stage,),
            grant_ends=(at + DAY,),
            proposal=is_open,
        ),
        Narrowed(
            **of, from_stage=stage, to_stage=chance.choice([SHADOW, *held]), guard="g", restart=True
        ),
        Suspended(**of, guard="a"),
        SuspensionCleared(**of, guard="a"),
        GrantExpired(**of, stage=stage, until=at),
        Stopped(at=at, by="bo", stop=f"S-{scope.revision}", cells=(cell,)),
        Resumed(at=at, by="policy", stop=chance.choice([*scope.stops, "S-0"]), proposal=is_open),
        IncidentOpened(
            **of,
            incident=f"I-{scope.incident_count + 1}",
            kind="alarm",
            effect="reported",
            reason="r",
        ),
        IncidentAcknowledged(at=at, by="bo", incident="I-1"),
        ClockCorrected(at=at - DAY, by="policy", previous_time=scope.at or at),
        RecordsPurged(at=at, by="policy", before=at, tables=("cases",), counts=(1,)),
        ReportSealed(
            at=at, by="bo", report="r", since=at, until=at, number=1, state="final", sha256="h"
        ),
        ProposalRaised(
            **of,
            proposal=f"P-{next_number}",
            kind="widening",
            expires_at=at + DAY,
            needs=(),
            evidence_hash="e",
        ),
    ]
    if is_open:
        choices += [
            Approved(at=at, by="bo", proposal=is_open, groups=(), evidence_hash="e"),
            ProposalRejected(at=at, by="bo", proposal=is_open, quiet_until=at + DAY),
        ]
    return chance.choice(choices)


@pytest.mark.slow
@given(st.integers(0, 2**32), st.integers(1, 60))
@settings(deadline=None, max_examples=150)
def test_folding_many_events_is_evolving_by_one_after_the_other(seed, length):
    chance, events = Random(seed), [SEEN, replace(SEEN, version="v2")]  # noqa: S311 - no secret
    scope = before = apply_events(events)
    kept = repr(before)
    for _ in range(length):
        events.append(happens(scope, NOON + chance.randint(-9, 99) * HOUR, chance))
        scope = apply_event(scope, events[-1])
    assert repr(apply_events(events)) == repr(scope)
    assert repr(apply_events(events[2:], before)) == repr(scope)
    assert repr(before) == kept
    assert all(
        scope.get_holder(c) is None or scope.get_cell_state(c, scope.get_holder(c)).grants
        for c in CELLS
    )


CELLS = (CREEK, LAKE)


def test_a_scope_cannot_be_written_to():
    scope = apply_events(eventful().events)
    for part in ("versions", "cells", "proposals", "stops", "widened_at", "open_incidents"):
        assert isinstance(getattr(scope, part), MappingProxyType)


def many_cells(count: int) -> list[LedgerEvent]:
    return [
        SEEN,
        *(replace(widened("supervised"), cell=Cell(f"s{n}", "day")) for n in range(count)),
    ]


def test_a_long_fold_costs_as_much_as_it_has_events_however_many_cells_there_are():
    scope = apply_events(many_cells(2000))
    assert (len(scope.cells), scope.revision) == (2000, 2001)
    calls = Counting(scope.cells)
    apply_events(many_cells(50), replace(scope, cells=calls))
    assert calls.copies == 1


class Counting(dict):
    """A dict that counts how often it is copied."""

    copies = 0

    def copy(self):
        self.copies += 1
        return dict(self)
