"""Units of a rollout, counted and marked as the service does."""

import polars as pl

from rollout.store.counting import counter
from rollout.store.counting.counted_units import Counted


def unit(name, slot=1, **changes):
    """Return a row as `resolve` gives it."""
    row = {
        "track": "gate",
        "site": "creek",
        "window": "day",
        "version": "v1",
        "unit": name,
        "case_key": name,
        "slot": slot,
        "occurred": slot - 1,
        "lever": "alarm",
        "predicted": "bear",
        "decided": "bear",
        "second": "",
        "level": 0,
        "reviewer": "ana",
        "day": 20_000,
        "excluded": None,
        "definition": "d" * 64,
        "attempt": 1,
        "band": 0,
    }
    return row | changes


def counts(database, rollout, *units, by_episode=False):
    frame = pl.DataFrame(list(units), infer_schema_length=None)
    with database.writing() as transaction:
        return counter.count(transaction, rollout, frame, by_episode=by_episode)


def advance(database, rollout, after, to):
    with database.writing() as transaction:
        return counter.advance(transaction, rollout, after=after, to=to)["n"].sum()


def marks(database, rollout):
    with database.reading() as transaction:
        return list(Counted(transaction, rollout).all())


def wrong(database, rollout):
    """Return the tallies and the matrices that are not what the marks add up to."""
    with database.reading() as transaction:
        right = counter.marked(transaction, rollout)
        sums = counter.differences(transaction, rollout)
        return {**sums, **counter.matrix_differences(transaction, rollout, right)}
