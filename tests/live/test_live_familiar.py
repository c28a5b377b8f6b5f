"""Familiar cases: live and replay read the same values, and records give them anew."""

from collections import Counter
from dataclasses import replace
from datetime import timedelta

import polars as pl
import pytest

from rollout.engine.events import FamiliarityChanged
from rollout.engine.slots.options import ReplayOptions
from tests.chance import list_unsealed_events
from tests.engine.slots.stories import Story, a_history, prepared
from tests.live.test_live import (
    BY_CASE,
    BY_EPISODE,
    all_at_first,
    find_evidence_faults,
    live,
    parse_policy,
    replayed,
)

STORY = Story(
    seed=3, slots=60, busy=2.5, late=0.15, missing=0.03, quiet=False, versions=2, on_grid=False
)
RULE = "evidence: {familiar: {attributes: [form, {of: size, cuts: [0, 5, 9]}], at_least: 4}, "


def with_forms(history):
    """Add a form that comes up half way, and a size that is missing now and then."""
    number = pl.col("case_key").str.slice(1).cast(pl.Int64)
    is_new = (number > pl.len() // 2) & (number % 3 == 0)
    size = pl.when(number % 11 != 0).then((number % 10).cast(pl.String))
    form = pl.when(is_new).then(pl.lit("new")).otherwise(pl.lit("old"))
    cases = history.cases.with_columns(form.alias("attribute:form"), size.alias("attribute:size"))
    return replace(history, cases=cases)


@pytest.mark.simulation
@pytest.mark.parametrize(
    ("url", "text"),
    [("sqlite", BY_CASE), ("sqlite", BY_EPISODE)],
    ids=["case", "episode"],
    indirect=["url"],
)
def test_live_and_replay_read_the_same_values_as_familiar(database, text):
    text = text.replace("evidence: {", RULE)
    policy = parse_policy(text)
    history, after = with_forms(a_history(STORY, policy)), timedelta(minutes=20)
    slots, expected = replayed(history, policy, after)
    skipping = prepared(history, policy).run(ReplayOptions(approval_delay=after))
    assert [event for event in skipping.events if event.at <= expected[-1].at] == expected
    found = live(database, text, slots, after, before_slot=all_at_first(database, "story", history))
    changes = [event for event in expected if isinstance(event, FamiliarityChanged)]
    statuses = Counter(status for event in changes for status in event.statuses)
    assert min(statuses["familiar"], statuses["mistaken"]) >= 3
    assert "Widened" in {type(event).__name__ for event in expected}
    assert list_unsealed_events(found) == list_unsealed_events(expected)
    assert find_evidence_faults(database) == []
