"""The examples that ship are described, small enough, and found by name."""

import json
import re
from pathlib import Path

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from rollout.cli.main import app
from rollout.features.demo.catalog import (
    MAIL_ROOM,
    ExampleSystem,
    build_replay_request,
    find_example,
    list_examples,
)
from rollout.kernel.errors import RefusalError
from rollout.kernel.policy_files.reader import load_policy

EXAMPLES = {example.name: example for example in list_examples()}
MOST_BYTES_OF_A_PICTURE = 1_480
"""A record's address has at most 2,000 characters: a picture in Base64, and its prefix."""
MOST_BYTES_OF_ONE, MOST_BYTES_TOGETHER = 1_500_000, 10_000_000
each_example = pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)


def count_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_the_mail_room_comes_first_and_is_what_is_played_without_a_name():
    assert next(iter(EXAMPLES)) == MAIL_ROOM


@each_example
def test_an_example_names_cells_and_versions_of_its_policy(example):
    policy = load_policy(example.policy_path)
    named = {(cell.site, cell.window) for cell in (example.held, *example.causes)}
    assert named <= {(cell.site, cell.window) for cell in policy.cells}
    assert example.held.version in {"", *example.versions}
    assert example.held.at_most in policy.stage_ids


@each_example
def test_an_example_is_one_idea_in_a_few_words(example):
    assert len(example.idea.split()) <= 25
    sentences = (
        example.idea,
        example.held.reason,
        example.story.strip(),
        example.real,
        example.simulated,
    )
    assert all(text.endswith(".") for text in sentences)


@each_example
def test_an_examples_files_are_there(example):
    request = build_replay_request(example)
    assert all(path.is_file() for _, path in request.sources.list_files())
    assert (example.folder / "README.md").is_file()


@each_example
def test_pictures_fit_the_address_of_a_record(example):
    pictures = (example.records_folder / "pictures").glob("*.png")
    assert all(path.stat().st_size <= MOST_BYTES_OF_A_PICTURE for path in pictures)


def test_the_records_are_small():
    sizes = {name: count_bytes(example.records_folder) for name, example in EXAMPLES.items()}
    assert max(sizes.values()) <= MOST_BYTES_OF_ONE
    assert sum(sizes.values()) <= MOST_BYTES_TOGETHER


@pytest.mark.parametrize("name", ["mailroom", "../examples/mail-room", "", "mail-room/records"])
def test_an_unknown_name_lists_the_examples(name):
    with pytest.raises(RefusalError, match=f"the examples are {MAIL_ROOM}"):
        find_example(name)


def test_a_key_that_no_description_has_is_refused():
    described = EXAMPLES[MAIL_ROOM].model_dump()
    with pytest.raises(ValidationError, match="hold"):
        ExampleSystem(**described, hold="x")


@pytest.mark.slow
def test_the_command_lists_them_as_text_and_as_json():
    text = CliRunner().invoke(app, ["demo", "--list"]).output
    assert re.findall(r"^([a-z-]+): ", text, re.MULTILINE) == list(EXAMPLES)
    items = json.loads(CliRunner().invoke(app, ["demo", "--list", "--json"]).output)
    assert [item["name"] for item in items] == list(EXAMPLES)
    assert items[0]["held"]["site"] == "halifax"
    assert items[0]["held"]["window"] == "night"


@pytest.mark.parametrize("name", ["moon", "..", "../examples/bears", "", "a" * 300])
def test_the_command_refuses_an_unknown_example(tmp_path, name):
    result = CliRunner().invoke(app, ["demo", name, "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert f"there is no example {name!r}; the examples are mail-room" in result.output
    assert not (tmp_path / "out").exists()
