"""Who may do what where: narrow roles give no wide ones, and what is not seen is not there."""

import pytest

from rollout.core.errors import NotAllowed, PersonRefused, UnknownRollout
from rollout.core.scope.permissions import MAY, ROLES, Act, Caller, Right, require, require_sound

EVERY_ROLE = pytest.mark.parametrize("role", ROLES)


def caller(*rights, **more):
    return Caller("ana", rights=rights, **more)


def allowed(who, act, *sites, rollout="ramps"):
    try:
        require(who, act, rollout, sites)
    except (NotAllowed, UnknownRollout):
        return False
    return True


@pytest.mark.parametrize("act", [act for act in Act if act is not Act.BE])
@EVERY_ROLE
def test_a_role_may_what_the_table_says_and_nothing_else(act, role):
    assert allowed(caller(Right(role)), act) == (role in MAY[act])


def test_only_operators_take_back_and_only_reviewers_review():
    assert MAY[Act.OPERATE] == {"operator"}
    assert MAY[Act.REVIEW] == {"reviewer"}
    assert "reviewer" not in MAY[Act.EXPLAIN] | MAY[Act.READ]
    assert not MAY[Act.APPROVE] & {"admin", "ingest", "viewer", "reviewer"}


def test_a_right_in_one_rollout_is_none_in_another_and_that_one_is_not_there():
    here = caller(Right("operator", "ramps"))
    assert allowed(here, Act.OPERATE)
    with pytest.raises(UnknownRollout):
        require(here, Act.OPERATE, "bear-alarm")
    assert not allowed(here, Act.ADMINISTER, rollout="")


def test_a_right_at_one_site_holds_there_alone():
    here = caller(Right("operator", "ramps", "ramp-a"))
    assert allowed(here, Act.OPERATE, "ramp-a")
    assert not allowed(here, Act.OPERATE, "ramp-a", "ramp-b")
    with pytest.raises(NotAllowed, match="at ramp-b; it needs the role operator: ask an admin"):
        require(here, Act.OPERATE, "ramps", ("ramp-a", "ramp-b"))


def test_rights_at_two_sites_hold_at_both_together():
    both = caller(Right("operator", "ramps", "ramp-a"), Right("operator", "ramps", "ramp-b"))
    assert allowed(both, Act.OPERATE, "ramp-a", "ramp-b")


def test_who_has_no_right_at_all_may_still_ask_who_they_are():
    assert allowed(caller(), Act.BE, rollout="")
    assert not allowed(caller(), Act.BE)


def test_an_admin_of_one_rollout_administers_not_the_house():
    assert allowed(caller(Right("admin", "ramps")), Act.ADMINISTER)
    assert not allowed(caller(Right("admin", "ramps")), Act.ADMINISTER, rollout="")


def test_an_approver_stands_in_the_group_that_gates_ask_for():
    both = caller(Right("approver", "ramps", group="safety"), Right("operator"))
    assert both.person("ramps").groups == ("operator", "safety")
    assert both.person("bear-alarm").groups == ("operator",)


def test_at_two_sites_somebody_stands_only_in_the_groups_of_both():
    mixed = caller(Right("operator", "ramps", "ramp-a"), Right("approver", "ramps", group="safety"))
    assert mixed.person("ramps", ("ramp-a",)).groups == ("operator", "safety")
    assert mixed.person("ramps", ("ramp-a", "ramp-b")).groups == ("safety",)
    assert mixed.person("ramps").groups == ("safety",)


@pytest.mark.parametrize(
    ("right", "says"),
    [
        (Right("boss"), "roles: viewer, reviewer"),
        (Right("approver"), "needs the group"),
        (Right("viewer", group="safety"), "no other role has one"),
        (Right("approver", group="operator"), "name the group otherwise"),
        (Right("viewer", site="ramp-a"), "needs the rollout of the site"),
        (Right("admin", "ramps", "ramp-a"), "can't be limited to a site"),
    ],
)
def test_a_right_that_means_nothing_is_refused_with_what_would_be_right(right, says):
    with pytest.raises(PersonRefused, match=says):
        require_sound(right, machine=False)


@EVERY_ROLE
def test_machines_may_only_send_and_look(role):
    right = Right(role, group="safety" if role == "approver" else "")
    require_sound(right, machine=False)
    if role in {"ingest", "viewer"}:
        require_sound(right, machine=True)
    else:
        with pytest.raises(PersonRefused, match="ingest or viewer"):
            require_sound(right, machine=True)


def test_a_right_reads_as_a_sentence():
    assert str(Right("approver", "ramps", "ramp-a", "safety")) == (
        "approver of safety in ramps at ramp-a"
    )
    assert str(Right("viewer")) == "viewer in all rollouts"
