"""The model's actions are counted by the kind of their permit."""

from dataclasses import replace

import polars as pl
import pytest

from rollout.features.reports.figures.oversight import PermitCount, count_permits
from rollout.features.reports.inputs.inputs import ACTION_SCHEMA
from tests.factories import NOON


@pytest.fixture
def begun(replay_of, case):
    return replay_of([case("c1", case("x").at, human="bear", model={"v1": "bear"})])


def test_a_replay_has_no_actions_to_count(begun):
    assert count_permits(begun) == ()


def test_each_kind_is_counted_with_each_authorization_and_people_need_no_permit(begun):
    rows = [
        ("c1", "model", "authorized", "bound"),
        ("c2", "model", "authorized", "bound"),
        ("c3", "model", "unauthorized", "bound"),
        ("c4", "model", "authorized", "unbound"),
        ("c5", "model", "unauthorized", None),
        ("c6", "model", "authorized_within_lease", "unbound"),
        ("c7", "person", "not_required", None),
    ]
    table = pl.DataFrame(
        [(key, "alarm", "siren", by, "v1", NOON, *rest) for key, by, *rest in rows],
        schema=ACTION_SCHEMA,
        orient="row",
    )
    assert count_permits(replace(begun, actions=table)) == (
        PermitCount("bound", "authorized", 2),
        PermitCount("bound", "unauthorized", 1),
        PermitCount("none", "unauthorized", 1),
        PermitCount("unbound", "authorized", 1),
        PermitCount("unbound", "authorized_within_lease", 1),
    )
