"""Kinds of notifications: one class each, listed once; API, console, docs and deliveries follow."""

import json
import os
import shutil
import subprocess
import sys
from inspect import isabstract
from pathlib import Path

import pytest

from rollout.features.notifications.kinds import KIND_OF_NOTICE, KINDS
from rollout.features.notifications.proposal_kinds import NotificationKind

ROOT = Path(__file__).parents[3]
HERE = Path(__file__).parent


def list_classes(base=NotificationKind):
    for child in base.__subclasses__():
        yield child
        yield from list_classes(child)


def test_each_class_is_listed_once_and_shares_no_notice():
    ours = {child for child in list_classes() if child.__module__.startswith("rollout.")}
    ours -= {child for child in ours if isabstract(child)}
    assert {type(kind) for kind in KINDS.values()} == ours
    assert len({child.name for child in ours}) == len(KINDS) == 7
    assert len(KIND_OF_NOTICE) == sum(len(kind.notices) for kind in KINDS.values()) == 8


def test_a_class_that_lacks_its_text_makes_no_kind():
    class Forgotten(NotificationKind):
        name = "forgotten"

        def find_notices(self, _user, _since, _news, _at):
            return iter(())

    with pytest.raises(TypeError, match="build_text"):
        Forgotten()


@pytest.mark.slow
def test_another_kind_is_one_class_and_one_entry(tmp_path):
    for part in ("rollout", "migrations"):
        shutil.copytree(ROOT / part, tmp_path / part)  # with its byte code
    folder = tmp_path / "rollout/features/notifications"
    shutil.copy(HERE / "stops_kind.py", folder)
    listing = (folder / "kinds.py").read_text("utf-8")
    entry, imported = (
        "            Incidents(),\n",
        "from rollout.features.notifications.proposal_kinds import",
    )
    assert entry in listing
    listing = listing.replace(entry, entry + "            Stops(),\n")
    of_stops = "from rollout.features.notifications.stops_kind import Stops\n"
    listing = listing.replace(imported, of_stops + imported)
    (folder / "kinds.py").write_text(listing, encoding="utf-8")
    ran = subprocess.run(
        [sys.executable, HERE / "stops_story.py", tmp_path],
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    story = json.loads(ran.stdout)
    assert (story["status"], story["chosen"]) == (200, ["reminders", "stops"])
    names = [*KINDS]
    names.insert(names.index("incidents") + 1, "stops")
    assert story["schema"] == names
    assert story["is_on_page"]
    assert "| `stops` | Stops, also in quiet hours |" in story["docs"]
    assert story["sent"] == [["olga", "bears: Stop S-4"]]
