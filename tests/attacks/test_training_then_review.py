"""Who took rows to train on has read their labels, whatever they become afterwards."""

from types import SimpleNamespace

import pytest

from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.features.reviews.requested_reviews import seed_gold_case
from rollout.features.training import cleaning as exporting
from rollout.features.training.cleaning import (
    TrainingOptions,
    export_training_rows,
    record_work_list_exposure,
)
from rollout.kernel.errors import StaleRevisionError
from tests.factories import HOUR
from tests.features.review_room import ANA, DAN, Room

on_sqlite = pytest.mark.parametrize("url", ["sqlite"], indirect=True)
VIEWER = Caller("eve", role_assignments=(AssignedRole("viewer", "bears"),))
REVIEWER = Caller(
    "eve", role_assignments=(AssignedRole("viewer", "bears"), AssignedRole("reviewer", "bears"))
)
OF_A_SITE = Caller("lu", role_assignments=(AssignedRole("viewer", "bears", "lake"),))


@pytest.fixture
def room(database):
    room = Room(database)
    room.arrive("case-1", label="fox").done(ANA, "bear")
    return room.later(25 * HOUR)


def seeded(room):
    seed_gold_case(
        room.database, DAN, room.stood, "case-1", {"alarm": "bear"}, reviewer_count=1, at=room.at
    )


@on_sqlite
def test_a_viewer_who_becomes_a_reviewer_is_not_given_what_they_exported(room):
    found = export_training_rows(room.database, VIEWER, "bears", TrainingOptions(), room.at)
    assert found.rows["case_key"].to_list() == ["case-1"]
    seeded(room)
    assert room.take(REVIEWER) is None


@pytest.mark.slow
@on_sqlite
def test_an_export_of_one_site_counts_no_case_of_another(room):
    """How many are open elsewhere is not theirs to know."""
    room.arrive("case-2", "case-3", label="fox").later(HOUR)
    found = export_training_rows(room.database, OF_A_SITE, "bears", TrainingOptions(), room.at)
    assert found.manifest.excluded.get("open for review", 0) == 0
    whole = export_training_rows(room.database, VIEWER, "bears", TrainingOptions(), room.at)
    assert whole.manifest.excluded["open for review"] == 2


@on_sqlite
def test_a_case_that_is_taken_while_rows_are_made_leaves_in_none_of_them(room, monkeypatch):
    made = exporting.build_export_from_records

    def taken_meanwhile(*given, **more):
        seeded(room)
        assert room.take(REVIEWER)
        return made(*given, **more)

    monkeypatch.setattr(exporting, "build_export_from_records", taken_meanwhile)
    with pytest.raises(StaleRevisionError):
        export_training_rows(room.database, REVIEWER, "bears", TrainingOptions(), room.at)


@on_sqlite
def test_a_case_that_is_taken_while_the_list_is_made_is_on_no_page_of_it(room):
    item = SimpleNamespace(loss=SimpleNamespace(case_key="case-1"))
    seeded(room)
    assert room.take(REVIEWER)
    with pytest.raises(StaleRevisionError):
        record_work_list_exposure(room.database, REVIEWER, "bears", [item], room.at)
