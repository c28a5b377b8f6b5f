"""Who is here and what they may do: an admin says so, one at a time, and the chain keeps it."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from rollout.core.commands import Person, See
from rollout.core.errors import (
    HouseInhabited,
    LastAdmin,
    NameTaken,
    NotAllowed,
    PersonRefused,
    UnknownPerson,
    UnknownRollout,
)
from rollout.core.rights import Act, Caller, Right, require
from rollout.services import keys
from rollout.services.applying import apply
from rollout.services.commanding import carry_out
from rollout.services.house import house_faults
from rollout.services.people import (
    Amendment,
    add,
    amend,
    everybody,
    first_admin,
    first_link,
    link,
    local_caller,
)
from rollout.store.api_keys import ApiKeys
from rollout.store.ledger import Ledger
from rollout.store.people import People
from rollout.store.rollouts import Rollouts
from tests.factories import DAY, HOUR, NOON
from tests.services.houses import ADA, BO, BOX, chain_of, chance, furnish, kinds

OPERATOR = Right("operator", "ramps", "ramp-a")
POLICY = """
rollout: mail
timezone: UTC
levers: [{id: parcel, labels: [damaged, sound]}]
sites: [ramp-a]
evidence: {unit: case}
gates: [{to: supervised, require: [{measure: agreement, at_least: 92%}]}]
"""


@pytest.fixture
def house(database):
    furnish(database)
    return database


def names(database):
    return [member.name for member in everybody(database, ADA)]


# The first one


def test_the_first_admin_is_written_and_may_change_people(database):
    assert first_admin(database, "ada", at=NOON).rights == (Right("admin"),)
    assert kinds(database) == [("UserAdded", "ada"), ("RoleGranted", "ada")]
    assert names(database) == ["ada"]


def test_there_is_no_second_first_admin(house):
    with pytest.raises(HouseInhabited, match="ask an admin"):
        first_admin(house, "eve", at=NOON)
    assert names(house) == ["ada", "bo", "box"]


def test_of_many_who_would_be_first_one_is(database):
    def tried(name):
        try:
            return first_admin(database, name, at=NOON).name
        except HouseInhabited:
            return None

    with ThreadPoolExecutor(8) as pool:
        made = [name for name in pool.map(tried, [f"p{n}" for n in range(8)]) if name]
    assert len(made) == 1
    assert [event.user for event in chain_of(database)] == made * 2


def test_a_link_for_the_first_admin_is_made_only_while_nobody_is_here(database):
    assert first_link(database, NOON, "s" * 43) == "s" * 43
    assert kinds(database) == [("OneTimeLinkCreated", "")]
    assert "sss" not in repr(chain_of(database))
    first_admin(database, "ada", at=NOON)
    assert first_link(database, NOON, "t" * 43) is None


def test_nobody_is_added_before_the_first_admin_is_there(database):
    with pytest.raises(NotAllowed, match="rollout users first-admin"):
        add(database, ADA, "eve", at=NOON)
    assert chain_of(database) == []


# Adding


@pytest.mark.parametrize(
    "name", ["", "policy", "Policy", ":house", ".", "-a", "a b", "ä", "a" * 65, "a/b", "a\n"]
)
def test_a_name_that_could_be_misread_is_refused(house, name):
    with pytest.raises(PersonRefused, match="can't be a name"):
        add(house, ADA, name, at=NOON)


@pytest.mark.parametrize("name", ["a", "A" * 64, "ana@example.org", "box-7_b.2"])
def test_a_plain_name_is_taken(house, name):
    assert add(house, ADA, name, at=NOON).name == name


def test_a_name_is_given_once_in_large_and_small_letters(house):
    for name in ("bo", "Bo"):
        with pytest.raises(NameTaken, match="never reused"):
            add(house, ADA, name, at=NOON)


def test_a_person_comes_with_rights_or_not_at_all(house):
    before = chain_of(house)
    with pytest.raises(PersonRefused, match="roles: viewer"):
        add(house, ADA, "cy", at=NOON, rights=(Right("viewer"), Right("boss")))
    with pytest.raises(UnknownRollout):
        add(house, ADA, "cy", at=NOON, rights=(Right("viewer", "nowhere"),))
    assert chain_of(house) == before
    assert names(house) == ["ada", "bo", "box"]


def test_two_people_never_share_an_address(house):
    amend(house, ADA, "bo", Amendment(email="bo@example.org"), at=NOON)
    with pytest.raises(NameTaken, match="another account"):
        amend(house, ADA, "ada", Amendment(email="BO@example.org"), at=NOON)
    with pytest.raises(PersonRefused, match="can't be the e-mail"):
        amend(house, ADA, "box", Amendment(email="box@example.org"), at=NOON)
    assert kinds(house)[-1] == ("EmailSet", "bo")
    assert "example" not in repr(chain_of(house))


# Rights


def test_rights_are_given_and_taken_each_once(house):
    change = Amendment(give=(OPERATOR, OPERATOR), take=BO.rights)
    assert amend(house, ADA, "bo", change, at=NOON).rights == (OPERATOR,)
    before = kinds(house)
    assert before[-2:] == [("RoleRevoked", "bo"), ("RoleGranted", "bo")]
    amend(house, ADA, "bo", change, at=NOON)
    assert kinds(house) == before


@pytest.mark.parametrize(
    "caller", [BO, BOX, Caller("ada", rights=(Right("admin", "ramps"),)), Caller("eve")]
)
def test_only_an_admin_of_all_rollouts_sees_or_changes_people(house, caller):
    for asked in (
        lambda: everybody(house, caller),
        lambda: add(house, caller, "cy", at=NOON),
        lambda: amend(house, caller, "bo", Amendment(give=(Right("admin"),)), at=NOON),
        lambda: link(house, caller, "bo", at=NOON, secret="s" * 43),
    ):
        with pytest.raises(NotAllowed):
            asked()


def test_who_lost_their_right_a_moment_ago_has_lost_it(house):
    amend(house, ADA, "bo", Amendment(give=(Right("admin"),)), at=NOON)
    bo = local_caller(house, "bo")
    amend(house, ADA, "bo", Amendment(take=(Right("admin"),)), at=NOON)
    with pytest.raises(NotAllowed, match="bo may not administer"):
        amend(house, bo, "bo", Amendment(give=(Right("admin"),)), at=NOON)


def test_who_was_disabled_a_moment_ago_changes_nothing(house):
    amend(house, ADA, "bo", Amendment(give=(Right("admin"),)), at=NOON)
    bo = local_caller(house, "bo")
    amend(house, ADA, "bo", Amendment(disabled=True), at=NOON)
    with pytest.raises(NotAllowed, match="is disabled"):
        amend(house, bo, "bo", Amendment(disabled=False), at=NOON)


@pytest.mark.parametrize(
    "change", [Amendment(disabled=True), Amendment(take=(Right("admin"),))], ids=str
)
def test_the_last_admin_stays(house, change):
    with pytest.raises(LastAdmin, match="add another one first"):
        amend(house, ADA, "ada", change, at=NOON)
    assert everybody(house, ADA)[0].rights == (Right("admin"),)
    amend(house, ADA, "bo", Amendment(give=(Right("admin"),)), at=NOON)
    amend(house, ADA, "ada", change, at=NOON)


def test_an_admin_of_one_rollout_is_not_who_may_change_people(house):
    amend(house, ADA, "bo", Amendment(give=(Right("admin", "ramps"),)), at=NOON)
    with pytest.raises(LastAdmin):
        amend(house, ADA, "ada", Amendment(disabled=True), at=NOON)


def test_a_machine_gets_no_right_of_people(house):
    with pytest.raises(PersonRefused, match="ingest or viewer"):
        amend(house, ADA, "box", Amendment(give=(Right("operator"),)), at=NOON)


def test_disabling_ends_everything_and_enabling_brings_nothing_back(house):
    keys.make(house, ADA, "bo", chance=chance(), at=NOON)
    amend(house, ADA, "bo", Amendment(disabled=True), at=NOON + HOUR)
    with pytest.raises(PersonRefused, match="enable the account"):
        amend(house, ADA, "bo", Amendment(give=BO.rights), at=NOON)
    member = amend(house, ADA, "bo", Amendment(disabled=False), at=NOON + DAY)
    assert (member.disabled_at, member.rights) == (None, ())
    with house.reading() as transaction:
        assert ApiKeys(transaction).open() == []
    assert kinds(house)[-2:] == [("UserDisabled", "bo"), ("UserEnabled", "bo")]


def test_nobody_of_an_unknown_name_is_changed(house):
    with pytest.raises(UnknownPerson, match="rollout users list"):
        amend(house, ADA, "eve", Amendment(disabled=True), at=NOON)


def test_of_two_admins_who_disable_each_other_one_stays(house):
    amend(house, ADA, "bo", Amendment(give=(Right("admin"),)), at=NOON)

    def disabled(by, name):
        try:
            return amend(house, by, name, Amendment(disabled=True), at=NOON).name
        except NotAllowed:
            return None

    bo = local_caller(house, "bo")
    with ThreadPoolExecutor(2) as pool:
        gone = [name for name in pool.map(disabled, (ADA, bo), ("bo", "ada")) if name]
    assert len(gone) == 1
    assert [m.name for m in everybody(house, ADA) if m.rights == (Right("admin"),)] == [
        name for name in ("ada", "bo") if name not in gone
    ]


def test_many_who_change_the_house_at_once_are_all_done(house):
    def made(_):
        return keys.make(house, ADA, "box", chance=chance(), at=NOON).prefix

    with ThreadPoolExecutor(8) as pool:
        prefixes = set(pool.map(made, range(16)))
    assert len(prefixes) == 16
    assert house_faults(house) == ()


# The tables and their chain


def test_the_tables_are_what_the_chain_says(database):
    assert house_faults(database) == ()
    furnish(database)
    key = keys.make(database, ADA, "bo", chance=chance(), at=NOON)
    keys.make(database, ADA, "box", chance=chance(), at=NOON)
    keys.revoke(database, ADA, key.prefix, at=NOON)
    amend(database, ADA, "bo", Amendment(give=(OPERATOR,), take=BO.rights), at=NOON)
    assert house_faults(database) == ()
    amend(database, ADA, "box", Amendment(disabled=True), at=NOON)
    amend(database, ADA, "bo", Amendment(disabled=True), at=NOON)
    amend(database, ADA, "bo", Amendment(disabled=False), at=NOON)
    assert house_faults(database) == ()


def test_a_right_a_key_and_a_name_that_nobody_gave_are_named(house):
    with house.writing() as transaction:
        tables = People(transaction)
        tables.give(tables.find("bo"), Right("admin"))
        tables.take(tables.find("box"), BOX.rights[0])
        eve = tables.add("eve", at=NOON)
        ApiKeys(transaction).add(eve, prefix="ff", secret="s" * 32, at=NOON)
    assert house_faults(house) == (
        "bo: admin in all rollouts is not in the chain: rights",
        "box: ingest in ramps is in the chain alone: rights",
        "eve is not in the chain: people",
        "eve: ff is not in the chain: keys",
    )


def test_what_happens_to_a_rollout_cites_the_rights_of_its_time(database):
    apply(database, POLICY, Person("zoe"), NOON, house=3)
    see = See(at=NOON, version="v1")
    carry_out(database, "mail", lambda _: see, house=5)
    with database.reading() as transaction:
        mail = Rollouts(transaction).find("mail")
        rows = list(Ledger(transaction, mail).rows())
        Ledger(transaction, mail).verify()
    assert [(row.kind, row.access_head) for row in rows] == [
        ("RolloutCreated", 3),
        ("PolicyApplied", 3),
        ("VersionFirstUsed", 5),
    ]


# Commands on the database itself


def test_in_an_empty_house_a_name_is_taken_as_given(database):
    ana = local_caller(database, "ana", ["operator", "safety"])
    assert ana.person("anything").groups == ("operator", "safety")
    assert local_caller(database, "ana", ["safety"]).person("x").groups == ("safety",)
    assert ana.may(Act.ADMINISTER, "") and ana.may(Act.RECORD, "x")  # noqa: PT018 - one claim


def test_once_somebody_is_here_their_rights_hold(house):
    bo = local_caller(house, "bo")
    assert (bo.rights, bo.house) == (BO.rights, len(chain_of(house)))
    require(bo, Act.OPERATE, "ramps", ("ramp-a",))
    with pytest.raises(NotAllowed, match="is not in the group safety"):
        local_caller(house, "bo", ["safety"])
    with pytest.raises(UnknownPerson):
        local_caller(house, "eve")
    amend(house, ADA, "bo", Amendment(disabled=True), at=NOON)
    with pytest.raises(NotAllowed, match="disabled"):
        local_caller(house, "bo")


def test_who_names_a_group_stands_in_that_one_alone(house):
    safety = Right("approver", "ramps", group="safety")
    amend(house, ADA, "bo", Amendment(give=(safety,)), at=NOON)
    assert local_caller(house, "bo").person("ramps").groups == ("operator", "safety")
    assert local_caller(house, "bo", ["safety"]).person("ramps").groups == ("safety",)
