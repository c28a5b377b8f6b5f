"""Each unit counts once, also in evidence and when it arrives late."""

from concurrent.futures import ThreadPoolExecutor

import polars as pl
import pytest
from sqlalchemy import event, text

from rollout.data.counting import counted_units, counter
from rollout.data.counting import counted_units as unit_digests
from rollout.data.counting.counter import Matrices
from rollout.data.counting.counts import StoredCounts
from rollout.data.counting.unit_records import UnitRecords
from rollout.data.ledger.scopes import EvidenceStore
from tests.data.counted_units import (
    advance,
    advance_in,
    counts,
    load_counts,
    load_unit_frame,
    marks,
    unit,
    wrong,
)
from tests.data.new_rollouts import created, rollout

__all__ = ["rollout"]


# Once


def test_a_unit_is_counted_once_on_a_track_for_a_version(database, rollout):
    again = [unit("a"), unit("a", track="guard"), unit("a", version="v2"), unit("b")]
    assert counts(database, rollout, unit("a")) == 1
    assert counts(database, rollout, *again) == 3
    assert counts(database, rollout, *again) == 0
    assert advance(database, rollout, 0, 1) == 4


def test_a_unit_that_is_counted_again_elsewhere_stays_where_it_was(database, rollout):
    counts(database, rollout, unit("a", slot=3))
    counts(database, rollout, unit("a", slot=4, decided="none", site="lake"))
    assert [mark.slot for mark in marks(database, rollout)] == [3]
    assert wrong(database, rollout) == {}


def test_units_of_one_kind_in_one_slot_are_one_tally(database, rollout):
    counts(database, rollout, unit("a"), unit("b"), unit("c", decided="none"))
    counts(database, rollout, unit("d"))
    with database.begin_read() as transaction:
        found = load_counts(transaction, rollout, after=0, until=1)
    assert sorted(found.values()) == [1, 3]


def matrix(database, rollout, *, track="gate", version="v1"):
    with database.begin_read() as transaction:
        found = Matrices(transaction, rollout).load_frame(track=track, version=version)
        return sorted(found.select("site", "human", "model", "n").rows())


def test_a_matrix_sums_units_over_slots_and_bands(database, rollout):
    counts(database, rollout, unit("a"), unit("b", slot=2, bucket=1), unit("c", decided="none"))
    counts(database, rollout, unit("a"), unit("d", slot=3, site="lake", decided=""))
    assert matrix(database, rollout) == [
        ("creek", "bear", "bear", 2),
        ("creek", "none", "bear", 1),
        ("lake", "", "bear", 1),
    ]
    assert wrong(database, rollout) == {}


def test_a_matrix_is_of_one_version_and_track_and_of_evidence_alone(database, rollout):
    others = [unit("a", track="guard"), unit("a", version="v2"), unit("b", excluded="trained on")]
    counts(database, rollout, unit("a"), *others)
    assert matrix(database, rollout) == [("creek", "bear", "bear", 1)]
    assert matrix(database, rollout, version="v3") == []


def test_a_matrix_is_of_one_rollout(database, rollout):
    other = created(database)
    counts(database, rollout, unit("a"))
    assert matrix(database, other) == []


def test_a_unit_with_several_levers_is_one_mark_and_a_tally_each(database, rollout):
    levers = [unit("a", lever="alarm"), unit("a", lever="siren"), unit("a", lever="*")]
    assert counts(database, rollout, *levers) == 1
    assert advance(database, rollout, 0, 1) == 3


def test_what_is_no_evidence_is_marked_and_not_tallied(database, rollout):
    assert counts(database, rollout, unit("a", excluded="trained on")) == 1
    assert counts(database, rollout, unit("a")) == 0
    assert advance(database, rollout, 0, 1) == 0
    assert wrong(database, rollout) == {}


def test_an_episode_and_a_case_of_the_same_name_are_two_units(database, rollout):
    counts(database, rollout, unit("a"))
    assert counts(database, rollout, unit("a"), by_episode=True) == 1


def test_a_units_row_is_built_once_and_its_hashes_joined_once_for_all_tracks(
    database, rollout, monkeypatch
):
    """Rows were copied twice and hashes sorted for each track: half of the time of counting."""
    built, joined, records = [], [], UnitRecords()

    def join_hashes(case_id, version):
        joined.append((case_id, version))
        return b""

    def build_row(fields):
        built.append(counted_units.build_row(fields))
        return built[-1]

    monkeypatch.setattr(counter, "build_row", build_row)
    monkeypatch.setattr(records, "join_hashes", join_hashes)
    units = [
        unit("a", track=track, version=version, attribute_values="", slices="")
        for track in ("gate", "guard")
        for version in ("v1", "v2")
    ]
    with database.begin_write() as transaction:
        counter.count_units(
            transaction, rollout, pl.DataFrame(units), by_episode=False, records=records
        )
    assert sorted(row.identity for row in built) == sorted(
        mark.identity for mark in marks(database, rollout)
    )
    assert len(joined) == len(set(joined)) == 2


