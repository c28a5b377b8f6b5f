"""Who is here and what they may do: an admin says so, one at a time, and the chain keeps it."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from rollout.data.access.tokens import ApiKeys
from rollout.data.access.users import Users
from rollout.data.database.rollouts import Rollouts
from rollout.data.ledger.ledger import Ledger
from rollout.data.records.versions import VersionInfo, VersionStore
from rollout.engine.decide.commands import Actor, AddVersion
from rollout.engine.decide.permissions import AssignedRole, Caller, Permission, require_permission
from rollout.features.access import keys
from rollout.features.access.access_state import find_access_ledger_faults
from rollout.features.access.users import (
    AccountUpdate,
    create_account,
    create_first_admin,
    create_first_link,
    create_sign_in_link,
    load_accounts,
    load_local_caller,
    update_account,
)
from rollout.kernel.errors import (
    AdminExistsError,
    InvalidAccountError,
    LastAdminError,
    NameTakenError,
    NotAllowedError,
    UnknownRolloutError,
    UnknownUserError,
)
from rollout.live.policy_application import apply_policy
from rollout.live.rollout_state import execute_command
from tests.factories import DAY, HOUR, NOON
from tests.features.houses import ADA, BO, BOX, chain_of, chance, furnish, kinds

OPERATOR = AssignedRole("operator", "ramps", "ramp-a")
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
    return [member.name for member in load_accounts(database, ADA)]


# The first one


def test_the_first_admin_is_written_and_may_change_people(database):
    assert create_first_admin(database, "ada", at=NOON).rights == (AssignedRole("admin"),)
    assert kinds(database) == [("UserAdded", "ada"), ("RoleGranted", "ada")]
    assert names(database) == ["ada"]


def test_there_is_no_second_first_admin(house):
    with pytest.raises(AdminExistsError, match="ask an admin"):
        create_first_admin(house, "eve", at=NOON)
    assert names(house) == ["ada", "bo", "box"]


def test_of_many_who_would_be_first_one_is(database):
    def tried(name):
        try:
            return create_first_admin(database, name, at=NOON).name
        except AdminExistsError:
            return None

    with ThreadPoolExecutor(8) as pool:
        made = [name for name in pool.map(tried, [f"p{n}" for n in range(8)]) if name]
    assert len(made) == 1
    assert [event.user for event in chain_of(database)] == made * 2


def test_a_link_for_the_first_admin_is_made_only_while_nobody_is_here(database):
    assert create_first_link(database, NOON, "s" * 43) == "s" * 43
    assert kinds(database) == [("OneTimeLinkCreated", "")]
    assert "sss" not in repr(chain_of(database))
    create_first_admin(database, "ada", at=NOON)
    assert create_first_link(database, NOON, "t" * 43) is None


def test_nobody_is_added_before_the_first_admin_is_there(database):
    with pytest.raises(NotAllowedError, match="rollout users first-admin"):
        create_account(database, ADA, "eve", at=NOON)
    assert chain_of(database) == []


# Adding


@pytest.mark.parametrize(
    "name", ["", "policy", "Policy", ":access", ".", "-a", "a b", "ä", "a" * 65, "a/b", "a\n"]
)
def test_a_name_that_could_be_misread_is_refused(house, name):
    with pytest.raises(InvalidAccountError, match="can't be a name"):
        create_account(house, ADA, name, at=NOON)


@pytest.mark.parametrize("name", ["a", "A" * 64, "ana@example.org", "box-7_b.2"])
def test_a_plain_name_is_taken(house, name):
    assert create_account(house, ADA, name, at=NOON).name == name


def test_a_name_is_given_once_in_large_and_small_letters(house):
    for name in ("bo", "Bo"):
        with pytest.raises(NameTakenError, match="never reused"):
            create_account(house, ADA, name, at=NOON)


def test_no_person_gets_the_name_of_a_version(house):
    """Decisions in that name would be a model's: rejected wherever they were made."""
    apply_policy(house, POLICY, Actor("ada"), NOON)
    with house.begin_write() as transaction:
        rollout = Rollouts(transaction).find("mail")
        VersionStore(transaction, rollout).record_info(VersionInfo("Cy", "records"), at=NOON)
    with pytest.raises(NameTakenError, match="name of a version"):
        create_account(house, ADA, "cy", at=NOON)
    create_account(house, ADA, "cy", at=NOON, is_service_account=True)


