"""Deciding a replay's slots reads arrays; frames are built once a cell and version."""

import pytest

from rollout.engine.slots.engine import Replay
from rollout.features.demo.catalog import build_replay_request, find_example
from rollout.features.replay.replay import replay_files
from tests.features.reports.collects import count_collects

pytestmark = pytest.mark.simulation


@pytest.mark.parametrize(
    ("example", "collects_per_view"),
    [("mail-room", 0), ("bears", 4)],  # bears has guards on episodes and silence
)
def test_no_slot_of_a_replay_builds_a_frame(example, collects_per_view, monkeypatch):
    run, collect_counts = Replay.run, []

    def run_counted(replay, progress=None):
        results = []
        collect_counts.append(count_collects(lambda: results.append(run(replay, progress))))
        return results[0]

    monkeypatch.setattr(Replay, "run", run_counted)
    result = replay_files(build_replay_request(find_example(example))).result
    assert result.ticks > 50
    assert collect_counts[0] <= collects_per_view * len(result.views)
