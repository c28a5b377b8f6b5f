"""The policies that readers of the pages made for tasks of their own: each can be planned.

A reader who had seen nothing but the page changed the example's policy for another field and had it
run within ten minutes. The first line of each file names the task.
"""

from pathlib import Path

import pytest

from rollout.features.demo.catalog import list_examples
from rollout.features.policies.planning import build_policy_plan, format_plan
from rollout.kernel.policy_files.reader import load_policy

FILES = {path.stem: path for path in sorted((Path(__file__).parent / "own_tasks").glob("*.yaml"))}
EXAMPLES = {example.name: example for example in list_examples()}


@pytest.mark.parametrize("name", FILES)
def test_a_readers_policy_is_of_another_field_and_can_be_planned(name):
    policy, example = load_policy(FILES[name]), load_policy(EXAMPLES[name].policy_path)
    assert FILES[name].read_text(encoding="utf-8").startswith("# ")
    assert policy.rollout != example.rollout
    assert not {site.id for site in policy.sites} & {site.id for site in example.sites}
    assert format_plan(build_policy_plan(policy)).startswith(f"Plan of {policy.rollout}: ")


def test_every_page_had_a_reader():
    assert FILES.keys() == EXAMPLES.keys()
