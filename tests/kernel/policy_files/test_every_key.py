"""Each key of a policy is documented, in the schema, in `plan`'s words and judged when edited.

`plan --server` and `apply --dry-run` print what loosens or restarts evidence, in the words of the
loosening check. `plan` itself prints a neutral key, or the table has a reason why not.
`test_json_schema` looks for each key in the reference.
"""

import re
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Annotated

import pytest
import yaml
from pydantic import TypeAdapter

from rollout.features.policies.planning import build_policy_plan, format_plan
from rollout.kernel.policy.record_definition import is_redefined
from rollout.kernel.policy_files.document import list_paths
from rollout.kernel.policy_files.reader import InvalidPolicyError, parse_policy
from rollout.kernel.policy_files.sections import PolicySection, WrittenPolicy, build_model
from tests.kernel.policy_files import key_edits as edits
from tests.looser import say_looser_rules

HERE = Path(__file__).parent
POLICY = yaml.load((HERE / "every_key.yaml").read_text(encoding="utf-8"), Loader=yaml.BaseLoader)  # noqa: S506 - text alone
GROUPS = (edits.LOOSENS, edits.LOOSENS_EITHER_WAY, edits.REFUSED, edits.NEUTRAL)


def change(document, place, value):
    steps = [int(n) if n else name for n, name in re.findall(r"\[(\d+)\]|([^.\[]+)", place)]
    for step in steps[:-1]:
        document = document[step]
    last = steps[-1]
    if value is None:
        document.pop(last)
    elif isinstance(document, list) and last == len(document):
        document.append(value)
    else:
        document[last] = value


@cache
def parse_text(text):
    return parse_policy(text)


def read_policy(*changes):
    document = deepcopy(POLICY)
    for places in changes:
        for place, value in places.items():
            change(document, place, deepcopy(value))
    return parse_text(yaml.safe_dump(document, default_style='"', sort_keys=False))


def read_both(key, edit):
    before = edits.BEFORE.get(key, {})
    return read_policy(before), read_policy(before, edit)


def list_sections(section=PolicySection):
    for child in section.__subclasses__():
        yield child
        yield from list_sections(child)


def test_each_key_has_one_row_and_each_row_a_key():
    rows = [key for group in GROUPS for key in group]
    assert sorted(rows) == sorted(list_paths())


def test_the_schema_has_each_key_of_each_section():
    keys = {path.replace("[]", "").rsplit(".", 1)[-1] for path in list_paths()}
    sections = [build_model(WrittenPolicy), *list_sections()]
    names = {f.alias or name for s in sections for name, f in s.model_fields.items()}
    assert names <= keys


def test_a_default_is_what_the_file_would_say():
    assert list_paths()  # builds the models of all sections
    sections = [build_model(WrittenPolicy), *list_sections()]
    keys = [each for section in sections for each in section.model_fields.values()]
    written = [each for each in keys if (each.json_schema_extra or {}).get("default")]
    assert len(written) > 20
    for each in written:
        kind = TypeAdapter(Annotated[each.annotation, each])
        default = each.get_default(call_default_factory=True)
        assert kind.validate_python(each.json_schema_extra["default"]) == default


@pytest.mark.exhaustive
@pytest.mark.parametrize("key", edits.LOOSENS)
def test_a_key_that_loosens_needs_approvals_one_way(key):
    old, new = read_both(key, edits.LOOSENS[key])
    assert say_looser_rules(old, new) != ()
    assert say_looser_rules(new, old) == ()


@pytest.mark.exhaustive
@pytest.mark.parametrize("key", edits.LOOSENS_EITHER_WAY)
def test_a_key_in_doubt_needs_approvals_both_ways(key):
    old, new = read_both(key, edits.LOOSENS_EITHER_WAY[key])
    assert say_looser_rules(old, new) != ()
    assert say_looser_rules(new, old) != ()


@pytest.mark.exhaustive
@pytest.mark.parametrize("key", edits.REFUSED)
def test_a_key_without_a_meaning_there_is_refused(key):
    last_name = key.rsplit(".", 1)[-1]
    with pytest.raises(InvalidPolicyError, match=rf"\.{last_name}: "):
        read_both(key, edits.REFUSED[key])


@pytest.mark.exhaustive
@pytest.mark.parametrize("key", edits.NEUTRAL)
def test_a_neutral_key_changes_no_rule_and_no_record(key):
    old, new = read_both(key, edits.NEUTRAL[key][0])
    assert old != new
    assert say_looser_rules(old, new) == say_looser_rules(new, old) == ()
    assert not any(is_redefined(old, new, cell) for cell in old.cells)


@pytest.mark.exhaustive
def test_plan_prints_the_neutral_keys_that_have_words():
    text = format_plan(build_policy_plan(read_policy()))
    edited = {key: read_policy(edits.NEUTRAL[key][0]) for key in edits.PRINTED_BY_PLAN}
    silent = [k for k, new in edited.items() if format_plan(build_policy_plan(new)) == text]
    assert silent == []
