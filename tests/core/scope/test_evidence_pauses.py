"""Pauses of a cell's evidence: nothing counts, nothing widens, and a resume begins anew."""

from contextlib import nullcontext
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout.core.calendar.sites import Cell
from rollout.core.errors import NotAllowedError, UnknownCellError, UserRequiredError
from rollout.core.scope.attempts import describe_cell_attempt
from rollout.core.scope.commands import PauseEvidence, ResumeEvidence
from rollout.core.scope.events import (
    ClockCorrected,
    EvidencePaused,
    EvidenceResumed,
    PolicyApplied,
)
from rollout.core.scope.projection import apply_event, apply_events
from rollout.core.scope.scope import EvidencePause
from tests.core.scope.test_attempts import YearDriver
from tests.factories import (
    ANA,
    BO,
    BOT,
    CREEK,
    CREEK_NIGHT,
    CY,
    HOUR,
    LAKE,
    MET,
    build_evidence,
    counted,
    kinds,
    supervised,
)


def pause(rollout, cell=CREEK, by=BO):
    return rollout.do(PauseEvidence(at=rollout.at, by=by, cell=cell, reason="hopeless"))


def resume(rollout, cell=CREEK, by=BO):
    return rollout.do(ResumeEvidence(at=rollout.at, by=by, cell=cell))


def tick(rollout, _cell):
    return rollout.tick(dict.fromkeys((CREEK, CREEK_NIGHT, LAKE), MET))


def approve(rollout, _cell):
    for proposal in list(rollout.scope.proposals.values()):
        if not proposal.approvals and proposal.to == "supervised":
            rollout.approve(proposal, ANA, BO)


def narrow(rollout, cell):
    return rollout.narrow("shadow", cell)


def test_a_paused_cell_raises_nothing_and_resumes_with_a_new_attempt():
    rollout = YearDriver()
    assert kinds(pause(rollout)) == ["EvidencePaused"]
    assert rollout.scope.evidence_pauses == {CREEK: EvidencePause("bo", rollout.at)}
    assert rollout.after(HOUR).tick({CREEK: MET}) == ()
    assert describe_cell_attempt(rollout.scope, rollout.policy, CREEK, "v1", rollout.at) == (
        "no attempt: its evidence is paused"
    )
    assert kinds(resume(rollout.after(HOUR))) == ["EvidenceResumed"]
    state = rollout.scope.get_cell_state(CREEK, "v1")
    assert (state.attempt, state.attempt_since, state.has_begun) == (2, rollout.at, False)
    assert rollout.scope.get_cell_state(CREEK_NIGHT, "v1").attempt == 1
    raised = kinds(rollout.after(HOUR).tick({CREEK: MET}))
    assert raised == ["AttemptsBegan", "ProposalRaised"]


def test_a_pause_voids_the_cells_proposals():
    rollout = YearDriver()
    rollout.tick({CREEK: MET, LAKE: MET})
    proposal = rollout.open(cell=CREEK)
    rollout.approve(proposal, ANA, BO)
    assert kinds(pause(rollout)) == ["ProposalVoided", "EvidencePaused"]
    assert kinds(rollout.after(HOUR).tick()) == []
    assert [p.cell for p in rollout.scope.proposals.values()] == [LAKE]


def test_a_resumed_version_that_had_begun_gets_the_next_number_of_the_year():
    rollout = YearDriver()
    weak = build_evidence(counted(3, 1))
    assert "AttemptsBegan" in kinds(rollout.tick({CREEK: weak}))
    pause(rollout.after(HOUR))
    resume(rollout.after(HOUR))
    (began, *_) = rollout.after(HOUR).tick({CREEK: weak})
    assert (began.numbers, began.cells) == ((2,), (CREEK,))


def test_a_cell_above_shadow_is_not_paused_even_if_stopped():
    rollout = supervised()
    with pytest.raises(NotAllowedError, match="narrow the cell to shadow first"):
        pause(rollout)
    rollout.stop(CREEK)
    with pytest.raises(NotAllowedError, match="v1 has grants in creek"):
        pause(rollout)
    rollout.narrow("shadow", CREEK)
    assert kinds(pause(rollout)) == ["EvidencePaused"]


def test_repeats_change_nothing_and_only_users_pause_cells_of_the_policy():
    rollout = YearDriver()
    assert resume(rollout) == ()
    pause(rollout)
    assert pause(rollout, by=CY) == ()
    assert rollout.scope.evidence_pauses[CREEK].by == "bo"
    with pytest.raises(UserRequiredError):
        resume(rollout, by=BOT)
    for command in (pause, resume):
        with pytest.raises(UnknownCellError, match="no cell"):
            command(rollout, Cell("moon", "day"))


STEPS = st.lists(
    st.tuples(
        st.sampled_from([pause, resume, tick, tick, approve, narrow]),
        st.sampled_from([CREEK, CREEK_NIGHT, LAKE]),
    ),
    max_size=40,
)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(STEPS)
def test_no_paused_cell_widens_and_no_earlier_unit_counts_after_it(steps):
    rollout = YearDriver()
    first = len(rollout.events)
    before, resumed_at = rollout.scope, {}
    for step, cell in steps:
        rollout.after(HOUR)
        is_above = rollout.scope.get_holder(cell) is not None
        with pytest.raises(NotAllowedError) if step is pause and is_above else nullcontext():
            step(rollout, cell)
        scope = rollout.scope
        resumed_at |= {e.cell: e.at for e in rollout.events if isinstance(e, EvidenceResumed)}
        assert not any(scope.get_holder(paused) for paused in scope.evidence_pauses)
        assert not [p for p in scope.proposals.values() if p.cell in scope.evidence_pauses]
        assert all(scope.cells[c, "v1"].attempt_since >= at for c, at in resumed_at.items())
    assert apply_events(rollout.events[first:], before) == rollout.scope


def test_a_pause_from_a_skipped_time_is_moved_back_with_it():
    rollout = YearDriver()
    start = rollout.at
    pause(rollout.after(timedelta(days=3)))
    assert isinstance(rollout.events[-1], EvidencePaused)
    corrected = ClockCorrected(at=start, by="policy", previous_time=rollout.at, proposal="")
    scope = apply_event(rollout.scope, corrected)
    assert scope.evidence_pauses[CREEK].since == start


def test_a_renamed_cell_that_was_resumed_is_not_paused_under_its_old_name_again():
    rollout = YearDriver()
    at, brook = rollout.at, Cell("brook", CREEK.window)
    pause(rollout)

    def rename(new, old):
        parts = {"cleared": (old,), "renamed": (new,), "former": (old,)}
        return PolicyApplied(at=at, by="bo", number=2, policy_hash="x", **parts)

    renamed = apply_event(rollout.scope, rename(brook, CREEK))
    assert list(renamed.evidence_pauses) == [brook]
    back = [EvidenceResumed(at=at, by="bo", cell=brook), rename(CREEK, brook)]
    assert apply_events(back, renamed).evidence_pauses == {}
