"""The tables of what users want to be notified of, and of the notifications."""

from sqlalchemy import Column, ForeignKey, Index, Integer, Table, Text, UniqueConstraint

from rollout.store.tables.columns import (
    InstantType,
    JsonType,
    id_column,
    key_column,
    metadata,
    optional_column,
    required_column,
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
