"""What a plan says of each confidence floor: its share of cases, where it opens and when."""

import numpy as np
import pytest

from rollout.features.policies.planning import build_policy_plan, format_plan
from rollout.features.policies.traffic import compute_recorded_traffic
from rollout.features.replay.replay import replay_files
from rollout.kernel.policy.gates import compute_yearly_share
from rollout.kernel.statistics.forecast import forecast_opening
from tests.engine.slots.test_confidence_floors import BANDS, MAIL, write_rows

LETTERS = 2_000  # 25 in a quarter of an hour, so they are of one day


def draw_letters(shares):
    """Return letters of four confidence bands that agree as often as `shares` says."""
    rng = np.random.default_rng(8)
    bands = rng.choice(4, LETTERS, p=[0.4, 0.3, 0.2, 0.1])
    agrees = rng.random(LETTERS) < np.array(shares)[bands]
    return bands, agrees


def plan_letters(folder, bands, agrees, policy=MAIL):
    rows = [
        (str(i), "claims" if agrees[i] else "sales", "claims", BANDS[bands[i]])
        for i in range(LETTERS)
    ]
    files = replay_files(write_rows(folder, policy, "v1", rows))
    traffic = compute_recorded_traffic(files.records, files.policy)
    plan = build_policy_plan(files.policy, traffic)
    return traffic, plan, format_plan(plan).replace("\N{NO-BREAK SPACE}", " ")


@pytest.mark.slow
def test_a_plan_says_of_each_floor_how_many_cases_and_decisions_it_has(tmp_path):
    bands, agrees = draw_letters((0.6, 0.94, 0.96, 0.98))
    traffic, plan, text = plan_letters(tmp_path, bands, agrees)
    alpha = plan.policy.gates[0].risk * compute_yearly_share(1, plan.policy.evidence.releases) / 4
    for i, name in enumerate(("all cases that have a confidence", "0.6", "0.8", "0.9")):
        reached = agrees[bands >= i]
        (cell,) = traffic.floor_cells[i].values()
        assert cell.units_per_day == pytest.approx(reached.size)  # all on one day
        (line,) = (
            line
            for line in text.splitlines()
            if f"    {name}" in line or f" {name} or more" in line
        )
        if i == 0:
            assert reached.mean() < 0.9
            assert line.endswith(": not expected to open in any of 1 cell")
            continue
        law = forecast_opening(round(reached.mean(), 4), at_least=0.9, alpha=alpha)
        share = reached.size / LETTERS
        assert line.startswith(
            f"    cases of confidence {name} or more ({share:.0%} of these): ".replace("%", " %")
        )
        assert "expected to open in 1 of 1 cell, first in lisbon" in line
        assert line.endswith(f" and {law.median:,} decisions on them")
    assert "not expected to open at the lowest confidence floor" in text
    assert "is not expected to open" not in "\n".join(w.text for w in plan.warnings)


@pytest.mark.slow
def test_a_gate_that_no_floor_opens_is_warned_of(tmp_path):
    _, plan, text = plan_letters(tmp_path, *draw_letters((0.8, 0.8, 0.8, 0.8)))
    assert text.count("not expected to open in any of 1 cell") == 4
    warnings = [warning.text for warning in plan.warnings]
    assert any("supervised is not expected to open: agreement" in warning for warning in warnings)


@pytest.mark.slow
def test_a_grant_that_a_stricter_floor_renews_is_not_warned_of(tmp_path):
    policy = MAIL.replace("lasts: 3650d", "lasts: 30d")
    for name, shares, is_warned in (
        ("strict", (0.6, 0.94, 0.99, 0.995), False),
        ("none", (0.8, 0.8, 0.8, 0.8), True),
    ):
        (tmp_path / name).mkdir()
        _, plan, _ = plan_letters(tmp_path / name, *draw_letters(shares), policy)
        texts = [warning.text for warning in plan.warnings]
        assert any("a grant of supervised lasts 4 weeks" in text for text in texts) == is_warned


@pytest.mark.slow
def test_one_floor_has_no_lines_of_its_own(tmp_path):
    policy = MAIL.replace("confidence_floors: [0%, 60%, 80%, 90%]", "confidence_floor: 60%")
    _, _, text = plan_letters(tmp_path, *draw_letters((0.6, 0.94, 0.96, 0.98)), policy)
    assert "of these" not in text
    assert "confidence floor" not in text
