"""The pages have what audits by confidence gain and cost, as simulated."""

from pathlib import Path

import numpy as np
import pytest

from tests.docs.audits_table import (
    BY_CONFIDENCE,
    REFERENCE,
    ROWS,
    UNIFORM,
    build_audits,
    build_table,
    count_false_alarms,
    simulate,
)

DOCS = Path(__file__).parents[2] / "docs"
PAGE, GUARDS = DOCS / "decisions" / "0101-audits-follow-confidence.md", DOCS / "concepts/guards.md"


@pytest.mark.slow
def test_the_page_has_the_simulated_medians():
    rows = [
        line.split(" | ")[1:]
        for line in PAGE.read_text(encoding="utf-8").splitlines()
        if line.startswith("| ") and line.count("|") == 4 and "%, " in line and "errors" not in line
    ]
    numbers = [[int(part.strip(" |").replace(",", "")) for part in row] for row in rows]
    assert numbers == [[uniform, weighted] for _, uniform, weighted in build_table(300)]
    assert len(numbers) == len(ROWS)
    text = " ".join(GUARDS.read_text(encoding="utf-8").split())
    (uniform, weighted), *_, (alike, alike_weighted) = numbers
    assert f"{weighted} audits instead of {uniform:,} if unsure cases got worse" in text
    assert f"{alike_weighted} instead of {alike} if all did" in text


@pytest.mark.slow
def test_false_alarms_stay_as_rare_as_promised():
    assert all(0 < count <= 3 for count in count_false_alarms(40))


def test_as_many_cases_are_audited_both_ways():
    shares = build_audits(BY_CONFIDENCE).shares
    assert shares @ [0.9, 0.1] == pytest.approx(build_audits(UNIFORM).shares @ [0.9, 0.1])
    assert build_audits(UNIFORM).weights.tolist() == [1, 1]
    assert build_audits(BY_CONFIDENCE).weights == pytest.approx([1, 0.1])


def test_without_weights_such_audits_would_alarm_at_once():
    """At the reference, where only the unsure cases are often wrong."""
    audits = build_audits(BY_CONFIDENCE)
    unweighted = audits._replace(weights=np.ones(2))
    assert np.dot([0.9, 0.1], [0.01, 0.41]) == pytest.approx(REFERENCE)
    first, alarms = simulate(unweighted, (0.01, 0.41), runs=10, records=2000, seed=4)
    assert alarms > 10
    assert np.median(first) < 200
