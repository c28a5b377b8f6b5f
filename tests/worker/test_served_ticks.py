"""`rollout serve` and its process of ticks: what runs, what a kill costs, and how both end."""

import os
import signal
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rollout.data.database.migrations import upgrade
from rollout.data.database.rollouts import Rollouts
from rollout.data.database.session import Database
from rollout.data.ledger.scopes import TickSlots
from rollout.engine.decide.commands import Actor
from rollout.live.policy_application import apply_policy
from tests.api.test_serve import serving, until_ready

pytestmark = [pytest.mark.enable_socket, pytest.mark.slow]
POLICY = """
rollout: ramps
timezone: UTC
levers: [{id: parcel, labels: [damaged, sound]}]
sites: [ramp]
evidence: {unit: case, grace: 1m}
gates: [{to: supervised, require: [{measure: agreement, at_least: 95%}]}]
tick: 1s
"""
SECONDS = 60.0


def list_children(process):
    """Return the processes of ticks that a service has."""
    tasks = Path(f"/proc/{process.pid}/task").glob("*/children")
    children = [int(child) for task in tasks for child in task.read_text().split()]
    return [c for c in children if b"tick_process" in Path(f"/proc/{c}/cmdline").read_bytes()]


def wait_until(is_true):
    ends_at = time.monotonic() + SECONDS
    while not is_true():
        assert time.monotonic() < ends_at
        time.sleep(0.05)


def test_ticks_go_on_after_kill_and_both_end_when_told(tmp_path):
    url = f"sqlite:///{tmp_path / 'rollout.db'}"
    upgrade(url)
    with closing(Database(url)) as database:
        apply_policy(database, POLICY, Actor("zoe"), datetime.now(UTC) - timedelta(hours=1))

        def find_last_slot():
            with database.begin_read() as transaction:
                rollout = Rollouts(transaction).find("ramps")
                return TickSlots(transaction, rollout).load_last_done() or 0

        with serving(url) as (address, process):
            until_ready(address)
            wait_until(find_last_slot)
            (child,) = list_children(process)
            assert b"polars" in Path(f"/proc/{child}/maps").read_bytes()
            assert b"polars" not in Path(f"/proc/{process.pid}/maps").read_bytes()
            assert Path(f"/proc/{child}/oom_score_adj").read_text().strip() == "500"
            os.kill(child, signal.SIGKILL)
            slot = find_last_slot()
            wait_until(lambda: find_last_slot() > slot + 1)
            assert until_ready(address).json()["ready"]
            (child,) = list_children(process)
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=20) == 0
            assert not Path(f"/proc/{child}").exists()
            assert "Traceback" not in process.stderr.read()
    assert [file.name for file in tmp_path.iterdir()] == ["rollout.db"], "it was closed: no WAL"