def test_the_lines_of_digests_are_read_together_as_one_by_one(database, rollout, monkeypatch):
    """Also of units with values, with a band, of no evidence, and of those before seals."""
    values = [
        {"attribute_values": "[]", "slices": None, "band": None, "excluded": None},
        {"attribute_values": "['ä']", "slices": '{"fog":"yes"}', "band": 2, "excluded": None},
        {"attribute_values": None, "slices": None, "band": 0, "excluded": "trained on"},
        {"attribute_values": None, "slices": None, "band": None, "excluded": None},
        {"attribute_values": None, "slices": '{"fog":"no"}', "band": None, "excluded": None},
    ]
    kinds = [unit(f"u{n}", slot=1 + n // 7, **values[n % 5]) for n in range(20)]
    records = UnitRecords()
    monkeypatch.setattr(records, "join_hashes", lambda case_id, _version: case_id.to_bytes(32))
    with database.begin_write() as transaction:
        frame = pl.DataFrame(kinds, schema_overrides={"excluded": pl.String, "band": pl.Int64})
        counter.count_units(transaction, rollout, frame, by_episode=False, records=records)
    monkeypatch.setattr(counter, "create_seal", lambda *_: None)
    counts(database, rollout, *(unit(f"v{n}", slot=4, **values[n]) for n in range(5)))
    monkeypatch.setattr(unit_digests, "UNITS_PER_READ", 6)
    slots = {"after": 0, "until": 9}
    with database.begin_read() as transaction:
        lines = list(unit_digests.read_unit_lines(transaction, rollout, **slots))
        parts = list(unit_digests.read_joined_lines(transaction, rollout, **slots))
    assert len(parts) == 5
    assert b"".join(part.text for part in parts) == b"".join(line.text for line in lines)
    found = {joined for part in parts for joined in part.joined_hashes}
    assert found == {line.record_hashes for line in lines}
    summary = unit_digests.summarize_counted(parts, ())
    assert summary.digest == unit_digests.compute_digest(lines, (), ())
    assert summary.records == 20


def test_the_columns_of_a_series_are_read_once_however_many_its_units(database, rollout):
    """As texts of each unit they took half of a read."""
    counts(database, rollout, *(unit(f"u{n}", site=("creek", "lake")[n % 2]) for n in range(9)))
    statements = []
    with database.begin_read() as transaction:

        @event.listens_for(transaction.connection, "before_cursor_execute")
        def _note(_connection, _cursor, statement, *_others):
            statements.append(statement)

        frame = load_unit_frame(transaction, rollout, after=0, until=9)
    assert sorted(frame["site"]) == ["creek"] * 5 + ["lake"] * 4
    assert not [s for s in statements if "count_series" in s and "counted_units" in s]
    assert len(statements) == 3  # units, classes, series


def test_nothing_to_count_counts_nothing(database, rollout):
    with database.begin_write() as transaction:
        assert counter.count_units(transaction, rollout, pl.DataFrame(), by_episode=False) == 0


# Through


def test_what_shows_up_late_goes_into_the_slot_after_evidence(database, rollout):
    assert advance(database, rollout, 0, 4) == 0
    counts(database, rollout, unit("late", slot=2), unit("early", slot=9))
    assert {mark.slot for mark in marks(database, rollout)} == {5, 9}
    assert advance(database, rollout, 4, 5) == 1
    assert advance(database, rollout, 5, 9) == 1


def test_evidence_that_moved_on_is_not_moved_again(database, rollout):
    counts(database, rollout, unit("a"))
    assert advance(database, rollout, 0, 1) == 1
    for earlier in (1, 0):
        advance(database, rollout, 1, earlier)
        with database.begin_read() as transaction:
            assert EvidenceStore(transaction, rollout).get_last_slot() == 1


@pytest.mark.slow
def test_evidence_waits_for_whoever_is_counting(database, other, rollout):
    """Paused after marking, it holds `through`; who moves evidence then sees what it added."""
    with ThreadPoolExecutor(1) as pool:
        with database.begin_write() as transaction:
            counter.count_units(transaction, rollout, pl.DataFrame([unit("a")]), by_episode=False)
            moving = pool.submit(advance, other, rollout, 0, 1)
            with pytest.raises(TimeoutError):
                moving.result(timeout=0.3)
        assert moving.result(timeout=10) == 1


def test_whoever_counts_waits_for_evidence_to_move(database, other, rollout):
    with ThreadPoolExecutor(1) as pool:
        with database.begin_write() as transaction:
            advance_in(transaction, rollout, 0, 7)
            late = pool.submit(counts, other, rollout, unit("a", slot=3))
            with pytest.raises(TimeoutError):
                late.result(timeout=0.3)
        assert late.result(timeout=10) == 1
    assert [mark.slot for mark in marks(database, rollout)] == [8]


def test_an_error_while_counting_undoes_marks_and_tallies_alike(database, rollout, monkeypatch):
    def broken(*_):
        raise RuntimeError

    monkeypatch.setattr(StoredCounts, "add", broken)
    with pytest.raises(RuntimeError):
        counts(database, rollout, unit("a"))
    monkeypatch.undo()
    assert marks(database, rollout) == []
    assert counts(database, rollout, unit("a")) == 1


def test_a_tally_that_is_not_the_sum_of_its_marks_is_found(database, rollout):
    counts(database, rollout, unit("a"), unit("b", slot=2))
    with database.begin_write() as transaction:
        transaction.execute(text("update counts set n = 3 where slot = 2"))
    assert [n for _, n in wrong(database, rollout).items()] == [(3, 1)]
