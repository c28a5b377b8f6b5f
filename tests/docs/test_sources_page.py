"""The page about sources: its command replays, and its policy is read."""

import re
from datetime import timedelta

import pytest

from rollout.kernel.policy.evidence_sources import AccountSource, EvidenceSources
from rollout.kernel.policy_files.reader import parse_policy
from tests.docs.pages import text_of, typed
from tests.docs.test_docs import folder, run

PAGE = "docs/concepts/sources.md"

__all__ = ["folder"]


@pytest.mark.slow
def test_the_command_chooses_the_sources_in_a_replay(folder):
    (replay,) = [one.line for one in typed(PAGE)]
    head = " ".join(run(replay).split("\n- ")[0].split())
    assert "Only decisions of decisions.csv count" in head


def test_the_policy_of_the_page_names_these_sources(folder):
    named, registering, vouched = (
        parse_policy(
            "rollout: ramps\ntimezone: UTC\nlevers: [{id: parcel, labels: [a, b]}]\nsites: [x]\n"
            "gates: [{to: supervised, require: [{measure: agreement, at_least: 95%}]}]\n"
            + text.replace("evidence:\n", "evidence:\n  unit: case\n")
        ).evidence.sources
        for text in re.findall(r"```yaml\n(.*?)```", text_of(PAGE), re.DOTALL)
    )
    account = AccountSource("desk-tool", ("clerk-*",))
    assert named == EvidenceSources(accounts=(account,), outcomes=("till",))
    assert registering == EvidenceSources(cases=("camera-1",))
    assert vouched.vouched == {"box-7": timedelta(hours=50)}
