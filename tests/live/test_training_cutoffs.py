"""A training cutoff stands in the ledger, and one that is edited in the database is found."""

from datetime import UTC, datetime
from random import SystemRandom

import pytest
from sqlalchemy import insert, update

from rollout.data.database.session import Database
from rollout.data.records.versions import VersionInfo, VersionStore
from rollout.data.tables.tables import versions
from rollout.engine.decide.permissions import AssignedRole, Caller
from rollout.engine.events import TrainingCutoffSet
from rollout.engine.files.parse import DeclaringPrediction
from rollout.engine.records.records import Case, Prediction
from rollout.features.records.ingest import ingest_items
from rollout.features.records.record_import import VersionStatements, import_records
from rollout.kernel.calendar.instants import to_instant
from rollout.live.evidence.live_evidence import EvidenceCheck, sample_evidence
from rollout.live.rollout_state import load_rollout_state
from rollout.live.service import build_service
from rollout.live.versions import LateCutoffError, TrainedLaterError, record_training_cutoff
from tests.data.databases import ENGINES, fresh
from tests.live.test_consistency_check import HISTORY, SLOTS
from tests.live.test_evidence_check import HOUR, attacking, tick_often
from tests.live.test_live import written

pytestmark = pytest.mark.slow

SENDER = Caller("cam", is_service_account=True, role_assignments=(AssignedRole("ingest"),))
ADMIN = Caller("zoe", role_assignments=(AssignedRole("admin"),))
FIRST, LATER = to_instant(SLOTS[0], HOUR), to_instant(SLOTS[1], HOUR)
NOW = to_instant(SLOTS[-1], HOUR)


@pytest.fixture(params=ENGINES)
def database(request, tmp_path):
    """Return a database whose rollout has counted units of v1 and v2."""
    with fresh(request.param, tmp_path) as url:
        made = Database(url)
        tick_often(made)
        yield made
        made.close()


def set_end(database, end, version="v1", by=ADMIN, at=NOW):
    record_training_cutoff(database, by, "story", version, trained_until=end, at=at)


def store_prediction(database, version, *, content="", at=NOW):
    """Send a case and a prediction; return why the prediction was rejected, or what it lacks."""
    case = Case(key=f"{version}@{at}", site="s0", window="day", occurred_at=at)
    prediction = Prediction(key=case.key, version=version, answers={"alarm": "bear"}, at=at)
    items = [case, DeclaringPrediction(prediction, content)]
    return ingest_items(build_service(database, None), SENDER, "story", items, at)[1].reason


def list_ends(database):
    events = (e for e in written(database) if isinstance(e, TrainingCutoffSet))
    return [(event.by, event.version, event.trained_until) for event in events]


def edit_end(database, end, revision):
    """Change a stored end by hand."""
    own = (versions.c.version == "v1") & (versions.c.revision == revision)
    with attacking(database, "versions") as transaction:
        assert transaction.execute(update(versions).where(own).values(trained_until=end)).rowcount


def check(database):
    return EvidenceCheck(database, "story").check_all()


@pytest.mark.slow
def test_each_new_training_end_is_an_entry_of_who_stated_it(database):
    for end in (FIRST, FIRST, LATER):
        set_end(database, end)
    assert list_ends(database) == [("zoe", "v1", FIRST), ("zoe", "v1", LATER)]
    set_end(database, FIRST)
    with pytest.raises(TrainedLaterError):
        set_end(database, None)
    assert [end for _, _, end in list_ends(database)] == [FIRST, LATER, FIRST]
    assert check(database).faults == []


@pytest.mark.parametrize("end", [NOW, datetime(2099, 1, 1, tzinfo=UTC)])
def test_a_sender_can_not_say_that_a_version_was_trained_on_what_it_predicted(database, end):
    with pytest.raises(LateCutoffError, match="use another version name"):
        set_end(database, end, by=SENDER)
    assert list_ends(database) == []


