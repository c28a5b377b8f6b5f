"""A live report maps the stages of each policy with the floors that they held from."""

from rollout.engine.evidence.stage_history import StageHistory
from rollout.features.reports.stored_inputs import _map_stage_history
from rollout.kernel.policy_files.reader import parse_policy
from rollout.live.evidence.stage_history import LivePolicyPeriod
from tests.live.test_live_floors import FLOORED


def test_a_mapped_history_keeps_versions_and_floors():
    period = LivePolicyPeriod(parse_policy(FLOORED), first_slot=0, first_row=0)
    history = StageHistory().extend(3, 1, "v1", "0.9").extend(5, 1, "v1", "0.7").extend(9, 0)
    assert _map_stage_history(history, [period], period) == history
