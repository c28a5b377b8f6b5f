"""The page about sources: its commands apply rules 2 to an old rollout, and its policy is read."""

import re
from contextlib import closing
from datetime import UTC, datetime

import pytest

from rollout.core.policy.evidence_sources import AccountSource, EvidenceSources
from rollout.core.scope.permissions import ADMIN, OPERATOR, AssignedRole
from rollout.formats.policy.reader import parse_policy
from rollout.services.access import users
from rollout.services.engine.rollout_state import load_rollout_state
from rollout.store.database.session import Database
from tests.docs.pages import text_of, typed
from tests.docs.test_docs import HERE, folder, run

PAGE = "docs/concepts/sources.md"

__all__ = ["folder"]


def load_rules():
    with closing(Database(HERE)) as database, database.begin_read() as transaction:
        return load_rollout_state(transaction, "ramps").scope.rules


def add_users():
    now = datetime.now(UTC)
    with closing(Database(HERE)) as database:
        users.create_first_admin(database, "ada", at=now)
        ada = users.load_local_caller(database, "ada")
        for name, role in {"zoe": ADMIN, "ana": OPERATOR}.items():
            roles = [AssignedRole(role)]
            users.create_account(database, ada, name, at=now, role_assignments=roles)


@pytest.mark.slow
def test_the_commands_apply_rules_2_to_an_old_rollout_and_choose_in_a_replay(folder, monkeypatch):
    run("rollout db upgrade")
    with monkeypatch.context() as before_rules:
        before_rules.setattr("rollout.services.engine.policy_application.CURRENT_RULES", 0)
        run("rollout apply policy.yaml --by zoe")
    add_users()
    assert load_rules() == 1
    plan, propose, approve, replay = [one.line for one in typed(PAGE)]
    text = run(plan)
    assert "There is no way back to rules 1" in text
    cited = re.search(r"--evidence-hash (\w{64})", text)[1]
    run(propose.replace("HASH", cited))
    assert "it is applied at once" in run(approve.replace("HASH", cited))
    assert load_rules() == 2
    assert "nothing to apply" in run(plan)
    head = " ".join(run(replay).split("\n- ")[0].split())
    assert "Only decisions of decisions.csv count" in head


def test_the_policy_of_the_page_names_these_sources(folder):
    (text,) = re.findall(r"```yaml\n(.*?)```", text_of(PAGE), re.DOTALL)
    policy = parse_policy(
        "rollout: ramps\ntimezone: UTC\nlevers: [{id: parcel, labels: [a, b]}]\nsites: [x]\n"
        "gates: [{to: supervised, require: [{measure: agreement, at_least: 95%}]}]\n"
        + text.replace("evidence:\n", "evidence:\n  unit: case\n")
    )
    account = AccountSource("desk-tool", ("clerk-*",))
    assert policy.evidence.sources == EvidenceSources(
        imports=False, accounts=(account,), outcomes=("till",)
    )
