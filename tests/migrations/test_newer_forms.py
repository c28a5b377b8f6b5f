"""Each form of entries is named by a revision, and waits if an older program can't read it."""

from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime

import pytest
from alembic.script import ScriptDirectory

from rollout.data.database.migrations import find_migrations_folder
from rollout.engine.events import OMITTED_WHEN_EMPTY, Approved, Narrowed
from rollout.engine.ledger.forms import NEWER_FORMS, list_forms, list_used_forms
from rollout.engine.ledger.ledger import ALL_EVENT_TYPES
from rollout.kernel.calendar.instants import Cell
from rollout.kernel.facts import StoredAlarm
from rollout.kernel.measures import MEASURES, Condition
from tests.migrations.further import TEXT, copy_migrations

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)
FORMS = list_forms(ALL_EVENT_TYPES.values())
WRITTEN_ALWAYS = {
    f"{name}.{each.name}"
    for name, kind in ALL_EVENT_TYPES.items()
    for each in fields(kind)
    if OMITTED_WHEN_EMPTY not in each.metadata
}


@dataclass(frozen=True, slots=True, kw_only=True)
class WarnedApproved(Approved):
    warning: str = ""


def list_declared(module):
    """Return the forms that a revision names."""
    names = (f"{kind}.{each}" for kind, words in module.forms.items() for each in words.split())
    return {*names, *module.forms}


def find_form_faults(folder, forms, newer_forms, written_always=WRITTEN_ALWAYS):
    """Return where revisions, the program's forms and those of them that wait disagree."""
    revisions = [script.module for script in ScriptDirectory(str(folder)).walk_revisions()]
    names = [module.revision for module in revisions]  # the newest first
    since_oldest = revisions[: names.index(revisions[0].oldest_program)]
    first = list_declared(revisions[-1])
    declared = {form for module in revisions for form in list_declared(module)}
    later = declared - first
    added = {form for form in later if form.split(".")[0] in first}  # to kinds that there were
    since = {form for module in since_oldest for form in list_declared(module)}
    waiting = {form for form in since - first if "." not in form or form in added}
    return [
        *(f"{form}: no revision names it in `forms`" for form in sorted({*forms} - declared)),
        *(f"{form}: a revision names it, the program lacks it" for form in declared - {*forms}),
        *(f"{form}: add it to NEWER_FORMS" for form in sorted(waiting - newer_forms)),
        *(f"{form}: take it out of NEWER_FORMS" for form in sorted(newer_forms - waiting)),
        *(f"{form}: mark it OMITTED_WHEN_EMPTY" for form in sorted(added & written_always)),
    ]


def test_every_form_is_named_and_waits_where_an_older_program_may_run():
    assert find_form_faults(find_migrations_folder(), FORMS, NEWER_FORMS) == []


NEXT = TEXT.replace('"at by slot weather"', '"weather", Approved="weather"')
WAITING = frozenset({"WeatherNoted", "Approved.weather"})
ADDED = WAITING | {"WeatherNoted.weather"}


@pytest.mark.parametrize(
    ("added", "newer_forms", "fault"),
    [
        (ADDED, WAITING, None),
        (ADDED, WAITING - {"WeatherNoted"}, "WeatherNoted: add it to NEWER_FORMS"),
        (ADDED, WAITING - {"Approved.weather"}, "Approved.weather: add it to NEWER_FORMS"),
        (
            ADDED - {"Approved.weather"},
            WAITING,
            "Approved.weather: a revision names it, the program lacks it",
        ),
        (ADDED | {"SnowNoted"}, WAITING, "SnowNoted: no revision names it in `forms`"),
        (ADDED | {"Approved.snow"}, WAITING, "Approved.snow: no revision names it in `forms`"),
        (ADDED, WAITING | {"Approved"}, "Approved: take it out of NEWER_FORMS"),
    ],
)
def test_a_form_that_somebody_forgot_is_named(tmp_path, added, newer_forms, fault):
    faults = find_form_faults(copy_migrations(tmp_path, text=NEXT), FORMS | added, newer_forms)
    assert faults == ([fault] if fault else [])


def test_a_field_that_every_entry_would_have_is_named(tmp_path):
    written_always = WRITTEN_ALWAYS | {"Approved.weather"}
    folder = copy_migrations(tmp_path, text=NEXT)
    faults = find_form_faults(folder, FORMS | ADDED, WAITING, written_always)
    assert faults == ["Approved.weather: mark it OMITTED_WHEN_EMPTY"]


def test_forms_are_those_of_all_parts_of_an_entry():
    assert {"Narrowed.alarms", "StoredAlarm.condition", "Condition.measure"} <= FORMS
    assert {"measure recall", "EachValue.attribute", "OutcomeRule.closes"} <= FORMS


def test_an_entry_uses_a_form_only_with_a_value():
    approved = WarnedApproved(at=NOON, by="ana", proposal="P-1", evidence_hash="ab", groups=())
    assert "WarnedApproved.warning" not in set(list_used_forms(approved))
    assert "WarnedApproved.warning" in set(list_used_forms(replace(approved, warning="!")))


def test_what_an_entry_uses_is_among_the_forms():
    alarm = StoredAlarm(Condition(MEASURES["failures"], 0.1))
    narrowed = Narrowed(
        at=NOON,
        by="policy",
        version="v1",
        cell=Cell("creek", "day"),
        from_stage="autonomous",
        to_stage="shadow",
        alarms=(alarm,),
    )
    used = set(list_used_forms(narrowed))
    assert {"Narrowed.alarms", "StoredAlarm.condition", "measure failures", "Cell.site"} <= used
    assert used <= FORMS
