"""Unknown keys cost a look-up: an address that sends many gets no more, others notice nothing."""

from dataclasses import replace

import pytest
from fastapi.testclient import TestClient

from api import limits
from api.app import create_app
from api.limits import ANONYMOUS_BURST, RequestRates
from rollout.features.access import keys
from rollout.features.access.authentication import MAX_CACHE_AGE, Authenticator
from rollout.live.service import build_service
from tests.factories import NOON
from tests.features.houses import ADA, BO, chance, furnish

FLOOD = int(ANONYMOUS_BURST)


class CountingAuthenticator(Authenticator):
    """Counts what may read the database."""

    look_ups = 0

    def authenticate_key(self, key_text, at):
        self.look_ups += 1
        return super().authenticate_key(key_text, at)

    def authenticate_session(self, token, at, *, csrf=None, is_use=True):
        self.look_ups += 1
        return super().authenticate_session(token, at, csrf=csrf, is_use=is_use)


@pytest.fixture
def door(database, clock):
    furnish(database)
    return CountingAuthenticator(database, clock)


@pytest.fixture
def client(database, clock, door):
    service = replace(build_service(database, door, clock, chance), authenticator=door)
    with TestClient(create_app(service), client=("203.0.113.7", 5000)) as made:
        yield made


def ask(client, key, path="/v1/me"):
    return client.get(path, headers={"Authorization": f"Bearer {key}"}).status_code


def create_key(database, caller):
    made = keys.create_key(database, caller, caller.name, random_bytes=chance(), at=NOON)
    return made.text


def flood(client):
    statuses = {ask(client, f"ro_{number:012x}_{'0' * 64}") for number in range(FLOOD)}
    assert statuses == {401}


def test_an_address_that_flooded_gets_429_without_a_look_up(client, door):
    flood(client)
    before = door.look_ups
    assert ask(client, f"ro_{'f' * 12}_{'0' * 64}") == 429
    assert client.get("/v1/me", headers={"Cookie": "__Host-rollout=AAAA"}).status_code == 429
    assert door.look_ups == before


def test_a_key_that_this_process_knows_still_works_from_there(client, database, clock):
    key = create_key(database, BO)
    assert ask(client, key) == 200
    flood(client)
    clock.since_boot += MAX_CACHE_AGE  # the cache must be confirmed, by one read for everybody
    assert ask(client, key) == 200


def test_another_address_is_not_concerned_and_the_wait_ends(client, database, clock, door):
    flood(client)
    other = TestClient(client.app, client=("203.0.113.8", 5000))
    assert ask(other, create_key(database, BO)) == 200
    new_key = create_key(database, ADA)
    assert ask(client, new_key) == 429
    clock.since_boot += 1
    assert ask(client, new_key) == 200


def test_a_stop_is_looked_up_whatever_came_from_its_address(client, database, door):
    flood(client)
    key, before = create_key(database, BO), door.look_ups
    headers = {"Authorization": f"Bearer {key}"}
    stop = client.post("/v1/rollouts/none/stops", json={"all": True}, headers=headers)
    assert door.look_ups == before + 1
    assert stop.status_code == 404


def test_a_wrong_secret_behind_a_known_prefix_reads_nothing_anew(client, database, door):
    key = create_key(database, BO)
    assert ask(client, key) == 200
    register = door._register
    assert ask(client, key[:-4] + "0000") == 401
    assert door._register is register


def test_a_flood_from_many_addresses_forgets_the_oldest_alone(clock, monkeypatch):
    monkeypatch.setattr(limits, "MAX_BUCKETS", 3)
    rates = RequestRates(clock)
    for _ in range(int(ANONYMOUS_BURST)):
        assert rates.take_for_address({"client": ("10.0.0.1", 1)})
    for number in range(2, 9):
        assert not rates.take_for_address({"client": ("10.0.0.1", 1)})
        assert rates.take_for_address({"client": (f"10.0.0.{number}", 1)})
    assert len(rates.buckets) == 3


def test_a_network_of_ipv6_is_one_address(clock):
    rates = RequestRates(clock)
    for number in range(int(ANONYMOUS_BURST)):
        assert rates.take_for_address({"client": (f"2001:db8::{number:x}", 1)})
    assert not rates.take_for_address({"client": ("2001:db8::ffff", 1)})
    assert rates.take_for_address({"client": ("2001:db8:1::1", 1)})


def test_each_key_has_the_rate_of_the_setting(database, clock, door):
    service = replace(build_service(database, door, clock, chance), authenticator=door)
    one, other = create_key(database, BO), create_key(database, BO)
    with TestClient(create_app(service, request_rate=1.0)) as client:
        assert [ask(client, one) for _ in range(5)] == [200] * 4 + [429]
        assert [ask(client, other) for _ in range(5)] == [200] * 4 + [429]  # of the same user
        clock.since_boot += 2
        assert [ask(client, one) for _ in range(3)] == [200, 200, 429]
