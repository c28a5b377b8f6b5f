"""Who can write the database edits how somebody signs in: `doctor` finds each single edit."""

from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from sqlalchemy import text

from rollout.data.ledger.ledger import Accounts
from rollout.features.access import keys, users
from rollout.features.access.access_state import find_access_ledger_faults
from rollout.features.access.users import erase_account, strip_last_admin
from rollout.live.clock import ManualClock
from tests.data.snapshots import filled_once
from tests.factories import DAY, NOON
from tests.features.access.factors import build_signing, enrol
from tests.features.access.test_sign_in import ISSUER, QUICK
from tests.features.houses import ADA, BO, PASSWORD, chance, furnish

LATER = 9_000_000_000_000_000  # microseconds since 1970
SELECT_BO = "from users where name = 'bo'"
EDITS = {
    "a key": "update api_keys set hash = :hash",
    "the end of a key": "update api_keys set expires_at = :later",
    "the factor of a key": "update api_keys set second_factor = 'other'",
    "a password": "update users set password = 'mallory' where name = 'bo'",
    "an address": "update users set email = 'mallory@example.org' where name = 'bo'",
    "a salt": "update users set salt = :hash where name = 'bo'",
    "no salt": "update users set salt = null where name = 'bo'",
    "whether somebody could sign in": "update users set first_credential_at = null",
    "a subject": "update identities set subject = 'mallory'",
    "an identity": "insert into identities (user_id, issuer, subject, linked_at)"
    f" select id, 'https://else.example', 'mallory', :later {SELECT_BO}",
    "a link": "update one_time_links set hash = :hash where used_at is null",
    "the end of a link": "update one_time_links set expires_at = :later where used_at is null",
    "a used link": "update one_time_links set used_at = null where used_at is not null",
    "a new link": "insert into one_time_links (user_id, hash, created_at, expires_at)"
    f" select id, :hash, :later, :later {SELECT_BO}",
    "a new link of a first admin": "insert into one_time_links (hash, created_at, expires_at)"
    " values (:hash, :later, :later)",
    "a factor": "update second_factors set secret = :hash",
    "a recovery code": "update recovery_codes set hash = :hash",
    "a used recovery code": "update recovery_codes set used_at = null where used_at is not null",
    "a new recovery code": "insert into recovery_codes (user_id, hash)"
    f" select id, :hash {SELECT_BO}",
}


@pytest.fixture
def house(database):
    """Return a house in which bo signs in in every way, and ada has a link."""
    fill(database)
    return database


@filled_once
def fill(database):
    with TemporaryDirectory() as folder:
        give_credentials(database, Path(folder))
    assert find_access_ledger_faults(database) == ()


def give_credentials(database, folder):
    """Let bo sign in in every way, and give ada a link."""
    furnish(database)
    signing = build_signing(database, ManualClock(NOON), folder, QUICK)
    link = users.create_sign_in_link(database, ADA, "bo", at=NOON, secret=chance(32).hex())
    signing.sign_in_with_link(link, PASSWORD, at=NOON, address="10.0.0.1")
    users.update_account(database, ADA, "bo", users.AccountUpdate(email="bo@example.org"), at=NOON)
    signing.sign_in_with_identity(ISSUER, "bo-1", "bo@example.org", at=NOON)
    keys.create_key(database, BO, "bo", random_bytes=chance(), at=NOON)
    _, codes = enrol(signing, BO)
    signing.sign_in_with_password(
        "bo", PASSWORD, address="10.0.0.1", code=codes[0], at=NOON + timedelta(hours=1)
    )
    users.create_sign_in_link(database, ADA, "ada", at=NOON, secret=chance(32).hex())


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_a_single_edit_of_how_somebody_signs_in_is_found(house, edit):
    names = {"hash": chance(32), "later": LATER}
    with house.begin_write() as transaction:
        used = {name: value for name, value in names.items() if f":{name}" in edit}
        assert transaction.execute(text(edit), used).rowcount
    faults = find_access_ledger_faults(house)
    assert faults
    assert all("chain" in fault for fault in faults)


def test_who_is_erased_disabled_or_enabled_again_is_no_fault(house):
    with house.begin_write() as transaction:
        pseudonym = Accounts(transaction).add_names(["bo"]).find_id("bo")
        erase_account(transaction, ADA, "bo", reason="asked", at=NOON + DAY)
        Accounts(transaction).clear_name(pseudonym)
    assert find_access_ledger_faults(house) == ()
    with house.begin_read() as transaction:
        salts = transaction.execute(text("select salt from users where email is null")).scalars()
        assert None in list(salts), "nobody can guess the address from its digest"
    for is_disabled in (True, False):
        update = users.AccountUpdate(is_disabled=is_disabled)
        users.update_account(house, ADA, "box", update, at=NOON + DAY)
        assert find_access_ledger_faults(house) == ()
    strip_last_admin(house, ADA, "ada", at=NOON + DAY)
    assert find_access_ledger_faults(house) == ()
