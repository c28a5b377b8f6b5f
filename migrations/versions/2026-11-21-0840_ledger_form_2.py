"""Columns and tables that ledger form 2 needs: slots, forms, free text and account names.

Why: rows of form 2 cite the slot that a tick judged, and hold ids and salted hashes in the place
    of names and of what somebody typed; names and texts stand in tables that an erasure can empty.
Locks: `ledger` and `ledger_heads` for the moment of adding a column; no row is rewritten.
    Incidents get today's words for their kinds. Kept scopes are deleted: they are derived, and
    made again as the ledger grows.
After it: `rollout db upgrade` ends each ledger's form 1 by one row, which holds its head.
Back: only while every ledger is in form 1; the program before can't read form 2.
"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

KINDS = {"rewound": "ledger_rolled_back", "unpermitted": "unauthorized"}
LEFT_FORM_1 = "select count(*) from ledger where form = 2 or kind = 'FormChanged'"


def upgrade() -> None:
    """Add the columns and make the tables."""
    op.add_column("ledger", sa.Column("slot", sa.BigInteger(), nullable=True))
    for table in ("ledger", "ledger_heads"):
        form = sa.Column("form", sa.Integer(), nullable=False, server_default="1")
        op.add_column(table, form)
    op.execute("update ledger_heads set form = 2 where revision = 0")
    op.create_table(
        "ledger_texts",
        sa.Column("rollout", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("revision", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("field", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("salt", sa.LargeBinary(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("rollout", "revision", "field", name="pk_ledger_texts"),
    )
    op.create_table(
        "account_names",
        sa.Column("account", sa.Text(), autoincrement=False, nullable=False),
        sa.Column("name", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("account", name="pk_account_names"),
        sa.UniqueConstraint("name", name="uq_account_names_name"),
    )
    _rename_incidents(KINDS)


def downgrade() -> None:
    """Drop them again.

    Raises:
        RuntimeError: a ledger has left form 1, and the program before can't read it.
    """
    if op.get_bind().execute(sa.text(LEFT_FORM_1)).scalar_one():
        raise RuntimeError("ledgers have left form 1; restore the backup from before instead")
    _rename_incidents({now: then for then, now in KINDS.items()})
    op.drop_table("account_names")
    op.drop_table("ledger_texts")
    for table in ("ledger_heads", "ledger"):
        op.drop_column(table, "form")
    op.drop_column("ledger", "slot")


def _rename_incidents(kinds: dict[str, str]) -> None:
    """Give incidents other kinds, and delete the scopes that hold the kinds of before."""
    for then, now in kinds.items():
        renamed = sa.text("update incidents set kind = :now where kind = :then")
        op.get_bind().execute(renamed, {"now": now, "then": then})
    op.execute("delete from scopes")
