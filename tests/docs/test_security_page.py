"""The page of security lists what is secret and gives every table its class."""

import dataclasses
import re

from rollout.data.tables.tables import metadata
from rollout.settings import Settings
from tests.docs.pages import ROOT

PAGE = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
SECRET_COLUMNS = {"secret", "password"}
HASHED_SECRETS = {"api_keys", "one_time_links", "recovery_codes", "sessions"}


def read_rows(title):
    """Return the cells of a table's rows below a title."""
    section = PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[1:]]


def test_every_table_belongs_to_one_class():
    classes = [re.findall(r"`(\w+)`", row[1]) for row in read_rows("Classes of data")]
    listed = [name for names in classes for name in names]
    assert len(classes) == 4
    assert sorted(listed) == sorted(metadata.tables)


def test_every_secret_of_the_database_and_every_key_file_is_listed():
    places = " ".join(row[1] for row in read_rows("Keys and algorithms"))
    holders = {
        table.name for table in metadata.tables.values() if SECRET_COLUMNS & set(table.c.keys())
    }
    assert holders > {"permit_keys", "second_factors"}
    for name in holders | HASHED_SECRETS | {"rollouts"}:
        assert f"`{name}`" in places, name
    files = [field.name for field in dataclasses.fields(Settings) if "key_file" in field.name]
    assert files == ["secret_key_file", "checkpoint_key_file"]
    assert "`ROLLOUT_CHECKPOINT_KEY_FILE`" in places
    assert "`rollout-secret.key`" in places
