"""Each kind of ledger entry is named by a revision, and waits if an older program can't read it."""

import pytest
from alembic.script import ScriptDirectory

from rollout.data.database.migrations import find_migrations_folder
from rollout.engine.events import NEWER_KINDS
from rollout.engine.ledger.ledger import ALL_EVENT_TYPES
from tests.migrations.further import copy_migrations


def find_kind_faults(folder, kinds, newer_kinds):
    """Return where revisions, the program's kinds and those of them that wait disagree."""
    revisions = [script.module for script in ScriptDirectory(str(folder)).walk_revisions()]
    names = [module.revision for module in revisions]  # the newest first
    since_oldest = revisions[: names.index(revisions[0].oldest_program)]
    declared = {kind for module in revisions for kind in module.kinds}
    waiting = {kind for module in since_oldest for kind in module.kinds}
    return [
        *(f"{kind}: no revision names it in `kinds`" for kind in sorted({*kinds} - declared)),
        *(f"{kind}: a revision names it, the program lacks it" for kind in declared - {*kinds}),
        *(f"{kind}: add it to NEWER_KINDS" for kind in sorted(waiting - newer_kinds)),
        *(f"{kind}: take it out of NEWER_KINDS" for kind in sorted(newer_kinds - waiting)),
    ]


def test_every_kind_is_named_and_waits_where_an_older_program_may_run():
    assert find_kind_faults(find_migrations_folder(), ALL_EVENT_TYPES, NEWER_KINDS) == []


@pytest.mark.parametrize(
    ("added", "newer_kinds", "fault"),
    [
        ({"WeatherNoted"}, {"WeatherNoted"}, None),
        ({"WeatherNoted"}, set(), "WeatherNoted: add it to NEWER_KINDS"),
        (set(), {"WeatherNoted"}, "WeatherNoted: a revision names it, the program lacks it"),
        (
            {"WeatherNoted", "SnowNoted"},
            {"WeatherNoted"},
            "SnowNoted: no revision names it in `kinds`",
        ),
        (
            {"WeatherNoted"},
            {"WeatherNoted", "Approved"},
            "Approved: take it out of NEWER_KINDS",
        ),
    ],
)
def test_a_kind_that_somebody_forgot_is_named(tmp_path, added, newer_kinds, fault):
    faults = find_kind_faults(copy_migrations(tmp_path), {*ALL_EVENT_TYPES, *added}, newer_kinds)
    assert faults == ([fault] if fault else [])
