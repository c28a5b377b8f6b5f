"""The command line `rollout`: the table of all commands."""

import os
import sys
from importlib.metadata import version
from typing import Annotated, ClassVar, Final

import typer

from rollout.terminal.command_table import CommandEntry, TableGroup, has_server_packages

# Before a command imports numpy: no system of equations here has more than some hundred unknowns,
# and on busy processors OpenBLAS' threads take 40 times as long for them as one does.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

COMMANDS: Final = {
    "demo": CommandEntry(
        "features.demo.cli:demo",
        "Play an example system: a policy, its records, and what the controller does with them.",
    ),
    "replay": CommandEntry(
        "features.replay.cli:replay",
        "Replay recorded history: report when and where a policy would have widened and narrowed.",
    ),
    "compare": CommandEntry(
        "features.replay.cli:compare", "Compare human answers with the model's on a file of pairs."
    ),
    "count": CommandEntry(
        "features.lake.cli:count",
        "Count the units of a history of any size, for a replay that needs no records.",
    ),
    "plan": CommandEntry(
        "features.policies.planning_cli:plan",
        "Print how many decisions and days a policy needs, and what it would miss.",
    ),
    "init": CommandEntry(
        "features.policies.drafting_cli:draft",
        "Draft a minimal policy for two recorded files, and report how they are read.",
    ),
    "serve": CommandEntry(
        "terminal.serve:serve",
        "Run the service: API, console and ticks, on the database in ROLLOUT_DATABASE_URL.",
        needs_server=True,
    ),
    "quickstart": CommandEntry(
        "features.demo.quickstart:quickstart",
        "Start a service to try: accounts, keys, an imported history, at 127.0.0.1 only.",
        needs_server=True,
    ),
    "simulate": CommandEntry(
        "features.demo.quickstart:simulate",
        "Send live traffic to the service of `rollout quickstart`, as its clients would.",
        needs_server=True,
    ),
    "import": CommandEntry(
        "features.records.cli:import_record_files",
        "Import recorded files into the database (safe to repeat).",
        needs_server=True,
    ),
    "apply": CommandEntry(
        "features.policies.cli:apply",
        "Apply a policy. A new one creates the rollout; a looser one becomes a proposal.",
        needs_server=True,
    ),
    "what-if": CommandEntry(
        "features.what_if.cli:what_if",
        "Compare a policy draft with the policy in force, on the local database.",
        needs_server=True,
    ),
    "tick": CommandEntry(
        "cli.ticks:tick",
        "Count new evidence and widen or narrow, on the local database, for one slot.",
        needs_server=True,
    ),
    "status": CommandEntry(
        "features.cells.cli:status",
        "Show the stage and next step of each cell, open proposals with their hashes, and stops.",
        needs_server=True,
    ),
    "proposals": CommandEntry(
        "features.cells.cli:proposals",
        "List proposals that need approval, or show one with its evidence.",
        needs_server=True,
    ),
    "incidents": CommandEntry(
        "features.cells.cli:incidents",
        "List incidents that are not acknowledged.",
        needs_server=True,
    ),
    "approve": CommandEntry(
        "features.proposals.cli:approve",
        "Approve a proposal. After the last approval, the next tick applies it.",
        needs_server=True,
    ),
    "reject": CommandEntry(
        "features.proposals.cli:reject",
        "Reject a proposal. A similar one is raised again only after the policy's quiet time.",
        needs_server=True,
    ),
    "narrow": CommandEntry(
        "features.proposals.cli:narrow",
        "Narrow cells to a stage at once: end every grant above it.",
        needs_server=True,
    ),
    "attempt": CommandEntry(
        "features.proposals.cli:attempt",
        "Begin a version's next attempt in cells: at the next share of the year's risk.",
        needs_server=True,
    ),
    "stop": CommandEntry(
        "features.proposals.cli:stop",
        "Stop cells at once: humans decide every case until a resume is approved.",
        needs_server=True,
    ),
    "resume": CommandEntry(
        "features.proposals.cli:resume",
        "Propose to end a stop. Other users approve it with the hash from `rollout proposals`.",
        needs_server=True,
    ),
    "retire": CommandEntry(
        "features.cells.cli:retire",
        "Retire a model version everywhere: its grants end and it gets no new ones.",
        needs_server=True,
    ),
    "acknowledge": CommandEntry(
        "features.cells.cli:acknowledge",
        "Acknowledge an incident. This restores no grant.",
        needs_server=True,
    ),
    "baseline": CommandEntry(
        "features.records.cli:import_baseline",
        "Import how often each action was taken before the model, from a CSV file.",
        needs_server=True,
    ),
    "plant": CommandEntry(
        "features.records.cli:plant",
        "Declare cases as planted, before they are sent (safe to repeat).",
        needs_server=True,
    ),
    "report": CommandEntry(
        "features.reports.cli:create_report",
        "Create a report on the cases of a span, seal it in the ledger, and write it.",
        needs_server=True,
    ),
    "doctor": CommandEntry(
        "features.backups.cli:run_doctor",
        "Check the database: tables, triggers, ledgers, reports. Exit 1 if a check fails.",
        needs_server=True,
    ),
    "deliveries": CommandEntry(
        "features.delivery.cli:manage_deliveries",
        "List deliveries of reports, retry a failed one, or send a report.",
        needs_server=True,
    ),
    "ledger": CommandEntry("features.ledger.cli:app", "Export and verify ledgers."),
    "channels": CommandEntry(
        "features.delivery.channels_cli:app", "List and test the channels that reports are sent to."
    ),
    "clean": CommandEntry(
        "features.training.cli:clean_app",
        "Clean training data: list cases that stand out, and relabel, drop or keep them.",
        extension="features.training.live_cli:extend_clean",
    ),
    "training": CommandEntry(
        "features.training.cli:training_app",
        "Export training rows with a manifest, and verify them against it.",
        extension="features.training.live_cli:extend_training",
    ),
    "erase": CommandEntry(
        "features.erasure.cli:app",
        "Erase the contents of cases, or names, for good. Counts, hashes and ledgers stay.",
        needs_server=True,
    ),
    "db": CommandEntry(
        "cli.database:app",
        "Create, upgrade, back up and restore the database in ROLLOUT_DATABASE_URL.",
        needs_server=True,
    ),
    "users": CommandEntry(
        "features.access.cli:users_app",
        "Manage users, service accounts and roles. Start with `rollout users first-admin NAME`.",
        needs_server=True,
    ),
    "keys": CommandEntry(
        "features.access.cli:keys_app",
        "Manage the API keys of users and service accounts. A key is shown once and expires.",
        needs_server=True,
    ),
}


