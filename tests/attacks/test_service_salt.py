"""The service's own salt never leaves it: who chooses keys could else foretell what it draws."""

import logging
from base64 import b64encode
from hashlib import sha256
from pathlib import Path

import pytest

from rollout.data.database.rollouts import Rollouts
from rollout.data.ledger.ledger import Ledger
from rollout.engine.events import RolloutCreated
from rollout.features.process.health_checks import run_health_checks
from rollout.live.rollout_state import load_rollout_state
from rollout.live.service import build_service
from tests.api.assignments.autonomous_bears import clocks_agree
from tests.api.bears import POLICY, V1
from tests.api.test_rights_matrix import MATRIX

pytestmark = pytest.mark.slow

__all__ = ["clocks_agree"]

SHARED, OWN = bytes(range(32)), bytes(range(100, 132))
NAMING = {
    "rollout/data/tables/tables.py",
    "rollout/data/database/rollouts.py",
    "rollout/engine/events/rollouts.py",
    "rollout/engine/decide/assignment.py",
    "rollout/live/policy_application.py",
    "rollout/live/rollout_state.py",
    "rollout/features/process/health_checks.py",
    "rollout/features/reports/stored_inputs.py",
    "rollout/features/what_if/runs.py",
    "rollout/features/demo/stage.py",
}
"""The modules that name it: those that make it, store it, hash it, and draw by it."""
TEXTS = (
    OWN.hex(),
    OWN.hex().upper(),
    b64encode(OWN).decode(),
    OWN.decode("latin-1"),
    repr(OWN)[2:-1],
)


@pytest.fixture
def service(database, door, clock):
    drawn = iter([SHARED, OWN])
    return build_service(database, door, clock, entropy=lambda n: next(drawn, bytes(n)))


def leaks(*texts):
    return [text for text in TEXTS for printed in texts if text in printed]


def test_modules_that_name_the_salt_are_few():
    naming = {
        str(path)
        for folder in ("rollout", "api", "clients")
        for path in Path(folder).rglob("*.py")
        if "service_salt" in path.read_text("utf-8")
    }
    assert naming == NAMING


def test_a_rollout_has_two_salts_and_their_hashes_are_in_its_ledger(client, database):
    assert client.by("ana").put(f"{V1}/policy", content=POLICY).status_code == 201
    with database.begin_read() as transaction:
        rollout = Rollouts(transaction).find("bears")
        created = next(iter(Ledger(transaction, rollout).list_events()))
    assert (rollout.salt, rollout.service_salt) == (SHARED, OWN)
    assert isinstance(created, RolloutCreated)
    hashes = (created.salt_hash, created.service_salt_hash)
    assert hashes == tuple(sha256(salt).hexdigest() for salt in (SHARED, OWN))
    assert not leaks(repr(rollout), str(rollout), repr(created))


def test_no_answer_page_log_or_check_shows_the_salt(client, database, caplog):
    caplog.set_level(logging.DEBUG)
    client.by("ana").put(f"{V1}/policy", content=POLICY)
    answers = {}
    for name in MATRIX:
        method, path = name.split()
        if method == "GET" and not path.endswith("/events"):  # a stream would never end
            path = path.replace("{rollout}", "bears").replace("{site}", "creek")
            path = path.replace("{window}", "day").replace("{version:path}", "v1")
            answers[path] = client.get(path)
    assert SHARED.hex() in answers[f"{V1}/scope"].text  # the other one is a client's
    printed = [answer.text + str(answer.headers) for answer in answers.values()]
    with database.begin_read() as transaction:
        state = load_rollout_state(transaction, "bears")
        rows = list(Ledger(transaction, state.rollout).list_rows())
    checks = [str(check) for check in run_health_checks(database)]
    assert not leaks(*printed, *map(str, rows), *checks, caplog.text, repr(state))
