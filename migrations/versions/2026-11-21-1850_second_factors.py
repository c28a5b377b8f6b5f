"""Second factors, resets of credentials, and the addresses from which users signed in.

Why: users who approve or administer can be required to give a code of an authenticator app; what
    an admin reset counts for approvals only later; a flood of failures must not keep users out.
Locks: `users`, `sessions`, `api_keys` and `one_time_links` for the moment of adding a column.
    Accounts that could already sign in are marked, so that a new password of theirs is a reset.
Back: second factors, recovery codes and the memory of resets are dropped; the access ledger keeps
    its events, which the program before shows by their names.
"""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0016"
branch_labels = None
depends_on = None

MARK_CREDENTIALS = """
    update users set first_credential_at = created_at
    where password is not null or disabled_at is not null
       or id in (select user_id from identities)
"""


def upgrade() -> None:
    """Add the columns and make the tables."""
    op.add_column("users", sa.Column("first_credential_at", sa.BigInteger(), nullable=True))
    op.execute(MARK_CREDENTIALS)
    for table in ("sessions", "api_keys"):
        op.add_column(table, sa.Column("second_factor", sa.Text(), nullable=True))
    op.add_column("one_time_links", sa.Column("created_by", sa.Integer(), nullable=True))
    _create_factor_tables()
    op.create_table(
        "credential_resets",
        _id_column(),
        _user_column(),
        sa.Column("reset_by", sa.Integer(), nullable=False),
        sa.Column("credential", sa.Text(), nullable=False),
        sa.Column("reset_at", sa.BigInteger(), nullable=False),
        *_user_constraints("credential_resets"),
        sa.PrimaryKeyConstraint("id", name="pk_credential_resets"),
    )
    op.create_index("ix_credential_resets_user_id", "credential_resets", ["user_id"])
    op.create_table(
        "sign_in_addresses",
        sa.Column("user_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("hash", sa.LargeBinary(), autoincrement=False, nullable=False),
        sa.Column("used_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("user_id", "hash", name="pk_sign_in_addresses"),
    )


def _create_factor_tables() -> None:
    op.create_table(
        "second_factors",
        sa.Column("user_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("secret", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("confirmed_at", sa.BigInteger(), nullable=True),
        sa.Column("last_step", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("user_id", name="pk_second_factors"),
    )
    op.create_table(
        "recovery_codes",
        _id_column(),
        _user_column(),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("used_at", sa.BigInteger(), nullable=True),
        *_user_constraints("recovery_codes"),
        sa.PrimaryKeyConstraint("id", name="pk_recovery_codes"),
    )
    op.create_index("ix_recovery_codes_user_id", "recovery_codes", ["user_id"])


def _id_column() -> sa.Column[int]:
    kind = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    return sa.Column("id", kind, autoincrement=True, nullable=False)


def _user_column() -> sa.Column[int]:
    return sa.Column("user_id", sa.Integer(), nullable=False)


def _user_constraints(table: str) -> list[sa.ForeignKeyConstraint]:
    return [sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=f"fk_{table}_user_id")]


def downgrade() -> None:
    """Drop them again."""
    for table in (
        "sign_in_addresses",
        "credential_resets",
        "recovery_codes",
        "second_factors",
    ):
        op.drop_table(table)
    op.drop_column("one_time_links", "created_by")
    for table in ("api_keys", "sessions"):
        op.drop_column(table, "second_factor")
    op.drop_column("users", "first_credential_at")
