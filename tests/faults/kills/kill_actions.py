"""Each action that a process is killed in: how it begins, and how a client brings it to its end.

An action leaves behind what the next ones need: a stop is resumed, a resume is approved.
"""

import shutil
import sqlite3
import subprocess
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import cycle
from pathlib import Path
from threading import Thread

from sqlalchemy import make_url

from rollout.data.database.migrations import load_current_revision
from tests.faults.kills.kill_field import SITES
from tests.faults.kills.replica_clients import ACCOUNTS, build_cases, is_acknowledged
from tests.faults.kills.replica_processes import (
    COMMAND,
    PATIENCE,
    TICKS,
    find_program_path,
)
from tests.migrations.further import FURTHER, HEAD

BATCH = 40
"""Cases of a batch that is killed: enough for a few dozen milliseconds."""
REPORT_SPAN = timedelta(seconds=30)
REPORT_AUTHORS = ("ana", "bo", "cy")
BEGIN_PATIENCE = 10
APPROVERS = ("bo", "cy")
RETRIES = 40
RETRY_PAUSE = 0.25


class ActionFailedError(Exception):
    """An action could not be brought to its end after a kill."""


class KillActions:
    """The actions of one campaign, in the state that earlier ones left."""

    def __init__(self, processes, operators, oracle, acknowledgements, folder, url):
        self._processes, self._operators, self._oracle = processes, operators, oracle
        self._acknowledgements, self._folder, self._url = acknowledgements, Path(folder), url
        self._sites = cycle(SITES)
        self._stopped, self._proposed = [], []
        self._number = 0

    def run(self, action, victim, kill):
        """Let an action be killed and bring it to its end; return how the process died.

        Args:
            action: its name.
            victim: the replica that is asked; for ticks and commands nobody is.
            kill: called with the number of the process that began the action, or None, and whether
            its process of ticks is meant. It kills.
        """
        self._number += 1
        return getattr(self, f"_run_{action}")(victim, kill)

    # Requests

    def _run_ingest(self, victim, kill):
        cases = build_cases(BATCH)
        requests = [self._operators.start_batch(cases, account) for account in ACCOUNTS]
        death = self._kill_request(requests[0], victim, kill)
        for request in requests:
            self._store_batch(request, 1 - victim)
        self._acknowledgements.add_cases(cases)
        return death

    def _store_batch(self, request, replica):
        """Send a batch until each record is acknowledged, and then never again."""
        for _ in range(RETRIES):
            body = request.finish(replica, PATIENCE)
            if is_acknowledged(body):
                return
            request.answer = None
            time.sleep(RETRY_PAUSE)
        raise ActionFailedError(f"a batch is never accepted: {body}")

    def _run_stop(self, victim, kill):
        site, reason = next(self._sites), f"stop {self._number}"
        body = {"sites": [site], "windows": ["*"], "reason": reason}
        request = self._operators.start_request("ana", "/stops", body, "stop")
        death = self._kill_request(request, victim, kill)
        answer = request.finish(1 - victim, PATIENCE)
        self._oracle.add_stop(site, reason, request.answered_at)
        stops = [stop for stop in answer["active_stops"] if stop["reason"] == reason]
        if not stops:
            raise ActionFailedError(f"the stop is answered, but not active: {answer}")
        self._stopped.append((site, stops[0]["id"]))
        return death

    def _run_resume(self, victim, kill):
        if not self._stopped:
            self._run_stop(victim, None)
        site, stop = self._stopped.pop(0)
        request = self._operators.start_request("ana", f"/stops/{stop}/resume", {}, "resume")
        death = self._kill_request(request, victim, kill)
        answer = request.finish(1 - victim, PATIENCE)
        self._oracle.add_resume(answer["proposal"])
        self._proposed.append((site, answer["proposal"], answer["evidence_hash"]))
        return death

    def _run_approve(self, victim, kill):
        if not self._proposed:
            self._run_resume(victim, None)
        site, proposal, evidence = self._proposed.pop(0)
        death = None
        for who in APPROVERS:
            if who == APPROVERS[-1]:
                self._oracle.end_stop(site, time.monotonic())
            body = {"evidence_hash": evidence}
            path = f"/proposals/{proposal}/approvals"
            request = self._operators.start_request(who, path, body, "approve")
            death = death or self._kill_request(request, victim, kill if death is None else None)
            request.finish(1 - victim, PATIENCE)
            self._oracle.add_approval(who, proposal)
        return death

    def _run_report(self, victim, kill):
        until = datetime.now(UTC)
        body = {
            "name": f"report-{self._number}",
            "since": (until - REPORT_SPAN).isoformat(),
            "until": until.isoformat(),
        }
        who = REPORT_AUTHORS[self._number % len(REPORT_AUTHORS)]
        request = self._operators.start_request(who, "/reports", body, "report")
        death = self._kill_request(request, victim, kill)
        answer = request.finish(1 - victim, PATIENCE)
        self._oracle.add_report(answer["id"], answer["hash"])
        return death

    def _kill_request(self, request, victim, kill):
        """Send a request to a replica, which is killed meanwhile; without `kill` only send it."""
        if kill is None:
            request.try_at(victim)
            return None
        begun = {victim: self._processes.count_begun(victim, request.action)}
        sender = Thread(target=request.try_at, args=(victim,), daemon=True)
        sender.start()
        self._processes.await_begin(
            begun, request.action, BEGIN_PATIENCE, lambda: not sender.is_alive()
        )
        death = kill(victim)
        sender.join()
        return death

    # What no client asks for

    def _run_tick(self, victim, kill):
        begun = {number: self._processes.count_begun(number, "tick") for number in TICKS}
        number = self._processes.await_begin(begun, "tick", BEGIN_PATIENCE)
        replica = victim if number is None else TICKS.index(number)
        return kill(replica, is_tick_process=bool(victim))  # else the one that answers

    def _run_migrate(self, _victim, kill):
        death = self._kill_command(("db", "upgrade"), "migrate", kill)
        if (current := load_current_revision(self._url)) not in {HEAD, FURTHER}:
            raise ActionFailedError(f"the migration stands at {current}")
        self._repeat("db", "upgrade")
        self._repeat("check-next-schema")
        self._repeat("go-back")
        return death

    def _run_backup(self, _victim, kill):
        target = self._folder / f"backup-{self._number}"
        death = self._kill_command(("db", "backup", str(target)), "backup", kill)
        if not target.exists():
            self._repeat("db", "backup", str(target))
        missing = self._find_missing(target)
        self._oracle.add_missing_in_backup(missing)
        target.unlink()
        return death

    def _find_missing(self, target):
        """Return the cases that were acknowledged before and are not in a backup."""
        if make_url(self._url).get_backend_name() == "sqlite":
            with closing(sqlite3.connect(f"file:{target}?mode=ro", uri=True)) as backup:
                return self._oracle.find_missing_cases(backup.execute)
        program = shutil.which("pg_restore", path=find_program_path())
        words = [program, "--data-only", "--table=external_keys", "--file=-", str(target)]
        text = subprocess.run(words, check=True, capture_output=True, text=True).stdout
        rows = [line.split("\t") for line in text.splitlines() if line.count("\t") == 3]
        return self._oracle.find_missing_cases(lambda _: [(row[3],) for row in rows])

    def _kill_command(self, words, action, kill):
        begun = {COMMAND: 0}
        pid = self._processes.start_command(*words)
        self._processes.await_begin(begun, action, BEGIN_PATIENCE)
        return kill(COMMAND, pid)

    def _repeat(self, *words):
        """Run a command until it succeeds, as its user would after it broke off."""
        for _ in range(RETRIES):
            if self._processes.run_command(*words) == 0:
                return
            time.sleep(RETRY_PAUSE)
        raise ActionFailedError(f"{' '.join(words)}: {self._processes.read_log(COMMAND)}")
