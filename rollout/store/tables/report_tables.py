"""The tables of reviews, of exposures (who was shown what), and of reports."""

from sqlalchemy import BigInteger, Double, Index, Integer, Table, Text
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

reviews = Table(  # review tasks; `kind` is blind, assisted, adjudication or gold
    "reviews",
    metadata,
    numbered(),
    needed("rollout", Integer),
    needed("case_id", BigInteger),
    needed("kind"),
    needed("task_number", Integer),
    needed("site"),
    maybe("version"),  # whose answer goes with it: the proposal, or what is adjudicated
    needed("opened_at", Instant),
    maybe("due_at", Instant),  # from then on it is not given out any more
    maybe("answer_by", Instant),
    needed("sampling_value", Double),  # the order of those that are due at once
    needed("state"),
    maybe("reviewer"),  # who has it, had it last, or judged it; null: free, and nobody's
    maybe("claimed_until", Instant),
    maybe("closed_at", Instant),
    maybe("gold_answers", Plain),  # of a gold case: the right answers
    maybe("gold_decision", Plain),  # of a gold case: the reviewer's decision, which is no record
    Unique("rollout", "case_id", "kind", "task_number"),
    Unique("rollout", "case_id", "reviewer"),  # one task of a case for each reviewer
    Index(None, "rollout", "state", "due_at"),
    Index(None, "rollout", "state", "answer_by"),
    Index(None, "rollout", "reviewer", "state"),
)

exposures = Table(
    "exposures",
    metadata,
    of_rollout(),
    key_part("case_id"),
    key_part("reviewer", Text),
    key_part("at", Instant),
    key_part("content", Text),  # case, prediction, decisions; figures: of all cases before `at`
    needed("page"),
)

reports = Table(  # each row one version; what is said of a span later is a further one
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
    needed("created_at", Instant),
    needed("version", Integer, server_default="1"),
    needed("state", server_default="final"),
    needed("view", server_default="operator"),
    needed("divergences", server_default=""),
    needed("sealed_revision", Integer, server_default="0"),  # of the ledger; 0: not in it
    maybe("due", Instant),
    Unique("rollout", "name", "hash"),
    Index("ix_reports_versions", "rollout", "name", "since", "until", "version", unique=True),
)


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
