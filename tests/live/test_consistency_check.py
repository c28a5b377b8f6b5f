"""What is derived is found again from what it is derived from, and a hand's change is found."""

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import delete, func, insert, select, update

from rollout.data.database.session import Database
from rollout.data.ledger.ledger import Ledger
from rollout.data.ledger.scopes import StoredScopes, encode_scope
from rollout.data.tables import tables
from rollout.engine.events import IncidentOpened
from rollout.kernel.calendar.instants import to_instant
from rollout.live.consistency_check import rebuild_derived_tables
from rollout.live.rollout_state import NoSuchRolloutError, load_rollout_state
from rollout.live.tick_passes import Ticker
from tests.data.databases import ENGINES, fresh
from tests.data.snapshots import filled_once
from tests.engine.slots.stories import a_history
from tests.live.test_live import BY_CASE, STORY, begun, parse_policy, replayed

POLICY = parse_policy(BY_CASE)
HISTORY = a_history(replace(STORY, slots=24), POLICY)
SLOTS, _ = replayed(HISTORY, POLICY, None)
MISSING = " is in the counted units and missing here"
INCIDENT = IncidentOpened(
    at=to_instant(SLOTS[-1], POLICY.tick),
    by="policy",
    incident="I-1",
    kind="test",
    effect="",
    reason="",
)


@pytest.fixture(params=ENGINES)
def database(request, tmp_path):
    """Return a database with a rollout that was ticked, with kept scope and incident."""
    with fresh(request.param, tmp_path) as url:
        made = Database(url)
        tick_story(made)
        yield made
        made.close()


@filled_once
def tick_story(database):
    begun(database, HISTORY, SLOTS[0]).tick(INCIDENT.at)
    with database.begin_write() as transaction:
        stood = load_rollout_state(transaction, "story")
        Ledger(transaction, stood.rollout).append([INCIDENT], after=stood.scope.revision)
        ledger = Ledger(transaction, stood.rollout)
        scope = ledger.load_scope()
        body = encode_scope(scope, ledger.load_head().hash)
        kept = {"revision": scope.revision, "at": scope.at, "body": body}
        transaction.execute(insert(tables.scopes).values(rollout=stood.rollout.number, **kept))


def change(database, statement):
    with database.begin_write() as transaction:
        transaction.execute(statement)


def found_and_put_right(database):
    """Return the lines of what differs, after seeing that writing heals it."""
    lines = list(rebuild_derived_tables(database, "story").describe())
    assert lines == list(rebuild_derived_tables(database, "story", repair=True).describe())
    assert not rebuild_derived_tables(database, "story")
    return lines


@pytest.mark.slow
def test_a_healthy_store_has_no_difference(database):
    assert not rebuild_derived_tables(database, "story")
    assert list(rebuild_derived_tables(database, "story", repair=True).describe()) == []


def test_a_kept_scope_that_is_not_the_fold_is_found(database):
    change(database, update(tables.scopes).values(body=["nonsense"]))
    (line,) = found_and_put_right(database)
    assert line.startswith("scopes: the scope stored at revision ")
    with database.begin_read() as transaction:
        rollout = load_rollout_state(transaction, "story").rollout
        assert (
            StoredScopes(transaction, rollout).load_newest()
            == Ledger(transaction, rollout).load_scope()
        )


def test_a_kept_scope_of_no_revision_is_found(database):
    change(database, update(tables.scopes).values(revision=10_000))
    assert found_and_put_right(database) == [
        "scopes: the scope stored at revision 10000 is not in the ledger"
    ]


def test_a_proposal_closed_by_hand_is_found(database):
    change(database, update(tables.proposals).values(state="applied").where(is_first_proposal()))
    (line,) = found_and_put_right(database)
    assert line == "proposals: proposal P-1 says state applied; by the ledger it is open"


def is_first_proposal():
    return tables.proposals.c.proposal == "P-1"


def test_a_proposal_that_is_missing_and_one_too_many_are_found(database):
    change(database, update(tables.proposals).values(proposal="P-0").where(is_first_proposal()))
    assert found_and_put_right(database) == [
        "proposals: proposal P-0 is not in the ledger",
        "proposals: proposal P-1 is in the ledger and missing here",
    ]


def test_an_incident_changed_by_hand_is_found(database):
    change(database, update(tables.incidents).values(acknowledged_by="eve"))
    (line,) = found_and_put_right(database)
    assert line == "incidents: incident I-1 says acknowledged_by eve; by the ledger it is None"


def test_a_tally_changed_by_hand_is_found(database):
    change(database, update(tables.counts).values(n=tables.counts.c.n + 1))
    lines = found_and_put_right(database)
    assert lines
    assert all("says" in line and line.startswith("counts: slot ") for line in lines)


@pytest.mark.slow
def test_tallies_that_are_gone_are_found(database):
    change(database, delete(tables.counts))
    assert all(MISSING in line for line in found_and_put_right(database))


def test_a_matrix_changed_by_hand_is_found(database):
    first = select(func.min(tables.confusion_matrices.c.class_id)).scalar_subquery()
    more = update(tables.confusion_matrices).values(n=tables.confusion_matrices.c.n + 1)
    change(database, more.where(tables.confusion_matrices.c.class_id == first))
    lines = found_and_put_right(database)
    assert lines
    assert all(
        "; by the counted units it is " in line and line.startswith("confusion_matrices: series_id")
        for line in lines
    )


def test_matrices_that_are_gone_are_found(database):
    change(database, delete(tables.confusion_matrices))
    assert all(MISSING in line for line in found_and_put_right(database))


def test_a_matrix_of_nothing_that_was_counted_is_found(database):
    rollout = select(tables.counts.c.rollout).limit(1).scalar_subquery()
    change(
        database,
        insert(tables.confusion_matrices).values(rollout=rollout, series_id=999, class_id=7, n=3),
    )
    assert found_and_put_right(database) == [
        "confusion_matrices: series_id 999, class_id 7 is not in the counted units"
    ]


def test_losses_that_are_gone_are_found(database):
    change(database, delete(tables.top_losses))
    lines = found_and_put_right(database)
    assert lines
    assert all(MISSING in line and line.startswith("top_losses: ") for line in lines)


def test_a_loss_changed_by_hand_is_found(database):
    change(database, update(tables.top_losses).values(confidence=0.015625))
    lines = found_and_put_right(database)
    assert lines
    assert all(" says confidence 0.015625; by the counted units it is " in line for line in lines)


def test_a_loss_of_nothing_that_was_counted_is_found(database):
    rollout = select(tables.counts.c.rollout).limit(1).scalar_subquery()
    own = {"case_id": 99_999, "version": "v1", "class_id": 7, "confidence": 0.5, "series_id": 1}
    change(database, insert(tables.top_losses).values(rollout=rollout, **own))
    assert found_and_put_right(database) == [
        "top_losses: case_id 99999, version v1, class_id 7 is not in the counted units"
    ]


def test_only_finding_changes_nothing(database):
    change(database, delete(tables.counts))
    assert list(rebuild_derived_tables(database, "story").describe()) == list(
        rebuild_derived_tables(database, "story").describe()
    )


def test_what_is_rebuilt_ticks_on(database):

    change(database, delete(tables.counts))
    rebuild_derived_tables(database, "story", repair=True)
    assert Ticker(database, "story", "two").tick(INCIDENT.at + timedelta(hours=1)) is not None


def test_an_unknown_rollout_is_said_to_be(database):
    with pytest.raises(NoSuchRolloutError, match="no rollout gone"):
        rebuild_derived_tables(database, "gone")
