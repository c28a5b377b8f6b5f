"""Columns for the kind of an outcome's source, and for the sources of counted outcomes.

Why: a key that sends predictions could also send the outcomes that widen the model. An outcome is
    evidence to widen only from a source that the policy names, as a decision is.
Locks: two tables, for the moment that adds empty columns.
After it: nothing. Outcomes and units of before have no source, and count as they did.
With the program before it: it stores outcomes without a kind, which count as before; stop it before
    a key that sends predictions may send outcomes. Its `doctor` names hash form 7 as one that does
    not exist.
Back: refused while an outcome is of no source, because the program before would count it. Else the
    columns are dropped; `doctor` then reports the hashes of outcomes with a kind.
"""

import sqlalchemy as sa
from alembic import op

revision = "0038"
down_revision = "0037"
branch_labels = None
depends_on = None

COLUMNS = (
    ("outcomes", "source_kind"),
    ("counted_outcomes", "sources"),
    ("counted_outcomes", "source_fault"),
)
REFUSALS = (
    ("select count(*) from outcomes where source_kind = 'unnamed'", "outcomes"),
    ("select count(*) from counted_outcomes where source_fault is not null", "counted units"),
)


def upgrade() -> None:
    """Add the columns."""
    for table, column in COLUMNS:
        op.add_column(table, sa.Column(column, sa.Text(), nullable=True))


def downgrade() -> None:
    """Drop the columns, unless an outcome is of no source.

    Raises:
        RuntimeError: the program before would count what is no evidence.
    """
    for query, noun in REFUSALS:
        count = op.get_bind().execute(sa.text(query)).scalar()
        if count:
            raise RuntimeError(
                f"{count} {noun} are no evidence to widen, and the program before would count"
                " them; restore a backup from before they arrived instead"
            )
    for table, column in reversed(COLUMNS):
        op.drop_column(table, column)
