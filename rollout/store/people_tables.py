"""The tables of people and machines, and of what is owed to whoever asked."""

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


def _person() -> Column[int]:
    return Column("person", Integer, ForeignKey("people.id"), nullable=False, index=True)


people = Table(
    "people",
    metadata,
    numbered(),
    needed("name", unique=True),
    needed("machine", Boolean),
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

keys = Table(  # shown once; what is kept is a hash, and a prefix to tell keys apart
    "keys",
    metadata,
    numbered(),
    _person(),
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
    _person(),
    needed("hash", LargeBinary, unique=True),
    needed("csrf", LargeBinary),
    needed("created_at", Instant),
    needed("expires_at", Instant),
    maybe("ended_at", Instant),
    maybe("seen_at", Instant),  # written at most once a minute
)

one_time_links = Table(  # `person` null: whoever uses it becomes the first admin
    "one_time_links",
    metadata,
    numbered(),
    Column("person", Integer, ForeignKey("people.id"), nullable=True, index=True),
    needed("hash", LargeBinary, unique=True),
    needed("created_at", Instant),
    needed("expires_at", Instant),
    maybe("used_at", Instant),
)

identities = Table(  # whom an identity provider calls by which subject
    "identities",
    metadata,
    numbered(),
    _person(),
    needed("issuer"),
    needed("subject"),
    needed("linked_at", Instant),
    UniqueConstraint("issuer", "subject"),
    UniqueConstraint("person", "issuer"),
)

rights = Table(  # `rollout` and `site` null: all of them; `group` is asked for by approvals
    "rights",
    metadata,
    numbered(),
    _person(),
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
    needed("made_at", Instant),
)

replies = Table(  # the first answer to an idempotency key; asking again gets it again
    "replies",
    metadata,
    key_part("principal", Text),
    key_part("key", Text),
    needed("request", LargeBinary),
    needed("status", Integer),
    needed("body"),
    needed("expires_at", Instant),
    Index(None, "expires_at"),
)
