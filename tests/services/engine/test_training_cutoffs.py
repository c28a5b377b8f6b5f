"""A training cutoff stands in the ledger, and one that is edited in the database is found."""

from random import SystemRandom

import pytest
from sqlalchemy import insert, update

from rollout.core.scope.permissions import AssignedRole, Caller
from rollout.core.scope.record_events import TrainingCutoffSet
from rollout.services.engine.evidence_check import EvidenceCheck, sample_evidence
from rollout.services.engine.rollout_state import load_rollout_state
from rollout.services.engine.versions import TrainedLaterError, record_training_cutoff
from rollout.services.records.record_import import VersionStatements, import_records
from rollout.store.database.session import Database
from rollout.store.ledger.versions import VersionInfo, VersionStore
from rollout.store.tables.tables import versions
from rollout.tally.slots import to_instant
from tests.services.engine.test_consistency_check import HISTORY, SLOTS
from tests.services.engine.test_evidence_check import HOUR, attacking, tick_often
from tests.services.engine.test_live import written
from tests.store.databases import ENGINES, fresh

SENDER = Caller("cam", is_service_account=True, role_assignments=(AssignedRole("ingest"),))
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


def set_end(database, end, version="v1"):
    record_training_cutoff(database, SENDER, "story", version, trained_until=end, at=NOW)


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
    assert list_ends(database) == [("cam", "v1", FIRST), ("cam", "v1", LATER)]
    with pytest.raises(TrainedLaterError):
        set_end(database, FIRST)
    assert len(list_ends(database)) == 2
    assert check(database).faults == []


@pytest.mark.slow
@pytest.mark.parametrize("edited", [None, FIRST, NOW], ids=["removed", "earlier", "later"])
def test_an_edited_training_end_is_found_by_the_whole_check_and_by_each_sample(database, edited):
    set_end(database, LATER)
    assert check(database).faults == []
    edit_end(database, edited, revision=2)
    (fault,) = check(database).faults
    ends = "none" if edited is None else edited.isoformat()
    assert fault == (
        f"v1: versions.trained_until says {ends}; the ledger says {LATER.isoformat()}, and cases"
        " up to then are no evidence of v1"
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
