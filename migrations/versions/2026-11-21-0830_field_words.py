"""Tables, columns and stored values get the words of the field.

Why: somebody who knows machine learning and feature flags can read the tables: `users` instead of
    `people`, `role_assignments` instead of `rights`, `exposures` instead of `shown`. Hashed texts
    (the ledger, reports) and what goes into a record's hash stay as they are.
Locks: every table that is renamed or has a renamed column, until the end. On PostgreSQL names
    change without a copy; `actions`, `exposures`, `reviews`, `versions` and `count_queue` are
    written once, for their values. SQLite also copies the tables of users, the external keys, the
    rejected records and the reviews, since it can't rename their constraints.
    Stop all replicas first, once: neither program can work on the tables of the other.
Back: `downgrade(url, "0011")` of `rollout.store.database.migrations` gives everything its old name
    and value again; no row is lost.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from alembic import op

from rollout.store.tables.append_only import build_triggers

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

Names = Mapping[str, str]

TABLES: Names = {
    "caller_keys": "external_keys",
    "counted": "counted_units",
    "due": "count_queue",
    "keys": "api_keys",
    "losses": "top_losses",
    "matrices": "confusion_matrices",
    "people": "users",
    "replies": "idempotency_keys",
    "rights": "role_assignments",
    "set_aside": "rejected_records",
    "shown": "exposures",
    "slots": "tick_slots",
    "tallies": "counts",
    "tally_kinds": "count_classes",
    "tally_series": "count_series",
}
SERIAL = ("caller_keys", "keys", "people", "rights", "set_aside", "tally_kinds", "tally_series")
"""Those of them whose numbers come from a sequence of PostgreSQL's, under their old names."""

COLUMNS: Mapping[str, Names] = {  # by the table's new name
    "actions": {"permission": "authorization"},
    "api_keys": {"person": "user_id"},
    "baselines": {"vouched_by": "imported_by"},
    "confusion_matrices": {"series": "series_id", "kind": "class_id"},
    "counted_units": {
        "series": "series_id",
        "kinds": "class_ids",
        "band": "bucket",
        "excluded": "exclusion_reason",
    },
    "counts": {"series": "series_id", "kind": "class_id", "band": "bucket"},
    "decisions": {"claims": "claimed_exposure", "seat": "task_number"},
    "deliveries": {"lead": "intro", "next_at": "next_attempt_at"},
    "exposures": {"what": "content"},
    "idempotency_keys": {
        "request": "request_hash",
        "status": "response_status",
        "body": "response_body",
    },
    "identities": {"person": "user_id"},
    "incidents": {"opened_in": "opened_revision"},
    "ledger": {"house": "access_head"},
    "one_time_links": {"person": "user_id"},
    "permit_keys": {"made_at": "created_at"},
    "proposals": {
        "evidence": "evidence_hash",
        "raised_in": "raised_revision",
        "closed_in": "closed_revision",
    },
    "report_runs": {"what": "report_name", "mark": "watermark"},
    "reports": {"made_at": "created_at", "sealed_in": "sealed_revision"},
    "reviews": {
        "seat": "task_number",
        "turn": "sampling_value",
        "known": "gold_answers",
        "said": "gold_decision",
    },
    "role_assignments": {"person": "user_id"},
    "sessions": {"person": "user_id", "seen_at": "last_used_at"},
    "top_losses": {"series": "series_id", "kind": "class_id"},
    "users": {"machine": "service_account"},
    "versions": {"said_at": "recorded_at", "about": "details"},
}

