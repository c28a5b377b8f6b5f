"""Warnings of a policy that asks for more people than there are, before a stop shows it."""

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.engine.decide.approvals import find_group_memberships
from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.engine.decide.stops import TWO_OPERATORS
from rollout.engine.words.approver_warnings import list_approver_warnings
from rollout.features.access import users
from rollout.features.access.authentication import Authenticator
from rollout.features.access.users import AccountUpdate, load_local_caller
from rollout.features.policies.policies import preview_policy, put_policy
from rollout.kernel.policy.policy import Gate
from rollout.live.clock import ManualClock
from rollout.live.service import build_service
from tests.api.bears import POLICY, founded
from tests.factories import AGREEMENT, NOON, policy

SITES = ("creek", "lake")
OPERATOR, SAFETY = AssignedRole("operator"), AssignedRole("approver", group="safety")
STAYS = (
    "stops: a stop could not be ended while nothing or supervised is granted: 3 users are "
    "needed, an operator to propose the resume and 2 operators to approve; give 1 more user the"
    " role operator"
)


def asking(supervised=("operator", "operator"), autonomous=("operator", "operator")):
    """Return a policy of two sites whose gates ask for these approvals."""
    to = {"supervised": supervised, "autonomous": autonomous}
    return policy(gates=tuple(Gate(s, (AGREEMENT,), 0.05, approvals=n) for s, n in to.items()))


def person(name, *rights):
    return Caller(name, role_assignments=rights)


def operators(*names, site=""):
    return [
        person(name, AssignedRole("operator", "bear-alarm" if site else "", site)) for name in names
    ]


def warned(made, *everybody):
    return [
        str(one)
        for one in list_approver_warnings(
            made, find_group_memberships(everybody, made.rollout, SITES)
        )
    ]


# Exactly when


def assigned(needs, everybody, site):
    """Say whether one may ask and others may approve, each order of people tried."""
    stands = {p.name: p.as_actor("bear-alarm", (site,)).groups for p in everybody}
    return any(
        "operator" in stands[asker.name]
        and all(group in stands[p.name] for group, p in zip(needs, others, strict=True))
        for asker, *others in permutations(everybody, len(needs) + 1)
    )


rights = st.builds(
    lambda group, site: AssignedRole(
        "operator" if group == "operator" else "approver",
        "bear-alarm",
        site,
        "" if group == "operator" else group,
    ),
    st.sampled_from(["operator", "safety"]),
    st.sampled_from(["", *SITES]),
)
crowds = st.lists(st.lists(rights, max_size=2), max_size=5).map(
    lambda held: [person(f"p{n}", *own) for n, own in enumerate(held)]
)
approvals = st.lists(st.sampled_from(["operator", "safety"]), min_size=1, max_size=3).map(tuple)


@given(approvals, approvals, crowds)
def test_a_stop_is_warned_of_exactly_where_nobody_could_take_it_back(low, high, everybody):
    asked = [TWO_OPERATORS, low, high]
    stay = {site for site in SITES if not all(assigned(n, everybody, site) for n in asked)}
    found = [one for one in warned(asking(low, high), *everybody) if not one.startswith("gates")]
    of_sites = [one for one in found if "all sites at once" not in one]
    told = {site for site in SITES if any(names(one, site) for one in of_sites)}
    assert told == stay


def names(warning, site):
    """Say whether a warning is about a site: it names it, or none for all."""
    return site in warning or not any(other in warning for other in SITES)


# In words


def test_enough_people_are_left_alone():
    assert warned(asking(), *operators("ana", "bo", "cy")) == []


def test_two_operators_who_may_approve_can_take_no_stop_back():
    (says,) = warned(asking(), *operators("ana", "bo"))
    assert says == (
        "stops: a stop could not be ended: 3 users are needed, an operator to propose the resume"
        " and 2 operators to approve; give 1 more user the role operator"
    )


def test_one_approval_and_one_person_is_too_few_as_well():
    found = warned(asking(("operator",), ("operator",)), *operators("ana"))
    assert found == [
        (
            "stops: a stop could not be ended while nothing is granted: 3 users are needed, "
            "an operator to propose the resume and 2 operators to approve; give 2 more users the"
            " role operator"
        ),
        (
            "stops: a stop could not be ended while supervised or autonomous is granted: "
            "2 users are needed, an operator to propose the resume and 1 operator to approve; "
            "give 1 more user the role operator"
        ),
    ]


def test_who_is_alone_in_a_group_can_not_ask_and_approve():
    made = asking(autonomous=("operator", "safety"))
    ana = person("ana", OPERATOR, SAFETY)
    assert warned(made, ana, *operators("bo"))[0] == STAYS
    assert warned(made, ana, *operators("bo", "cy")) == []


