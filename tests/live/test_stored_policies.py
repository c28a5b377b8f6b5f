"""Stored policies were checked when they were applied: loading them takes no arrays."""

import subprocess
import sys

import pytest

from rollout.kernel.policy_files.reader import parse_policy
from tests.kernel.policy_files.test_reader import HOURS, SMALL

pytestmark = pytest.mark.slow

SCRIPT = """
import sys
from rollout.live.rollout_state import parse_stored_policy

policy = parse_stored_policy(sys.stdin.read())
print(policy.hash, "numpy" in sys.modules)
"""


def test_stored_policy_with_hours_is_read_without_arrays():
    text = f"{SMALL}{HOURS}"
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT], input=text, capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == [parse_policy(text).hash, "False"]
