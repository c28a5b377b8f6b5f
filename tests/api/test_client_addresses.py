"""The client's address: the peer's, or what a trusted proxy says, never what the client says."""

import pytest
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient

from api.serve import build_server_config
from rollout.settings import Settings

CLIENT, FORGED, PROXY = "203.0.113.7", "198.51.100.9", "10.0.0.5"


def ask(trusted, peer, forwarded=(), scheme="http"):
    """Return the address and the scheme that the application sees."""
    app = FastAPI()

    @app.get("/")
    async def echo(request: Request) -> dict[str, str]:
        return {"address": request.client.host, "scheme": request.url.scheme}

    config = build_server_config(app, Settings(trusted_proxies=trusted), "127.0.0.1", 0)
    config.load()
    headers = [("X-Forwarded-For", value) for value in forwarded] + [("X-Forwarded-Proto", scheme)]
    with TestClient(config.loaded_app, client=(peer, 5000)) as client:
        answer = client.get("/", headers=headers).json()
    return answer["address"], answer["scheme"]


@pytest.mark.parametrize("peer", [CLIENT, "127.0.0.1", PROXY])
def test_without_trusted_proxies_the_peer_counts_whatever_it_says(peer):
    assert ask("", peer, [FORGED], "https") == (peer, "http")


@pytest.mark.parametrize("trusted", [PROXY, "10.0.0.0/24", f"192.0.2.1, {PROXY}"])
def test_behind_a_trusted_proxy_the_address_that_it_added_counts(trusted):
    """As the header of nginx: what the client sent, and then the address of the client."""
    assert ask(trusted, PROXY, [f"{FORGED}, {CLIENT}"], "https") == (CLIENT, "https")
    assert ask(trusted, PROXY, [FORGED, CLIENT])[0] == CLIENT
    assert ask(trusted, PROXY, [f"{FORGED}, {CLIENT}, {PROXY}"])[0] == CLIENT


def test_somebody_beside_the_proxy_is_not_believed():
    assert ask(PROXY, CLIENT, [FORGED], "https") == (CLIENT, "http")
    assert ask(PROXY, "127.0.0.1", [FORGED])[0] == "127.0.0.1"
