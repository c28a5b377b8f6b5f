"""Generated pages equal what the code says now; their data files name what exists."""

import importlib
import re

import pytest

from api.problems import STATUS_BY_CODE
from rollout.engine.events import EVENT_TYPES
from rollout.engine.events.rollouts import RecordEvent
from rollout.kernel.errors import RefusalError
from rollout.kernel.measures import MEASURES
from rollout.kernel.policy_files.document import list_paths
from tests.docs import api_page, events_page, policy_page, small_pages
from tests.docs.pages import ROOT
from tests.docs.reference import FOLDER, WRITERS

WITHOUT_CLASS = {"not-found", "method-not-allowed", "internal-error", "malformed"}


@pytest.mark.parametrize("name", WRITERS)
def test_a_page_is_what_the_code_says(name):
    same = (FOLDER / name).read_text(encoding="utf-8") == WRITERS[name]()
    assert same, f"docs/{name} is old: run `python -m tests.docs.reference`"


def test_the_page_of_events_says_how_each_kind_changes_the_state():
    is_left = {name: kind.apply is RecordEvent.apply for name, kind in EVENT_TYPES.items()}
    assert set(events_page.EFFECTS) == {name for name, leaves in is_left.items() if not leaves} - {
        "RolloutCreated",
        "DamageCleared",
    }


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
    keys = {*named, *sections} - set(MEASURES)
    assert keys == set(list_paths())