CONSTRAINTS: Mapping[str, Names] = {  # by the table's new name
    **{new: {f"pk_{old}": f"pk_{new}"} for old, new in TABLES.items()},
    "api_keys": {
        "pk_keys": "pk_api_keys",
        "fk_keys_person": "fk_api_keys_user_id",
        "uq_keys_prefix": "uq_api_keys_prefix",
    },
    "count_classes": {
        "pk_tally_kinds": "pk_count_classes",
        "uq_tally_kinds_class": "uq_count_classes_columns",
    },
    "count_series": {
        "pk_tally_series": "pk_count_series",
        "uq_tally_series_whose": "uq_count_series_columns",
    },
    "external_keys": {
        "pk_caller_keys": "pk_external_keys",
        "uq_caller_keys_rollout_kind_key": "uq_external_keys_rollout_kind_key",
    },
    "identities": {
        "fk_identities_person": "fk_identities_user_id",
        "uq_identities_person_issuer": "uq_identities_user_id_issuer",
    },
    "one_time_links": {"fk_one_time_links_person": "fk_one_time_links_user_id"},
    "rejected_records": {
        "pk_set_aside": "pk_rejected_records",
        "uq_set_aside_rollout_hash": "uq_rejected_records_rollout_hash",
    },
    "reviews": {
        "uq_reviews_rollout_case_id_kind_seat": "uq_reviews_rollout_case_id_kind_task_number"
    },
    "role_assignments": {
        "pk_rights": "pk_role_assignments",
        "fk_rights_person": "fk_role_assignments_user_id",
    },
    "sessions": {"fk_sessions_person": "fk_sessions_user_id"},
    "users": {"pk_people": "pk_users", "uq_people_name": "uq_users_name"},
}
COPIED = (
    "api_keys",
    "count_classes",
    "count_series",
    "external_keys",
    "identities",
    "one_time_links",
    "rejected_records",
    "reviews",
    "role_assignments",
    "sessions",
    "users",
)
"""What SQLite copies: tables with other constraints than a key, which is named nowhere else."""

GATE = "track = 'gate'"


@dataclass(frozen=True)
class Index:
    """An index with its new columns; `old` is its name before."""

    table: str
    old: str
    new: str
    columns: Sequence[str]
    where: str = ""
    unique: bool = False


INDEXES = (
    Index("users", "ix_people_email", "ix_users_email", ["email"], unique=True),
    *(
        Index(table, f"ix_{old}_person", f"ix_{table}_user_id", ["user_id"])
        for old, table in (
            ("keys", "api_keys"),
            ("sessions", "sessions"),
            ("one_time_links", "one_time_links"),
            ("identities", "identities"),
            ("rights", "role_assignments"),
        )
    ),
    Index(
        "idempotency_keys",
        "ix_replies_expires_at",
        "ix_idempotency_keys_expires_at",
        ["expires_at"],
    ),
    Index(
        "counted_units",
        "ix_counted_rollout_slot",
        "ix_counted_units_rollout_slot",
        ["rollout", "slot"],
    ),
    Index(
        "counted_units",
        "ix_counted_newest",
        "ix_counted_units_newest",
        ["rollout", "version", "occurred", "unit", "series_id"],
        where=GATE,
    ),
    Index(
        "top_losses",
        "ix_losses_surest",
        "ix_top_losses_confidence",
        ["rollout", "version", "class_id", "confidence", "case_id", "series_id"],
    ),
    Index(
        "proposals",
        "ix_proposals_rollout_raised_in",
        "ix_proposals_rollout_raised_revision",
        ["rollout", "raised_revision"],
    ),
    Index(
        "incidents",
        "ix_incidents_rollout_opened_in",
        "ix_incidents_rollout_opened_revision",
        ["rollout", "opened_revision"],
    ),
    Index(
        "deliveries",
        "ix_deliveries_next_at",
        "ix_deliveries_next_attempt_at",
        ["next_attempt_at"],
    ),
)

VALUES: Sequence[tuple[str, str, Names]] = (  # by new names of tables and columns
    (
        "actions",
        "authorization",
        {
            "permitted": "authorized",
            "in-lease": "authorized_within_lease",
            "unpermitted": "unauthorized",
            "by-person": "not_required",
        },
    ),
    ("count_queue", "track", {"arrived": "received", "came": "unscheduled"}),
    ("exposures", "content", {"verdicts": "decisions"}),
    ("exposures", "page", {"seed": "gold-case", "set-aside": "rejected-records"}),
    ("reviews", "kind", {"adjudicate": "adjudication", "seeded": "gold"}),
    ("versions", "source", {"asked": "assignment", "told": "registration"}),
)

APPEND_ONLY: Mapping[str, bool] = {  # by old names; whether a purge may delete there
    "policies": False,
    "versions": False,
    "ledger": False,
    "cases": True,
    "predictions": True,
    "decisions": True,
    "actions": True,
    "outcomes": True,
    "heartbeats": True,
    "set_aside": True,
    "cleanings": True,
    "baselines": False,
    "counted": False,
    "shown": False,
    "reports": False,
}


def upgrade() -> None:
    """Rename, then translate values; triggers stand aside meanwhile."""
    drop_triggers(APPEND_ONLY)
    for old, new in TABLES.items():
        run(f"alter table {old} rename to {new}")
    for table, names in COLUMNS.items():
        rename_columns(table, names)
    rename_constraints(CONSTRAINTS)
    for index in INDEXES:
        rename_index(index, index.old, index.new)
    rename_sequences({old: TABLES[old] for old in SERIAL})
    for table, column, values in VALUES:
        translate(table, column, values)
    make_triggers({TABLES.get(table, table): kind for table, kind in APPEND_ONLY.items()})


