"""For any roles, proposals, incidents and tasks: who is notified may, and who needn't is not."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.data.database.rollouts import Rollout
from rollout.data.reviews.reviews import OPEN, StoredReviewTask
from rollout.engine.decide.permissions import (
    READ_ROLES,
    ROLES,
    AssignedRole,
    Caller,
    Permission,
    may_be_asked_blind,
)
from rollout.engine.decide.scope import GivenApproval, Incident, ProposalState, Scope
from rollout.features.notifications.kinds import KIND_OF_NOTICE, KINDS, select_notices
from rollout.features.notifications.proposal_kinds import (
    HALF_TIME,
    LAST_DAY,
    PROPOSAL,
    NotificationUser,
    RolloutNews,
    list_reminders,
)
from rollout.kernel.calendar.instants import Cell
from rollout.kernel.policy_files.reader import parse_policy
from rollout.live.rollout_state import RolloutState
from tests.api.bears import POLICY
from tests.factories import DAY, HOUR, NOON
from tests.properties import examples

SITES = ("creek", "lake")
BEARS = parse_policy(POLICY)
HASH = "0" * 64
HOURS = st.integers(0, 20 * 24).map(lambda hours: NOON + hours * HOUR)
ASSIGNMENTS = st.builds(
    AssignedRole,
    st.sampled_from(["operator", "operator", "reviewer", "viewer", "admin", "ingest"]),
    st.sampled_from(["bears", "bears", "bears", "wolves"]),
    st.sampled_from(["", *SITES]),
) | st.sampled_from([AssignedRole(role) for role in ROLES if role != "approver"])
CALLERS = st.builds(
    lambda name, roles: Caller(name, role_assignments=tuple(roles)),
    st.sampled_from(["ana", "bo"]),
    st.lists(ASSIGNMENTS, max_size=3),
)
APPROVALS = st.lists(
    st.sampled_from(["ana", "bo", "cy"]).map(lambda name: GivenApproval(name, ("operator",), NOON)),
    max_size=2,
    unique_by=lambda approval: approval.by,
)


def build_items(tasks):
    """Return what each kind loads of a rollout: review tasks alone."""
    return dict.fromkeys(KINDS, ()) | {"reviews": tuple(tasks)}


@st.composite
def draw_proposals(draw):
    found = {}
    for number in range(draw(st.integers(0, 3))):
        raised_at = draw(HOURS)
        proposal = ProposalState(
            f"P-{number}",
            "widening",
            raised_at,
            "policy",
            raised_at + draw(st.sampled_from([2 * HOUR, 30 * HOUR, 14 * DAY])),
            HASH,
            ("operator", "operator"),
            Cell(draw(st.sampled_from(SITES)), "day"),
            "v1",
            "supervised",
            approvals=tuple(draw(APPROVALS)),
        )
        found[proposal.id] = proposal
    return found


def build_task(number, site, due_at):
    return StoredReviewTask(
        id=number,
        case_id=number,
        kind="blind",
        task_number=1,
        site=site,
        version=None,
        opened_at=NOON,
        due_at=due_at,
        answer_by=None,
        state=OPEN,
        reviewer=None,
        claimed_until=None,
        gold_answers=None,
        gold_decision=None,
    )


@st.composite
def draw_news(draw):
    cells = st.sampled_from([None, *(Cell(site, "day") for site in SITES)])
    incidents = {
        f"I-{number}": Incident(f"I-{number}", "alarm", "r", draw(HOURS), draw(cells))
        for number in range(draw(st.integers(0, 3)))
    }
    tasks = [
        build_task(number, draw(st.sampled_from(SITES)), draw(HOURS))
        for number in range(draw(st.integers(0, 3)))
    ]
    scope = Scope(policy_number=1, proposals=draw(draw_proposals()), open_incidents=incidents)
    return RolloutNews(RolloutState(Rollout(1, "bears"), scope, BEARS, {}, {}), build_items(tasks))


EVERYTHING = dict.fromkeys(KINDS, NOON)
CHOICES = st.dictionaries(st.sampled_from(sorted(KINDS)), HOURS) | HOURS.map(
    lambda since: dict.fromkeys(KINDS, since)
)


@pytest.mark.slow
@examples(given(CALLERS, CHOICES, draw_news(), HOURS), fast=150, whole=2_000)
def test_nobody_is_notified_of_what_they_may_not_see_or_did_not_choose(caller, kinds, news, at):
    scope = news.state.scope
    for notice in select_notices(NotificationUser(caller, "UTC"), kinds, [news], at):
        assert KIND_OF_NOTICE[notice.kind].name in kinds
        if notice.kind in {PROPOSAL, HALF_TIME, LAST_DAY}:
            proposal = scope.proposals[notice.about]
            assert caller.has_permission(Permission.APPROVE, "bears", proposal.cell.site)
            assert caller.name not in {approval.by for approval in proposal.approvals}
            assert not proposal.is_approved
            assert at < proposal.expires_at
        if notice.kind in {HALF_TIME, LAST_DAY}:
            reminder_at = dict(list_reminders(proposal))[notice.kind]
            assert max(proposal.raised_at, kinds["reminders"]) <= reminder_at <= at
        if notice.kind == "incident":
            incident = scope.open_incidents[notice.about]
            assert incident.at >= kinds["incidents"]
            if incident.cell is not None:
                assert caller.has_permission(Permission.READ, "bears", incident.cell.site)
        if notice.kind == "review-deadline":
            hour = datetime.fromisoformat(notice.about)
            sites = {t.site for t in news.items["reviews"] if hour <= t.due_at < hour + HOUR}
            assert any(caller.has_permission(Permission.REVIEW, "bears", site) for site in sites)


@pytest.mark.parametrize("role", [role for role in ROLES if role != "approver"])
@pytest.mark.parametrize("site", ["", *SITES])
def test_a_role_at_one_site_hears_of_incidents_and_reviews_there_alone(role, site):
    cells = {"I-0": None, **{f"I-{name}": Cell(name, "day") for name in SITES}}
    incidents = {key: Incident(key, "alarm", "r", NOON, cell) for key, cell in cells.items()}
    tasks = [build_task(n, name, NOON + (n + 5) * HOUR) for n, name in enumerate(SITES)]
    state = RolloutState(Rollout(1, "bears"), Scope(open_incidents=incidents), BEARS, {}, {})
    user = NotificationUser(
        Caller("ana", role_assignments=(AssignedRole(role, "bears", site),)), "UTC"
    )
    expected = set()
    for number, name in enumerate(SITES):
        at = NOON + (number + 4) * HOUR
        notices = select_notices(user, EVERYTHING, [RolloutNews(state, build_items(tasks))], at)
        expected |= {(notice.kind, notice.about) for notice in notices}
        is_here = site in {"", name}
        reads, reviews = role in READ_ROLES and is_here, role == "reviewer" and is_here
        assert (("incident", f"I-{name}") in expected) == reads
        hour = (NOON + (number + 5) * HOUR).isoformat()
        assert (("review-deadline", hour) in expected) == reviews
    assert (("incident", "I-0") in expected) == (role in READ_ROLES)


@pytest.mark.slow
@examples(given(CALLERS, draw_news(), HOURS), fast=100, whole=1_000)
def test_who_can_approve_and_has_not_is_notified(caller, news, at):
    notices = select_notices(NotificationUser(caller, "UTC"), EVERYTHING, [news], at)
    assert len(notices) == len(set(notices))
    for proposal in news.state.scope.proposals.values():
        is_waiting = (
            not proposal.is_approved
            and at < proposal.expires_at
            and caller.name not in {approval.by for approval in proposal.approvals}
        )
        may_approve = any(
            role.role == "operator" and role.covers("bears", proposal.cell.site)
            for role in caller.role_assignments
        )
        about = {notice.kind for notice in notices if notice.about == proposal.id}
        assert (PROPOSAL in about) == (is_waiting and may_approve)
        assert len(about & {HALF_TIME, LAST_DAY}) <= 1


@given(CALLERS, st.lists(st.sampled_from(SITES), unique=True))
def test_a_reviewer_at_any_site_of_it_is_shown_no_figures(caller, sites):
    is_reviewer = any(
        role.role == "reviewer"
        and role.rollout in {"", "bears"}
        and (not sites or role.site in {"", *sites})
        for role in caller.role_assignments
    )
    assert may_be_asked_blind(caller, "bears", sites) == is_reviewer


def test_a_short_proposal_has_no_reminder_on_its_last_day():
    proposal = ProposalState("P-1", "widening", NOON, "policy", NOON + DAY, HASH, ("operator",))
    assert list_reminders(proposal) == [(HALF_TIME, NOON + 12 * HOUR)]
    longer = replace(proposal, expires_at=NOON + DAY + timedelta(hours=2))
    assert list_reminders(longer)[1] == (LAST_DAY, NOON + 2 * HOUR)
