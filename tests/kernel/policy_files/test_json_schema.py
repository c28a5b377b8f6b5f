import json
import re
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from rollout.kernel.policy_files.document import (
    build_policy_schema,
    list_keys,
    list_paths,
    render_policy_schema,
)
from rollout.kernel.policy_files.yaml_reader import read_document
from tests.shipped_policies import SHIPPED_POLICIES

ROOT = Path(__file__).parents[3]
SHARED = {
    f"shared-{path.stem}": path for path in sorted((ROOT.parent / "shared/policies").glob("*.yaml"))
}
POLICIES = SHIPPED_POLICIES | SHARED
VALIDATOR = Draft202012Validator(build_policy_schema())


class Editor(yaml.SafeLoader):
    """Reads numbers and booleans as an editor that knows YAML 1.2 does; the rest stays text."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - the attribute that PyYAML looks at


Editor.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"-?\d+$"), list("-0123456789"))
Editor.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"-?\d+\.\d+$"), list("-0123456789")
)


def test_the_shipped_schema_is_the_generated_one():
    shipped = (ROOT / "config" / "policy.schema.json").read_text(encoding="utf-8")
    again = "python -m rollout.kernel.policy_files.document > config/policy.schema.json"
    assert shipped == render_policy_schema(), again


def test_the_schema_is_a_schema():
    Draft202012Validator.check_schema(json.loads(render_policy_schema()))


@pytest.mark.parametrize("path", POLICIES.values(), ids=POLICIES)
def test_each_policy_fits_the_schema_as_text_and_as_editors_read_it(path):
    text = path.read_text(encoding="utf-8")
    for value in (read_document(text).value, yaml.load(text, Loader=Editor)):  # noqa: S506 - a safe one
        assert [error.message for error in VALIDATOR.iter_errors(value)] == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"timezone": None},
        {"evidence": {"unit": "kase"}},
        {"evidence": {"unit": "case", "grace": "24"}},
        {"gates": []},
        {"gate": []},
        {"sites": [{"place": [1, 2]}]},
        {"observe": "maybe"},
    ],
)
def test_the_schema_refuses_what_has_the_wrong_form(wrong):
    smallest = read_document((ROOT / "config/policies/smallest.yaml").read_text(encoding="utf-8"))
    assert isinstance(smallest.value, dict)
    assert not VALIDATOR.is_valid(smallest.value | wrong)


def test_each_key_is_explained_in_the_docs():
    named = set(
        re.findall(
            r"`([^`]+)`", (ROOT / "docs" / "reference" / "policy.md").read_text(encoding="utf-8")
        )
    )
    assert [path for path in list_paths() if path not in named] == []


def test_the_docs_name_no_key_that_is_none():
    page = (ROOT / "docs" / "reference" / "policy.md").read_text(encoding="utf-8")
    rows = [line.split(" | ")[0] for line in page.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`([^`]+)`", row)}
    measures = set(VALIDATOR.schema["$defs"]["Condition"]["properties"]["measure"]["enum"])
    assert named - measures <= set(list_paths())


def test_the_description_knows_the_keys_of_any_place():
    assert "tolerance" in list_keys(("levers", 0, "number"))
    assert list_keys(("levers", 0, "actions")) == ()