def downgrade() -> None:
    """Do the same backwards."""
    drop_triggers({TABLES.get(table, table): kind for table, kind in APPEND_ONLY.items()})
    for table, column, values in VALUES:
        translate(table, column, turned(values))
    rename_sequences({TABLES[old]: old for old in SERIAL})
    for table, names in COLUMNS.items():
        rename_columns(table, turned(names))
    for index in INDEXES:
        rename_index(index, index.new, index.old)
    rename_constraints({table: turned(names) for table, names in CONSTRAINTS.items()})
    for old, new in TABLES.items():
        run(f"alter table {new} rename to {old}")
    make_triggers(APPEND_ONLY)


def run(statement: str) -> None:
    """Run a statement as it is."""
    op.get_bind().exec_driver_sql(statement)


def on_sqlite() -> bool:
    """Say whether the engine is SQLite."""
    return bool(op.get_bind().dialect.name == "sqlite")


def turned(names: Names) -> Names:
    """Return names with old and new exchanged."""
    return {new: old for old, new in names.items()}


def rename_columns(table: str, names: Names) -> None:
    """Rename columns of a table; `authorization` and `window` are words of SQL."""
    for old, new in names.items():
        run(f'alter table {table} rename column "{old}" to "{new}"')


def rename_constraints(constraints: Mapping[str, Names]) -> None:
    """Rename constraints; the tables bear their new names."""
    if on_sqlite():
        for table in COPIED:
            copy_table(table, constraints[table])
        return
    for table, names in constraints.items():
        for old, new in names.items():
            run(f"alter table {table} rename constraint {old} to {new}")


def copy_table(table: str, constraints: Names) -> None:
    """Put a copy with other constraint names in the place of a table of SQLite's."""
    stored = "select sql from sqlite_master where tbl_name = ? and type = ? and sql is not null"
    connection = op.get_bind()
    (made,) = connection.exec_driver_sql(stored, (table, "table")).scalars()
    indexes = connection.exec_driver_sql(stored, (table, "index")).scalars().all()
    for old, new in constraints.items():
        made = re.sub(rf"\b{old}\b", new, made)
    run(re.sub(r'^CREATE TABLE "?\w+"?', f"create table copied_{table}", made))
    run(f"insert into copied_{table} select * from {table}")  # noqa: S608 - names of ours
    run(f"drop table {table}")
    run(f"alter table copied_{table} rename to {table}")
    for index in indexes:
        run(index)


def rename_index(index: Index, old: str, new: str) -> None:
    """Rename an index; SQLite makes it anew, of the columns as they are named now."""
    if not on_sqlite():
        run(f"alter index {old} rename to {new}")
        return
    columns = index.columns if new == index.new else old_columns(index)
    run(f"drop index {old}")
    unique = "unique " if index.unique else ""
    where = f" where {index.where}" if index.where else ""
    run(f"create {unique}index {new} on {index.table} ({', '.join(columns)}){where}")


def old_columns(index: Index) -> Iterable[str]:
    """Return the columns of an index as they are named before this revision."""
    names = turned(COLUMNS.get(index.table, {}))
    return [names.get(column, column) for column in index.columns]


def rename_sequences(tables: Names) -> None:
    """Name the sequences of PostgreSQL after their tables, as the roles' grants expect them."""
    if on_sqlite():
        return
    for old, new in tables.items():
        run(f"alter sequence {old}_id_seq rename to {new}_id_seq")


def translate(table: str, column: str, values: Names) -> None:
    """Write stored values anew."""
    for old, new in values.items():
        run(f"update {table} set \"{column}\" = '{new}' where \"{column}\" = '{old}'")  # noqa: S608 - words of ours


def drop_triggers(tables: Mapping[str, bool]) -> None:
    """Let the rows of append-only tables be written until the end of this transaction."""
    engine = op.get_bind().dialect.name
    for table, purgeable in tables.items():
        for name in build_triggers(engine, table, purgeable=purgeable):
            run(f"drop trigger {name}" + ("" if engine == "sqlite" else f" on {table}"))


def make_triggers(tables: Mapping[str, bool]) -> None:
    """Let nobody change the rows of append-only tables again."""
    engine = op.get_bind().dialect.name
    for table, purgeable in tables.items():
        for statement in build_triggers(engine, table, purgeable=purgeable).values():
            run(statement)