SERVICE_STEPS: Final = (
    "To try the service: `rollout quickstart`. For a service: `rollout db upgrade`, "
    "`rollout users first-admin`, `rollout serve`."
)


class RolloutGroup(TableGroup):
    """The commands of `rollout`."""

    entries: ClassVar = {name: entry for name, entry in COMMANDS.items() if entry.is_available()}


app = typer.Typer(
    cls=RolloutGroup,
    name="rollout",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Roll out a model in stages, site by site and hour by hour, on evidence that humans "
    "approve.\n\n"
    "Start with `rollout demo`. With two files of your own: `rollout init`, `rollout plan`, "
    "`rollout replay`. "
    + (SERVICE_STEPS if has_server_packages() else "For a service install the extra `server`."),
)


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        python = ".".join(map(str, sys.version_info[:3]))
        product = f"rollout-controller {version('rollout-controller')}"
        typer.echo(f"{product}, Python {python}, {sys.platform}")
        raise typer.Exit


@app.callback()
def open_group(
    _: Annotated[
        bool,
        typer.Option(
            "--version",
            help="print the versions of rollout and Python, and exit",
            callback=_print_version,
            is_eager=True,
        ),
    ] = False,
) -> None:
    """Open the group; without a callback Typer refuses a group without commands of its own."""
