"""The tables of users, their roles, keys and sessions, and of idempotency keys."""

from sqlalchemy import (
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
)

from rollout.store.columns import (
    Instant,
    key_part,
    maybe,
    metadata,
    needed,
    numbered,
)


def _user_id() -> Column[int]:
    return Column("user_id", Integer, ForeignKey("users.id"), nullable=False, index=True)


users = Table(
    "users",
    metadata,
    numbered(),
    needed("name", unique=True),
    needed("service_account", Boolean),
    maybe("password"),  # argon2's own text, salt and cost inside
    needed("created_at", Instant),
    maybe("disabled_at", Instant),
    maybe("email"),  # in lower case; by which an identity provider's word is first believed
    Index(None, "email", unique=True),
)

account_names = Table(  # the ledger holds ids alone; an erasure empties `name`
    "account_names",
    metadata,
    key_part("account", Text),
    maybe("name", unique=True),
)

api_keys = Table(  # displayed once; stored as a hash, with a prefix that names the key
    "api_keys",
    metadata,
    numbered(),
    _user_id(),
    needed("prefix", unique=True),
    needed("hash", LargeBinary),
    needed("created_at", Instant),
    maybe("expires_at", Instant),
    maybe("revoked_at", Instant),
    maybe("last_used_at", Instant),
)

sessions = Table(
    "sessions",
    metadata,
    numbered(),
    _user_id(),
    needed("hash", LargeBinary, unique=True),
    needed("csrf", LargeBinary),
    needed("created_at", Instant),
    needed("expires_at", Instant),
    maybe("ended_at", Instant),
    maybe("last_used_at", Instant),  # written at most once a minute
)

one_time_links = Table(  # `user_id` null: whoever uses it becomes the first admin
    "one_time_links",
    metadata,
    numbered(),
    Column("user_id", Integer, ForeignKey("users.id"), nullable=True, index=True),
    needed("hash", LargeBinary, unique=True),
    needed("created_at", Instant),
    needed("expires_at", Instant),
    maybe("used_at", Instant),
)

identities = Table(  # whom an identity provider calls by which subject
    "identities",
    metadata,
    numbered(),
    _user_id(),
    needed("issuer"),
    needed("subject"),
    needed("linked_at", Instant),
    UniqueConstraint("issuer", "subject"),
    UniqueConstraint("user_id", "issuer"),
)

role_assignments = Table(  # null `rollout` or `site`: all of them; approvals ask for `group`
    "role_assignments",
    metadata,
    numbered(),
    _user_id(),
    needed("role"),
    maybe("rollout", Integer),
    maybe("site"),
    needed("group"),
)

permit_keys = Table(  # the two newest are valid: the older one while permits of it are out
    "permit_keys",
    metadata,
    numbered(),
    needed("secret", LargeBinary),
    needed("created_at", Instant),
)

idempotency_keys = Table(  # with the first response; a retry gets it again
    "idempotency_keys",
    metadata,
    key_part("principal", Text),
    key_part("key", Text),
    needed("request_hash", LargeBinary),
    needed("response_status", Integer),
    needed("response_body"),
    needed("expires_at", Instant),
    Index(None, "expires_at"),
)
