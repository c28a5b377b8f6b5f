"""Readings of a proposal in brief: results with their unit, not counts by cost level."""

from api.console.page.figures import format_brief
from api.console.page.text import describe_alarm
from tests.factories import policy

LOG_E = ", log E 12.3 of 4.6 (risk 0.01)"


def test_a_cost_is_a_mean_with_its_unit_and_a_share_is_a_count():
    bears = policy()
    counts = [1043, *range(5, 5 * len(bears.cost_levels), 5)]
    mean = sum(n * c for n, c in zip(counts, bears.cost_levels, strict=True)) / sum(counts)
    cost = f"cost at most 2: {' '.join(map(str, counts))}{LOG_E}"
    share = f"agreement at least 92 %: 1041 of 1092{LOG_E}"
    assert format_brief((cost, share), bears) == (
        f"cost at most 2: mean {mean:.3f} points over {sum(counts):,} units; "
        "agreement at least 92 %: 1,041 of 1,092"
    )


def test_a_reading_without_figures_stays_as_it_is():
    assert format_brief(("stop S-1 of 3 cells",), policy()) == "stop S-1 of 3 cells"


def test_the_reason_of_an_alarm_names_what_failed():
    reason = "agreement at least 90 %: 15 of 1820 records against it"
    assert describe_alarm(reason) == "agreement at least 90 %: 15 of 1,820 records failed it"
