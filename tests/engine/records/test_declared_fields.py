"""A field of a record is declared once; all that lists fields has it then."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
DEVICE = "    device: Annotated[ShortText | None, FieldRule(personal=Personal.TEXT)] = None\n"
BEFORE = "    note: Annotated[LongText | None"
FURTHER = {
    BEFORE: "    helper: Annotated[Name | None, FieldRule(personal=Personal.NAME)] = None\n",
    "    revision: Annotated[Revision, REVISION] = 1\n    window": (
        "    comment: Annotated[ShortText | None, FieldRule(personal=Personal.TEXT)] = None\n"
    ),
    "    revision: Annotated[Revision, REVISION] = 1\n    source_kind": (
        "    remark: Annotated[ShortText | None, FieldRule(personal=Personal.TEXT)] = None\n"
        "    reporter: Annotated[Name | None, FieldRule(personal=Personal.NAME)] = None\n"
    ),
}
"""Personal fields of a decision, a case and an outcome, by what they stand before."""


def add_field(folder, line):
    """Make a copy of the program, whose decisions have one field more; return its folder."""
    return add_fields(folder, {BEFORE: line})


def add_fields(folder, lines):
    """Make a copy of the program with lines before others; return its folder."""
    for name in ("rollout", "api", "migrations"):
        shutil.copytree(ROOT / name, folder / name)  # with its byte code
    records = folder / "rollout/engine/records/records.py"
    text = records.read_text("utf-8")
    for place, line in lines.items():
        assert text.count(place) == 1
        text = text.replace(place, line + place)
    records.write_text(text, encoding="utf-8")
    return folder


def run(folder, *words):
    paths = f"{folder}{os.pathsep}{ROOT}"
    return subprocess.run(
        [sys.executable, *words], cwd=folder, env=os.environ | {"PYTHONPATH": paths},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_a_field_more_is_one_line(tmp_path):
    ran = run(add_field(tmp_path, DEVICE), HERE / "device_story.py")
    assert ran.returncode == 0, ran.stderr
    story = json.loads(ran.stdout)
    assert [status for status, _ in story["sent"]] == ["accepted"] * 3
    # another device is other content, and its limits are those of the declaration
    statuses = [status for status, _ in story["again"]]
    assert statuses == ["duplicate", "conflict", "rejected"]
    assert "device" in story["again"][2][1]
    assert story["shown"] == {"ana": "tablet 7", "bo": "Ana's old phone"}
    assert story["page"] == ["device: tablet 7"]
    assert story["exported"] == ["tablet 7"]
    assert len(story["edits"]) == 2
    assert all("is not what its hash says" in fault for fault in story["edits"])
    assert "device" in story["schema"]["properties"]
    assert story["erased"] == ["None", "None"]


@pytest.mark.slow
def test_a_personal_field_of_any_record_is_shown_exported_and_erased(tmp_path):
    ran = run(add_fields(tmp_path, FURTHER), HERE / "further_story.py")
    assert ran.returncode == 0, ran.stderr
    story = json.loads(ran.stdout)
    assert story["sent"] == ["accepted"] * 4
    assert sorted(story["exported"]) == ["decisions", "decisions", "outcomes"]
    assert story["others"] == []
    assert story["shown"] == ["ana was here", "ana said so"]
    assert story["page"] == ["comment: wet", "remark: late"]
    assert story["before"] == ["cases.comment", "decisions.helper", "decisions.reviewer",
                               "outcomes.remark", "outcomes.reporter"]  # fmt: skip
    assert story["after"] == []


@pytest.mark.parametrize(
    "line",
    [
        DEVICE.replace("FieldRule(personal=Personal.TEXT)", "FieldRule()"),
        "    device: ShortText | None = None\n",
        "    device: Annotated[int | None, None] = None\n",
    ],
)
def test_a_field_that_is_half_declared_stops_the_start(tmp_path, line):
    ran = run(add_field(tmp_path, line), "-c", "import rollout.engine.records.records")
    assert ran.returncode == 1
    assert "Decision.device: say in its `FieldRule` whether it is personal" in ran.stderr


def test_what_is_sent_comes_first(tmp_path):
    line = DEVICE.replace("FieldRule(personal=Personal.TEXT)", "FILLED")
    ran = run(add_field(tmp_path, line), "-c", "import rollout.engine.records.records")
    assert ran.returncode == 1
    assert "Decision: declare what is sent before what the service fills in" in ran.stderr
