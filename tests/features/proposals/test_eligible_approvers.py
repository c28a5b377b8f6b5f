"""Asking for the end of a stop always works, and its answer says who is left to approve it."""

import pytest

from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.engine.decide.stops import StopTarget
from rollout.features.access import users
from rollout.features.access.authentication import Authenticator
from rollout.features.access.sign_in import SignIn
from rollout.features.access.users import load_local_caller
from rollout.features.proposals import proposals
from rollout.features.proposals.proposals import describe_missing_approvers, load_resume_askers
from rollout.features.stops.stops import propose_resume, stop_cells
from rollout.kernel.errors import UnknownRolloutError
from rollout.live.clock import ManualClock
from rollout.live.service import build_service
from tests.api.bears import approved, founded, scope_of, tick, widened
from tests.factories import DAY, NOON, TICK
from tests.features.access.test_sign_in import QUICK
from tests.features.houses import PASSWORD, chance

OPERATOR, SAFETY = AssignedRole("operator"), AssignedRole("approver", group="safety")
CREEK_ALONE = AssignedRole("operator", "bears", "creek")
EVERYWHERE = ("creek", "lake")


@pytest.fixture
def bears(database):
    founded(database, NOON)
    users.create_first_admin(database, "ada", at=NOON)
    return database


@pytest.fixture
def clock():
    return ManualClock(NOON)


@pytest.fixture
def service(bears, clock):
    return build_service(bears, Authenticator(bears, clock), clock)


def let_in(database, **rights):
    ada = load_local_caller(database, "ada")
    for name, held in rights.items():
        users.create_account(database, ada, name, at=NOON, role_assignments=held)


def asked(database, name, *, sites=()):
    """Stop some sites, everything by default, and ask for the end; return the answer."""
    me = load_local_caller(database, name)
    held = stop_cells(
        database, me, "bears", StopTarget(sites=sites, is_everything=not sites), at=NOON
    )
    return propose_resume(database, me, "bears", held.active_stops[0].id, at=NOON)


def test_where_enough_are_left_it_says_whom_it_waits_for(bears):
    let_in(bears, ana=[OPERATOR], bo=[OPERATOR], cy=[OPERATOR])
    assert asked(bears, "ana").text == "P-1 needs 2 operators other than ana"


def test_where_nobody_is_left_it_is_asked_all_the_same_and_says_whom_to_add(bears):
    let_in(bears, ana=[OPERATOR])
    done = asked(bears, "ana")
    assert [event.kind for event in done.events] == ["ProposalRaised"]
    assert done.text == (
        "no user is left who can approve it: it needs 2 operators other than ana; "
        "give 2 more users the role operator at creek and lake"
    )


def test_one_who_is_left_alone_is_named(bears):
    let_in(bears, ana=[OPERATOR], bo=[OPERATOR], cy=[CREEK_ALONE], sue=[SAFETY])
    assert asked(bears, "ana").text == (
        "bo alone can approve it, but it needs 2 operators other than ana; "
        "give 1 more user the role operator at creek and lake"
    )


def test_those_who_stand_at_the_sites_of_the_stop_are_enough(bears):
    let_in(bears, ana=[OPERATOR], bo=[OPERATOR], cy=[CREEK_ALONE])
    assert asked(bears, "ana", sites=("creek",)).text == "P-1 needs 2 operators other than ana"


def test_where_another_should_have_asked_it_says_who_and_how(bears):
    widened(bears, NOON)
    tick(bears, NOON + TICK)
    raised = scope_of(bears).proposals
    assert [p.needs for p in raised.values()] == [("operator", "safety")]
    let_in(bears, ana=[OPERATOR, SAFETY], bo=[OPERATOR], cy=[OPERATOR])
    by = [load_local_caller(bears, name).as_actor("bears") for name in ("ana", "bo")]
    approved(bears, NOON + 2 * TICK, *by)
    done = asked(bears, "ana", sites=("creek",))
    assert done.required_approvals == ("operator", "safety")
    assert done.text == (
        f"bo and cy can approve it, but it needs 1 operator and 1 of safety other than ana; "
        f"reject {done.proposal} and let bo or cy ask, "
        "or give 1 more user the role approver of safety at creek"
    )
    proposals.reject_proposal(
        bears, load_local_caller(bears, "ana"), "bears", done.proposal, at=NOON
    )
    bo = load_local_caller(bears, "bo")
    again = propose_resume(bears, bo, "bears", done.stop, at=NOON)
    assert again.text == f"{again.proposal} needs 1 operator and 1 of safety other than bo"


