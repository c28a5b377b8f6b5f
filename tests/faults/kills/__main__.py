"""Run the kills: `python -m tests.faults.kills --engine sqlite --kills 500 --seed 1`.

Ctrl-C ends it with what there is: everything is still compared and written.
"""

import argparse
import logging
import signal
import sys
import tempfile
from contextlib import closing
from dataclasses import dataclass
from threading import Event

from tests.data.databases import close_server, close_templates
from tests.faults.copies import COPIES
from tests.faults.kills.broken_services import MUTANTS
from tests.faults.kills.database_roles import create_service_role
from tests.faults.kills.fork_server import ForkServer
from tests.faults.kills.kill_campaign import KillCampaign, KillLimits
from tests.faults.kills.kill_outcome import build_outcome, describe_result
from tests.faults.kills.process_marks import MarkBoard
from tests.faults.kills.replica_processes import REGIONS
from tests.faults.kills.service_process import build_runner, warm_up
from tests.faults.outcomes import OUTCOMES, record_outcome

MUTANT_ACTIONS = {"lost": ("ingest",), "doubled": ("ingest",), "late_stops": ("stop",)}
MUTANT_LIMITS = {"kills": 2, "most": 2, "final_commands": ()}
PROGRESS_EVERY = 10
WRITE_EVERY = 50


@dataclass(frozen=True)
class KillRunner:
    """Runs campaigns, all by one fork server."""

    server: ForkServer
    board: MarkBoard
    options: argparse.Namespace
    interruption: Event

    def run_kills(self, engine):
        """Run a campaign of an engine; return 1 if anything was wrong."""
        words = f"--engine {engine} --kills {self.options.kills} --seed {self.options.seed}"

        def tell(result, is_end=False):
            died = result.total + result.missed.total()
            if died == 1 or died % PROGRESS_EVERY == 0:
                _print_progress(result)
            if self.options.write and (is_end or died % WRITE_EVERY == 0):
                command = f"python -m tests.faults.kills {words}"
                record_outcome(OUTCOMES, build_outcome(result, command))

        result = self._run_campaign(engine, KillLimits(self.options.kills), tell)
        tell(result, is_end=True)
        print(describe_result(result))  # noqa: T201 - the answer
        return int(bool(result.faults))

    def run_mutants(self, engine):
        """Run each broken service; return 1 if the oracle does not see one."""
        missed = 0
        for name, (_, heading) in MUTANTS.items():
            limits = KillLimits(**MUTANT_LIMITS, actions=MUTANT_ACTIONS[heading])
            result = self._run_campaign(engine, limits, lambda _: None, (name, name))
            count = result.counts.faults[heading]
            missed += not count
            print(f"{engine} · {name}: {heading} {count or 'NOT SEEN'}")  # noqa: T201
        return int(bool(missed))

    def _run_campaign(self, engine, limits, tell, mutants=("", "")):
        with (
            tempfile.TemporaryDirectory(prefix="rollout-kills-") as folder,
            closing(COPIES[engine](folder)) as copies,
        ):
            processes = self.server, self.board, folder
            urls = create_service_role(copies, copies.fresh())
            campaign = KillCampaign(processes, urls, engine, self.options.seed, mutants)
            with closing(campaign):
                return campaign.run(limits, tell, self.interruption.is_set)


def main(words=None):
    """Run campaigns; return 1 if anything was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.kills")
    parser.add_argument("--engine", action="append", choices=COPIES, help="by default both")
    parser.add_argument("--kills", type=int, default=500, help="that count, of each engine")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write", action="store_true", help="write to docs/reliability.toml")
    parser.add_argument("--mutants", action="store_true", help="what the oracle sees of mutants")
    options = parser.parse_args(words)
    logging.disable()
    board = MarkBoard(REGIONS)
    server = ForkServer(warm_up, build_runner(board))
    runner = KillRunner(server, board, options, _catch_interruption())
    try:
        run = runner.run_mutants if options.mutants else runner.run_kills
        codes = [
            run(engine) for engine in options.engine or COPIES if not runner.interruption.is_set()
        ]
        return max(codes)
    finally:
        server.close()
        board.close()
        close_server()
        close_templates()


def _catch_interruption():
    """Return what the first Ctrl-C sets; the second one ends the process."""
    interruption = Event()

    def interrupt(*_):
        interruption.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGINT, interrupt)
    return interruption


def _print_progress(result):
    sys.stderr.write(
        f"{result.engine}: {result.total} kills inside an action, {result.missed.total()} beside,"
        f" {result.counts.faults.total()} faults, worst recovery {result.worst_recovery:.1f} s,"
        f" {result.seconds:.0f} s\n"
    )
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
