"""The tables of what people read: reviews of cases, what was shown to whom, reports."""

from sqlalchemy import BigInteger, Index, Integer, Table, Text
from sqlalchemy import UniqueConstraint as Unique

from rollout.store.columns import (
    Instant,
    key_part,
    maybe,
    metadata,
    needed,
    numbered,
    of_rollout,
)

reviews = Table(  # one seat of a case; `kind` is blind, assisted, adjudicate or seeded
    "reviews",
    metadata,
    of_rollout(),
    key_part("case_id"),
    key_part("kind", Text),
    key_part("seat", Integer),
    needed("site"),
    needed("opened_at", Instant),
    needed("state"),
    maybe("reviewer"),
    maybe("claimed_until", Instant),
    Index(None, "rollout", "state", "site", "opened_at"),
)

shown = Table(
    "shown",
    metadata,
    of_rollout(),
    key_part("case_id"),
    key_part("reviewer", Text),
    key_part("at", Instant),
    key_part("what", Text),
    needed("page"),
)

reports = Table(
    "reports",
    metadata,
    numbered(),
    needed("rollout", Integer),
    needed("name"),
    needed("since", Instant),
    needed("until", Instant),
    needed("schema"),
    needed("hash"),
    needed("body"),
    needed("made_at", Instant),
    Unique("rollout", "name", "hash"),
)

deliveries = Table(
    "deliveries",
    metadata,
    of_rollout(),
    key_part("report", BigInteger),
    key_part("channel", Text),
    needed("state"),
    needed("attempts", Integer),
    maybe("sent_at", Instant),
)
