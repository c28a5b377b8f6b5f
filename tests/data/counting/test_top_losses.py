"""Counted pairs that differ are stored once, by confidence."""

import pytest
from msgspec.structs import replace
from sqlalchemy import delete, update

from rollout.data.counting.top_losses import MOST_CONFIDENT_QUERY, StoredLosses
from rollout.data.database.rollouts import Rollouts
from rollout.data.tables.tables import top_losses
from rollout.engine.records.records import Decision
from tests.data.counted_units import counts, marks, unit
from tests.data.counting.test_purge import purged
from tests.data.plans import steps_of
from tests.data.records.test_records import CASE, DECISION, PREDICTION, keep
from tests.factories import DAY, HOUR, NOON


@pytest.fixture
def rollout(database):
    with database.begin_write() as transaction:
        return Rollouts(transaction).create("bear-alarm", salt=bytes(32), at=NOON)


def told(database, rollout, *keys, sure=0.9, at=NOON):
    """Keep cases, each with what v1 and v2 say of it, and return what v1 said."""
    said = [replace(PREDICTION, key=key, confidence=sure) for key in keys]
    others = [replace(one, version="v2") for one in said]
    keep(database, rollout, *(replace(CASE, key=key) for key in keys), *said, *others, at=at)
    return said


def differs(key, **more):
    return unit(key, **{"decided": "none", **more})


def listed(database, rollout, version="v1", at_once=100):
    """Return by class what is kept of it, the surest first."""
    with database.begin_read() as transaction:
        kept = StoredLosses(transaction, rollout)
        found = {
            (one.lever, one.human, one.model): list(
                kept.list_most_confident(version, kind, at_once=at_once)
            )
            for kind, one in kept.load_classes().items()
        }
        return {of: cases for of, cases in found.items() if cases}


def numbers(database, rollout):
    """Return the cases that were counted, in the order in which they were sent."""
    return sorted({mark.case_id for mark in marks(database, rollout)})


def wrong(database, rollout):
    with database.begin_read() as transaction:
        return StoredLosses(transaction, rollout).find_differences()


def change(database, number, **values):
    with database.begin_write() as transaction:
        transaction.execute(
            update(top_losses).where(top_losses.c.case_id == number).values(**values)
        )


def test_only_pairs_that_differ_are_kept_each_under_its_class(database, rollout):
    told(database, rollout, "a", "b", "c")
    counts(database, rollout, differs("a"), unit("b"), differs("c", predicted="elk"))
    counts(database, rollout, differs("a"))
    a, _, c = numbers(database, rollout)
    assert listed(database, rollout) == {
        ("alarm", "none", "bear"): [(a, 0.9)],
        ("alarm", "none", "elk"): [(c, 0.9)],
    }
    assert listed(database, rollout, "v2") == {}
    assert wrong(database, rollout) == {}


NOT_TOLD = {
    "no verdict": {"decided": ""},
    "a label that no lever has": {"decided": "(not listed)"},
    "a version that failed": {"predicted": "(failed)"},
    "an answer that came late": {"predicted": "(late)"},
    "a number": {"decided": "agree", "predicted": "over"},
    "all levers together": {"lever": "*", "predicted": "differ", "decided": "agree"},
    "no evidence": {"excluded": "trained on"},
    "another track": {"track": "guard"},
}


@pytest.mark.parametrize("changes", NOT_TOLD.values(), ids=list(NOT_TOLD))
def test_what_is_no_pair_of_labels_is_not_kept(database, rollout, changes):
    told(database, rollout, "a")
    counts(database, rollout, differs("a", **changes))
    assert listed(database, rollout) == {}
    assert wrong(database, rollout) == {}


def test_without_a_confidence_nothing_is_kept(database, rollout):
    told(database, rollout, "a", sure=None)
    counts(database, rollout, differs("a"))
    assert listed(database, rollout) == {}
    assert wrong(database, rollout) == {}


@pytest.mark.parametrize("at_once", [1, 2, 100])
def test_the_surest_come_first_and_of_equals_the_last_however_many_are_read(
    database, rollout, at_once
):
    for key, sure in (("a", 0.7), ("b", 1.0), ("c", 0.7), ("d", 0.0), ("e", 0.7)):
        told(database, rollout, key, sure=sure)
    counts(database, rollout, *map(differs, "abcde"))
    a, b, c, d, e = numbers(database, rollout)
    ((_, found),) = listed(database, rollout, at_once=at_once).items()
    assert found == [(b, 1.0), (e, 0.7), (c, 0.7), (a, 0.7), (d, 0.0)]


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)  # PostgreSQL reads small tables whole
def test_the_surest_come_by_the_index_without_sorting(database, rollout):
    with database.begin_read() as transaction:
        (step,) = steps_of(transaction, MOST_CONFIDENT_QUERY)
    assert step.startswith("SEARCH top_losses USING COVERING INDEX ix_top_losses_confidence")
    assert "(confidence,case_id)<(?,?)" in step  # and no step that sorts


