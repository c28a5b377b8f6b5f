"""A renewal that an operator asks for: by the tick's conditions, without waiting for the tick."""

from dataclasses import replace

import pytest

from rollout.engine.decide.commands import ProposeRenewal, RejectProposal
from rollout.kernel.calendar.instants import Cell
from rollout.kernel.errors import (
    NotEligibleError,
    UnknownCellError,
    UnknownVersionError,
    UserRequiredError,
)
from rollout.kernel.policy.policy import Limit
from tests.factories import (
    BO,
    BOT,
    CHANGE,
    CREEK,
    DAN,
    DAY,
    MET,
    MINUTE,
    NOTHING,
    TURNED,
    RolloutDriver,
    VersionEvidence,
    alarm,
    autonomous,
    build_evidence,
    counted,
    gates,
    kinds,
    policy,
    supervised,
)

WEAK = build_evidence(counted(99))


def due(build=supervised, **changes) -> RolloutDriver:
    """Return a rollout whose first grant has just entered its last fifth."""
    rollout = build(policy(**changes))
    grant = rollout.scope.get_cell_state(CREEK, "v1").grants[0]
    rollout.at = grant.until - 18 * DAY
    return rollout


def ask(rollout: RolloutDriver, to: str = "supervised", of: VersionEvidence = MET, **changes):
    asked = ProposeRenewal(
        at=rollout.at, by=BO, cell=CREEK, version="v1", to=to, evidence={(CREEK, "v1"): of}
    )
    return rollout.do(replace(asked, **changes))


def test_an_operator_raises_what_the_tick_would_raise():
    rollout, other = due(), due()
    (raised,) = ask(rollout)
    (ticked,) = other.after(-MINUTE * 15).tick({CREEK: MET})
    assert replace(raised, by="policy") == ticked
    assert raised.by == "bo"
    rollout.approve(raised, DAN, replace(DAN, name="eve"))
    assert kinds(rollout.tick()) == ["Renewed"]


def test_not_before_the_last_fifth_of_the_grant():
    rollout = due().after(-MINUTE)
    with pytest.raises(
        NotEligibleError, match="the last fifth of the grant begins 2027-08-12T12:30"
    ):
        ask(rollout)


@pytest.mark.parametrize(
    ("of", "says"),
    [(NOTHING, "0 of 100 decided units"), (WEAK, "99 of 100"), (TURNED, "does not reach")],
)
def test_it_needs_the_evidence_of_the_grants_own_span(of, says):
    with pytest.raises(NotEligibleError, match=says):
        ask(due(), of=of)


def test_a_grant_that_is_not_held_is_not_renewed():
    with pytest.raises(NotEligibleError, match="holds no grant of autonomous"):
        ask(due(), "autonomous")
    with pytest.raises(NotEligibleError, match="holds no grant of moon"):
        ask(due(), "moon")
    with pytest.raises(NotEligibleError, match="holds no grant of shadow"):
        ask(due(), "shadow")
    with pytest.raises(NotEligibleError, match="holds no grant"):
        ask(due().after(18 * DAY))


def test_each_rung_has_its_own_grant():
    rollout = due(autonomous)
    rollout.after(DAY)
    assert ask(rollout)[0].to_stage == "supervised"


def test_above_the_ceiling_or_without_a_gate_a_grant_only_lapses():
    rollout = due()
    rollout.edit(policy(limits=(Limit(never_above="shadow"),)))
    with pytest.raises(NotEligibleError, match="may only lapse"):
        ask(rollout)
    assert rollout.tick({CREEK: MET}) == ()
    rollout = due(gates=gates()[:1])
    rollout.edit(policy(gates=()))
    with pytest.raises(NotEligibleError, match="may only lapse"):
        ask(rollout)
    assert rollout.tick({CREEK: MET}) == ()


def test_asked_for_again_it_is_the_proposal_that_is_open():
    rollout = due()
    ask(rollout)
    assert ask(rollout) == ()
    rollout = due()
    rollout.raised()
    assert ask(rollout) == ()  # the tick had raised it


def test_another_proposal_of_the_cell_is_closed_first():
    rollout = supervised()
    rollout.raised()
    rollout.at = rollout.scope.get_cell_state(CREEK, "v1").grants[0].until - 18 * DAY
    with pytest.raises(NotEligibleError, match="P-2 of v1 is open there"):
        ask(rollout)


@pytest.mark.parametrize(
    ("how", "says"),
    [("rejection", "quiet time"), ("stop", "is stopped"), ("report", "guard is in alarm")],
)
def test_it_waits_for_what_the_ticks_would_wait_for(how, says):
    rollout = due()
    match how:
        case "rejection":
            rollout.do(RejectProposal(at=rollout.at, by=DAN, proposal=rollout.raised().id))
        case "stop":
            rollout.stop()
        case "report":
            rollout.tick({CREEK: alarm(CHANGE, of=NOTHING)})
    with pytest.raises(NotEligibleError, match=says):
        ask(rollout)


def test_keys_unknown_cells_and_unknown_versions_are_refused():
    rollout = due()
    with pytest.raises(UserRequiredError):
        ask(rollout, by=BOT)
    with pytest.raises(UnknownCellError):
        ask(rollout, cell=Cell("moon", "day"))
    with pytest.raises(UnknownVersionError):
        ask(rollout, version="v9")