def test_a_sender_states_the_end_before_the_first_prediction_and_may_repeat_it(database):
    before, version = NOW - HOUR, "v7"
    set_end(database, before, version, by=SENDER)
    with pytest.raises(LateCutoffError):  # nobody trains on the future
        set_end(database, NOW + HOUR, version, by=SENDER)
    with pytest.raises(TrainedLaterError):
        set_end(database, before - HOUR, version, by=SENDER)
    assert store_prediction(database, version) == ""
    set_end(database, before, version, by=SENDER)
    with pytest.raises(LateCutoffError):
        set_end(database, NOW, version, by=SENDER, at=NOW + HOUR)
    assert list_ends(database) == [("cam", version, before)]


def test_an_end_of_another_name_takes_no_evidence_from_a_version(database):
    """A version's end is the last of its names', so none may lie after what another one sent."""
    content, later = "a" * 64, NOW + HOUR
    assert store_prediction(database, "v7", content=content) == ""
    set_end(database, later, "v8")
    rejected = store_prediction(database, "v8", content=content, at=later)
    assert rejected.startswith("v8 predicted before")
    assert store_prediction(database, "v9", content=content, at=later) == ""
    with pytest.raises(LateCutoffError):
        set_end(database, NOW, "v9", by=SENDER, at=later)


@pytest.mark.slow
@pytest.mark.parametrize("edited", [None, FIRST, NOW], ids=["removed", "earlier", "later"])
def test_an_edited_training_end_is_found_by_the_whole_check_and_by_each_sample(database, edited):
    set_end(database, LATER)
    assert check(database).faults == []
    edit_end(database, edited, revision=2)
    (fault,) = check(database).faults
    ends = "none" if edited is None else edited.isoformat()
    assert fault == (
        f"v1: versions.trained_until says {ends}; the ledger says {LATER.isoformat()}, and no"
        " gate counts cases of v1 up to then"
    )
    assert EvidenceCheck(database, "story").check_sample(1, SystemRandom()).faults == [fault]
    assert sample_evidence(database, NOW)["story"].faults == [fault]
    assert written(database)[-1].reason == fault
    edit_end(database, LATER, revision=2)
    assert check(database).faults == []


@pytest.mark.slow
def test_setting_an_edited_end_again_does_not_hide_the_edit(database):
    set_end(database, LATER)
    edit_end(database, FIRST, revision=2)
    set_end(database, FIRST)
    assert check(database).fault_count == 1
    set_end(database, LATER)
    assert len(list_ends(database)) == 2
    assert check(database).fault_count == 1


@pytest.mark.slow
def test_ends_that_the_ledger_lacks_are_faults_until_they_are_set_again(database):
    with database.begin_write() as transaction:
        store = VersionStore(transaction, load_rollout_state(transaction, "story").rollout)
        for end in (FIRST, LATER):
            store.record_info(VersionInfo("v1", "registration", end), at=NOW)
    (fault,) = check(database).faults
    ends = f"{FIRST.isoformat()}, then {LATER.isoformat()}"
    assert fault.startswith(f"v1: versions.trained_until says {ends}; the ledger says none")
    set_end(database, LATER)
    assert [end for _, _, end in list_ends(database)] == [FIRST, LATER]
    assert check(database).faults == []


def test_a_version_that_somebody_adds_with_an_end_is_named(database):
    with database.begin_read() as transaction:
        number = load_rollout_state(transaction, "story").rollout.number
    row = {"version": "v9", "revision": 1, "recorded_at": NOW, "source": "import", "details": {}}
    with database.begin_write() as transaction:
        transaction.execute(insert(versions), {**row, "rollout": number, "trained_until": NOW})
    (fault,) = check(database).faults
    assert fault.startswith(f"v9: versions.trained_until says {NOW.isoformat()}")


def test_an_import_states_ends_as_of_the_entry_before(database):
    before = written(database)[-1]
    for end in (FIRST, FIRST, LATER):
        stated = VersionStatements({"v1": end}, by=Caller("zoe"))
        import_records(database, "story", HISTORY, NOW + 9 * HOUR, stated)
    assert list_ends(database) == [("zoe", "v1", FIRST), ("zoe", "v1", LATER)]
    assert {e.at for e in written(database) if isinstance(e, TrainingCutoffSet)} == {before.at}
    assert check(database).faults == []
