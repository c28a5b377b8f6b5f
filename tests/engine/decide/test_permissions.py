"""Who may do what where: narrow roles give no wide ones, and what is not seen is not there."""

import pytest
from pydantic import TypeAdapter

from rollout.engine.decide.commands import ApprovalLimits
from rollout.engine.decide.permissions import (
    FACTOR_PERMISSIONS,
    ROLES,
    ROLES_BY_PERMISSION,
    AssignedRole,
    Caller,
    Permission,
    check_role_assignment,
    require_permission,
)
from rollout.kernel.errors import InvalidAccountError, NotAllowedError, UnknownRolloutError
from tests.factories import NOON

EVERY_ROLE = pytest.mark.parametrize("role", ROLES)


def caller(*rights, **more):
    return Caller("ana", role_assignments=rights, **more)


def allowed(who, act, *sites, rollout="ramps"):
    try:
        require_permission(who, act, rollout, sites)
    except (NotAllowedError, UnknownRolloutError):
        return False
    return True


@pytest.mark.parametrize("act", [act for act in Permission if act is not Permission.IDENTIFY])
@EVERY_ROLE
def test_a_role_may_what_the_table_says_and_nothing_else(act, role):
    assert allowed(caller(AssignedRole(role)), act) == (role in ROLES_BY_PERMISSION[act])


def test_each_right_needs_a_second_factor_or_looks_sends_reviews_stops_or_narrows():
    without = """
        READ READ_CASES READ_SCOPE REQUEST_ASSIGNMENT SEND_RECORDS SEND_CASES SEND_PREDICTIONS
        STATE_TRAINING SEND_DECISIONS SEND_OUTCOMES REVIEW OPERATE REJECT UPLOAD_FILES IDENTIFY
    """
    rights = {right.name for right in Permission} - {right.name for right in FACTOR_PERMISSIONS}
    assert rights == {*without.split()}, "what can let the model do more needs a second factor"


def test_only_operators_take_back_and_only_reviewers_review():
    assert ROLES_BY_PERMISSION[Permission.OPERATE] == {"operator"}
    assert ROLES_BY_PERMISSION[Permission.REVIEW] == {"reviewer"}
    assert (
        "reviewer"
        not in ROLES_BY_PERMISSION[Permission.READ_CASES] | ROLES_BY_PERMISSION[Permission.READ]
    )
    assert not ROLES_BY_PERMISSION[Permission.APPROVE] & {"admin", "ingest", "viewer", "reviewer"}


def test_a_right_in_one_rollout_is_none_in_another_and_that_one_is_not_there():
    here = caller(AssignedRole("operator", "ramps"))
    assert allowed(here, Permission.OPERATE)
    with pytest.raises(UnknownRolloutError):
        require_permission(here, Permission.OPERATE, "bear-alarm")
    assert not allowed(here, Permission.ADMINISTER, rollout="")


def test_a_right_at_one_site_holds_there_alone():
    here = caller(AssignedRole("operator", "ramps", "ramp-a"))
    assert allowed(here, Permission.OPERATE, "ramp-a")
    assert not allowed(here, Permission.OPERATE, "ramp-a", "ramp-b")
    with pytest.raises(
        NotAllowedError, match="at ramp-b; it needs the role operator: ask an admin"
    ):
        require_permission(here, Permission.OPERATE, "ramps", ("ramp-a", "ramp-b"))


def test_rights_at_two_sites_hold_at_both_together():
    both = caller(
        AssignedRole("operator", "ramps", "ramp-a"), AssignedRole("operator", "ramps", "ramp-b")
    )
    assert allowed(both, Permission.OPERATE, "ramp-a", "ramp-b")


def test_who_has_no_right_at_all_may_still_ask_who_they_are():
    assert allowed(caller(), Permission.IDENTIFY, rollout="")
    assert not allowed(caller(), Permission.IDENTIFY)


def test_an_admin_of_one_rollout_administers_not_the_house():
    assert allowed(caller(AssignedRole("admin", "ramps")), Permission.ADMINISTER)
    assert not allowed(caller(AssignedRole("admin", "ramps")), Permission.ADMINISTER, rollout="")


def test_an_approver_stands_in_the_group_that_gates_ask_for():
    both = caller(AssignedRole("approver", "ramps", group="safety"), AssignedRole("operator"))
    assert both.as_actor("ramps").groups == ("operator", "safety")
    assert both.as_actor("bear-alarm").groups == ("operator",)


def test_at_two_sites_somebody_stands_only_in_the_groups_of_both():
    mixed = caller(
        AssignedRole("operator", "ramps", "ramp-a"),
        AssignedRole("approver", "ramps", group="safety"),
    )
    assert mixed.as_actor("ramps", ("ramp-a",)).groups == ("operator", "safety")
    assert mixed.as_actor("ramps", ("ramp-a", "ramp-b")).groups == ("safety",)
    assert mixed.as_actor("ramps").groups == ("safety",)


@pytest.mark.parametrize(
    ("right", "says"),
    [
        (AssignedRole("boss"), "roles: viewer, reviewer"),
        (AssignedRole("approver"), "needs the group"),
        (AssignedRole("viewer", group="safety"), "no other role has one"),
        (AssignedRole("approver", group="operator"), "name the group otherwise"),
        (AssignedRole("viewer", site="ramp-a"), "needs the rollout of the site"),
        (AssignedRole("admin", "ramps", "ramp-a"), "can't be limited to a site"),
    ],
)
def test_a_right_that_means_nothing_is_refused_with_what_would_be_right(right, says):
    with pytest.raises(InvalidAccountError, match=says):
        check_role_assignment(right, is_service_account=False)


@EVERY_ROLE
def test_machines_may_only_send_and_look(role):
    right = AssignedRole(role, group="safety" if role == "approver" else "")
    check_role_assignment(right, is_service_account=False)
    if role == "viewer" or role.startswith("ingest"):
        check_role_assignment(right, is_service_account=True)
    else:
        with pytest.raises(InvalidAccountError, match="ingest-outcomes or viewer"):
            check_role_assignment(right, is_service_account=True)


def test_a_right_reads_as_a_sentence():
    assert str(AssignedRole("approver", "ramps", "ramp-a", "safety")) == (
        "approver of safety in ramps at ramp-a"
    )
    assert str(AssignedRole("viewer")) == "viewer in all rollouts"


def test_a_caller_is_read_from_json_as_processes_of_users_do():
    ana = caller(AssignedRole("viewer"), limits=ApprovalLimits(NOON, frozenset({"bo"})))
    adapter = TypeAdapter(Caller)
    assert adapter.validate_json(adapter.dump_json(ana)) == ana
