"""`rollout db`: the table of its commands."""

from typing import ClassVar, Final

import typer

from rollout.terminal.command_table import CommandEntry, TableGroup

COMMANDS: Final = {
    "upgrade": CommandEntry(
        "cli.tables:upgrade_tables",
        "Create the tables, or upgrade them to this version of the program; all or nothing.",
    ),
    "grant": CommandEntry(
        "cli.tables:grant_role",
        "Grant a PostgreSQL role what the service needs, without ownership of the tables.",
    ),
    "current": CommandEntry(
        "cli.tables:show_table_revision",
        "Print the revision of the tables; exit 1 if this program needs another.",
    ),
    "backup": CommandEntry(
        "features.backups.cli:back_up_database",
        "Write a backup of the database in ROLLOUT_DATABASE_URL; replicas may run.",
    ),
    "restore": CommandEntry(
        "features.backups.cli:restore_database",
        "Replace the database in ROLLOUT_DATABASE_URL by a backup; everything starts stopped.",
    ),
    "accept-restored": CommandEntry(
        "features.backups.cli:accept_restored_database",
        "Declare that the database in ROLLOUT_DATABASE_URL was restored on purpose.",
    ),
}


class DatabaseGroup(TableGroup):
    """The commands of `rollout db`."""

    entries: ClassVar = COMMANDS


app = typer.Typer(cls=DatabaseGroup, no_args_is_help=True)


@app.callback()
def describe_commands() -> None:
    """Create, upgrade, back up and restore the database in ROLLOUT_DATABASE_URL.

    Example: `rollout db upgrade`
    """
