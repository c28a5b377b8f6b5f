"""Run the kills: `python -m tests.faults.kills --engine sqlite --kills 500 --seed 1`."""

import argparse
import logging
import sys
import tempfile
from contextlib import closing

from tests.faults.copies import COPIES
from tests.faults.kills.broken_services import MUTANTS
from tests.faults.kills.fork_server import ForkServer
from tests.faults.kills.kill_campaign import HEADINGS, KillCampaign
from tests.faults.kills.process_marks import ACTIONS, MarkBoard
from tests.faults.kills.replica_processes import COMMAND
from tests.faults.kills.service_process import build_runner, warm_up
from tests.store.databases import close_server, close_templates

MUTANT_ACTIONS = {"lost": ("ingest",), "doubled": ("ingest",), "late_stops": ("stop",)}
MUTANT_KILLS = 3


def main(words=None):
    """Run campaigns; return 1 if anything was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.kills")
    parser.add_argument("--engine", action="append", choices=COPIES, help="by default both")
    parser.add_argument("--kills", type=int, default=500, help="that count, of each engine")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--mutants", action="store_true", help="what the oracle sees of mutants")
    options = parser.parse_args(words)
    logging.disable()
    board = MarkBoard(COMMAND + 1)
    server = ForkServer(warm_up, build_runner(board))
    try:
        run = _run_mutants if options.mutants else _run_kills
        return max([run(server, board, engine, options) for engine in options.engine or COPIES])
    finally:
        server.close()
        close_server()
        close_templates()


def _run_kills(server, board, engine, options):
    result = _run_campaign(server, board, engine, options.seed, options.kills)
    print(describe_result(result))  # noqa: T201 - the answer
    return int(bool(result.faults))


def _run_mutants(server, board, engine, options):
    """Run each broken service; return 1 if the oracle does not see one."""
    missed = 0
    for name, (_, heading) in MUTANTS.items():
        mutants = ("", name) if heading == "late_stops" else (name, name)
        result = _run_campaign(
            server, board, engine, options.seed, MUTANT_KILLS, MUTANT_ACTIONS[heading], mutants
        )
        seen = result.counts.count(heading)
        missed += not seen
        print(f"{engine} · {name}: {heading} {seen}{'' if seen else ' NOT SEEN'}")  # noqa: T201
    return int(bool(missed))


def _run_campaign(server, board, engine, seed, kills, actions=ACTIONS, mutants=("", "")):
    with (
        tempfile.TemporaryDirectory(prefix="rollout-kills-") as folder,
        closing(COPIES[engine](folder)) as copies,
    ):
        campaign = KillCampaign(server, board, copies.fresh(), folder, engine, seed, mutants)
        with closing(campaign):
            return campaign.run(kills, actions, _print_progress)


def _print_progress(result):
    sys.stderr.write(
        f"\r{result.engine}: {result.total} kills inside an action, {result.missed.total()} beside,"
        f" {len(result.faults)} faults, worst recovery {result.worst_recovery:.1f} s,"
        f" {result.seconds:.0f} s "
    )
    sys.stderr.flush()


def describe_result(result):
    """Return the table of a campaign."""
    counts = result.counts
    lines = [
        f"{result.engine}, seed {result.seed}: {result.total} kills in {result.seconds:.0f} s",
        *(
            f"  {action:8} {result.kills[action]:4} inside, {result.missed[action]:3} beside, "
            f"ready after at most {max(result.recoveries[action], default=0):.2f} s, "
            f"{len(result.points[action])} points"
            for action in ACTIONS
        ),
        f"  looked for {counts.records:,} records and {counts.events:,} events; {counts.answers:,}"
        f" answers, {counts.model_answers:,} model, {counts.stopped_answers:,} under a stop",
        "  " + ", ".join(f"{heading} {counts.count(heading)}" for heading in HEADINGS),
        *(f"  FAULT {fault}" for fault in result.faults[:20]),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
