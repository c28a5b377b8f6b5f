"""A gate on gain over all cells of a site, replayed."""

import numpy as np
import pytest

from rollout.core.calendar.sites import Cell
from rollout.core.scope.events import ProposalRaised
from rollout.core.statistics.sampling import compute_sampling_values
from rollout.replay.options import ReplayOptions
from rollout.services.replay.replay import replay_files
from rollout.services.replay.requests import ReplayRequest
from rollout.tally.outcome_resolution import resolve_outcome_units
from tests.replay.pricing import POLICY, SALT, replay_pricing, write_stream

GATE = "{measure: gain, of: profit, at_least: 0}"
DAY, NIGHT = Cell("shop", "day"), Cell("shop", "night")


def build_policy(pool):
    pooled = GATE.replace("}", f", pool: {pool}}}, {{measure: agreement, at_least: 40%}}")
    windows = "windows: [{id: day, hours: '06:00-18:00'}, {id: night, hours: '18:00-06:00'}]"
    minimum = "minimum: {units: 20, days: 1}"
    text = POLICY.replace("sites: [shop]", f"sites: [shop]\n{windows}")
    text = text.replace(f"[{GATE}]", f"[{pooled}], {minimum}")
    return text.replace("at_least: 40%}]", f"at_least: 40%}}], {minimum}", 1)


@pytest.fixture(scope="module")
def pooled(tmp_path_factory):
    """A site whose nights begin their trial late: its days count for them."""
    folder = tmp_path_factory.mktemp("pooled")
    return replay_pricing(folder, build_policy("site"), gain=0, differs=0.1, days=14)


def test_a_cell_counts_the_units_of_all_cells_of_its_site(pooled):
    outcome = pooled.policy.outcomes[0]
    condition = pooled.policy.gates[1].require[0]
    units = resolve_outcome_units(pooled.records, pooled.history, pooled.policy, outcome)
    expected = []
    for cell in (DAY, NIGHT):
        part = units.filter((units["site"] == cell.site) & (units["window"] == cell.window))
        history = pooled.result.stage_histories[cell]
        levels = history.find_own_levels("v1", part["occurred"].to_numpy())
        values = compute_sampling_values(SALT, "stage", part["unit"])
        is_model = values >= np.array([np.nan, 0.9, 0.5])[levels]
        is_counted = (levels > 0) & (part["slot"].to_numpy() <= pooled.result.last_slot)
        expected += list(
            zip(part["slot"].to_numpy()[is_counted], is_model[is_counted], strict=True)
        )
        assert is_counted.any()
    for cell in (DAY, NIGHT):
        evidence = pooled.result.views[cell, "v1"].read_evidence(pooled.result.last_slot)
        arms = evidence.attempt.arms[condition.key]
        assert sorted(zip(arms.slots, arms.is_model, strict=True)) == sorted(expected)


@pytest.mark.slow
def test_a_pool_opens_for_each_cell_in_the_same_slots_with_idle_ones_skipped(tmp_path):
    paths = write_stream(tmp_path, gain=0, differs=0.1, days=6, a_day=60)
    text = build_policy("site").replace("of: profit, at_least: 0", "of: profit, at_least: -30")
    (tmp_path / "policy.yaml").write_text(text)
    ledgers = []
    for skips in (True, False):
        options = ReplayOptions(SALT, skip_idle_slots=skips)
        request = ReplayRequest(tmp_path / "policy.yaml", paths, options=options)
        ledgers.append(replay_files(request).result.events)
    assert ledgers[0] == ledgers[1]
    raised = {
        event.cell: event
        for event in ledgers[0]
        if isinstance(event, ProposalRaised) and event.to_stage == "half"
    }
    assert set(raised) == {DAY, NIGHT}
    assert (
        raised[DAY]
        .readings[0]
        .startswith("gain of profit over all cells of the site at least -30 EUR: ")
    )