def test_who_was_reset_counts_again_after_a_day(bears, service, clock):
    let_in(bears, ana=[OPERATOR], bo=[OPERATOR], cy=[OPERATOR])
    done = asked(bears, "ana")
    ana, ada = load_local_caller(bears, "ana"), load_local_caller(bears, "ada")
    signing = SignIn(bears, clock, chance, QUICK)
    for _ in "12":  # the first one is no reset
        signing.set_password(ada, "cy", PASSWORD, at=clock.now())
    assert describe_missing_approvers(service, ana, "bears", done.proposal).startswith(
        "bo alone can approve it, but it needs 2 operators other than ana"
    )
    clock.advance(DAY)
    assert describe_missing_approvers(service, ana, "bears", done.proposal) == ""


def test_a_yes_counts_whatever_rights_its_giver_has_now(bears, service):
    let_in(bears, ana=[OPERATOR], bo=[OPERATOR], cy=[OPERATOR])
    done = asked(bears, "ana")
    yes = (bears, load_local_caller(bears, "bo"), "bears", done.proposal, done.evidence_hash)
    proposals.approve_proposal(*yes, at=NOON)
    taken = users.AccountUpdate(roles_to_revoke=(OPERATOR,))
    users.update_account(bears, load_local_caller(bears, "ada"), "bo", taken, at=NOON)
    ana = load_local_caller(bears, "ana")
    assert describe_missing_approvers(service, ana, "bears", done.proposal) == ""
    users.update_account(bears, load_local_caller(bears, "ada"), "cy", taken, at=NOON)
    assert describe_missing_approvers(service, ana, "bears", done.proposal) == (
        "bo alone can approve it, but it needs 2 operators other than ana; "
        "give 1 more user the role operator at creek and lake"
    )


def test_an_approved_resume_says_that_it_waits_for_its_time(bears):
    let_in(bears, ana=[OPERATOR], bo=[OPERATOR], cy=[OPERATOR])
    done = asked(bears, "ana")
    for name in ("bo", "cy"):
        yes = (bears, load_local_caller(bears, name), "bears", done.proposal, done.evidence_hash)
        proposals.approve_proposal(*yes, at=NOON)
    again = propose_resume(bears, load_local_caller(bears, "ana"), "bears", done.stop, at=NOON)
    assert again.text == "P-1 is approved: the next tick that may applies it"


def test_while_nobody_was_ever_added_only_the_needs_are_said(database):
    founded(database, NOON)
    assert asked(database, "zoe").text == "P-1 needs 2 operators other than zoe"


# Before anybody asks


def look(service, name, needs=("operator", "operator"), sites=EVERYWHERE):
    caller = load_local_caller(service.database, name)
    return load_resume_askers(service, caller, "bears", needs, sites)


def test_whoever_may_ask_and_leaves_enough_is_warned_of_nothing(bears, service):
    let_in(bears, ana=[OPERATOR], bo=[OPERATOR], cy=[OPERATOR])
    found = look(service, "ana")
    assert (found.asker_names, found.warning) == (("ana", "bo", "cy"), "")


def test_whoever_should_not_ask_is_told_who_should(bears, service):
    let_in(bears, ana=[OPERATOR, SAFETY], bo=[OPERATOR], cy=[OPERATOR])
    found = look(service, "ana", ("operator", "safety"))
    assert found.asker_names == ("bo", "cy")
    assert found.warning.startswith("If you ask, bo and cy can approve it, but it needs 1 operator")
    assert "; let bo or cy ask, or give 1 more user the role approver of safety" in found.warning
    assert look(service, "bo", ("operator", "safety")).warning == ""


def test_an_approver_may_not_ask_and_is_told_who_can(bears, service):
    let_in(bears, ana=[OPERATOR], bo=[OPERATOR], sue=[SAFETY])
    found = look(service, "sue", ("operator", "safety"))
    assert (found.asker_names, found.warning) == (("ana", "bo"), "")
    found = look(service, "sue")
    assert found.asker_names == ()
    assert found.warning == (
        "No user can end this stop at present; give 1 more user the role operator at creek and"
        " lake."
    )


def test_whoever_may_not_read_the_rollout_is_told_nothing(bears, service):
    stranger = Caller("dot", role_assignments=(AssignedRole("viewer", "deer"),))
    with pytest.raises(UnknownRolloutError):
        load_resume_askers(service, stranger, "bears", ("operator",), EVERYWHERE)
    with pytest.raises(UnknownRolloutError):
        describe_missing_approvers(service, stranger, "bears", "P-1")
