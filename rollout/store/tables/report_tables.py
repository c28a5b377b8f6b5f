"""The tables of review tasks, exposures and reports."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy import UniqueConstraint as Unique

from rollout.store.tables.columns import (
    InstantType,
    JsonType,
    id_column,
    key_column,
    metadata,
    optional_column,
    required_column,
    rollout_column,
)


def _owner_column() -> Column[int]:
    key = ForeignKey("users.id")
    return Column("user_id", Integer, key, primary_key=True, autoincrement=False)


notification_settings = Table(
    "notification_settings",
    metadata,
    _owner_column(),
    required_column("timezone"),
    optional_column("quiet_from"),  # 22:00; null: no quiet hours
    optional_column("quiet_until"),
)

notification_channels = Table(
    "notification_channels",
    metadata,
    _owner_column(),
    key_column("channel", Text),  # only the name; host and secrets are in the configuration
    required_column("address"),
    required_column("kinds", JsonType),  # since when each kind is chosen
    optional_column("code"),  # of the test message; null once confirmed
    optional_column("code_sent_at", InstantType),
    required_column("wrong_codes", Integer),
    optional_column("confirmed_at", InstantType),  # null: gets nothing but the test message
)

notifications = Table(  # also the outbox; the text is made when it is sent
    "notifications",
    metadata,
    id_column(),
    Column("user_id", Integer, ForeignKey("users.id"), nullable=False),
    required_column("channel"),
    required_column("rollout"),  # its name; "" for all
    required_column("kind"),
    required_column("about"),  # id of a proposal or incident, time of reviews, day of a digest
    required_column("state"),
    required_column("attempts", Integer),
    required_column("queued_at", InstantType),
    optional_column("next_attempt_at", InstantType),  # null: no further attempt
    optional_column("sent_at", InstantType),
    required_column("error"),
    UniqueConstraint("user_id", "channel", "rollout", "kind", "about", name="uq_notifications_key"),
    Index(None, "next_attempt_at"),
    Index(None, "queued_at"),
)

reviews = Table(  # review tasks; `kind` is blind, assisted, adjudication or gold
    "reviews",
    metadata,
    id_column(),
    required_column("rollout", Integer),
    required_column("case_id", BigInteger),
    required_column("kind"),
    required_column("task_number", Integer),
    required_column("site"),
    optional_column("version"),  # of the prediction that is shown or adjudicated
    required_column("opened_at", InstantType),
    optional_column("due_at", InstantType),  # can't be claimed from then on
    optional_column("answer_by", InstantType),
    required_column("sampling_value", Double),  # orders tasks that are due at the same time
    required_column("state"),
    optional_column("reviewer"),  # current or last claimant, or who decided; null: none
    optional_column("claimed_until", InstantType),
    optional_column("closed_at", InstantType),
    optional_column("gold_answers", JsonType),  # only for gold cases
    optional_column(
        "gold_decision", JsonType
    ),  # only for gold cases, whose decisions are not records
    Unique("rollout", "case_id", "kind", "task_number"),
    Unique("rollout", "case_id", "reviewer"),  # a reviewer has at most one task of a case
    Index(None, "rollout", "state", "due_at"),
    Index(None, "rollout", "state", "answer_by"),
    Index(None, "rollout", "reviewer", "state"),
)

exposures = Table(
    "exposures",
    metadata,
    rollout_column(),
    key_column("case_id"),
    key_column("reviewer", Text),
    key_column("at", InstantType),
    key_column("content", Text),  # case, prediction, decisions, or figures of all cases before `at`
    required_column("page"),
)

reports = Table(  # a row a version
    "reports",
    metadata,
    id_column(),
    required_column("rollout", Integer),
    required_column("name"),
    required_column("since", InstantType),
    required_column("until", InstantType),
    required_column("schema"),
    required_column("hash"),
    required_column("body"),
    required_column("created_at", InstantType),
    required_column("version", Integer),
    required_column("state"),
    required_column("view"),
    required_column("divergences"),
    required_column("sealed_revision", Integer),  # of the ledger; 0: not sealed
    optional_column("due", InstantType),
    Unique("rollout", "name", "hash"),
    Index("ix_reports_versions", "rollout", "name", "since", "until", "version", unique=True),
)


report_runs = Table(  # finished and claimed runs of scheduled reports
    "report_runs",
    metadata,
    rollout_column(),
    key_column("report_name", Text),  # the policy's name; "" for the notice of incidents
    key_column("watermark"),  # microseconds since 1970; a revision for incidents
    required_column("owner"),
    required_column("claimed_at", InstantType),
    optional_column("done_at", InstantType),
)

report_requests = Table(  # of accounts, within the last hour
    "report_requests",
    metadata,
    id_column(),
    required_column("principal"),
    required_column("started_at", InstantType),
    required_column("renewed_at", InstantType),  # by what makes it; long ago: it died
    required_column("is_running", Boolean),
    Index(None, "principal", "started_at"),
)

deliveries = Table(  # stored with the report; also the outbox
    "deliveries",
    metadata,
    id_column(),
    required_column("rollout", Integer),
    required_column("report", BigInteger),
    required_column("channel"),  # only the name; the address is in the configuration
    required_column("reason"),
    required_column("subject"),
    required_column("intro"),
    required_column("state"),
    required_column("attempts", Integer),
    required_column("queued_at", InstantType),
    optional_column("next_attempt_at", InstantType),  # null: no further attempt
    optional_column("sent_at", InstantType),
    required_column("error"),
    Unique("rollout", "report", "channel"),
    Index(None, "next_attempt_at"),
)
