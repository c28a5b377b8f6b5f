"""200 open pages of the console while nothing changes, and the overview of 200 rollouts.

The service runs in a process of its own on SQLite; each page asks its revision every 1.2 seconds
with the cookie and the tag that it has. CPU is the serving process'.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROLLOUTS, PAGES, EVERY, SECONDS = 200, 200, 1.2, 20
START = datetime.now(UTC) - timedelta(days=1)
PASSWORD = "a horse in a benchmark"  # noqa: S105 - of a database that is gone at the end
SAME_SITE = {"Sec-Fetch-Site": "same-origin"}
POLICY = """
rollout: bench-{n}
timezone: {zone}
levers: [{{id: alarm, labels: [bear, none], actions: {{bear: siren, none: nothing}}}}]
sites: [creek-{n}, lake-{n}]
windows: [{{id: day, hours: "0{hour}:00-20:00"}}, {{id: night, hours: 24/7}}]
evidence: {{unit: case}}
gates: [{{to: supervised, require: [{{measure: agreement, at_least: 95%}}]}}]
"""
ZONES = ("America/Vancouver", "Europe/Lisbon", "Asia/Tokyo", "UTC")


def fill(url: str) -> None:
    """Make the rollouts, and somebody who reads and operates all of them."""
    from rollout.data.database.migrations import upgrade
    from rollout.data.database.session import Database
    from rollout.engine.decide.commands import Actor
    from rollout.engine.decide.permissions import AssignedRole, Caller
    from rollout.features.access import users
    from rollout.features.access.sign_in import SignIn
    from rollout.live.clock import SystemClock
    from rollout.live.policy_application import apply_policy

    upgrade(url)
    database, admin = Database(url), Caller("ada", role_assignments=(AssignedRole("admin"),))
    for n in range(ROLLOUTS):
        text = POLICY.format(n=n, zone=ZONES[n % len(ZONES)], hour=5 + n % 4)
        apply_policy(database, text, Actor("ada"), START, salt=bytes(32))
    users.create_first_admin(database, "ada", at=START)
    rights = (AssignedRole("operator"), AssignedRole("viewer"))
    users.create_account(database, admin, "ana", at=START, role_assignments=rights)
    signing = SignIn(database, SystemClock(), bytes)
    signing.set_password(admin, "ana", PASSWORD, at=START)
    database.close()


def measure(port: int) -> None:
    """Sign in, load the overview, then ask the revision as 200 open pages do; print both."""
    import httpx2

    with httpx2.Client(base_url=f"http://localhost:{port}", headers=SAME_SITE, timeout=30) as ana:
        fields = {"name": "ana", "password": PASSWORD, "to": "/console/"}
        assert ana.post("/console/sign-in", data=fields).has_redirect_location  # noqa: S101
        for which in ("first load of a process", "later load"):
            before = ana.get("/cpu").json()
            with ana.stream("GET", "/console/") as answer:
                sent = b"".join(answer.iter_raw())
                text = answer.headers["content-type"]
            spent = ana.get("/cpu").json() - before
            size = len(sent) / 1000
            print(f"overview of {ROLLOUTS}, {which}: {spent * 1000:.0f} ms, {size:.1f} kB {text}")
        page = ana.get("/console/").text
        tag = re.search(r'data-revision="([^"]*)"', page)
        at = re.search(r'data-revision-at="([^"]*)"', page)
        assert tag is not None  # noqa: S101 - a benchmark of another page would mean nothing
        assert at is not None  # noqa: S101
        _poll(ana, at[1], f'"{tag[1]}"')


def _poll(ana: Any, at: str, tag: str) -> None:
    from http import HTTPStatus

    before, began = ana.get("/cpu").json(), time.monotonic()
    poll_count = round(PAGES * SECONDS / EVERY)
    for n in range(poll_count):
        time.sleep(max(0.0, began + n * EVERY / PAGES - time.monotonic()))
        answer = ana.get(at, headers={"If-None-Match": tag})
        assert answer.status_code == HTTPStatus.NOT_MODIFIED  # noqa: S101
    wall, spent = time.monotonic() - began, ana.get("/cpu").json() - before
    share, each = spent / wall, spent / poll_count * 1e6
    print(f"{PAGES} open pages: {share:.1%} of a core, {each:.0f} us of CPU a question")


def main() -> None:
    """Fill a database, serve it, measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder) / 'bench.db'}"
        fill(url)
        words = [sys.executable, str(HERE / "assignments.py"), "--serve", "ours", "--url", url]
        with subprocess.Popen(  # noqa: S603 - this very file runs it
            words, stdout=subprocess.PIPE, text=True
        ) as process:
            try:
                assert process.stdout is not None  # noqa: S101 - it was asked for
                measure(int(process.stdout.readline()))
            finally:
                process.kill()


if __name__ == "__main__":
    main()
