"""Small tables that keep a service safe while the ledger can't be written.

They have no foreign keys and few rows, so that writing one needs as little of the database as
possible.
"""

from sqlalchemy import Integer, Table, Text

from rollout.store.tables.columns import (
    InstantType,
    JsonType,
    key_column,
    metadata,
    optional_column,
    required_column,
)

replica_heartbeats = Table(  # the last small write of each replica
    "replica_heartbeats",
    metadata,
    key_column("owner", Text),
    required_column("written_at", InstantType),
)

pending_stops = Table(  # stops that every replica obeys although the ledger lacks them
    "pending_stops",
    metadata,
    key_column("id", Text),
    required_column("rollout"),  # its name, which a client sends
    required_column("cells", JsonType),
    required_column("actor", JsonType),
    required_column("reason"),
    required_column("drill", Integer),
    required_column("at", InstantType),
    optional_column("access_head", Integer),
)

damages = Table(  # rollouts whose rows can't be read; "" means all
    "damages",
    metadata,
    key_column("rollout", Text),
    required_column("reason"),
    required_column("found_at", InstantType),
)