def test_a_person_comes_with_rights_or_not_at_all(house):
    before = chain_of(house)
    with pytest.raises(InvalidAccountError, match="roles: viewer"):
        create_account(
            house,
            ADA,
            "cy",
            at=NOON,
            role_assignments=(AssignedRole("viewer"), AssignedRole("boss")),
        )
    with pytest.raises(UnknownRolloutError):
        create_account(
            house, ADA, "cy", at=NOON, role_assignments=(AssignedRole("viewer", "nowhere"),)
        )
    assert chain_of(house) == before
    assert names(house) == ["ada", "bo", "box"]


def test_two_people_never_share_an_address(house):
    update_account(house, ADA, "bo", AccountUpdate(email="bo@example.org"), at=NOON)
    with pytest.raises(NameTakenError, match="another account"):
        update_account(house, ADA, "ada", AccountUpdate(email="BO@example.org"), at=NOON)
    with pytest.raises(InvalidAccountError, match="can't be the e-mail"):
        update_account(house, ADA, "box", AccountUpdate(email="box@example.org"), at=NOON)
    assert kinds(house)[-1] == ("EmailSet", "bo")
    assert "example" not in repr(chain_of(house))


# Rights


def test_rights_are_given_and_taken_each_once(house):
    change = AccountUpdate(roles_to_grant=(OPERATOR, OPERATOR), roles_to_revoke=BO.role_assignments)
    assert update_account(house, ADA, "bo", change, at=NOON).rights == (OPERATOR,)
    before = kinds(house)
    assert before[-2:] == [("RoleRevoked", "bo"), ("RoleGranted", "bo")]
    update_account(house, ADA, "bo", change, at=NOON)
    assert kinds(house) == before


@pytest.mark.parametrize(
    "caller",
    [BO, BOX, Caller("ada", role_assignments=(AssignedRole("admin", "ramps"),)), Caller("eve")],
)
def test_only_an_admin_of_all_rollouts_sees_or_changes_people(house, caller):
    for asked in (
        lambda: load_accounts(house, caller),
        lambda: create_account(house, caller, "cy", at=NOON),
        lambda: update_account(
            house, caller, "bo", AccountUpdate(roles_to_grant=(AssignedRole("admin"),)), at=NOON
        ),
        lambda: create_sign_in_link(house, caller, "bo", at=NOON, secret="s" * 43),
    ):
        with pytest.raises(NotAllowedError):
            asked()


def test_who_lost_their_right_a_moment_ago_has_lost_it(house):
    update_account(
        house, ADA, "bo", AccountUpdate(roles_to_grant=(AssignedRole("admin"),)), at=NOON
    )
    bo = load_local_caller(house, "bo")
    update_account(
        house, ADA, "bo", AccountUpdate(roles_to_revoke=(AssignedRole("admin"),)), at=NOON
    )
    with pytest.raises(NotAllowedError, match="bo may not administer"):
        update_account(
            house, bo, "bo", AccountUpdate(roles_to_grant=(AssignedRole("admin"),)), at=NOON
        )


def test_who_was_disabled_a_moment_ago_changes_nothing(house):
    update_account(
        house, ADA, "bo", AccountUpdate(roles_to_grant=(AssignedRole("admin"),)), at=NOON
    )
    bo = load_local_caller(house, "bo")
    update_account(house, ADA, "bo", AccountUpdate(is_disabled=True), at=NOON)
    with pytest.raises(NotAllowedError, match="is disabled"):
        update_account(house, bo, "bo", AccountUpdate(is_disabled=False), at=NOON)


