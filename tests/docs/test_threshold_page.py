"""The table of rules on the page about plain thresholds, simulated anew."""

from functools import cache
from math import inf, log
from statistics import median

import numpy as np
import pytest

from rollout.kernel.policy.gates import compute_yearly_share
from rollout.kernel.statistics.evidence import compute_log_e
from rollout.kernel.statistics.forecast import forecast_opening
from tests.docs.pages import ROOT

RUNS, LOOKS, EACH, THRESHOLD = 1_500, 40, 50, 0.95
PAGE = (ROOT / "docs/concepts/threshold.md").read_text(encoding="utf-8")
FIRST_ATTEMPT = log(1 / (0.05 * compute_yearly_share(1)))
read_log_e = cache(compute_log_e)


def is_good(agreed):
    return agreed >= THRESHOLD * EACH


def pass_one_window(windows, _):
    return is_good(windows[-1])


def pass_three_windows(windows, _):
    return len(windows) >= 3 and all(map(is_good, windows[-3:]))


def pass_overall(windows, agreed):
    return len(windows) >= 2 and agreed >= THRESHOLD * EACH * len(windows)


def pass_gate(windows, agreed):
    disagreed = EACH * len(windows) - agreed
    return read_log_e(agreed, disagreed, at_least=THRESHOLD) >= FIRST_ATTEMPT


RULES = {
    "one good window of 50": pass_one_window,
    "three good windows in a row": pass_three_windows,
    "overall share, from 100 cases on": pass_overall,
    "**e-value of `rollout`, first attempt of a year**": pass_gate,
}


def simulate(rule, agreement):
    """Return the cases until each of some models passes a rule."""
    counts = np.random.default_rng(1).binomial(EACH, agreement, size=(RUNS, LOOKS)).tolist()
    return [find_pass(rule, windows) for windows in counts]


def find_pass(rule, windows):
    agreed = 0
    for look, count in enumerate(windows, start=1):
        agreed += count
        if rule(windows[:look], agreed):
            return EACH * look
    return inf


@pytest.mark.parametrize("name", RULES)
def test_a_rule_passes_as_many_models_as_the_page_says(name):
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| {name} "))
    weak, good, cases = (cell.strip(" *%") for cell in row.split("|")[2:5])
    for agreement, share in ((0.94, weak), (0.97, good)):
        passed = simulate(RULES[name], agreement)
        assert 100 * sum(at < inf for at in passed) / RUNS == pytest.approx(float(share), abs=2.5)
    assert median(simulate(RULES[name], 0.98)) == float(cases)


def test_pages_name_the_median_cases_of_a_first_attempt():
    share = compute_yearly_share(1)
    cases = forecast_opening(0.98, at_least=THRESHOLD, alpha=0.05 * share).median
    for page in ("README.md", "docs/concepts/any-time.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        assert f"a gate at 95 % needs about {round(cases, -1)} cases (median)" in text, page