def test_fewer_approvals_are_offered_where_they_would_do():
    (says,) = warned(asking(autonomous=("operator",) * 3), *operators("ana", "bo", "cy"))
    assert says.endswith("give 1 more user the role operator, or lower approvals")


def test_a_site_that_differs_is_named_alone():
    found = warned(asking(), *operators("ana", "bo"), *operators("cy", site="creek"))
    (says,) = found
    assert says.startswith("stops: a stop at lake could not be ended: 3 users")
    assert says.endswith("give 1 more user the role operator at lake")


def test_a_stop_of_all_sites_at_once_asks_people_of_all_of_them():
    made = asking()
    locals_ = [*operators("bo", "cy", site="creek"), *operators("dan", "eve", site="lake")]
    (says,) = warned(made, *operators("ana"), *locals_)
    assert says.startswith("stops: a stop of all sites at once could not be ended: 3 users")
    assert says.endswith("give 2 more users the role operator at every site")
    there = [*operators("ana", site="creek"), *operators("fay", site="lake")]
    assert warned(made, *there, *locals_) == []  # nobody stops all of them at once


def test_a_group_that_nobody_is_in_is_named_with_its_sites():
    made, crew = asking(autonomous=("operator", "safety")), operators("ana", "bo", "cy")
    never = "so the gate to autonomous never opens"
    assert warned(made, *crew)[0] == f"gates[1]: no user is in the group safety, {never}"
    sue = person("sue", AssignedRole("approver", "bear-alarm", "creek", "safety"))
    assert warned(made, *crew, sue)[0] == (
        f"gates[1]: no user is in the group safety at lake, {never} there"
    )


def test_where_nobody_may_do_anything_yet_it_is_said_once():
    assert warned(
        asking(autonomous=("operator", "safety")), person("vic", AssignedRole("viewer"))
    ) == [
        (
            "users: no user may approve yet, so nothing can widen and a stop can't end; "
            "give 3 users the role operator and 1 user the role approver of safety"
        )
    ]


def test_a_site_where_nobody_may_do_anything_is_one_among_others():
    (nobody, stays) = warned(asking(), *operators("ana", "bo", "cy", site="creek"))[1:]
    assert nobody.startswith("gates[1]: no user is in the group operator at lake")
    assert stays.startswith("stops: a stop at lake could not be ended")
    assert stays.endswith("give 3 more users the role operator at lake")


def test_people_who_are_not_known_are_no_doubt():
    assert list_approver_warnings(asking(), None) == ()


# Of those who are here


@pytest.fixture
def ada(database):
    founded(database, NOON)
    users.create_first_admin(database, "ada", at=NOON)
    ada = load_local_caller(database, "ada")
    for name in ("ana", "bo"):
        users.create_account(database, ada, name, at=NOON, role_assignments=[OPERATOR])
    users.create_account(database, ada, "sue", at=NOON, role_assignments=[SAFETY])
    users.create_account(
        database,
        ada,
        "box",
        at=NOON,
        is_service_account=True,
        role_assignments=[AssignedRole("ingest-predictions")],
    )
    return ada


def plan_of(database, caller):
    clock = ManualClock(NOON)
    return preview_policy(
        build_service(database, Authenticator(database, clock), clock), caller, POLICY, at=NOON
    )


@pytest.mark.slow
def test_plan_and_apply_say_it_of_those_who_are_here(database, ada):
    assert STAYS in plan_of(database, ada).warnings
    assert STAYS in plan_of(database, ada).text
    assert put_policy(database, ada, "bears", POLICY, at=NOON).warnings == (STAYS,)
    users.create_account(
        database, ada, "cy", at=NOON, role_assignments=[AssignedRole("operator", "bears")]
    )
    assert put_policy(database, ada, "bears", POLICY, at=NOON).warnings == ()
    assert "stops:" not in plan_of(database, ada).text


def test_whoever_was_disabled_is_not_counted(database, ada):
    users.create_account(database, ada, "cy", at=NOON, role_assignments=[OPERATOR])
    users.update_account(database, ada, "cy", AccountUpdate(is_disabled=True), at=NOON)
    assert put_policy(database, ada, "bears", POLICY, at=NOON).warnings == (STAYS,)


def test_whoever_may_not_read_a_rollout_learns_nothing_of_its_people(database, ada):
    users.create_account(
        database, ada, "cy", at=NOON, role_assignments=[AssignedRole("operator", "bears")]
    )
    stranger = Caller("dot", role_assignments=(AssignedRole("viewer", "deer"),))
    assert STAYS in plan_of(database, stranger).warnings


def test_while_nobody_was_ever_added_names_are_taken_as_given(database):
    founded(database, NOON)
    caller = Caller("zoe", role_assignments=(AssignedRole("admin"),))
    assert put_policy(database, caller, "bears", POLICY, at=NOON).warnings == ()
