"""The table of what people chose about cases that stand out, for training alone."""

from sqlalchemy import BigInteger, Index, Integer, Table

from rollout.store.columns import Instant, maybe, metadata, needed, numbered

cleanings = Table(  # of several about one case and lever the last one holds; all of them stay
    "cleanings",
    metadata,
    numbered(),
    needed("rollout", Integer),
    needed("case_id", BigInteger),
    needed("lever"),
    needed("choice"),  # relabel, drop or keep
    maybe("label"),  # with relabel alone
    needed("reason"),
    needed("by"),
    needed("at", Instant),
    needed("version"),
    needed("report"),
    Index(None, "rollout", "case_id"),
)