@pytest.mark.parametrize(
    "change",
    [AccountUpdate(is_disabled=True), AccountUpdate(roles_to_revoke=(AssignedRole("admin"),))],
    ids=str,
)
def test_the_last_admin_stays(house, change):
    with pytest.raises(LastAdminError, match="add another one first"):
        update_account(house, ADA, "ada", change, at=NOON)
    assert load_accounts(house, ADA)[0].rights == (AssignedRole("admin"),)
    update_account(
        house, ADA, "bo", AccountUpdate(roles_to_grant=(AssignedRole("admin"),)), at=NOON
    )
    update_account(house, ADA, "ada", change, at=NOON)


def test_an_admin_of_one_rollout_is_not_who_may_change_people(house):
    update_account(
        house, ADA, "bo", AccountUpdate(roles_to_grant=(AssignedRole("admin", "ramps"),)), at=NOON
    )
    with pytest.raises(LastAdminError):
        update_account(house, ADA, "ada", AccountUpdate(is_disabled=True), at=NOON)


def test_a_machine_gets_no_right_of_people(house):
    with pytest.raises(InvalidAccountError, match="ingest-outcomes or viewer"):
        update_account(
            house, ADA, "box", AccountUpdate(roles_to_grant=(AssignedRole("operator"),)), at=NOON
        )


@pytest.mark.parametrize("first", ["viewer", "ingest-decisions", ""])
def test_a_machine_that_judges_a_model_reads_no_figures_of_it(house, first):
    both = {"viewer", "ingest-decisions"}
    if first:
        grant_role(house, "box", first)
    with pytest.raises(InvalidAccountError, match="another service account"):
        grant_role(house, "box", *sorted(both - {first}))
    grant_role(house, "bo", *sorted(both))  # of users it is recorded what they were shown


def grant_role(house, user, *roles):
    assignments = tuple(AssignedRole(role, "ramps") for role in roles)
    update_account(house, ADA, user, AccountUpdate(roles_to_grant=assignments), at=NOON)


def test_disabling_ends_everything_and_enabling_brings_nothing_back(house):
    keys.create_key(house, ADA, "bo", random_bytes=chance(), at=NOON)
    update_account(house, ADA, "bo", AccountUpdate(is_disabled=True), at=NOON + HOUR)
    with pytest.raises(InvalidAccountError, match="enable the account"):
        update_account(house, ADA, "bo", AccountUpdate(roles_to_grant=BO.role_assignments), at=NOON)
    member = update_account(house, ADA, "bo", AccountUpdate(is_disabled=False), at=NOON + DAY)
    assert (member.disabled_at, member.rights) == (None, ())
    with house.begin_read() as transaction:
        assert ApiKeys(transaction).list_open() == []
    assert kinds(house)[-2:] == [("UserDisabled", "bo"), ("UserEnabled", "bo")]


def test_nobody_of_an_unknown_name_is_changed(house):
    with pytest.raises(UnknownUserError, match="rollout users list"):
        update_account(house, ADA, "eve", AccountUpdate(is_disabled=True), at=NOON)


def test_of_two_admins_who_disable_each_other_one_stays(house):
    update_account(
        house, ADA, "bo", AccountUpdate(roles_to_grant=(AssignedRole("admin"),)), at=NOON
    )

    def disabled(by, name):
        try:
            return update_account(house, by, name, AccountUpdate(is_disabled=True), at=NOON).name
        except NotAllowedError:
            return None

    bo = load_local_caller(house, "bo")
    with ThreadPoolExecutor(2) as pool:
        gone = [name for name in pool.map(disabled, (ADA, bo), ("bo", "ada")) if name]
    assert len(gone) == 1
    admins = [m.name for m in load_accounts(house, ADA) if AssignedRole("admin") in m.rights]
    assert admins == [name for name in ("ada", "bo") if name not in gone]


def test_many_who_change_the_house_at_once_are_all_done(house):
    def made(_):
        return keys.create_key(house, ADA, "box", random_bytes=chance(), at=NOON).prefix

    with ThreadPoolExecutor(8) as pool:
        prefixes = set(pool.map(made, range(16)))
    assert len(prefixes) == 16
    assert find_access_ledger_faults(house) == ()