def test_they_are_of_one_rollout_and_of_one_version(database, rollout):
    told(database, rollout, "a")
    counts(database, rollout, differs("a"), differs("a", version="v2"))
    with database.begin_write() as transaction:
        other = Rollouts(transaction).create("other", salt=bytes(32), at=NOON)
    assert listed(database, other) == {}
    assert len(listed(database, rollout, "v2")) == 1


def test_how_sure_it_was_is_what_it_said_before_somebody_judged_the_case_here(database, rollout):
    (said,) = told(database, rollout, "a", sure=0.9)
    judged = replace(DECISION, key="a", review=7)
    assert isinstance(judged, Decision)
    keep(database, rollout, judged, at=NOON + HOUR)
    keep(database, rollout, replace(said, confidence=0.2, revision=2), at=NOON + 2 * HOUR)
    counts(database, rollout, differs("a"))
    ((_, sure),) = listed(database, rollout)["alarm", "none", "bear"]
    assert sure == 0.9


def test_a_purge_takes_them_with_their_cases(database, rollout):
    told(database, rollout, "a")
    keep(database, rollout, replace(CASE, key="b", occurred_at=NOON + DAY))
    keep(database, rollout, replace(PREDICTION, key="b"), at=NOON + DAY)
    counts(database, rollout, differs("a"), differs("b"))
    assert "losses" not in purged(database, rollout)
    _, b = numbers(database, rollout)
    assert listed(database, rollout) == {("alarm", "none", "bear"): [(b, 0.5)]}
    assert wrong(database, rollout) == {}


def test_rows_that_are_not_what_was_counted_are_found(database, rollout):
    told(database, rollout, *"abcd")
    counts(database, rollout, *map(differs, "abd"), unit("c"))
    a, b, c, d = numbers(database, rollout)
    change(database, a, confidence=0.1)
    change(database, b, case_id=c)
    change(database, d, series_id=99)
    ((_, _, kind), *_) = found = wrong(database, rollout)
    ((_, own),) = {pair for pair in found.values() if pair[0] is None}
    assert own[0] == 0.9
    assert found == {
        (a, "v1", kind): ((0.1, own[1]), own),
        (b, "v1", kind): (None, own),
        (c, "v1", kind): (own, None),
        (d, "v1", kind): ((0.9, 99), own),
    }


def test_a_prediction_that_was_corrected_after_it_was_counted_is_no_difference(database, rollout):
    first, second = told(database, rollout, "a", "b")
    counts(database, rollout, *map(differs, "ab"))
    corrected = [
        replace(first, confidence=0.4, revision=2),
        replace(second, confidence=None, revision=2),
    ]
    keep(database, rollout, *corrected, at=NOON + HOUR)
    assert wrong(database, rollout) == {}
    with database.begin_write() as transaction:
        transaction.execute(delete(top_losses))
    found = wrong(database, rollout)
    ((kept, (sure, _)),) = found.values()  # of the other one a revision has none
    assert (kept, sure) == (None, 0.4)


def test_of_some_series_only_those_are_read(database, rollout):
    told(database, rollout, *"abcd")
    counts(database, rollout, differs("a"), differs("b", site="lake"), differs("c"))
    counts(database, rollout, differs("d", site="lake"))
    a, b, c, d = numbers(database, rollout)
    with database.begin_read() as transaction:
        losses = StoredLosses(transaction, rollout)
        at = {site: number for number, site in losses.load_sites("v1").items()}
        (kind,) = losses.load_classes()
        own = {"at_once": 1}
        found = [
            [
                case_id
                for case_id, _ in losses.list_most_confident("v1", kind, series=[at[site]], **own)
            ]
            for site in ("creek", "lake")
        ]
        assert found == [[c, a], [d, b]]
        assert list(losses.list_most_confident("v1", kind, series=[], **own)) == []
        assert losses.load_sites("v2") == {}


def test_a_case_that_was_counted_twice_is_right_in_either_series(database, rollout):
    told(database, rollout, "a")
    counts(database, rollout, differs("a"))
    counts(database, rollout, differs("e", case_key="a", site="lake"), by_episode=True)
    assert wrong(database, rollout) == {}
    (a,) = numbers(database, rollout)
    with database.begin_read() as transaction:
        (lake,) = (n for n, site in StoredLosses(transaction, rollout).load_sites("v1").items()
                   if site == "lake")  # fmt: skip
    change(database, a, series_id=lake)
    assert wrong(database, rollout) == {}
