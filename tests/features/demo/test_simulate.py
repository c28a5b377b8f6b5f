"""Simulated traffic goes on where a busy service asks to retry."""

import httpx2
import pytest

from rollout.features.demo import player
from rollout.features.demo.player import MAX_TRIES
from rollout.features.demo.quickstart import QuickstartClient
from rollout.kernel.errors import RefusalError


@pytest.fixture
def ask(monkeypatch):
    """Return a function that asks a service with these status codes, and the number of tries."""
    monkeypatch.setattr(player, "sleep", lambda _: None)

    def run(*codes):
        answers = iter(codes)
        transport = httpx2.MockTransport(lambda _: httpx2.Response(next(answers), json={"a": 1}))
        with httpx2.Client(base_url="http://service", transport=transport) as http:
            client = QuickstartClient(None, "http://service", http, {"ada": "ro_1"})
            try:
                return client.request("ada", "GET", "/v1/rollouts"), len(codes) - len([*answers])
            except RefusalError as error:
                return str(error), len(codes) - len([*answers])

    return run


def test_a_service_that_is_busy_for_a_while_does_not_end_the_traffic(ask):
    """Seen: the tutorial's traffic ended at the first 503 of a busy machine."""
    assert ask(503, 503, 200) == ({"a": 1}, 3)


def test_a_service_that_stays_unavailable_or_refuses_ends_it(ask):
    text, tries = ask(*[503] * MAX_TRIES, 200)
    assert ("with status 503" in text, tries) == (True, MAX_TRIES)
    text, tries = ask(403, 200)
    assert (text.startswith("http://service answered 403"), tries) == (True, 1)
