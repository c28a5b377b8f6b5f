"""The tables of what goes out: reports that are due, and reports on their way to channels."""

from sqlalchemy import BigInteger, Index, Integer, Table, Text
from sqlalchemy import UniqueConstraint as Unique

from rollout.store.columns import Instant, key_part, maybe, metadata, needed, numbered, of_rollout

report_runs = Table(  # how far a report is made, and who is making the next one
    "report_runs",
    metadata,
    of_rollout(),
    key_part("report_name", Text),  # in the policy; "" for the notice of incidents
    key_part("watermark"),  # microseconds since 1970; of incidents a revision
    needed("owner"),
    needed("claimed_at", Instant),
    maybe("done_at", Instant),
)

deliveries = Table(  # written with the report; its own outbox
    "deliveries",
    metadata,
    numbered(),
    needed("rollout", Integer),
    needed("report", BigInteger),
    needed("channel"),  # a name: where it leads stands in no database
    needed("reason"),
    needed("subject"),
    needed("intro"),
    needed("state"),
    needed("attempts", Integer),
    needed("queued_at", Instant),
    maybe("next_attempt_at", Instant),  # null: it is not tried again
    maybe("sent_at", Instant),
    needed("error"),
    Unique("rollout", "report", "channel"),
    Index(None, "next_attempt_at"),
)