# The tables and their chain


def test_the_tables_are_what_the_chain_says(database):
    assert find_access_ledger_faults(database) == ()
    furnish(database)
    key = keys.create_key(database, ADA, "bo", random_bytes=chance(), at=NOON)
    keys.create_key(database, ADA, "box", random_bytes=chance(), at=NOON)
    keys.revoke_key(database, ADA, key.prefix, at=NOON)
    update_account(
        database,
        ADA,
        "bo",
        AccountUpdate(roles_to_grant=(OPERATOR,), roles_to_revoke=BO.role_assignments),
        at=NOON,
    )
    assert find_access_ledger_faults(database) == ()
    update_account(database, ADA, "box", AccountUpdate(is_disabled=True), at=NOON)
    update_account(database, ADA, "bo", AccountUpdate(is_disabled=True), at=NOON)
    update_account(database, ADA, "bo", AccountUpdate(is_disabled=False), at=NOON)
    assert find_access_ledger_faults(database) == ()


def test_a_right_a_key_and_a_name_that_nobody_gave_are_named(house):
    with house.begin_write() as transaction:
        tables = Users(transaction)
        tables.grant_role(tables.find("bo"), AssignedRole("admin"))
        tables.revoke_role(tables.find("box"), BOX.role_assignments[0])
        eve = tables.add("eve", at=NOON)
        ApiKeys(transaction).add(eve, prefix="ff", secret="s" * 32, at=NOON)
    assert find_access_ledger_faults(house) == (
        "bo: admin in all rollouts is not in the chain: rights",
        "box: ingest in ramps is in the chain alone: rights",
        "eve is not in the chain: people",
        "eve: ff is not in the chain: keys",
    )


def test_what_happens_to_a_rollout_cites_the_rights_of_its_time(database):
    apply_policy(database, POLICY, Actor("zoe"), NOON, access_head=3)
    see = AddVersion(at=NOON, version="v1")
    execute_command(database, "mail", lambda _: see, access_head=5)
    with database.begin_read() as transaction:
        mail = Rollouts(transaction).find("mail")
        rows = list(Ledger(transaction, mail).list_rows())
        Ledger(transaction, mail).verify()
    assert [(row.kind, row.access_head) for row in rows] == [
        ("RolloutCreated", 3),
        ("PolicyApplied", 3),
        ("VersionFirstUsed", 5),
    ]


# Commands on the database itself


def test_in_an_empty_house_a_name_is_taken_as_given(database):
    ana = load_local_caller(database, "ana", ["operator", "safety"])
    assert ana.as_actor("anything").groups == ("operator", "safety")
    assert load_local_caller(database, "ana", ["safety"]).as_actor("x").groups == ("safety",)
    assert ana.has_permission(Permission.ADMINISTER, "")
    assert ana.has_permission(Permission.SEND_RECORDS, "x")


def test_once_somebody_is_here_their_rights_hold(house):
    bo = load_local_caller(house, "bo")
    assert (bo.role_assignments, bo.access_head) == (BO.role_assignments, len(chain_of(house)))
    require_permission(bo, Permission.OPERATE, "ramps", ("ramp-a",))
    with pytest.raises(NotAllowedError, match="is not in the group safety"):
        load_local_caller(house, "bo", ["safety"])
    with pytest.raises(UnknownUserError):
        load_local_caller(house, "eve")
    update_account(house, ADA, "bo", AccountUpdate(is_disabled=True), at=NOON)
    with pytest.raises(NotAllowedError, match="disabled"):
        load_local_caller(house, "bo")


def test_who_names_a_group_stands_in_that_one_alone(house):
    safety = AssignedRole("approver", "ramps", group="safety")
    update_account(house, ADA, "bo", AccountUpdate(roles_to_grant=(safety,)), at=NOON)
    assert load_local_caller(house, "bo").as_actor("ramps").groups == ("operator", "safety")
    assert load_local_caller(house, "bo", ["safety"]).as_actor("ramps").groups == ("safety",)
