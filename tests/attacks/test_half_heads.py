"""Hundreds of heads that never end, from many addresses: who signed in before can still stop."""

import socket
import time
from contextlib import ExitStack, closing
from datetime import UTC, datetime

import httpx2
import pytest

from rollout.data.database.migrations import upgrade
from rollout.data.database.session import Database
from rollout.engine.decide.permissions import AssignedRole
from rollout.features.access import keys, users
from tests.api.bears import founded
from tests.api.test_serve import serving, until_ready

pytestmark = [pytest.mark.enable_socket, pytest.mark.slow]
FILES = 256
CAP = FILES - 100
FEW_FILES = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({FILES}, {FILES})); "
HALF_HEAD = b"GET / HTTP/1.1\r\nHost: a\r\nX: "


def add_operator(url):
    """Found the bears, and return an operator's key."""
    now = datetime.now(UTC)
    with closing(Database(url)) as database:
        founded(database, now)
        users.create_first_admin(database, "ada", at=now)
        ada = users.load_local_caller(database, "ada")
        role = (AssignedRole("operator"),)
        users.create_account(database, ada, "olga", at=now, role_assignments=role)
        random_bytes = bytes(range(keys.KEY_BYTES))
        return keys.create_key(database, ada, "olga", random_bytes=random_bytes, at=now).text


def send_half_heads(stack, port, addresses, count):
    """Return connections from each address on each of which a head has begun."""
    lines = []
    for address in addresses:
        for _ in range(count):
            line = socket.create_connection(("127.0.0.1", port), 10, (address, 0))
            lines.append(stack.enter_context(line))
            line.sendall(HALF_HEAD)
    return lines


def is_open(line):
    """Return whether the service neither answered nor ended a connection."""
    line.setblocking(False)
    try:
        line.recv(1)
    except BlockingIOError:
        return True
    except ConnectionError:
        return False
    return False


def test_an_operator_stops_within_a_second_while_others_hold_every_connection(tmp_path):
    url = f"sqlite:///{tmp_path / 'rollout.db'}"
    upgrade(url)
    headers = {"Authorization": f"Bearer {add_operator(url)}"}
    with serving(url, before=FEW_FILES) as (address, _), ExitStack() as stack:
        until_ready(address)
        assert httpx2.get(f"{address}/v1/me", headers=headers, timeout=5).status_code == 200
        port = int(address.rpartition(":")[2])
        others = [f"127.0.0.{number}" for number in range(2, 12)]
        lines = send_half_heads(stack, port, [*others, "127.0.0.1"], 40)
        assert len(lines) > FILES
        began = time.monotonic()
        stop = {"all": True, "reason": "smoke"}
        answer = httpx2.post(
            f"{address}/v1/rollouts/bears/stops", json=stop, headers=headers, timeout=5
        )
        assert answer.status_code in (200, 201)
        assert time.monotonic() - began < 1
        assert sum(map(is_open, lines)) in range(CAP - 10, CAP + 11)
        with httpx2.Client(transport=httpx2.HTTPTransport(local_address="127.0.1.1")) as stranger:
            assert stranger.get(f"{address}/health/live", timeout=5).status_code == 503
        time.sleep(11)
        assert not any(map(is_open, lines)), "a head comes within ten seconds"
        assert httpx2.get(f"{address}/health/live", timeout=5).status_code == 200
