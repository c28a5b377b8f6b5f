"""The hash of the tables changes with each thing that a database has of them."""

import os
import subprocess
import sys

import pytest
from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from rollout.data.database.migrations import find_head_revision, load_current_revision
from rollout.data.tables.record_tables import build_partial_index
from rollout.data.tables.tables import compute_schema_hash, hash_schema


def build(*parts, name="cells", kind=Text, **options):
    """Return two tables; the second one refers to the first."""
    metadata = MetaData()
    options = {"nullable": False, **options}
    Table("sites", metadata, Column("id", Integer, primary_key=True))
    Table(name, metadata, Column("site", kind, **options), *parts)
    return metadata.sorted_tables


CHANGES = {
    "a table's name": build(name="windows"),
    "a column": build(Column("window", Text)),
    "a type": build(kind=BigInteger),
    "null": build(nullable=True),
    "a default": build(server_default="creek"),
    "a key": build(primary_key=True),
    "a number that nobody counts up": build(kind=Integer, primary_key=True, autoincrement=False),
    "a number that the database counts up": build(kind=Integer, primary_key=True),
    "a type of one engine": build(kind=BigInteger().with_variant(Integer(), "sqlite")),
    "a reference": build(Column("id", Integer, ForeignKey("sites.id"))),
    "a reference that waits": build(
        Column("id", Integer, ForeignKey("sites.id", deferrable=True, initially="DEFERRED"))
    ),
    "a check": build(CheckConstraint("site <> ''", name="named")),
    "a check's name": build(CheckConstraint("site <> ''", name="not_empty")),
    "a check's condition": build(CheckConstraint("site <> 'a'", name="named")),
    "a reference that deletes": build(
        Column("id", Integer, ForeignKey("sites.id", ondelete="cascade"))
    ),
    "unique": build(UniqueConstraint("site", name="one")),
    "an index": build(Index("found", "site")),
    "a unique index": build(Index("found", "site", unique=True)),
    "a partial index": build(build_partial_index("found", "site", where=text("site <> ''"))),
    "another partial index": build(build_partial_index("found", "site", where=text("site <> 'a'"))),
}


def test_each_change_of_a_table_changes_the_hash():
    found = {hash_schema(build(), []), *(hash_schema(each, []) for each in CHANGES.values())}
    assert len(found) == 1 + len(CHANGES)


def test_a_changed_trigger_changes_the_hash():
    found = {hash_schema(build(), statements) for statements in ([], ["a"], ["b"], ["a", "b"])}
    assert len(found) == 4


def test_the_same_tables_have_the_same_hash():
    assert hash_schema(build(), ["a  b"]) == hash_schema(build(), ["a\nb"])


def test_the_revision_of_a_database_is_the_hash_of_its_tables(url):
    assert load_current_revision(url) == find_head_revision() == compute_schema_hash()


@pytest.mark.slow
def test_another_process_computes_the_same_hash():
    code = "from rollout.data.tables.tables import compute_schema_hash as c; print(c())"
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed}
        done = subprocess.check_output([sys.executable, "-c", code], env=environment, text=True)
        assert done.strip() == compute_schema_hash()
