"""The tables of counting: its queue, the counted units, and their sums."""

from typing import Final

from sqlalchemy import BigInteger, Double, Index, Integer, LargeBinary, Table, Text, text
from sqlalchemy import UniqueConstraint as Unique

from rollout.store.tables.columns import (
    Instant,
    Plain,
    key_part,
    maybe,
    metadata,
    needed,
    numbered,
    of_rollout,
)

GATE: Final = "gate"
OF_GATE: Final = text("track = 'gate'")  # as it stands in an index of these alone

count_queue = Table(  # written with the record, deleted when counted
    "count_queue",
    metadata,
    of_rollout(),
    key_part("at", Instant),
    key_part("case_id"),
    key_part("track", Text),
    sqlite_with_rowid=False,
)

tick_slots = Table(
    "tick_slots",
    metadata,
    of_rollout(),
    key_part("slot"),
    needed("owner"),
    needed("claimed_at", Instant),
    maybe("done_at", Instant),
    sqlite_with_rowid=False,
)

count_series = Table(  # whose units a count is of
    "count_series",
    metadata,
    numbered(),
    needed("rollout", Integer),
    needed("track"),
    needed("version"),
    needed("site"),
    needed("window"),
    needed("definition"),
    needed("attempt", Integer),
    Unique(
        *("rollout", "track", "version", "site", "window", "definition", "attempt"),
        name="uq_count_series_columns",  # PostgreSQL cuts names at 63 letters
    ),
)

count_classes = Table(  # the class that a unit falls into
    "count_classes",
    metadata,
    numbered(),
    needed("rollout", Integer),
    needed("lever"),
    needed("predicted"),
    needed("decided"),
    needed("second"),
    needed("level", Integer),
    Unique(
        *("rollout", "lever", "predicted", "decided", "second", "level"),
        name="uq_count_classes_columns",
    ),
)

counted_units = Table(  # a class for each lever, and one for all together if there are several
    "counted_units",
    metadata,
    of_rollout(),
    key_part("unit"),
    key_part("version", Text),
    key_part("track", Text),
    needed("case_id", BigInteger),
    needed("slot", BigInteger),
    needed("occurred", BigInteger),
    needed("day", Integer),
    needed("series_id", BigInteger),
    needed("class_ids", Plain),
    needed("bucket", Integer),
    maybe("reviewer"),
    maybe("exclusion_reason"),  # null: it is evidence
    Index(None, "rollout", "slot"),
    Index(  # a version's newest: a page of pairs reads no more of them than it shows figures of
        "ix_counted_units_newest",
        *("rollout", "version", "occurred", "unit", "series_id"),
        sqlite_where=OF_GATE,
        postgresql_where=OF_GATE,
    ),
    sqlite_with_rowid=False,
)

counts = Table(  # `n` grows only in slots that evidence has not reached
    "counts",
    metadata,
    of_rollout(),
    key_part("slot"),
    key_part("occurred"),
    key_part("series_id"),
    key_part("class_id"),
    key_part("bucket", Integer),
    needed("n", Integer),
    sqlite_with_rowid=False,
)

confusion_matrices = Table(  # sums over all slots: the cost of a read does not grow with time
    "confusion_matrices",
    metadata,
    of_rollout(),
    key_part("series_id"),
    key_part("class_id"),
    needed("n", BigInteger),
    sqlite_with_rowid=False,
)

top_losses = Table(  # pairs that differ; the index gives those of highest confidence first
    "top_losses",
    metadata,
    of_rollout(),
    key_part("case_id"),
    key_part("version", Text),
    key_part("class_id"),
    needed("confidence", Double),
    needed("series_id", BigInteger),
    Index(
        "ix_top_losses_confidence",
        *("rollout", "version", "class_id", "confidence", "case_id", "series_id"),
    ),
    sqlite_with_rowid=False,
)

evidence_heads = Table(  # moved by compare-and-set: no count at or before `through` grows
    "evidence_heads",
    metadata,
    of_rollout(),
    needed("through", BigInteger),
)

evidence = Table(
    "evidence",
    metadata,
    of_rollout(),
    key_part("version", Text),
    key_part("site", Text),
    key_part("window", Text),
    key_part("measure", Text),
    needed("definition"),
    needed("attempt", Integer),
    needed("body", Plain),
    needed("through", BigInteger),
    needed("hash", LargeBinary),
)
