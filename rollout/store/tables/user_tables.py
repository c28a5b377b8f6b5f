"""The tables of users, their roles, keys and sessions, and of idempotency keys."""

from sqlalchemy import (
    BigInteger,
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

from rollout.store.tables.columns import (
    InstantType,
    id_column,
    key_column,
    metadata,
    optional_column,
    required_column,
)


def _user_id() -> Column[int]:
    return Column("user_id", Integer, ForeignKey("users.id"), nullable=False, index=True)


users = Table(
    "users",
    metadata,
    id_column(),
    required_column("name", unique=True),
    required_column("service_account", Boolean),
    optional_column("password"),  # argon2's encoded hash with salt and cost
    required_column("created_at", InstantType),
    optional_column("disabled_at", InstantType),
    optional_column("email"),  # in lower case; links an identity at its first sign-in
    optional_column("first_credential_at", InstantType),  # later ones by others are resets
    optional_column("salt", LargeBinary),  # of the digests in the access ledger; null: erased
    Index(None, "email", unique=True),
)

account_names = Table(  # the ledger has only ids; an erasure clears `name`
    "account_names",
    metadata,
    key_column("account", Text),
    optional_column("name", unique=True),
)

api_keys = Table(  # shown once; stored as a hash with a prefix as name
    "api_keys",
    metadata,
    id_column(),
    _user_id(),
    required_column("prefix", unique=True),
    required_column("hash", LargeBinary),
    required_column("created_at", InstantType),
    optional_column("expires_at", InstantType),
    optional_column("revoked_at", InstantType),
    optional_column("last_used_at", InstantType),
    optional_column("second_factor"),  # of the session in which its own user created it
)

sessions = Table(
    "sessions",
    metadata,
    id_column(),
    _user_id(),
    required_column("hash", LargeBinary, unique=True),
    required_column("csrf", LargeBinary),
    required_column("created_at", InstantType),
    required_column("expires_at", InstantType),
    optional_column("ended_at", InstantType),
    optional_column("last_used_at", InstantType),  # written at most once a minute
    optional_column("second_factor"),  # kind of the second factor; null: none was given
)

one_time_links = Table(  # `user_id` null: the link creates the first admin
    "one_time_links",
    metadata,
    id_column(),
    Column("user_id", Integer, ForeignKey("users.id"), nullable=True, index=True),
    required_column("hash", LargeBinary, unique=True),
    required_column("created_at", InstantType),
    required_column("expires_at", InstantType),
    optional_column("used_at", InstantType),
    optional_column("created_by", Integer),  # the admin's `users.id`; null: made at the machine
)

second_factors = Table(  # `secret` is encrypted; the key is in a file, not here
    "second_factors",
    metadata,
    key_column("user_id"),
    required_column("secret", LargeBinary),
    required_column("created_at", InstantType),
    optional_column("confirmed_at", InstantType),  # null: never used, so not asked for
    required_column("last_step", BigInteger),  # of the last code that was used: it works once
)

recovery_codes = Table(
    "recovery_codes",
    metadata,
    id_column(),
    _user_id(),
    required_column("hash", LargeBinary),
    optional_column("used_at", InstantType),
)

credential_resets = Table(  # by others than the user; approvals don't count together with theirs
    "credential_resets",
    metadata,
    id_column(),
    _user_id(),
    required_column("reset_by", Integer),  # `users.id`, 0: unknown
    required_column("credential"),
    required_column("reset_at", InstantType),
)

sign_in_addresses = Table(  # from which users signed in, as hashes: an attack slows only others
    "sign_in_addresses",
    metadata,
    key_column("user_id"),
    key_column("hash", LargeBinary),
    required_column("used_at", InstantType),
)

identities = Table(  # subjects of identity providers linked to users
    "identities",
    metadata,
    id_column(),
    _user_id(),
    required_column("issuer"),
    required_column("subject"),
    required_column("linked_at", InstantType),
    UniqueConstraint("issuer", "subject"),
    UniqueConstraint("user_id", "issuer"),
)

role_assignments = Table(  # null `rollout` or `site` means all; approvals require groups
    "role_assignments",
    metadata,
    id_column(),
    _user_id(),
    required_column("role"),
    optional_column("rollout", Integer),
    optional_column("site"),
    required_column("group"),
)

permit_keys = Table(  # the two newest are valid
    "permit_keys",
    metadata,
    id_column(),
    required_column("secret", LargeBinary),
    required_column("created_at", InstantType),
)

idempotency_keys = Table(  # with the first response, for retries
    "idempotency_keys",
    metadata,
    key_column("principal", Text),
    key_column("key", Text),
    required_column("request_hash", LargeBinary),
    required_column("response_status", Integer),
    required_column("response_body"),
    required_column("expires_at", InstantType),
    Index(None, "expires_at"),
)
