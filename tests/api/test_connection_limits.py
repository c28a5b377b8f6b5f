"""Half-sent heads of some addresses keep nobody out from whose address somebody signed in."""

import asyncio
import socket
import time
from contextlib import suppress
from ipaddress import ip_network

import pytest
import uvicorn

from api.limits import (
    MEMORY_SECONDS,
    ConnectionLimits,
    GuardedConnection,
    build_protocol,
    read_connection_limits,
)

HALF_HEAD = b"GET / HTTP/1.1\r\nHost: a\r\nX: "


class Line:
    """A connection as the limits see it."""

    def __init__(self, limits, address="10.0.0.1"):
        self.limits, self.is_closed = limits, False
        self.connection = limits.build_connection(address, self.close)
        self.is_admitted = limits.admit(self.connection)

    def close(self):
        self.is_closed = True
        self.limits.remove(self.connection)


def test_beyond_the_cap_only_addresses_that_authenticated_within_a_day_are_admitted():
    now = [0.0]
    limits = ConnectionLimits(8, read_clock=lambda: now[0])
    first = Line(limits, "10.9.9.9")
    limits.recognize(first.connection)
    assert all(Line(limits, f"10.0.0.{number}").is_admitted for number in range(7))
    assert not Line(limits, "10.0.1.1").is_admitted
    assert Line(limits, "10.9.9.9").is_admitted
    now[0] = MEMORY_SECONDS
    assert not Line(limits, "10.9.9.9").is_admitted


def test_an_address_has_a_fourth_and_its_newest_replaces_the_oldest_that_waits():
    limits = ConnectionLimits(16)
    lines = [Line(limits) for _ in range(4)]
    lines[0].connection.is_waiting = False  # it asked, and gets its answer
    assert Line(limits).is_admitted
    assert [line.is_closed for line in lines] == [False, True, False, False]
    assert Line(limits, "10.0.0.2").is_admitted
    limits.recognize(lines[2].connection)
    assert Line(limits).is_admitted
    assert [line.is_closed for line in lines] == [False, True, False, False], "one asked as a user"
    for connection in limits.anonymous["10.0.0.1"]:
        connection.is_waiting = False
    assert not Line(limits).is_admitted


def test_beyond_the_cap_an_address_replaces_its_own_after_a_few():
    limits = ConnectionLimits(100)
    limits.recognize(Line(limits, "10.9.9.9").connection)
    lines = [Line(limits, "10.9.9.9") for _ in range(10)]
    strangers = [Line(limits, f"10.0.{number}.1") for number in range(100)]
    assert sum(line.is_admitted for line in strangers) == 89
    assert limits.open == 111, "those that were not admitted have not ended yet"
    assert Line(limits, "10.9.9.9").is_admitted
    assert [line.is_closed for line in lines] == [True] + [False] * 9


def test_an_ipv6_network_is_one_address():
    limits = ConnectionLimits(4)
    first, _ = Line(limits, "2001:db8::1"), Line(limits, "2001:db8::2")
    assert first.is_closed


def test_trusted_proxies_are_exempt():
    limits = ConnectionLimits(2, (ip_network("10.0.0.0/24"),))
    lines = [Line(limits, "10.0.0.9") for _ in range(5)]
    assert all(line.is_admitted and not line.is_closed for line in lines)
    assert not limits.must_close(lines[0].connection)
    assert not Line(limits, "10.0.1.9").is_admitted


def test_near_the_cap_connections_of_nobody_close_after_their_answer():
    limits = ConnectionLimits(8)
    lines = [Line(limits, f"10.0.0.{number}") for number in range(5)]
    assert not limits.must_close(lines[0].connection)
    lines.append(Line(limits, "10.0.0.5"))
    assert limits.must_close(lines[0].connection)
    limits.recognize(lines[0].connection)
    assert not limits.must_close(lines[0].connection)


def test_of_too_many_recognized_addresses_the_longest_unheard_is_forgotten(monkeypatch):
    monkeypatch.setattr("api.limits.MAX_RECOGNIZED", 2)
    limits = ConnectionLimits(8)
    for address in ("10.0.0.1", "10.0.0.2", "10.0.0.1", "10.0.0.3"):
        limits.recognize(Line(limits, address).connection)
    assert [*limits.recognized] == ["10.0.0.1", "10.0.0.3"]


def test_what_ended_leaves_nothing_behind():
    limits = ConnectionLimits(8)
    lines = [Line(limits, f"10.0.0.{number % 3}") for number in range(7)]
    for line in lines:
        if not line.is_closed:
            line.close()
    assert (limits.open, limits.anonymous) == (0, {})


def test_the_cap_leaves_files_for_everything_else(monkeypatch):
    limit = "api.limits.resource.getrlimit"
    for files, cap in ((1_024, 924), (256, 156), (120, 60), (-1, 99_900)):
        monkeypatch.setattr(limit, lambda _, files=files: (files, files))
        assert read_connection_limits("").cap == cap
    trusted = read_connection_limits("10.0.0.5, 10.1.0.0/16").trusted_proxies
    assert trusted == (ip_network("10.0.0.5"), ip_network("10.1.0.0/16"))


async def answer(scope, receive, send):
    await receive()
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


@pytest.mark.slow
@pytest.mark.enable_socket
@pytest.mark.parametrize("parser", ["h11", "selected"])
def test_a_head_comes_in_time_or_its_connection_ends(parser, monkeypatch):
    monkeypatch.setattr(GuardedConnection, "head_seconds", 0.3)
    choice = {"parser": "h11"} if parser == "h11" else {}
    limits = ConnectionLimits(100)
    config = uvicorn.Config(
        answer, http=build_protocol(limits, **choice), lifespan="off", log_level="critical"
    )

    async def run():
        server, listening = uvicorn.Server(config), socket.socket()
        listening.bind(("127.0.0.1", 0))
        task = asyncio.create_task(server.serve([listening]))
        while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.01)
        lines = [await asyncio.open_connection(*listening.getsockname()) for _ in range(3)]
        silent, half, whole = lines
        half[1].write(HALF_HEAD)
        whole[1].write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await whole[0].readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204")
        began = time.monotonic()
        for reader, _ in (silent, half):
            with suppress(ConnectionError):
                assert await reader.read() == b""
        assert time.monotonic() - began < 1
        await asyncio.sleep(0.3)
        whole[1].write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await whole[0].readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204"), "it may wait"
        for _, writer in lines:
            writer.close()
        server.should_exit = True
        await task

    asyncio.run(run())
    assert limits.open == 0
