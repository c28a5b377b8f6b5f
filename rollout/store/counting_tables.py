"""The tables of counting: what waits, what was counted, and the sums."""

from typing import Final

from sqlalchemy import BigInteger, Double, Index, Integer, LargeBinary, Table, Text, text
from sqlalchemy import UniqueConstraint as Unique

from rollout.store.columns import (
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

due = Table(  # a queue: written with the record, deleted when counted
    "due",
    metadata,
    of_rollout(),
    key_part("at", Instant),
    key_part("case_id"),
    key_part("track", Text),
    sqlite_with_rowid=False,
)

slots = Table(
    "slots",
    metadata,
    of_rollout(),
    key_part("slot"),
    needed("owner"),
    needed("claimed_at", Instant),
    maybe("done_at", Instant),
    sqlite_with_rowid=False,
)

tally_series = Table(  # whose units a tally counts
    "tally_series",
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
        name="uq_tally_series_whose",  # PostgreSQL cuts names at 63 letters
    ),
)

tally_kinds = Table(  # the class that a unit falls into
    "tally_kinds",
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
        name="uq_tally_kinds_class",
    ),
)

counted = Table(  # `kinds`: one a lever, and one for all together where there are several
    "counted",
    metadata,
    of_rollout(),
    key_part("unit"),
    key_part("version", Text),
    key_part("track", Text),
    needed("case_id", BigInteger),
    needed("slot", BigInteger),
    needed("occurred", BigInteger),
    needed("day", Integer),
    needed("series", BigInteger),
    needed("kinds", Plain),
    needed("band", Integer),
    maybe("reviewer"),
    maybe("excluded"),
    Index(None, "rollout", "slot"),
    Index(  # a version's newest: a page of pairs reads no more of them than it shows figures of
        "ix_counted_newest",
        *("rollout", "version", "occurred", "unit", "series"),
        sqlite_where=OF_GATE,
        postgresql_where=OF_GATE,
    ),
    sqlite_with_rowid=False,
)

tallies = Table(  # `n` grows only in slots that evidence has not reached
    "tallies",
    metadata,
    of_rollout(),
    key_part("slot"),
    key_part("occurred"),
    key_part("series"),
    key_part("kind"),
    key_part("band", Integer),
    needed("n", Integer),
    sqlite_with_rowid=False,
)

matrices = Table(  # the same sums over all slots: what it costs to read does not grow with them
    "matrices",
    metadata,
    of_rollout(),
    key_part("series"),
    key_part("kind"),
    needed("n", BigInteger),
    sqlite_with_rowid=False,
)

losses = Table(  # pairs that differ and how sure the version was: the surest come by the index
    "losses",
    metadata,
    of_rollout(),
    key_part("case_id"),
    key_part("version", Text),
    key_part("kind"),
    needed("confidence", Double),
    needed("series", BigInteger),
    Index("ix_losses_surest", "rollout", "version", "kind", "confidence", "case_id", "series"),
    sqlite_with_rowid=False,
)

evidence_heads = Table(  # moved by compare-and-set: no tally at or before `through` grows
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
