"""A synthetic migration on top of the program's tables: the next version, which nobody has yet.

The next program is a copy of this tree with that one file more, and one kind of entry, which this
program can't read. Its tables differ from those of the program by a column and a table, of which
its code, the same as ours, knows nothing.
"""

import shutil
from pathlib import Path

from alembic.command import downgrade

from rollout.data.database.migrations import (
    build_config,
    find_head_revision,
    find_migrations_folder,
)
from rollout.data.database.session import create_database_engine

ROOT = Path(__file__).parents[2]
FOLDERS = ("rollout", "api", "config", "examples/mail-room/records")
HEAD = find_head_revision()
FURTHER = "9000"
TEXT = """
import sqlalchemy as sa
from alembic import op

revision = "{further}"
down_revision = "{head}"
oldest_program = "{head}"
branch_labels, depends_on = None, None
forms = dict(WeatherNoted="at by slot weather")


def upgrade():
{upgrades}


def downgrade():
    op.drop_table("weathers")
    op.drop_column("cases", "weather")
"""
UPGRADES = """
    op.add_column("cases", sa.Column("weather", sa.Text()))
    op.create_table("weathers", sa.Column("id", sa.Integer(), primary_key=True))
    op.execute("insert into weathers (id) select id from rollouts")
"""
EVENTS, FORMS = "rollout/engine/events/__init__.py", "rollout/engine/ledger/forms.py"
KIND = (
    (
        EVENTS,
        "EVENT_TYPES: dict",
        """
from dataclasses import dataclass

@dataclass(frozen=True, slots=True, kw_only=True)
class WeatherNoted(LedgerEvent):
    weather: str

    def apply(self, builder):
        pass
EVENT_TYPES: dict""",
    ),
    (EVENTS, "    DamageCleared,\n)\n", "    DamageCleared,\n    WeatherNoted,\n)\n"),
    (FORMS, "frozenset()\n", 'frozenset({"WeatherNoted"})\n'),
)
"""What stands in the next program's modules instead."""
DRIFT = ["remove_table", "remove_column"]
"""The kinds of differences between the program's tables and the next ones."""


def copy_migrations(folder, upgrades=UPGRADES, text=TEXT):
    """Write the program's migrations and a further one into a folder; return their folder."""
    copy = Path(folder) / "migrations"
    shutil.copytree(find_migrations_folder(), copy)
    revision = text.format(upgrades=upgrades, head=HEAD, further=FURTHER)
    (copy / "versions" / "further.py").write_text(revision, encoding="utf-8")
    return copy


def go_back(url):
    """Undo the further migration, whose folder must be in use."""
    engine = create_database_engine(url)
    try:
        with engine.connect() as connection:
            downgrade(build_config(connection), HEAD)
    finally:
        engine.dispose()


def copy_program(folder):
    """Write the next program, with its migration and kind of entry, into a folder."""
    for name in FOLDERS:
        shutil.copytree(ROOT / name, Path(folder) / name)  # with its byte code
    copy_migrations(folder)
    for name, before, after in KIND:
        module = Path(folder) / name
        text = module.read_text(encoding="utf-8")
        assert text.count(before) == 1
        module.write_text(text.replace(before, after), encoding="utf-8")
