"""Planted cases: a declaration has a number of its own, the case gets one with its first record.

Why: the case had its number from the declaration on, so the order of `/cases` and its cursor told a
    reviewer which cases are planted.
Locks: none; rows are added, none is changed.
After it: nothing. A case declared before keeps the number of its declaration.
With the program before it: it finds the cases that were declared before, and none that a program
    after it declares: declare none before each replica runs this program. Its `doctor` counts the
    declarations of before twice.
Back: refused while a case is declared as planted, because the program before would count it.
"""

import hmac

import sqlalchemy as sa
from alembic import op

revision = "0037"
down_revision = "0034"
branch_labels = None
depends_on = None

DECLARED = """\
select p.rollout, p.declared_at, p.revision, k.kind, k.key, r.salt from planted_cases p
join external_keys k on k.id = p.case_id join rollouts r on r.id = p.rollout
where k.kind <> 'planted' order by p.rollout, p.case_id"""
ADD_KEY = """\
insert into external_keys (rollout, kind, key) values (:rollout, 'planted', :key) returning id"""
ADD_DECLARATION = """\
insert into planted_cases (rollout, case_id, declared_at, revision)
values (:rollout, :case_id, :declared_at, :revision)"""


def upgrade() -> None:
    """Add the declaration of each case that was declared before, as the hash of its key."""
    bind = op.get_bind()
    for row in bind.execute(sa.text(DECLARED)).mappings().all():
        key = _hash_key(row["salt"], row["key"]) if row["kind"] == "case" else row["key"]
        number = bind.execute(sa.text(ADD_KEY), {"rollout": row["rollout"], "key": key}).scalar()
        bind.execute(sa.text(ADD_DECLARATION), {**row, "case_id": number})


def downgrade() -> None:
    """Change nothing, unless a case is planted.

    Raises:
        RuntimeError: a case is planted.
    """
    query = "select count(*) from external_keys where kind = 'planted'"
    count = op.get_bind().execute(sa.text(query)).scalar()
    if count:
        raise RuntimeError(
            f"{count} cases are declared as planted, and the program before would count them as"
            " cases that occur; restore a backup from before the first declaration instead"
        )


def _hash_key(salt: bytes, key: str) -> str:
    """Return the hash of a case's key, as erasures keep it."""
    content = f"purged\x1f{key}".encode(errors="surrogatepass")
    return hmac.digest(bytes(salt), content, "sha256").hex()
