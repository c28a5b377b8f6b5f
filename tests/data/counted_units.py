"""Count units of a rollout as the service does."""

import polars as pl

from rollout.data.counting import counter
from rollout.data.counting.counted_units import CountedUnits
from rollout.data.counting.counts import StoredCounts
from rollout.data.ledger.scopes import EvidenceStore
from rollout.engine.evidence.stored_units import COLUMNS


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
        "bucket": 0,
    }
    return row | changes


def counts(database, rollout, *units, by_episode=False):
    frame = pl.DataFrame(list(units), infer_schema_length=None)
    with database.begin_write() as transaction:
        return counter.count_units(transaction, rollout, frame, by_episode=by_episode)


def advance(database, rollout, after, to):
    with database.begin_write() as transaction:
        return advance_in(transaction, rollout, after, to)


def advance_in(transaction, rollout, after, to):
    """Make slots up to `to` evidence, and return how many units they add."""
    EvidenceStore(transaction, rollout).advance(to)
    return sum(load_counts(transaction, rollout, after=after, until=to).values())


def load_counts(transaction, rollout, *, after, until):
    """Return the counts of slots (`after`, `until`] by key."""
    positions = {"after": (after, 2**62), "until": (until, 2**62)}
    return StoredCounts(transaction, rollout).load_by_key(**positions)


def load_unit_frame(transaction, rollout, *, after, until):
    """Return the counted evidence with a row for each lever, as `resolve_units` has it."""
    rows = []
    for part in CountedUnits(transaction, rollout).load_units(after=after, until=until):
        columns = [getattr(part, name) for name in COLUMNS]
        units = [dict(zip(COLUMNS, values, strict=True)) for values in zip(*columns, strict=True)]
        rows += [
            unit
            | part.series[unit["series_id"]]._asdict()
            | part.classes[number]._asdict()
            | {"excluded": None}
            for unit in units
            for number in unit["class_ids"]
        ]
    return pl.DataFrame(rows, infer_schema_length=None, schema_overrides={"excluded": pl.String})


def marks(database, rollout):
    with database.begin_read() as transaction:
        units = CountedUnits(transaction, rollout).list_cases(range(2**62))
        return sorted(units, key=lambda unit: unit.identity)


def wrong(database, rollout):
    """Return the tallies and the matrices that are not what the marks add up to."""
    with database.begin_read() as transaction:
        differences = counter.find_differences(transaction, rollout)
        return {**differences.counts, **differences.matrices}
