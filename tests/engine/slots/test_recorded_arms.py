"""A replay whose arms are not those of its records is refused."""

from datetime import timedelta

import pytest

from rollout.engine.slots.options import ReplayOptions
from rollout.features.replay.replay import RecordedArmsError, replay_files
from rollout.features.replay.requests import ReplayRequest
from tests.engine.slots.pricing import POLICY, SALT, START, write_stream

QUICK = POLICY.replace("{to: trial,", "{to: trial, minimum: {units: 20, days: 1},")
ARMS_REFUSED = r"units were in another arm.*Pass the --salt.*another system's experiment"
SHARES = ((START + timedelta(hours=12), 0.1),)


def replay(folder, *, salt=SALT, policy=QUICK, has_gain=True):
    paths = write_stream(folder, gain=0, differs=0.1, days=5, shares=SHARES, has_gain=has_gain)
    (folder / "policy.yaml").write_text(policy)
    return replay_files(ReplayRequest(folder / "policy.yaml", paths, options=ReplayOptions(salt)))


def test_the_salt_of_the_record_gives_its_arms(tmp_path):
    replayed = replay(tmp_path)
    assert replayed.records.predictions["sampled_arm"].drop_nulls().n_unique() == 2
    assert replayed.result.scope.cells


@pytest.mark.parametrize(
    "change",
    [
        {"salt": bytes([7]) * 32},
        {"policy": QUICK.replace("share: 10%, audit", "share: 40%, audit")},
    ],
)
def test_another_salt_or_share_is_refused(tmp_path, change):
    with pytest.raises(RecordedArmsError, match=ARMS_REFUSED):
        replay(tmp_path, **change)


def test_records_without_arms_are_not_compared(tmp_path):
    assert replay(tmp_path, salt=bytes([7]) * 32, has_gain=False).result.scope.cells


def test_units_outside_all_windows_have_no_arms(tmp_path):
    hours = 'sites: [shop]\nwindows: [{id: day, hours: "06:00-18:00"}]'
    assert replay(tmp_path, policy=QUICK.replace("sites: [shop]", hours)).result.scope.cells


def test_an_arm_that_is_none_is_refused_by_row(tmp_path):
    paths = write_stream(tmp_path, gain=0, differs=0.1, days=1)
    lines = paths.predictions.read_text().splitlines()
    lines[4] += "treatment"
    paths.predictions.write_text("\n".join(lines))
    (tmp_path / "policy.yaml").write_text(QUICK)
    request = ReplayRequest(tmp_path / "policy.yaml", paths)
    replayed = replay_files(request)
    rejected = replayed.records.rejected.filter(replayed.records.rejected["reason"] == "bad-word")
    assert rejected["detail"].to_list() == ["'treatment' is none of model, human"]
