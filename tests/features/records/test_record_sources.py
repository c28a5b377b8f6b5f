"""The kind of a decision's source: by the rules of the rollout, for each way in."""

import pytest
from sqlalchemy import select

from rollout.data.tables.tables import decisions
from rollout.engine.decide.commands import Actor
from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.engine.records.records import Case, Decision
from rollout.features.access import users
from rollout.features.policies.policies import put_policy
from rollout.features.process.health_checks import run_health_checks
from rollout.features.records.ingest import _Batch
from rollout.live.policy_application import apply_policy
from rollout.live.rollout_state import load_rollout_state
from tests.attacks.test_invented_decisions import NAMED, POLICY
from tests.factories import DAY, NOON

CASE = Case(key="a", site="ramp-a", window="always", occurred_at=NOON)
DECISION = Decision(key="a", reviewer="r1", answers={"parcel": "sound"}, exposure="blind")


def store(database, sender):
    """Store a case with its decision as a client's batch; return the kind of the source."""
    with database.begin_write() as transaction:
        state = load_rollout_state(transaction, "ramps")
        batch = _Batch(transaction, state, [CASE, DECISION], NOON)
        batch.set_sources(sender)
        batch.store("u-aaaaaaaaaaaaaaaa", permit_signer=None)
        return transaction.execute(select(decisions.c.source)).scalar_one()


@pytest.fixture(autouse=True)
def _ramps(database):
    apply_policy(
        database, POLICY % NAMED, Actor("zoe"), NOON - DAY, salt=bytes(32), service_salt=bytes(32)
    )


def test_an_account_that_the_policy_names_is_a_source(database):
    assert store(database, "people") == "account"


def test_another_account_is_unnamed(database):
    assert store(database, "camera") == "unnamed"


def test_broad_accounts_and_those_that_count_for_nothing_are_listed(database):
    users.create_first_admin(database, "zoe", at=NOON)
    zoe = users.load_local_caller(database, "zoe")
    for name, roles in {"people": ["ingest-decisions"], "camera": ["ingest"]}.items():
        users.create_account(
            database,
            zoe,
            name,
            at=NOON,
            is_service_account=True,
            role_assignments=[AssignedRole(role, "ramps") for role in roles],
        )
    assert users.find_broad_accounts(database) == ("camera",)
    notes = [note for check in run_health_checks(database) for note in check.notes]
    assert [note.partition(" ")[0] for note in notes] == ["camera"]
    admin = Caller("zoe", role_assignments=(AssignedRole("admin"),))
    result = put_policy(database, admin, "ramps", POLICY % NAMED, at=NOON)
    warnings = [text for text in result.warnings if text.startswith("evidence.sources")]
    assert [text.split()[1] for text in warnings] == ["camera"]
