"""Asking for the end of a stop always works, and its answer says who is left to approve it."""

import pytest

from rollout.core.errors import UnknownRollout
from rollout.core.scope.permissions import Caller, Right
from rollout.services.access import users
from rollout.services.access.authentication import Door
from rollout.services.access.users import local_caller
from rollout.services.engine.service import service_on
from rollout.services.proposals import proposals
from rollout.services.proposals.approval_permissions import asking, too_few
from rollout.services.stops.stops import Named, ask_resume, stop
from rollout.services.support.clock import SetClock
from tests.api.bears import approved, founded, scope_of, tick, widened
from tests.factories import NOON, TICK

OPERATOR, SAFETY = Right("operator"), Right("approver", group="safety")
CREEK_ALONE = Right("operator", "bears", "creek")
EVERYWHERE = ("creek", "lake")


@pytest.fixture
def bears(database):
    founded(database, NOON)
    users.first_admin(database, "ada", at=NOON)
    return database


@pytest.fixture
def service(bears):
    clock = SetClock(NOON)
    return service_on(bears, Door(bears, clock), clock)


def let_in(database, **rights):
    ada = local_caller(database, "ada")
    for name, held in rights.items():
        users.add(database, ada, name, at=NOON, rights=held)


def asked(database, name, *, sites=()):
    """Stop some sites, everything by default, and ask for the end; return the answer."""
    me = local_caller(database, name)
    held = stop(database, me, "bears", Named(sites=sites, everything=not sites), at=NOON)
    return ask_resume(database, me, "bears", held.active_stops[0].id, at=NOON)


def test_where_enough_are_left_it_says_whom_it_waits_for(bears):
    let_in(bears, ana=[OPERATOR], bo=[OPERATOR], cy=[OPERATOR])
    assert asked(bears, "ana").text == "P-1 needs 2 operators other than ana"


def test_where_nobody_is_left_it_is_asked_all_the_same_and_says_whom_to_add(bears):
    let_in(bears, ana=[OPERATOR])
    done = asked(bears, "ana")
    assert [event.kind for event in done.events] == ["ProposalRaised"]
    assert done.text == (
        "nobody is left who can approve it: it needs 2 operators other than ana; "
        "give 2 more people the role operator at creek and lake"
    )


def test_one_who_is_left_alone_is_named(bears):
    let_in(bears, ana=[OPERATOR], bo=[OPERATOR], cy=[CREEK_ALONE], sue=[SAFETY])
    assert asked(bears, "ana").text == (
        "bo alone can approve it, but it needs 2 operators other than ana; "
        "give 1 more person the role operator at creek and lake"
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
    by = [local_caller(bears, name).person("bears") for name in ("ana", "bo")]
    approved(bears, NOON + 2 * TICK, *by)
    done = asked(bears, "ana", sites=("creek",))
    assert done.required_approvals == ("operator", "safety")
    assert done.text == (
        f"bo and cy can approve it, but it needs 1 operator and 1 of safety other than ana; "
        f"reject {done.proposal} and let bo or cy ask, "
        "or give 1 more person the role approver of safety at creek"
    )
    proposals.reject(bears, local_caller(bears, "ana"), "bears", done.proposal, at=NOON)
    bo = local_caller(bears, "bo")
    again = ask_resume(bears, bo, "bears", done.stop, at=NOON)
    assert again.text == f"{again.proposal} needs 1 operator and 1 of safety other than bo"


def test_a_yes_counts_whatever_rights_its_giver_has_now(bears, service):
    let_in(bears, ana=[OPERATOR], bo=[OPERATOR], cy=[OPERATOR])
    done = asked(bears, "ana")
    yes = (bears, local_caller(bears, "bo"), "bears", done.proposal, done.evidence_hash)
    proposals.approve(*yes, at=NOON)
    taken = users.Amendment(take=(OPERATOR,))
    users.amend(bears, local_caller(bears, "ada"), "bo", taken, at=NOON)
    ana = local_caller(bears, "ana")
    assert too_few(service, ana, "bears", done.proposal) == ""
    users.amend(bears, local_caller(bears, "ada"), "cy", taken, at=NOON)
    assert too_few(service, ana, "bears", done.proposal) == (
        "bo alone can approve it, but it needs 2 operators other than ana; "
        "give 1 more person the role operator at creek and lake"
    )


def test_an_approved_resume_says_that_it_waits_for_its_time(bears):
    let_in(bears, ana=[OPERATOR], bo=[OPERATOR], cy=[OPERATOR])
    done = asked(bears, "ana")
    for name in ("bo", "cy"):
        yes = (bears, local_caller(bears, name), "bears", done.proposal, done.evidence_hash)
        proposals.approve(*yes, at=NOON)
    again = ask_resume(bears, local_caller(bears, "ana"), "bears", done.stop, at=NOON)
    assert again.text == "P-1 is approved: the next tick that may applies it"


def test_while_nobody_was_ever_added_only_the_needs_are_said(database):
    founded(database, NOON)
    assert asked(database, "zoe").text == "P-1 needs 2 operators other than zoe"


# Before anybody asks


def look(service, name, needs=("operator", "operator"), sites=EVERYWHERE):
    caller = local_caller(service.database, name)
    return asking(service, caller, "bears", needs, sites)


def test_whoever_may_ask_and_leaves_enough_is_warned_of_nothing(bears, service):
    let_in(bears, ana=[OPERATOR], bo=[OPERATOR], cy=[OPERATOR])
    found = look(service, "ana")
    assert (found.able, found.warns) == (("ana", "bo", "cy"), "")


def test_whoever_should_not_ask_is_told_who_should(bears, service):
    let_in(bears, ana=[OPERATOR, SAFETY], bo=[OPERATOR], cy=[OPERATOR])
    found = look(service, "ana", ("operator", "safety"))
    assert found.able == ("bo", "cy")
    assert found.warns.startswith("if you ask, bo and cy can approve it, but it needs 1 operator")
    assert "; let bo or cy ask, or give 1 more person the role approver of safety" in found.warns
    assert look(service, "bo", ("operator", "safety")).warns == ""


def test_an_approver_may_not_ask_and_is_told_who_can(bears, service):
    let_in(bears, ana=[OPERATOR], bo=[OPERATOR], sue=[SAFETY])
    found = look(service, "sue", ("operator", "safety"))
    assert (found.able, found.warns) == (("ana", "bo"), "")
    found = look(service, "sue")
    assert found.able == ()
    assert found.warns == (
        "as people stand nobody can take it back; "
        "give 1 more person the role operator at creek and lake"
    )


def test_whoever_may_not_read_the_rollout_is_told_nothing(bears, service):
    stranger = Caller("dot", rights=(Right("viewer", "deer"),))
    with pytest.raises(UnknownRollout):
        asking(service, stranger, "bears", ("operator",), EVERYWHERE)
    with pytest.raises(UnknownRollout):
        too_few(service, stranger, "bears", "P-1")
