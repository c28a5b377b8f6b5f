"""Record 0103 has what weighing audits gains and costs a renewal, as simulated."""

from pathlib import Path

import numpy as np
import pytest

from tests.docs.audits_table import BY_CONFIDENCE, UNSURE_CASES, build_audits
from tests.docs.renewals_table import (
    AT_THRESHOLD,
    ROWS,
    build_stories,
    build_table,
    compare,
    compute_averages,
    compute_renewed_share,
    find_median,
)

pytestmark = pytest.mark.slow
DOCS = Path(__file__).parents[2] / "docs"
RECORD, GUARDS = DOCS / "decisions/0103-renewals-weigh-audits.md", DOCS / "concepts/guards.md"
EVIDENCE_RISK, ENOUGH = 0.05, np.log(20)


def test_the_record_has_the_simulated_table():
    lines = RECORD.read_text(encoding="utf-8").splitlines()
    found = [tuple(line.strip("| ").split(" | ")) for line in lines if line.count("|") == 5]
    table = build_table(1000)
    assert found[2:] == table
    uniform, _, weighted = (cell.split(",")[0] for cell in table[0][1:])
    text = " ".join(GUARDS.read_text(encoding="utf-8").split())
    assert f"{weighted} instead of {uniform}." in text


def test_renewals_come_earlier_where_unsure_cases_hold_the_errors():
    """And not later where all are wrong alike: nobody knows beforehand which it is."""
    for rates, gain in ((ROWS[0], 1.4), (ROWS[1], 1.7), (ROWS[2], 1.0)):
        uniform, least, weighted = map(find_median, compare(rates, runs=300))
        assert weighted * gain <= uniform < least


@pytest.mark.parametrize("rates", AT_THRESHOLD)
def test_at_the_threshold_the_mean_of_both_rarely_ever_reaches_twenty(rates):
    """As an e-value promises: in at most 5 % of runs, here of 400 runs of 1,500 audits each."""
    assert np.dot([1 - UNSURE_CASES, UNSURE_CASES], rates) == pytest.approx(0.05)
    stories = build_stories(BY_CONFIDENCE, rates, runs=400, audits=1500)
    averages = compute_averages(stories, build_audits(BY_CONFIDENCE).weights)
    assert (averages >= ENOUGH).any(axis=1).mean() <= EVIDENCE_RISK


def test_without_weights_audits_would_renew_what_is_not_good_enough():
    """Unsure cases that are always right are half of the audits, and a tenth of the cases."""
    stories = build_stories(BY_CONFIDENCE, AT_THRESHOLD[-1], runs=50, audits=1500)
    averages = compute_averages(stories, np.ones(2))
    assert (averages >= ENOUGH).any(axis=1).mean() > 0.9


@pytest.mark.parametrize("rates", ROWS[-2:])
def test_a_model_below_the_threshold_is_rarely_renewed(rates):
    """At 93 % where 95 % are asked: at most one grant of fifty, whoever holds the errors."""
    assert compute_renewed_share(compare(rates, runs=500)[2]) <= 0.02
