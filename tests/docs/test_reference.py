"""Generated pages equal what the code says now; their data files name what exists."""

import importlib
import re

import pytest

from api.problems import STATUS_BY_CODE
from rollout.core.errors import RefusalError
from rollout.core.scope import projection
from rollout.formats.policy.json_schema import list_paths
from rollout.settings import PREFIX, RENAMED, Settings
from rollout.store.tables.columns import metadata
from tests.docs import api_page, events_page, policy_page, small_pages
from tests.docs.pages import ROOT, fault_of
from tests.docs.reference import FOLDER, WRITERS

WITHOUT_CLASS = {"not-found", "method-not-allowed", "internal-error", "malformed"}


@pytest.mark.parametrize("name", WRITERS)
def test_a_page_is_what_the_code_says(name):
    same = (FOLDER / name).read_text(encoding="utf-8") == WRITERS[name]()
    assert same, f"docs/{name} is old: run `python -m tests.docs.reference`"


def test_the_page_of_events_says_how_each_kind_changes_the_state():
    handled = {kind.__name__ for kind in projection._apply_to_builder.registry}
    assert set(events_page.EFFECTS) == handled - {"object", "LedgerEvent"}


def test_every_operation_is_on_the_page():
    page = api_page.written()
    shown = {name for name in api_page.RIGHTS if f"| {name.replace(' ', ' `', 1)}` |" in page}
    assert set(api_page.RIGHTS) - shown == {
        "GET /",  # pages, no operations
        "GET /docs",
    }


def codes_of_errors():
    """Return the codes of all refusals that a module of the product defines."""
    for package in ("rollout", "api"):
        for path in (ROOT / package).rglob("*.py"):
            importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    classes = [RefusalError]
    for each in classes:
        classes += each.__subclasses__()
    own = ("rollout.", "api.")  # tests define errors of their own
    return {each.code for each in classes if each.__module__.startswith(own)}


def test_every_error_code_has_a_meaning_and_a_remedy():
    texts = small_pages.load_error_texts()
    assert set(texts) == {*STATUS_BY_CODE, *codes_of_errors(), *WITHOUT_CLASS}
    assert all(
        text["meaning"].endswith(".") and text["do"].endswith(".") for text in texts.values()
    )


def test_every_key_of_a_policy_is_on_its_page():
    named = re.findall(r"^\| `([^`]+)` \|", policy_page.written(), re.MULTILINE)
    sections = re.findall(
        r"^`([^`]+)` is (?:required|optional)", policy_page.written(), re.MULTILINE
    )
    keys = {*named, *sections} - set(policy_page.DEFINITIONS)
    assert keys == set(list_paths())


def renamed(title):
    (table,) = [each for each in small_pages.load_renamed() if each["title"] == title]
    return table["rows"]


def names(cell):
    return re.findall(r"`([^`]+)`", cell)


def test_renamed_tables_and_columns_exist():
    for new, old in renamed("Tables"):
        assert names(new)[0] in metadata.tables
        assert names(old)[0] not in metadata.tables
    for table, columns in renamed("Columns"):
        columns_now = metadata.tables[names(table)[0]].columns
        assert set(names(re.sub(r"\([^)]*\)", "", columns))) <= set(columns_now.keys())


def test_renamed_settings_metrics_and_codes_exist():
    assert {names(old)[0]: names(new)[0] for old, new in renamed("Settings")} == RENAMED
    assert all(hasattr(Settings(), new.removeprefix(PREFIX).lower()) for new in RENAMED.values())
    metrics = {line.split()[2] for line in small_pages.sample_metrics() if line[:6] == "# TYPE"}
    for _, new in renamed("Metrics"):
        assert {name.partition("{")[0] for name in names(new)} <= metrics
    for _, new in renamed("Error codes"):
        assert names(new)[0] in small_pages.load_error_texts()


def test_renamed_commands_exist():
    for _, new in renamed("Commands"):
        command = []
        for line in names(new):
            words = [word for word in line.split() if word not in {"…", "N"}]
            command = command + words if words[0].startswith("-") else words
            assert fault_of(command) == "", line


def test_renamed_python_names_exist():
    for new, _ in renamed("Python names"):
        path = names(new)[0]
        if path.startswith("rollout."):
            module, _, name = path.rpartition(".")
            assert hasattr(importlib.import_module(module), name), path
