"""How long a stop takes while 24 clients of ever new addresses sign in with wrong passwords.

`rollout serve` runs in a process of its own, on SQLite and where possible on PostgreSQL, behind a
proxy as far as it knows: each sign-in names another account and another address, so no limit by
these helps. Each stop is of another site, so each is written. The clients run on the same machine
and take their share of its processors.
"""

import os
import secrets
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from threading import Event

from benchmarks.ingest import find_postgresql, fresh_postgresql

STOPS, CLIENTS, PAUSE, FLOOD_SECONDS = 100, 24, 0.2, 75
SITES = [f"site-{number}" for number in range(2 * STOPS)]
POLICY = f"""
rollout: bench
timezone: UTC
levers: [{{id: alarm, labels: [bear, none], actions: {{bear: siren, none: nothing}}}}]
sites: [{", ".join(SITES)}]
windows: [{{id: day, hours: 24/7}}]
evidence: {{unit: case}}
gates: [{{to: supervised, require: [{{measure: agreement, at_least: 95%}}]}}]
"""
SCRIPT = "from rollout.cli.main import app; app()"


def fill(url: str) -> str:
    """Make the rollout and its operator, who has a password; return the operator's key."""
    from rollout.data.database.migrations import upgrade
    from rollout.data.database.session import Database
    from rollout.engine.decide.commands import Actor
    from rollout.engine.decide.permissions import AssignedRole, Caller
    from rollout.features.access import keys, users
    from rollout.features.access.sign_in import SignIn
    from rollout.live.clock import SystemClock
    from rollout.live.policy_application import apply_policy

    upgrade(url)
    now, database = datetime.now(UTC), Database(url)
    admin = Caller("ada", role_assignments=(AssignedRole("admin"),))
    apply_policy(database, POLICY, Actor("ada"), now, salt=bytes(32))
    users.create_first_admin(database, "ada", at=now)
    users.create_account(
        database, admin, "ana", at=now, role_assignments=(AssignedRole("operator"),)
    )
    signing = SignIn(database, SystemClock(), secrets.token_bytes)
    signing.set_password(admin, "ana", "a quiet brown otter", at=now)
    key = keys.create_key(
        database, admin, "ana", random_bytes=secrets.token_bytes(keys.KEY_BYTES), at=now
    )
    database.close()
    return key.text


def flood(address: str) -> None:
    """Sign in with wrong passwords for some seconds; print the answers' statuses and the rate."""
    is_over, statuses = Event(), Counter[int]()
    began = time.monotonic()
    with ThreadPoolExecutor(CLIENTS) as pool:
        for _ in range(CLIENTS):
            pool.submit(_sign_in_often, address, is_over, statuses)
        time.sleep(FLOOD_SECONDS)
        is_over.set()
    rate = statuses.total() / (time.monotonic() - began)
    print(f"sign-ins: {rate:.0f} a second, answers {dict(statuses)}")


def _sign_in_often(address: str, is_over: Event, statuses: Counter[int]) -> None:
    import httpx2

    with httpx2.Client(base_url=address, timeout=30) as client:
        while not is_over.wait(PAUSE):
            origin = socket.inet_ntoa(secrets.token_bytes(4))
            body = {"name": secrets.token_hex(4), "password": secrets.token_hex(8)}
            answer = client.post("/v1/session", json=body, headers={"X-Forwarded-For": origin})
            statuses[answer.status_code] += 1


def measure_stops(address: str, key: str, sites: list[str]) -> list[float]:
    """Return the seconds of a stop of each site."""
    import httpx2

    seconds = []
    with httpx2.Client(base_url=address, headers={"Authorization": f"Bearer {key}"}) as client:
        for site in sites:
            began = time.perf_counter()
            answer = client.post("/v1/rollouts/bench/stops", json={"sites": [site]}, timeout=30)
            seconds.append(time.perf_counter() - began)
            assert answer.is_success, answer.text  # noqa: S101
            time.sleep(PAUSE)
    return seconds


def run_against(address: str, key: str) -> None:
    """Measure without and with the flood, which has a process of its own; print both."""
    _print_stops("nobody signs in", measure_stops(address, key, SITES[:STOPS]))
    words = [sys.executable, __file__, "--flood", address]
    with subprocess.Popen(words) as process:  # noqa: S603 - this very file
        time.sleep(3)
        seconds = measure_stops(address, key, SITES[STOPS:])
        assert process.poll() is None, "the flood ended before the stops"  # noqa: S101
    _print_stops(f"{CLIENTS} clients sign in", seconds)


def _print_stops(title: str, seconds: list[float]) -> None:
    steps = statistics.quantiles(seconds, n=100, method="inclusive")
    figures = {"p50": steps[49], "p99": steps[98], "longest": max(seconds)}
    texts = [f"{name} {value * 1000:.0f} ms" for name, value in figures.items()]
    load = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors"
    print(f"{title}: {len(seconds)} stops, {', '.join(texts)} ({load})")


@contextmanager
def serve(url: str) -> Iterator[str]:
    """Run the service on a database; give its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    settings = {"ROLLOUT_DATABASE_URL": url, "ROLLOUT_TRUSTED_PROXIES": "127.0.0.1"}
    words = [sys.executable, "-c", SCRIPT, "serve", "--port", port]
    with (
        tempfile.TemporaryDirectory() as folder,  # for what it makes where it is started
        subprocess.Popen(  # noqa: S603 - this very program
            words, env={**os.environ, **settings}, stderr=subprocess.PIPE, text=True, cwd=folder
        ) as process,
    ):
        try:
            assert process.stderr is not None  # noqa: S101 - it was asked for
            while "is serving on" not in process.stderr.readline():
                pass
            time.sleep(1)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def measure(engine: str, url: str) -> None:
    """Fill a database, serve it and measure."""
    print(engine)
    key = fill(url)
    with serve(url) as address:
        run_against(address, key)


def main() -> None:
    """Measure on each engine; `--flood ADDRESS` is the other process."""
    if len(sys.argv) > 1:
        flood(sys.argv[-1])
        return
    with tempfile.TemporaryDirectory() as folder:
        measure("SQLite", f"sqlite:///{Path(folder) / 'bench.db'}")
    if server := find_postgresql():
        with fresh_postgresql(server) as url:
            measure("PostgreSQL", url)


if __name__ == "__main__":
    main()
