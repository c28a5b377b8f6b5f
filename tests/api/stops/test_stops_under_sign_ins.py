"""Stops while sign-ins fill every queue that they wait in: counted, since no test is timed.

The one thread that hashes is blocked, the line behind it is full, and the threads that other
requests share are as many as the sign-ins hold. A stop that waited in any of these queues would be
answered after a hash.
"""

from dataclasses import replace

import pytest
from anyio import to_thread
from starlette.testclient import TestClient

from api.app import create_app
from api.web_kit.page_context import TOKEN_FIELD, mask_token
from rollout.engine.decide.permissions import AssignedRole
from rollout.features.access import keys, users
from rollout.features.access.authentication import MAX_CACHE_AGE, Authenticator
from rollout.features.access.credentials import MAX_WAITING_HASHES
from rollout.features.access.sign_in import SignIn
from rollout.live.service import build_service
from tests.api.access.test_sign_in_queue import full_line, hasher
from tests.api.bears import CREEK, V1, founded, scope_of, widened
from tests.factories import NOON
from tests.features.access.test_sign_in import QUICK
from tests.features.houses import ADA, PASSWORD, chance, furnish

__all__ = ["hasher"]
BODY = {"sites": ["creek"]}
PAGES = "/console/rollouts/bears/stop"


@pytest.fixture
def operator(database, clock):
    """Return an operator's key and session; bo, who signs in, has a password."""
    furnish(database)
    founded(database, NOON)
    widened(database, NOON, CREEK)
    users.create_account(
        database, ADA, "oli", at=NOON, role_assignments=(AssignedRole("operator"),)
    )
    signing = SignIn(database, clock, chance, QUICK)
    signing.set_password(ADA, "bo", PASSWORD, at=NOON)
    key = keys.create_key(database, ADA, "oli", random_bytes=chance(), at=NOON)
    return key, signing.start_demo_session("oli", at=NOON)


@pytest.fixture
def service(database, clock, hasher, operator):
    made = build_service(database, Authenticator(database, clock), clock, chance)
    return replace(made, sign_in=SignIn(database, clock, chance, hasher))


def stop_by_key(client, key, _session):
    headers = {"Authorization": f"Bearer {key.text}"}
    return [client.post(f"{V1}/stops", json=BODY, headers=headers)]


def stop_by_session(client, _key, session):
    headers = build_headers(session) | {"X-CSRF-Token": session.csrf}
    return [client.post(f"{V1}/stops", json=BODY, headers=headers)]


def stop_on_pages(client, _key, session):
    form = {TOKEN_FIELD: mask_token(session.csrf, chance), "target": "site/creek", "reason": ""}
    headers = build_headers(session)
    shown = [client.get(path, headers=headers) for path in (PAGES, f"{PAGES}/confirm?target=all")]
    sent = client.post(f"{PAGES}/confirm", data=form, headers=headers, follow_redirects=False)
    assert sent.status_code == 303
    return [*shown, client.get(sent.headers["Location"], headers=headers)]


def build_headers(session):
    return {"Cookie": f"__Host-rollout={session.token}", "Sec-Fetch-Site": "same-origin"}


@pytest.mark.parametrize("stop", [stop_by_key, stop_by_session, stop_on_pages])
def test_a_stop_passes_every_queue_that_sign_ins_wait_in(
    service, database, clock, hasher, operator, stop
):
    with TestClient(create_app(service)) as client:
        shared = client.portal.call(get_shared_threads)
        shared.total_tokens = MAX_WAITING_HASHES
        assert client.get("/v1/me", headers=build_headers(operator[1])).status_code == 200
        clock.since_boot += MAX_CACHE_AGE  # the caller is looked up again
        with full_line(client, service, hasher) as sign_ins:
            assert shared.available_tokens == 0
            answers = stop(client, *operator)
            assert sign_ins == [], "no password was compared before the stop was answered"
            assert scope_of(database).is_stopped(CREEK)
        assert all(answer.is_success for answer in answers), answers
    assert {answer.status_code for answer in sign_ins} == {200}


async def get_shared_threads():
    """Return the limit of the threads that all requests share."""
    return to_thread.current_default_thread_limiter()
